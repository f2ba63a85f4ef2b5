//! Ternary blocks of 256 weights, w = d (q - 1) with q of 0, 1, 2: TQ1_0 in base 3, TQ2_0 in two bits.
//!
//! ```text
//! TQ1_0  54 bytes  qs[48], qh[4], d f16    five weights a byte, weight n of byte m of a group at n * group + m
//! TQ2_0  66 bytes  qs[64], d f16           byte m of each 32-byte half holds weights m, m+32, m+64, m+96 of 128
//! ```

use super::{f16_at, put_f16};

const SUPER: usize = 256;
/// Groups of TQ1_0 bytes: first byte, byte count, weights in a byte.
const TQ1_GROUPS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];
const POW3: [u8; 5] = [1, 3, 9, 27, 81];

#[inline(always)]
pub(super) fn decode_tq1_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(54).zip(out.chunks_exact_mut(SUPER)) {
        let d = f16_at(b, 52);
        let mut at = 0;
        for (first, count, digits) in TQ1_GROUPS {
            for &power in &POW3[..digits] {
                for &q in &b[first..first + count] {
                    // A byte is the fraction 0.abcde in base 3, times 256: the wrapping product shifts digits out.
                    let digit = (u16::from(q.wrapping_mul(power)) * 3) >> 8;
                    o[at] = d * (f32::from(digit) - 1.0);
                    at += 1;
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(66).zip(out.chunks_exact_mut(SUPER)) {
        let d = f16_at(b, 64);
        for (half, o) in o.chunks_exact_mut(128).enumerate() {
            for (plane, o) in o.chunks_exact_mut(32).enumerate() {
                for (o, &q) in o.iter_mut().zip(&b[half * 32..][..32]) {
                    *o = d * (f32::from(q >> (2 * plane) & 3) - 1.0);
                }
            }
        }
    }
}

/// The first block that holds the undefined code 3.
pub(super) fn first_illegal_tq2_0(bytes: &[u8]) -> Option<usize> {
    // Code 3 has both bits set: each pair of bits is and-ed with its neighbour.
    bytes.chunks_exact(66).position(|b| b[..64].iter().fold(0u8, |seen, &q| seen | (q & (q >> 1) & 0x55)) != 0)
}

/// The largest magnitude, and a rounding to codes 0, 1, 2 by it.
fn ternary(x: &[f32]) -> (f32, impl Fn(f32) -> u8 + use<>) {
    let d = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let id = if d == 0.0 { 0.0 } else { 1.0 / d };
    (d, move |v: f32| ((v * id).round() + 1.0) as u8)
}

pub(super) fn encode_tq1_0(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(SUPER).zip(bytes.chunks_exact_mut(54)) {
        let (d, code) = ternary(x);
        put_f16(b, 52, d);
        let mut start = 0;
        for (first, count, digits) in TQ1_GROUPS {
            for m in 0..count {
                let mut q = 0u16;
                for n in 0..5 {
                    let digit = if n < digits { code(x[start + n * count + m]) } else { 0 };
                    q = q * 3 + u16::from(digit);
                }
                // Rounded up, so that the truncating decoder finds every digit again.
                b[first + m] = (u32::from(q) * 256).div_ceil(243) as u8;
            }
            start += count * digits;
        }
    }
}

pub(super) fn encode_tq2_0(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(SUPER).zip(bytes.chunks_exact_mut(66)) {
        let (d, code) = ternary(x);
        put_f16(b, 64, d);
        for (half, x) in x.chunks_exact(128).enumerate() {
            for m in 0..32 {
                b[half * 32 + m] = code(x[m]) | code(x[m + 32]) << 2 | code(x[m + 64]) << 4 | code(x[m + 96]) << 6;
            }
        }
    }
}
