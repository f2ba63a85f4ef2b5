//! Devices behind workers: what they say to each other, both sides of it, and how a device is opened.

mod child;
mod in_engine;
pub mod open;
pub mod protocol;
mod proxy;
pub mod worker;

pub use protocol::{EngineFacts, EngineRequest, EngineStep};
pub use proxy::{Timeouts, WorkerError, WorkerTarget};
