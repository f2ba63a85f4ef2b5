//! The tiled layouts `rows4_cols4`, `rows8_cols4`, `rows16_cols4` and `rows16_pairs`, and the way there and back.
//!
//! A tile is R rows (4, 8 or 16) by one *step* of columns: two blocks of 32, or one super-block of 256. The 32-bit words
//! of the blocks are transposed, so that one vector load holds the same 4 code bytes of all R rows:
//!
//! ```text
//! Q4_0  step 64   d f16[2][R]                          qs u32[2][4][R]    byte j: column j low, j + 16 high, as in the file
//! Q4_1  step 64   d f16[2][R]  m f16[2][R]             qs u32[2][4][R]
//! Q5_0  step 64   d f16[2][R]                          { qh u32[R]  qs u32[4][R] }[2]   qh: see `spread_bits`
//! Q8_0  step 64   d f16[2][R]                          qs u32[2][8][R]    R = 16: plus 128, as dpbusd wants it unsigned
//! Q4_K  step 256  d f16[R] dmin f16[R] sc u8[8][R] mn u8[8][R]   qs u32[32][R]
//! Q5_K  step 256  d f16[R] dmin f16[R] sc u8[8][R] mn u8[8][R]   qh u32[8][R]  qs u32[32][R]
//! Q6_K  step 256  d f16[R] pad                         { sc u32[2][R]  { ql u32[2][R]  qh u32[R] }[8] }[2]   `place_of_word`
//! TQ2_0 step 256  d f16[R] pad                         qs u32[16][R]
//! ```
//!
//! `rows16_pairs` exists for TQ2_0 alone and keeps the head, but its codes are ordered for table look-up: a nibble is two
//! neighbouring columns, and a byte of 16 rows is one half of a vector (`pair_place`).
//!
//! Scales lie in front of their codes, so that a thread reads one stream, and every part starts at a multiple of the
//! vector. K is padded to whole steps and N to whole tiles with zero blocks. Sizes are those of the file, but for Q4_K
//! and Q5_K, whose unpacked scales take 2.8 and 2.3 % more, and pads of 1 % in Q6_K and 3 % in TQ2_0.

use harness_spec::DType;
use variants::Layout;

use crate::quant;

/// The shape of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    dtype: DType,
    rows: usize,
    /// Whether codes are ordered for table look-up.
    pairs: bool,
}

/// Where the parts of a step lie, for R rows: bytes before the code words, and the words of one row.
struct Parts {
    /// Columns of a step.
    columns: usize,
    /// Blocks of the file in a step.
    blocks: usize,
    /// Bytes of scales and the like, all rows together.
    head: usize,
    /// Code words of one row in a step.
    words: usize,
}

impl Tile {
    /// The tile of a type in a layout, if there is one.
    pub(crate) fn new(dtype: DType, layout: Layout) -> Option<Tile> {
        let (rows, pairs) = match layout {
            Layout::Rows4Cols4 => (4, false),
            Layout::Rows8Cols4 => (8, false),
            Layout::Rows16Cols4 => (16, false),
            Layout::Rows16Pairs => (16, true),
            _ => return None,
        };
        let tiled = match dtype {
            DType::TQ2_0 => true,
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q8_0 | DType::Q4K | DType::Q5K | DType::Q6K => !pairs,
            _ => false,
        };
        tiled.then_some(Tile { dtype, rows, pairs })
    }

    /// Rows of a tile.
    pub(crate) const fn rows(self) -> usize {
        self.rows
    }

    const fn parts(self) -> Parts {
        let r = self.rows;
        match self.dtype {
            DType::Q4_0 => Parts { columns: 64, blocks: 2, head: 4 * r, words: 8 },
            DType::Q4_1 => Parts { columns: 64, blocks: 2, head: 8 * r, words: 8 },
            DType::Q5_0 => Parts { columns: 64, blocks: 2, head: 4 * r, words: 10 },
            DType::Q8_0 => Parts { columns: 64, blocks: 2, head: 4 * r, words: 16 },
            DType::Q4K => Parts { columns: 256, blocks: 1, head: 20 * r, words: 32 },
            DType::Q5K => Parts { columns: 256, blocks: 1, head: 20 * r, words: 40 },
            DType::Q6K => Parts { columns: 256, blocks: 1, head: 4 * r, words: 52 },
            DType::TQ2_0 => Parts { columns: 256, blocks: 1, head: 4 * r, words: 16 },
            _ => panic!("only types that `Tile::new` accepts are tiled"),
        }
    }

