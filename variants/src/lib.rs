//! Spaces of kernels and the tables that choose among them.
//!
//! A space lists the kernels of an op (`spaces/<op>.toml`, embedded) with their tunables, constraints and launch geometry;
//! a table names one variant for each op and shape. The kernels themselves are in the `kernels` crate, whose tests prove
//! that both name the same things.

mod enumerate;
mod expr;
mod formats;
mod isa;
mod layout;
mod limits;
mod occupancy;
mod registry;
mod space;
mod table;
mod user;

pub use enumerate::{Enumeration, Geometry, GeometryError};
pub use expr::{DEVICE, ExprError, FUNCTIONS};
pub use isa::{Isa, UnknownIsa};
pub use layout::{Activations, Layout};
pub use limits::Limits;
pub use occupancy::Occupancy;
pub use registry::{Registry, gemv_op, registry};
pub use space::{Backend, Dims, Instruction, KernelSpec, Launch, Role, Space, SpaceError};
pub use table::{
    Bucket, Choice, ChosenBy, LEAST_SHAPES, Loaded, MOST_REGRET, Regret, Row, ShapeTimes, TABLE_SCHEMA, Table,
    TableError, TableFile, buckets, built_in_tables, leave_one_out,
};

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
