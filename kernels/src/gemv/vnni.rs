//! gemv / unsigned@vnni: y = W · x with int8 activations on AVX-512 VNNI, one kernel a type.
//!
//!   W  tiles of 16 rows (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 16]
//!
//! A vector holds four columns of sixteen rows, so a broadcast of four activations meets all rows at once and no sum
//! across lanes is needed. Codes of 32 columns are unpacked once into eight registers and meet up to eight tokens.
//! The integer part is exact: offsets in the codes go into the accumulators through the sums of the activations.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use crate::cpu::act::QuantPtr;

/// `acc += codes · x` in groups of four bytes: unsigned codes, four signed activations for all rows.
///
/// # Safety
/// `x` points at four activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn dot4(acc: __m512i, codes: __m512i, x: *const i8) -> __m512i {
    // SAFETY: promised by the caller; the read is unaligned.
    let x = unsafe { x.cast::<i32>().read_unaligned() };
    _mm512_dpbusd_epi32(acc, codes, _mm512_set1_epi32(x))
}

/// Sixteen f16 as floats.
///
/// # Safety
/// `at` points at 32 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: promised by the caller.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// Sixteen vectors of 64 bytes, or as many as `N`.
///
/// # Safety
/// `at` points at `64 * N` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn vectors<const N: usize>(at: *const u8) -> [__m512i; N] {
    // SAFETY: promised by the caller.
    std::array::from_fn(|v| unsafe { _mm512_loadu_si512(at.add(64 * v).cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn low(codes: __m512i) -> __m512i {
    _mm512_and_si512(codes, _mm512_set1_epi8(15))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn high(codes: __m512i) -> __m512i {
    low(_mm512_srli_epi16::<4>(codes))
}

/// The integer dot of 32 columns with one token: `from + Σ codes · x`.
///
/// # Safety
/// `x` points at 32 activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn dot32(from: i32, codes: &[__m512i; 8], x: *const i8) -> __m512 {
    let mut sum = _mm512_set1_epi32(from);
    for (v, &codes) in codes.iter().enumerate() {
        // SAFETY: 4 * v + 4 <= 32.
        sum = unsafe { dot4(sum, codes, x.add(4 * v)) };
    }
    _mm512_cvtepi32_ps(sum)
}

/// `acc + d s isum`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn scaled(acc: __m512, d: __m512, s: f32, isum: __m512) -> __m512 {
    _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(s)), isum, acc)
}

pub(super) mod q4_0 {
    //! Q4_0: d (q - 8). Bytes of a step of 64 columns: scales 2 x 32, codes 2 x 256.
    use super::*;

    const STEP: usize = 64 + 512;

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 32));
                let [a, b, c, e] = vectors::<4>(step.add(64 + group % 2 * 256));
                let codes = [low(a), low(b), low(c), low(e), high(a), high(b), high(c), high(e)];
                for t in 0..T {
                    let isum = dot32(*x[t].neg8.add(group), &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q4_1 {
    //! Q4_1: d q + m. Bytes of a step of 64 columns: scales 2 x 32, minima 2 x 32, codes 2 x 256.
    use super::*;

    const STEP: usize = 128 + 512;

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales, minima and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 32));
                let m = halves(step.add(64 + group % 2 * 32));
                let [a, b, c, e] = vectors::<4>(step.add(128 + group % 2 * 256));
                let codes = [low(a), low(b), low(c), low(e), high(a), high(b), high(c), high(e)];
                for t in 0..T {
                    let isum = dot32(0, &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                    acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(*x[t].t.add(group)), acc[t]);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q8_0 {
    //! Q8_0: d q, stored as q + 128. Bytes of a step of 64 columns: scales 2 x 32, codes 2 x 512.
    use super::*;

    const STEP: usize = 64 + 1024;

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 32));
                let codes = vectors::<8>(step.add(64 + group % 2 * 512));
                for t in 0..T {
                    let isum = dot32(*x[t].neg128.add(group), &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q4_k {
    //! Q4_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 32, dmin 32, sc 8 x 16, mn 8 x 16, codes 32 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 2048;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2, 1]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                let (d, dmin) = (halves(at), halves(at.add(32)));
                for sub in 0..8 {
                    let bytes = |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())));
                    // Both products are exact: eleven bits times six.
                    let scale = _mm512_mul_ps(d, bytes(at.add(64 + 16 * sub)));
                    let min = _mm512_mul_ps(dmin, bytes(at.add(192 + 16 * sub)));
                    let mut codes = vectors::<8>(at.add(320 + sub / 2 * 512));
                    for code in &mut codes {
                        *code = if sub % 2 == 0 { low(*code) } else { high(*code) };
                    }
                    let group = 8 * step + sub;
                    for t in 0..T {
                        let isum = dot32(0, &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), isum);
                        acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q6_k {
    //! Q6_K: d sc (q - 32), per 16. Bytes of a step of 256 columns: d 32, pad 32, sc 16 x 16, then for both halves
    //! together ql 32 x 64, qh 16 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 3072;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2, 1]);

    /// The 32 columns of quarter `quarter` of a half of 128 columns.
    ///
    /// # Safety
    /// `low_at` and `high_at` point at the 16 and 8 vectors of the half.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn unpack(low_at: *const u8, high_at: *const u8, quarter: usize) -> [__m512i; 8] {
        // SAFETY: promised by the caller.
        let (mut codes, bits) = unsafe { (vectors::<8>(low_at.add(quarter % 2 * 512)), vectors::<8>(high_at)) };
        let mask = _mm512_set1_epi8(0x30);
        for (code, &bits) in codes.iter_mut().zip(&bits) {
            let nibble = if quarter < 2 { low(*code) } else { high(*code) };
            let bits = match quarter {
                0 => _mm512_slli_epi16::<4>(bits),
                1 => _mm512_slli_epi16::<2>(bits),
                2 => bits,
                _ => _mm512_srli_epi16::<2>(bits),
            };
            *code = _mm512_or_si512(nibble, _mm512_and_si512(bits, mask));
        }
        codes
    }

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize>(tiles: *const u8, steps: usize, x: [QuantPtr; T]) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                let d = halves(at);
                // The quarter is a constant in each pass of the unrolled loop, so its shifts are too.
                for half in 0..2 {
                    for quarter in 0..4 {
                        let codes = unpack(at.add(320 + half * 1024), at.add(320 + 2048 + half * 512), quarter);
                        let group = 8 * step + 4 * half + quarter;
                        let sub = 8 * half + 2 * quarter;
                        let bytes = |sub: usize| {
                            let sc = _mm_loadu_si128(at.add(64 + 16 * sub).cast());
                            _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sc)))
                        };
                        let scale = [bytes(sub), bytes(sub + 1)];
                        for t in 0..T {
                            let q = x[t].q.add(32 * group);
                            for (i, scale) in scale.into_iter().enumerate() {
                                let mut sum = _mm512_set1_epi32(*x[t].neg32.add(2 * group + i));
                                for v in 4 * i..4 * i + 4 {
                                    sum = dot4(sum, codes[v], q.add(4 * v));
                                }
                                acc[t] = scaled(acc[t], scale, *x[t].s.add(group), _mm512_cvtepi32_ps(sum));
                            }
                        }
                    }
                }
            }
        }
        super::floats(acc)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn floats<const T: usize>(acc: [__m512; T]) -> [[f32; 16]; T] {
    let mut out = [[0.0; 16]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` has sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}
