//! `planes` of the K-quants: codes, upper bits, scales and super-scales of a matrix each in a plane of their own.
//!
//! Every plane starts at a multiple of 256 bytes, and a row of it is contiguous. A sub-block of 32 has its codes in the order
//! of Q4_0: byte j holds weight j low and weight j + 16 high, so that a lane which reads 16 bytes meets 32 activations in
//! their natural order.
//!
//! ```text
//! Q4_K  codes [N, K/32] 16 B                      scales and minima, unpacked [N, K/32] 2 B   d, dmin [N, K/256] 4 B
//! Q5_K  codes [N, K/32] 16 B   fifth bits 4 B     scales and minima, unpacked [N, K/32] 2 B   d, dmin [N, K/256] 4 B
//! Q6_K  codes [N, K/32] 16 B   upper bits 8 B     scales, signed [N, K/16] 1 B                d [N, K/256] 2 B
//! ```
//!
//! Fifth bits: bit g of byte i is that of weight 4 g + i. Upper bits: byte i of word h holds those of weights 8 h + i,
//! 8 h + 4 + i, 16 + 8 h + i and 16 + 8 h + 4 + i, two bits each from the lowest.

use harness_spec::DType;

use crate::quant::{pack_scale_min, scale_min};

/// Bytes of each plane for a super-block of 256 weights, the plane of codes first.
const fn planes(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4K => &[128, 16, 4],
        DType::Q5K => &[128, 32, 16, 4],
        DType::Q6K => &[128, 64, 16, 2],
        _ => panic!("planes of K-quants are for Q4_K, Q5_K and Q6_K"),
    }
}

/// Where each plane starts, and the size of the slab behind them.
fn starts(dtype: DType, n: usize, k: usize) -> Vec<usize> {
    let mut starts = vec![0];
    for bytes in planes(dtype) {
        let end = starts.last().expect("it starts with one") + n * (k / 256) * bytes;
        starts.push(end.next_multiple_of(256));
    }
    starts
}

/// Bytes of the slab, the padding between planes included and none behind the last.
pub(super) fn bytes(dtype: DType, n: usize, k: usize) -> usize {
    let starts = starts(dtype, n, k);
    let last = planes(dtype).len() - 1;
    starts[last] + n * (k / 256) * planes(dtype)[last]
}

/// The slab of `[n, k]` blocks.
pub(super) fn pack(dtype: DType, n: usize, k: usize, blocks: &[u8]) -> Vec<u8> {
    let mut slab = vec![0; bytes(dtype, n, k)];
    let starts = starts(dtype, n, k);
    for (index, block) in blocks.chunks_exact(dtype.block_bytes()).enumerate() {
        for (plane, piece) in pieces(dtype, block).into_iter().enumerate() {
            let at = starts[plane] + index * piece.len();
            slab[at..at + piece.len()].copy_from_slice(&piece);
        }
    }
    slab
}

/// The blocks of a slab: the inverse of [`pack`].
pub(super) fn unpack(dtype: DType, n: usize, k: usize, slab: &[u8]) -> Vec<u8> {
    let starts = starts(dtype, n, k);
    (0..n * (k / 256))
        .flat_map(|index| {
            let piece = |plane: usize| {
                let size = planes(dtype)[plane];
                &slab[starts[plane] + index * size..][..size]
            };
            let pieces: Vec<&[u8]> = (0..planes(dtype).len()).map(piece).collect();
            block(dtype, &pieces)
        })
        .collect()
}

/// What a super-block puts into each plane.
fn pieces(dtype: DType, block: &[u8]) -> Vec<Vec<u8>> {
    let codes = codes(dtype, block);
    let mut pieces = vec![nibbles(&codes)];
    match dtype {
        DType::Q5K => pieces.push(fifth_bits(&codes)),
        DType::Q6K => pieces.push(upper_bits(&codes)),
        _ => {}
    }
    if dtype == DType::Q6K {
        pieces.push(block[192..208].to_vec());
        pieces.push(block[208..210].to_vec());
    } else {
        pieces.push((0..8).flat_map(|j| <[u8; 2]>::from(scale_min(j, &block[4..16]))).collect());
        pieces.push(block[..4].to_vec());
    }
    pieces
}

/// A super-block from its pieces of all planes.
fn block(dtype: DType, planes: &[&[u8]]) -> Vec<u8> {
    let upper = |i: usize| match dtype {
        DType::Q5K => fifth_bit(planes[1], i) << 4,
        DType::Q6K => upper_pair(planes[1], i) << 4,
        _ => 0,
    };
    let codes: Vec<u8> = (0..256).map(|i| nibble(planes[0], i) | upper(i)).collect();
    let mut out = vec![0; dtype.block_bytes()];
    if dtype == DType::Q6K {
        put_q6_k(&codes, &mut out);
        out[192..208].copy_from_slice(planes[2]);
        out[208..].copy_from_slice(planes[3]);
        return out;
    }
    let [pairs, d] = [planes[planes.len() - 2], planes[planes.len() - 1]];
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for (j, pair) in pairs.chunks_exact(2).enumerate() {
        (scales[j], mins[j]) = (pair[0], pair[1]);
    }
    out[..4].copy_from_slice(d);
    pack_scale_min(&scales, &mins, &mut out[4..16]);
    let first = out.len() - 128;
    for (pair, codes) in codes.chunks_exact(64).enumerate() {
        for j in 0..32 {
            out[first + pair * 32 + j] = (codes[j] & 15) | (codes[j + 32] & 15) << 4;
            if dtype == DType::Q5K {
                out[16 + j] |= (codes[j] >> 4) << (2 * pair) | (codes[j + 32] >> 4) << (2 * pair + 1);
            }
        }
    }
    out
}

