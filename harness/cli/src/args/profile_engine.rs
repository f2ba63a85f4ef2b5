use std::path::PathBuf;

use clap::Args;

use super::KvArg;

/// `bench profile-engine`, hidden: what each step of a token costs in our engine on a GPU, as one JSON document.
#[derive(Debug, Args)]
pub struct ProfileEngineArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Number of the CUDA device.
    #[arg(long)]
    pub ordinal: u32,
    /// Context length.
    #[arg(long)]
    pub ctx: u32,
    /// The type of keys and values.
    #[arg(long, value_enum)]
    pub kv: KvArg,
    /// Tokens of context at which decoding begins.
    #[arg(long, value_delimiter = ',', required = true)]
    pub depth: Vec<u64>,
    /// Tokens of a window of decoding.
    #[arg(long, default_value_t = 128)]
    pub window: u64,
    /// Windows of decoding at each depth.
    #[arg(long, default_value_t = 16)]
    pub windows: u64,
}
