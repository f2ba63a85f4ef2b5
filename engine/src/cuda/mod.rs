//! A model on a CUDA device: weights, keys and values, activations, the present token and its position all live there. A
//! decoded token is the launch of one graph and four bytes back.
//!
//! - `weights`: a file's tensors on the device, in the layouts of the kernels that the table names.
//! - `decode`: the steps of one token, fused where there are kernels for it.
//! - `fit`: whether there are kernels for a model, before anything is loaded.
//! - `graphs`: those steps captured, for every class of lengths.
//! - `prompt`: many tokens at once.
//! - `ring`: where the host hears of tokens.
//! - `sampled`: tokens drawn on the device.
//! - [`breakdown`]: what each step of a token costs.
//! - [`vram`]: how much memory that takes, before anything is loaded.
//! - [`CudaModel`]: what the engine drives.

pub mod breakdown;
mod buffers;
mod decode;
mod fit;
mod graphs;
mod model;
mod prompt;
mod ring;
mod sampled;
pub mod vram;
mod weights;

pub use model::{Counters, CudaModel, DecodedBy, Launching};
pub use weights::fused_forms;

/// Tokens of a prompt that go through the graph of one token: what is left of its chunks, where it is so little that a chunk
/// of its own would take longer. A model whose matrices have no product for many tokens takes all of a prompt that way.
pub const fn single_tokens(prompt: u64) -> u64 {
    let rest = prompt % vram::PREFILL_TOKENS as u64;
    if rest <= prompt::FEW as u64 { rest } else { 0 }
}
