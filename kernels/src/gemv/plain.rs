//! gemv / plain: y = W · x in portable Rust, four rows at a time.
//!
//!   W  any type  [4, K] blocks as in the file       x  f32 [tokens, K]       y  f32 [tokens, 4]
//!
//! Four rows of 256 columns are decoded to floats once and multiplied with every token. Each row sums in eight lanes,
//! so that the compiler may use whatever vectors its target has.

use super::{CHUNK, GROUP_ROWS, Unit};
use crate::quant::decode_blocks;

const ROWS: usize = 4;
const LANES: usize = 8;

pub(super) fn unit(unit: &Unit<'_>, panel: &mut [f32]) {
    let row_bytes = unit.bytes.len() / unit.rows;
    let (first, count) = unit.tokens;
    for token in 0..count {
        panel[token * GROUP_ROWS..][..unit.rows].fill(0.0);
    }
    let mut decoded = [[0.0f32; CHUNK]; ROWS];
    for column in (0..unit.k).step_by(CHUNK) {
        let len = CHUNK.min(unit.k - column);
        let bytes = unit.dtype.row_bytes(len).expect("K is whole blocks, and a chunk is too");
        let start = unit.dtype.row_bytes(column).expect("a chunk is whole blocks");
        for (row, decoded) in decoded.iter_mut().enumerate().take(unit.rows) {
            decode_blocks(unit.dtype, &unit.bytes[row * row_bytes + start..][..bytes], &mut decoded[..len]);
        }
        for token in 0..count {
            let x = &unit.act.row(first + token)[column..][..len];
            for (row, decoded) in decoded.iter().enumerate().take(unit.rows) {
                panel[token * GROUP_ROWS + row] += dot(&decoded[..len], x);
            }
        }
    }
}

fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (w_body, w_tail) = w.as_chunks::<LANES>();
    let (x_body, x_tail) = x.as_chunks::<LANES>();
    for (w, x) in w_body.iter().zip(x_body) {
        for i in 0..LANES {
            lanes[i] += w[i] * x[i];
        }
    }
    let tail: f32 = w_tail.iter().zip(x_tail).map(|(w, x)| w * x).sum();
    lanes.iter().sum::<f32>() + tail
}
