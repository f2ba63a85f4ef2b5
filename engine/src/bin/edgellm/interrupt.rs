//! Ctrl-C while a model answers: the first stops the answer, the second ends the program.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use crate::exit::INTERRUPTED;

/// Hears Ctrl-C from its making on.
#[derive(Clone)]
pub struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    is_answering: AtomicBool,
    is_stopped: AtomicBool,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system.
    ///
    /// # Errors
    /// Where the system does not let it.
    pub fn listen() -> std::io::Result<Interrupt> {
        let interrupt = Interrupt(Arc::default());
        let state = interrupt.0.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, is_ready) = mpsc::channel();
        std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
            runtime.block_on(async {
                // The handler is in place once the future has been made and polled for the first time.
                let mut next = Box::pin(tokio::signal::ctrl_c());
                let _ = futures_util::future::poll_immediate(&mut next).await;
                let _ = ready.send(());
                while next.await.is_ok() {
                    state.heard();
                    next = Box::pin(tokio::signal::ctrl_c());
                }
            });
        })?;
        // The thread answers at once, or has ended because there is no such signal here; both are fine.
        let _ = is_ready.recv();
        Ok(interrupt)
    }

    /// An answer begins.
    pub fn begin(&self) {
        self.0.is_stopped.store(false, Ordering::SeqCst);
        self.0.is_answering.store(true, Ordering::SeqCst);
    }

    /// The answer is over. Returns whether it was stopped.
    pub fn end(&self) -> bool {
        self.0.is_answering.store(false, Ordering::SeqCst);
        self.is_stopped()
    }

    /// Whether the answer is to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.is_stopped.load(Ordering::SeqCst)
    }
}

impl State {
    fn heard(&self) {
        let is_answering = self.is_answering.load(Ordering::SeqCst);
        if !is_answering || self.is_stopped.swap(true, Ordering::SeqCst) {
            eprintln!();
            process::exit(INTERRUPTED.into());
        }
    }
}
