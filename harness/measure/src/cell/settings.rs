//! Every number of sampling in one place, with the values of the law (MEASURING.md §4–§6).

use harness_spec::units::{Bytes, Nanos};

use crate::noise::LEAST_TAU;

/// How a cell is warmed, sampled and stopped. [`Settings::default`] is the law; tests shorten it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Least length of a warm-up group.
    pub group: Nanos,
    /// Three consecutive group medians within this share of each other are a plateau.
    pub level: f64,
    /// Most device time of a candidate's warm-up.
    pub warm_up_limit: Nanos,
    /// Most device time of the burn-in before the first cell.
    pub burn_in_limit: Nanos,
    /// Samples that a candidate takes in one turn of the round-robin.
    pub turn: u32,
    /// Kept samples before any stop is considered.
    pub least: usize,
    /// Half-width of the 95 % interval of the median, as a share of it, at which a cell has converged.
    pub half_width: f64,
    /// A minimum beyond this multiple of the best minimum eliminates.
    pub eliminate: f64,
    /// Whether elimination is allowed at all: in a sweep and in a search, not where every cell must converge.
    pub elimination: bool,
    /// Device time of a candidate's samples.
    pub device_budget: Nanos,
    /// Waiting for the clock, a cell.
    pub waiting: Nanos,
    /// Least share of timed launches that must have been compared with the reference.
    pub verified: f64,
    /// Pairs of a run-off, fixed beforehand.
    pub pairs: usize,
    /// Consecutive samples of one side in a run-off.
    pub block: u32,
    /// Candidates in a run-off besides the incumbent.
    pub finalists: usize,
    /// The least practical threshold of a run-off, a share of the time.
    pub least_tau: f64,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Bytes that a cold canary reads: more than any cache holds.
    pub cold_working_set: Bytes,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            group: Nanos(20_000_000),
            level: 0.03,
            warm_up_limit: Nanos(250_000_000),
            burn_in_limit: Nanos(60_000_000_000),
            turn: 5,
            least: 10,
            half_width: 0.01,
            eliminate: 1.5,
            elimination: true,
            device_budget: Nanos(500_000_000),
            waiting: Nanos(60_000_000_000),
            verified: 0.05,
            pairs: 30,
            block: 5,
            finalists: 3,
            least_tau: LEAST_TAU,
            resamples: crate::bootstrap::RESAMPLES,
            cold_working_set: Bytes(1 << 30),
        }
    }
}

impl Settings {
    /// The settings of times that are those of a whole token. A workload is a part of a token, so that one percent of its
    /// own time is less of the token's: such a difference counts where the noise of the sides lets it be seen. A token
    /// takes as long as many launches, so that fewer of them warm.
    pub fn in_engine() -> Settings {
        Settings {
            group: Nanos(10_000_000),
            warm_up_limit: Nanos(100_000_000),
            burn_in_limit: Nanos(10_000_000_000),
            half_width: 0.003,
            least_tau: 0.002,
            ..Settings::default()
        }
    }

    /// What of the settings decides a cell's samples, as text for its key.
    pub fn fingerprint(&self) -> String {
        format!(
            "group={} level={} warm={} turn={} least={} half={} eliminate={}{} budget={} waiting={}",
            self.group.0,
            self.level,
            self.warm_up_limit.0,
            self.turn,
            self.least,
            self.half_width,
            self.eliminate,
            if self.elimination { "" } else { " off" },
            self.device_budget.0,
            self.waiting.0,
        )
    }
}
