//! Wrong attention.

use half::f16;
use kernels::op::{Problem, Tensor};
use variants::Activations::F32;

use super::{Kernel, Mutant, mutant};

/// Queries and cache of a problem.
pub struct Parts<'a> {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    len: usize,
    max_len: usize,
    q: &'a [f32],
    k: &'a [u16],
    v: &'a [u16],
}

fn parts(problem: &Problem) -> Parts<'_> {
    let [Tensor::F32(q), Tensor::F16(k), Tensor::F16(v), Tensor::I32(len)] = &problem.inputs[..] else {
        unreachable!()
    };
    let [heads, kv_heads, dim, max_len] = ["HEADS", "KV_HEADS", "DIM", "MAX_LEN"].map(|d| problem.dim(d));
    Parts { heads, kv_heads, dim, len: len[0] as usize, max_len, q, k, v }
}

impl Parts<'_> {
    fn row(&self, all: &[u16], head: usize, pos: usize, stride: usize) -> Vec<f64> {
        let at = (head * stride + pos) * self.dim;
        all[at..at + self.dim].iter().map(|&b| f16::from_bits(b).to_f64()).collect()
    }

    fn query(&self, head: usize) -> Vec<f64> {
        self.q[head * self.dim..][..self.dim].iter().map(|&v| f64::from(v)).collect()
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn score(&self, head: usize, key: &[f64]) -> f64 {
        self.query(head).iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (self.dim as f64).sqrt()
    }

    /// Scores of the first `len` positions.
    fn scores(&self, head: usize, kv_head: usize, len: usize) -> Vec<f64> {
        (0..len).map(|pos| self.score(head, &self.row(self.k, kv_head, pos, self.max_len))).collect()
    }

    /// Sums of values under weights, without dividing.
    fn values(&self, kv_head: usize, weights: &[f64], from: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.dim];
        for (pos, p) in weights.iter().enumerate() {
            let row = self.row(self.v, kv_head, from + pos, self.max_len);
            out.iter_mut().zip(row).for_each(|(o, v)| *o += p * v);
        }
        out
    }
}

