//! gemv / dot@dotprod: y = W · x with int8 activations on ARMv8.2 with the dot product extension.
//!
//!   W  tiles of 4 rows (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 4]
//!
//! A vector holds four columns of four rows, and `sdot` multiplies it with four activations for all rows: one lane of a
//! vector of sixteen. Nibbles are positive as signed bytes too, so the offset of 8 goes into the accumulator through the
//! sum of the activations, and int8 codes need none. The integer part is exact.
//!
//! `sdot` is written as inline assembly, as the intrinsic is not stable yet.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::*;
use std::arch::asm;

use crate::cpu::act::QuantPtr;

/// `acc += codes · x[4 LANE..4 LANE + 4]` in each group of four bytes (Arm ARM C7.2.287, SDOT by element).
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: usize>(mut acc: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes registers alone, and the feature is enabled here.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {codes:v}.16b, {x:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            codes = in(vreg) codes,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Four f16 as floats.
///
/// # Safety
/// `at` points at 8 bytes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn halves(at: *const u8) -> float32x4_t {
    let mut out: float32x4_t;
    // SAFETY: promised by the caller; `fcvtl` is part of every ARMv8 vector unit.
    unsafe {
        let bits = vld1_u16(at.cast());
        asm!(
            "fcvtl {out:v}.4s, {bits:v}.4h",
            out = out(vreg) out,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// The integer dots of 32 columns with one token: `from + Σ codes · x`.
///
/// # Safety
/// `q` points at 32 activations.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn dot32(from: i32, codes: &[int8x16_t; 8], q: *const i8) -> float32x4_t {
    // SAFETY: promised by the caller.
    let (low, high) = unsafe { (vld1q_s8(q), vld1q_s8(q.add(16))) };
    let mut sum = vdupq_n_s32(from);
    sum = sdot::<0>(sum, codes[0], low);
    sum = sdot::<1>(sum, codes[1], low);
    sum = sdot::<2>(sum, codes[2], low);
    sum = sdot::<3>(sum, codes[3], low);
    sum = sdot::<0>(sum, codes[4], high);
    sum = sdot::<1>(sum, codes[5], high);
    sum = sdot::<2>(sum, codes[6], high);
    sum = sdot::<3>(sum, codes[7], high);
    vcvtq_f32_s32(sum)
}

/// The eight vectors of codes of a group of nibbles: the low ones, then the high ones.
///
/// # Safety
/// `at` points at 64 bytes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn unpack(at: *const u8) -> [int8x16_t; 8] {
    let mut codes = [vdupq_n_s8(0); 8];
    for v in 0..4 {
        // SAFETY: 16 * v + 16 <= 64.
        let both = unsafe { vld1q_u8(at.add(16 * v)) };
        codes[v] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        codes[4 + v] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(both));
    }
    codes
}

/// `acc + d s isum`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn scaled(acc: float32x4_t, d: float32x4_t, s: f32, isum: float32x4_t) -> float32x4_t {
    vfmaq_f32(acc, vmulq_n_f32(d, s), isum)
}

#[target_feature(enable = "neon,dotprod")]
#[inline]
fn floats<const T: usize>(acc: [float32x4_t; T]) -> [[f32; 4]; T] {
    let mut out = [[0.0; 4]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` has four floats.
        unsafe { vst1q_f32(out.as_mut_ptr(), acc) };
    }
    out
}

pub(super) mod q4_0 {
    //! Q4_0: d (q - 8). Bytes of a step of 64 columns: scales 2 x 8, codes 2 x 64.
    use super::*;

    const STEP: usize = 16 + 128;

    tiled_unit!(4, 64, STEP, "neon,dotprod", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 4]; T] {
        let mut acc = [vdupq_n_f32(0.0); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 8));
                let codes = unpack(step.add(16 + group % 2 * 64));
                for t in 0..T {
                    let isum = dot32(*x[t].neg8.add(group), &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        floats(acc)
    }
}

pub(super) mod q4_1 {
    //! Q4_1: d q + m. Bytes of a step of 64 columns: scales 2 x 8, minima 2 x 8, codes 2 x 64.
    use super::*;

    const STEP: usize = 32 + 128;

    tiled_unit!(4, 64, STEP, "neon,dotprod", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 4]; T] {
        let mut acc = [vdupq_n_f32(0.0); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales, minima and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 8));
                let m = halves(step.add(16 + group % 2 * 8));
                let codes = unpack(step.add(32 + group % 2 * 64));
                for t in 0..T {
                    let isum = dot32(0, &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                    acc[t] = vfmaq_n_f32(acc[t], m, *x[t].t.add(group));
                }
            }
        }
        floats(acc)
    }
}

pub(super) mod q8_0 {
    //! Q8_0: d q, codes as in the file. Bytes of a step of 64 columns: scales 2 x 8, codes 2 x 128.
    use super::*;

    const STEP: usize = 16 + 256;

    tiled_unit!(4, 64, STEP, "neon,dotprod", [4, 2]);

    /// # Safety
    /// `tiles` points at `steps` steps and each of `x` at a row of `64 * steps` activations.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tokens<const T: usize, const PREFETCH: usize, const ACC: usize>(
        tiles: *const u8,
        steps: usize,
        x: [QuantPtr; T],
    ) -> [[f32; 4]; T] {
        let mut acc = [vdupq_n_f32(0.0); T];
        for group in 0..2 * steps {
            // SAFETY: the step holds the scales and codes of both its groups, and rows hold every group.
            unsafe {
                let step = tiles.add(group / 2 * STEP);
                let d = halves(step.add(group % 2 * 8));
                let mut codes = [vdupq_n_s8(0); 8];
                for v in 0..8 {
                    codes[v] = vld1q_s8(step.add(16 + group % 2 * 128 + 16 * v).cast());
                }
                for t in 0..T {
                    let isum = dot32(0, &codes, x[t].q.add(32 * group));
                    acc[t] = scaled(acc[t], d, *x[t].s.add(group), isum);
                }
            }
        }
        floats(acc)
    }
}
