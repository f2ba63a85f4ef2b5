//! Every type of weights against its own decoded self, on a real model: is what a device computes right?
//!
//! `cargo run --release -p engine --example requantized -- MODEL.gguf --device cuda:0`
//!
//! The model's weights are decoded and encoded again in each type. The processor's exact path on the same weights decoded to
//! 32-bit floats says what is right; the engine under test is fed the tokens of a reference file one by one, and prompts
//! at once against the same tokens one by one. The bounds are those of the processor on the same tokens. Where a K-quant
//! does not fit the model's rows, the model is widened with zeros until it does: it computes the same.
//!
//! The exit code is 1 where a bound does not hold.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use engine::Engine;
use engine::eval::ReferenceFile;
use engine::eval::logits::{Bounds, Difference, Sequence, compare, of_decoded};
use engine::generate::{DeviceChoice, KvType, LoadOptions, TableChoice};
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::model::Config;
use engine::requantize::{Requantize, requantize};
use engine::synth::Scheme;
use kernels::cpu::Precision;
use serde::Serialize;

/// Tokens between the lengths of prompts that are compared.
const APART: usize = 16;

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
    kernels: String,
    /// How prompts are multiplied.
    products: &'static str,
    bounds: Bounds,
    against_decoded: Difference,
    prompt_against_tokens: Difference,
    seconds: f64,
    holds: bool,
}

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
        LoadOptions { device: self.args.device, precision, kv: Some(kv), table, context, ..LoadOptions::default() }
    }

    fn scheme(&self, scheme: Scheme, record: &mut Record) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let whole_blocks = matches!(scheme, Scheme::Q4K | Scheme::Q4KM | Scheme::Q5K | Scheme::Q6K | Scheme::TQ2_0);
        let gguf = requantize(&self.gguf, Requantize { scheme, whole_blocks })?;
        let (width, before) = (Config::from_gguf(&gguf)?.hidden, Config::from_gguf(&self.gguf)?.hidden);
        let widened = (width != before).then_some(width);
        let encoded = start.elapsed().as_secs_f64();
        let want = of_decoded(&gguf, &self.sequences)?;
        eprintln!(
            "{}: encoded in {encoded:.1} s, decoded logits in {:.1} s",
            scheme.name(),
            start.elapsed().as_secs_f64() - encoded
        );
        for &precision in &self.args.precision {
            for &kv in &self.args.kv {
                let start = Instant::now();
                let mut engine = Engine::from_gguf(&gguf, &self.options(precision, kv))?;
                let bounds = Bounds::of(precision, kv);
                let (against_decoded, prompt_against_tokens) = compare(&mut engine, &self.prompts, &want, APART)?;
                let row = Row {
                    types: scheme.name(),
                    widened,
                    precision: if precision == Precision::Exact { "exact" } else { "fast" },
                    kv: kv.name(),
                    kernels: engine.table_hash().to_owned(),
                    products: engine.cuda().map_or("batches", |cuda| cuda.prompt_products()),
                    bounds,
                    against_decoded,
                    prompt_against_tokens,
                    seconds: start.elapsed().as_secs_f64(),
                    holds: bounds.hold(&against_decoded) && bounds.hold(&prompt_against_tokens),
                };
                print_row(&row);
                record.holds &= row.holds;
                record.rows.push(row);
                // A run that is cut short leaves what it has.
                self.save(record)?;
            }
        }
        Ok(())
    }

    fn save(&self, record: &Record) -> Result<(), Box<dyn Error>> {
        if let Some(path) = &self.args.json {
            std::fs::write(path, serde_json::to_string_pretty(record)? + "\n")?;
        }
        Ok(())
    }
}

fn print_head() {
    println!(
        "                    |         tokens one by one against decoded weights               |    prompts at once against their tokens     |"
    );
    println!(
        "type     path  kv   | steps agree %  median    p95       KL        gap     relative | count  agree %  median    KL      relative | by                 s"
    );
}

fn print_row(row: &Row) {
    let (d, p) = (&row.against_decoded, &row.prompt_against_tokens);
    println!(
        "{:8} {:5} {:4} | {:5}  {:6.2}  {:.6}  {:.6}  {:8.1e}  {:.4}  {:.5} | {:5}  {:6.2}  {:.6}  {:8.1e} {:.5} | {:14} {:5.1}  {}",
        row.types,
        row.precision,
        row.kv,
        d.steps,
        100.0 * d.top1_agreement,
        d.median_logprob_diff,
        d.p95_logprob_diff,
        d.mean_kl,
        d.largest_miss_gap,
        d.worst_relative_error,
        p.steps,
        100.0 * p.top1_agreement,
        p.median_logprob_diff,
        p.mean_kl,
        p.worst_relative_error,
        row.products,
        row.seconds,
        if row.holds { "holds" } else { "DOES NOT HOLD" }
    );
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
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
    let mut record = Record {
        format: "edgellm.requantized.v1",
        model: file_name(&args.model),
        sha256: info.sha256()?.to_owned(),
        tokens: file_name(&args.tokens),
        device,
        architecture: std::env::var("EDGELLM_CUDA_ARCH").ok(),
        rows: Vec::new(),
        holds: true,
    };
    let run = Run { args, gguf, sequences, prompts };
    print_head();
    for scheme in schemes {
        run.scheme(scheme, &mut record)?;
    }
    println!("{}", if record.holds { "every bound holds" } else { "a bound does not hold" });
    Ok(if record.holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
