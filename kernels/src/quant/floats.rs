//! Unblocked types: F32, F16, BF16, little-endian.

use half::{bf16, f16};

use super::f16_at;

#[inline(always)]
pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(4).zip(out) {
        *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

#[inline(always)]
pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(2).zip(out) {
        *o = f16_at(b, 0);
    }
}

#[inline(always)]
pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(2).zip(out) {
        *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

pub(super) fn encode_f32(x: &[f32], bytes: &mut [u8]) {
    for (b, x) in bytes.chunks_exact_mut(4).zip(x) {
        b.copy_from_slice(&x.to_le_bytes());
    }
}

pub(super) fn encode_f16(x: &[f32], bytes: &mut [u8]) {
    for (b, x) in bytes.chunks_exact_mut(2).zip(x) {
        b.copy_from_slice(&f16::from_f32(*x).to_le_bytes());
    }
}

pub(super) fn encode_bf16(x: &[f32], bytes: &mut [u8]) {
    for (b, x) in bytes.chunks_exact_mut(2).zip(x) {
        b.copy_from_slice(&bf16::from_f32(*x).to_le_bytes());
    }
}
