//! CUDA at run time: libraries found and loaded when they are wanted, kernels compiled by NVRTC, kept on disk, launched
//! and timed. Everything builds, and everything but the device itself works, on a machine without CUDA.
//!
//! - [`library`]: `libcuda`, `libnvrtc` and `libcublasLt`, wherever they are.
//! - [`compile`]: source to cubin, in parallel, cached by content; registers, spills, instruction classes.
//! - [`driver`]: a device, its memory, modules, streams and graphs.
//! - [`kernel`]: from a kernel of a space to what compiler and launch need.
//! - [`blas`]: products of 16-bit and 32-bit floats by the library.
//! - [`code`]: what computes a variant, ours or the library's.
//! - [`exec`]: kernels put together to programs.
//! - [`survey`]: every variant compiled for every architecture.
//! - [`CudaRunner`]: one variant, as the correctness gate runs it.
//! - [`target`]: the device as the measurement core sees it.

pub mod blas;
pub mod code;
pub mod compile;
pub mod driver;
mod error;
pub mod exec;
mod failure;
pub mod kernel;
pub mod library;
mod packed;
mod runner;
pub mod survey;
pub mod target;

pub use blas::{Blas, Product};
pub use compile::built_in as built_in_source;
pub use error::CudaError;
pub use packed::{Packed, PackedWeights};
pub use runner::CudaRunner;
pub use target::CudaTarget;
