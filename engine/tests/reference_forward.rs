//! The forward pass against f64, on models small enough to compute everything twice.

mod tiny;

use engine::Engine;
use engine::generate::{KvType, LoadOptions, TableChoice};
use engine::gguf::Gguf;
use engine::reference::Reference;
use engine::synth::{Scheme, Shape};
use kernels::cpu::Precision;
use variants::Isa;

/// Longer than a tile of keys and long enough for every RoPE factor to matter.
const TOKENS: usize = 40;

fn ids(shape: &Shape) -> Vec<u32> {
    (0..TOKENS).map(|i| (i * i * 7919 % shape.vocab) as u32).collect()
}

/// Exact arithmetic in 32 bits on one thread count and instruction set.
fn exact(isa: Isa, threads: usize) -> LoadOptions {
    LoadOptions {
        threads: Some(threads),
        isa: Some(isa),
        precision: Precision::Exact,
        kv: Some(KvType::F32),
        ..LoadOptions::default()
    }
}

/// ‖got − want‖ / ‖want‖. NaN and infinity make it NaN or infinite, and so fail every comparison with a bound.
fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| square(f64::from(g) - w)).sum();
    (error / want.iter().map(|&w| square(w)).sum::<f64>()).sqrt()
}

fn best(logits: &[f64]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The largest error over all positions, token by token.
fn worst_error(gguf: &Gguf, options: &LoadOptions, ids: &[u32], want: &[Vec<f64>]) -> f64 {
    let mut engine = Engine::from_gguf(gguf, options).unwrap();
    let errors = ids.iter().enumerate().map(|(pos, &id)| relative_error(engine.feed(&[id], pos).unwrap(), &want[pos]));
    errors.fold(0.0, |worst, e| if e <= worst { worst } else { e })
}

fn shapes() -> Vec<Shape> {
    vec![tiny::llama(), tiny::llama3(), tiny::qwen2(), tiny::qwen3()]
}

#[test]
fn the_exact_path_equals_f64_for_every_architecture_instruction_set_and_thread_count() {
    for shape in shapes() {
        let gguf = tiny::gguf(&shape, Scheme::F32, 3);
        let ids = ids(&shape);
        let want = Reference::load(&gguf).unwrap().logits(&ids);
        for isa in Isa::available() {
            for threads in [1, 3] {
                let error = worst_error(&gguf, &exact(isa, threads), &ids, &want);
                assert!(error < 2e-5, "{} on {isa} with {threads} threads: {error:.1e}", shape.name);
            }
        }
    }
}

#[test]
fn every_weight_type_gives_the_logits_of_its_decoded_weights() {
    for scheme in Scheme::ALL {
        // Rows of 256 are what the types with large blocks need.
        let shape = Shape { hidden: 256, inter: 512, head_dim: 64, ..tiny::llama() };
        let gguf = tiny::gguf(&shape, scheme, 5);
        let ids = ids(&shape);
        let want = Reference::load(&gguf).unwrap().logits(&ids);
        for isa in Isa::available() {
            let error = worst_error(&gguf, &exact(isa, 2), &ids, &want);
            assert!(error < 5e-5, "{} exact on {isa}: {error:.1e}", scheme.name());
            // Eight-bit activations round each input to one part in 254 of its group's largest.
            let fast = LoadOptions { precision: Precision::Fast, kv: Some(KvType::F16), ..exact(isa, 2) };
            let error = worst_error(&gguf, &fast, &ids, &want);
            assert!(error < 0.1, "{} fast on {isa}: {error:.1e}", scheme.name());
        }
    }
}

#[test]
fn the_baseline_table_computes_the_same_model() {
    for shape in shapes() {
        let gguf = tiny::gguf(&shape, Scheme::Q4_0, 11);
        let ids = ids(&shape);
        let want = Reference::load(&gguf).unwrap().logits(&ids);
        let options = LoadOptions { table: TableChoice::Baseline, ..exact(Isa::detect(), 2) };
        let error = worst_error(&gguf, &options, &ids, &want);
        assert!(error < 5e-5, "{}: {error:.1e}", shape.name);
    }
}

#[test]
fn query_heads_share_key_heads_at_every_ratio_and_heads_may_have_any_width() {
    for (n_heads, n_kv_heads, head_dim) in [(1, 1, 64), (6, 1, 16), (6, 2, 48), (6, 3, 32), (4, 4, 128), (8, 2, 80)] {
        for architecture in ["llama", "qwen2"] {
            let shape = Shape { n_heads, n_kv_heads, head_dim, architecture: architecture.into(), ..tiny::llama() };
            let gguf = tiny::gguf(&shape, Scheme::F32, 7);
            let ids = ids(&shape);
            let want = Reference::load(&gguf).unwrap().logits(&ids);
            let error = worst_error(&gguf, &exact(Isa::detect(), 2), &ids, &want);
            assert!(error < 2e-5, "{architecture} {n_heads}/{n_kv_heads}/{head_dim}: {error:.1e}");
        }
    }
}

#[test]
fn a_prompt_in_one_batch_gives_the_logits_of_its_tokens_one_by_one() {
    for shape in shapes() {
        for scheme in [Scheme::F32, Scheme::Q4_0, Scheme::Q8_0] {
            let gguf = tiny::gguf(&shape, scheme, 13);
            // More than one batch, and no multiple of it.
            let ids: Vec<u32> = (0..300).map(|i| (i * i * 31 % shape.vocab) as u32).collect();
            let mut engine = Engine::from_gguf(&gguf, &exact(Isa::detect(), 2)).unwrap();
            let singly =
                ids.iter().enumerate().map(|(pos, &id)| engine.feed(&[id], pos).unwrap().to_vec()).last().unwrap();
            let singly: Vec<f64> = singly.iter().map(|&x| f64::from(x)).collect();
            for split in [300, 299, 130, 1] {
                let mut engine = Engine::from_gguf(&gguf, &exact(Isa::detect(), 2)).unwrap();
                let mut fed = 0;
                for part in ids.chunks(split) {
                    let logits = engine.feed(part, fed).unwrap().to_vec();
                    fed += part.len();
                    if fed == ids.len() {
                        let error = relative_error(&logits, &singly);
                        assert!(error < 2e-5, "{} {} in parts of {split}: {error:.1e}", shape.name, scheme.name());
                    }
                }
            }
        }
    }
}

#[test]
fn leaving_out_or_doubling_a_part_of_the_model_is_far_outside_the_bounds() {
    // The bounds above would prove nothing if a wrong model met them. Each mutant is a model that differs in one part.
    let shape = tiny::llama3();
    let gguf = tiny::gguf(&shape, Scheme::F32, 3);
    let ids = ids(&shape);
    let want = Reference::load(&gguf).unwrap().logits(&ids);
    let doubled = Shape { rope_linear: Some(2.0), ..shape.clone() };
    let other_base = Shape { rope_base: 1e5, ..shape.clone() };
    let other_pairs = Shape { architecture: "qwen2".into(), ..shape.clone() };
    let other_eps = Shape { eps: 1e-2, ..shape.clone() };
    for mutant in [doubled, other_base, other_pairs, other_eps] {
        let gguf = tiny::gguf(&mutant, Scheme::F32, 3);
        let error = worst_error(&gguf, &exact(Isa::detect(), 1), &ids, &want);
        assert!(error > 1e-3, "{mutant:?}: {error:.1e}");
    }
}

#[test]
fn greedy_tokens_are_those_of_the_reference() {
    for shape in shapes() {
        let gguf = tiny::gguf(&shape, Scheme::F32, 17);
        let reference = Reference::load(&gguf).unwrap();
        let mut ids = ids(&shape);
        let mut engine = Engine::from_gguf(&gguf, &exact(Isa::detect(), 2)).unwrap();
        let mut fed = 0;
        for _ in 0..16 {
            let got = engine::sampler::argmax(engine.feed(&ids[fed..], fed).unwrap());
            fed = ids.len();
            let want = reference.logits(&ids).pop().unwrap();
            assert_eq!(got as usize, best(&want), "{} after {fed} tokens", shape.name);
            ids.push(got);
        }
    }
}
