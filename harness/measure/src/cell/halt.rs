//! Reasons to end a run before its work is done.

use std::sync::atomic::{AtomicBool, Ordering};

use harness_spec::units::Nanos;

/// What a run says that has used up its time.
pub const OUT_OF_TIME: &str = "the time budget was used up";

/// Asked between two calls of the target, never inside one.
#[derive(Clone, Copy, Debug)]
pub struct Halt<'a> {
    /// Set by Ctrl-C or whoever else ends the run.
    pub stop: &'a AtomicBool,
    /// Time since the start of the run at which it has to end; `None` is never.
    pub deadline: Option<Nanos>,
}

impl Halt<'_> {
    /// Why to end now; `None` to go on.
    pub fn asked(&self, elapsed: Nanos) -> Option<&'static str> {
        if self.stop.load(Ordering::Relaxed) {
            return Some("the run was stopped");
        }
        if self.deadline.is_some_and(|d| elapsed >= d) {
            return Some(OUT_OF_TIME);
        }
        None
    }

    /// Whether the run was stopped, as opposed to having used up its time.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
