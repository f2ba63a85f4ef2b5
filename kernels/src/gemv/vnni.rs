//! gemv / unsigned@vnni: y = W · x with int8 activations on AVX-512 VNNI, one kernel a type.
//!
//!   W  tiles of 16 rows (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 16]
//!
//! A vector holds four columns of sixteen rows, so a broadcast of four activations meets all rows at once and no sum
//! across lanes is needed. Codes of 32 columns are unpacked once into eight registers and meet up to eight tokens.
//! `paired@vnni` is the same code, but for one token alone, where it multiplies two units at a time.
//! The integer part is exact: offsets in the codes go into the accumulators through the sums of the activations.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::prefetch;
use crate::cpu::act::QuantPtr;

/// Defines what `tiled_unit` calls, and `pair` and `pick_pair`: one token's product with two units at once, a step of either
/// in turn. The processor's prefetchers run ahead of two streams further than of one, where each step takes some work,
/// and the activations are read once: decoding a 1.5B model in Q4_0 with a head in Q6_K takes a seventh less time.
macro_rules! two_streams {
    ($columns:literal) => {
        /// # Safety
        /// As [`streams`].
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        #[inline]
        unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
            tiles: *const u8,
            steps: usize,
            x: [QuantPtr; T],
        ) -> [[f32; 16]; T] {
            // SAFETY: promised by the caller.
            let [sums] = unsafe { streams::<1, T, PREFETCH, ACC>([tiles], steps, x) };
            sums
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn pair<const PREFETCH: usize, const ACC: usize>(
            unit: &$crate::gemv::Unit<'_>,
            second: &[u8],
            panel: &mut [f32],
        ) {
            let steps = unit.k.div_ceil($columns);
            let size = steps * STEP;
            assert!(unit.bytes.len() == size && second.len() == size, "units are runs of tiles, of one length");
            let x = [unit.act.quant_row(unit.tokens.0)];
            // SAFETY: either has `steps` steps, and the row of activations is padded to whole steps.
            let sums = unsafe { streams::<2, 1, PREFETCH, ACC>([unit.bytes.as_ptr(), second.as_ptr()], steps, x) };
            panel[..2 * $crate::gemv::GROUP_ROWS].copy_from_slice(sums.as_flattened().as_flattened());
        }

        /// The kernel of two units for these tunables, if it was compiled for them.
        pub(in crate::gemv) fn pick_pair(knobs: $crate::gemv::Knobs) -> Option<$crate::gemv::PairFn> {
            match (knobs.prefetch, knobs.acc) {
                (0, 1) => Some(pair::<0, 1>),
                (4096, 1) => Some(pair::<4096, 1>),
                (8192, 1) => Some(pair::<8192, 1>),
                (0, 2) => Some(pair::<0, 2>),
                (4096, 2) => Some(pair::<4096, 2>),
                (8192, 2) => Some(pair::<8192, 2>),
                _ => None,
            }
        }
    };
}

// Below the macro, which is only in scope from there on.
pub(super) mod k_quants;
pub(super) mod ternary;

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

/// A nibble with the bit at position 4 of each byte of `bits`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn fifth(nibble: __m512i, bits: __m512i) -> __m512i {
    _mm512_or_si512(nibble, _mm512_and_si512(bits, _mm512_set1_epi8(16)))
}

/// The integer dot of `4 N` columns with one token, `from + Σ codes · x`, in `ACC` chains of additions.
///
/// # Safety
/// `x` points at `4 N` activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn dot<const N: usize, const ACC: usize>(from: i32, codes: &[__m512i; N], x: *const i8) -> __m512 {
    let mut sums = [_mm512_setzero_si512(); ACC];
    sums[0] = _mm512_set1_epi32(from);
    for v in 0..N {
        // SAFETY: 4 * v + 4 <= 4 * N.
        sums[v % ACC] = unsafe { dot4(sums[v % ACC], codes[v], x.add(4 * v)) };
    }
    let mut sum = sums[0];
    for more in &sums[1..] {
        sum = _mm512_add_epi32(sum, *more);
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

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(64);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for group in 0..2 * steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
                unsafe {
                    let step = tiles.add(group / 2 * STEP);
                    prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                    let d = halves(step.add(group % 2 * 32));
                    let [a, b, c, e] = vectors::<4>(step.add(64 + group % 2 * 256));
                    let codes = [low(a), low(b), low(c), low(e), high(a), high(b), high(c), high(e)];
                    for t in 0..T {
                        let isum = dot::<8, ACC>(*x[t].neg8.add(group), &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                    }
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

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(64);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for group in 0..2 * steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales, minima and codes of both its groups, and rows hold every group.
                unsafe {
                    let step = tiles.add(group / 2 * STEP);
                    prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                    let d = halves(step.add(group % 2 * 32));
                    let m = halves(step.add(64 + group % 2 * 32));
                    let [a, b, c, e] = vectors::<4>(step.add(128 + group % 2 * 256));
                    let codes = [low(a), low(b), low(c), low(e), high(a), high(b), high(c), high(e)];
                    for t in 0..T {
                        let isum = dot::<8, ACC>(0, &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                        acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        super::floats(acc)
    }
}

pub(super) mod q5_0 {
    //! Q5_0: d (q - 16). Bytes of a step of 64 columns: scales 2 x 32, then twice fifth bits 64, codes 256.
    use super::*;

    const STEP: usize = 64 + 640;

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(64);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for group in 0..2 * steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales, bits and codes of both its groups, and rows hold every group.
                unsafe {
                    let step = tiles.add(group / 2 * STEP);
                    prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                    let d = halves(step.add(group % 2 * 32));
                    let at = step.add(64 + group % 2 * 320);
                    let ([bits], [a, b, c, e]) = (vectors::<1>(at), vectors::<4>(at.add(64)));
                    let codes = [
                        fifth(low(a), _mm512_slli_epi16::<4>(bits)),
                        fifth(low(b), _mm512_slli_epi16::<3>(bits)),
                        fifth(low(c), _mm512_slli_epi16::<2>(bits)),
                        fifth(low(e), _mm512_slli_epi16::<1>(bits)),
                        fifth(high(a), bits),
                        fifth(high(b), _mm512_srli_epi16::<1>(bits)),
                        fifth(high(c), _mm512_srli_epi16::<2>(bits)),
                        fifth(high(e), _mm512_srli_epi16::<3>(bits)),
                    ];
                    for t in 0..T {
                        let isum = dot::<8, ACC>(2 * *x[t].neg8.add(group), &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                    }
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

    tiled_unit!(16, 64, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(64);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for group in 0..2 * steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
                unsafe {
                    let step = tiles.add(group / 2 * STEP);
                    prefetch::<PREFETCH, { STEP / 2 }>(step.add(group % 2 * STEP / 2));
                    let d = halves(step.add(group % 2 * 32));
                    let codes = vectors::<8>(step.add(64 + group % 2 * 512));
                    for t in 0..T {
                        let isum = dot::<8, ACC>(*x[t].neg128.add(group), &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                    }
                }
            }
        }
        super::floats(acc)
    }
}

/// What a store writes: sixteen rows for each token of each stream.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn floats<const S: usize, const T: usize>(acc: [[__m512; T]; S]) -> [[[f32; 16]; T]; S] {
    let mut out = [[[0.0; 16]; T]; S];
    for (out, acc) in out.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
        // SAFETY: `out` has sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
    }
    out
}
