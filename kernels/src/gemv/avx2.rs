//! gemv / unsigned@avx2: y = W · x with int8 activations on AVX2, one kernel a type.
//!
//!   W  tiles of 8 rows (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 8]
//!
//! As `vnni`, with `maddubs` in the place of `dpbusd`: it adds pairs of products to 16 bits, so every kernel says how many
//! of them it may sum before widening. Up to four tokens share the unpacking of codes. The integer part is exact.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

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

/// The 16-bit dots of 32 columns of nibbles in the order of Q4_0. Eight products of at most 15 · 127 · 2 make 30,480.
///
/// # Safety
/// `codes` points at 128 bytes, and each row holds 32 activations from `group` on.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn nibbles32<const T: usize>(codes: *const u8, x: &[QuantPtr; T], group: usize) -> [__m256i; T] {
    let mut sums = [_mm256_setzero_si256(); T];
    for v in 0..4 {
        // SAFETY: v < 4; 16 + 4 * v + 4 <= 32.
        unsafe {
            let both = vector(codes, v);
            let (low, high) = (low(both), high(both));
            for t in 0..T {
                let q = x[t].q.add(32 * group + 4 * v);
                sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(low, four(q)));
                sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(high, four(q.add(16))));
            }
        }
    }
    sums
}

pub(super) mod q4_0 {
    //! Q4_0: d (q - 8). Bytes of a step of 64 columns: scales 2 x 16, codes 2 x 128.
    use super::*;

    const STEP: usize = 32 + 256;

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 16));
                let sums = nibbles32(step.add(32 + group % 2 * 128), &x, group);
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

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales, minima and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 16));
                let m = halves(step.add(32 + group % 2 * 16));
                let sums = nibbles32(step.add(64 + group % 2 * 128), &x, group);
                for t in 0..T {
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), widen(sums[t]));
                    acc[t] = _mm256_fmadd_ps(m, _mm256_set1_ps(*x[t].t.add(group)), acc[t]);
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

    tiled_unit!(8, 64, STEP, "avx2,fma,f16c", [4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 16));
                let mut sums = [_mm256_setzero_si256(); T];
                for v in 0..8 {
                    let w = vector(step.add(32 + group % 2 * 256), v);
                    // The magnitude of -128 is 128 as an unsigned byte, and activations are never -128.
                    let magnitude = _mm256_abs_epi8(w);
                    for t in 0..T {
                        let signed = _mm256_sign_epi8(four(x[t].q.add(32 * group + 4 * v)), w);
                        sums[t] = _mm256_add_epi32(sums[t], widen(_mm256_maddubs_epi16(magnitude, signed)));
                    }
                }
                for t in 0..T {
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), sums[t]);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q4_k {
    //! Q4_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 16, dmin 16, sc 8 x 8, mn 8 x 8, codes 32 x 32.
    use super::*;

    const STEP: usize = 32 + 128 + 1024;

    tiled_unit!(8, 256, STEP, "avx2,fma,f16c", [4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                let (d, dmin) = (halves(at), halves(at.add(16)));
                for sub in 0..8 {
                    let bytes = |at: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())));
                    // Both products are exact: eleven bits times six.
                    let scale = _mm256_mul_ps(d, bytes(at.add(32 + 8 * sub)));
                    let min = _mm256_mul_ps(dmin, bytes(at.add(96 + 8 * sub)));
                    let group = 8 * step + sub;
                    let mut sums = [_mm256_setzero_si256(); T];
                    for v in 0..8 {
                        let both = vector(at.add(160 + sub / 2 * 256), v);
                        let codes = if sub % 2 == 0 { low(both) } else { high(both) };
                        for t in 0..T {
                            // Eight products of at most 15 * 127 * 2 make 30,480.
                            let x = four(x[t].q.add(32 * group + 4 * v));
                            sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(codes, x));
                        }
                    }
                    for t in 0..T {
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), widen(sums[t]));
                        acc[t] = _mm256_fnmadd_ps(min, _mm256_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q6_k {
    //! Q6_K: d sc (q - 32), per 16. Bytes of a step of 256 columns: d 16, pad 16, sc 16 x 8, then for both halves
    //! together ql 32 x 32, qh 16 x 32.
    use super::*;

    const STEP: usize = 32 + 128 + 1536;

    tiled_unit!(8, 256, STEP, "avx2,fma,f16c", [4, 2, 1]);

    /// Four columns of quarter `quarter`: vector `v` of its eight.
    ///
    /// # Safety
    /// `low_at` and `high_at` point at the 16 and 8 vectors of a half of 128 columns.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(low_at: *const u8, high_at: *const u8, quarter: usize, v: usize) -> __m256i {
        // SAFETY: promised by the caller.
        let (both, bits) = unsafe { (vector(low_at, quarter % 2 * 8 + v), vector(high_at, v)) };
        let nibble = if quarter < 2 { low(both) } else { high(both) };
        let bits = match quarter {
            0 => _mm256_slli_epi16::<4>(bits),
            1 => _mm256_slli_epi16::<2>(bits),
            2 => bits,
            _ => _mm256_srli_epi16::<2>(bits),
        };
        _mm256_or_si256(nibble, _mm256_and_si256(bits, _mm256_set1_epi8(0x30)))
    }

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its sixteen sub-blocks, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                let d = halves(at);
                for sub in 0..16 {
                    let (half, quarter) = (sub / 8, sub / 2 % 4);
                    let sc = _mm_loadl_epi64(at.add(32 + 8 * sub).cast());
                    let scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(sc)));
                    let group = 8 * step + sub / 2;
                    let mut sums: [__m256i; T] =
                        std::array::from_fn(|t| _mm256_set1_epi32(*x[t].neg32.add(2 * group + sub % 2)));
                    for pair in 0..2 {
                        let v = sub % 2 * 4 + 2 * pair;
                        let (low_at, high_at) = (at.add(160 + half * 512), at.add(160 + 1024 + half * 256));
                        let codes = [unpack(low_at, high_at, quarter, v), unpack(low_at, high_at, quarter, v + 1)];
                        for t in 0..T {
                            let q = x[t].q.add(32 * group + 4 * v);
                            // Two products of at most 63 * 127 * 2 make 32,004.
                            let a = _mm256_maddubs_epi16(codes[0], four(q));
                            let b = _mm256_maddubs_epi16(codes[1], four(q.add(4)));
                            sums[t] = _mm256_add_epi32(sums[t], widen(_mm256_add_epi16(a, b)));
                        }
                    }
                    for t in 0..T {
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), sums[t]);
                    }
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
