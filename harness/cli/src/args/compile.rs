use std::path::PathBuf;

use clap::Args;
use kernels::cuda::compile::Arch;

/// `bench compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// Architectures: sm_90 for machine code, compute_75 for PTX.
    #[arg(long, value_delimiter = ',', default_value = "sm_75,sm_80,sm_86,sm_87,sm_89,sm_90")]
    pub arch: Vec<Arch>,
    /// A folder with kernels of your own, a .toml beside its sources; may be given again.
    #[arg(long, value_name = "DIR")]
    pub kernels: Vec<PathBuf>,
    /// Only these ops.
    #[arg(long, value_delimiter = ',')]
    pub op: Vec<String>,
    /// The default configuration of every kernel, which is what is compiled where nothing is said.
    #[arg(long, conflicts_with = "all")]
    pub defaults_only: bool,
    /// Every configuration that the constraints admit at the shape of a 7B layer.
    #[arg(long, conflicts_with_all = ["snapshot", "check"])]
    pub all: bool,
    /// Write what the default variants need to a file.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub snapshot: Option<PathBuf>,
    /// Compare what the default variants need with a file that --snapshot wrote.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
    /// Keep no compiled kernel and take none from the cache.
    #[arg(long)]
    pub no_cache: bool,
}
