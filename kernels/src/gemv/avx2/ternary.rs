//! gemv / unsigned@avx2 for ternary weights: TQ2_0, d (q - 1) with codes 0, 1, 2.
//!
//! A byte holds one column of each of four planes 32 columns apart, so each plane is a group of activations by itself.
//! A pair of products reaches 2 · 127 · 2 = 508, and the eight of a group are summed in 16 bits: 4,064. Bytes of a step
//! of 256 columns: d 16, pad 16, codes 16 x 32. The offset of 1 is an eighth of the sum that Q4_0 uses.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

pub(in crate::gemv) mod tq2_0 {
    //! The kernel of the one ternary type that is tiled.
    use super::super::*;

    const STEP: usize = 32 + 512;

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
        let three = _mm256_set1_epi8(3);
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let d = halves(at);
                for half in 0..2 {
                    for plane in 0..4 {
                        let group = 8 * step + 4 * half + plane;
                        let mut sums = [[_mm256_setzero_si256(); ACC]; T];
                        for v in 0..8 {
                            let bytes = vector(at.add(32 + half * 256), v);
                            let shifted = match plane {
                                0 => bytes,
                                1 => _mm256_srli_epi16::<2>(bytes),
                                2 => _mm256_srli_epi16::<4>(bytes),
                                _ => _mm256_srli_epi16::<6>(bytes),
                            };
                            let codes = _mm256_and_si256(shifted, three);
                            for t in 0..T {
                                let pairs = _mm256_maddubs_epi16(codes, four(x[t].q.add(32 * group + 4 * v)));
                                sums[t][v % ACC] = _mm256_add_epi16(sums[t][v % ACC], pairs);
                            }
                        }
                        for t in 0..T {
                            // Exact: the sum was multiplied by -8.
                            let from = _mm256_set1_epi32(*x[t].neg8.add(group) / 8);
                            let isum = _mm256_add_epi32(widen(joined16(sums[t])), from);
                            acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                        }
                    }
                }
            }
        }
        floats(acc)
    }
}
