//! Bars on stderr. They draw nothing where stderr is no terminal; [`Tenths`] says there in lines how far a run is.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` steps with the time left.
pub fn steps(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
    bar.set_style(
        ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}, {elapsed} so far, {eta} left")
            .expect("the template is a constant that parses"),
    );
    bar.set_message(what);
    bar
}

/// A bar over bytes.
pub fn bytes(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
    bar.set_style(
        ProgressStyle::with_template("{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {eta}")
            .expect("the template is a constant that parses"),
    );
    bar.set_message(what);
    bar
}

/// A spinner for work of unknown length.
pub fn wait(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is a constant that parses"),
    );
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// A line on stderr when another tenth of a run is done, where stderr is no terminal.
pub struct Tenths {
    what: &'static str,
    total: u64,
    done: u64,
    begun: Instant,
    speaks: bool,
}

impl Tenths {
    /// Of `total` of what `what` names in the plural.
    pub fn new(what: &'static str, total: u64) -> Tenths {
        Tenths { what, total, done: 0, begun: Instant::now(), speaks: !std::io::stderr().is_terminal() }
    }

    /// So many more are done.
    pub fn add(&mut self, more: u64) {
        let before = self.tenth();
        self.done += more;
        if self.speaks && self.tenth() > before {
            let so_far = indicatif::HumanDuration(self.begun.elapsed());
            eprintln!("{} of {} {}, {so_far:#} so far", self.done, self.total, self.what);
        }
    }

    fn tenth(&self) -> u64 {
        10 * self.done / self.total.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_begins_where_a_tenth_of_all_is_done() {
        let mut tenths = Tenths { speaks: false, ..Tenths::new("requests", 25) };
        let mut after = |more| {
            tenths.add(more);
            tenths.tenth()
        };
        assert_eq!([2, 1, 4, 18].map(&mut after), [0, 1, 2, 10]);
        assert_eq!(Tenths::new("requests", 0).tenth(), 0);
    }
}
