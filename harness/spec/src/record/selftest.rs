//! `run.json` of `bench selftest`: what the statistics make of numbers whose truth is known.
//!
//! A record of its own kind: its figures are about the harness, so that no table, comparison or gate ever reads one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Environment, Provenance, ToolFacts};
use crate::target::DeviceKey;
use crate::units::Nanos;

/// Version of the record of a selftest.
pub const SELFTEST_SCHEMA_VERSION: u32 = 1;

/// What kind of record it is; one word, so that a reader can tell it from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelftestKind {
    /// `bench selftest`.
    Selftest,
}

/// One figure with the range that it is held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelftestFigure {
    /// Its name.
    pub name: String,
    /// What it was counted over.
    pub over: String,
    /// `simulated` on the scripted device, `derived` from samples of real hardware.
    pub provenance: Provenance,
    /// The figure, a share of 1; `null` where no experiment had one.
    pub value: Option<f64>,
    /// How many of `of` it counts; `null` where it is no count.
    pub hits: Option<u64>,
    /// Experiments that it was taken from.
    pub of: u64,
    /// The least that it may be; `null` is no bound.
    pub at_least: Option<f64>,
    /// The most that it may be; `null` is no bound. A figure without either bound describes the host.
    pub at_most: Option<f64>,
    /// Whether it lies within its bounds; one that could not be taken does not.
    pub passed: bool,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelftestPlan {
    /// Seed of everything scripted and of the bootstrap.
    pub seed: u64,
    /// Suites of each kind.
    pub suites: u64,
    /// Pairs of each duel.
    pub pairs: u64,
    /// Runs a side of each scripted comparison of whole engines.
    pub runs: u64,
    /// Resamples of each interval.
    pub resamples: u64,
    /// The slowdown that has to be found, as a share.
    pub injected: f64,
    /// The kernel that was raced against itself, with workload and policy; `null` without a device.
    pub kernel: Option<String>,
}

/// `run.json` of `bench selftest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelftestRun {
    /// [`SELFTEST_SCHEMA_VERSION`].
    pub schema: u32,
    /// Always `selftest`.
    pub kind: SelftestKind,
    /// Id of the run, also in its folder's name.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Wall time.
    pub wall_ns: Nanos,
    /// The command line.
    pub command: Vec<String>,
    /// The program.
    pub tool: ToolFacts,
    /// The machine.
    pub environment: Environment,
    /// The device that a kernel was raced against itself on; `null` where the scripted one was the only one.
    pub device: Option<DeviceKey>,
    /// What was asked for.
    pub plan: SelftestPlan,
    /// Every figure.
    pub figures: Vec<SelftestFigure>,
    /// Why this is not the whole answer; `null` if it is.
    pub incomplete: Option<String>,
    /// Anything a reader must know.
    pub notes: Vec<String>,
}

impl SelftestRun {
    /// Figures that lie outside their range.
    pub fn failed(&self) -> impl Iterator<Item = &SelftestFigure> {
        self.figures.iter().filter(|f| !f.passed)
    }
}
