//! A model in memory: what its metadata says, and its weights in the layout of the kernels that read them.

mod config;
mod load;
mod weights;

use std::sync::Arc;

use kernels::cpu::Matrix;

pub use config::{Architecture, Config, ConfigError, RopeConfig};
pub(crate) use load::{EMBED, HEAD, rope_factors};
pub use load::{LoadError, load_model};
pub(crate) use weights::Tensors;
pub use weights::{TensorFacts, WeightFacts};

/// One transformer block. Matrices are `[N, K]`, row-major: N outputs for each token of K inputs.
#[derive(Debug)]
pub struct Layer {
    /// RMSNorm weight before attention, `[hidden]`.
    pub attn_norm: Vec<f32>,
    /// Query projection, `[n_heads * head_dim, hidden]`.
    pub wq: Matrix,
    /// Key projection, `[n_kv_heads * head_dim, hidden]`.
    pub wk: Matrix,
    /// Value projection, `[n_kv_heads * head_dim, hidden]`.
    pub wv: Matrix,
    /// Output projection, `[hidden, n_heads * head_dim]`.
    pub wo: Matrix,
    /// Query bias, `[n_heads * head_dim]`, where the file has one.
    pub bq: Option<Vec<f32>>,
    /// Key bias, `[n_kv_heads * head_dim]`, where the file has one.
    pub bk: Option<Vec<f32>>,
    /// Value bias, `[n_kv_heads * head_dim]`, where the file has one.
    pub bv: Option<Vec<f32>>,
    /// RMSNorm weight of every query head, `[head_dim]` (qwen3).
    pub q_norm: Option<Vec<f32>>,
    /// RMSNorm weight of every key head, `[head_dim]` (qwen3).
    pub k_norm: Option<Vec<f32>>,
    /// RMSNorm weight before the feed-forward part, `[hidden]`.
    pub ffn_norm: Vec<f32>,
    /// Gate projection, `[inter, hidden]`.
    pub gate: Matrix,
    /// Up projection, `[inter, hidden]`.
    pub up: Matrix,
    /// Down projection, `[hidden, inter]`.
    pub down: Matrix,
}

/// A whole model.
#[derive(Debug)]
pub struct Model {
    /// Shapes and constants, all from the file's metadata.
    pub config: Config,
    /// Token embedding, `[vocab, hidden]`.
    pub embed: Arc<Matrix>,
    /// The blocks, first to last.
    pub layers: Vec<Layer>,
    /// RMSNorm weight before the head, `[hidden]`.
    pub out_norm: Vec<f32>,
    /// The head, `[vocab, hidden]`: the embedding itself where the file has no head of its own.
    pub head: Arc<Matrix>,
    /// What each rotation frequency is divided by, `[rope.dims / 2]`, where the file scales RoPE: by a tensor, linearly,
    /// or both.
    pub rope_factors: Option<Vec<f32>>,
    /// Counts and bytes of the tensors.
    pub facts: WeightFacts,
}

impl Model {
    /// Every matrix that a token reads whole, in order: the embedding is none of them unless it is the head.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let blocks = self.layers.iter().flat_map(|l| [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down]);
        blocks.chain([&*self.head])
    }
}
