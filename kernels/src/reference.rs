//! Every op in f64 on decoded weights: slow, plain, and what all kernels are judged by.

use harness_spec::DType;

use crate::cpu::{HeadShape, Pairing, RopeTable};
use crate::quant;

/// The weights of `n` rows in f64, row-major.
///
/// # Panics
/// Where the bytes are not whole rows.
pub fn decode(dtype: DType, n: usize, bytes: &[u8]) -> Vec<f64> {
    let row = bytes.len() / n;
    let k = row / dtype.block_bytes() * dtype.block_len();
    let mut out = vec![0.0f32; k];
    let mut all = Vec::with_capacity(n * k);
    for bytes in bytes.chunks_exact(row) {
        quant::dequantize_row(dtype, bytes, &mut out);
        all.extend(out.iter().map(|&v| f64::from(v)));
    }
    all
}

/// `y[m, n] = Σ w[n, k] x[m, k]`, and beside each the sum of magnitudes, which bounds the rounding of any order.
pub fn matmul(w: &[f64], x: &[f64], k: usize) -> Vec<(f64, f64)> {
    x.chunks_exact(k)
        .flat_map(|x| {
            w.chunks_exact(k).map(move |w| {
                w.iter().zip(x).fold((0.0, 0.0), |(sum, magnitude), (w, x)| (sum + w * x, magnitude + (w * x).abs()))
            })
        })
        .collect()
}

/// `x / sqrt(mean(x²) + eps) * w`, for each row of the length of `w`.
pub fn rmsnorm(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    x.chunks_exact(w.len())
        .flat_map(|x| {
            let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + eps).sqrt();
            x.iter().zip(w).map(move |(x, w)| x * scale * w)
        })
        .collect()
}

/// The codes and the scale of one group of 32: `s = max|x| / 127`, codes rounded half away from zero.
pub fn quantize_group(x: &[f32]) -> (Vec<i8>, f32) {
    let amax = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    if amax == 0.0 {
        return (vec![0; x.len()], 0.0);
    }
    (x.iter().map(|&v| (v * (127.0 / amax)).round() as i8).collect(), amax / 127.0)
}

/// `silu(gate) * up`.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

/// Rotates the heads of one row at `pos`, in place.
pub fn rope(heads: &mut [f64], head_dim: usize, table: &RopeTable, pos: usize, pairing: Pairing) {
    let dim = table.dim();
    for head in heads.chunks_exact_mut(head_dim) {
        for (i, frequency) in table.frequencies().iter().enumerate() {
            let (p, q) = match pairing {
                Pairing::Adjacent => (2 * i, 2 * i + 1),
                Pairing::Halves => (i, i + dim / 2),
            };
            let (sin, cos) = (pos as f64 * frequency).sin_cos();
            (head[p], head[q]) = (head[p] * cos - head[q] * sin, head[p] * sin + head[q] * cos);
        }
    }
}

/// Causal attention: `q` is `[M, n_heads, head_dim]`, `k` and `v` are `[pos0 + M, n_kv_heads, head_dim]`.
pub fn attention(q: &[f64], k: &[f64], v: &[f64], pos0: usize, heads: HeadShape) -> Vec<f64> {
    let HeadShape { n_heads, n_kv_heads, head_dim } = heads;
    let mut out = vec![0.0; q.len()];
    for (i, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let (token, head) = (i / n_heads, i % n_heads);
        let kv_head = head / heads.group();
        let at = |pos: usize| (pos * n_kv_heads + kv_head) * head_dim;
        let scores: Vec<f64> = (0..=pos0 + token)
            .map(|pos| q.iter().zip(&k[at(pos)..]).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt())
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (pos, score) in scores.iter().enumerate() {
            let p = (score - max).exp() / total;
            for (o, v) in out.iter_mut().zip(&v[at(pos)..]) {
                *o += p * v;
            }
        }
    }
    out
}
