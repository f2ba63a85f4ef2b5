//! What the ops on the cache of keys and values share: its forms, its arguments, and attention over it in f64.
//!
//! Keys and values of a layer are `[KV_HEADS, MAX_LEN, DIM]`: f16 where KV is 16, else int8 with a scale for each head and
//! position, `scale = max|x| / 127`, codes rounded half away from zero.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::problem::{Arg, Problem, Tensor};
use crate::reference::quantize_group;

/// The argument for a pointer to nothing.
pub(super) const NULL: Arg = Arg::I64(0);

/// Bytes of a key or value of `dim` elements with its scale.
pub(super) const fn row_bytes(dim: usize, kv: usize) -> usize {
    if kv == 16 { dim * 2 } else { dim + 4 }
}

/// The largest error of rounding to f16.
pub(super) fn half_step(v: f64) -> f64 {
    v.abs() / 2048.0 + 1.0 / f64::from(1 << 25)
}

/// The inputs of a cache: keys, values, and their scales, which are empty for f16.
///
/// Rows of NaN, which stand for positions beyond the length, become codes of poison under a scale of NaN.
pub(super) fn tensors(k: Vec<u16>, v: Vec<u16>, dim: usize, kv: usize) -> [Tensor; 4] {
    if kv == 16 {
        return [Tensor::F16(k), Tensor::F16(v), Tensor::F32(Vec::new()), Tensor::F32(Vec::new())];
    }
    let [(k, k_scale), (v, v_scale)] = [k, v].map(|rows| {
        let (mut codes, mut scales) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows.chunks_exact(dim) {
            let row: Vec<f32> = row.iter().map(|&b| f16::from_bits(b).to_f32()).collect();
            if row[0].is_nan() {
                codes.extend(std::iter::repeat_n(0x80u8, dim));
                scales.push(f32::NAN);
            } else {
                let (of_row, scale) = quantize_group(&row);
                codes.extend(of_row.iter().map(|&c| c as u8));
                scales.push(scale);
            }
        }
        (codes, scales)
    });
    [Tensor::Bytes(k.into()), Tensor::Bytes(v.into()), Tensor::F32(k_scale), Tensor::F32(v_scale)]
}

/// Rows of a cache in f64.
pub(super) struct Rows<'a> {
    elements: &'a Tensor,
    scales: &'a [f32],
    dim: usize,
}

impl Rows<'_> {
    /// Keys and values of a problem whose inputs are queries and then a cache.
    pub(super) fn of(problem: &Problem, dim: usize) -> [Rows<'_>; 2] {
        [1, 2].map(|at| {
            let Tensor::F32(scales) = &problem.inputs[at + 2] else { panic!("the scales of a cache are floats") };
            Rows { elements: &problem.inputs[at], scales, dim }
        })
    }

    /// Rows `from` to `from + count`, counted over heads and positions.
    pub(super) fn decoded(&self, from: usize, count: usize) -> Vec<f64> {
        let range = from * self.dim..(from + count) * self.dim;
        match self.elements {
            Tensor::F16(all) => all[range].iter().map(|&b| f16::from_bits(b).to_f64()).collect(),
            Tensor::Bytes(all) => all[range]
                .iter()
                .enumerate()
                .map(|(i, &code)| f64::from(code as i8) * f64::from(self.scales[from + i / self.dim]))
                .collect(),
            other => panic!("a cache is f16 or int8, not {other:?}"),
        }
    }
}

/// Attention of one query over `len` keys and values in f64: the result, and the square of each element were the values of
/// random sign, which is what rounding scales with.
pub(super) fn attend(q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let dim = q.len();
    let q: Vec<f64> = q.iter().map(|q| q / (dim as f64).sqrt()).collect();
    let scores: Vec<f64> = k.chunks_exact(dim).map(|k| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (mut out, mut noise) = (vec![0.0; dim], vec![0.0; dim]);
    for (weight, v) in weights.iter().zip(v.chunks_exact(dim)) {
        let p = weight / total;
        for ((o, n), v) in out.iter_mut().zip(&mut noise).zip(v) {
            let term = p * v;
            *o += term;
            *n += term * term;
        }
    }
    let square = out.iter().zip(noise).map(|(o, n)| o * o + n).collect();
    (out, square)
}

/// The arguments of the cache of a problem whose inputs are queries and then a cache: keys, values, and their scales. `late`
/// says which positions the kernels ahead write, of `max_len` for each of `kv_heads` heads.
pub(super) fn arguments(problem: &Problem, kv_heads: usize, max_len: usize, late: Range<usize>) -> [Arg; 4] {
    [1, 2, 3, 4].map(|at| match &problem.inputs[at] {
        Tensor::F16(v) => state(halves(v), kv_heads, max_len, &late),
        Tensor::Bytes(bytes) => state(bytes.clone(), kv_heads, max_len, &late),
        Tensor::F32(scales) if scales.is_empty() => NULL,
        Tensor::F32(scales) => state(scales.iter().flat_map(|v| v.to_le_bytes()).collect(), kv_heads, max_len, &late),
        other => panic!("a cache is f16 or int8, not {other:?}"),
    })
}

/// The bytes of a cache's elements; it has tens of millions, and one by one they would take longer than a kernel.
fn halves(all: &[u16]) -> Arc<[u8]> {
    let mut bytes = vec![0; 2 * all.len()];
    for (two, h) in bytes.chunks_exact_mut(2).zip(all) {
        two.copy_from_slice(&h.to_le_bytes());
    }
    bytes.into()
}

/// A buffer with something for each position of each head, of which the kernels ahead write positions `late`.
pub(super) fn state(bytes: Arc<[u8]>, kv_heads: usize, max_len: usize, late: &Range<usize>) -> Arg {
    let each = bytes.len() / (kv_heads * max_len);
    let of_head = |head: usize| (head * max_len + late.start) * each..(head * max_len + late.end) * each;
    Arg::State { late: (0..kv_heads).map(of_head).collect(), bytes }
}
