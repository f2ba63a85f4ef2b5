//! Prefill and decode speed of a model file without a server: for work on kernels.
//!
//! `cargo run --release -p engine --example decode_speed -- MODEL [prompt tokens] [decoded tokens] [repetitions]`
//!
//! The kernels are those of this device's table, as in the engine; `EDGELLM_TABLE=default|baseline|PATH` takes others, as
//! `--table` does there, and several with commas between them decode in turn, a few tokens each. `EDGELLM_ISA`,
//! `EDGELLM_EXACT` and `EDGELLM_THREADS` choose the rest of what runs. In every turn the weights are also read alone: no
//! token can be faster than that.
//!
//! A shared machine's memory is twice as fast in one second as in the next. So times are told as what they are of the same
//! turn's read, and of the first table's in the same turn: the medians of these ratios.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use engine::forward::{Scratch, Wanted, forward};
use engine::gguf::Gguf;
use engine::kv_cache::KvCache;
use engine::model::{Model, load_model};
use kernels::Isa;
use kernels::cpu::{Cpu, CpuOptions, KvType, Matrix, Precision, device_key, last_level_cache};
use variants::{Limits, Table, TableFile};

/// Tokens of a turn, of which the first is not counted: the threads of the table before it may still be awake.
const TURN: usize = 5;

/// A table's kernels, and a model in their layouts.
struct Way {
    said: String,
    cpu: Cpu,
    model: Model,
    kv: KvCache,
    scratch: Scratch,
    next: u32,
    prefill: Vec<f64>,
    /// Seconds a token, of each turn.
    decode: Vec<f64>,
}

impl Way {
    /// Feeds the prompt.
    fn start(&mut self, prompt: &[u32]) {
        let start = Instant::now();
        let Way { cpu, model, kv, scratch, .. } = self;
        self.next = cpu.argmax(forward(cpu, model, kv, prompt, 0, scratch, Wanted::Last));
        self.prefill.push(start.elapsed().as_secs_f64());
    }

    /// Decodes one token at a position and returns the seconds that it took.
    fn token(&mut self, position: usize) -> f64 {
        let start = Instant::now();
        let Way { cpu, model, kv, scratch, next, .. } = self;
        *next = cpu.argmax(forward(cpu, model, kv, &[*next], position, scratch, Wanted::Last));
        start.elapsed().as_secs_f64()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let path = args.get(1).ok_or("usage: decode_speed MODEL [prompt tokens] [decoded tokens] [repetitions]")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (prompt, decoded, repetitions) = (number(2, 128)?, number(3, 128)?, number(4, 5)?);
    let tables = std::env::var("EDGELLM_TABLE").unwrap_or_default();
    let gguf = Gguf::open(Path::new(path))?;
    let mut ways = Vec::new();
    for table in tables.split(',') {
        ways.push(way(&gguf, table, prompt + decoded)?);
    }

    let bytes: usize = ways[0].model.matrices().map(Matrix::bytes).sum();
    let vocab = ways[0].model.config.vocab;
    let ids: Vec<u32> = (0..prompt).map(|i| (i * 7919 % vocab) as u32).collect();
    let mut reads = Vec::new();
    for _ in 0..repetitions {
        ways.iter_mut().for_each(|way| way.start(&ids));
        for (turn, at) in (prompt..prompt + decoded).step_by(TURN).enumerate() {
            let first = turn % ways.len();
            for i in (first..ways.len()).chain(0..first) {
                let mut times: Vec<f64> = (at..(at + TURN).min(prompt + decoded)).map(|at| ways[i].token(at)).collect();
                if times.len() > 1 {
                    times.remove(0);
                }
                ways[i].decode.push(median(&mut times));
            }
            let Way { cpu, model, .. } = &ways[0];
            reads.push(bytes as f64 * 1e-9 / cpu.read_weights(model.matrices()).0);
        }
    }

    let base = ways[0].decode.clone();
    for way in &mut ways {
        let mut of_read = ratios(&reads, &way.decode);
        let mut of_base = ratios(&base, &way.decode);
        let token = median(&mut way.decode);
        println!(
            "pp{prompt} {:8.1} tok/s   tg{decoded} {:8.1} tok/s   {:.1} GB/s of weights, {:.1} % of the {:.1} GB/s at which \
             they are read   {:.3} of the first   last id {}   {}",
            prompt as f64 / median(&mut way.prefill),
            1.0 / token,
            bytes as f64 * 1e-9 / token,
            100.0 * median(&mut of_read),
            bytes as f64 * 1e-9 / median(&mut reads.clone()),
            median(&mut of_base),
            way.next,
            way.said,
        );
    }
    Ok(())
}

/// A model with the kernels of a table: that of the device where the name is empty.
fn way(gguf: &Gguf, table: &str, context: usize) -> Result<Way, Box<dyn Error>> {
    let set = |name: &str| std::env::var(name).ok();
    let isa = set("EDGELLM_ISA").map_or(Ok(Isa::detect()), |word| word.parse())?;
    let precision = if set("EDGELLM_EXACT").is_some() { Precision::Exact } else { Precision::Fast };
    let mut options = CpuOptions { isa, ..CpuOptions::default() };
    if let Some(threads) = set("EDGELLM_THREADS") {
        options.threads = threads.parse()?;
    }
    let limits = Limits::cpu(isa, last_level_cache());
    let (table, said) = match table {
        "" => {
            // A table is made for a number of threads, too.
            let key = device_key(isa, options.threads);
            let (table, loaded) = Table::for_device(&key, limits, &engine::tables::folders());
            (table, loaded.to_string())
        }
        "default" => (Table::default_for(isa), "default kernels".to_owned()),
        "baseline" => (Table::baseline(), "plain kernels".to_owned()),
        path => (Table::of_file(TableFile::load(Path::new(path))?, limits), format!("kernels by {path}")),
    };
    options.table = table;
    let start = Instant::now();
    let cpu = Cpu::new(options);
    let model = load_model(gguf, &cpu, precision)?;
    eprintln!("loaded in {:.3} s, {said}, {cpu:?}", start.elapsed().as_secs_f64());
    let kv = KvCache::new(&model.config, KvType::F16, context);
    let scratch = Scratch::new(&model);
    Ok(Way { said, cpu, model, kv, scratch, next: 0, prefill: Vec::new(), decode: Vec::new() })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ratios(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}
