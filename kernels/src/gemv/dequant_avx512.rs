//! gemv / dequant@avx512: y = W · x with float activations, sixteen lanes.
//!
//!   W  any type  [4, K] blocks as in the file       x  f32 [tokens, K]       y  f32 [tokens, 4]
//!
//! Four rows of 256 columns are decoded to floats once and multiplied with every token, four tokens at a time: sixteen
//! accumulators for eight loads. Accumulators wait in memory between chunks as whole vectors, so that each output is
//! summed across lanes once. Needs AVX-512 F, BW, DQ and VL.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use harness_spec::DType;

use super::{CHUNK, GROUP_ROWS, MAX_TOKENS, Unit};
use crate::quant::decode_blocks;

const ROWS: usize = 4;
const TOKENS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn unit(unit: &Unit<'_>, panel: &mut [f32]) {
    // One token needs no room for the sums of 64, which would have to be cleared.
    if unit.tokens.1 == 1 { body::<1>(unit, panel) } else { body::<MAX_TOKENS>(unit, panel) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn body<const ROOM: usize>(unit: &Unit<'_>, panel: &mut [f32]) {
    let row_bytes = unit.bytes.len() / unit.rows;
    let (first, count) = unit.tokens;
    let mut sums = [[_mm512_setzero_ps(); ROWS]; ROOM];
    let mut decoded = [[0.0f32; CHUNK]; ROWS];
    for column in (0..unit.k).step_by(CHUNK) {
        let len = CHUNK.min(unit.k - column);
        let bytes = unit.dtype.row_bytes(len).expect("K is whole blocks, and a chunk is too");
        let start = unit.dtype.row_bytes(column).expect("a chunk is whole blocks");
        for (row, decoded) in decoded.iter_mut().enumerate().take(unit.rows) {
            decode(unit.dtype, &unit.bytes[row * row_bytes + start..][..bytes], &mut decoded[..len]);
        }
        let mut token = 0;
        while token < count {
            let x = |t: usize| &unit.act.row(first + token + t)[column..][..len];
            if count - token >= TOKENS {
                let x: [&[f32]; TOKENS] = std::array::from_fn(x);
                multiply(&decoded, x, &mut sums[token..]);
                token += TOKENS;
            } else {
                multiply(&decoded, [x(0)], &mut sums[token..]);
                token += 1;
            }
        }
    }
    for (token, sums) in sums.iter().enumerate().take(count) {
        for (row, &sum) in sums.iter().enumerate().take(unit.rows) {
            panel[token * GROUP_ROWS + row] = _mm512_reduce_add_ps(sum);
        }
    }
}

/// Adds the products of one chunk to the sums of `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn multiply<const T: usize>(w: &[[f32; CHUNK]; ROWS], x: [&[f32]; T], sums: &mut [[__m512; ROWS]]) {
    let len = x[0].len();
    assert!(len <= CHUNK && x.iter().all(|x| x.len() == len) && sums.len() >= T);
    let mut acc = [[_mm512_setzero_ps(); ROWS]; T];
    acc.copy_from_slice(&sums[..T]);
    for at in (0..len).step_by(16) {
        let mask = if len - at >= 16 { 0xffff } else { (1 << (len - at)) - 1 };
        // SAFETY: every slice holds `len` floats, and the mask leaves out the lanes from there on.
        unsafe {
            let w: [__m512; ROWS] = std::array::from_fn(|r| _mm512_maskz_loadu_ps(mask, w[r].as_ptr().add(at)));
            for t in 0..T {
                let x = _mm512_maskz_loadu_ps(mask, x[t].as_ptr().add(at));
                for r in 0..ROWS {
                    acc[t][r] = _mm512_fmadd_ps(w[r], x, acc[t][r]);
                }
            }
        }
    }
    sums[..T].copy_from_slice(&acc);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return decode_blocks(dtype, bytes, out);
    }
    assert_eq!(bytes.len(), 2 * out.len());
    for at in (0..out.len()).step_by(16) {
        let mask = if out.len() - at >= 16 { 0xffff } else { (1 << (out.len() - at)) - 1 };
        // SAFETY: both slices hold the same number of elements, and the mask leaves out what lies beyond.
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(mask, bytes.as_ptr().add(2 * at).cast());
            let floats = match dtype {
                DType::F16 => _mm512_cvtph_ps(halves),
                // A BF16 is the upper half of a float.
                _ => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))),
            };
            _mm512_mask_storeu_ps(out.as_mut_ptr().add(at), mask, floats);
        }
    }
}
