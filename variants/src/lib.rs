//! Spaces of kernels and the tables that choose among them.
//!
//! A space lists the kernels of an op (`spaces/<op>.toml`, embedded); a table names one for each op. The kernels
//! themselves are in the `kernels` crate, whose tests prove that both name the same things.

mod isa;
mod registry;
mod space;
mod table;

pub use isa::{Isa, UnknownIsa};
pub use registry::{Registry, gemv_op, registry};
pub use space::{Activations, KernelSpec, Layout, Space};
pub use table::Table;
