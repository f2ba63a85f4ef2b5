//! The shared words of the project: units, data types, workloads, variants, policies, the trait that devices
//! implement, and the records that every crate meets at.

pub mod dtype;
pub mod policy;
pub mod record;
pub mod target;
pub mod units;
pub mod variant;
pub mod words;
pub mod workload;

pub use dtype::DType;
pub use policy::{CacheState, LaunchMode, Policy};
pub use target::{
    Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, Phase, Prepared, Resources, Stage, Target,
};
pub use units::{Bytes, GbPerS, Nanos, TokPerS};
pub use variant::VariantId;
pub use words::in_words;
pub use workload::{Shape, Workload};
