//! The correctness gate: every input of an op's contract, run on anything that implements [`Runner`](crate::op::Runner).
//!
//! Nothing is timed that has not passed. A failure names the input that exposed it. [`TimedCheck`] then looks at launches
//! that are timed, as passing once does not mean that a kernel does its work when it is measured.

mod compare;
mod gate;
mod slabs;
mod timed;

pub use compare::{Errors, Expected, Floats, Mismatch, Norms, Want, compare};
pub use gate::{Gate, overflow, run};
pub use slabs::Slabs;
pub use timed::{Fill, Slot, TimedCheck};
