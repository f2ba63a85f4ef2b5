//! What the harness measures on: the trait that devices implement and that the measurement core drives.
//!
//! A CUDA device behind a worker process, the processor, and a scripted fake all look the same from here, so every rule
//! of sampling and tuning is tested without a device.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::units::{Bytes, Nanos};
use crate::variant::VariantId;
use crate::workload::Workload;

/// One variant on one workload under one policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// The variant.
    pub variant: VariantId,
    /// The workload.
    pub workload: Workload,
    /// The policy.
    pub policy: Policy,
}

/// Where a variant failed. Failure is data (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A constraint of the space excludes it here: not an error.
    Constraint,
    /// The compiler refused it.
    Compile,
    /// It needs more registers or shared memory than a block has.
    Resources,
    /// The launch returned an error.
    Launch,
    /// Illegal address or another fault on the device.
    Fault,
    /// It did not finish in time.
    Hang,
    /// Its result is wrong.
    Check,
    /// Its result was wrong in a timed launch: right when looked at, wrong when timed.
    Cheat,
    /// It ran faster than the device can (R5).
    Implausible,
    /// The worker or the harness failed around it.
    Harness,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Constraint => "constraint",
            Stage::Compile => "compile",
            Stage::Resources => "resources",
            Stage::Launch => "launch",
            Stage::Fault => "fault",
            Stage::Hang => "hang",
            Stage::Check => "check",
            Stage::Cheat => "cheat",
            Stage::Implausible => "implausible",
            Stage::Harness => "harness",
        })
    }
}

/// Why a cell has no time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{stage}: {message}")]
pub struct CellFailure {
    /// Where.
    pub stage: Stage,
    /// What, in words for a person: the input that exposed it, the compiler's log, the driver's error.
    pub message: String,
}

impl CellFailure {
    /// A failure at `stage`.
    pub fn new(stage: Stage, message: impl Into<String>) -> CellFailure {
        CellFailure { stage, message: message.into() }
    }
}

/// What the compiler and the loader say of a variant. `None` is unknown, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: Option<u32>,
    /// Bytes of local memory of a thread, stack and spills.
    pub local_bytes: Option<u32>,
    /// Bytes that the compiler spilled, stores and loads.
    pub spill_bytes: Option<u32>,
    /// Bytes of static shared memory of a block.
    pub static_smem_bytes: Option<u32>,
    /// Bytes of dynamic shared memory of a block.
    pub dynamic_smem_bytes: Option<u32>,
    /// Instruction classes found in the machine code or PTX: `fma`, `idp`, `hmma`, `imma`, `lut`.
    pub instructions: Vec<String>,
}

/// What it takes to time a cell, known before its first launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prepared {
    /// Bytes that one launch must move: weights as stored in the layout, scales, activations, outputs.
    pub bytes: Bytes,
    /// Floating-point or integer operations of one launch.
    pub flops: u64,
    /// How often a launch does work that once would be enough for, such as the norm that every block of a product does for
    /// itself; absent where the space names no such work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redundant: Option<u64>,
    /// The compiler's report.
    pub resources: Resources,
    /// Hash of everything that decides the machine code and the contract it was checked against (MEASURING.md §10).
    pub key: String,
    /// Time spent compiling; zero where the code came from a cache.
    pub compile: Nanos,
}

/// How far the result of a variant lies from the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// Inputs that were run, such as `random seed 1` or `AD-01 nibble 7`.
    pub cases: Vec<String>,
    /// The largest of |y - ref| over the bound of its output, over all cases: at most 1 in a passed check.
    pub worst_of_bound: f64,
    /// The largest relative L2 error of a case.
    pub worst_relative_l2: f64,
}

/// One timed run: many launches under a graph or in a batch, one launch in eager mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellSample {
    /// Time of one launch, ns: the timed interval divided by its launches.
    pub ns: f64,
    /// Launches in the interval.
    pub launches: u32,
    /// Mean SM clock over the interval in MHz, from timestamps on the device; `None` on a CPU.
    pub sm_clock_mhz: Option<f64>,
    /// Memory clock in MHz, read outside the interval.
    pub mem_clock_mhz: Option<f64>,
    /// Whether the outputs of this very interval were compared with the reference (R4).
    pub verified: bool,
}

