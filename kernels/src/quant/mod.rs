//! The block formats of GGUF: decoding to floats and simple round-to-nearest encoding.
//!
//! Every format is as ggml defines it. Decoding reads bytes through 2-byte halves at most, as that is all the alignment
//! a file guarantees for most blocks (GB7), and keeps subnormal scales (GB6).

mod floats;
mod k_blocks;
mod simple_blocks;
mod ternary_blocks;

use harness_spec::DType;

pub(crate) use k_blocks::{pack_scale_min, scale_min};

/// Why weights cannot be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The number of weights is no multiple of the block.
    #[error(
        "{dtype} rows hold blocks of {block}, so {k} weights do not fit: the file is damaged or of an unknown layout"
    )]
    Block {
        /// The weight type.
        dtype: DType,
        /// Weights in one of its blocks.
        block: usize,
        /// The number of weights asked for.
        k: usize,
    },
    /// The byte count is not that of the rows.
    #[error("{n} rows of {k} {dtype} weights take {want} bytes, got {got}: the file is truncated or damaged")]
    Size {
        /// The weight type.
        dtype: DType,
        /// Rows.
        n: usize,
        /// Weights in a row.
        k: usize,
        /// The bytes they take.
        want: usize,
        /// The bytes given.
        got: usize,
    },
    /// A ternary weight of code 3, which the format leaves undefined.
    #[error("TQ2_0 block {block} holds the code 3, which stands for no weight: the file is damaged")]
    TernaryCode {
        /// Which block, from the start of the tensor.
        block: usize,
    },
}

/// Checks that `bytes` hold exactly `n` rows of `k` weights, and that every code in them is legal.
///
/// # Errors
/// [`QuantError::Block`], [`QuantError::Size`], or [`QuantError::TernaryCode`] for a TQ2_0 code 3 (GB5).
pub fn validate(dtype: DType, n: usize, k: usize, bytes: &[u8]) -> Result<(), QuantError> {
    let row = dtype.row_bytes(k).ok_or(QuantError::Block { dtype, block: dtype.block_len(), k })?;
    let want = row.saturating_mul(n);
    if bytes.len() != want {
        return Err(QuantError::Size { dtype, n, k, want, got: bytes.len() });
    }
    if dtype == DType::TQ2_0
        && let Some(block) = ternary_blocks::first_illegal_tq2_0(bytes)
    {
        return Err(QuantError::TernaryCode { block });
    }
    Ok(())
}

/// Decodes `out.len()` weights from whole blocks.
///
/// # Panics
/// Where `bytes` is not exactly as long as `out.len()` weights of this type.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.row_bytes(out.len()), Some(bytes.len()), "{dtype}: {} weights", out.len());
    decode_blocks(dtype, bytes, out);
}

/// Decodes whole blocks, for callers that have checked the sizes. Always inlined, so that a caller compiled for AVX2 or
/// AVX-512 gets a decoder compiled for it.
#[inline(always)]
pub(crate) fn decode_blocks(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => floats::decode_f32(bytes, out),
        DType::F16 => floats::decode_f16(bytes, out),
        DType::BF16 => floats::decode_bf16(bytes, out),
        DType::Q4_0 => simple_blocks::decode_q4_0(bytes, out),
        DType::Q4_1 => simple_blocks::decode_q4_1(bytes, out),
        DType::Q5_0 => simple_blocks::decode_q5_0(bytes, out),
        DType::Q8_0 => simple_blocks::decode_q8_0(bytes, out),
        DType::Q4K => k_blocks::decode_q4_k(bytes, out),
        DType::Q5K => k_blocks::decode_q5_k(bytes, out),
        DType::Q6K => k_blocks::decode_q6_k(bytes, out),
        DType::TQ1_0 => ternary_blocks::decode_tq1_0(bytes, out),
        DType::TQ2_0 => ternary_blocks::decode_tq2_0(bytes, out),
    }
}

/// Encodes floats as blocks of `dtype` by rounding to nearest, and returns the bytes.
///
/// The scales are those of ggml's reference quantisers for the 32-weight and ternary blocks; for K-quants they come from
/// the extremes of each sub-block, without ggml's search. Meant for tests and synthetic models.
///
/// # Errors
/// [`QuantError::Block`] where `x` is no whole number of blocks.
pub fn quantize(dtype: DType, x: &[f32]) -> Result<Vec<u8>, QuantError> {
    let size = dtype.row_bytes(x.len()).ok_or(QuantError::Block { dtype, block: dtype.block_len(), k: x.len() })?;
    let mut bytes = vec![0; size];
    let encode = match dtype {
        DType::F32 => floats::encode_f32,
        DType::F16 => floats::encode_f16,
        DType::BF16 => floats::encode_bf16,
        DType::Q4_0 => simple_blocks::encode_q4_0,
        DType::Q4_1 => simple_blocks::encode_q4_1,
        DType::Q5_0 => simple_blocks::encode_q5_0,
        DType::Q8_0 => simple_blocks::encode_q8_0,
        DType::Q4K => k_blocks::encode_q4_k,
        DType::Q5K => k_blocks::encode_q5_k,
        DType::Q6K => k_blocks::encode_q6_k,
        DType::TQ1_0 => ternary_blocks::encode_tq1_0,
        DType::TQ2_0 => ternary_blocks::encode_tq2_0,
    };
    encode(x, &mut bytes);
    Ok(bytes)
}

/// The f16 at `at`. Not by `half`, whose conversion asks for the processor's instructions and calls a function of them every
/// time: of a block that is decoded that is a sixth.
#[inline(always)]
pub(crate) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    let bits = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    // Exponent and mantissa where a float has them; its exponents count from 112 further down.
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    let value = match bits & 0x7C00 {
        // Subnormal: beside the smallest normal number the mantissa counts, and without that it is left.
        0 => f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23),
        0x7C00 => f32::from_bits(magnitude + (224 << 23)),
        _ => f32::from_bits(magnitude + (112 << 23)),
    };
    f32::from_bits(value.to_bits() | u32::from(bits & 0x8000) << 16)
}

#[inline]
fn put_f16(bytes: &mut [u8], at: usize, value: f32) {
    bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
}

#[cfg(test)]
mod tests;
