//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::generate::{DeviceChoice, KvType, LoadOptions, SamplingParams, TableChoice};
use engine::models::{DEFAULT_MODEL, ModelName};
use engine::server::{DEFAULT_PORT, KeepAlive};
use kernels::cpu::Precision;
use variants::Isa;

use crate::exit::Failure;

/// A small LLM engine: models by name, chat in the terminal, and a server with Ollama's and OpenAI's API.
#[derive(Debug, Parser)]
#[command(name = "edgellm", version, after_help = "Exit codes: 0 done, 3 could not do it, 64 wrong usage.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Get a model: by name, from a file, a URL, Ollama or Hugging Face
    #[command(visible_alias = "p")]
    Pull(PullArgs),
    /// Chat with a model, or answer one prompt
    #[command(visible_alias = "r")]
    Run(RunArgs),
    /// Serve models over HTTP, with Ollama's API and OpenAI's
    #[command(visible_alias = "s")]
    Serve(ServeArgs),
    /// List the models on this machine, or remove some
    #[command(visible_alias = "ls")]
    Models(ModelsArgs),
    /// Show what a model's file says
    #[command(visible_alias = "i")]
    Info(InfoArgs),
    /// Write a GGUF with random weights at a real model's shapes
    Synth(SynthArgs),
    /// Compare the engine with a reference, token by token
    Eval(EvalArgs),
}

impl Verb {
    /// What is logged unless `EDGELLM_LOG` says otherwise: a server tells of its models, the rest of trouble only.
    pub fn default_log(&self) -> &'static str {
        if matches!(self, Verb::Serve(_)) { "info" } else { "warn" }
    }
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// A name (smollm2:135m), a GGUF file, a URL, hf.co/OWNER/REPO[:FILE or QUANT], or ollama:NAME
    pub source: String,
    /// The name to store it under
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<ModelName>,
}

/// How a model is loaded.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Positions of the KV cache: prompt and answer together [default: the model's, at most 8192]
    #[arg(long = "ctx", visible_alias = "context", value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// What to compute on: auto, cpu, cuda or cuda:N; auto is the first GPU that can run the model, else the processor
    #[arg(long, env = "EDGELLM_DEVICE", value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Threads on the processor [default: one for each core]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Instruction set of the processor: scalar, avx2 or avx512_vnni [default: the best of this machine]
    #[arg(long, env = "EDGELLM_ISA", value_name = "NAME")]
    pub isa: Option<Isa>,
    /// Which kernels to run on: default, baseline (the plain ones), or the path of a table [default: this device's table]
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub table: Option<TableChoice>,
    /// How keys and values are stored; a GPU has f16 and int8, the processor f16 and f32 [default: f16, or f32 with
    /// --precision exact on the processor]
    #[arg(long, value_enum)]
    pub kv: Option<KvArg>,
    /// Whether activations stay in float32 or may be quantised to eight bits
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fast)]
    pub precision: PrecisionArg,
}

impl LoadArgs {
    /// The same for the engine.
    pub fn options(&self) -> LoadOptions {
        let precision = match self.precision {
            PrecisionArg::Exact => Precision::Exact,
            PrecisionArg::Fast => Precision::Fast,
        };
        let kv = self.kv.map(KvType::from);
        LoadOptions {
            device: self.device,
            threads: self.threads,
            isa: self.isa,
            table: self.table.unwrap_or_default(),
            precision,
            kv,
            context: self.context,
            slots: NonZeroUsize::MIN,
        }
    }
}

/// A table as a word or a path. A path is kept for the life of the program.
fn table(text: &str) -> Result<TableChoice, String> {
    match text {
        "default" => Ok(TableChoice::Default),
        "baseline" => Ok(TableChoice::Baseline),
        path if Path::new(path).is_file() => Ok(TableChoice::File(Box::leak(Path::new(path).into()))),
        other => Err(format!("there is no file {other}; write default, baseline, or the path of a table")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    F16,
    F32,
    Int8,
}

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> KvType {
        match kv {
            KvArg::F16 => KvType::F16,
            KvArg::F32 => KvType::F32,
            KvArg::Int8 => KvType::Int8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    Exact,
    Fast,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// A model's name or a GGUF file; smollm2:135m is pulled if it is not there
    pub model: String,
    /// The prompt; without one the chat is interactive, or what is piped in is the prompt
    pub prompt: Vec<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Chat line by line even when standard input is not a terminal
    #[arg(long, conflicts_with = "raw")]
    pub interactive: bool,
    /// The system message of the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// The most tokens to generate [default: to the end of the context]
    #[arg(short = 'n', long, value_name = "N", value_parser = positive)]
    pub max_tokens: Option<usize>,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on past end tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print counts and times to stderr after each answer
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// 0 is greedy
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = SamplingParams::default().temperature)]
    pub temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = SamplingParams::default().top_k)]
    pub top_k: usize,
    /// Keep the most likely tokens up to this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SamplingParams::default().top_p)]
    pub top_p: f32,
    /// Drop tokens less likely than this fraction of the most likely
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SamplingParams::default().min_p)]
    pub min_p: f32,
    /// Divides the logits of recent tokens; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = SamplingParams::default().repeat_penalty)]
    pub repeat_penalty: f32,
    /// How many tokens count as recent
    #[arg(long, value_name = "N", default_value_t = SamplingParams::default().repeat_last_n)]
    pub repeat_last_n: usize,
    /// Makes sampling reproducible
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// The same for the engine.
    pub fn params(&self) -> Result<SamplingParams, Failure> {
        let params = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            seed: self.seed,
        };
        params.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(params)
    }
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on, with or without a port
    #[arg(long, env = "EDGELLM_HOST", default_value = "127.0.0.1", value_name = "HOST[:PORT]")]
    pub host: String,
    /// The port; 0 takes a free one [default: that of the host, or 11435]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Load this model first: a name of the store or a GGUF file
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// The name that --model is served under [default: its own]
    #[arg(long, requires = "model", value_name = "NAME")]
    pub name: Option<ModelName>,
    /// How long an idle model stays loaded: 5m, 1h, -1 for ever [default: 5m, with --model for ever]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub keep_alive: Option<KeepAlive>,
    /// How many requests are answered side by side, each with a KV cache of --ctx positions: answers take turns, so that a
    /// long prompt does not hold up the others
    #[arg(long, env = "EDGELLM_NUM_PARALLEL", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// How many requests may wait beside those that are answered; one more is refused with status 503
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub queue: u32,
    /// The largest request body in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub body_limit: u32,
    /// How many seconds running answers may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u16,
    /// End when standard input ends, as when the parent process dies
    #[arg(long)]
    pub until_eof: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

