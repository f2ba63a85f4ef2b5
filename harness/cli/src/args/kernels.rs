use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use harness_measure::tune::StrategyKind;
use harness_spec::{Policy, Workload};

use super::KvArg;

/// Where kernels run and where they come from.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// cpu, cuda or cuda:N [default: cuda:0 where there is a GPU, else cpu].
    #[arg(long)]
    pub device: Option<String>,
    /// Run on a scripted device: the file says its kernels, times and failures. Nothing of it is a measurement.
    #[arg(long, value_name = "SCRIPT.toml", conflicts_with = "device")]
    pub simulate: Option<PathBuf>,
    /// A folder with kernels of your own, a .toml beside its sources; may be given again.
    #[arg(long, value_name = "DIR")]
    pub kernels: Vec<PathBuf>,
    /// Threads of the CPU [default: one a physical core].
    #[arg(long)]
    pub threads: Option<u32>,
    /// Seconds after which a check or a sample counts as hung and its worker is killed.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<f64>,
}

/// What is run.
#[derive(Clone, Debug, Args)]
pub struct WorkloadArgs {
    /// A suite of kernels (see `bench list suites`) or its file.
    #[arg(long, conflicts_with_all = ["model", "workload"])]
    pub suite: Option<String>,
    /// A model: a built-in shape, a GGUF file, or a model of the store. Its tensors give the shapes.
    #[arg(long, conflicts_with = "workload")]
    pub model: Option<String>,
    /// One workload, such as "gemv_q4_0 N=4096 K=14336"; may be given again.
    #[arg(long)]
    pub workload: Vec<Workload>,
    /// Only these ops.
    #[arg(long, value_delimiter = ',')]
    pub op: Vec<String>,
    /// Weight types of the model's body, in place of the suite's.
    #[arg(long, value_delimiter = ',')]
    pub quant: Vec<String>,
    /// Weight type of the model's head.
    #[arg(long)]
    pub head: Option<String>,
    /// Cached positions that attention reads.
    #[arg(long, value_delimiter = ',')]
    pub lengths: Vec<u64>,
    /// With --model: Q, K and V as one matrix, and gate and up as one, too.
    #[arg(long)]
    pub joined: bool,
}

/// Which variants take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariantChoice {
    /// The default configuration of every kernel.
    Default,
    /// Every configuration that the constraints admit.
    All,
    /// The default configurations and so many others of each kernel, drawn by the seed.
    Sample(usize),
    /// What the table of this device holds, or the default where it has no row, without a floor.
    Table,
}

impl std::str::FromStr for VariantChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<VariantChoice, String> {
        match text.split_once(':') {
            None if text == "default" => Ok(VariantChoice::Default),
            None if text == "all" => Ok(VariantChoice::All),
            None if text == "table" => Ok(VariantChoice::Table),
            Some(("sample", n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(VariantChoice::Sample(n)),
                _ => Err(format!("`sample:{n}` needs a number of at least 1, such as sample:8")),
            },
            _ => Err(format!("`{text}` is no choice of variants: write default, table, all or sample:N")),
        }
    }
}

/// `bench verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Device and kernels.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Workloads [default: shapes of every op with tails, see --full].
    #[command(flatten)]
    pub what: WorkloadArgs,
    /// default, table, all, or sample:N.
    #[arg(long, default_value = "default")]
    pub variants: VariantChoice,
    /// Random seeds, each with inputs of its own.
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// More shapes, and every variant that the constraints admit.
    #[arg(long)]
    pub full: bool,
    /// One input of each kernel, launched once: for a run under compute-sanitizer. Passing it says little of the numbers.
    #[arg(long, conflicts_with_all = ["full", "expect_rejected"])]
    pub once: bool,
    /// Expect every kernel of --kernels to be wrong: 0 only if each of its variants was rejected.
    #[arg(long, requires = "kernels")]
    pub expect_rejected: bool,
    /// Folder for the results [default: results/UTC-verify-ID].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Say what would be run, and run nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// How long a run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So long, of wall time.
    Within(Duration),
    /// As long as it takes.
    Unlimited,
}

/// Flags of everything that times kernels.
#[derive(Clone, Debug, Args)]
pub struct TimingArgs {
    /// cold or hot, a plus, and eager, graph or graph_pdl; may be given again [default: as the engine launches].
    #[arg(long)]
    pub policy: Vec<Policy>,
    /// Seed of the search, the checks, the orders and the bootstrap [default: drawn, and recorded; a tune keeps it with the
    /// trials of its device, so that one that is repeated asks the same].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Wall time that may be used, such as 3m or 90s, or none [default: 150s for a tune that samples its spaces; none for any
    /// other, a sweep, and what is resumed].
    #[arg(long, value_name = "TIME", value_parser = budget)]
    pub budget: Option<Budget>,
    /// Device time of one candidate, such as 500ms.
    #[arg(long, value_parser = duration)]
    pub cell_budget: Option<Duration>,
    /// Go on with the run in this folder, which was stopped or killed.
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub resume: Option<PathBuf>,
    /// Measure everything again, whatever the caches hold.
    #[arg(long)]
    pub no_cache: bool,
    /// Folder for the results [default: results/UTC-VERB-ID].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Say what would be run, and run nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `bench sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// Device and kernels.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Workloads [default: the suite quick].
    #[command(flatten)]
    pub what: WorkloadArgs,
    /// Flags of timing.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// default, table (what the table of this device holds), all, or sample:N.
    #[arg(long, default_value = "default")]
    pub variants: VariantChoice,
}

/// A way to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// The one that reaches 2 % of the optimum within a tenth of the space.
    Default,
    /// Everything.
    Exhaustive,
    /// Drawn by the seed.
    Random,
    /// Neighbours of the best so far.
    Local,
    /// Short looks first, long ones for the better half.
    Halving,
    /// In the order that the roofline predicts.
    Roofline,
}

