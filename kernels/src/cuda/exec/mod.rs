//! Kernels put together to programs: the dispatch table says which variant, an op wrapper checks sizes and binds buffers,
//! and what comes out is a [`Step`] that launches again and again, alone or as a node of a captured graph.
//!
//! - [`Span`]: a range of device memory that keeps its allocation alive.
//! - [`Exec`]: from op and shape to the kernel that runs it.
//! - `taken`: what a kernel must take to be chosen: the weights, and activations that there are.
//! - `bound`: from that kernel to a loaded function and its launch, each looked up once; what does not run
//!   leaves its place to the next.
//! - `decode`, `prefill`, `sample`: the safe wrappers of the ops. Each asserts that every buffer is as large as the op's contract
//!   says, which is what makes a launch sound.
//! - `ahead`: compiling all that a program needs at once, before any of it is bound.
//! - [`LengthClass`]: which graph of a token runs at which length.
//! - [`Overlap`]: which launches may start before the one ahead has ended.
//! - [`Program`]: steps in their order: run, captured, or timed one by one.

mod ahead;
mod bind;
mod bound;
mod decode;
mod kernels;
mod length;
mod overlap;
mod prefill;
mod program;
mod sample;
mod span;
mod taken;

pub use decode::{Cache, Heads, QkvRope, RopeAppend, Rotation};
pub use kernels::{Exec, Precision};
pub use length::LengthClass;
pub use overlap::Overlap;
pub use prefill::{AttnPrefill, Matmul};
pub use program::{Program, Step, StepTime};
pub use sample::SampleToken;
pub use span::{Span, Weights};
