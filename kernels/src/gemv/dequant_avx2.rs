//! gemv / dequant@avx2: y = W · x with float activations, eight lanes.
//!
//!   W  any type  [4, K] blocks as in the file       x  f32 [tokens, K]       y  f32 [tokens, 4]
//!
//! Four rows of 256 columns are decoded to floats once and multiplied with every token, two tokens at a time: eight
//! accumulators for six loads. Accumulators wait in memory between chunks as whole vectors. Needs AVX2, FMA and F16C.

// Loops over register tiles have constant bounds, and an index into each of several arrays reads best.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use harness_spec::DType;

use super::{CHUNK, GROUP_ROWS, MAX_TOKENS, Unit};
use crate::norm::avx2::sum_of;
use crate::quant::decode_blocks;

const ROWS: usize = 4;
const TOKENS: usize = 2;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unit(unit: &Unit<'_>, panel: &mut [f32]) {
    // One token needs no room for the sums of 64, which would have to be cleared.
    if unit.tokens.1 == 1 { body::<1>(unit, panel) } else { body::<MAX_TOKENS>(unit, panel) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn body<const ROOM: usize>(unit: &Unit<'_>, panel: &mut [f32]) {
    let row_bytes = unit.bytes.len() / unit.rows;
    let (first, count) = unit.tokens;
    let mut sums = [[_mm256_setzero_ps(); ROWS]; ROOM];
    let mut decoded = [[0.0f32; CHUNK]; ROWS];
    for column in (0..unit.k).step_by(CHUNK) {
        let len = CHUNK.min(unit.k - column);
        // A ragged end is padded with zero weights and, in `multiply`, zero activations.
        let padded = len.next_multiple_of(8);
        let bytes = unit.dtype.row_bytes(len).expect("K is whole blocks, and a chunk is too");
        let start = unit.dtype.row_bytes(column).expect("a chunk is whole blocks");
        for (row, decoded) in decoded.iter_mut().enumerate().take(unit.rows) {
            decode(unit.dtype, &unit.bytes[row * row_bytes + start..][..bytes], &mut decoded[..len]);
            decoded[len..padded].fill(0.0);
        }
        let mut token = 0;
        while token < count {
            let x = |t: usize| &unit.act.row(first + token + t)[column..][..len];
            if count - token >= TOKENS {
                multiply(&decoded, [x(0), x(1)], &mut sums[token..]);
                token += TOKENS;
            } else {
                multiply(&decoded, [x(0)], &mut sums[token..]);
                token += 1;
            }
        }
    }
    for (token, sums) in sums.iter().enumerate().take(count) {
        for (row, &sum) in sums.iter().enumerate().take(unit.rows) {
            panel[token * GROUP_ROWS + row] = sum_of(sum);
        }
    }
}

/// Adds the products of one chunk to the sums of `T` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn multiply<const T: usize>(w: &[[f32; CHUNK]; ROWS], x: [&[f32]; T], sums: &mut [[__m256; ROWS]]) {
    let len = x[0].len();
    assert!(len <= CHUNK && x.iter().all(|x| x.len() == len) && sums.len() >= T);
    let mut acc = [[_mm256_setzero_ps(); ROWS]; T];
    acc.copy_from_slice(&sums[..T]);
    let body = len / 8 * 8;
    for at in (0..body).step_by(8) {
        // SAFETY: at + 8 <= len, and every slice holds `len` floats.
        unsafe {
            let w: [__m256; ROWS] = std::array::from_fn(|r| _mm256_loadu_ps(w[r].as_ptr().add(at)));
            for t in 0..T {
                let x = _mm256_loadu_ps(x[t].as_ptr().add(at));
                for r in 0..ROWS {
                    acc[t][r] = _mm256_fmadd_ps(w[r], x, acc[t][r]);
                }
            }
        }
    }
    if body < len {
        for t in 0..T {
            let mut last = [0.0f32; 8];
            last[..len - body].copy_from_slice(&x[t][body..]);
            for r in 0..ROWS {
                // SAFETY: body + 8 <= CHUNK, as `body` is a multiple of 8 below it; `last` has eight floats.
                unsafe {
                    let w = _mm256_loadu_ps(w[r].as_ptr().add(body));
                    acc[t][r] = _mm256_fmadd_ps(w, _mm256_loadu_ps(last.as_ptr()), acc[t][r]);
                }
            }
        }
    }
    sums[..T].copy_from_slice(&acc);
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return decode_blocks(dtype, bytes, out);
    }
    assert_eq!(bytes.len(), 2 * out.len());
    let body = out.len() / 8 * 8;
    for at in (0..body).step_by(8) {
        // SAFETY: at + 8 is at most the number of elements of both slices.
        unsafe {
            let halves = _mm_loadu_si128(bytes.as_ptr().add(2 * at).cast());
            let floats = match dtype {
                DType::F16 => _mm256_cvtph_ps(halves),
                // A BF16 is the upper half of a float.
                _ => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves))),
            };
            _mm256_storeu_ps(out.as_mut_ptr().add(at), floats);
        }
    }
    decode_blocks(dtype, &bytes[2 * body..], &mut out[body..]);
}
