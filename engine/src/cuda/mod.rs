//! A model on a CUDA device: weights, keys and values, activations, the present token and its position all live there. A
//! decoded token is the launch of one graph and four bytes back.
//!
//! - `weights`: a file's tensors on the device, in the layouts of the kernels that the table names.
//! - `decode`: the steps of one token, fused where there are kernels for it.
//! - `graphs`: those steps captured, for every class of lengths.
//! - `prompt`: many tokens at once.
//! - `sampled`: tokens drawn on the device.
//! - [`tune`]: which variants make a token fastest, in the engine itself.
//! - [`vram`]: how much memory that takes, before anything is loaded.
//! - [`CudaModel`]: what the engine drives.

mod buffers;
mod decode;
mod graphs;
mod model;
mod prompt;
mod sampled;
pub mod tune;
pub mod vram;
mod weights;

pub use model::{Counters, CudaModel};