    /// Bytes of one step of R rows.
    pub(crate) const fn step_bytes(self) -> usize {
        let parts = self.parts();
        parts.head + parts.words * 4 * self.rows
    }

    /// Bytes of R rows of `k` columns.
    pub(crate) const fn bytes(self, k: usize) -> usize {
        k.div_ceil(self.parts().columns) * self.step_bytes()
    }

    /// Whether code bytes are stored plus 128: for the unsigned operand of dpbusd.
    const fn offset_codes(self) -> bool {
        matches!(self.dtype, DType::Q8_0) && self.rows == 16
    }

    /// Where the code words of one block start within the block, and how many there are.
    const fn block_words(self) -> (usize, usize) {
        match self.dtype {
            DType::Q4_0 => (2, 4),
            DType::Q4_1 => (4, 4),
            DType::Q5_0 => (2, 5),
            DType::Q8_0 => (2, 8),
            DType::Q4K => (16, 32),
            DType::Q5K => (16, 40),
            DType::TQ2_0 => (0, 16),
            _ => (0, 52),
        }
    }

    /// Packs up to R rows of the file into one run of tiles. `out` is zeroed; `source` holds `rows` whole rows.
    pub(crate) fn pack(self, source: &[u8], rows: usize, k: usize, out: &mut [u8]) {
        // Each number of rows and words gets loops of its own, which the compiler unrolls: loading is bound by this.
        match self.rows {
            4 => self.pack_rows::<4>(source, rows, k, out),
            8 => self.pack_rows::<8>(source, rows, k, out),
            _ => self.pack_rows::<16>(source, rows, k, out),
        }
    }

    fn pack_rows<const R: usize>(self, source: &[u8], rows: usize, k: usize, out: &mut [u8]) {
        match self.block_words().1 {
            4 => self.pack_as::<R, 4>(source, rows, k, out),
            5 => self.pack_as::<R, 5>(source, rows, k, out),
            8 => self.pack_as::<R, 8>(source, rows, k, out),
            16 => self.pack_as::<R, 16>(source, rows, k, out),
            32 => self.pack_as::<R, 32>(source, rows, k, out),
            40 => self.pack_as::<R, 40>(source, rows, k, out),
            _ => self.pack_as::<R, 52>(source, rows, k, out),
        }
    }

    fn pack_as<const R: usize, const WORDS: usize>(self, source: &[u8], rows: usize, k: usize, out: &mut [u8]) {
        let parts = self.parts();
        let row_bytes = source.len() / rows;
        let block_bytes = self.dtype.block_bytes();
        let blocks = k / self.dtype.block_len();
        let (words_at, _) = self.block_words();
        for (step, out) in out.chunks_exact_mut(self.step_bytes()).enumerate() {
            let (head, codes) = out.split_at_mut(parts.head);
            let count = parts.blocks.min(blocks - step * parts.blocks);
            for (i, codes) in codes.chunks_exact_mut(WORDS * R * 4).take(count).enumerate() {
                let (words, _) = codes.as_chunks_mut::<4>();
                let words = &mut words[..WORDS * R];
                for row in 0..rows.min(R) {
                    let start = row * row_bytes + (step * parts.blocks + i) * block_bytes;
                    let block = &source[start..][..block_bytes];
                    self.pack_head(block, i, row, head);
                    if self.pairs {
                        pack_pairs(block, row, words.as_flattened_mut());
                        continue;
                    }
                    let (from, _) = block[words_at..][..WORDS * 4].as_chunks::<4>();
                    for (w, word) in from.iter().enumerate() {
                        words[place_of_word(WORDS, w) * R + row] = *word;
                    }
                    if self.dtype == DType::Q5_0 {
                        words[row] = spread_bits(u32::from_le_bytes(words[row])).to_le_bytes();
                    }
                }
            }
            if self.offset_codes() {
                // The padding is offset too: a code of zero is 128 wherever it stands.
                for code in codes {
                    *code ^= 0x80;
                }
            }
        }
    }

