//! The checked plan of a run: nothing below sees the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use engine::generate::{DeviceChoice, KvType};
use harness_measure::{Schedule, ScheduleSpec};
use harness_spec::record::SideRole;
use kernels::cuda::driver::Device;
use reqwest::Url;

use crate::args::{CompareArgs, E2eArgs, RunArgs};
use crate::depth;
use crate::exit::{Failure, usage};
use crate::machine::cpu;
use crate::model::Model;
use crate::suite::{self, Suite};

/// Where Ollama listens when nothing says otherwise.
const OLLAMA_PORT: u16 = 11434;

/// Whom to measure against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The Ollama of this machine if it answers, else the embedded baseline.
    Auto,
    /// An Ollama that must be there.
    Ollama(Url),
    /// A server with OpenAI's API.
    OpenAi(Url),
    /// Our own engine on its plain kernels.
    Baseline,
    /// Our own engine; only as the single side of `e2e`.
    Engine,
}

/// What every measured run needs.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// `compare` or `e2e`.
    pub verb: &'static str,
    /// The model, as asked for.
    pub model: String,
    /// Runs a side.
    pub runs: u64,
    /// The suite.
    pub suite: Suite,
    /// Lengths to ask for: the suite's or the user's.
    pub lengths: Vec<u64>,
    /// What our engine computes on; never left open.
    pub device: DeviceChoice,
    /// The type that our engine keeps keys and values in.
    pub kv: KvType,
    /// Whether the steps of a token are timed as well.
    pub breakdown: bool,
    /// Times between tokens that were asked for, for each prompt and length.
    pub tokens: Option<u64>,
    /// Threads on both sides.
    pub threads: u32,
    /// Context length on both sides.
    pub context: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Runs in a block, at most.
    pub block_len: u64,
    /// Discarded runs a side.
    pub warmup: u64,
    /// Folder for the results, if given.
    pub out: Option<PathBuf>,
    /// Silence after which a request has failed.
    pub timeout: Duration,
    /// Only say what would be run.
    pub dry_run: bool,
}

/// `bench compare`, checked.
#[derive(Clone, Debug)]
pub struct ComparePlan {
    /// The run.
    pub run: RunPlan,
    /// The peer.
    pub against: Target,
    /// Numbers despite a mismatch.
    pub allow_mismatch: bool,
    /// Exit codes 1 and 2.
    pub fail_on_slower: bool,
}

/// `bench e2e`, checked.
#[derive(Clone, Debug)]
pub struct E2ePlan {
    /// The run.
    pub run: RunPlan,
    /// The side.
    pub backend: Target,
}

impl RunPlan {
    /// The plan of a verb, from its flags.
    ///
    /// # Errors
    /// Wrong usage, with the fix.
    pub fn new(verb: &'static str, a: RunArgs) -> Result<RunPlan, Failure> {
        let suite = if a.depth.is_empty() { suite::load(&a.suite).map_err(usage)? } else { depths(&a.depth)? };
        let lengths = if a.lengths.is_empty() { suite.lengths.clone() } else { a.lengths };
        let runs = match a.tokens {
            Some(tokens) => runs_for(tokens, suite.prompts.len(), &lengths)?,
            None => a.runs,
        };
        let threads = a.threads.unwrap_or_else(cpu::physical_cores);
        if threads == 0 {
            return Err(usage(anyhow!("--threads 0 computes nothing; give at least 1")));
        }
        if a.timeout == 0 {
            return Err(usage(anyhow!("--timeout 0 fails every request; give at least 1 second")));
        }
        let plan = RunPlan {
            verb,
            model: a.model,
            runs,
            suite,
            lengths,
            device: device(a.device)?,
            kv: a.kv.into(),
            breakdown: a.breakdown,
            tokens: a.tokens,
            threads,
            context: a.ctx,
            seed: a.seed.unwrap_or_else(rand::random),
            block_len: a.block,
            warmup: a.warmup,
            out: a.out,
            timeout: Duration::from_secs(a.timeout),
            dry_run: a.dry_run,
        };
        // Whatever the schedule refuses is refused here, before a model is loaded or a folder made.
        plan.paired().map_err(usage)?;
        let longest = plan.lengths.iter().max().copied().unwrap_or(0);
        if longest >= u64::from(plan.context) {
            return Err(usage(anyhow!(
                "an answer of {longest} tokens does not fit a context of {}\nhint: raise --ctx or lower --lengths",
                plan.context
            )));
        }
        let deepest = plan.suite.prompts.iter().filter_map(|p| p.depth).max().unwrap_or(0);
        let need = deepest + longest + depth::SLACK;
        if deepest > 0 && need > u64::from(plan.context) {
            return Err(usage(anyhow!(
                "a depth of {deepest} and {longest} tokens do not fit a context of {}\nhint: --ctx {}",
                plan.context,
                need.next_multiple_of(256)
            )));
        }
        let on_gpu = matches!(plan.device, DeviceChoice::Cuda(_));
        if plan.breakdown && !on_gpu {
            return Err(usage(anyhow!(
                "--breakdown is not available on the processor: its engine has no times of single steps\nhint: --device cuda:N"
            )));
        }
        if plan.kv == KvType::Int8 && !on_gpu {
            return Err(usage(anyhow!(
                "the processor keeps no keys and values in int8\nhint: --kv f16, or --device cuda:N"
            )));
        }
        Ok(plan)
    }

