//! `planes` of TQ2_0: codes of 64 neighbouring weights in 16 bytes, scales in a plane of their own.
//!
//! ```text
//! codes [N, K/64] 16 B: bits 2p and 2p + 1 of byte j are the code of weight 16 p + j        d f16 [N, K/256]
//! ```
//!
//! So plane p of a vector, masked with 0x03 in every byte, meets 16 activations in their natural order. The scale plane
//! starts at a multiple of 256 bytes.

const BLOCK: usize = 66;

fn scales_at(n: usize, k: usize) -> usize {
    (n * k / 4).next_multiple_of(256)
}

/// Bytes of the slab.
pub(super) fn bytes(n: usize, k: usize) -> usize {
    scales_at(n, k) + n * k / 256 * 2
}

/// Where the code of weight `i` of 256 is in a block of the file: byte and shift.
const fn place_in_block(i: usize) -> (usize, usize) {
    (i / 128 * 32 + i % 32, i % 128 / 32 * 2)
}

/// Where it is in the four vectors of the slab.
const fn place_in_slab(i: usize) -> (usize, usize) {
    (i / 64 * 16 + i % 16, i % 64 / 16 * 2)
}

/// The slab of `[n, k]` blocks.
pub(super) fn pack(n: usize, k: usize, blocks: &[u8]) -> Vec<u8> {
    let mut slab = vec![0; bytes(n, k)];
    let (codes, scales) = slab.split_at_mut(scales_at(n, k));
    let planes = codes.chunks_exact_mut(64).zip(scales.chunks_exact_mut(2));
    for (block, (codes, scale)) in blocks.chunks_exact(BLOCK).zip(planes) {
        for i in 0..256 {
            let ((from, down), (to, up)) = (place_in_block(i), place_in_slab(i));
            codes[to] |= (block[from] >> down & 3) << up;
        }
        scale.copy_from_slice(&block[64..]);
    }
    slab
}

/// The blocks of a slab: the inverse of [`pack`].
pub(super) fn unpack(n: usize, k: usize, slab: &[u8]) -> Vec<u8> {
    let (codes, scales) = slab.split_at(scales_at(n, k));
    let mut blocks = vec![0; n * k / 256 * BLOCK];
    let planes = codes.chunks_exact(64).zip(scales.chunks_exact(2));
    for (block, (codes, scale)) in blocks.chunks_exact_mut(BLOCK).zip(planes) {
        for i in 0..256 {
            let ((to, up), (from, down)) = (place_in_block(i), place_in_slab(i));
            block[to] |= (codes[from] >> down & 3) << up;
        }
        block[64..].copy_from_slice(scale);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_unpack_to_the_very_blocks_they_were_packed_from() {
        for (n, k) in [(1, 256), (3, 512), (5, 1536)] {
            let blocks: Vec<u8> = (0..n * k / 256 * BLOCK).map(|i| (i * 151 + i / 7) as u8).collect();
            let slab = pack(n, k, &blocks);
            assert_eq!(slab.len(), bytes(n, k));
            assert_eq!(unpack(n, k, &slab), blocks, "{n} x {k}");
        }
    }

    #[test]
    fn sixteen_neighbours_lie_in_the_same_bits_of_sixteen_bytes() {
        // Weights 96 to 111 of a block, which the file keeps in the top bits of bytes 0 to 15.
        let mut block = [0u8; BLOCK];
        block[..16].fill(0b1000_0000);
        let slab = pack(1, 256, &block);
        assert_eq!(slab[16..32], [0b0010_0000; 16]);
        assert!(slab[..16].iter().chain(&slab[32..64]).all(|&b| b == 0));
    }
}
