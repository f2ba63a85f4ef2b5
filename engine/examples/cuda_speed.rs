//! Prefill and decode speed of a model file on a CUDA device, and what each step of a token takes: for work on kernels.
//!
//! `cargo run --release -p engine --example cuda_speed -- MODEL [prompt tokens] [decoded tokens] [repetitions] [depth]
//! [--sample|--eager]`
//!
//! Decoding starts at `depth` tokens of context. `EDGELLM_TABLE=default|baseline|PATH` chooses the kernels as `--table` does
//! elsewhere, `EDGELLM_KV=int8` the type of keys and values. `EDGELLM_SAMPLE=0.7,40,0.9,0,1.1` draws tokens by temperature,
//! top-k, top-p, min-p and repeat penalty instead of taking the most likely. `--sample` decodes in turns by each way of
//! choosing instead, and says what a token costs more than a greedy one. `--eager` launches the steps of a token as its graph
//! and one by one, with early starts and without, in turns; it says what a token costs and launches each way, and fails where
//! tokens differ. `EDGELLM_PROFILE=1` lists the steps of a token. The times of steps come from a graph in which none overlaps
//! another; the token's own graph is faster where steps may overlap.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use engine::cuda::{CudaModel, DecodedBy, Launching};
use engine::generate::{KvType, LoadOptions, SamplingParams, TableChoice};
use engine::gguf::Gguf;
use engine::model::Config;
use engine::sampler::Sampler;

/// Ways of choosing a token, from the most likely one to cuts of each kind; a high temperature makes logits alike.
const WAYS: [(&str, Option<&str>); 7] = [
    ("greedy", None),
    ("nothing cut", Some("1,0,1,0,1")),
    ("usual: 0.8, top-k 40, top-p 0.9, penalty 1.1", Some("0.8,40,0.9,0,1.1")),
    ("top-p 0.9", Some("1,0,0.9,0,1")),
    ("top-p 0.9 of logits that are alike", Some("8,0,0.9,0,1")),
    ("min-p 0.05", Some("1,0,1,0.05,1")),
    ("top-k 1000", Some("1,1000,1,0,1")),
];

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

