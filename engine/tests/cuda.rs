//! The engine on a GPU against the f64 reference, the fixture of the real model, and itself. Without a GPU every test says
//! why it is skipped, but those of `scripted`, which need none. Every figure is printed beside its bound: `--nocapture` shows
//! them.

mod gpu;
mod real_model;
mod scripted;
mod tiny;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use engine::Engine;
use engine::eval::{EvalReport, ReferenceFile, evaluate};
use engine::generate::{
    DeviceChoice, Event, Finish, FinishReason, GenerateRequest, KvType, LoadOptions, SamplingParams, TableChoice,
};
use engine::gguf::Gguf;
use engine::model::LoadError;
use engine::reference::Reference;
use engine::sampler::{Sampler, argmax};
use engine::synth::{Scheme, Shape};
use kernels::cpu::Precision;

/// Every type of weights that the GPU has kernels for.
const SCHEMES: [Scheme; 11] = [
    Scheme::F16,
    Scheme::BF16,
    Scheme::Q8_0,
    Scheme::Q4_0,
    Scheme::Q4_1,
    Scheme::Q5_0,
    Scheme::Q4K,
    Scheme::Q4KM,
    Scheme::Q5K,
    Scheme::Q6K,
    Scheme::TQ2_0,
];

/// Keys and values in 16 bits round to one part in 2048; everything else is in 32.
const EXACT: f64 = 2e-3;
/// Eight-bit activations round each input to one part in 254 of its group's largest. The processor has the same bound.
const FAST: f64 = 0.1;
/// Eight-bit keys and values round to one part in 254 of the largest of a head.
const INT8: f64 = 0.05;

/// Heads of 64 or 128, and rows of whole blocks of every type.
fn wide(shape: Shape) -> Shape {
    let head_dim = if shape.architecture == "qwen3" { 128 } else { 64 };
    Shape { hidden: 256, inter: 512, head_dim, context: 1024, ..shape }
}

fn shapes() -> Vec<Shape> {
    [tiny::llama(), tiny::llama3(), tiny::qwen2(), tiny::qwen3()].map(wide).into()
}

fn ids(shape: &Shape, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7919 % shape.vocab) as u32).collect()
}

fn on_gpu(precision: Precision, kv: KvType) -> LoadOptions {
    LoadOptions { device: DeviceChoice::Cuda(0), precision, kv: Some(kv), ..LoadOptions::default() }
}

fn load(gguf: &Gguf, options: &LoadOptions) -> Engine {
    Engine::from_gguf(gguf, options).unwrap_or_else(|e| panic!("{e}"))
}

/// ‖got − want‖ / ‖want‖. NaN and infinity make it NaN or infinite, and so fail every comparison with a bound.
fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| square(f64::from(g) - w)).sum();
    (error / want.iter().map(|&w| square(w)).sum::<f64>()).sqrt()
}

/// The largest error over all positions, token by token. NaN is larger than all.
fn worst_error(gguf: &Gguf, options: &LoadOptions, ids: &[u32], want: &[Vec<f64>]) -> f64 {
    let mut engine = load(gguf, options);
    let errors = ids.iter().enumerate().map(|(pos, &id)| relative_error(engine.feed(&[id], pos).unwrap(), &want[pos]));
    errors.fold(0.0, |worst: f64, e| if worst.is_nan() || e <= worst { worst } else { e })
}

/// Errors beside their bounds: all are printed before any fails, so that one run on a device shows where they stand.
#[derive(Default)]
struct Figures {
    failed: Vec<String>,
}

impl Figures {
    fn add(&mut self, case: String, error: f64, bound: f64) {
        let holds = error < bound;
        let line = format!("{case}: {error:.2e}, bound {bound:.0e}{}", if holds { "" } else { "  <== does not hold" });
        println!("{line}");
        if !holds {
            self.failed.push(line);
        }
    }

    fn hold(self) {
        assert!(self.failed.is_empty(), "{} do not hold:\n{}", self.failed.len(), self.failed.join("\n"));
    }
}

/// What a request generates, and how it ended.
fn answer(engine: &mut Engine, prompt: &[u32], max_tokens: usize, sampling: SamplingParams) -> (Vec<u32>, Finish) {
    let request = GenerateRequest { prompt: prompt.to_vec(), max_tokens, sampling, stop: Vec::new(), ignore_eos: true };
    let mut tokens = Vec::new();
    let finish = engine.generate(&request, &mut |event| {
        if let Event::Token { id, .. } = event {
            tokens.push(id);
        }
        ControlFlow::Continue(())
    });
    (tokens, finish.unwrap())
}

