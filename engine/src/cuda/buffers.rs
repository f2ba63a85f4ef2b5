//! The activations of a forward pass. Prompts and decoded tokens share them: all runs on one stream.

use kernels::cuda::CudaError;
use kernels::cuda::driver::Stream;
use kernels::cuda::exec::{Exec, Span};

use crate::model::Config;

pub use super::vram::PREFILL_TOKENS as CHUNK;
use super::vram::aligned;
use super::weights::heads;

/// Everything that is neither weights nor keys and values.
#[derive(Clone, Debug)]
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
    /// Scratch memory of attention, and of what appends to a cache in int8; zero between launches.
    pub attn_scratch: Span,
    /// The same of the head.
    pub head_scratch: Span,
}

/// Bytes of each of [`Buffers`], in the order of its fields.
fn sizes(config: &Config) -> [usize; 15] {
    let heads = heads(config);
    let widest = config.hidden.max(heads.q_width()).max(config.inter);
    let floats = |count: usize| 4 * count;
    [
        16,
        floats(CHUNK),
        8,
        floats(CHUNK * config.hidden),
        floats(CHUNK * config.hidden),
        Exec::activation_bytes(widest),
        floats(CHUNK * heads.joined()),
        floats(CHUNK * heads.q_width()),
        floats(CHUNK * heads.q_width()) + 64,
        floats(CHUNK * 2 * config.inter),
        floats(CHUNK * config.inter) + 64,
        floats(config.hidden),
        floats(config.vocab),
        Exec::attn_scratch(heads),
        Exec::head_scratch(),
    ]
}

/// Bytes that all buffers of a model take, however short its context is, and those of them that each further slot takes.
pub fn bytes(config: &Config) -> (u64, u64) {
    let [state, ..] = sizes(config);
    (sizes(config).into_iter().map(aligned).sum(), aligned(state))
}

impl Buffers {
    /// For one slot.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(stream: &Stream, config: &Config) -> Result<Buffers, CudaError> {
        let zeroed = |bytes: usize| zeroed(stream, bytes);
        let [state, ids, positions, x, normed, slab, qkv, q, mixed, gate_up, inner, product, logits, attn, head] =
            sizes(config);
        Ok(Buffers {
            state: zeroed(state)?,
            ids: zeroed(ids)?,
            positions: zeroed(positions)?,
            x: zeroed(x)?,
            normed: zeroed(normed)?,
            slab: zeroed(slab)?,
            qkv: zeroed(qkv)?,
            q: zeroed(q)?,
            mixed: zeroed(mixed)?,
            gate_up: zeroed(gate_up)?,
            inner: zeroed(inner)?,
            product: zeroed(product)?,
            logits: zeroed(logits)?,
            attn_scratch: zeroed(attn)?,
            head_scratch: zeroed(head)?,
        })
    }

    /// For one slot more: what a token leaves for the next one of its answer is its own, everything else shared, as all runs
    /// on one stream and nothing else outlives a turn.
    ///
    /// # Errors
    /// No room on the device.
    pub fn beside(&self, stream: &Stream) -> Result<Buffers, CudaError> {
        Ok(Buffers { state: zeroed(stream, self.state.len())?, ..self.clone() })
    }
}

fn zeroed(stream: &Stream, bytes: usize) -> Result<Span, CudaError> {
    Span::zeroed(stream, bytes, "activations")
}
