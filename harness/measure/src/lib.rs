//! What the numbers mean: metrics from token times, statistics, paired comparison and the order of runs; and how kernels
//! are sampled, searched and chosen.
//!
//! This crate reads [`harness_spec::record::Sample`]s, drives any [`harness_spec::Target`] and returns records. It opens no
//! file, speaks to no server and has never heard of CUDA, so scripted sides and a scripted device test all of it. The rules are those of MEASURING.md; comments name the
//! section they follow.

pub mod agreement;
pub mod bandwidth;
pub mod bootstrap;
pub mod breakdown;
pub mod canary;
pub mod cell;
pub mod clock;
pub mod compare;
mod correlation;
pub mod cost;
pub mod describe;
mod evidence;
pub mod fake;
pub mod holm;
pub mod jitter;
pub mod metrics;
pub mod noise;
pub mod pairs;
pub mod percentile;
pub mod quality;
pub mod runoff;
pub mod schedule;
pub mod selftest;
pub mod server;
pub mod tune;
pub mod verdict;
pub mod wilcoxon;

pub use compare::{Analysis, AnalysisOptions, analyse, describe_one_side};
pub use metrics::{Missing, value};
pub use schedule::{Block, PlannedRun, Schedule, ScheduleSpec};
