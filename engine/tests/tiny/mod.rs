//! Small shapes for tests: everything that distinguishes the architectures, in a few thousand weights.
#![allow(dead_code)] // Each test file uses some of these.

use engine::gguf::Gguf;
use engine::synth::{RopeLlama3, Scheme, Shape, SynthOptions, to_bytes};

/// A tied llama without RoPE factors, four query heads on two key heads.
pub fn llama() -> Shape {
    Shape {
        name: "tiny-llama".into(),
        architecture: "llama".into(),
        hidden: 64,
        inter: 96,
        layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        vocab: 288,
        tied_head: true,
        qkv_bias: false,
        eps: 1e-5,
        rope_base: 1e4,
        context: 512,
        pre_tokenizer: "smollm".into(),
        rope_llama3: None,
        rope_linear: None,
    }
}

/// An untied llama whose positions past 16 are scaled by a factor tensor.
pub fn llama3() -> Shape {
    let rope = RopeLlama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    Shape {
        name: "tiny-llama3".into(),
        tied_head: false,
        rope_llama3: Some(rope),
        pre_tokenizer: "llama-bpe".into(),
        ..llama()
    }
}

/// A qwen2: biases, rotation by halves, one key head.
pub fn qwen2() -> Shape {
    Shape {
        name: "tiny-qwen2".into(),
        architecture: "qwen2".into(),
        n_kv_heads: 1,
        qkv_bias: true,
        eps: 1e-6,
        rope_base: 1e6,
        pre_tokenizer: "qwen2".into(),
        ..llama()
    }
}

/// A qwen3: norms on heads, which are wider together than the residual stream, and a key head for each query head.
pub fn qwen3() -> Shape {
    Shape {
        name: "tiny-qwen3".into(),
        architecture: "qwen3".into(),
        head_dim: 32,
        n_kv_heads: 4,
        eps: 1e-6,
        rope_base: 1e6,
        pre_tokenizer: "qwen2".into(),
        ..llama()
    }
}

/// The bytes of a model file.
pub fn bytes(shape: &Shape, scheme: Scheme, seed: u64) -> Vec<u8> {
    to_bytes(shape, &SynthOptions { scheme, layers: None, seed }).unwrap()
}

/// An open model file.
pub fn gguf(shape: &Shape, scheme: Scheme, seed: u64) -> Gguf {
    Gguf::from_bytes(bytes(shape, scheme, seed)).unwrap()
}