    #[inline(always)]
    fn pack_head(self, block: &[u8], i: usize, row: usize, head: &mut [u8]) {
        let r = self.rows;
        match self.dtype {
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => head[(i * r + row) * 2..][..2].copy_from_slice(&block[..2]),
            DType::Q4_1 => {
                head[(i * r + row) * 2..][..2].copy_from_slice(&block[..2]);
                head[((2 + i) * r + row) * 2..][..2].copy_from_slice(&block[2..4]);
            }
            DType::TQ2_0 => head[row * 2..][..2].copy_from_slice(&block[64..66]),
            DType::Q4K | DType::Q5K => {
                head[row * 2..][..2].copy_from_slice(&block[..2]);
                head[(r + row) * 2..][..2].copy_from_slice(&block[2..4]);
                for j in 0..8 {
                    let (scale, min) = quant::scale_min(j, &block[4..16]);
                    head[4 * r + j * r + row] = scale;
                    head[12 * r + j * r + row] = min;
                }
            }
            _ => head[row * 2..][..2].copy_from_slice(&block[208..210]),
        }
    }

    /// The inverse of [`Tile::pack`] for block `index` of row `row`: writes the block as it was in the file.
    pub(crate) fn unpack_block(self, tiles: &[u8], row: usize, index: usize, block: &mut [u8]) {
        let parts = self.parts();
        let r = self.rows;
        let step = &tiles[index / parts.blocks * self.step_bytes()..][..self.step_bytes()];
        let (head, codes) = step.split_at(parts.head);
        let i = index % parts.blocks;
        let (start, words) = self.block_words();
        if self.pairs {
            unpack_pairs(codes, row, block);
        } else {
            for w in 0..words {
                let word = &codes[((i * words + place_of_word(words, w)) * r + row) * 4..][..4];
                block[start + 4 * w..][..4].copy_from_slice(word);
            }
        }
        if self.dtype == DType::Q5_0 {
            let bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
            block[2..6].copy_from_slice(&gather_bits(bits).to_le_bytes());
        }
        if self.offset_codes() {
            for code in &mut block[start..start + words * 4] {
                *code ^= 0x80;
            }
        }
        match self.dtype {
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => {
                block[..2].copy_from_slice(&head[(i * r + row) * 2..][..2]);
            }
            DType::Q4_1 => {
                block[..2].copy_from_slice(&head[(i * r + row) * 2..][..2]);
                block[2..4].copy_from_slice(&head[((2 + i) * r + row) * 2..][..2]);
            }
            DType::TQ2_0 => block[64..66].copy_from_slice(&head[row * 2..][..2]),
            DType::Q4K | DType::Q5K => {
                block[..2].copy_from_slice(&head[row * 2..][..2]);
                block[2..4].copy_from_slice(&head[(r + row) * 2..][..2]);
                let scales: [u8; 8] = std::array::from_fn(|j| head[4 * r + j * r + row]);
                let mins: [u8; 8] = std::array::from_fn(|j| head[12 * r + j * r + row]);
                quant::pack_scale_min(&scales, &mins, &mut block[4..16]);
            }
            _ => block[208..210].copy_from_slice(&head[row * 2..][..2]),
        }
    }
}

/// Where a word stands among the `words` of its block. The words of Q6_K, which alone has 52, lie as a kernel takes them:
/// for each half of 128 columns the two with its scales, then for four columns of each of its quarters the two of low bits
/// and that of high bits. So every byte is read once and in order, which is what the processor's prefetchers follow.
const fn place_of_word(words: usize, word: usize) -> usize {
    const HALF: usize = 26;
    match (words, word) {
        (52, 0..32) => word / 16 * HALF + 2 + word % 8 * 3 + word / 8 % 2,
        (52, 32..48) => word / 8 % 2 * HALF + 2 + word % 8 * 3 + 2,
        (52, _) => word / 2 % 2 * HALF + word % 2,
        _ => word,
    }
}

