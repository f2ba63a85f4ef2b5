//! CUDA at run time: libraries found and loaded when they are wanted, kernels compiled by NVRTC, kept on disk, launched
//! and timed. Everything builds, and everything but the device itself works, on a machine without CUDA.
//!
//! - [`library`]: `libcuda` and `libnvrtc`, wherever they are.
//! - [`driver`]: a device, its memory, modules, streams and graphs.
//! - [`compile`]: source to cubin, in parallel, cached by content; registers, spills, instruction classes.

pub mod compile;
pub mod driver;
mod error;
pub mod library;

pub use error::CudaError;