#[test]
fn every_weight_type_gives_the_logits_of_its_decoded_weights() {
    let Some(_gpu) = gpu::hold() else { return };
    let mut figures = Figures::default();
    for scheme in SCHEMES {
        let shape = wide(tiny::llama());
        let gguf = tiny::gguf(&shape, scheme, 5);
        let ids = ids(&shape, 40);
        let want = Reference::load(&gguf).unwrap().logits(&ids);
        for (precision, kv, bound) in [
            (Precision::Exact, KvType::F16, EXACT),
            (Precision::Exact, KvType::Int8, INT8),
            (Precision::Fast, KvType::F16, FAST),
            (Precision::Fast, KvType::Int8, FAST),
        ] {
            let error = worst_error(&gguf, &on_gpu(precision, kv), &ids, &want);
            figures.add(format!("{} {precision:?} {kv}", scheme.name()), error, bound);
        }
    }
    figures.hold();
}

#[test]
fn every_architecture_gives_the_logits_of_the_reference_on_every_table() {
    let Some(_gpu) = gpu::hold() else { return };
    let mut figures = Figures::default();
    for shape in shapes() {
        for scheme in [Scheme::Q4_0, Scheme::Q4KM, Scheme::F16] {
            let gguf = tiny::gguf(&shape, scheme, 11);
            let ids = ids(&shape, 40);
            let want = Reference::load(&gguf).unwrap().logits(&ids);
            let error = worst_error(&gguf, &on_gpu(Precision::Exact, KvType::F16), &ids, &want);
            figures.add(format!("{} {} exact", shape.name, scheme.name()), error, EXACT);
            for table in [TableChoice::Device, TableChoice::Default, TableChoice::Baseline] {
                let options = LoadOptions { table, ..on_gpu(Precision::Fast, KvType::F16) };
                let error = worst_error(&gguf, &options, &ids, &want);
                figures.add(format!("{} {} {table:?}", shape.name, scheme.name()), error, FAST);
            }
        }
    }
    figures.hold();
}

#[test]
fn a_wrong_model_is_far_outside_the_bounds() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::llama3());
    let gguf = tiny::gguf(&shape, Scheme::F16, 3);
    let ids = ids(&shape, 40);
    let want = Reference::load(&gguf).unwrap().logits(&ids);
    for mutant in [
        Shape { rope_linear: Some(2.0), ..shape.clone() },
        Shape { rope_base: 1e5, ..shape.clone() },
        Shape { architecture: "qwen2".into(), ..shape.clone() },
    ] {
        let gguf = tiny::gguf(&mutant, Scheme::F16, 3);
        let error = worst_error(&gguf, &on_gpu(Precision::Exact, KvType::F16), &ids, &want);
        println!(
            "{} with base {}, linear {:?}: {error:.2e}",
            mutant.architecture, mutant.rope_base, mutant.rope_linear
        );
        assert!(error > 2.0 * EXACT, "{mutant:?}: {error:.1e}");
    }
}

/// How far the logits behind a prompt are from those behind its tokens one by one, fed in parts of several lengths.
fn prompt_errors(gguf: &Gguf, options: &LoadOptions, ids: &[u32], splits: &[usize]) -> Vec<f64> {
    let mut engine = load(gguf, options);
    let mut singly = Vec::new();
    for (pos, &id) in ids.iter().enumerate() {
        singly = engine.feed(&[id], pos).unwrap().iter().map(|&x| f64::from(x)).collect();
    }
    let error = |&split: &usize| {
        let (mut fed, mut logits) = (0, Vec::new());
        for part in ids.chunks(split) {
            logits = engine.feed(part, fed).unwrap().to_vec();
            fed += part.len();
        }
        relative_error(&logits, &singly)
    };
    splits.iter().map(error).collect()
}

