use std::path::PathBuf;

use clap::Args;
use engine::generate::DeviceChoice;

use super::KvArg;

/// `bench judge-engine`, hidden: our engine's fast path and answers of a run against its exact path, questions and
/// findings as JSON.
#[derive(Debug, Args)]
pub struct JudgeEngineArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// What to compute on: `cpu` or `cuda:N`.
    #[arg(long)]
    pub device: DeviceChoice,
    /// Threads.
    #[arg(long)]
    pub threads: u32,
    /// Context length.
    #[arg(long)]
    pub ctx: u32,
    /// The type of keys and values of the fast path.
    #[arg(long, value_enum)]
    pub kv: KvArg,
}
