//! Tunes the kernels of a token in the engine itself and writes the winners as a table.
//!
//! `cargo run --release -p engine --example cuda_tune -- TABLE SECONDS MODEL [MODEL ...]`
//!
//! The table is extended where it exists; `--table TABLE` then runs the engine on it. Every model gets the same share of the
//! time; `EDGELLM_DRAWS` is how many variants of each workload are drawn before neighbours are tried (24). Variants are those of the registry, which the correctness gate has passed: `bench verify` is what says so.

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

const CONTEXT: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, table, seconds, models @ ..] = &args[..] else {
        return Err("usage: cuda_tune TABLE SECONDS MODEL [MODEL ...]".into());
    };
    let path: &'static Path = Path::new(Box::leak(table.clone().into_boxed_str()));
    let share = seconds.parse::<f64>()? / models.len().max(1) as f64;
    for name in models {
        let gguf = Gguf::open(Path::new(name))?;
        let config = Config::from_gguf(&gguf)?;
        let choice = if path.exists() { TableChoice::File(path) } else { TableChoice::Device };
        let options = LoadOptions { table: choice, ..LoadOptions::default() };
        let mut model = CudaModel::load(&gguf, &config, 0, &options, CONTEXT.min(config.context_train))?;
        let draws = std::env::var("EDGELLM_DRAWS").map_or(Ok(24), |n| n.parse())?;
        let search =
            Search { depth: 256, tokens: 64, draws, rounds: 3, seed: 1, budget: Duration::from_secs_f64(share) };
        let results = tune(&mut model, &search, &mut |t: &Tuned| {
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
        let nanos = model.profile(256, 20)?;
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
            let of = nanos.iter().filter(|s| s.op == t.workload.op && s.key == t.workload.shape);
            let mut times: Vec<f64> = of.map(|s| s.nanos).collect();
            times.sort_by(f64::total_cmp);
            file.rows.retain(|row| row.workload() != t.workload);
            file.rows.push(Row {
                op: t.workload.op.clone(),
                shape: t.workload.shape.clone(),
                layout: spec.layout,
                variant: t.after.clone(),
                median_ns: times.get(times.len() / 2).copied().unwrap_or(0.0),
                ci_ns: None,
                runner_up: (t.before != t.after).then(|| t.before.clone()),
                gap_to_runner_up: None,
                reason: format!(
                    "in the engine, at a context of 256: a token of {} takes {:.1} us with it and {:.1} us with {}",
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
    }
    Ok(())
}
