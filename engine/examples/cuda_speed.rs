//! Prefill and decode speed of a model file on a CUDA device, and what each step of a token takes: for work on kernels.
//!
//! `cargo run --release -p engine --example cuda_speed -- MODEL [prompt tokens] [decoded tokens] [repetitions] [depth]`
//!
//! Decoding starts at `depth` tokens of context. `EDGELLM_TABLE=default|baseline|PATH` chooses the kernels as `--table`
//! does elsewhere, `EDGELLM_KV=int8` the type of keys and values. `EDGELLM_SAMPLE=0.7,40,0.9,0,1.1` draws tokens by temperature,
//! top-k, top-p, min-p and repeat penalty instead of taking the most likely. `EDGELLM_PROFILE=1` lists the steps of a token. The times
//! of steps come from a graph in which none overlaps another; the token's own graph is faster where steps may overlap.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use engine::cuda::CudaModel;
use engine::generate::{KvType, LoadOptions, SamplingParams, TableChoice};
use engine::gguf::Gguf;
use engine::model::Config;
use engine::sampler::Sampler;

/// Temperature, top-k, top-p, min-p and repeat penalty, as `0.7,40,0.9,0,1.1`.
fn sampling(text: &str) -> Result<SamplingParams, Box<dyn Error>> {
    let words: Vec<&str> = text.split(',').collect();
    let [temperature, top_k, top_p, min_p, penalty] = words[..] else {
        return Err("EDGELLM_SAMPLE is temperature,top-k,top-p,min-p,repeat penalty: 0.7,40,0.9,0,1.1".into());
    };
    let params = SamplingParams {
        temperature: temperature.parse()?,
        top_k: top_k.parse()?,
        top_p: top_p.parse()?,
        min_p: min_p.parse()?,
        repeat_penalty: penalty.parse()?,
        seed: Some(1),
        ..SamplingParams::default()
    };
    params.check()?;
    Ok(params)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let path = args.get(1).ok_or("usage: cuda_speed MODEL [prompt tokens] [decoded tokens] [repetitions] [depth]")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (prompt, decoded, repetitions, depth) = (number(2, 512)?, number(3, 128)?, number(4, 5)?, number(5, 0)?);
    let set = |name: &str| std::env::var(name).ok();
    let table = match set("EDGELLM_TABLE").as_deref() {
        None => TableChoice::Device,
        Some("default") => TableChoice::Default,
        Some("baseline") => TableChoice::Baseline,
        Some(path) => TableChoice::File(Path::new(Box::leak(path.to_owned().into_boxed_str()))),
    };
    let kv = set("EDGELLM_KV").is_some_and(|kv| kv == "int8").then_some(KvType::Int8);
    let params = set("EDGELLM_SAMPLE").map(|text| sampling(&text)).transpose()?;
    let options = LoadOptions { table, kv, ..LoadOptions::default() };

    let start = Instant::now();
    let gguf = Gguf::open(Path::new(path))?;
    let config = Config::from_gguf(&gguf)?;
    let context = (depth + prompt.max(decoded) + 8).next_multiple_of(256).min(config.context_train);
    let mut model = CudaModel::load(&gguf, &config, 0, &options, context)?;
    let (nodes, early) = model.graph_facts();
    println!(
        "loaded in {:.2} s: {} MiB on {}, a graph of {nodes} nodes ({} may start early), prompts {}",
        start.elapsed().as_secs_f64(),
        model.vram() >> 20,
        model.device().facts().name,
        early.map_or("?".to_owned(), |n| n.to_string()),
        model.prompt_products()
    );
    let ids = |n: usize| (0..n).map(|i| (i * 7919 % config.vocab) as u32).collect::<Vec<_>>();
    for _ in 0..repetitions {
        let mut line = String::new();
        if prompt > 0 {
            let start = Instant::now();
            model.feed(&ids(prompt), 0)?;
            let first = model.next_greedy(false)?;
            let prefill = start.elapsed().as_secs_f64();
            line += &format!("pp{prompt} {:9.1} tok/s (first {first})   ", prompt as f64 / prefill);
        }
        if decoded > 0 {
            let mut history = ids(depth.max(1));
            let mut sampler = Sampler::new(config.vocab);
            params.iter().for_each(|params| sampler.start(params));
            let mut next = |model: &mut CudaModel, more: bool| match &params {
                Some(_) => {
                    let id = model.next_sampled(&mut sampler, &history, more)?;
                    history.push(id);
                    Ok(id)
                }
                None => model.next_greedy(more),
            };
            model.feed(&ids(depth.max(1)), 0)?;
            next(&mut model, true)?;
            let before = model.counters();
            let start = Instant::now();
            let mut last = 0;
            let mut gaps = Vec::with_capacity(decoded);
            let mut then = start;
            for i in 0..decoded {
                last = next(&mut model, i + 1 < decoded)?;
                let now = Instant::now();
                gaps.push((now - then).as_secs_f64());
                then = now;
            }
            let decode = start.elapsed().as_secs_f64();
            gaps.sort_by(f64::total_cmp);
            let at = |share: f64| gaps[((decoded as f64 * share).ceil() as usize).clamp(1, decoded) - 1];
            let after = model.counters();
            line += &format!(
                "tg{decoded} @{depth} {:9.1} tok/s   last id {last}, {:.2} graph launches and {:.1} bytes back a token, ITL p99/p50 {:.3}",
                decoded as f64 / decode,
                (after.graph_launches - before.graph_launches) as f64 / decoded as f64,
                (after.d2h_bytes - before.d2h_bytes) as f64 / decoded as f64,
                at(0.99) / at(0.5)
            );
        }
        println!("{line}");
    }
    if set("EDGELLM_PROFILE").is_some() {
        let steps = model.profile(depth.max(1), 20)?;
        let mut sums: BTreeMap<(String, String), (usize, f64)> = BTreeMap::new();
        for step in &steps {
            let sum = sums.entry((step.key.to_string(), step.variant.to_string())).or_default();
            *sum = (sum.0 + 1, sum.1 + step.nanos);
        }
        let total: f64 = steps.iter().map(|s| s.nanos).sum();
        for ((shape, variant), (count, nanos)) in &sums {
            println!(
                "{:8.2} us x {count:3} = {:5.1} %  {variant} {shape}",
                nanos / 1e3 / *count as f64,
                100.0 * nanos / total
            );
        }
        println!("{:8.2} us all {} steps one after the other", total / 1e3, steps.len());
    }
    Ok(())
}
