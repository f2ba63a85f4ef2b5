//! gemv / unsigned@avx2 for super-blocks: Q4_K, Q5_K, Q6_K. See the parent for the idea.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use super::*;

pub(in crate::gemv) mod q4_k {
    //! Q4_K: d sc q - dmin mn. Bytes of a step of 256 columns: d 16, dmin 16, sc 8 x 8, mn 8 x 8, codes 32 x 32.
    use super::*;

    const STEP: usize = 32 + 128 + 1024;

    tiled_unit!(8, 256, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let (d, dmin) = (halves(at), halves(at.add(16)));
                for sub in 0..8 {
                    let bytes = |at: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())));
                    // Both products are exact: eleven bits times six.
                    let scale = _mm256_mul_ps(d, bytes(at.add(32 + 8 * sub)));
                    let min = _mm256_mul_ps(dmin, bytes(at.add(96 + 8 * sub)));
                    let group = 8 * step + sub;
                    let mut sums = [[_mm256_setzero_si256(); ACC]; T];
                    for v in 0..8 {
                        let both = vector(at.add(160 + sub / 2 * 256), v);
                        let codes = if sub % 2 == 0 { low(both) } else { high(both) };
                        for t in 0..T {
                            // Eight products of at most 15 * 127 * 2 make 30,480.
                            let x = four(x[t].q.add(32 * group + 4 * v));
                            sums[t][v % ACC] = _mm256_add_epi16(sums[t][v % ACC], _mm256_maddubs_epi16(codes, x));
                        }
                    }
                    for t in 0..T {
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), widen(joined16(sums[t])));
                        acc[t] = _mm256_fnmadd_ps(min, _mm256_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        floats(acc)
    }
}

pub(in crate::gemv) mod q5_k {
    //! Q5_K: d sc q - dmin mn. A pair of products reaches 31 · 127 · 2 = 7,874, so four may be summed before widening.
    //! Bytes of a step of 256 columns: d 16, dmin 16, sc 8 x 8, mn 8 x 8, fifth bits 8 x 32, codes 32 x 32.
    use super::*;

    const STEP: usize = 32 + 128 + 256 + 1024;

    tiled_unit!(8, 256, STEP, "avx2,fma,f16c", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `256 * steps` activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales, minima and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let (d, dmin) = (halves(at), halves(at.add(16)));
                for sub in 0..8 {
                    let bytes = |at: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())));
                    // Both products are exact: eleven bits times six.
                    let scale = _mm256_mul_ps(d, bytes(at.add(32 + 8 * sub)));
                    let min = _mm256_mul_ps(dmin, bytes(at.add(96 + 8 * sub)));
                    let group = 8 * step + sub;
                    // The bit of sub-block `sub` goes to position 4. A shift that depends on the loop is one instruction too.
                    let (left, right) =
                        (_mm_cvtsi32_si128(4 - sub.min(4) as i32), _mm_cvtsi32_si128(sub.max(4) as i32 - 4));
                    let mut sums = [[_mm256_setzero_si256(); 2]; T];
                    for v in 0..8 {
                        let both = vector(at.add(160 + 256 + sub / 2 * 256), v);
                        let nibble = if sub % 2 == 0 { low(both) } else { high(both) };
                        let bits = _mm256_srl_epi16(_mm256_sll_epi16(vector(at.add(160), v), left), right);
                        let codes = fifth(nibble, bits);
                        for t in 0..T {
                            let x = four(x[t].q.add(32 * group + 4 * v));
                            sums[t][v / 4] = _mm256_add_epi16(sums[t][v / 4], _mm256_maddubs_epi16(codes, x));
                        }
                    }
                    for t in 0..T {
                        let isum = _mm256_add_epi32(widen(sums[t][0]), widen(sums[t][1]));
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), isum);
                        acc[t] = _mm256_fnmadd_ps(min, _mm256_set1_ps(*x[t].t.add(group)), acc[t]);
                    }
                }
            }
        }
        floats(acc)
    }
}

pub(in crate::gemv) mod q6_k {
    //! Q6_K: d sc (q - 32), per 16. Bytes of a step of 256 columns: d 16, pad 16, then for each half the scales 2 x 32 and
    //! for four columns of each quarter at a time ql 2 x 32, qh 32.
    use super::*;

    /// Bytes of a half.
    const HALF: usize = 64 + 768;
    const STEP: usize = 32 + 2 * HALF;

    tiled_unit!(8, 256, STEP, "avx2,fma,f16c", [4, 2]);

    /// Four columns of quarter `quarter`: vector `v` of its eight.
    ///
    /// # Safety
    /// `at` points at a half of 128 columns.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(at: *const u8, quarter: usize, v: usize) -> __m256i {
        // SAFETY: promised by the caller.
        let (both, bits) = unsafe { (vector(at, 2 + 3 * v + quarter % 2), vector(at, 2 + 3 * v + 2)) };
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
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 8]; T] {
        let mut acc = [_mm256_setzero_ps(); T];
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its sixteen sub-blocks, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let d = halves(at);
                // All quarters of the columns that lie together, then on: so bytes are read in order.
                for (half, i, quarter) in (0..16).map(|n| (n / 8, n / 4 % 2, n % 4)) {
                    let half_at = at.add(32 + HALF * half);
                    // A word has the scales of two quarters, and of either the first 16 columns and the last.
                    let above = _mm_cvtsi32_si128(24 - 16 * (quarter as i32 % 2) - 8 * i as i32);
                    let sc = _mm256_srai_epi32::<24>(_mm256_sll_epi32(vector(half_at, quarter / 2), above));
                    let scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(sc));
                    let group = 8 * step + 4 * half + quarter;
                    let mut sums = [[_mm256_setzero_si256(); ACC]; T];
                    for t in 0..T {
                        sums[t][0] = _mm256_set1_epi32(*x[t].neg32.add(2 * group + i));
                    }
                    for pair in 0..2 {
                        let v = 4 * i + 2 * pair;
                        let codes = [unpack(half_at, quarter, v), unpack(half_at, quarter, v + 1)];
                        for t in 0..T {
                            let q = x[t].q.add(32 * group + 4 * v);
                            // Two products of at most 63 * 127 * 2 make 32,004.
                            let a = _mm256_maddubs_epi16(codes[0], four(q));
                            let b = _mm256_maddubs_epi16(codes[1], four(q.add(4)));
                            let pairs = widen(_mm256_add_epi16(a, b));
                            sums[t][pair % ACC] = _mm256_add_epi32(sums[t][pair % ACC], pairs);
                        }
                    }
                    for t in 0..T {
                        acc[t] = scaled(acc[t], scale, *x[t].s.add(group), joined32(sums[t]));
                    }
                }
            }
        }
        floats(acc)
    }
}
