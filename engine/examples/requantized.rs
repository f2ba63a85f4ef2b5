//! Every type of weights against its own decoded self, on a real model: is what a device computes right?
//!
//! `cargo run --release -p engine --example requantized -- MODEL.gguf --device cuda:0`
//!
//! The model's weights are decoded and encoded again in each type. The processor's exact path on the same weights decoded to
//! 32-bit floats says what is right, with keys and values in f16 as llama.cpp has them: rounding them can turn a choice
//! between two tokens that are level, whatever the weights. Where the engine under test has them in f32, so has it. The engine under test is fed the tokens of a reference file one by one, and prompts
//! at once, which are held against the same tokens one by one as well. The bounds are those of the processor on the same
//! tokens. Where a K-quant does not fit the model's rows, the model is widened with zeros until it does: it computes the
//! same.
//!
//! The record names every miss with its gap, so that a wrong token can be told from one of two that are level.
//!
//! The exit code is 1 where a bound does not hold.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use engine::Engine;
use engine::eval::ReferenceFile;
use engine::eval::compare::{Comparison, Sequence, compare, of_decoded};
use engine::eval::logits::{Bounds, Difference};
use engine::generate::{DeviceChoice, KvType, LoadOptions, TableChoice};
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::model::Config;
use engine::requantize::{Requantize, requantize};
use engine::synth::Scheme;
use kernels::cpu::{self, Precision};
use serde::Serialize;

/// Tokens between the lengths of prompts that are compared, where they take milliseconds, and on the processor.
const APART: [usize; 2] = [3, 16];

/// What an engine says of its products where it takes prompts token by token.
const TOKEN_BY_TOKEN: &str = "token by token";

/// Holds every type of weights against its own decoded self.
#[derive(Parser)]
struct Args {
    /// The model whose weights are requantised
    model: PathBuf,
    /// Types of weights
    #[arg(long, value_delimiter = ',', default_value = "q4_0,q4_1,q5_0,q8_0,q4_k,q5_k,q6_k,q4_k_m,f16,bf16")]
    types: Vec<String>,
    /// What computes: cpu or cuda:N
    #[arg(long, default_value_t = DeviceChoice::Cpu)]
    device: DeviceChoice,
    /// exact, fast or both
    #[arg(long, value_delimiter = ',', default_value = "exact,fast", value_parser = precision)]
    precision: Vec<Precision>,
    /// Types of keys and values [default: f16,int8 on a CUDA device, f16 on the processor]
    #[arg(long, value_delimiter = ',', value_parser = kv)]
    kv: Vec<KvType>,
    /// A reference file, whose tokens are fed
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/smollm2_greedy.json"))]
    tokens: PathBuf,
    /// Steps that are compared, the same share of each case of the reference
    #[arg(long, default_value_t = 1366)]
    steps: usize,
    /// Tokens of a prompt that is compared beside those of the reference, longer than a batch; 0 for none
    #[arg(long, default_value_t = 720)]
    long: usize,
    /// Tokens between the lengths of prompts that are compared [default: 3 on a CUDA device, 16 on the processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    apart: Option<u16>,
    /// Threads of the processor, of each job [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// Types at a time: on a GPU each has a stream of its own, and none of them fills the device
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Which kernels run: default, baseline, or the path of a table [default: the device's table]
    #[arg(long)]
    table: Option<String>,
    /// Where the record goes
    #[arg(long)]
    json: Option<PathBuf>,
}

fn precision(word: &str) -> Result<Precision, String> {
    match word {
        "exact" => Ok(Precision::Exact),
        "fast" => Ok(Precision::Fast),
        _ => Err("write exact or fast".into()),
    }
}

fn kv(word: &str) -> Result<KvType, String> {
    let all = [KvType::F16, KvType::F32, KvType::Int8];
    all.into_iter().find(|kv| kv.name() == word).ok_or_else(|| "write f16, f32 or int8".into())
}

/// All that was compared.
#[derive(Serialize)]
struct Record {
    format: &'static str,
    model: String,
    sha256: String,
    tokens: String,
    device: String,
    architecture: Option<String>,
    rows: Vec<Row>,
    holds: bool,
}

/// One type of weights under one precision and type of keys and values.
#[derive(Clone, Serialize)]
struct Row {
    types: &'static str,
    /// The width of the residual stream, where the model was widened.
    widened: Option<usize>,
    precision: &'static str,
    kv: &'static str,
    /// The type of keys and values beside the decoded weights.
    decoded_kv: &'static str,
    kernels: String,
    /// How prompts are multiplied.
    products: &'static str,
    bounds: Bounds,
    /// Tokens between the lengths of prompts; none where prompts go token by token, and one of them is compared.
    apart: Option<usize>,
    #[serde(flatten)]
    comparison: Comparison,
    seconds: f64,
    holds: bool,
}

/// Why there is no record, or not all of it; it crosses threads.
type Failure = Box<dyn Error + Send + Sync>;

struct Run {
    args: Args,
    gguf: Gguf,
    /// Those that are compared with the decoded weights.
    sequences: Vec<Sequence>,
    /// The same, and the long prompt.
    prompts: Vec<Sequence>,
}

impl Run {
    fn options(&self, precision: Precision, kv: KvType) -> LoadOptions {
        let table = match self.args.table.as_deref() {
            None => TableChoice::Device,
            Some("default") => TableChoice::Default,
            Some("baseline") => TableChoice::Baseline,
            Some(path) => TableChoice::File(Path::new(Box::leak(path.to_owned().into_boxed_str()))),
        };
        let longest = self.prompts.iter().map(|s| s.ids.len()).max().unwrap_or(2);
        let context = Some(longest.next_multiple_of(64));
        let (device, threads) = (self.args.device, self.args.threads);
        LoadOptions { device, precision, kv: Some(kv), table, context, threads, ..LoadOptions::default() }
    }

