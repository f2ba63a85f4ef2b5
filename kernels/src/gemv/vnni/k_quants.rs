//! gemv / unsigned@vnni for super-blocks: Q4_K, Q5_K, Q6_K. See the parent for the idea.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use super::*;

pub(in crate::gemv) mod q4_k {
    //! Q4_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 32, dmin 32, sc 8 x 16, mn 8 x 16, codes 32 x 64.
    use super::*;

    const STEP: usize = 64 + 256 + 2048;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(256);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for step in 0..steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
                unsafe {
                    let at = tiles.add(step * STEP);
                    prefetch::<PREFETCH, STEP>(at);
                    let (d, dmin) = (halves(at), halves(at.add(32)));
                    for sub in 0..8 {
                        let bytes =
                            |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())));
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
    two_streams!(256);

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for step in 0..steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
                unsafe {
                    let at = tiles.add(step * STEP);
                    prefetch::<PREFETCH, STEP>(at);
                    let (d, dmin) = (halves(at), halves(at.add(32)));
                    for sub in 0..8 {
                        let bytes =
                            |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())));
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
        }
        floats(acc)
    }
}

pub(in crate::gemv) mod q6_k {
    //! Q6_K: d sc (q - 32), per 16. Bytes of a step of 256 columns: d 32, pad 32, then for each half the scales 2 x 64 and
    //! for four columns of each quarter at a time ql 2 x 64, qh 64.
    use super::*;

    /// Bytes of a half.
    const HALF: usize = 128 + 1536;
    const STEP: usize = 64 + 2 * HALF;

    tiled_unit!(16, 256, STEP, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8, 4, 2]);
    two_streams!(256);

    /// Four columns of each quarter of a half of 128 columns.
    ///
    /// # Safety
    /// `at` points at their three vectors.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn unpack(at: *const u8) -> [__m512i; 4] {
        // SAFETY: promised by the caller.
        let [a, b, bits] = unsafe { vectors::<3>(at) };
        // nibble | (bits & 0x30) in one instruction.
        let join = |nibble, bits| _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(0x30));
        [
            join(low(a), _mm512_slli_epi16::<4>(bits)),
            join(low(b), _mm512_slli_epi16::<2>(bits)),
            join(high(a), bits),
            join(high(b), _mm512_srli_epi16::<2>(bits)),
        ]
    }

    /// The scales of all rows for 16 columns of a quarter: a word has those of two quarters, and of either the first 16
    /// columns and the last.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    fn scale<const QUARTER: usize, const I: usize>(words: &[__m512i; 2]) -> __m512 {
        let word = words[QUARTER / 2];
        let word = match QUARTER % 2 * 2 + I {
            0 => _mm512_slli_epi32::<24>(word),
            1 => _mm512_slli_epi32::<16>(word),
            2 => _mm512_slli_epi32::<8>(word),
            _ => word,
        };
        _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(word))
    }

    /// Adds the products of 16 columns of each quarter of a half: its first ones (`I` = 0) or its last.
    ///
    /// # Safety
    /// `at` points at the twelve vectors of these columns, and each of `x` has the four groups from `group` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn columns<const I: usize, const T: usize, const ACC: usize>(
        acc: &mut [__m512; T],
        d: __m512,
        scales: &[__m512i; 2],
        at: *const u8,
        x: &[QuantPtr; T],
        group: usize,
    ) {
        // SAFETY: promised by the caller.
        let codes: [[__m512i; 4]; 4] = std::array::from_fn(|v| unsafe { unpack(at.add(192 * v)) });
        let scales = [scale::<0, I>(scales), scale::<1, I>(scales), scale::<2, I>(scales), scale::<3, I>(scales)];
        for quarter in 0..4 {
            let scale = _mm512_mul_ps(d, scales[quarter]);
            let codes: [__m512i; 4] = std::array::from_fn(|v| codes[v][quarter]);
            for t in 0..T {
                // SAFETY: promised by the caller.
                unsafe {
                    let from = *x[t].neg32.add(2 * (group + quarter) + I);
                    let isum = dot::<4, ACC>(from, &codes, x[t].q.add(32 * (group + quarter) + 16 * I));
                    acc[t] = scaled(acc[t], scale, *x[t].s.add(group + quarter), isum);
                }
            }
        }
    }

    /// # Safety
    /// Each of `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn streams<const S: usize, const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: [*const u8; S],
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[[f32; 16]; T]; S] {
        let mut acc = [[_mm512_setzero_ps(); T]; S];
        for step in 0..steps {
            for s in 0..S {
                let (tiles, acc) = (tiles[s], &mut acc[s]);
                // SAFETY: the step holds the scales and codes of its eight groups, and rows hold every group.
                unsafe {
                    let at = tiles.add(step * STEP);
                    prefetch::<PREFETCH, STEP>(at);
                    let d = halves(at);
                    for half in 0..2 {
                        let at = at.add(64 + HALF * half);
                        let scales = vectors::<2>(at);
                        columns::<0, T, ACC>(acc, d, &scales, at.add(128), &x, 8 * step + 4 * half);
                        columns::<1, T, ACC>(acc, d, &scales, at.add(128 + 768), &x, 8 * step + 4 * half);
                    }
                }
            }
        }
        floats(acc)
    }
}