#[test]
fn a_prompt_at_once_gives_the_logits_of_its_tokens_one_by_one() {
    let Some(_gpu) = gpu::hold() else { return };
    // More than one batch, and no multiple of it.
    const SPLITS: [usize; 6] = [700, 512, 511, 130, 33, 7];
    let mut figures = Figures::default();
    for shape in shapes() {
        for (scheme, precision, kv, bound) in [
            (Scheme::F16, Precision::Exact, KvType::F16, EXACT),
            (Scheme::Q8_0, Precision::Exact, KvType::F16, EXACT),
            (Scheme::Q4_0, Precision::Fast, KvType::F16, FAST),
            (Scheme::Q4KM, Precision::Fast, KvType::F16, FAST),
            (Scheme::F16, Precision::Fast, KvType::F16, FAST),
            (Scheme::Q4_1, Precision::Fast, KvType::Int8, FAST),
        ] {
            let gguf = tiny::gguf(&shape, scheme, 13);
            let errors = prompt_errors(&gguf, &on_gpu(precision, kv), &ids(&shape, 700), &SPLITS);
            for (split, error) in SPLITS.into_iter().zip(errors) {
                let case = format!("{} {} {precision:?} {kv} in parts of {split}", shape.name, scheme.name());
                figures.add(case, error, bound);
            }
        }
    }
    figures.hold();
}

#[test]
fn a_token_on_an_int8_cache_is_five_launches_a_block_and_gives_the_logits_of_those_that_are_not_fused() {
    let Some(_gpu) = gpu::hold() else { return };
    let mut figures = Figures::default();
    for shape in [tiny::llama(), tiny::qwen2()].map(wide) {
        for scheme in [Scheme::Q4_0, Scheme::Q8_0, Scheme::F16] {
            let gguf = tiny::gguf(&shape, scheme, 19);
            let case = |what: &str| format!("{} {} {what}", shape.name, scheme.name());
            let fused = on_gpu(Precision::Fast, KvType::Int8);
            let engine = load(&gguf, &fused);
            let steps = engine.cuda().unwrap().steps(0);
            let joined = steps.iter().filter(|(workload, _)| workload.op.starts_with("qkv_rope_")).count();
            assert_eq!((joined, steps.len()), (shape.layers, 2 + 5 * shape.layers), "{}", case("launches"));
            drop(engine);
            // A prompt at once, and every token on an exact table, go by products and `rope_append`.
            let ids = ids(&shape, 100);
            for (split, error) in [100, 33].into_iter().zip(prompt_errors(&gguf, &fused, &ids, &[100, 33])) {
                figures.add(case(&format!("in parts of {split}")), error, FAST);
            }
            let mut exact = load(&gguf, &on_gpu(Precision::Exact, KvType::Int8));
            let want: Vec<Vec<f64>> = ids
                .iter()
                .enumerate()
                .map(|(pos, &id)| exact.feed(&[id], pos).unwrap().iter().map(|&v| f64::from(v)).collect())
                .collect();
            drop(exact);
            figures.add(case("token by token"), worst_error(&gguf, &fused, &ids, &want), FAST);
        }
    }
    figures.hold();
}

#[test]
fn weights_of_every_type_are_multiplied_with_a_whole_prompt() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::llama3());
    let mut figures = Figures::default();
    for scheme in SCHEMES {
        let gguf = tiny::gguf(&shape, scheme, 14);
        let options = on_gpu(Precision::Fast, KvType::F16);
        let engine = load(&gguf, &options);
        assert_ne!(engine.cuda().unwrap().prompt_products(), "token by token", "{}", scheme.name());
        drop(engine);
        for (split, error) in [100, 64].into_iter().zip(prompt_errors(&gguf, &options, &ids(&shape, 100), &[100, 64])) {
            figures.add(format!("{} in parts of {split}", scheme.name()), error, FAST);
        }
    }
    figures.hold();
}

#[test]
fn greedy_tokens_are_the_largest_logits_and_cost_one_graph_and_four_bytes_each() {
    let Some(_gpu) = gpu::hold() else { return };
    const TOKENS: usize = 100;
    for scheme in [Scheme::Q4_0, Scheme::Q4KM, Scheme::F16] {
        let shape = wide(tiny::llama());
        let gguf = tiny::gguf(&shape, scheme, 17);
        let options = on_gpu(Precision::Fast, KvType::F16);
        let mut engine = load(&gguf, &options);
        let prompt = ids(&shape, 60);
        let before = engine.counters().unwrap();
        let (one, _) = answer(&mut engine, &prompt, 1, SamplingParams::greedy());
        let first = engine.counters().unwrap();
        let (tokens, finish) = answer(&mut engine, &prompt, TOKENS, SamplingParams::greedy());
        let after = engine.counters().unwrap();
        assert_eq!((tokens.len(), finish.reason, tokens[0]), (TOKENS, FinishReason::Length, one[0]));
        // What a prompt and its first token cost is in both; the difference is that of the others.
        let more = (TOKENS - 1) as u64;
        let cost = |of: fn(&engine::cuda::Counters) -> u64| (of(&after) - of(&first)) - (of(&first) - of(&before));
        assert_eq!(cost(|c| c.graph_launches), more);
        assert_eq!(cost(|c| c.tokens), more);
        assert_eq!(cost(|c| c.kernel_launches), 0);
        assert_eq!(cost(|c| c.h2d_bytes), 0);
        assert!(cost(|c| c.d2h_bytes) <= 4 * more && cost(|c| c.syncs) <= more, "{after:?}");

        let mut engine = load(&gguf, &options);
        let mut logits = engine.feed(&prompt, 0).unwrap().to_vec();
        for (i, &token) in tokens.iter().enumerate() {
            assert_eq!(argmax(&logits), token, "{} token {i}", scheme.name());
            logits = engine.feed(&[token], prompt.len() + i).unwrap().to_vec();
        }
    }
}

