//! What the numbers mean: metrics from token times, statistics, paired comparison and the order of runs.
//!
//! This crate reads [`harness_spec::record::Sample`]s and returns records. It opens no file, speaks to no server and has
//! never heard of CUDA, so a scripted engine can test all of it. The rules are those of MEASURING.md; comments name the
//! section they follow.

pub mod bandwidth;
pub mod bootstrap;
pub mod compare;
pub mod describe;
mod evidence;
pub mod holm;
pub mod jitter;
pub mod metrics;
pub mod noise;
pub mod pairs;
pub mod percentile;
pub mod schedule;
pub mod server;
pub mod verdict;
pub mod wilcoxon;

pub use compare::{Analysis, AnalysisOptions, analyse, describe_one_side};
pub use metrics::{Missing, value};
pub use schedule::{Block, PlannedRun, Schedule, ScheduleSpec};
