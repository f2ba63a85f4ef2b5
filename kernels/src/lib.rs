//! Kernels of every op, with their references.
//!
//! - [`cpu`]: the ops on the processor: a pool, matrices, activations. Start with [`cpu::Cpu`].
//! - [`cuda`]: libraries, compiler, device and launches of CUDA, all at run time.
//! - [`quant`]: the block formats of weights.
//! - [`mod@reference`]: every op in f64 on decoded weights, the judge of all others.
//! - [`op`]: the contract of every op: cases, reference, tolerance, byte model.
//! - [`check`]: the correctness gate, which nothing is timed without.
//! - [`layout`]: how weights lie in memory for device kernels.
//! - [`alloc`]: memory for weights.
//!
//! Each op has a folder: `mod.rs` has the contract and the launch, `plain.rs` the portable kernel, and one file each
//! instruction set. Which of them runs is a matter of `variants`.

pub mod alloc;
mod argmax;
mod attention;
pub mod check;
pub mod cpu;
pub mod cuda;
mod gemv;
pub mod layout;
mod norm;
pub mod op;
mod parallel;
pub mod quant;
pub mod reference;
mod rope;

pub use variants::Isa;
