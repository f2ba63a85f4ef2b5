//! norm / avx512: RMS norm, a8/32, SwiGLU and the exponential, sixteen lanes.
//!
//! Needs AVX-512 F, BW, DQ and VL. The exponential is a polynomial of degree 6 after reduction by multiples of ln 2
//! (coefficients of Cephes `expf`); its relative error stays below 3e-7, which the tests of this folder bound.

use std::arch::x86_64::*;

use super::plain::scale_of;
use crate::cpu::act::QuantRow;

/// The mask of the lanes that `left` elements fill.
#[inline(always)]
fn tail_mask(left: usize) -> __mmask16 {
    if left >= 16 { 0xffff } else { (1 << left) - 1 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn rmsnorm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let k = x.len();
    let mut sums = [_mm512_setzero_ps(); 4];
    for at in (0..k).step_by(64) {
        for (i, sum) in sums.iter_mut().enumerate() {
            let at = at + 16 * i;
            if at < k {
                // SAFETY: the mask leaves out the lanes from `k` on.
                let v = unsafe { _mm512_maskz_loadu_ps(tail_mask(k - at), x.as_ptr().add(at)) };
                *sum = _mm512_fmadd_ps(v, v, *sum);
            }
        }
    }
    let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
    let mean = f64::from(_mm512_reduce_add_ps(sum)) / k as f64;
    let scale = _mm512_set1_ps((1.0 / (mean + f64::from(eps)).sqrt()) as f32);
    for at in (0..k).step_by(16) {
        let mask = tail_mask(k - at);
        // SAFETY: the mask leaves out the lanes from `k` on, and all three slices are `k` long.
        unsafe {
            let v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x.as_ptr().add(at)), scale);
            let v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, w.as_ptr().add(at)));
            _mm512_mask_storeu_ps(out.as_mut_ptr().add(at), mask, v);
        }
    }
}

/// Rounds to the nearest integer, halves away from zero.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn round_half_away(v: __m512) -> __m512i {
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(v);
    // The fraction is exact, so a value just below one half is not mistaken for it.
    let fraction = _mm512_abs_ps(_mm512_sub_ps(v, whole));
    let up = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(fraction, _mm512_set1_ps(0.5));
    let sign = _mm512_and_ps(v, _mm512_set1_ps(-0.0));
    let one = _mm512_or_ps(sign, _mm512_set1_ps(1.0));
    _mm512_cvttps_epi32(_mm512_mask_add_ps(whole, up, whole, one))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize(x: &[f32], row: &mut QuantRow<'_>) {
    for group in 0..x.len() / 32 {
        // SAFETY: `x` holds 32 floats from `32 * group` on, and `row.q` as many codes (checked by the caller).
        let (a, b) = unsafe {
            let at = x.as_ptr().add(32 * group);
            (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16)))
        };
        // As integers, so that NaN is above every number and is kept.
        let abs = |v: __m512| _mm512_castps_si512(_mm512_abs_ps(v));
        let amax = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(abs(a), abs(b))));
        let (s, id) = scale_of(amax);
        let id = _mm512_set1_ps(id);
        let qa = round_half_away(_mm512_mul_ps(a, id));
        let qb = round_half_away(_mm512_mul_ps(b, id));
        // SAFETY: as above.
        unsafe {
            let q = row.q.as_mut_ptr().add(32 * group);
            _mm_storeu_si128(q.cast(), _mm512_cvtsepi32_epi8(qa));
            _mm_storeu_si128(q.add(16).cast(), _mm512_cvtsepi32_epi8(qb));
        }
        row.set_group(group, s, [_mm512_reduce_add_epi32(qa), _mm512_reduce_add_epi32(qb)]);
    }
}

/// `exp(x)`: NaN stays NaN, overflow is infinity, underflow is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(crate) fn exp(x: __m512) -> __m512 {
    // With NaN in `x` the second operand is taken, so NaN passes both bounds.
    let x = _mm512_min_ps(_mm512_set1_ps(200.0), _mm512_max_ps(_mm512_set1_ps(-200.0), x));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
        x,
        _mm512_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts, the first of which has few bits, so that n times it is exact.
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    let p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0)));
    _mm512_scalef_ps(p, n)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let k = gate.len();
    for at in (0..k).step_by(16) {
        let mask = tail_mask(k - at);
        // SAFETY: the mask leaves out the lanes from `k` on, and both slices are `k` long.
        unsafe {
            let g = _mm512_maskz_loadu_ps(mask, gate.as_ptr().add(at));
            let u = _mm512_maskz_loadu_ps(mask, up.as_ptr().add(at));
            let e = exp(_mm512_sub_ps(_mm512_setzero_ps(), g));
            let silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0), e));
            _mm512_mask_storeu_ps(gate.as_mut_ptr().add(at), mask, _mm512_mul_ps(silu, u));
        }
    }
}
