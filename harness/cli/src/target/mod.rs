//! Devices behind workers: what they say to each other, both sides of it, and how a device is opened.

mod child;
pub mod open;
pub mod protocol;
mod proxy;
pub mod worker;

pub use proxy::{Timeouts, WorkerError, WorkerTarget};
