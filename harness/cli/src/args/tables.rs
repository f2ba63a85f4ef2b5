use std::path::PathBuf;

use clap::Args;
use engine::generate::DeviceChoice;

/// `bench promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// The new table.
    #[arg(value_name = "NEW.toml")]
    pub new: PathBuf,
    /// The model that the engine runs with both.
    #[arg(long)]
    pub model: String,
    /// cpu, cuda or cuda:N [default: cuda:0 where there is a GPU, else cpu].
    #[arg(long)]
    pub device: Option<String>,
    /// Threads of the CPU [default: one a physical core].
    #[arg(long)]
    pub threads: Option<u32>,
    /// The old table, into which the rows of the new one that the model runs are written where they are promoted [default:
    /// the table of this device in the user's folder].
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// Measure prefill and decode also where both tables launch the very same kernels, and judge them as if they did not:
    /// a table against itself shows what noise alone comes to.
    #[arg(long)]
    pub same_too: bool,
    /// Seed of the order and of the bootstrap [default: drawn, and recorded].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder for the results [default: results/UTC-promote-ID].
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `bench race-tables`, hidden: the engine with two tables in one process, in turns.
#[derive(Clone, Debug, Args)]
pub struct RaceTablesArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// `cpu` or `cuda:N`.
    #[arg(long)]
    pub device: DeviceChoice,
    /// Threads of the CPU.
    #[arg(long)]
    pub threads: Option<u32>,
    /// The old table: `default` for none, or a file.
    #[arg(long)]
    pub old: String,
    /// The new table.
    #[arg(long)]
    pub new: PathBuf,
    /// Tokens of the prompts, each length by itself; those that the model has no room for are left out, but the first.
    #[arg(long, value_delimiter = ',')]
    pub prompt: Vec<u64>,
    /// Pairs of each length.
    #[arg(long, value_delimiter = ',')]
    pub pairs: Vec<u64>,
    /// Pairs of a block.
    #[arg(long)]
    pub block: u64,
    /// Run lengths too at which both tables launch the same kernels.
    #[arg(long)]
    pub same_too: bool,
    /// Tokens of each answer.
    #[arg(long)]
    pub tokens: usize,
    /// Decides which side begins, and the prompts.
    #[arg(long)]
    pub seed: u64,
}
