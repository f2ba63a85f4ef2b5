//! What the pieces of each weight type are.
//!
//! ```text
//! unit of the file   pieces, a plane each
//! Q4_0   18 bytes    codes 16                                   d 2
//! Q4_1   20          codes 16                                   d and m 4
//! Q5_0   22          codes 16  fifth bits 4                     d 2       bit 8 j + i: byte j of code word i, see below
//! Q8_0   34          codes 32 (interleaved: two planes of 16)   d 2
//! Q4_K   144         codes 8 x 16   scale, minimum 8 x 2        d and dmin 4
//! Q5_K   176         codes 8 x 16   fifth bits 8 x 4   scale, minimum 8 x 2   d and dmin 4
//! Q6_K   210         low bits 8 x 16   upper bits 8 x 8   scales 16   d 2
//! TQ2_0  66          codes 4 x 16                               d 2
//! g128   4 x 18      codes 4 x 16, low nibble the even column   d 2
//! ```
//!
//! Codes of 4 bits keep the order of a Q4_0 block: in each 16 bytes for 32 weights, byte j holds weight j low and j + 16
//! high, so that int8 activations are met in their natural order. Upper bits are ordered so that one shift and one mask
//! put them beside their codes: code word i (i < 4 the lower nibbles of word i, else the upper ones of word i - 4) has
//! byte j, which is weight 4 i + j.

use harness_spec::DType;
use variants::Layout;

use crate::quant::{pack_scale_min, scale_min};

type Put<'a> = dyn FnMut(usize, &[u8]) + 'a;
type Get<'a> = dyn Fn(usize) -> &'a [u8] + 'a;