    fn scheme(&self, scheme: Scheme, record: &Mutex<Record>) -> Result<(), Failure> {
        let start = Instant::now();
        let whole_blocks = matches!(scheme, Scheme::Q4K | Scheme::Q4KM | Scheme::Q5K | Scheme::Q6K | Scheme::TQ2_0);
        let gguf = requantize(&self.gguf, Requantize { scheme, whole_blocks })?;
        let (width, before) = (Config::from_gguf(&gguf)?.hidden, Config::from_gguf(&self.gguf)?.hidden);
        let widened = (width != before).then_some(width);
        let encoded = start.elapsed().as_secs_f64();
        eprintln!("{}: encoded in {encoded:.1} s", scheme.name());
        let mut decoded: Option<(cpu::KvType, Vec<Vec<f32>>)> = None;
        for &kv in &self.args.kv {
            let rounded = kv.on_cpu().unwrap_or(cpu::KvType::F16);
            let (_, want) = match decoded.take() {
                Some(known) if known.0 == rounded => decoded.insert(known),
                _ => decoded.insert((rounded, of_decoded(&gguf, &self.sequences, rounded, self.args.threads)?)),
            };
            for &precision in &self.args.precision {
                let start = Instant::now();
                let mut engine = Engine::from_gguf(&gguf, &self.options(precision, kv))?;
                let bounds = Bounds::of(precision, kv);
                let products = engine.cuda().map_or("batches", |cuda| cuda.prompt_products());
                let apart = (products != TOKEN_BY_TOKEN).then(|| self.apart());
                let comparison = compare(&mut engine, &self.prompts, want, apart)?;
                let row = Row {
                    types: scheme.name(),
                    widened,
                    precision: if precision == Precision::Exact { "exact" } else { "fast" },
                    kv: kv.name(),
                    decoded_kv: if rounded == cpu::KvType::F32 { "f32" } else { "f16" },
                    kernels: engine.table_hash().to_owned(),
                    products,
                    bounds,
                    apart,
                    holds: holds(&bounds, &comparison),
                    comparison,
                    seconds: start.elapsed().as_secs_f64(),
                };
                let mut record = record.lock().expect("no thread panics while it writes the record");
                print_row(&row);
                record.holds &= row.holds;
                record.rows.push(row);
                // Stable: those of a type are pushed in their order.
                record
                    .rows
                    .sort_by_key(|row| self.args.types.iter().position(|name| name.eq_ignore_ascii_case(row.types)));
                // A run that is cut short leaves what it has.
                self.save(&record)?;
            }
        }
        Ok(())
    }

