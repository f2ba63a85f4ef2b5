//! gemv_ternary / lut@avx2: y = W · x by table look-up in registers (V92).
//!
//!   W  TQ2_0 in `rows16_pairs` (`tile`)       x  a8/32 [tokens, K]       y  f32 [tokens, 16]
//!
//! A nibble of two neighbouring codes is the index into a table of the sixteen sums that its two activations can give,
//! (a - 1) x + (b - 1) x'. A sum takes nine bits, so a table is two of bytes, and `pshufb` looks up sixteen rows in each.
//! Half a vector belongs to another pair of columns and so to another table (B12). The sixteen sums of a group of 32 are
//! added in 16 bits: at most 16 · 254 = 4,064. The integer part is exact.
//!
//! Tables take sixteen bytes an activation. A thread builds those of a token once and keeps them for all its rows.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::{GROUP_ROWS, MAX_TOKENS, Unit};
use crate::cpu::act::{GROUP, QuantPtr, padded};

/// Bytes of a step of 256 columns: d 32, pad 32, codes 8 x 128.
const STEP: usize = 64 + 1024;
/// Bytes of the tables of a group: for four vectors, both nibbles, low bytes and high bytes.
const GROUP_TABLES: usize = 4 * 4 * 32;

/// The tables of the tokens of one set of activations, in the order of a batch.
struct Tables {
    /// The activations that they were built from (`Act::version`), and the first token of the batch.
    of: (u64, usize),
    /// Which tokens of the batch are built.
    built: [bool; MAX_TOKENS],
    bytes: Vec<u8>,
}

thread_local! {
    static TABLES: RefCell<Tables> =
        const { RefCell::new(Tables { of: (u64::MAX, 0), built: [false; MAX_TOKENS], bytes: Vec::new() }) };
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unit(unit: &Unit<'_>, panel: &mut [f32]) {
    let steps = unit.k.div_ceil(256);
    let (first, count) = unit.tokens;
    assert!(unit.bytes.len() == steps * STEP && count <= MAX_TOKENS, "a unit is one run of tiles");
    let size = padded(unit.k) / GROUP * GROUP_TABLES;
    TABLES.with_borrow_mut(|tables| {
        let of = (unit.act.version(), first);
        if tables.of != of {
            tables.of = of;
            tables.built = [false; MAX_TOKENS];
        }
        if tables.bytes.len() < count * size {
            tables.bytes.resize(count * size, 0);
        }
        for token in 0..count {
            let x = unit.act.quant_row(first + token);
            let bytes = &mut tables.bytes[token * size..][..size];
            // SAFETY: the row holds the activations of every group of the tables; the bytes hold `steps` steps of eight
            // groups, and the tables those of as many groups, as K is whole blocks of 256.
            let sums = unsafe {
                if !tables.built[token] {
                    build(x, bytes);
                    tables.built[token] = true;
                }
                rows(unit.bytes.as_ptr(), steps, bytes.as_ptr(), x)
            };
            panel[token * GROUP_ROWS..][..16].copy_from_slice(&sums);
        }
    });
}

/// The tables of every group of a row.
///
/// # Safety
/// The row holds 32 activations for every `GROUP_TABLES` of `out`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn build(x: QuantPtr, out: &mut [u8]) {
    for (group, out) in out.chunks_exact_mut(GROUP_TABLES).enumerate() {
        for (i, out) in out.chunks_exact_mut(64).enumerate() {
            // Vector i / 2: the low nibbles are pairs 4 u and 4 u + 2 (one each half), the high ones 4 u + 1 and 4 u + 3.
            let pair = 4 * (i / 2) + i % 2;
            // SAFETY: pair + 2 < 16, so both reads are of the group's 32 activations; `out` has 64 bytes.
            unsafe {
                let at = |pair: usize| x.q.add(32 * group + 2 * pair).cast::<i16>().read_unaligned();
                let (one, other) = (sums_of(at(pair)), sums_of(at(pair + 2)));
                let low = _mm256_set1_epi16(0xff);
                let bytes = [
                    _mm256_packus_epi16(_mm256_and_si256(one, low), _mm256_and_si256(other, low)),
                    _mm256_packus_epi16(_mm256_srli_epi16::<8>(one), _mm256_srli_epi16::<8>(other)),
                ];
                for (half, bytes) in bytes.into_iter().enumerate() {
                    // Packing works within halves: 0..8 of one, 0..8 of the other, 8..16 of one, 8..16 of the other.
                    let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
                    _mm256_storeu_si256(out.as_mut_ptr().add(32 * half).cast(), ordered);
                }
            }
        }
    }
}

/// The sixteen sums (a - 1) x + (b - 1) x' of a pair of activations, at a + 4 b.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sums_of(pair: i16) -> __m256i {
    // Bytes a, b of entry a + 4 b, the sixteen entries in order.
    let codes = _mm256_setr_epi8(
        0, 0, 1, 0, 2, 0, 3, 0, 0, 1, 1, 1, 2, 1, 3, 1, 0, 2, 1, 2, 2, 2, 3, 2, 0, 3, 1, 3, 2, 3, 3, 3,
    );
    let x = _mm256_set1_epi16(pair);
    let both = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
    _mm256_sub_epi16(_mm256_maddubs_epi16(codes, x), both)
}

/// The products of sixteen rows with one token.
///
/// # Safety
/// `tiles` points at `steps` steps, `tables` at the tables of `8 * steps` groups, and `x` at a row of as many.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows(tiles: *const u8, steps: usize, tables: *const u8, x: QuantPtr) -> [f32; 16] {
    let mut acc = [_mm256_setzero_ps(); 2];
    let mask = _mm256_set1_epi8(15);
    for step in 0..steps {
        // SAFETY: the step holds the scales and codes of its eight groups, and row and tables hold every group.
        unsafe {
            let at = tiles.add(step * STEP);
            let d = [0, 16].map(|from| _mm256_cvtph_ps(_mm_loadu_si128(at.add(from).cast())));
            for sub in 0..8 {
                let group = 8 * step + sub;
                // Rows 0..8 and rows 8..16, each in both halves for different pairs of columns.
                let mut sums = [_mm256_setzero_si256(); 2];
                for u in 0..4 {
                    let both = _mm256_loadu_si256(at.add(64 + sub * 128 + u * 32).cast());
                    let nibbles = [_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask)];
                    for (i, nibble) in nibbles.into_iter().enumerate() {
                        let table = tables.add(group * GROUP_TABLES + u * 128 + i * 64);
                        let low = _mm256_shuffle_epi8(_mm256_loadu_si256(table.cast()), nibble);
                        let high = _mm256_shuffle_epi8(_mm256_loadu_si256(table.add(32).cast()), nibble);
                        sums[0] = _mm256_add_epi16(sums[0], _mm256_unpacklo_epi8(low, high));
                        sums[1] = _mm256_add_epi16(sums[1], _mm256_unpackhi_epi8(low, high));
                    }
                }
                let s = _mm256_set1_ps(*x.s.add(group));
                for i in 0..2 {
                    let (one, other) = (_mm256_castsi256_si128(sums[i]), _mm256_extracti128_si256::<1>(sums[i]));
                    let isum = _mm256_cvtepi16_epi32(_mm_add_epi16(one, other));
                    acc[i] = _mm256_fmadd_ps(_mm256_mul_ps(d[i], s), _mm256_cvtepi32_ps(isum), acc[i]);
                }
            }
        }
    }
    let mut out = [0.0; 16];
    for (out, acc) in out.chunks_exact_mut(8).zip(acc) {
        // SAFETY: `out` has eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}