impl From<Strategy> for StrategyKind {
    fn from(s: Strategy) -> StrategyKind {
        match s {
            Strategy::Default => StrategyKind::default(),
            Strategy::Exhaustive => StrategyKind::Exhaustive,
            Strategy::Random => StrategyKind::Random,
            Strategy::Local => StrategyKind::Local,
            Strategy::Halving => StrategyKind::Halving,
            Strategy::Roofline => StrategyKind::Roofline,
        }
    }
}

/// `bench tune`.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// Device and kernels.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Workloads.
    #[command(flatten)]
    pub what: WorkloadArgs,
    /// Flags of timing.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// How to search.
    #[arg(long, value_enum, default_value = "default")]
    pub strategy: Strategy,
    /// Most evaluations in a workload, as a share of its space.
    #[arg(long, default_value_t = 0.1)]
    pub share: f64,
    /// Search a space that was recorded before, with no device.
    #[arg(long, value_name = "SPACE.jsonl", conflicts_with_all = ["simulate", "device"])]
    pub replay: Option<PathBuf>,
    /// With --replay: searches of each strategy, each with a seed of its own.
    #[arg(long, default_value_t = 100, requires = "replay")]
    pub searches: u64,
    /// Write the medians of every measured configuration as a space that can be replayed.
    #[arg(long, value_name = "SPACE.jsonl")]
    pub record_space: Option<PathBuf>,
    /// The table to write the winners into [default: the table of this device in the user's folder].
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// With --policy cold+in_engine: positions of the context that the model is loaded with. Beyond 17,000 attention over
    /// the longest contexts is tuned, too [default: 8192].
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..), conflicts_with_all = ["simulate", "replay"])]
    pub context: Option<u32>,
    /// With --policy cold+in_engine: the type that the engine keeps keys and values in [default: f16].
    #[arg(long, value_enum, conflicts_with_all = ["simulate", "replay"])]
    pub kv: Option<KvArg>,
    /// Try the new table in the engine with this model first: rows that the model runs replace those of the old table where
    /// the engine is faster with them.
    #[arg(long, value_name = "MODEL")]
    pub promote: Option<String>,
    /// Write the winners into the table although the device changed during the run (it reads or clocks otherwise than
    /// before). With --resume: those of a run that was refused for it.
    #[arg(long)]
    pub accept_suspect: bool,
}

/// A time, or `none`.
fn budget(text: &str) -> Result<Budget, String> {
    match text {
        "none" => Ok(Budget::Unlimited),
        _ => duration(text).map(Budget::Within),
    }
}

/// A time such as `3m`, `90s`, `500ms` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` is no time: write it as 90s, 3m, 1h or 500ms")),
    };
    match number.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(Duration::from_secs_f64(n * factor)),
        _ => Err(format!("`{text}` is no time: write it as 90s, 3m, 1h or 500ms")),
    }
}

/// `bench explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The op, such as gemv_q4_0.
    pub op: String,
    /// Its dimensions, such as N=4096 K=14336.
    #[arg(required = true)]
    pub shape: Vec<String>,
    /// The table to read [default: the table of this device].
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// cpu, cuda or cuda:N, whose table is read [default: cuda:0 where there is a GPU, else cpu].
    #[arg(long, conflicts_with = "table")]
    pub device: Option<String>,
    /// The run whose record tells of the candidates [default: the one that the row names, searched under results].
    #[arg(long)]
    pub record: Option<PathBuf>,
}

/// `bench log`.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What to do; absent prints the log.
    #[command(subcommand)]
    pub action: Option<LogAction>,
    /// The log's file [default: log.jsonl in the user's data folder].
    #[arg(long, global = true)]
    pub file: Option<PathBuf>,
}

/// What can be done with the log.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LogAction {
    /// Adds an entry.
    Add {
        /// What was changed.
        change: String,
        /// Decode tok/s before.
        #[arg(long)]
        before: Option<f64>,
        /// Decode tok/s after.
        #[arg(long)]
        tok_per_s: Option<f64>,
        /// Time of the kernel, µs.
        #[arg(long)]
        kernel_us: Option<f64>,
        /// faster, slower, tie, inconclusive, or words.
        #[arg(long)]
        verdict: Option<String>,
        /// The run that shows it.
        #[arg(long)]
        record: Option<PathBuf>,
    },
}

/// `bench worker`, hidden: a device behind lines of JSON.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// cpu or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// A scripted device.
    #[arg(long)]
    pub simulate: Option<PathBuf>,
    /// Folders of kernels.
    #[arg(long)]
    pub kernels: Vec<PathBuf>,
    /// Threads of the CPU.
    #[arg(long)]
    pub threads: Option<u32>,
    /// Every adversarial case in a check.
    #[arg(long)]
    pub full: bool,
    /// One case in a check.
    #[arg(long)]
    pub once: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_choices_are_read_in_the_forms_that_people_write() {
        for (text, ms) in [("3m", 180_000), ("90s", 90_000), ("500ms", 500), ("1h", 3_600_000), ("2", 2000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(budget(text), Ok(Budget::Within(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(budget("none"), Ok(Budget::Unlimited));
        for bad in ["", "m", "3 days", "-1s", "0s", "infs"] {
            assert!(duration(bad).unwrap_err().contains("3m"), "{bad}");
        }
        assert_eq!("sample:8".parse(), Ok(VariantChoice::Sample(8)));
        assert_eq!("table".parse(), Ok(VariantChoice::Table));
        assert!("sample:0".parse::<VariantChoice>().is_err() && "some".parse::<VariantChoice>().is_err());
    }
}
