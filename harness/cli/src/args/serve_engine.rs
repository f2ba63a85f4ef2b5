use std::path::PathBuf;

use clap::Args;
use engine::generate::DeviceChoice;

use super::KvArg;

/// `bench serve-engine`, hidden: our engine as a server of its own process, so that its memory and threads are its own.
#[derive(Debug, Args)]
pub struct ServeEngineArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Name to serve it under.
    #[arg(long)]
    pub name: String,
    /// What to compute on: `cpu` or `cuda:N`. There is no default: whoever measures says it.
    #[arg(long)]
    pub device: DeviceChoice,
    /// Threads.
    #[arg(long)]
    pub threads: u32,
    /// Context length.
    #[arg(long)]
    pub ctx: u32,
    /// The type of keys and values.
    #[arg(long, value_enum, default_value = "f16")]
    pub kv: KvArg,
    /// Run every op on its plain kernel.
    #[arg(long)]
    pub baseline: bool,
}