    /// Whether the device of the run is there and usable: asked before a model is pulled or a folder made.
    ///
    /// # Errors
    /// What is missing, with the fix.
    pub fn check_device(&self) -> anyhow::Result<()> {
        if let DeviceChoice::Cuda(ordinal) = self.device {
            Device::facts_of(ordinal).with_context(|| format!("--device {}", self.device))?;
            kernels::cuda::library::nvrtc().with_context(|| format!("--device {}", self.device))?;
        }
        Ok(())
    }

    /// The plan with the text of its prompts of a depth, which the model's tokenizer decides.
    ///
    /// # Errors
    /// A depth below what a prompt without text takes.
    pub fn filled(&self, model: &dyn Model) -> Result<RunPlan, Failure> {
        let mut plan = self.clone();
        depth::fill(&mut plan.suite, model)?;
        Ok(plan)
    }

    fn spec(&self) -> ScheduleSpec<'_> {
        ScheduleSpec {
            runs: self.runs,
            block_len: self.block_len,
            prompts: self.suite.prompts.len(),
            lengths: &self.lengths,
            warmup: self.warmup,
            seed: self.seed,
        }
    }

    /// The order of runs for two sides.
    ///
    /// # Errors
    /// A plan that measures nothing.
    pub fn paired(&self) -> Result<Schedule, harness_measure::schedule::ScheduleError> {
        Schedule::paired(&self.spec())
    }

    /// The order of runs for one side.
    ///
    /// # Errors
    /// A plan that measures nothing.
    pub fn one_sided(&self, side: SideRole) -> Result<Schedule, harness_measure::schedule::ScheduleError> {
        Schedule::one_sided(&self.spec(), side)
    }
}

impl TryFrom<CompareArgs> for ComparePlan {
    type Error = Failure;

    fn try_from(a: CompareArgs) -> Result<ComparePlan, Failure> {
        let against = match a.against.as_deref() {
            None => Target::Auto,
            Some(word) => match target(word, std::env::var("OLLAMA_HOST").ok().as_deref())? {
                Target::Engine => {
                    return Err(usage(anyhow!("the engine is the other side already; see --against in --help")));
                }
                t => t,
            },
        };
        Ok(ComparePlan {
            run: RunPlan::new("compare", a.run)?,
            against,
            allow_mismatch: a.allow_mismatch,
            fail_on_slower: a.fail_on_slower,
        })
    }
}

impl TryFrom<E2eArgs> for E2ePlan {
    type Error = Failure;

    fn try_from(a: E2eArgs) -> Result<E2ePlan, Failure> {
        let backend = target(&a.backend, std::env::var("OLLAMA_HOST").ok().as_deref())?;
        let run = RunPlan::new("e2e", a.run)?;
        if run.breakdown && backend != Target::Engine {
            return Err(usage(anyhow!("--breakdown takes our own engine apart\nhint: leave --backend out")));
        }
        Ok(E2ePlan { run, backend })
    }
}

/// The suite of `--depth`.
fn depths(depths: &[u64]) -> Result<Suite, Failure> {
    let mut sorted = depths.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != depths.len() {
        return Err(usage(anyhow!("--depth names a depth twice: {depths:?}")));
    }
    Ok(depth::suite(&sorted))
}

/// The runs that it takes until every prompt and length has so many times between tokens.
fn runs_for(tokens: u64, prompts: usize, lengths: &[u64]) -> Result<u64, Failure> {
    let gaps = lengths.iter().min().map_or(0, |shortest| shortest.saturating_sub(1));
    if tokens == 0 || gaps == 0 {
        return Err(usage(anyhow!("--tokens {tokens} of answers of {lengths:?} tokens gives no time between tokens")));
    }
    Ok(tokens.div_ceil(gaps) * prompts as u64 * lengths.len() as u64)
}

/// The device that a flag means. Without one it is the first GPU that the driver shows, else the processor; either way
/// the engine is told, and one that cannot run there is an error and no other device.
fn device(asked: Option<DeviceChoice>) -> Result<DeviceChoice, Failure> {
    match asked {
        Some(DeviceChoice::Auto) => Err(usage(anyhow!(
            "--device auto leaves open what is measured\nhint: write cpu or cuda:N; without the flag it is the first GPU, \
             and the processor where there is none"
        ))),
        Some(device) => Ok(device),
        None if Device::count().is_ok() => Ok(DeviceChoice::Cuda(0)),
        None => Ok(DeviceChoice::Cpu),
    }
}