/// How a unit of the file falls into pieces.
#[derive(Debug)]
pub(super) struct Form {
    /// Bytes of a unit in the file.
    pub unit: usize,
    /// Its weights.
    pub weights: usize,
    /// Bytes of its piece in each plane.
    pub pieces: &'static [usize],
    /// Gives every piece of a unit to the callback, by the number of its plane.
    pub split: fn(&[u8], &mut Put<'_>),
    /// Writes the unit from its pieces.
    pub join: for<'a, 'b> fn(&'b Get<'a>, &'b mut [u8]),
}

static Q4_0: Form = Form {
    unit: 18,
    weights: 32,
    pieces: &[16, 2],
    split: |b, put| {
        put(0, &b[2..]);
        put(1, &b[..2]);
    },
    join: |piece, b| {
        b[2..].copy_from_slice(piece(0));
        b[..2].copy_from_slice(piece(1));
    },
};

static Q4_1: Form = Form {
    unit: 20,
    weights: 32,
    pieces: &[16, 4],
    split: |b, put| {
        put(0, &b[4..]);
        put(1, &b[..4]);
    },
    join: |piece, b| {
        b[4..].copy_from_slice(piece(0));
        b[..4].copy_from_slice(piece(1));
    },
};

static Q5_0: Form = Form {
    unit: 22,
    weights: 32,
    pieces: &[16, 4, 2],
    split: |b, put| {
        put(0, &b[6..]);
        put(1, &spread(word(&b[2..6])).to_le_bytes());
        put(2, &b[..2]);
    },
    join: |piece, b| {
        b[6..].copy_from_slice(piece(0));
        b[2..6].copy_from_slice(&gather(word(piece(1))).to_le_bytes());
        b[..2].copy_from_slice(piece(2));
    },
};

static Q8_0: Form = Form {
    unit: 34,
    weights: 32,
    pieces: &[32, 2],
    split: |b, put| {
        put(0, &b[2..]);
        put(1, &b[..2]);
    },
    join: |piece, b| {
        b[2..].copy_from_slice(piece(0));
        b[..2].copy_from_slice(piece(1));
    },
};

/// Two planes of codes, so that a load of a warp stays 512 contiguous bytes.
static Q8_0_HALVES: Form = Form {
    unit: 34,
    weights: 32,
    pieces: &[16, 16, 2],
    split: |b, put| {
        put(0, &b[2..18]);
        put(1, &b[18..]);
        put(2, &b[..2]);
    },
    join: |piece, b| {
        b[2..18].copy_from_slice(piece(0));
        b[18..].copy_from_slice(piece(1));
        b[..2].copy_from_slice(piece(2));
    },
};

static G128: Form = Form {
    unit: 4 * 18,
    weights: 128,
    pieces: &[64, 2],
    split: |b, put| {
        let mut codes = [0u8; 64];
        for (block, out) in b.chunks_exact(18).zip(codes.chunks_exact_mut(16)) {
            let code = |column: usize| block[2 + column % 16] >> (column / 16 * 4) & 15;
            for (pair, out) in out.iter_mut().enumerate() {
                *out = code(2 * pair) | code(2 * pair + 1) << 4;
            }
        }
        put(0, &codes);
        put(1, &b[..2]);
    },
    join: |piece, b| {
        for (block, codes) in b.chunks_exact_mut(18).zip(piece(0).chunks_exact(16)) {
            block[..2].copy_from_slice(piece(1));
            let code = |column: usize| codes[column / 2] >> (column % 2 * 4) & 15;
            for j in 0..16 {
                block[2 + j] = code(j) | code(16 + j) << 4;
            }
        }
    },
};

static Q4K: Form = Form {
    unit: 144,
    weights: 256,
    pieces: &[128, 16, 4],
    split: |b, put| {
        put(0, &nibbles_of_32(&b[16..144]));
        put(1, &scale_min_bytes(&b[4..16]));
        put(2, &b[..4]);
    },
    join: |piece, b| {
        b[16..144].copy_from_slice(&nibbles_of_64(piece(0)));
        b[4..16].copy_from_slice(&packed_scale_min(piece(1)));
        b[..4].copy_from_slice(piece(2));
    },
};

static Q5K: Form = Form {
    unit: 176,
    weights: 256,
    pieces: &[128, 32, 16, 4],
    split: |b, put| {
        put(0, &nibbles_of_32(&b[48..176]));
        // Bit `sub` of byte l in the file is the fifth bit of weight l of that sub-block.
        let mut high = [0u8; 32];
        for (sub, out) in high.chunks_exact_mut(4).enumerate() {
            for weight in 0..32 {
                out[weight % 4] |= (b[16 + weight] >> sub & 1) << (weight / 4);
            }
        }
        put(1, &high);
        put(2, &scale_min_bytes(&b[4..16]));
        put(3, &b[..4]);
    },
    join: |piece, b| {
        b[48..176].copy_from_slice(&nibbles_of_64(piece(0)));
        b[16..48].fill(0);
        for (sub, high) in piece(1).chunks_exact(4).enumerate() {
            for weight in 0..32 {
                b[16 + weight] |= (high[weight % 4] >> (weight / 4) & 1) << sub;
            }
        }
        b[4..16].copy_from_slice(&packed_scale_min(piece(2)));
        b[..4].copy_from_slice(piece(3));
    },
};

static Q6K: Form = Form {
    unit: 210,
    weights: 256,
    pieces: &[128, 64, 16, 2],
    split: |b, put| {
        let codes = q6_k_codes(b);
        let (mut low, mut high) = ([0u8; 128], [0u8; 64]);
        for (i, &code) in codes.iter().enumerate() {
            let (sub, w) = (i / 32, i % 32);
            low[sub * 16 + w % 16] |= (code & 15) << (w / 16 * 4);
            high[sub * 8 + w / 8 % 2 * 4 + w % 4] |= (code >> 4) << (w / 4 % 2 * 2 + w / 16 * 4);
        }
        put(0, &low);
        put(1, &high);
        put(2, &b[192..208]);
        put(3, &b[208..210]);
    },
    join: |piece, b| {
        let (low, high) = (piece(0), piece(1));
        b.fill(0);
        for i in 0..256 {
            let (sub, w) = (i / 32, i % 32);
            let code = (low[sub * 16 + w % 16] >> (w / 16 * 4) & 15)
                | (high[sub * 8 + w / 8 % 2 * 4 + w % 4] >> (w / 4 % 2 * 2 + w / 16 * 4) & 3) << 4;
            let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
            b[64 * half + quarter % 2 * 32 + l] |= (code & 15) << (quarter / 2 * 4);
            b[128 + 32 * half + l] |= (code >> 4) << (2 * quarter);
        }
        b[192..208].copy_from_slice(piece(2));
        b[208..210].copy_from_slice(piece(3));
    },
};

static TQ2_0: Form = Form {
    unit: 66,
    weights: 256,
    pieces: &[64, 2],
    split: |b, put| {
        let mut codes = [0u8; 64];
        for i in 0..256 {
            let code = b[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            codes[i / 64 * 16 + i % 16] |= code << (i / 16 % 4 * 2);
        }
        put(0, &codes);
        put(1, &b[64..66]);
    },
    join: |piece, b| {
        let codes = piece(0);
        b.fill(0);
        for i in 0..256 {
            let code = codes[i / 64 * 16 + i % 16] >> (i / 16 % 4 * 2) & 3;
            b[i / 128 * 32 + i % 32] |= code << (i / 32 % 4 * 2);
        }
        b[64..66].copy_from_slice(piece(1));
    },
};

/// The form of a type in a layout, if there is one.
pub(super) fn of(dtype: DType, layout: Layout) -> Option<&'static Form> {
    let interleaved = !matches!(layout, Layout::Planes | Layout::G128);
    match (layout, dtype) {
        (Layout::G128, DType::Q4_0) => Some(&G128),
        (Layout::G128, _) => None,
        (_, DType::Q4_0) => Some(&Q4_0),
        (_, DType::Q4_1) => Some(&Q4_1),
        (_, DType::Q5_0) => Some(&Q5_0),
        (_, DType::Q8_0) if interleaved => Some(&Q8_0_HALVES),
        (_, DType::Q8_0) => Some(&Q8_0),
        (Layout::Planes, DType::Q4K) => Some(&Q4K),
        (Layout::Planes, DType::Q5K) => Some(&Q5K),
        (Layout::Planes, DType::Q6K) => Some(&Q6K),
        (Layout::Planes, DType::TQ2_0) => Some(&TQ2_0),
        _ => None,
    }
}

/// The first group of 128 whose four blocks do not share a scale, where the layout has but one.
pub(super) fn scales_differ(layout: Layout, file: &[u8]) -> Option<usize> {
    if layout != Layout::G128 {
        return None;
    }
    file.chunks_exact(4 * 18).position(|group| group.chunks_exact(18).any(|block| block[..2] != group[..2]))
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Moves the bit of weight 4 i + j from there to 8 j + i.
fn spread(bits: u32) -> u32 {
    (0..32).fold(0, |out, w| out | (bits >> w & 1) << (w % 4 * 8 + w / 4))
}

/// The inverse of [`spread`].
fn gather(bits: u32) -> u32 {
    (0..32).fold(0, |out, w| out | (bits >> (w % 4 * 8 + w / 4) & 1) << w)
}

/// K-quants pair sub-blocks of 32 as nibbles of the same bytes; this gives each sub-block 16 bytes of its own.
fn nibbles_of_32(file: &[u8]) -> [u8; 128] {
    let mut out = [0u8; 128];
    for i in 0..256 {
        let (sub, w) = (i / 32, i % 32);
        let code = file[sub / 2 * 32 + w] >> (sub % 2 * 4) & 15;
        out[sub * 16 + w % 16] |= code << (w / 16 * 4);
    }
    out
}

/// The inverse of [`nibbles_of_32`].
fn nibbles_of_64(codes: &[u8]) -> [u8; 128] {
    let mut out = [0u8; 128];
    for i in 0..256 {
        let (sub, w) = (i / 32, i % 32);
        let code = codes[sub * 16 + w % 16] >> (w / 16 * 4) & 15;
        out[sub / 2 * 32 + w] |= code << (sub % 2 * 4);
    }
    out
}

/// The 6-bit scales and minima of 8 sub-blocks, a byte each, side by side.
fn scale_min_bytes(packed: &[u8]) -> [u8; 16] {
    let mut out = [0u8; 16];
    for sub in 0..8 {
        let (scale, min) = scale_min(sub, packed);
        out[2 * sub] = scale;
        out[2 * sub + 1] = min;
    }
    out
}

/// The inverse of [`scale_min_bytes`].
fn packed_scale_min(pairs: &[u8]) -> [u8; 12] {
    let scales: [u8; 8] = std::array::from_fn(|sub| pairs[2 * sub]);
    let mins: [u8; 8] = std::array::from_fn(|sub| pairs[2 * sub + 1]);
    let mut out = [0u8; 12];
    pack_scale_min(&scales, &mins, &mut out);
    out
}

/// The 256 codes of 6 bits of a Q6_K block.
fn q6_k_codes(block: &[u8]) -> [u8; 256] {
    std::array::from_fn(|i| {
        let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
        let low = block[64 * half + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        let high = block[128 + 32 * half + l] >> (2 * quarter) & 3;
        low | high << 4
    })
}
