//! Tunes the kernels of a token in the engine itself and writes the winners as a table.
//!
//! `cargo run --release -p engine --example cuda_tune -- TABLE SECONDS MODEL [MODEL ...]`
//!
//! The table is extended where it exists; `--table TABLE` then runs the engine on it. Every model gets the same share of the
//! time; `EDGELLM_DRAWS` is how many variants of each workload are drawn before neighbours are tried (24). Variants are those
//! of the registry, which the correctness gate has passed: `bench verify` is what says so.
//!
//! `EDGELLM_DEPTHS` are the contexts at which a token is timed, `256,2048` where it is not set: every op at the first, and
//! at each further one, with a tenth of the time, attention alone. Each class of lengths has rows of its own (up to 1024
//! keys, 4096, 16384, beyond); one that was not tuned runs the row of the nearest. `EDGELLM_ONLY=attn_token` tunes that op
//! alone at every depth.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use engine::cuda::CudaModel;
use engine::cuda::tune::{Search, Tuned, tune};
use engine::generate::{LoadOptions, TableChoice};
use engine::gguf::Gguf;
use engine::model::Config;
use harness_spec::Policy;
use kernels::cuda::library::nvrtc;
use variants::{Row, TABLE_SCHEMA, TableFile, registry};

/// Tokens of one timing.
const TOKENS: usize = 64;

/// The op that is chosen by length.
const ATTENTION: &str = "attn_token";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, table, seconds, models @ ..] = &args[..] else {
        return Err("usage: cuda_tune TABLE SECONDS MODEL [MODEL ...]".into());
    };
    let path: &'static Path = Path::new(Box::leak(table.clone().into_boxed_str()));
    let share = seconds.parse::<f64>()? / models.len().max(1) as f64;
    let set = |name: &str| std::env::var(name).ok();
    let draws = set("EDGELLM_DRAWS").map_or(Ok(24), |n| n.parse())?;
    let depths = set("EDGELLM_DEPTHS").unwrap_or_else(|| "256,2048".to_owned());
    let depths = depths.split(',').map(|n| n.trim().parse::<usize>()).collect::<Result<Vec<_>, _>>()?;
    let only = match set("EDGELLM_ONLY").as_deref() {
        None => None,
        Some(ATTENTION) => Some(ATTENTION),
        Some(other) => return Err(format!("EDGELLM_ONLY is {ATTENTION} or not set, not {other}").into()),
    };
    let deepest = depths.iter().max().ok_or("EDGELLM_DEPTHS names no depth")?;
    for name in models {
        let gguf = Gguf::open(Path::new(name))?;
        let config = Config::from_gguf(&gguf)?;
        let choice = if path.exists() { TableChoice::File(path) } else { TableChoice::Device };
        let options = LoadOptions { table: choice, ..LoadOptions::default() };
        let context = (deepest + 2 * TOKENS).next_multiple_of(256).min(config.context_train);
        let mut model = CudaModel::load(&gguf, &config, 0, &options, context)?;
        // A model that was made for short contexts is tuned at those alone.
        let reached = depths.iter().copied().enumerate().filter(|(_, depth)| depth + 2 * TOKENS <= context);
        for (i, depth) in reached {
            let tenths = if i == 0 { 11 - depths.len().min(10) } else { 1 };
            let budget = Duration::from_secs_f64(share * tenths as f64 / 10.0);
            let only = if i == 0 { only } else { Some(ATTENTION) };
            let search = Search { depth, only, tokens: TOKENS, draws, rounds: 3, seed: 1, budget };
            tune_at(&mut model, &search, path, name)?;
        }
    }
    Ok(())
}

/// Tunes at one depth and writes what won into the table.
fn tune_at(model: &mut CudaModel, search: &Search, path: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let results = tune(model, search, &mut |t: &Tuned| {
        println!(
            "{}: {} -> {}, token {:.1} -> {:.1} us ({} timed, {} failed)",
            t.workload,
            t.before.short(),
            t.after.short(),
            t.token.0 * 1e6,
            t.token.1 * 1e6,
            t.timed,
            t.failed
        );
    })?;
    let mut file = match path.exists() {
        true => TableFile::load(path)?,
        false => TableFile {
            schema: TABLE_SCHEMA,
            policy: "cold+in_engine".parse::<Policy>()?,
            date: std::process::Command::new("date")
                .args(["-u", "+%FT%TZ"])
                .output()
                .map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
            tool: concat!("cuda_tune ", env!("CARGO_PKG_VERSION")).to_owned(),
            record: "in the engine".to_owned(),
            incomplete: None,
            device: model.device().key(&nvrtc()?.version_text()),
            rows: Vec::new(),
            buckets: Vec::new(),
        },
    };
    for t in &results {
        let kernels = &registry().space(&t.workload.op).ok_or("an op without a space")?.kernels;
        let spec = kernels.iter().find(|k| k.is_kernel_of(&t.after)).ok_or("a variant of no kernel")?;
        file.rows.retain(|row| row.workload() != t.workload);
        file.rows.push(Row {
            op: t.workload.op.clone(),
            shape: t.workload.shape.clone(),
            layout: spec.layout,
            variant: t.after.clone(),
            // Of a token: what the engine chose by. The marks around single steps cost more than some of the steps.
            median_ns: t.token.1 * 1e9,
            ci_ns: None,
            runner_up: (t.before != t.after).then(|| t.before.clone()),
            gap_to_runner_up: (t.before != t.after).then(|| t.token.0 / t.token.1 - 1.0),
            reason: format!(
                "in the engine, at a context of {}: a token of {} takes {:.1} us with it and {:.1} us with {}",
                search.depth,
                Path::new(name).file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
                t.token.1 * 1e6,
                t.token.0 * 1e6,
                t.before.short()
            ),
            key: spec.fingerprint(),
            record: None,
            policy: Some("cold+in_engine".parse()?),
            quarantined: None,
        });
    }
    file.rows.sort_by_key(|row| (row.op.clone(), row.shape.to_string()));
    std::fs::write(path, file.to_text())?;
    Ok(())
}
