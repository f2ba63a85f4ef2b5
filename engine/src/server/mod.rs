//! The server: Ollama's API and OpenAI's, streaming, in front of one engine.
//!
//! One thread runs the engine and sleeps when there is nothing to do; one more serves HTTP. A request is checked,
//! waits in a bounded queue for a slot of the engine, where answers take turns, and its tokens are sent one chunk each
//! as they come. A client that leaves cancels its request.

mod api_error;
mod app;
mod backend;
mod catalog;
mod clock;
mod engine_backend;
mod job;
mod keep_alive;
mod metrics;
mod ollama;
mod openai;
mod replies;
mod run;
mod stops;
mod turns;
mod under_way;
mod waiting;
mod worker;

pub use api_error::ApiError;
pub use backend::{Backend, DeviceFacts, LoadFailure, LoadWish, Loader, ModelFacts};
pub use catalog::ServedModel;
pub use engine_backend::EngineLoader;
pub use keep_alive::{KeepAlive, KeepAliveError};
pub use run::{ServeError, ServeOptions, StopOn, serve, serve_blocking};
pub use waiting::may_poll;

/// The port that `edgellm serve` listens on: one above Ollama's, so that both can run on one machine.
pub const DEFAULT_PORT: u16 = 11435;
