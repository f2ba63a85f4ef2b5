//! norm / avx2: RMS norm, a8/32, SwiGLU and the exponential, eight lanes.
//!
//! Needs AVX2 and FMA. The exponential is that of `avx512`, with the power of two applied in two halves, as there is no
//! instruction that scales by it.

use std::arch::x86_64::*;

use super::plain;
use crate::cpu::act::QuantRow;

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(crate) fn sum_of(v: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(crate) fn max_of(v: __m256) -> f32 {
    let half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn sum_of_i32(v: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let pair = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<1>(pair)))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn rmsnorm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let k = x.len();
    let mut sums = [_mm256_setzero_ps(); 4];
    let body = k / 32 * 32;
    for at in (0..body).step_by(32) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 32 <= k.
            let v = unsafe { _mm256_loadu_ps(x.as_ptr().add(at + 8 * i)) };
            *sum = _mm256_fmadd_ps(v, v, *sum);
        }
    }
    let sum = sum_of(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
    let rest: f64 = x[body..].iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let mean = (f64::from(sum) + rest) / k as f64;
    let scale = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
    // The compiler makes eight lanes of this.
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(w) {
        *o = x * scale * w;
    }
}

/// Rounds to the nearest integer, halves away from zero.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn round_half_away(v: __m256) -> __m256i {
    let sign = _mm256_set1_ps(-0.0);
    let whole = _mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(v);
    // The fraction is exact, so a value just below one half is not mistaken for it.
    let fraction = _mm256_andnot_ps(sign, _mm256_sub_ps(v, whole));
    let up = _mm256_cmp_ps::<_CMP_GE_OQ>(fraction, _mm256_set1_ps(0.5));
    let one = _mm256_or_ps(_mm256_and_ps(sign, v), _mm256_set1_ps(1.0));
    _mm256_cvttps_epi32(_mm256_add_ps(whole, _mm256_and_ps(up, one)))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn quantize(x: &[f32], row: &mut QuantRow<'_>) {
    for group in 0..x.len() / 32 {
        // SAFETY: `x` holds 32 floats from `32 * group` on (checked by the caller).
        let v: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(32 * group + 8 * i)) });
        // As integers, so that NaN is above every number and is kept.
        let abs = v.map(|v| _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), v)));
        let m = _mm256_max_epu32(_mm256_max_epu32(abs[0], abs[1]), _mm256_max_epu32(abs[2], abs[3]));
        let m = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
        let m = _mm_max_epu32(m, _mm_unpackhi_epi64(m, m));
        let m = _mm_max_epu32(m, _mm_shuffle_epi32::<1>(m));
        let (s, id) = plain::scale_of(f32::from_bits(_mm_cvtsi128_si32(m) as u32));
        let id = _mm256_set1_ps(id);
        let q = v.map(|v| round_half_away(_mm256_mul_ps(v, id)));
        let words = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        // The packs work within each half; this puts the groups of four back in order.
        let codes = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: `row.q` holds 32 codes from `32 * group` on (checked by the caller).
        unsafe { _mm256_storeu_si256(row.q.as_mut_ptr().add(32 * group).cast(), codes) };
        let halves = [sum_of_i32(_mm256_add_epi32(q[0], q[1])), sum_of_i32(_mm256_add_epi32(q[2], q[3]))];
        row.set_group(group, s, halves);
    }
}

/// `exp(x)`: NaN stays NaN, overflow is infinity, underflow is zero or subnormal.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(crate) fn exp(x: __m256) -> __m256 {
    // With NaN in `x` the second operand is taken, so NaN passes both bounds.
    let x = _mm256_min_ps(_mm256_set1_ps(150.0), _mm256_max_ps(_mm256_set1_ps(-150.0), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts, the first of which has few bits, so that n times it is exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    let p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0)));
    // n is within ±217, so each half of it is an exponent that a float has.
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let power = |n: __m256i| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
    _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(_mm256_sub_epi32(n, half)))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let body = gate.len() / 8 * 8;
    for at in (0..body).step_by(8) {
        // SAFETY: at + 8 is at most the length of both slices.
        unsafe {
            let g = _mm256_loadu_ps(gate.as_ptr().add(at));
            let e = exp(_mm256_sub_ps(_mm256_setzero_ps(), g));
            let silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0), e));
            let u = _mm256_loadu_ps(up.as_ptr().add(at));
            _mm256_storeu_ps(gate.as_mut_ptr().add(at), _mm256_mul_ps(silu, u));
        }
    }
    plain::silu_mul(&mut gate[body..], &up[body..]);
}
