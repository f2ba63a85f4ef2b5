//! The engine: GGUF files in, tokens out. It emits events and never times itself for a benchmark.

pub mod chat_template;
pub mod gguf;
pub mod tokenizer;