/// The fifth bits of a Q5_0 block, one for each column, as kernels want them: byte j holds those of the columns that stand
/// in byte j of the code words, bit v for the low nibble of word v and bit 4 + v for the high one.
fn spread_bits(bits: u32) -> u32 {
    (0..32).fold(0, |out, column| out | (bits >> column & 1) << bit_place(column))
}

/// The inverse of [`spread_bits`].
fn gather_bits(bits: u32) -> u32 {
    (0..32).fold(0, |out, column| out | (bits >> bit_place(column) & 1) << column)
}

/// Where the bit of a column stands: columns 4 v + j are low nibbles of word v, and 16 + 4 v + j high ones.
const fn bit_place(column: u32) -> u32 {
    let (j, v, high) = (column % 4, column / 4 % 4, column / 16);
    8 * j + 4 * high + v
}

/// Where pair `pair` of the 16 pairs of columns of group `group` stands for a row: which byte of the codes of the step,
/// and whether in its high nibble. A vector of 32 bytes has two pairs of bytes, one for each of its halves of 16 rows.
const fn pair_place(group: usize, pair: usize, row: usize) -> (usize, bool) {
    (group * 128 + pair / 2 * 16 + row, pair % 2 == 1)
}

/// The code of a column of a TQ2_0 block: which byte, and the shift within.
const fn ternary_place(column: usize) -> (usize, usize) {
    (column / 128 * 32 + column % 32, column % 128 / 32 * 2)
}

fn pack_pairs(block: &[u8], row: usize, codes: &mut [u8]) {
    let code = |column: usize| {
        let (byte, shift) = ternary_place(column);
        block[byte] >> shift & 3
    };
    for pair in 0..128 {
        let (at, high) = pair_place(pair / 16, pair % 16, row);
        let nibble = code(2 * pair) | code(2 * pair + 1) << 2;
        codes[at] |= if high { nibble << 4 } else { nibble };
    }
}

fn unpack_pairs(codes: &[u8], row: usize, block: &mut [u8]) {
    block[..64].fill(0);
    for column in 0..256 {
        let pair = column / 2;
        let (at, high) = pair_place(pair / 16, pair % 16, row);
        let code = codes[at] >> (if high { 4 } else { 0 } + column % 2 * 2) & 3;
        let (byte, shift) = ternary_place(column);
        block[byte] |= code << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUTS: [Layout; 4] = [Layout::Rows4Cols4, Layout::Rows8Cols4, Layout::Rows16Cols4, Layout::Rows16Pairs];

    #[test]
    fn unpacking_gives_back_every_byte_of_the_file() {
        for dtype in DType::ALL {
            for tile in LAYOUTS.into_iter().filter_map(|layout| Tile::new(dtype, layout)) {
                for blocks in [1, 2, 5] {
                    for rows in [1, 3, tile.rows] {
                        let k = blocks * dtype.block_len();
                        let row_bytes = dtype.row_bytes(k).unwrap();
                        let source: Vec<u8> = (0..rows * row_bytes).map(|i| (i * 167 + i / 251) as u8).collect();
                        let mut packed = vec![0; tile.bytes(k)];
                        tile.pack(&source, rows, k, &mut packed);
                        for row in 0..rows {
                            for b in 0..blocks {
                                let mut block = vec![0; dtype.block_bytes()];
                                tile.unpack_block(&packed, row, b, &mut block);
                                let want = &source[row * row_bytes + b * block.len()..][..block.len()];
                                assert_eq!(block, want, "{tile:?} rows={rows} row={row} block={b}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_of_a_step_start_on_multiples_of_their_size() {
        for dtype in DType::ALL {
            for tile in LAYOUTS.into_iter().filter_map(|layout| Tile::new(dtype, layout)) {
                assert_eq!(tile.parts().head % (2 * tile.rows), 0);
                assert_eq!(tile.step_bytes() % (4 * tile.rows), 0, "{tile:?}");
            }
        }
    }
}
