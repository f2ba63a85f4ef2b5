//! gemv / unsigned@avx2: y = W · x with int8 activations on AVX2, one kernel a type.
//!
//!   W  tiles of 8 rows (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 8]
//!
//! As `vnni`, with `maddubs` in the place of `dpbusd`: it adds pairs of products to 16 bits, so every kernel says how many
//! of them it may sum before widening. Up to four tokens share the unpacking of codes. The integer part is exact.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

pub(super) mod k_quants;
pub(super) mod ternary;

use super::prefetch;
use crate::cpu::act::QuantPtr;

/// Four activations for all rows.
///
/// # Safety
/// `x` points at four activations.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn four(x: *const i8) -> __m256i {
    // SAFETY: promised by the caller; the read is unaligned.
    _mm256_set1_epi32(unsafe { x.cast::<i32>().read_unaligned() })
}

/// Eight f16 as floats.
///
/// # Safety
/// `at` points at 16 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: promised by the caller.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
}

/// The vector `v` of codes.
///
/// # Safety
/// `at` points at `32 * (v + 1)` bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn vector(at: *const u8, v: usize) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_loadu_si256(at.add(32 * v).cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn low(codes: __m256i) -> __m256i {
    _mm256_and_si256(codes, _mm256_set1_epi8(15))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn high(codes: __m256i) -> __m256i {
    low(_mm256_srli_epi16::<4>(codes))
}

/// A nibble with the bit at position 4 of each byte of `bits`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn fifth(nibble: __m256i, bits: __m256i) -> __m256i {
    _mm256_or_si256(nibble, _mm256_and_si256(bits, _mm256_set1_epi8(16)))
}

/// Pairs of 16-bit sums as 32 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn widen(pairs: __m256i) -> __m256i {
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// `acc + d s isum`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scaled(acc: __m256, d: __m256, s: f32, isum: __m256i) -> __m256 {
    _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(s)), _mm256_cvtepi32_ps(isum), acc)
}

/// Sums of several chains: of 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn joined16<const ACC: usize>(sums: [__m256i; ACC]) -> __m256i {
    let mut sum = sums[0];
    for more in &sums[1..] {
        sum = _mm256_add_epi16(sum, *more);
    }
    sum
}

/// Sums of several chains: of 32 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn joined32<const ACC: usize>(sums: [__m256i; ACC]) -> __m256i {
    let mut sum = sums[0];
    for more in &sums[1..] {
        sum = _mm256_add_epi32(sum, *more);
    }
    sum
}

/// The 16-bit dots of 32 columns of nibbles in the order of Q4_0. Eight products of at most 15 · 127 · 2 make 30,480.
///
/// # Safety
/// `codes` points at 128 bytes, and each row holds 32 activations from `group` on.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn nibbles32<const T: usize, const ACC: usize>(
    codes: *const u8,
    x: &[QuantPtr; T],
    group: usize,
) -> [__m256i; T] {
    let mut sums = [[_mm256_setzero_si256(); ACC]; T];
    for v in 0..4 {
        // SAFETY: v < 4; 16 + 4 * v + 4 <= 32.
        unsafe {
            let both = vector(codes, v);
            let (low, high) = (low(both), high(both));
            for t in 0..T {
                let q = x[t].q.add(32 * group + 4 * v);
                sums[t][0] = _mm256_add_epi16(sums[t][0], _mm256_maddubs_epi16(low, four(q)));
                sums[t][ACC - 1] = _mm256_add_epi16(sums[t][ACC - 1], _mm256_maddubs_epi16(high, four(q.add(16))));
            }
        }
    }
    let mut out = [_mm256_setzero_si256(); T];
    for t in 0..T {
        out[t] = joined16(sums[t]);
    }
    out
}

pub(super) mod q4_0 {
    //! Q4_0: d (q - 8). Bytes of a step of 64 columns: scales 2 x 16, codes 2 x 128.
    use super::*;

