//! The engine: GGUF files in, tokens out. It emits events and never times itself for a benchmark.
