//! The activations of a forward pass. Prompts and decoded tokens share them: all runs on one stream.

use kernels::cuda::CudaError;
use kernels::cuda::driver::Stream;
use kernels::cuda::exec::{Exec, Heads, Span};

use crate::model::Config;

pub use super::vram::PREFILL_TOKENS as CHUNK;

/// Everything that is neither weights nor keys and values.
#[derive(Debug)]
pub struct Buffers {
    /// Token, position, position + 1, and a word unused: u32 `[4]`.
    pub state: Span,
    /// Token ids of a prompt: u32 `[CHUNK]`.
    pub ids: Span,
    /// The position of a prompt's first token and that of its last: u32 `[2]`.
    pub positions: Span,
    /// The residual stream, f32 `[CHUNK, hidden]`.
    pub x: Span,
    /// What comes out of a norm, in the form of the next product.
    pub normed: Span,
    /// The same as int8, for products that want that: one token.
    pub slab: Span,
    /// Q, K and V before rotation, f32 `[CHUNK, joined]`.
    pub qkv: Span,
    /// Queries, f32 `[CHUNK, q_width]`.
    pub q: Span,
    /// The output of attention.
    pub mixed: Span,
    /// Gate and up, f32 `[CHUNK, 2 inter]`.
    pub gate_up: Span,
    /// The output of SwiGLU.
    pub inner: Span,
    /// A product before it is added, f32 `[hidden]`.
    pub product: Span,
    /// f32 `[vocab]`.
    pub logits: Span,
    /// Scratch memory of attention, zero between launches.
    pub attn_scratch: Span,
    /// The same of the head.
    pub head_scratch: Span,
}

impl Buffers {
    pub fn new(stream: &Stream, config: &Config, heads: Heads) -> Result<Buffers, CudaError> {
        let zeroed = |bytes: usize| Span::zeroed(stream, bytes, "activations");
        let widest = config.hidden.max(config.q_width()).max(config.inter);
        Ok(Buffers {
            state: zeroed(16)?,
            ids: zeroed(4 * CHUNK)?,
            positions: zeroed(8)?,
            x: zeroed(4 * CHUNK * config.hidden)?,
            normed: zeroed(4 * CHUNK * config.hidden)?,
            slab: zeroed(Exec::activation_bytes(widest))?,
            qkv: zeroed(4 * CHUNK * heads.joined())?,
            q: zeroed(4 * CHUNK * heads.q_width())?,
            mixed: zeroed(4 * CHUNK * heads.q_width() + 64)?,
            gate_up: zeroed(8 * CHUNK * config.inter)?,
            inner: zeroed(4 * CHUNK * config.inter + 64)?,
            product: zeroed(4 * config.hidden)?,
            logits: zeroed(4 * config.vocab)?,
            attn_scratch: zeroed(Exec::attn_scratch(heads))?,
            head_scratch: zeroed(Exec::head_scratch())?,
        })
    }
}
