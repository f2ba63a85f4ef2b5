//! The command line: structs that mirror the flags. Each converts once into a checked plan.

mod compare;
mod compile;
mod e2e;
mod judge_engine;
mod kernels;
mod profile_engine;
mod report;
mod run;
mod selftest;
mod serve_engine;
mod tables;
mod targets;

use clap::{Parser, Subcommand, ValueEnum};

pub use compare::CompareArgs;
pub use compile::CompileArgs;
pub use e2e::E2eArgs;
pub use judge_engine::JudgeEngineArgs;
pub use kernels::{
    Budget, DeviceArgs, ExplainArgs, LogAction, LogArgs, Strategy, SweepArgs, TimingArgs, TuneArgs, VariantChoice,
    VerifyArgs, WorkerArgs, WorkloadArgs,
};
pub use profile_engine::ProfileEngineArgs;
pub use report::ReportArgs;
pub use run::{KvArg, RunArgs};
pub use selftest::{SelftestArgs, SelftestStatsArgs, SelftestWhat};
pub use serve_engine::ServeEngineArgs;
pub use tables::{PromoteArgs, RaceTablesArgs};
pub use targets::TargetsArgs;

/// Race an LLM engine against its peers, and say what can be believed of the result.
///
/// Exit codes: 0 done; 1 slower and 2 inconclusive with --fail-on-slower, and 1 a kernel that verify rejects; 3 could not
/// measure; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "bench", version, arg_required_else_help = true)]
pub struct Bench {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print data as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this machine is, every source of noise on it, and how to remove it.
    Doctor,
    /// Race the engine against a peer: paired, interleaved, with a verdict.
    Compare(CompareArgs),
    /// Measure one side alone.
    E2e(E2eArgs),
    /// Check kernels for correctness alone: every variant, every adversarial input. Ends with 1 if one is rejected.
    Verify(VerifyArgs),
    /// Check and time variants over a suite.
    Sweep(SweepArgs),
    /// Search for the fastest variants and write them into the table of this device.
    Tune(TuneArgs),
    /// Try a table in the engine against that of this device, and put it in its place where the engine is faster.
    Promote(PromoteArgs),
    /// Say why the engine runs this variant for this op and shape.
    Explain(ExplainArgs),
    /// Show the optimisation log, or add to it.
    Log(LogArgs),
    /// Compile the CUDA kernels for every architecture, without a device, and say what they need.
    Compile(CompileArgs),
    /// Rebuild the page and the charts of a run from its files, or make one page of many runs.
    Report(ReportArgs),
    /// Say what has to hold, and how it stands by committed records alone.
    Targets(TargetsArgs),
    /// Try the harness itself on numbers whose truth is known. Ends with 3 if its statistics do not hold.
    Selftest(SelftestArgs),
    /// List what there is.
    List {
        /// Of what.
        #[arg(value_enum)]
        what: Listing,
        /// A folder with kernels of your own; may be given again.
        #[arg(long, value_name = "DIR")]
        kernels: Vec<std::path::PathBuf>,
        /// Only these ops.
        #[arg(long, value_delimiter = ',')]
        op: Vec<String>,
    },
    /// The engine's server as a child process; `compare` starts it.
    #[command(hide = true)]
    ServeEngine(ServeEngineArgs),
    /// Takes the engine's tokens apart, in a process of its own; `--breakdown` starts it.
    #[command(hide = true)]
    ProfileEngine(ProfileEngineArgs),
    /// Holds the engine against its exact path, in a process of its own; `compare` and `e2e` start it.
    #[command(hide = true)]
    JudgeEngine(JudgeEngineArgs),
    /// A device behind lines of JSON; everything that runs kernels starts it.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// The engine with two tables in turns; `promote` starts it.
    #[command(hide = true)]
    RaceTables(RaceTablesArgs),
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Contracts that kernels fulfil.
    Ops,
    /// Algorithms, with their backend and instruction set.
    Kernels,
    /// Kernels with every tunable fixed.
    Variants,
    /// Named lists of prompts and lengths, and of workloads of kernels.
    Suites,
    /// What this machine can compute on.
    Devices,
    /// Models in the store, and shapes that are built in.
    Models,
    /// Tables of winners, built in and of this user.
    Tables,
}
