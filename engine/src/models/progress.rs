//! How far a long transfer or check has come, told to whoever shows it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Hears how a transfer goes on. The library itself prints nothing.
pub trait Progress {
    /// A new stretch of work begins: what it is, its bytes if known, and how many were there already.
    fn begin(&mut self, what: &str, total: Option<u64>, already: u64);
    /// So many bytes of the stretch are done now, in all.
    fn reached(&mut self, bytes: u64);
    /// Something a person should know, such as a connection that was taken up again.
    fn note(&mut self, message: &str);
    /// The stretch is over.
    fn end(&mut self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: Option<u64>, _: u64) {}
    fn reached(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
    fn end(&mut self) {}
}

/// A bar on stderr. It draws nothing when stderr is not a terminal; notes are written either way.
#[derive(Debug, Default)]
pub struct TerminalProgress {
    bar: Option<ProgressBar>,
}

impl TerminalProgress {
    /// A bar that appears when work begins.
    pub fn new() -> TerminalProgress {
        TerminalProgress::default()
    }
}

impl Progress for TerminalProgress {
    fn begin(&mut self, what: &str, total: Option<u64>, already: u64) {
        let style = match total {
            Some(_) => "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(style).expect("the template is a constant that parses"));
        bar.set_message(what.to_owned());
        bar.set_position(already);
        // The rate is of this run alone: what an earlier run fetched would make it look impossibly fast.
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn reached(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn note(&mut self, message: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(message),
            _ => eprintln!("{message}"),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
