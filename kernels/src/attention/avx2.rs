//! attention / grouped@avx2: up to four queries at a time that share a key head, sixteen keys in two vectors.
//!
//!   q  f32 [count][dim]               K, V  f16 or f32, laid out as in `kv.rs`       values  f32 [count][dim]
//!
//! As `avx512`, in sixteen registers: a block of more than four queries is worked on in two parts, and 16 elements of
//! each query's values stay in registers while the keys go by. Needs AVX2, FMA and F16C.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kv::TILE;
use super::{Block, KvLayer, KvType, Running, STEP};
use crate::norm::avx2::{exp, max_of, sum_of};

/// Queries whose sums fit in registers together.
const PART: usize = 4;

type Scores<const Q: usize> = [[f32; STEP]; Q];

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn step(kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
    match kv.kind() {
        KvType::F16 => by_count::<true>(kv, block, from, to, running),
        KvType::F32 => by_count::<false>(kv, block, from, to, running),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn by_count<const F16: bool>(kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
    let mut first = 0;
    while first < block.count {
        let count = PART.min(block.count - first);
        match count {
            1 => counted::<F16, 1>(kv, block, first, from, to, running),
            2 => counted::<F16, 2>(kv, block, first, from, to, running),
            3 => counted::<F16, 3>(kv, block, first, from, to, running),
            _ => counted::<F16, 4>(kv, block, first, from, to, running),
        }
        first += count;
    }
}

/// Adds a step to the `Q` queries from `first` on.
#[target_feature(enable = "avx2,fma,f16c")]
fn counted<const F16: bool, const Q: usize>(
    kv: &KvLayer,
    block: &Block<'_>,
    first: usize,
    from: usize,
    to: usize,
    running: &mut Running<'_>,
) {
    let dim = kv.head_dim();
    let keys = to - from;
    assert!(keys <= STEP && from.is_multiple_of(TILE) && to <= kv.capacity() && block.kv_head < kv.n_kv_heads());
    let queries = &block.q[first * dim..][..Q * dim];
    let mut scores: Scores<Q> = [[0.0; STEP]; Q];
    let scale = _mm256_set1_ps(1.0 / (dim as f32).sqrt());
    for tile in (0..keys).step_by(TILE) {
        let start = kv.key_tile(block.kv_head, from + tile);
        let mut acc = [[_mm256_setzero_ps(); 2]; Q];
        for d in 0..dim {
            // SAFETY: the tile holds dim * 16 elements from `start` on, as `from + tile` is below the capacity, which is
            // a multiple of 16; `queries` holds Q * dim floats.
            unsafe {
                let at = start + d * TILE;
                let k0 = load::<F16>(kv.k16(), kv.k32(), at);
                let k1 = load::<F16>(kv.k16(), kv.k32(), at + 8);
                for i in 0..Q {
                    let q = _mm256_set1_ps(*queries.get_unchecked(i * dim + d));
                    acc[i][0] = _mm256_fmadd_ps(k0, q, acc[i][0]);
                    acc[i][1] = _mm256_fmadd_ps(k1, q, acc[i][1]);
                }
            }
        }
        for i in 0..Q {
            // SAFETY: tile + 16 <= STEP, as `tile` is a multiple of 16 below it.
            unsafe {
                _mm256_storeu_ps(scores[i].as_mut_ptr().add(tile), _mm256_mul_ps(acc[i][0], scale));
                _mm256_storeu_ps(scores[i].as_mut_ptr().add(tile + 8), _mm256_mul_ps(acc[i][1], scale));
            }
        }
    }
    let mut keep = [1.0f32; Q];
    for i in 0..Q {
        let seen = block.limits[first + i].clamp(from, to) - from;
        keep[i] = softmax(&mut scores[i], seen, keys, &mut running.max[first + i], &mut running.sum[first + i]);
    }
    let values = &mut running.values[first * dim..][..Q * dim];
    for d in (0..dim).step_by(16) {
        add_values::<F16, Q>(kv, block.kv_head, from, keys, d, &scores, &keep, values);
    }
}

/// Turns the scores of the first `seen` keys into weights and the rest into zero; updates maximum and sum, and returns
/// the factor for what was summed before.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn softmax(scores: &mut [f32; STEP], seen: usize, keys: usize, max: &mut f32, sum: &mut f32) -> f32 {
    if seen == 0 {
        scores[..keys].fill(0.0);
        return 1.0;
    }
    // Lanes beyond the last key seen may hold anything, NaN too: they become minus infinity, whose weight is zero.
    scores[seen..keys.next_multiple_of(8)].fill(f32::NEG_INFINITY);
    let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
    for at in (0..keys).step_by(8) {
        // SAFETY: at + 8 <= STEP, as `at` is a multiple of 8 below it.
        most = _mm256_max_ps(most, unsafe { _mm256_loadu_ps(scores.as_ptr().add(at)) });
    }
    let before = *max;
    let now = before.max(max_of(most));
    let shift = _mm256_set1_ps(now);
    let mut total = _mm256_setzero_ps();
    for at in (0..keys).step_by(8) {
        // SAFETY: as above.
        unsafe {
            let p = exp(_mm256_sub_ps(_mm256_loadu_ps(scores.as_ptr().add(at)), shift));
            total = _mm256_add_ps(total, p);
            _mm256_storeu_ps(scores.as_mut_ptr().add(at), p);
        }
    }
    // Before the first key the maximum is minus infinity, and the factor zero.
    let keep = (before - now).exp();
    *sum = *sum * keep + sum_of(total);
    *max = now;
    keep
}

/// Adds the weighted values of all keys to 16 elements of every query, from element `d` on.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
#[allow(clippy::too_many_arguments)] // A register tile of the function above.
fn add_values<const F16: bool, const Q: usize>(
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
    let mut acc = [[_mm256_setzero_ps(); 2]; Q];
    for i in 0..Q {
        for v in 0..2 {
            // SAFETY: `values` holds Q * dim floats and d + 16 <= dim.
            let before = unsafe { _mm256_loadu_ps(values.as_ptr().add(i * dim + d + 8 * v)) };
            acc[i][v] = _mm256_mul_ps(before, _mm256_set1_ps(keep[i]));
        }
    }
    let start = kv.value_at(head, from) + d;
    for key in 0..keys {
        // SAFETY: from + key is below the capacity, so its value holds `dim` elements; `key` is below STEP.
        unsafe {
            let at = start + key * dim;
            let v0 = load::<F16>(kv.v16(), kv.v32(), at);
            let v1 = load::<F16>(kv.v16(), kv.v32(), at + 8);
            for i in 0..Q {
                let p = _mm256_set1_ps(*weights[i].get_unchecked(key));
                acc[i][0] = _mm256_fmadd_ps(v0, p, acc[i][0]);
                acc[i][1] = _mm256_fmadd_ps(v1, p, acc[i][1]);
            }
        }
    }
    for i in 0..Q {
        for v in 0..2 {
            // SAFETY: as for the loads.
            unsafe { _mm256_storeu_ps(values.as_mut_ptr().add(i * dim + d + 8 * v), acc[i][v]) };
        }
    }
}

/// Eight elements from `at` on.
///
/// # Safety
/// The slice of the chosen type holds them.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn load<const F16: bool>(halves: &[u16], floats: &[f32], at: usize) -> __m256 {
    // SAFETY: promised by the caller.
    unsafe {
        if F16 {
            _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().add(at).cast()))
        } else {
            _mm256_loadu_ps(floats.as_ptr().add(at))
        }
    }
}
