//! attention / grouped@avx512: up to eight queries that share a key head, sixteen keys a vector.
//!
//!   q  f32 [count][dim]               K, V  f16 or f32, laid out as in `kv.rs`       values  f32 [count][dim]
//!
//! Scores: one element of sixteen keys is loaded (and widened) once and multiplied with that element of every query, so
//! no sum across lanes is needed. Values: up to 64 elements of every query stay in registers while the keys go by.
//! Needs AVX-512 F, BW, DQ and VL.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kv::TILE;
use super::{Block, KvLayer, KvType, Running, STEP};
use crate::norm::avx512::exp;

type Scores<const Q: usize> = [[f32; STEP]; Q];

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn step(kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
    match kv.kind() {
        KvType::F16 => by_count::<true>(kv, block, from, to, running),
        KvType::F32 => by_count::<false>(kv, block, from, to, running),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn by_count<const F16: bool>(kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
    match block.count {
        1 => counted::<F16, 1, 4>(kv, block, from, to, running),
        2 => counted::<F16, 2, 4>(kv, block, from, to, running),
        3 => counted::<F16, 3, 4>(kv, block, from, to, running),
        4 => counted::<F16, 4, 4>(kv, block, from, to, running),
        5 => counted::<F16, 5, 4>(kv, block, from, to, running),
        6 => counted::<F16, 6, 4>(kv, block, from, to, running),
        7 => counted::<F16, 7, 2>(kv, block, from, to, running),
        _ => counted::<F16, 8, 2>(kv, block, from, to, running),
    }
}

/// `V` is how many vectors of each query's values stay in registers: with `Q` of them, at most 24.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn counted<const F16: bool, const Q: usize, const V: usize>(
    kv: &KvLayer,
    block: &Block<'_>,
    from: usize,
    to: usize,
    running: &mut Running<'_>,
) {
    let dim = kv.head_dim();
    let keys = to - from;
    assert!(keys <= STEP && from.is_multiple_of(TILE) && to <= kv.capacity() && block.kv_head < kv.n_kv_heads());
    assert!(block.q.len() == Q * dim && running.values.len() == Q * dim);
    let mut scores: Scores<Q> = [[0.0; STEP]; Q];
    let scale = _mm512_set1_ps(1.0 / (dim as f32).sqrt());
    for tile in (0..keys).step_by(TILE) {
        let start = kv.key_tile(block.kv_head, from + tile);
        let mut acc = [_mm512_setzero_ps(); Q];
        for d in 0..dim {
            // SAFETY: the tile holds dim * 16 elements from `start` on, as `from + tile` is below the capacity, which is
            // a multiple of 16; `q` holds Q * dim floats.
            unsafe {
                let k = load::<F16>(kv.k16(), kv.k32(), start + d * TILE);
                for i in 0..Q {
                    let q = _mm512_set1_ps(*block.q.get_unchecked(i * dim + d));
                    acc[i] = _mm512_fmadd_ps(k, q, acc[i]);
                }
            }
        }
        for i in 0..Q {
            // SAFETY: tile + 16 <= STEP, as `tile` is a multiple of 16 below it.
            unsafe { _mm512_storeu_ps(scores[i].as_mut_ptr().add(tile), _mm512_mul_ps(acc[i], scale)) };
        }
    }
    let mut keep = [1.0f32; Q];
    for i in 0..Q {
        let seen = block.limits[i].clamp(from, to) - from;
        keep[i] = softmax(&mut scores[i], seen, keys, &mut running.max[i], &mut running.sum[i]);
    }
    let mut d = 0;
    while d + 16 * V <= dim {
        add_values::<F16, Q, V>(kv, block.kv_head, from, keys, d, &scores, &keep, running.values);
        d += 16 * V;
    }
    while d < dim {
        add_values::<F16, Q, 1>(kv, block.kv_head, from, keys, d, &scores, &keep, running.values);
        d += 16;
    }
}

/// Turns the scores of the first `seen` keys into weights and the rest into zero; updates maximum and sum, and returns
/// the factor for what was summed before.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn softmax(scores: &mut [f32; STEP], seen: usize, keys: usize, max: &mut f32, sum: &mut f32) -> f32 {
    let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
    let lanes = |at: usize| -> __mmask16 { if seen >= at + 16 { 0xffff } else { (1u16 << (seen.max(at) - at)) - 1 } };
    for at in (0..seen).step_by(16) {
        // SAFETY: at + 16 <= STEP, as `at` is a multiple of 16 below it.
        let s = unsafe { _mm512_loadu_ps(scores.as_ptr().add(at)) };
        // Lanes beyond the last key seen may hold anything, NaN too, and are left out.
        most = _mm512_mask_max_ps(most, lanes(at), most, s);
    }
    let before = *max;
    let now = before.max(_mm512_reduce_max_ps(most));
    let shift = _mm512_set1_ps(now);
    let mut total = _mm512_setzero_ps();
    for at in (0..keys).step_by(16) {
        // SAFETY: as above.
        unsafe {
            let s = _mm512_loadu_ps(scores.as_ptr().add(at));
            let p = _mm512_maskz_mov_ps(lanes(at), exp(_mm512_sub_ps(s, shift)));
            total = _mm512_add_ps(total, p);
            _mm512_storeu_ps(scores.as_mut_ptr().add(at), p);
        }
    }
    if seen == 0 {
        return 1.0;
    }
    // Before the first key the maximum is minus infinity, and the factor zero.
    let keep = (before - now).exp();
    *sum = *sum * keep + _mm512_reduce_add_ps(total);
    *max = now;
    keep
}

/// Adds the weighted values of all keys to `16 * V` elements of every query, from element `d` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
#[allow(clippy::too_many_arguments)] // A register tile of the function above.
fn add_values<const F16: bool, const Q: usize, const V: usize>(
    kv: &KvLayer,
    head: usize,
    from: usize,
    keys: usize,
    d: usize,
    weights: &Scores<Q>,
    keep: &[f32; Q],
    values: &mut [f32],
) {
    let dim = kv.head_dim();
    let mut acc = [[_mm512_setzero_ps(); V]; Q];
    for i in 0..Q {
        for v in 0..V {
            // SAFETY: `values` holds Q * dim floats and d + 16 * V <= dim.
            let before = unsafe { _mm512_loadu_ps(values.as_ptr().add(i * dim + d + 16 * v)) };
            acc[i][v] = _mm512_mul_ps(before, _mm512_set1_ps(keep[i]));
        }
    }
    let start = kv.value_at(head, from) + d;
    for key in 0..keys {
        // SAFETY: from + key is below the capacity, so its value holds `dim` elements; `key` is below STEP.
        unsafe {
            let value: [__m512; V] =
                std::array::from_fn(|v| load::<F16>(kv.v16(), kv.v32(), start + key * dim + 16 * v));
            for i in 0..Q {
                let p = _mm512_set1_ps(*weights[i].get_unchecked(key));
                for v in 0..V {
                    acc[i][v] = _mm512_fmadd_ps(value[v], p, acc[i][v]);
                }
            }
        }
    }
    for i in 0..Q {
        for v in 0..V {
            // SAFETY: as for the loads.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr().add(i * dim + d + 16 * v), acc[i][v]) };
        }
    }
}

/// Sixteen elements from `at` on.
///
/// # Safety
/// The slice of the chosen type holds them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn load<const F16: bool>(halves: &[u16], floats: &[f32], at: usize) -> __m512 {
    // SAFETY: promised by the caller.
    unsafe {
        if F16 {
            _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().add(at).cast()))
        } else {
            _mm512_loadu_ps(floats.as_ptr().add(at))
        }
    }
}
