//! What a run tells while it goes on.

use harness_spec::Canary;
use harness_spec::record::{Trial, WorkloadResult};
use harness_spec::units::Nanos;

/// Something happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A canary was measured before the first cell.
    Canary(&'a Canary),
    /// A workload begins.
    Workload {
        /// Its number, from 0.
        index: usize,
        /// Of so many.
        of: usize,
        /// The workload and its policy.
        name: String,
        /// Most evaluations that it will take.
        evaluations: usize,
    },
    /// A cell is finished, or was found in the journal.
    Trial {
        /// What it came to.
        trial: &'a Trial,
        /// Whether it came from the journal.
        from_cache: bool,
        /// Evaluations of this workload so far.
        done: usize,
        /// Least median of this workload so far, ns.
        best_ns: Option<f64>,
    },
    /// The paired final of a workload begins.
    RunOff {
        /// How many take part.
        finalists: usize,
    },
    /// A workload is finished.
    Finished {
        /// What it came to.
        result: &'a WorkloadResult,
        /// Since the start of the run.
        elapsed: Nanos,
    },
}

/// Who listens.
pub trait Progress {
    /// Something happened.
    fn event(&mut self, event: &Event<'_>);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}
