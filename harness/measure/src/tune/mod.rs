//! The tuner: from candidates to a winner with evidence, within a time budget, never worse than the default (R16–R19).
//!
//! [`run`] drives any [`Target`](harness_spec::Target) through a [`Plan`]: per workload it builds, checks and times what the strategy asks for,
//! keeps each finished trial in the [`Journal`], and ends with a paired run-off. A `Sweep` is the same with every candidate,
//! a `Verify` ends after the check. All that it remembers is in the journal: a run that was killed and starts again asks
//! the same questions in the same order and finds their answers there.

mod conclude;
mod finals;
mod journal;
mod key;
mod plan;
mod progress;
mod promote;
mod race;
mod replay;
mod run;
mod shares;
pub mod strategy;

pub use journal::{Journal, JournalError, MemoryJournal, read_lines};
pub use key::trial_key;
pub use plan::{Candidate, Costs, Plan, WorkloadPlan, candidates};
pub use progress::{Event, Progress, Silent};
pub use promote::{
    EngineEvidence, Finding, Judged, Loading as EngineLoading, Pair as EnginePair, Promotion, RowChange,
    Stage as EngineStage, Work as EngineWork, promote,
};
pub use replay::{Replay, ReplayError, Space, play};
pub use run::{KernelOutcome, run};
pub use strategy::{Known, STRATEGIES, StrategyKind, UnknownStrategy};
