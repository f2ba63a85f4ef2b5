//! gemv / unsigned@vnni for ternary weights: TQ2_0, d (q - 1) with codes 0, 1, 2.
//!
//! A byte holds one column of each of four planes 32 columns apart, so each plane is a group of activations by itself.
//! Bytes of a step of 256 columns: d 32, pad 32, codes 16 x 64. The offset of 1 is an eighth of the sum that Q4_0 uses.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

pub(in crate::gemv) mod tq2_0 {
    //! The kernel of the one ternary type that is tiled.
    use super::super::*;

    const STEP: usize = 64 + 1024;

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
        let three = _mm512_set1_epi8(3);
        for step in 0..steps {
            // SAFETY: the step holds the scales and codes of its eight groups, and rows hold every group.
            unsafe {
                let at = tiles.add(step * STEP);
                prefetch::<PREFETCH, STEP>(at);
                let d = halves(at);
                for half in 0..2 {
                    let bytes = vectors::<8>(at.add(64 + half * 512));
                    for plane in 0..4 {
                        let codes = bytes.map(|v| {
                            let shifted = match plane {
                                0 => v,
                                1 => _mm512_srli_epi16::<2>(v),
                                2 => _mm512_srli_epi16::<4>(v),
                                _ => _mm512_srli_epi16::<6>(v),
                            };
                            _mm512_and_si512(shifted, three)
                        });
                        let group = 8 * step + 4 * half + plane;
                        for t in 0..T {
                            // Exact: the sum was multiplied by -8.
                            let isum = dot::<8, ACC>(*x[t].neg8.add(group) / 8, &codes, x[t].q.add(32 * group));
                            acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                        }
                    }
                }
            }
        }
        let [sums] = floats([acc]);
        sums
    }
}
