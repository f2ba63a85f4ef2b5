//! Random tensor data: real blocks, encoded once from normally distributed numbers, put together at random.
//!
//! Encoding every weight of a large model would take minutes. A pool of a few thousand blocks has the same values,
//! scales and speed, and rows drawn from it share a block at the same place once in thousands of pairs.

use std::collections::HashMap;
use std::io::{self, Write};

use harness_spec::DType;
use kernels::quant;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Shape;

/// Weights that a pool is made of.
const POOL_WEIGHTS: usize = 1 << 18;

pub(super) struct BlockPools {
    rng: ChaCha8Rng,
    pools: HashMap<(DType, usize, bool), Pool>,
    rope_factors: Vec<f32>,
}

struct Pool {
    bytes: Vec<u8>,
    /// Bytes of one piece, which never crosses a row.
    piece: usize,
}

impl BlockPools {
    pub fn new(shape: &Shape, seed: u64) -> BlockPools {
        let rope_factors =
            shape.rope_llama3.map(|scaling| scaling.factors(shape.rope_base, shape.head_dim)).unwrap_or_default();
        BlockPools { rng: ChaCha8Rng::seed_from_u64(seed), pools: HashMap::new(), rope_factors }
    }

    /// Writes one tensor and returns its bytes.
    pub fn write_tensor(&mut self, name: &str, dtype: DType, dims: &[usize], out: &mut dyn Write) -> io::Result<u64> {
        match *dims {
            [len] => self.write_vector(name, len, out),
            [k, n] => self.write_matrix(name, dtype, k, n, out),
            _ => unreachable!("the tensor list has vectors and matrices only"),
        }
    }

    fn write_vector(&mut self, name: &str, len: usize, out: &mut dyn Write) -> io::Result<u64> {
        let values: Vec<f32> = if name == "rope_freqs.weight" {
            self.rope_factors.clone()
        } else {
            // Norm weights lie around one and biases around zero; neither is constant, so that leaving one out shows.
            let mean = if name.ends_with(".bias") { 0.0 } else { 1.0 };
            (0..len).map(|_| mean + 0.1 * normal(&mut self.rng)).collect()
        };
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.write_all(&bytes)?;
        Ok(bytes.len() as u64)
    }

    fn write_matrix(&mut self, name: &str, dtype: DType, k: usize, n: usize, out: &mut dyn Write) -> io::Result<u64> {
        // The head's rows are longer vectors, so that logits spread enough for a clear best token.
        let head = matches!(name, "token_embd.weight" | "output.weight");
        let pool = self.pools.entry((dtype, k, head)).or_insert_with(|| Pool::new(&mut self.rng, dtype, k, head));
        let row_bytes = dtype.row_bytes(k).expect("the writer checked the row length");
        let pieces = row_bytes / pool.piece;
        let choices = (pool.bytes.len() / pool.piece) as u64;
        let mut row = Vec::with_capacity(row_bytes);
        for _ in 0..n {
            row.clear();
            for _ in 0..pieces {
                // The high half of a product maps 32 random bits to a choice without a division.
                let pick = ((u64::from(self.rng.next_u32()) * choices) >> 32) as usize;
                row.extend_from_slice(&pool.bytes[pick * pool.piece..][..pool.piece]);
            }
            out.write_all(&row)?;
        }
        Ok((n * row_bytes) as u64)
    }
}

impl Pool {
    fn new(rng: &mut ChaCha8Rng, dtype: DType, k: usize, head: bool) -> Pool {
        // A product with K weights of this deviation keeps the size of its input.
        let sigma = if head { 3.0 } else { 1.0 } / (k as f32).sqrt();
        let weights_in_piece = if k.is_multiple_of(256) { 256 } else { largest_piece(dtype, k) };
        let count = POOL_WEIGHTS.next_multiple_of(weights_in_piece);
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            // Pieces differ in scale, as blocks of real weights do: a scale taken from the wrong block shows.
            let scale = sigma * rng.random_range(0.5..1.5);
            values.extend((0..weights_in_piece).map(|_| scale * normal(rng)));
        }
        let bytes = quant::quantize(dtype, &values).expect("pieces are whole blocks");
        let piece = dtype.row_bytes(weights_in_piece).expect("pieces are whole blocks");
        Pool { bytes, piece }
    }
}

/// The longest piece of at most 256 weights that fills rows of `k` in whole blocks.
fn largest_piece(dtype: DType, k: usize) -> usize {
    let block = dtype.block_len();
    let pieces = (1..=256 / block).rev().map(|blocks| blocks * block).find(|piece| k.is_multiple_of(*piece));
    pieces.expect("the writer checked that rows are whole blocks")
}

/// A normally distributed number, by the method of Box and Muller (1958).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f32::consts::PI * v).cos()
}
