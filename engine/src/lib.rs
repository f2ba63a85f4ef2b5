//! The engine: GGUF files in, tokens out. It emits events and never times itself for a benchmark.

mod backend;
pub mod chat_template;
pub mod cuda;
pub mod device;
pub mod engine;
pub mod eval;
pub mod forward;
pub mod generate;
mod generation;
pub mod gguf;
mod host_memory;
pub mod info;
pub mod kv_cache;
mod kv_type;
pub mod launched;
pub mod model;
pub mod models;
pub mod reference;
pub mod requantize;
pub mod sampler;
pub mod server;
mod smaller;
mod stop;
pub mod synth;
pub mod tables;
pub mod tokenizer;

pub use engine::Engine;
