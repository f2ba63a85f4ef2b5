//! Attention, the KV cache and the element-wise ops against f64, at every instruction set level of this machine.

mod support;

use kernels::cpu::{AttnScratch, Cpu, HeadShape, KvLayer, KvType, Pairing, RopeAngles, RopeTable};
use kernels::reference;
use support::*;

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 16), (9, 3, 64), (14, 2, 64), (12, 2, 128), (32, 8, 64), (8, 1, 256), (28, 4, 128), (10, 1, 80)];

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// What a cache of this type gives back.
fn kept(kind: KvType, x: &[f32]) -> Vec<f64> {
    match kind {
        KvType::F16 => x.iter().map(|&v| half::f16::from_f32(v).to_f64()).collect(),
        KvType::F32 => wide(x),
    }
}

struct Case {
    heads: HeadShape,
    kind: KvType,
    pos0: usize,
    m: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    q: Vec<f32>,
}

impl Case {
    fn random(heads: HeadShape, kind: KvType, pos0: usize, m: usize) -> Case {
        let width = heads.n_kv_heads * heads.head_dim;
        let scaled = |seed, len, by: f32| random(len, seed).iter().map(|v| v * by).collect();
        Case {
            heads,
            kind,
            pos0,
            m,
            keys: scaled(1, (pos0 + m) * width, 3.0),
            values: scaled(2, (pos0 + m) * width, 2.0),
            q: scaled(3, m * heads.n_heads * heads.head_dim, 3.0),
        }
    }

    fn run(&self, cpu: &Cpu) -> Vec<f32> {
        let len = self.pos0 + self.m;
        let mut kv = KvLayer::new(self.kind, self.heads.n_kv_heads, self.heads.head_dim, len + 40);
        // NaN beyond the length must not be looked at, and what was there before must not matter.
        let width = self.heads.n_kv_heads * self.heads.head_dim;
        let poison = vec![f32::NAN; 40 * width];
        cpu.kv_append(&mut kv, &poison, &poison, len, 40);
        cpu.kv_append(&mut kv, &self.keys, &self.values, 0, len);
        let mut out = vec![f32::NAN; self.q.len()];
        let mut scratch = AttnScratch::new(self.heads);
        cpu.attention(&self.q, &kv, self.pos0, self.m, self.heads, &mut scratch, &mut out);
        out
    }

    fn check(&self, cpu: &Cpu, what: &str) {
        let got = self.run(cpu);
        let (k, v) = (kept(self.kind, &self.keys), kept(self.kind, &self.values));
        let want = reference::attention(&wide(&self.q), &k, &v, self.pos0, self.heads);
        let largest = v.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        for (i, (&got, want)) in got.iter().zip(&want).enumerate() {
            let error = (f64::from(got) - want).abs();
            assert!(
                error <= 2e-5 * largest,
                "{what} {:?} pos {} m {} element {i}: {got} {want}",
                self.heads,
                self.pos0,
                self.m
            );
        }
    }
}

#[test]
fn every_level_equals_f64_at_every_head_shape_length_and_batch() {
    for setting in settings() {
        let cpu = setting.cpu(2);
        for (n_heads, n_kv_heads, head_dim) in SHAPES {
            let heads = HeadShape { n_heads, n_kv_heads, head_dim };
            for kind in [KvType::F16, KvType::F32] {
                for pos0 in [0, 1, 15, 16, 63, 64, 130, 254, 255, 256] {
                    Case::random(heads, kind, pos0, 1).check(&cpu, &setting.to_string());
                }
                for (pos0, m) in [(0, 2), (0, 33), (5, 7), (120, 17), (128, 9)] {
                    Case::random(heads, kind, pos0, m).check(&cpu, &setting.to_string());
                }
            }
        }
    }
}

#[test]
fn long_contexts_are_split_and_merged_without_a_difference() {
    let heads = HeadShape { n_heads: 9, n_kv_heads: 3, head_dim: 64 };
    for setting in settings() {
        for pos0 in [2047, 2048, 5000] {
            Case::random(heads, KvType::F16, pos0, 1).check(&setting.cpu(2), &setting.to_string());
        }
    }
}

#[test]
fn ad14_negative_scores_one_huge_score_and_equal_scores() {
    let heads = HeadShape { n_heads: 6, n_kv_heads: 2, head_dim: 32 };
    for setting in settings() {
        let cpu = setting.cpu(2);
        for (pos0, m) in [(200, 1), (190, 11)] {
            let mut case = Case::random(heads, KvType::F32, pos0, m);
            case.keys.iter_mut().for_each(|k| *k = -k.abs() - 1.0);
            case.q.iter_mut().for_each(|q| *q = q.abs() + 1.0);
            case.check(&cpu, "all negative");
            case.keys[..64].fill(2000.0);
            case.check(&cpu, "one huge");
            case.keys.fill(0.5);
            case.check(&cpu, "all equal");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let heads = HeadShape { n_heads: 9, n_kv_heads: 3, head_dim: 64 };
    for setting in settings() {
        for (pos0, m) in [(0, 1), (700, 1), (3000, 1), (10, 50)] {
            let case = Case::random(heads, KvType::F16, pos0, m);
            let one = case.run(&setting.cpu(1));
            for threads in [2, 3, 5] {
                assert_eq!(one, case.run(&setting.cpu(threads)), "{setting} {threads} threads, pos {pos0}");
            }
        }
    }
}

#[test]
fn ad16_the_last_position_can_be_written_and_the_next_is_refused() {
    let cpu = settings()[0].cpu(1);
    let mut kv = KvLayer::new(KvType::F16, 2, 16, 32);
    cpu.kv_append(&mut kv, &[1.0; 32], &[1.0; 32], 31, 1);
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cpu.kv_append(&mut kv, &[1.0; 32], &[1.0; 32], 32, 1);
    }));
    assert!(refused.is_err());
}

#[test]
fn norms_rotation_and_head_norms_equal_f64_for_batches_of_any_size() {
    for setting in settings() {
        let cpu = setting.cpu(2);
        for m in [1, 3, 40] {
            let (heads, dim) = (9, 64);
            let x = random(m * heads * dim, 5);
            let w: Vec<f32> = random(heads * dim, 6).iter().map(|v| v + 1.5).collect();
            let close = |got: &[f32], want: &[f64], what: &str| {
                assert_eq!(got.len(), want.len());
                for (&got, &want) in got.iter().zip(want) {
                    assert!(
                        (f64::from(got) - want).abs() <= 2e-6 * (1.0 + want.abs()),
                        "{setting} {what}: {got} {want}"
                    );
                }
            };
            let mut out = vec![f32::NAN; x.len()];
            cpu.rmsnorm(&x, &w, 1e-5, &mut out);
            close(&out, &reference::rmsnorm(&wide(&x), &wide(&w), 1e-5), "norm");
            let mut by_head = x.clone();
            cpu.head_norm(&mut by_head, &w[..dim], 1e-6);
            close(&by_head, &reference::rmsnorm(&wide(&x), &wide(&w[..dim]), 1e-6), "head norm");
            let table = RopeTable::new(dim, 1e5, None);
            let mut angles = RopeAngles::new(&table, m);
            angles.fill(&table, 100, m);
            for pairing in [Pairing::Adjacent, Pairing::Halves] {
                let mut turned = x.clone();
                cpu.rope(&mut turned, heads, dim, &angles, pairing);
                let mut want = wide(&x);
                for (j, row) in want.chunks_exact_mut(heads * dim).enumerate() {
                    reference::rope(row, dim, &table, 100 + j, pairing);
                }
                close(&turned, &want, "rotation");
            }
        }
    }
}