fn largest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn softmax(scores: &[f64], max: f64) -> Vec<f64> {
    // In f32, as a kernel has it: without the maximum it overflows.
    let weights: Vec<f64> = scores.iter().map(|s| f64::from(((s - max) as f32).exp())).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// A kernel that works head by head.
fn heads(head: fn(&Parts<'_>, usize) -> Vec<f64>) -> Kernel {
    Box::new(move |problem, out| {
        let p = parts(problem);
        let y: Vec<f32> = (0..p.heads).flat_map(|h| head(&p, h)).map(|v| v as f32).collect();
        out[0].fill(&y);
    })
}

/// The right result, from other scores, lengths or heads.
fn plain(p: &Parts<'_>, head: usize, kv_head: usize, len: usize) -> Vec<f64> {
    let scores = p.scores(head, kv_head, len);
    p.values(kv_head, &softmax(&scores, largest(&scores)), 0)
}

/// Positions in four splits: maximum, sum and values of each. Splits may be empty.
fn splits(p: &Parts<'_>, head: usize) -> Vec<(f64, f64, Vec<f64>)> {
    let kv_head = head / p.group();
    let scores = p.scores(head, kv_head, p.len);
    let size = p.len.div_ceil(4);
    let split = |i: usize| {
        let (from, to) = ((i * size).min(p.len), ((i + 1) * size).min(p.len));
        let max = largest(&scores[from..to]);
        let weights: Vec<f64> = scores[from..to].iter().map(|s| (s - max).exp()).collect();
        (max, weights.iter().sum::<f64>(), p.values(kv_head, &weights, from))
    };
    (0..4).map(split).collect()
}

pub fn mutants() -> Vec<Mutant> {
    let attn = |name, made_for_it, make| mutant(name, "attn_decode", F32, made_for_it, make);
    vec![
        attn("B8 maximum by integer comparison of float bits", "AD-14 all scores negative", || {
            heads(|p, h| {
                let scores = p.scores(h, h / p.group(), p.len);
                let bits = scores.iter().map(|&s| (s as f32).to_bits() as i32);
                let max = bits.fold(f32::NEG_INFINITY.to_bits() as i32, i32::max);
                p.values(h / p.group(), &softmax(&scores, f64::from(f32::from_bits(max as u32))), 0)
            })
        }),
        attn("B9 keys and values strided by the length", "AD-16 values that tell their position", || {
            heads(|p, h| {
                let short = Parts { max_len: p.len, ..*p };
                plain(&short, h, h / p.group(), p.len)
            })
        }),
        attn("B10 the last token's scale for every key", "AD-16 keys of growing magnitude", || {
            heads(|p, h| {
                let kv_head = h / p.group();
                let amax = |k: &[f64]| k.iter().fold(0.0f64, |a, v| a.max(v.abs()));
                let last = amax(&p.row(p.k, kv_head, p.len - 1, p.max_len));
                let score = |pos: usize| {
                    let key = p.row(p.k, kv_head, pos, p.max_len);
                    let own = amax(&key);
                    let codes = key.iter().map(|v| (v / own * 127.0).round() * last / 127.0);
                    p.score(h, &codes.collect::<Vec<_>>())
                };
                let scores: Vec<f64> = (0..p.len).map(score).collect();
                p.values(kv_head, &softmax(&scores, largest(&scores)), 0)
            })
        }),
        attn("B11 partial results weighted with their sums twice", "random seed 0", || {
            heads(|p, h| {
                let splits = splits(p, h);
                let max = largest(&splits.iter().map(|s| s.0).collect::<Vec<_>>());
                let (mut out, mut total) = (vec![0.0; p.dim], 0.0);
                for (m, l, values) in splits.iter().filter(|s| s.1 > 0.0) {
                    let weight = (m - max).exp() * l;
                    total += weight * l;
                    out.iter_mut().zip(values).for_each(|(o, v)| *o += weight * v);
                }
                out.iter().map(|o| o / total).collect()
            })
        }),
        attn("B11 race: the last split's scores overwrite the first's", "random seed 0", || {
            heads(|p, h| {
                let mut scores = p.scores(h, h / p.group(), p.len);
                let size = p.len.div_ceil(4);
                let last: Vec<f64> = scores[p.len - size..].to_vec();
                scores[..size].copy_from_slice(&last);
                p.values(h / p.group(), &softmax(&scores, largest(&scores)), 0)
            })
        }),
        attn("an empty split makes NaN", "random seed 0 at DIM=32 HEADS=6 KV_HEADS=2 LEN=1 ", || {
            heads(|p, h| {
                let splits = splits(p, h);
                let max = largest(&splits.iter().map(|s| s.0).collect::<Vec<_>>());
                let (mut out, mut total) = (vec![0.0; p.dim], 0.0);
                for (m, l, values) in &splits {
                    // The values of an empty split are divided by its sum of zero.
                    let weight = (m - max).exp() * l;
                    total += weight;
                    out.iter_mut().zip(values).for_each(|(o, v)| *o += weight * (v / l));
                }
                out.iter().map(|o| o / total).collect()
            })
        }),
        attn("no maximum subtracted", "AD-14 one score of 1e4", || {
            heads(|p, h| {
                let scores = p.scores(h, h / p.group(), p.len);
                p.values(h / p.group(), &softmax(&scores, 0.0), 0)
            })
        }),
        attn("length rounded up to a tile of 16", "random seed 0 at DIM=32 HEADS=6 KV_HEADS=2 LEN=33 ", || {
            heads(|p, h| plain(p, h, h / p.group(), p.len.next_multiple_of(16).min(p.max_len)))
        }),
        attn("positions from 256 on dropped", "random seed 0 at DIM=32 HEADS=6 KV_HEADS=2 LEN=257 ", || {
            heads(|p, h| plain(p, h, h / p.group(), p.len.min(256)))
        }),
        attn("newest position left out", "AD-16 values that tell their position", || {
            heads(|p, h| plain(p, h, h / p.group(), (p.len - 1).max(1)))
        }),
        attn("query heads dealt to key heads in turn", "random seed 0", || {
            heads(|p, h| plain(p, h, h % p.kv_heads, p.len))
        }),
        attn("scores divided by DIM instead of its root", "random seed 0", || {
            heads(|p, h| {
                let kv_head = h / p.group();
                let scores: Vec<f64> = p.scores(h, kv_head, p.len).iter().map(|s| s / (p.dim as f64).sqrt()).collect();
                p.values(kv_head, &softmax(&scores, largest(&scores)), 0)
            })
        }),
        attn("length kept from the first launch", "random seed 0 at DIM=32 HEADS=6 KV_HEADS=2 LEN=1 ", || {
            let mut first = None;
            Box::new(move |problem, out| {
                let p = parts(problem);
                let len = *first.get_or_insert(p.len);
                let y = (0..p.heads).flat_map(|h| plain(&p, h, h / p.group(), len.min(p.max_len)));
                out[0].fill(&y.map(|v| v as f32).collect::<Vec<_>>());
            })
        }),
    ]
}
