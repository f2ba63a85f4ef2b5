//! gemv / unsigned@vnni for super-blocks: Q4_K, Q5_K, Q6_K. See the parent for the idea.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use super::*;

pub(in crate::gemv) mod q4_k {
    //! Q4_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 32, dmin 32, sc 8 x 16, mn 8 x 16, codes 32 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 2048;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
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
                        let isum = dot::<8, ACC>(0, &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), isum);
                        acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        floats(acc)
    }
}

pub(in crate::gemv) mod q5_k {
    //! Q5_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 32, dmin 32, sc 8 x 16, mn 8 x 16, fifth bits 8 x 64,
    //! codes 32 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 512 + 2048;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let (d, dmin) = (halves(at), halves(at.add(32)));
                for sub in 0..8 {
                    let bytes = |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())));
                    // Both products are exact: eleven bits times six.
                    let scale = _mm512_mul_ps(d, bytes(at.add(64 + 16 * sub)));
                    let min = _mm512_mul_ps(dmin, bytes(at.add(192 + 16 * sub)));
                    let mut codes = vectors::<8>(at.add(320 + 512 + sub / 2 * 512));
                    let bits = vectors::<8>(at.add(320));
                    // The bit of sub-block `sub` goes to position 4. A shift that depends on the loop is one instruction too.
                    let (left, right) =
                        (_mm_cvtsi32_si128(4 - sub.min(4) as i32), _mm_cvtsi32_si128(sub.max(4) as i32 - 4));
                    for (code, &bits) in codes.iter_mut().zip(&bits) {
                        let nibble = if sub % 2 == 0 { low(*code) } else { high(*code) };
                        *code = fifth(nibble, _mm512_srl_epi16(_mm512_sll_epi16(bits, left), right));
                    }
                    let group = 8 * step + sub;
                    for t in 0..T {
                        let isum = dot::<8, ACC>(0, &codes, x[t].q.add(32 * group));
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), isum);
                        acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        floats(acc)
    }
}

pub(in crate::gemv) mod q6_k {
    //! Q6_K: d sc (q - 32), per 16. Bytes of a step of 256 columns: d 32, pad 32, sc 16 x 16, then for both halves
    //! together ql 32 x 64, qh 16 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 3072;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);

    /// Columns `4 v` to `4 v + 3` of quarter `QUARTER` of a half of 128 columns. The quarter is a constant, so that its
    /// shifts are.
    ///
    /// # Safety
    /// `low_at` and `high_at` point at the 16 and 8 vectors of the half.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn unpack<const QUARTER: usize>(low_at: *const u8, high_at: *const u8, v: usize) -> __m512i {
        // SAFETY: promised by the caller.
        let (both, bits) = unsafe {
            (
                _mm512_loadu_si512(low_at.add(QUARTER % 2 * 512 + 64 * v).cast()),
                _mm512_loadu_si512(high_at.add(64 * v).cast()),
            )
        };
        let nibble = if QUARTER < 2 { low(both) } else { high(both) };
        let bits = match QUARTER {
            0 => _mm512_slli_epi16::<4>(bits),
            1 => _mm512_slli_epi16::<2>(bits),
            2 => bits,
            _ => _mm512_srli_epi16::<2>(bits),
        };
        // nibble | (bits & 0x30) in one instruction.
        _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(0x30))
    }

    /// Adds the product of one quarter of 32 columns, whose scales are at `sc`, with each token.
    ///
    /// # Safety
    /// As [`unpack`]; `sc` points at two times 16 scales, and each of `x` has `group` groups of activations and one more.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn quarter<const QUARTER: usize, const T: usize, const ACC: usize>(
        acc: &mut [__m512; T],
        (d, sc): (__m512, *const u8),
        (low_at, high_at): (*const u8, *const u8),
        x: &[QuantPtr; T],
        group: usize,
    ) {
        for i in 0..2 {
            // SAFETY: promised by the caller.
            unsafe {
                let scales = _mm512_cvtepi8_epi32(_mm_loadu_si128(sc.add(16 * i).cast()));
                let scale = _mm512_mul_ps(d, _mm512_cvtepi32_ps(scales));
                let codes = [
                    unpack::<QUARTER>(low_at, high_at, 4 * i),
                    unpack::<QUARTER>(low_at, high_at, 4 * i + 1),
                    unpack::<QUARTER>(low_at, high_at, 4 * i + 2),
                    unpack::<QUARTER>(low_at, high_at, 4 * i + 3),
                ];
                for t in 0..T {
                    let from = *x[t].neg32.add(2 * group + i);
                    let isum = dot::<4, ACC>(from, &codes, x[t].q.add(32 * group + 16 * i));
                    acc[t] = scaled(acc[t], scale, *x[t].s.add(group), isum);
                }
            }
        }
    }

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 16]; T] {
        let mut acc = [_mm512_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                let d = halves(at);
                for half in 0..2 {
                    prefetch::<PREFETCH, { STEP / 2 }>(at.wrapping_add(half * (STEP / 2)));
                    let codes = (at.add(320 + half * 1024), at.add(320 + 2048 + half * 512));
                    let sc = at.add(64 + 128 * half);
                    let group = 8 * step + 4 * half;
                    quarter::<0, T, ACC>(&mut acc, (d, sc), codes, &x, group);
                    quarter::<1, T, ACC>(&mut acc, (d, sc.add(32)), codes, &x, group + 1);
                    quarter::<2, T, ACC>(&mut acc, (d, sc.add(64)), codes, &x, group + 2);
                    quarter::<3, T, ACC>(&mut acc, (d, sc.add(96)), codes, &x, group + 3);
                }
            }
        }
        floats(acc)
    }
}