/// What the samples that follow are for. A device may log it; a scripted one draws the noise of each phase from its own
/// stream, so that a resumed run sees the samples of an uninterrupted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Samples that only warm the device.
    WarmUp,
    /// Round-robin sampling.
    Sample,
    /// The paired final.
    RunOff,
}

/// A device that can build, check and time cells.
///
/// Every method reports what became of a cell as data. A target whose worker died restarts it before the next call.
pub trait Target {
    /// Name and everything that keys results to this device (MEASURING.md §10).
    fn device(&self) -> DeviceKey;

    /// A monotonic clock, which a fake scripts.
    fn now(&self) -> Nanos;

    /// Waits, for a clock to recover.
    fn rest(&mut self, pause: Nanos);

    /// Builds cells ahead of their timing, in parallel where that helps; the answers are in the order of `cells`.
    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>>;

    /// Says which cells will be asked for soon, so that a target may build them while the device is busy. The default does
    /// nothing; [`prepare`](Target::prepare) still decides what became of them.
    fn prefetch(&mut self, cells: &[Cell]) {
        let _ = cells;
    }

    /// Says what the samples that follow are for. The default does nothing.
    fn announce(&mut self, phase: Phase) {
        let _ = phase;
    }

    /// Says what was decided for a workload: a target that times a workload among others, as the engine does, runs it by
    /// this variant from now on. The default does nothing, since a kernel that is timed alone knows of no other.
    fn settle(&mut self, cell: &Cell) {
        let _ = cell;
    }

    /// Time spent moving data to and from the device since it was opened, inside `check` and `sample` calls included;
    /// `None` where it is not known.
    fn transfer_time(&self) -> Option<Nanos> {
        None
    }

    /// Runs the correctness gate on a cell. Inputs depend on `seed`.
    ///
    /// # Errors
    /// The failure names the input that exposed it.
    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure>;

    /// Takes `count` samples of a cell one after another, warmed as the policy says.
    ///
    /// # Errors
    /// A fault, a hang, or a wrong result in a timed launch.
    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure>;

    /// Measures the ceilings of the device: read bandwidth at this working set, launch latency, clock (≤ 30 s).
    ///
    /// # Errors
    /// Where the device fails.
    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure>;
}

/// A short measurement of the device itself, before and after a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    /// Bytes read in one pass.
    pub working_set: Bytes,
    /// Best sustained read rate, GB/s.
    pub read_gb_per_s: f64,
    /// Time of an empty launch under the default policy, ns; `None` on a CPU.
    pub empty_launch_ns: Option<f64>,
    /// SM clock on a plateau of load, MHz; `None` on a CPU.
    pub sm_clock_mhz: Option<f64>,
    /// Ceiling of arithmetic, 10⁹ operations a second, where it was measured.
    pub gflop_per_s: Option<f64>,
}

/// What keys results to a device: a change of any field is another device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DeviceKey {
    /// `cuda` or `cpu`.
    pub backend: String,
    /// Name as the device gives it, such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability such as `sm_90`, or the instruction set level.
    pub arch: String,
    /// Everything else that may change the answer: power limit, ECC, MIG, driver, NVRTC; threads, governor, SMT.
    pub conditions: std::collections::BTreeMap<String, String>,
}

impl DeviceKey {
    /// The name of the device's table: lower case, runs of other characters as one dash, such as `nvidia-h200`.
    pub fn slug(&self) -> String {
        let mut out = String::new();
        for c in self.name.chars() {
            if c.is_ascii_alphanumeric() {
                out.push(c.to_ascii_lowercase());
            } else if !out.is_empty() && !out.ends_with('-') {
                out.push('-');
            }
        }
        out.trim_end_matches('-').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_filed_under_a_plain_name() {
        let device = |name: &str| DeviceKey {
            backend: "cuda".to_owned(),
            name: name.to_owned(),
            arch: "sm_90".to_owned(),
            conditions: Default::default(),
        };
        assert_eq!(device("NVIDIA H200").slug(), "nvidia-h200");
        assert_eq!(device("AMD EPYC 9B14 (Zen 4)").slug(), "amd-epyc-9b14-zen-4");
    }
}