impl ServeArgs {
    /// How models are loaded.
    pub fn options(&self) -> LoadOptions {
        let slots = NonZeroUsize::new(self.parallel.into()).expect("the command line takes no 0");
        LoadOptions { slots, ..self.load.options() }
    }

    /// The address, from `--host` in any of the forms that `OLLAMA_HOST` may have, and `--port`.
    pub fn addr(&self) -> Result<SocketAddr, Failure> {
        let bad =
            || Failure::Usage(format!("'{}' is no address to listen on; write 127.0.0.1 or 0.0.0.0:8080", self.host));
        let host = self.host.trim_start_matches("http://").trim_end_matches('/');
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(SocketAddr::new(ip, self.port.unwrap_or(DEFAULT_PORT)));
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse::<u16>().map_err(|_| bad())?)),
            None => (host, None),
        };
        let port = self.port.or(port).unwrap_or(DEFAULT_PORT);
        // `:8080` is every address of this machine, as Go has it.
        let name = if name.is_empty() { "0.0.0.0" } else { name.trim_matches(['[', ']']) };
        (name, port).to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)
    }
}

#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do with them; without it they are listed
    #[command(subcommand)]
    pub verb: Option<ModelsVerb>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ModelsVerb {
    /// List the models on this machine
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove models from this machine
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<ModelName>,
    },
}

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// A model's name or a GGUF file
    pub model: String,
    /// Say whether the model fits on this GPU: cuda or cuda:N; auto is the first, if there is one
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Positions of the KV cache, for the memory on a GPU [default: the model's, at most 8192]
    #[arg(long = "ctx", visible_alias = "context", value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// How keys and values are stored there
    #[arg(long, value_enum, default_value_t = KvArg::F16)]
    pub kv: KvArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SynthArgs {
    /// A built-in shape such as llama-3.1-8b, or a .toml file
    #[arg(long)]
    pub shape: String,
    /// The quantisation, such as q4_0
    #[arg(long)]
    pub quant: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The same seed makes the same file
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Another number of blocks than the shape's
    #[arg(long, value_name = "N", value_parser = positive)]
    pub layers: Option<usize>,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The reference: prompts, tokens and log-probabilities as JSON
    #[arg(long, value_name = "FILE")]
    pub reference: PathBuf,
    /// A model's name or a GGUF file
    #[arg(long, default_value = DEFAULT_MODEL)]
    pub model: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn serve(words: &[&str]) -> ServeArgs {
        match Cli::try_parse_from([&["edgellm", "serve"], words].concat()).unwrap().verb {
            Verb::Serve(args) => args,
            other => panic!("{other:?} is not serve"),
        }
    }

    #[test]
    fn an_address_is_read_in_every_form_of_ollamas() {
        for (host, want) in [
            ("127.0.0.1", "127.0.0.1:11435"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("http://127.0.0.1:9/", "127.0.0.1:9"),
            (":7000", "0.0.0.0:7000"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]:11435"),
        ] {
            assert_eq!(serve(&["--host", host]).addr().unwrap().to_string(), want, "{host}");
        }
        assert_eq!(serve(&["--host", "127.0.0.1:1", "--port", "2"]).addr().unwrap().port(), 2);
        assert!(serve(&["--host", "127.0.0.1:port"]).addr().is_err());
    }

    #[test]
    fn exact_precision_keeps_exact_keys_and_values_unless_told_otherwise() {
        let options = |words: &[&str]| serve(words).load.options();
        assert_eq!(options(&["--precision", "exact"]).kv_on_cpu(), KvType::F32);
        assert_eq!(options(&["--precision", "exact", "--kv", "f16"]).kv_on_cpu(), KvType::F16);
        assert_eq!(options(&[]).kv_on_cpu(), KvType::F16);
        assert_eq!(options(&["--kv", "int8"]).kv_on_cuda(), KvType::Int8);
    }

    #[test]
    fn one_request_is_answered_at_a_time_unless_more_are_asked_for() {
        assert_eq!(serve(&["--parallel", "4"]).options().slots.get(), 4);
        assert_eq!(serve(&[]).parallel, std::env::var("EDGELLM_NUM_PARALLEL").map_or(1, |n| n.parse().unwrap()));
        assert!(Cli::try_parse_from(["edgellm", "serve", "--parallel", "0"]).is_err());
    }

    #[test]
    fn the_device_is_chosen_by_itself_unless_it_is_named() {
        let device = |words: &[&str]| serve(words).load.options().device;
        assert_eq!(device(&["--device", "cuda:1"]), DeviceChoice::Cuda(1));
        assert_eq!(device(&["--device", "cpu"]), DeviceChoice::Cpu);
        assert!(Cli::try_parse_from(["edgellm", "serve", "--device", "tpu"]).is_err());
    }
}