#[test]
fn an_answer_that_was_broken_off_leaves_no_trace_in_the_next() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::qwen2());
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 19);
    let options = on_gpu(Precision::Fast, KvType::F16);
    let (prompt, other) = (ids(&shape, 40), vec![3, 1, 4, 1, 5]);
    let fresh = |prompt: &[u32]| answer(&mut load(&gguf, &options), prompt, 50, SamplingParams::greedy()).0;
    let (want, want_other) = (fresh(&prompt), fresh(&other));
    let mut engine = load(&gguf, &options);
    for after in [1, 2, 7] {
        let sampling = SamplingParams::greedy();
        let request =
            GenerateRequest { prompt: prompt.clone(), max_tokens: 50, sampling, stop: Vec::new(), ignore_eos: true };
        let mut seen = 0;
        // The step behind the last token seen is on its way already.
        let finish = engine.generate(&request, &mut |event| {
            seen += usize::from(matches!(event, Event::Token { .. }));
            if seen == after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(finish.unwrap().reason, FinishReason::Cancelled);
        assert_eq!(answer(&mut engine, &other, 50, SamplingParams::greedy()).0, want_other);
        assert_eq!(answer(&mut engine, &prompt, 50, SamplingParams::greedy()).0, want);
    }
}

#[test]
fn answers_that_take_turns_have_the_tokens_that_each_has_alone() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::llama());
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 43);
    let drawn = SamplingParams { temperature: 1.0, seed: Some(7), ..SamplingParams::default() };
    // Two chunks of a prompt, one, and a few tokens one by one; one drawn twice, of which each has numbers of its own.
    let asked = [(600, SamplingParams::greedy()), (600, drawn.clone()), (40, drawn), (7, SamplingParams::greedy())];
    for (precision, kv) in
        [(Precision::Fast, KvType::F16), (Precision::Fast, KvType::Int8), (Precision::Exact, KvType::F16)]
    {
        let options = LoadOptions { slots: NonZeroUsize::new(4).unwrap(), ..on_gpu(precision, kv) };
        let mut engine = load(&gguf, &options);
        let requests = asked.clone().map(|(prompt, sampling)| GenerateRequest {
            prompt: ids(&shape, prompt),
            max_tokens: 60,
            sampling,
            stop: Vec::new(),
            ignore_eos: true,
        });
        let alone = asked.clone().map(|(prompt, sampling)| answer(&mut engine, &ids(&shape, prompt), 60, sampling).0);
        // The second time in other slots, which have seen another answer.
        for first in 0..2 {
            let slot = |i: usize| (first + i) % requests.len();
            requests.iter().enumerate().for_each(|(i, request)| engine.begin(slot(i), request).unwrap());
            let mut all: [Vec<u32>; 4] = Default::default();
            let mut left = [true; 4];
            while left.contains(&true) {
                for i in (0..4).filter(|&i| left[i]).collect::<Vec<_>>() {
                    let turned = engine.turn(slot(i), &mut |event| {
                        if let Event::Token { id, .. } = event {
                            all[i].push(id);
                        }
                        ControlFlow::Continue(())
                    });
                    left[i] = turned.unwrap().is_none();
                }
            }
            assert_eq!(all, alone, "{precision:?} {kv}, from slot {first}");
        }
    }
}