/// The 256 codes of a block in the order of their weights.
fn codes(dtype: DType, block: &[u8]) -> Vec<u8> {
    (0..256)
        .map(|i| {
            if dtype == DType::Q6K {
                let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
                let low = block[half * 64 + l + quarter % 2 * 32] >> (quarter / 2 * 4) & 15;
                return low | (block[128 + half * 32 + l] >> (quarter * 2) & 3) << 4;
            }
            let (sub, j) = (i / 32, i % 32);
            let low = block[block.len() - 128 + sub / 2 * 32 + j] >> (sub % 2 * 4) & 15;
            let fifth = if dtype == DType::Q5K { block[16 + j] >> sub & 1 } else { 0 };
            low | fifth << 4
        })
        .collect()
}

fn put_q6_k(codes: &[u8], out: &mut [u8]) {
    for (half, codes) in codes.chunks_exact(128).enumerate() {
        for l in 0..32 {
            let q = [codes[l], codes[l + 32], codes[l + 64], codes[l + 96]];
            out[half * 64 + l] = (q[0] & 15) | (q[2] & 15) << 4;
            out[half * 64 + l + 32] = (q[1] & 15) | (q[3] & 15) << 4;
            out[128 + half * 32 + l] = (q[0] >> 4) | (q[1] >> 4) << 2 | (q[2] >> 4) << 4 | (q[3] >> 4) << 6;
        }
    }
}

fn nibbles(codes: &[u8]) -> Vec<u8> {
    codes.chunks_exact(32).flat_map(|sub| (0..16).map(|j| (sub[j] & 15) | (sub[j + 16] & 15) << 4)).collect()
}

fn nibble(plane: &[u8], i: usize) -> u8 {
    plane[i / 32 * 16 + i % 16] >> (i % 32 / 16 * 4) & 15
}

fn fifth_bits(codes: &[u8]) -> Vec<u8> {
    codes
        .chunks_exact(32)
        .flat_map(|sub| (0..4).map(|i| (0..8).fold(0, |byte, g| byte | (sub[4 * g + i] >> 4) << g)))
        .collect()
}

fn fifth_bit(plane: &[u8], i: usize) -> u8 {
    plane[i / 32 * 4 + i % 4] >> (i % 32 / 4) & 1
}

/// Which byte of a sub-block's eight holds the upper bits of weight `i` of 32, and how far up.
const fn upper_place(i: usize) -> (usize, usize) {
    (i % 16 / 8 * 4 + i % 4, i / 16 * 4 + i % 8 / 4 * 2)
}

fn upper_bits(codes: &[u8]) -> Vec<u8> {
    let mut plane = vec![0; 64];
    for (i, code) in codes.iter().enumerate() {
        let (byte, shift) = upper_place(i % 32);
        plane[i / 32 * 8 + byte] |= (code >> 4) << shift;
    }
    plane
}

fn upper_pair(plane: &[u8], i: usize) -> u8 {
    let (byte, shift) = upper_place(i % 32);
    plane[i / 32 * 8 + byte] >> shift & 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn planes_unpack_to_the_very_blocks_they_were_packed_from() {
        for dtype in [DType::Q4K, DType::Q5K, DType::Q6K] {
            for (n, k) in [(1, 256), (3, 512), (5, 1536)] {
                let blocks = noise(n * k / 256 * dtype.block_bytes());
                let slab = pack(dtype, n, k, &blocks);
                assert_eq!(slab.len(), bytes(dtype, n, k));
                assert_eq!(unpack(dtype, n, k, &slab), blocks, "{dtype} {n} x {k}");
            }
        }
    }

    #[test]
    fn a_weight_has_its_code_bits_where_the_kernels_look() {
        // One Q6_K block whose codes are 0 but for weight 16 + 8 + 4 + 1 = 29 of sub-block 3, which is 63.
        let mut codes = [0u8; 256];
        codes[3 * 32 + 29] = 63;
        let mut block = vec![0; 210];
        put_q6_k(&codes, &mut block);
        let planes = pieces(DType::Q6K, &block);
        assert_eq!(planes[0].iter().position(|&b| b != 0), Some(3 * 16 + 13));
        assert_eq!(planes[0][3 * 16 + 13], 0xf0);
        assert_eq!(planes[1].iter().position(|&b| b != 0), Some(3 * 8 + 4 + 1));
        assert_eq!(planes[1][3 * 8 + 4 + 1], 0b1100_0000);
    }

    #[test]
    fn a_weight_of_q4_k_takes_four_and_five_eighths_bits() {
        assert_eq!(bytes(DType::Q4K, 256, 4096) * 8, 256 * 4096 * 37 / 8);
    }
}
