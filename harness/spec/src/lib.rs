//! The shared words of the project: units, data types, and the records that every crate meets at.

pub mod dtype;
pub mod record;
pub mod units;

pub use dtype::DType;
pub use units::{Bytes, GbPerS, Nanos, TokPerS};