    /// Every type, `--jobs` of them at a time.
    fn all(&self, schemes: &[Scheme], record: &Mutex<Record>) -> Result<(), Failure> {
        let next = AtomicUsize::new(0);
        let worker = || loop {
            let Some(&scheme) = schemes.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            self.scheme(scheme, record)?;
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.args.jobs).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a job does not panic"))
        })
    }

    fn apart(&self) -> usize {
        let [on_cuda, on_cpu] = APART;
        let default = if self.args.device == DeviceChoice::Cpu { on_cpu } else { on_cuda };
        self.args.apart.map_or(default, usize::from)
    }

    fn save(&self, record: &Record) -> Result<(), Failure> {
        if let Some(path) = &self.args.json {
            std::fs::write(path, serde_json::to_string_pretty(record)? + "\n")?;
        }
        Ok(())
    }
}

/// Whether all that was compared stays within the bounds. There may be no prompt at once that ends at a step of the reference.
fn holds(bounds: &Bounds, c: &Comparison) -> bool {
    bounds.hold(&c.tokens_against_decoded)
        && bounds.hold(&c.prompts_against_tokens)
        && (c.prompts_against_decoded.steps == 0 || bounds.hold(&c.prompts_against_decoded))
}

fn print_head() {
    println!(
        "type     path  kv   | compared                   | count  agree %  median    p95       KL       relative"
    );
}

fn print_row(row: &Row) {
    let c = &row.comparison;
    for (name, d) in [
        ("tokens against decoded", &c.tokens_against_decoded),
        ("prompts against tokens", &c.prompts_against_tokens),
        ("prompts against decoded", &c.prompts_against_decoded),
    ] {
        println!(
            "{:8} {:5} {:4} | {name:26} | {:5}  {:6.2}  {:.6}  {:.6}  {:8.1e} {:.5}{}",
            row.types,
            row.precision,
            row.kv,
            d.steps,
            100.0 * d.top1_agreement,
            d.median_logprob_diff,
            d.p95_logprob_diff,
            d.mean_kl,
            d.worst_relative_error,
            gaps(d)
        );
    }
    let verdict = if row.holds { "holds" } else { "DOES NOT HOLD" };
    println!(
        "{:8} {:5} {:4} | prompts by {}, {:.1} s: {verdict}",
        row.types, row.precision, row.kv, row.products, row.seconds
    );
}

/// The gaps of the misses, where there are any.
fn gaps(d: &Difference) -> String {
    let [Some(half), Some(most), Some(all)] = [0.5, 0.9, 1.0].map(|share| d.gap_of_misses(share)) else {
        return String::new();
    };
    format!("  {} misses, half within {half:.4} nat, nine tenths within {most:.4}, all within {all:.4}", d.misses.len())
}

fn main() -> Result<ExitCode, Failure> {
    let mut args = Args::parse();
    if args.kv.is_empty() {
        args.kv = if args.device == DeviceChoice::Cpu { vec![KvType::F16] } else { vec![KvType::F16, KvType::Int8] };
    }
    let schemes = args.types.iter().map(|name| Scheme::find(name)).collect::<Result<Vec<_>, _>>()?;
    let gguf = Gguf::open(&args.model)?;
    let info = ModelInfo::from_gguf(&gguf)?;
    let reference = ReferenceFile::read(&args.tokens)?;
    let sequences = Sequence::of(&reference, args.steps, info.config.vocab);
    let mut prompts = sequences.clone();
    if args.long > 0 {
        prompts.push(Sequence::joined(&sequences, args.long.min(info.config.context_train)));
    }
    let device = match args.device {
        DeviceChoice::Cuda(n) => kernels::cuda::driver::Device::open(n)?.facts().name.clone(),
        other => other.to_string(),
    };
    let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let record = Mutex::new(Record {
        format: "edgellm.requantized.v2",
        model: file_name(&args.model),
        sha256: info.sha256()?.to_owned(),
        tokens: file_name(&args.tokens),
        device,
        architecture: std::env::var("EDGELLM_CUDA_ARCH").ok(),
        rows: Vec::new(),
        holds: true,
    });
    let run = Run { args, gguf, sequences, prompts };
    print_head();
    run.all(&schemes, &record)?;
    let record = record.into_inner().expect("no thread panics while it writes the record");
    println!("{}", if record.holds { "every bound holds" } else { "a bound does not hold" });
    Ok(if record.holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
