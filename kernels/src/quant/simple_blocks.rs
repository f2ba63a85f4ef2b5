//! Blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q8_0.
//!
//! ```text
//! Q4_0  18 bytes  d f16, qs[16]             w = d (q - 8)     qs[i] low nibble -> w[i], high -> w[i + 16] (GB1)
//! Q4_1  20 bytes  d f16, m f16, qs[16]      w = d q + m
//! Q5_0  22 bytes  d f16, qh u32, qs[16]     w = d (q - 16)    bit i of qh is the fifth bit of w[i]
//! Q8_0  34 bytes  d f16, qs[32] signed      w = d q
//! ```

use super::{f16_at, put_f16};

const BLOCK: usize = 32;

#[inline(always)]
pub(super) fn decode_q4_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(18).zip(out.chunks_exact_mut(BLOCK)) {
        let d = f16_at(b, 0);
        let (low, high) = o.split_at_mut(16);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(&b[2..]) {
            *low = d * (i32::from(q & 15) - 8) as f32;
            *high = d * (i32::from(q >> 4) - 8) as f32;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q4_1(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(20).zip(out.chunks_exact_mut(BLOCK)) {
        let (d, m) = (f16_at(b, 0), f16_at(b, 2));
        let (low, high) = o.split_at_mut(16);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(&b[4..]) {
            *low = d * f32::from(q & 15) + m;
            *high = d * f32::from(q >> 4) + m;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q5_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(22).zip(out.chunks_exact_mut(BLOCK)) {
        let d = f16_at(b, 0);
        let qh = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
        let (low, high) = o.split_at_mut(16);
        for (((low, high), &q), j) in low.iter_mut().zip(high).zip(&b[6..]).zip(0..) {
            *low = d * ((u32::from(q & 15) | (qh >> j & 1) << 4) as i32 - 16) as f32;
            *high = d * ((u32::from(q >> 4) | (qh >> (j + 16) & 1) << 4) as i32 - 16) as f32;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q8_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(34).zip(out.chunks_exact_mut(BLOCK)) {
        let d = f16_at(b, 0);
        for (o, &q) in o.iter_mut().zip(&b[2..]) {
            *o = d * f32::from(q as i8);
        }
    }
}

/// The value of the largest magnitude, with its sign: it becomes the most negative code, as in ggml.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |best, &v| if v.abs() > best.abs() { v } else { best })
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

pub(super) fn encode_q4_0(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(BLOCK).zip(bytes.chunks_exact_mut(18)) {
        let d = extreme(x) / -8.0;
        let id = inverse(d);
        put_f16(b, 0, d);
        let code = |v: f32| ((v * id + 8.5) as u8).min(15);
        for j in 0..16 {
            b[2 + j] = code(x[j]) | code(x[j + 16]) << 4;
        }
    }
}

pub(super) fn encode_q4_1(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(BLOCK).zip(bytes.chunks_exact_mut(20)) {
        let min = x.iter().copied().fold(f32::INFINITY, f32::min);
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / 15.0;
        let id = inverse(d);
        put_f16(b, 0, d);
        put_f16(b, 2, min);
        let code = |v: f32| (((v - min) * id + 0.5) as u8).min(15);
        for j in 0..16 {
            b[4 + j] = code(x[j]) | code(x[j + 16]) << 4;
        }
    }
}

pub(super) fn encode_q5_0(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(BLOCK).zip(bytes.chunks_exact_mut(22)) {
        let d = extreme(x) / -16.0;
        let id = inverse(d);
        put_f16(b, 0, d);
        let code = |v: f32| ((v * id + 16.5) as u8).min(31);
        let mut qh = 0u32;
        for j in 0..16 {
            let (low, high) = (code(x[j]), code(x[j + 16]));
            b[6 + j] = (low & 15) | (high & 15) << 4;
            qh |= u32::from(low >> 4) << j | u32::from(high >> 4) << (j + 16);
        }
        b[2..6].copy_from_slice(&qh.to_le_bytes());
    }
}

pub(super) fn encode_q8_0(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(BLOCK).zip(bytes.chunks_exact_mut(34)) {
        let d = extreme(x).abs() / 127.0;
        let id = inverse(d);
        put_f16(b, 0, d);
        for (q, &v) in b[2..].iter_mut().zip(x) {
            *q = (v * id).round() as i8 as u8;
        }
    }
}
