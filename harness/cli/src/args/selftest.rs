use std::path::PathBuf;

use clap::{Args, Subcommand};
use harness_spec::Workload;

/// `bench selftest`.
#[derive(Clone, Debug, Args)]
pub struct SelftestArgs {
    /// What of the harness is tried.
    #[command(subcommand)]
    pub what: SelftestWhat,
}

/// Parts of the harness that can be tried.
#[derive(Clone, Debug, Subcommand)]
pub enum SelftestWhat {
    /// Statistics on numbers whose truth is known: how often intervals cover, equals are told apart, 3 % are found.
    Stats(SelftestStatsArgs),
}

/// `bench selftest stats`.
#[derive(Clone, Debug, Args)]
pub struct SelftestStatsArgs {
    /// Also race a kernel against itself on cpu, cuda or cuda:N [default: the scripted device alone].
    #[arg(long)]
    pub device: Option<String>,
    /// With --device: the workload, whose table row or default is raced against itself.
    #[arg(long, requires = "device", default_value = "gemv_q4_0 N=4096 K=4096")]
    pub workload: Workload,
    /// With --device: threads of the CPU [default: one a physical core].
    #[arg(long, requires = "device")]
    pub threads: Option<u32>,
    /// Seed of everything scripted, of the checks and of the bootstrap.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Suites of each kind, and duels on the device; the rule asks for 100.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub suites: u64,
    /// Folder for the results [default: results/UTC-selftest-ID].
    #[arg(long)]
    pub out: Option<PathBuf>,
}
