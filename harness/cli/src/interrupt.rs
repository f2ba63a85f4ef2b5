//! Ctrl-C, and a polite kill, end a run with what was measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels. A second one ends the process at once, for whoever does not want to
/// wait for the report.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut int = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        eprintln!("interrupted: ending here and keeping what was measured (again to quit at once)");
        cancel.cancel();
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        std::process::exit(i32::from(crate::Exit::Unmeasured.code()));
    });
    Ok(token)
}

/// A flag that the first SIGINT or SIGTERM sets, for work that no runtime drives. A second one ends the process at once.
pub fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            // Where no handler can be set, a signal ends the process; its journal keeps what was measured.
            if let Ok(token) = on_signal() {
                token.cancelled().await;
                set.store(true, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
        });
    })?;
    Ok(flag)
}