/// The server that a word of the command line means.
fn target(word: &str, ollama_host: Option<&str>) -> Result<Target, Failure> {
    let (kind, url) = match word.split_once('=') {
        Some((kind, url)) => (kind, Some(url)),
        None => (word, None),
    };
    match (kind, url) {
        ("ollama", None) => Ok(Target::Ollama(default_ollama(ollama_host).map_err(usage)?)),
        ("ollama", Some(u)) => Ok(Target::Ollama(parse_url(u).map_err(usage)?)),
        ("openai", Some(u)) => Ok(Target::OpenAi(parse_url(u).map_err(usage)?)),
        ("openai", None) => Err(usage(anyhow!("openai needs its address: openai=http://127.0.0.1:8080"))),
        ("baseline", None) => Ok(Target::Baseline),
        ("edgellm", None) => Ok(Target::Engine),
        _ => Err(usage(anyhow!("unknown server `{word}`\nhint: ollama, ollama=URL, openai=URL or baseline"))),
    }
}

/// The address in `OLLAMA_HOST`, in any of the forms Ollama takes, or its default.
///
/// # Errors
/// A text that is no address.
pub fn default_ollama(host: Option<&str>) -> anyhow::Result<Url> {
    let host = host.map(str::trim).filter(|h| !h.is_empty()).unwrap_or("127.0.0.1");
    let mut url = parse_url(host).map_err(|e| e.context("reading OLLAMA_HOST"))?;
    // A server that listens on every address is reached on this machine's own.
    if url.host_str() == Some("0.0.0.0") {
        url.set_host(Some("127.0.0.1")).map_err(|e| anyhow!("OLLAMA_HOST: {e}"))?;
    }
    let names_a_port = host.rsplit_once("://").map_or(host, |(_, rest)| rest).contains(':') || host.contains("://");
    if !names_a_port {
        url.set_port(Some(OLLAMA_PORT)).map_err(|()| anyhow!("OLLAMA_HOST takes no port: {host}"))?;
    }
    Ok(url)
}

fn parse_url(text: &str) -> anyhow::Result<Url> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url =
        Url::parse(&full).map_err(|e| anyhow!("`{text}` is no address: {e}\nhint: write it as http://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(anyhow!("`{text}` is no HTTP address\nhint: write it as http://HOST:PORT"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollamas_address_is_read_in_the_forms_that_ollama_takes() {
        for (host, want) in [
            (None, "http://127.0.0.1:11434/"),
            (Some(""), "http://127.0.0.1:11434/"),
            (Some("0.0.0.0"), "http://127.0.0.1:11434/"),
            (Some("box"), "http://box:11434/"),
            (Some("box:9000"), "http://box:9000/"),
            (Some("https://box"), "https://box/"),
        ] {
            assert_eq!(default_ollama(host).unwrap().as_str(), want, "{host:?}");
        }
    }

    #[test]
    fn a_run_knows_its_device_before_it_starts() {
        assert_eq!(device(Some(DeviceChoice::Cuda(3))).unwrap(), DeviceChoice::Cuda(3));
        assert_eq!(device(Some(DeviceChoice::Cpu)).unwrap(), DeviceChoice::Cpu);
        assert_ne!(device(None).unwrap(), DeviceChoice::Auto);
        let Err(Failure::Usage(refused)) = device(Some(DeviceChoice::Auto)) else { panic!("auto was taken") };
        assert!(refused.to_string().contains("write cpu or cuda:N"), "{refused}");
    }

    #[test]
    fn tokens_are_counted_for_each_prompt_and_length_between_tokens() {
        assert_eq!(runs_for(10_000, 1, &[128]).unwrap(), 79);
        assert_eq!(runs_for(10_000, 4, &[128, 51]).unwrap(), 200 * 4 * 2);
        for (tokens, lengths) in [(0, &[128][..]), (100, &[1]), (100, &[])] {
            assert!(matches!(runs_for(tokens, 1, lengths), Err(Failure::Usage(_))));
        }
    }

    #[test]
    fn a_server_is_named_with_or_without_its_address() {
        assert_eq!(target("baseline", None).unwrap(), Target::Baseline);
        assert_eq!(target("ollama=box:1", None).unwrap(), Target::Ollama(Url::parse("http://box:1").unwrap()));
        assert_eq!(target("openai=http://box:2/", None).unwrap(), Target::OpenAi(Url::parse("http://box:2").unwrap()));
        for bad in ["openai", "llama", "ollama=ftp://x", "baseline=x", "ollama=http://"] {
            assert!(matches!(target(bad, None), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
