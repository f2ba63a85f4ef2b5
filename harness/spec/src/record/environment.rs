//! The machine a run was made on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::Measure;
use super::run::SideRole;
use crate::units::Nanos;

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CpuFacts {
    /// Model name.
    pub model: String,
    /// Logical processors that this process may use.
    pub threads: u32,
    /// Hardware threads a core.
    pub threads_per_core: Option<u32>,
    /// Instruction sets found at run time that our kernels can use, such as `avx2`, `avx512vnni`.
    pub isa: Vec<String>,
    /// Last-level cache, bytes.
    pub llc_bytes: Option<u64>,
    /// Frequency governor.
    pub governor: Option<String>,
    /// Hypervisor or container, if one shows.
    pub virtualization: Option<String>,
}

/// One source of noise, and how to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoiseSource {
    /// Short name, such as `governor`.
    pub name: String,
    /// `ok`, `warn` or `unknown`.
    pub state: String,
    /// What was found.
    pub found: String,
    /// How to mend it; empty if it is fine.
    pub fix: String,
}

/// The machine, as far as it can change a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Operating system and kernel.
    pub os: String,
    /// Instruction-set architecture, such as `x86_64`.
    pub arch: String,
    /// The processor.
    pub cpu: CpuFacts,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Load average over one minute at the start.
    pub load1: Option<f64>,
    /// GPUs that the engine could use; empty if none.
    pub gpus: Vec<String>,
    /// What may disturb the run.
    pub noise: Vec<NoiseSource>,
}

/// The program that wrote the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolFacts {
    /// Version of `bench`.
    pub version: String,
    /// Commit it was built from, `unknown` outside a checkout.
    pub commit: String,
    /// Whether the checkout had changes.
    pub dirty: Option<bool>,
    /// Cargo profile.
    pub profile: String,
}

/// State of the machine between two blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlockTelemetry {
    /// The block that followed.
    pub block: u64,
    /// The side of that block.
    pub side: SideRole,
    /// When, ns since the start of the run.
    pub at_ns: Nanos,
    /// Mean core clock, MHz.
    pub cpu_mhz: Measure,
    /// Load average over one minute.
    pub load1: Measure,
    /// Processor temperature, °C.
    pub temperature_c: Measure,
    /// The GPU of the run; absent where it computes on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuTelemetry>,
}

/// State of a GPU before a block, and what the block used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuTelemetry {
    /// Clock of the multiprocessors, MHz.
    pub sm_mhz: Measure,
    /// Clock of the memory, MHz.
    pub memory_mhz: Measure,
    /// Temperature, °C.
    pub temperature_c: Measure,
    /// Power drawn by the board, W.
    pub power_w: Measure,
    /// Memory in use on the board by every process, bytes.
    pub memory_used_bytes: Measure,
    /// Energy that the board used over the block, J.
    pub energy_j: Measure,
    /// Why the clocks were held down, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<String>,
}