fn prompt_of(n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The last token, and the seconds from each token to the next.
struct Decoded {
    last: u32,
    gaps: Vec<f64>,
}

impl Decoded {
    fn seconds(&self) -> f64 {
        self.gaps.iter().sum()
    }
}

/// Decodes so many tokens behind a prompt, after one that is not timed; `before` is called between the two.
fn decode(
    model: &mut CudaModel,
    params: Option<&SamplingParams>,
    vocab: usize,
    (prompt, tokens): (usize, usize),
    mut before: impl FnMut(&CudaModel),
) -> Result<Decoded, Box<dyn Error>> {
    let mut history = prompt_of(prompt, vocab);
    let mut sampler = Sampler::new(vocab);
    params.iter().for_each(|params| sampler.start(params));
    let mut next = |model: &mut CudaModel, more: bool| match params {
        Some(_) => {
            let id = model.next_sampled(&mut sampler, &history, more)?;
            history.push(id);
            Ok(id)
        }
        None => model.next_greedy(more),
    };
    model.feed(&prompt_of(prompt, vocab), 0)?;
    next(model, true)?;
    before(model);
    let mut decoded = Decoded { last: 0, gaps: Vec::with_capacity(tokens) };
    let mut then = Instant::now();
    for i in 0..tokens {
        decoded.last = next(model, i + 1 < tokens)?;
        let now = Instant::now();
        decoded.gaps.push((now - then).as_secs_f64());
        then = now;
    }
    Ok(decoded)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every way of choosing in turns, so that what the device does over time falls on all alike.
fn race_samplers(
    model: &mut CudaModel,
    vocab: usize,
    (prompt, tokens): (usize, usize),
    rounds: usize,
) -> Result<(), Box<dyn Error>> {
    let ways = WAYS.iter().map(|(_, text)| text.map(sampling).transpose()).collect::<Result<Vec<_>, _>>()?;
    let mut micros = vec![Vec::with_capacity(rounds); ways.len()];
    // The first round captures graphs and is not counted.
    for round in 0..=rounds {
        for (params, micros) in ways.iter().zip(&mut micros) {
            let decoded = decode(model, params.as_ref(), vocab, (prompt, tokens), |_| {})?;
            if round > 0 {
                micros.push(1e6 * decoded.seconds() / tokens as f64);
            }
        }
    }
    let greedy = micros[0].clone();
    for ((name, _), micros) in WAYS.iter().zip(micros) {
        let more = median(micros.iter().zip(&greedy).map(|(own, greedy)| own - greedy).collect());
        let own = median(micros);
        println!("{:9.1} tok/s {own:8.1} us a token, {more:+7.1} us  {name}", 1e6 / own);
    }
    Ok(())
}

/// Every way to launch the steps of a token, in turns.
fn race_launches(
    model: &mut CudaModel,
    vocab: usize,
    (prompt, tokens): (usize, usize),
    rounds: usize,
) -> Result<(), Box<dyn Error>> {
    let prompt = prompt_of(prompt, vocab);
    let mut micros = [const { Vec::new() }; Launching::ALL.len()];
    let mut launches = [0.0; Launching::ALL.len()];
    let mut first: Option<Vec<u32>> = None;
    // The first round warms and is not counted; its tokens are compared as well.
    for round in 0..=rounds {
        for (i, way) in Launching::ALL.into_iter().enumerate() {
            let DecodedBy { ids, nanos, counted } = model.decode_by(way, &prompt, tokens)?;
            if let Some(at) = first.get_or_insert_with(|| ids.clone()).iter().zip(&ids).position(|(a, b)| a != b) {
                return Err(format!("{way:?}: token {at} of {tokens} is not that of the graph").into());
            }
            launches[i] = (counted.graph_launches + counted.kernel_launches) as f64 / tokens as f64;
            if round > 0 {
                micros[i].push(nanos.iter().sum::<u64>() as f64 / 1e3 / tokens as f64);
            }
        }
    }
    println!("the same {} tokens in {} runs", tokens + 1, (rounds + 1) * Launching::ALL.len());
    let graph = micros[0].clone();
    for ((way, micros), launches) in Launching::ALL.iter().zip(micros).zip(launches) {
        let more = median(micros.iter().zip(&graph).map(|(own, graph)| own - graph).collect());
        let own = median(micros);
        println!(
            "{:9.1} tok/s {own:8.1} us a token, {more:+7.1} us, {launches:5.1} launches a token  {way:?}",
            1e6 / own
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().collect();
    let words = args.len();
    args.retain(|arg| arg != "--sample");
    let samples = args.len() < words;
    let words = args.len();
    args.retain(|arg| arg != "--eager");
    let eager = args.len() < words;
    let usage = "usage: cuda_speed MODEL [prompt tokens] [decoded tokens] [repetitions] [depth] [--sample|--eager]";
    if samples && eager {
        return Err(usage.into());
    }
    let path = args.get(1).ok_or(usage)?;
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
    if samples {
        return race_samplers(&mut model, config.vocab, (depth.max(1), decoded.max(1)), repetitions.max(1));
    }
    if eager {
        return race_launches(&mut model, config.vocab, (depth.max(1), decoded.max(1)), repetitions.max(1));
    }
    for _ in 0..repetitions {
        let mut line = String::new();
        if prompt > 0 {
            let start = Instant::now();
            model.feed(&prompt_of(prompt, config.vocab), 0)?;
            let first = model.next_greedy(false)?;
            let prefill = start.elapsed().as_secs_f64();
            line += &format!("pp{prompt} {:9.1} tok/s (first {first})   ", prompt as f64 / prefill);
        }
        if decoded > 0 {
            let mut before = model.counters();
            let tokens = (depth.max(1), decoded);
            let times = decode(&mut model, params.as_ref(), config.vocab, tokens, |m| before = m.counters())?;
            let (decode, last, mut gaps) = (times.seconds(), times.last, times.gaps);
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