#[test]
fn sampling_draws_from_the_logits_of_the_device() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::llama());
    let gguf = tiny::gguf(&shape, Scheme::Q8_0, 23);
    let mut engine = load(&gguf, &on_gpu(Precision::Fast, KvType::F16));
    let prompt = ids(&shape, 20);
    let drawn = SamplingParams { temperature: 1.0, seed: Some(7), ..SamplingParams::default() };
    let (first, _) = answer(&mut engine, &prompt, 40, drawn.clone());
    let (greedy, _) = answer(&mut engine, &prompt, 40, SamplingParams::greedy());
    let (again, _) = answer(&mut engine, &prompt, 40, drawn.clone());
    let (other, _) = answer(&mut engine, &prompt, 40, SamplingParams { seed: Some(8), ..drawn });
    assert_eq!(first, again);
    assert!(first != other && first != greedy);
    // A penalty of 1 + ε goes through the choice among all logits, and that takes the same tokens.
    let chosen = SamplingParams { repeat_penalty: 1.000_000_1, ..SamplingParams::greedy() };
    assert_eq!(answer(&mut engine, &prompt, 40, chosen).0, greedy);
}

#[test]
fn drawn_tokens_are_those_that_the_host_draws_from_the_same_logits_and_cost_one_graph_and_four_bytes_each() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = Shape { context: 1400, ..wide(tiny::llama()) };
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 37);
    let all = SamplingParams { temperature: 1.0, seed: Some(11), ..SamplingParams::greedy() };
    // The longest goes round the rings of numbers to draw by and of tokens.
    let ways = [
        ("usual", SamplingParams { seed: Some(5), ..SamplingParams::default() }, 1200),
        ("everything kept", all.clone(), 90),
        ("temperature 3, min-p", SamplingParams { temperature: 3.0, min_p: 0.05, ..all.clone() }, 90),
        ("top-p", SamplingParams { top_p: 0.8, ..all.clone() }, 90),
        ("top-k and all", SamplingParams { top_k: 12, top_p: 0.95, min_p: 0.01, ..all.clone() }, 90),
        ("greedy with a penalty", SamplingParams { repeat_penalty: 1.3, ..SamplingParams::greedy() }, 90),
        ("a long look back", SamplingParams { repeat_penalty: 1.2, repeat_last_n: 400, ..all }, 90),
    ];
    for table in [TableChoice::Device, TableChoice::Baseline] {
        let mut engine = load(&gguf, &LoadOptions { table, ..on_gpu(Precision::Fast, KvType::F16) });
        for (what, params, count) in &ways {
            let prompt = ids(&shape, 60);
            let before = engine.counters().unwrap();
            let (one, _) = answer(&mut engine, &prompt, 1, params.clone());
            let first = engine.counters().unwrap();
            let (tokens, finish) = answer(&mut engine, &prompt, *count, params.clone());
            let after = engine.counters().unwrap();
            assert_eq!((tokens.len(), finish.reason, tokens[0]), (*count, FinishReason::Length, one[0]), "{what}");
            let more = (count - 1) as u64;
            let cost = |of: fn(&engine::cuda::Counters) -> u64| (of(&after) - of(&first)) - (of(&first) - of(&before));
            assert_eq!((cost(|c| c.graph_launches), cost(|c| c.tokens), cost(|c| c.kernel_launches)), (more, more, 0));
            assert!(cost(|c| c.d2h_bytes) <= 4 * more && cost(|c| c.syncs) <= more, "{what}: {after:?}");
            assert!(cost(|c| c.h2d_bytes) <= 8 * (more + 512), "{what}: {after:?}");

            let mut sampler = Sampler::new(shape.vocab);
            sampler.start(params);
            let mut history = prompt;
            let mut logits = engine.feed(&history, 0).unwrap().to_vec();
            for (i, &token) in tokens.iter().enumerate() {
                assert_eq!(sampler.sample(&logits, &history), token, "{what}, {table:?}: token {i}");
                history.push(token);
                logits = engine.feed(&[token], history.len() - 1).unwrap().to_vec();
            }
        }
    }
}

#[test]
fn an_answer_may_fill_the_context_to_its_last_position() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = wide(tiny::llama());
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 29);
    for context in [64, 600] {
        let options = LoadOptions { context: Some(context), ..on_gpu(Precision::Fast, KvType::F16) };
        let mut engine = load(&gguf, &options);
        let (tokens, finish) = answer(&mut engine, &ids(&shape, context - 20), 1000, SamplingParams::greedy());
        assert_eq!((tokens.len(), finish.reason), (20, FinishReason::Length));
        let (tokens, _) = answer(&mut engine, &ids(&shape, context - 1), 1000, SamplingParams::greedy());
        assert_eq!(tokens.len(), 1);
    }
}

