use std::path::PathBuf;

use clap::{Args, ValueEnum};
use engine::generate::{DeviceChoice, KvType};

/// The type that our engine keeps keys and values in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a scale for each position and head; on a GPU.
    Int8,
}

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> KvType {
        match kv {
            KvArg::F16 => KvType::F16,
            KvArg::Int8 => KvType::Int8,
        }
    }
}

/// Flags that every measured run has.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A model of the store, a name to pull, or a GGUF file.
    #[arg(long, default_value = "smollm2:135m")]
    pub model: String,
    /// Runs a side.
    #[arg(long, default_value_t = 100)]
    pub runs: u64,
    /// Generated tokens for each prompt or depth and each length, in place of --runs: as many runs as that takes. Every run
    /// starts again with its prompt, so that a growing context is not taken for jitter.
    #[arg(long, value_name = "N", conflicts_with = "runs")]
    pub tokens: Option<u64>,
    /// Tokens of context to fill before the first generated one, in place of the suite's prompts; several make a curve.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub depth: Vec<u64>,
    /// protocol, general, quick, or a suite file.
    #[arg(long, default_value = "protocol")]
    pub suite: String,
    /// Generated tokens to ask for, in place of the suite's lengths [with --depth: 128].
    #[arg(long, value_delimiter = ',')]
    pub lengths: Vec<u64>,
    /// What our engine computes on: cpu, cuda or cuda:N [default: cuda:0 where there is a GPU, else cpu].
    #[arg(long)]
    pub device: Option<DeviceChoice>,
    /// The type that our engine keeps keys and values in.
    #[arg(long, value_enum, default_value = "f16")]
    pub kv: KvArg,
    /// Also measure what each step of a token costs in our engine, at each depth; on a GPU.
    #[arg(long)]
    pub breakdown: bool,
    /// Threads on both sides [default: one a physical core].
    #[arg(long)]
    pub threads: Option<u32>,
    /// Context length on both sides.
    #[arg(long, default_value_t = 2048)]
    pub ctx: u32,
    /// Seed of nonces, the first side and the bootstrap [default: drawn, and recorded].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Runs in a block, at most 10.
    #[arg(long, default_value_t = 10)]
    pub block: u64,
    /// Discarded runs a side before the first timed one.
    #[arg(long, default_value_t = 3)]
    pub warmup: u64,
    /// Folder for the results [default: results/UTC-VERB-ID].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Seconds without a byte after which a request has failed.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Say what would be run, and run nothing.
    #[arg(long)]
    pub dry_run: bool,
}
