//! Bars on stderr. They draw nothing where stderr is no terminal.

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