    const STEP: usize = 32 + 256;

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                let d = halves(step.add(group % 2 * 16));
                let sums = nibbles32::<T, ACC>(step.add(32 + group % 2 * 128), &x, group);
                for t in 0..T {
                    let isum = _mm256_add_epi32(widen(sums[t]), _mm256_set1_epi32(*x[t].neg8.add(group)));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q4_1 {
    //! Q4_1: d q + m. Bytes of a step of 64 columns: scales 2 x 16, minima 2 x 16, codes 2 x 128.
    use super::*;

    const STEP: usize = 64 + 256;

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales, minima and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                let d = halves(step.add(group % 2 * 16));
                let m = halves(step.add(32 + group % 2 * 16));
                let sums = nibbles32::<T, ACC>(step.add(64 + group % 2 * 128), &x, group);
                for t in 0..T {
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), widen(sums[t]));
                    acc[t] = _mm256_fmadd_ps(m, _mm256_set1_ps(*x[t].t.add(group)), acc[t]);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q5_0 {
    //! Q5_0: d (q - 16). A pair of products reaches 31 · 127 · 2 = 7,874, so four may be summed before widening: the low
    //! and the high nibbles apart. Bytes of a step of 64 columns: scales 2 x 16, then twice fifth bits 32, codes 128.
    use super::*;

    const STEP: usize = 32 + 320;

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales, bits and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                let d = halves(step.add(group % 2 * 16));
                let at = step.add(32 + group % 2 * 160);
                let bits = vector(at, 0);
                let low_bits = [
                    _mm256_slli_epi16::<4>(bits),
                    _mm256_slli_epi16::<3>(bits),
                    _mm256_slli_epi16::<2>(bits),
                    _mm256_slli_epi16::<1>(bits),
                ];
                let high_bits =
                    [bits, _mm256_srli_epi16::<1>(bits), _mm256_srli_epi16::<2>(bits), _mm256_srli_epi16::<3>(bits)];
                let mut sums = [[_mm256_setzero_si256(); 2]; T];
                for v in 0..4 {
                    let both = vector(at, v + 1);
                    let codes = [fifth(low(both), low_bits[v]), fifth(high(both), high_bits[v])];
                    for t in 0..T {
                        let q = x[t].q.add(32 * group + 4 * v);
                        for i in 0..2 {
                            let pairs = _mm256_maddubs_epi16(codes[i], four(q.add(16 * i)));
                            sums[t][i] = _mm256_add_epi16(sums[t][i], pairs);
                        }
                    }
                }
                for t in 0..T {
                    let both = _mm256_add_epi32(widen(sums[t][0]), widen(sums[t][1]));
                    let isum = _mm256_add_epi32(both, _mm256_set1_epi32(2 * *x[t].neg8.add(group)));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q8_0 {
    //! Q8_0: d q by the sign trick, |q| times x with the sign of q. A pair of products reaches 128 · 127 · 2 = 32,512, so
    //! each is widened at once. Bytes of a step of 64 columns: scales 2 x 16, codes 2 x 256.
    use super::*;

    const STEP: usize = 32 + 512;

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                let d = halves(step.add(group % 2 * 16));
                let mut sums = [[_mm256_setzero_si256(); ACC]; T];
                for v in 0..8 {
                    let w = vector(step.add(32 + group % 2 * 256), v);
                    // The magnitude of -128 is 128 as an unsigned byte, and activations are never -128.
                    let magnitude = _mm256_abs_epi8(w);
                    for t in 0..T {
                        let signed = _mm256_sign_epi8(four(x[t].q.add(32 * group + 4 * v)), w);
                        let pairs = widen(_mm256_maddubs_epi16(magnitude, signed));
                        sums[t][v % ACC] = _mm256_add_epi32(sums[t][v % ACC], pairs);
                    }
                }
                for t in 0..T {
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), joined32(sums[t]));
                }
            }
        }
        super::floats(acc)
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn floats<const T: usize>(acc: [__m256; T]) -> [[f32; 8]; T] {
    let mut out = [[0.0; 8]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` has eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}
