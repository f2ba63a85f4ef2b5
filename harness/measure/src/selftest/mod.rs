//! The statistics held against numbers whose truth is known (R15, MEASURING.md §7): how often an interval covers, how often
//! equals are told apart, how often a difference of three percent is found.
//!
//! On the scripted device and its mock clock the truth is scripted. On hardware a kernel raced against itself is the truth.

mod duels;
mod engines;
mod figures;
mod hardware;

use std::sync::atomic::{AtomicBool, Ordering};

use harness_spec::record::SelftestFigure;

pub use hardware::{OnHardware, on_target};

/// The slowdown that has to be found.
pub const INJECTED: f64 = 0.03;

/// Most false verdicts, as a share of the suites in which nothing differs.
pub const MOST_FALSE: f64 = 0.05;

/// Least share of the suites with an injected slowdown in which it is found.
pub const LEAST_FOUND: f64 = 0.95;

/// Level of the intervals whose coverage is counted.
pub const LEVEL: f64 = 0.95;

/// How far an estimate of equals may lie beyond its own noise floor: the floor is the 95th percentile of such estimates,
/// taken from 30 samples of the very duel, and is itself uncertain by as much again.
pub const MOST_BEYOND_FLOOR: f64 = 0.10;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Suites of kernels without a difference, and as many with one.
    pub suites: u64,
    /// Comparisons of whole engines without a difference, and as many with one.
    pub comparisons: u64,
    /// Runs a side of such a comparison.
    pub runs: u64,
    /// Resamples of each interval.
    pub resamples: usize,
    /// Challengers of a suite's run-off.
    pub challengers: usize,
    /// Whether samples have clocks, so that verdicts must hold in cycles as well.
    pub clocks: bool,
}

impl Effort {
    /// That of the rule: 100 suites of each kind, a run-off of three finalists and a defender, 100 runs a side.
    pub const FULL: Effort =
        Effort { suites: 100, comparisons: 100, runs: 100, resamples: 2000, challengers: 3, clocks: true };
    /// A few seconds without optimisation of the rest: the suites of the rule, with shorter families and bootstraps.
    pub const CHEAP: Effort =
        Effort { suites: 100, comparisons: 20, runs: 40, resamples: 300, challengers: 2, clocks: false };
}

/// Every figure of the scripted device. `progress` hears of each suite; `None` if the run was stopped.
pub fn scripted(
    seed: u64,
    effort: &Effort,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(),
) -> Option<Vec<SelftestFigure>> {
    let mut go_on = || {
        progress();
        !stop.load(Ordering::Relaxed)
    };
    let mut out = duels::figures(seed, effort, &mut go_on)?;
    out.extend(engines::figures(seed, effort, &mut go_on)?);
    Some(out)
}

/// How many times `progress` is told of a suite.
pub fn steps(effort: &Effort) -> u64 {
    // Suites of equals, of a slowdown, and of equals where noise lasts; comparisons of equals and of a slowdown.
    3 * effort.suites + 2 * effort.comparisons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_the_harness_are_calibrated_on_the_scripted_device() {
        let figures = scripted(1, &Effort::CHEAP, &AtomicBool::new(false), &mut || {}).unwrap();
        assert_eq!(figures.len(), 10, "{figures:#?}");
        for f in &figures {
            assert!(f.passed, "{f:#?}");
        }
        // Bounds that nothing could leave would say nothing.
        assert!(figures.iter().filter(|f| f.at_least.is_some() || f.at_most.is_some()).count() >= 9);
    }

    #[test]
    fn a_selftest_that_is_stopped_has_no_figures() {
        assert!(scripted(1, &Effort::CHEAP, &AtomicBool::new(true), &mut || {}).is_none());
    }
}
