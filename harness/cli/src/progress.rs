//! Bars on stderr. They draw nothing where stderr is no terminal; [`line_at_tenth`] says there how far a run is.

use std::time::Duration;

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

/// Says on stderr how far a bar is where it draws nothing and a tenth of it lies behind position `before`.
pub fn line_at_tenth(bar: &ProgressBar, what: &str, before: u64) {
    let (done, total) = (bar.position(), bar.length().unwrap_or(0));
    if bar.is_hidden() && tenth(done, total) > tenth(before, total) {
        eprintln!("{done} of {total} {what}, {:#} so far", indicatif::HumanDuration(bar.elapsed()));
    }
}

fn tenth(done: u64, total: u64) -> u64 {
    10 * done / total.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_begins_where_a_tenth_of_all_is_done() {
        assert_eq!([2, 3, 7, 25].map(|done| tenth(done, 25)), [0, 1, 2, 10]);
        assert_eq!(tenth(0, 0), 0);
    }
}
