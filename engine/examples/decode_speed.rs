//! Prefill and decode speed of a model file without a server: for work on kernels.
//!
//! `cargo run --release -p engine --example decode_speed -- MODEL [prompt tokens] [decoded tokens] [repetitions]`
//!
//! The kernels are those of this device's table, as in the engine; `EDGELLM_TABLE=default|baseline|PATH` takes others, as
//! `--table` does there. `EDGELLM_ISA`, `EDGELLM_EXACT` and `EDGELLM_THREADS` choose the rest of what runs. Between tokens
//! the weights are also read alone: no token can be faster than that.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use engine::forward::{Scratch, Wanted, forward};
use engine::gguf::Gguf;
use engine::kv_cache::KvCache;
use engine::model::load_model;
use kernels::Isa;
use kernels::cpu::{Cpu, CpuOptions, KvType, Matrix, Precision, device_key, last_level_cache};
use variants::{Limits, Table, TableFile};

/// Tokens between two readings of the weights alone, with which decoding is compared in the same seconds.
const READ_EVERY: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let path = args.get(1).ok_or("usage: decode_speed MODEL [prompt tokens] [decoded tokens] [repetitions]")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (prompt, decoded, repetitions) = (number(2, 128)?, number(3, 128)?, number(4, 5)?);
    let set = |name: &str| std::env::var(name).ok();

    let isa = set("EDGELLM_ISA").map_or(Ok(Isa::detect()), |word| word.parse())?;
    let precision = if set("EDGELLM_EXACT").is_some() { Precision::Exact } else { Precision::Fast };
    let mut options = CpuOptions { isa, ..CpuOptions::default() };
    if let Some(threads) = set("EDGELLM_THREADS") {
        options.threads = threads.parse()?;
    }
    let limits = Limits::cpu(isa, last_level_cache());
    let (table, said) = match set("EDGELLM_TABLE").as_deref() {
        None => {
            // A table is made for a number of threads, too.
            let (table, loaded) =
                Table::for_device(&device_key(isa, options.threads), limits, &engine::tables::folders());
            (table, loaded.to_string())
        }
        Some("default") => (Table::default_for(isa), "default kernels".to_owned()),
        Some("baseline") => (Table::baseline(), "plain kernels".to_owned()),
        Some(path) => (Table::of_file(TableFile::load(Path::new(path))?, limits), format!("kernels by {path}")),
    };
    options.table = table;
    let start = Instant::now();
    let cpu = Cpu::new(options);
    let gguf = Gguf::open(Path::new(path))?;
    let model = load_model(&gguf, &cpu, precision)?;
    eprintln!("loaded in {:.3} s, {said}, {cpu:?}", start.elapsed().as_secs_f64());

    let mut kv = KvCache::new(&model.config, KvType::F16, prompt + decoded);
    let mut scratch = Scratch::new(&model);
    let ids: Vec<u32> = (0..prompt).map(|i| (i * 7919 % model.config.vocab) as u32).collect();
    for _ in 0..repetitions {
        let start = Instant::now();
        let logits = forward(&cpu, &model, &mut kv, &ids, 0, &mut scratch, Wanted::Last);
        let mut next = cpu.argmax(logits);
        let prefill = start.elapsed().as_secs_f64();
        let (mut decode, mut reads) = (0.0, Vec::new());
        for i in 0..decoded {
            let start = Instant::now();
            let logits = forward(&cpu, &model, &mut kv, &[next], prompt + i, &mut scratch, Wanted::Last);
            next = cpu.argmax(logits);
            decode += start.elapsed().as_secs_f64();
            if i % READ_EVERY == READ_EVERY - 1 {
                reads.push(cpu.read_weights(model.matrices()).0);
            }
        }
        println!(
            "pp{prompt} {:8.1} tok/s   tg{decoded} {:8.1} tok/s   last id {next}",
            prompt as f64 / prefill,
            decoded as f64 / decode
        );
        if !reads.is_empty() {
            reads.sort_by(f64::total_cmp);
            let read = reads[reads.len() / 2];
            let bytes: usize = model.matrices().map(Matrix::bytes).sum();
            let rate = bytes as f64 * 1e-9 * decoded as f64 / decode;
            println!(
                "  {rate:.1} GB/s of weights, {:.0} % of the {read:.1} GB/s at which the same bytes are read",
                100.0 * rate / read
            );
        }
    }
    Ok(())
}
