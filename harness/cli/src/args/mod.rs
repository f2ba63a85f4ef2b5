//! The command line: structs that mirror the flags. Each converts once into a checked plan.

mod compare;
mod e2e;
mod run;
mod serve_engine;

use clap::{Parser, Subcommand, ValueEnum};

pub use compare::CompareArgs;
pub use e2e::E2eArgs;
pub use run::RunArgs;
pub use serve_engine::ServeEngineArgs;

/// Race an LLM engine against its peers, and say what can be believed of the result.
///
/// Exit codes: 0 done; 1 slower and 2 inconclusive with --fail-on-slower; 3 could not measure; 64 wrong usage.
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
    /// Rebuild the page and the charts of a run from its files.
    Report {
        /// The run's folder.
        folder: std::path::PathBuf,
        /// Print the tables as Markdown.
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
    },
    /// List what there is.
    List {
        /// Of what.
        #[arg(value_enum)]
        what: Listing,
    },
    /// The engine's server as a child process; `compare` starts it.
    #[command(hide = true)]
    ServeEngine(ServeEngineArgs),
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Contracts that kernels fulfil.
    Ops,
    /// Algorithms, with their backend and instruction set.
    Kernels,
    /// Kernels with every tunable fixed, as this machine would choose them.
    Variants,
    /// Named lists of prompts and lengths.
    Suites,
    /// What this machine can compute on.
    Devices,
    /// Models in the store.
    Models,
}