#[test]
fn tokens_on_both_sides_of_a_class_of_lengths_have_the_logits_of_a_prompt_at_once() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = Shape { context: 4200, ..wide(tiny::llama3()) };
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 37);
    let ids = ids(&shape, 4100);
    for kv in [KvType::F16, KvType::Int8] {
        let options = LoadOptions { context: Some(4200), ..on_gpu(Precision::Fast, kv) };
        let (mut at_once, mut singly) = (load(&gguf, &options), load(&gguf, &options));
        for last in [1024, 4096] {
            singly.feed(&ids[..last - 2], 0).unwrap();
            for len in last - 1..last + 3 {
                let got = singly.feed(&ids[len - 1..len], len - 1).unwrap().to_vec();
                let want: Vec<f64> = at_once.feed(&ids[..len], 0).unwrap().iter().map(|&x| f64::from(x)).collect();
                let error = relative_error(&got, &want);
                assert!(error < FAST, "{kv}, {len} keys: {error:.1e}");
            }
        }
        // A token that is queued before the one ahead is known runs by the graph of its own position.
        let (tokens, _) = answer(&mut at_once, &ids[..1020], 10, SamplingParams::greedy());
        let mut logits = singly.feed(&ids[..1020], 0).unwrap().to_vec();
        for (i, &token) in tokens.iter().enumerate() {
            assert_eq!(argmax(&logits), token, "{kv}, token {i}");
            logits = singly.feed(&[token], 1020 + i).unwrap().to_vec();
        }
    }
}

#[test]
fn a_model_larger_than_the_memory_is_refused_with_the_numbers_before_anything_is_loaded() {
    let Some(_gpu) = gpu::hold() else { return };
    let shape = Shape { context: 1 << 30, ..wide(tiny::llama()) };
    let gguf = tiny::gguf(&shape, Scheme::Q4_0, 31);
    let options = LoadOptions { context: Some(1 << 30), ..on_gpu(Precision::Fast, KvType::F16) };
    let refused = Engine::from_gguf(&gguf, &options).unwrap_err();
    let LoadError::Vram { need, free, .. } = &refused else { panic!("{refused}") };
    assert!(*need > 1 << 39 && *free < *need, "{refused}");
    let said = refused.to_string();
    assert!(said.contains("MiB are free") && said.contains("--ctx"), "{said}");
}

fn fixture(options: &LoadOptions) -> Option<EvalReport> {
    let path = real_model::path()?;
    let reference = ReferenceFile::read(&scripted::libraries::source("tests/fixtures/smollm2_greedy.json")).unwrap();
    let mut engine = Engine::load(&path, &LoadOptions { context: Some(256), ..*options }).unwrap();
    let report = evaluate(&mut engine, &reference, &mut |_| {}).unwrap();
    println!("{:?} {:?}\n{report}", options.precision, options.kv);
    assert_eq!(report.steps, reference.steps());
    Some(report)
}

#[test]
fn the_exact_path_of_the_real_model_is_the_reference_but_for_near_ties() {
    let Some(_gpu) = gpu::hold() else { return };
    let Some(report) = fixture(&on_gpu(Precision::Exact, KvType::F16)) else { return };
    assert!(report.top1_agreement >= 0.998);
    assert!(report.largest_miss_gap < 0.01, "a miss is a near tie");
    assert!(report.median_logprob_diff < 0.001);
}

#[test]
fn the_fast_path_of_the_real_model_stays_within_the_noise_of_eight_bits() {
    let Some(_gpu) = gpu::hold() else { return };
    for kv in [KvType::F16, KvType::Int8] {
        let Some(report) = fixture(&on_gpu(Precision::Fast, kv)) else { return };
        assert!(report.top1_agreement >= 0.97, "{kv}");
        assert!(report.median_logprob_diff <= 0.08, "{kv}");
    }
}

#[test]
fn the_real_model_by_itself_chooses_the_gpu() {
    let Some(_gpu) = gpu::hold() else { return };
    let Some(path) = real_model::path() else { return };
    let options = LoadOptions { device: DeviceChoice::Auto, ..LoadOptions::default() };
    let engine = Engine::load(&path, &options).unwrap();
    assert_eq!(engine.device(), DeviceChoice::Cuda(0));
    assert!(engine.cuda().is_some() && engine.cpu().is_none() && engine.model().is_none());
}
