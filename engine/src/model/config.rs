//! Shapes and constants of a model, read from metadata and from nothing else.

use std::fmt;
use std::num::NonZeroUsize;

use kernels::cpu::Pairing;

use crate::generate::KvType;
use crate::gguf::{Gguf, MetaError};

/// A model family whose forward pass the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama and what is built like it: SmolLM, Mistral. Its files hold permuted q and k weights.
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm on every query and key head.
    Qwen3,
}

impl Architecture {
    /// Every architecture the engine runs.
    pub const ALL: [Architecture; 3] = [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

    /// The name in `general.architecture`, which is also the prefix of the other keys.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    /// Which elements of a head are rotated together. Files of `llama` hold q and k permuted so that the pairs are
    /// neighbours; the others rotate element i with element i + dims/2. The wrong one gives fluent nonsense.
    pub const fn pairing(self) -> Pairing {
        match self {
            Architecture::Llama => Pairing::Adjacent,
            Architecture::Qwen2 | Architecture::Qwen3 => Pairing::Halves,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How positions are rotated into queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// θ: the base of the frequencies.
    pub base: f32,
    /// How many elements of each head are rotated; even, and at most `head_dim`.
    pub dims: usize,
    /// What positions are divided by under linear scaling, else 1. It is part of [`super::Model::rope_factors`] already.
    pub linear_factor: f32,
    /// Which elements are rotated together.
    pub pairing: Pairing,
}

/// Shapes and constants of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The model family.
    pub architecture: Architecture,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub inter: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context_train: usize,
    /// The ε of every RMSNorm.
    pub eps: f32,
    /// Rotation of queries and keys.
    pub rope: RopeConfig,
}

/// Metadata from which no model can be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is missing or has another type.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The engine has no forward pass for this family.
    #[error("architecture `{found}` is not supported\nhint: this engine runs {}", supported())]
    Architecture {
        /// What `general.architecture` says.
        found: String,
    },
    /// A value is outside what can be computed with.
    #[error("`{key}` is {found}, and must be {want}")]
    Value {
        /// The metadata key.
        key: String,
        /// Its value.
        found: String,
        /// The values accepted, in words.
        want: String,
    },
    /// The model scales its positions in a way that the engine does not compute.
    #[error(
        "RoPE scaling `{found}` is not supported\nhint: this engine knows none, linear, and factor tensors (rope_freqs.weight)"
    )]
    RopeScaling {
        /// What `rope.scaling.type` says.
        found: String,
    },
}

fn supported() -> String {
    Architecture::ALL.map(Architecture::name).join(", ")
}

/// More than any real model has: it bounds what a damaged file can make the loader reserve.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEAD_DIM: usize = 256;

impl Config {
    /// Reads the configuration; `vocab` comes from the token list, and where that is absent from `vocab_size`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key at fault.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config, ConfigError> {
        let name = gguf.str("general.architecture")?;
        let architecture = Architecture::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| ConfigError::Architecture { found: name.to_owned() })?;
        let keys = Keys { gguf, prefix: architecture.name() };

        let layers = keys.count("block_count", MAX_LAYERS)?;
        let hidden = keys.count("embedding_length", MAX_WIDTH)?;
        let inter = keys.count("feed_forward_length", MAX_WIDTH)?;
        let n_heads = keys.count("attention.head_count", MAX_WIDTH)?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", n_heads, MAX_WIDTH)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.value(
                "attention.head_count_kv",
                n_kv_heads,
                format!("a divisor of the {n_heads} query heads"),
            ));
        }
        let head_dim = match keys.optional("attention.key_length", MAX_WIDTH)? {
            Some(length) => length,
            None if hidden.is_multiple_of(n_heads) => hidden / n_heads,
            None => {
                let want = format!("a divisor of the embedding length {hidden}, as there is no attention.key_length");
                return Err(keys.value("attention.head_count", n_heads, want));
            }
        };
        // The attention kernels keep a head in registers, sixteen elements at a time.
        if !head_dim.is_multiple_of(16) || head_dim > MAX_HEAD_DIM {
            return Err(keys.value("attention.key_length", head_dim, format!("a multiple of 16 up to {MAX_HEAD_DIM}")));
        }
        let value_length = keys.count_or("attention.value_length", head_dim, MAX_WIDTH)?;
        if value_length != head_dim {
            return Err(keys.value(
                "attention.value_length",
                value_length,
                format!("equal to the key length {head_dim}"),
            ));
        }
        let vocab = match gguf.array_len("tokenizer.ggml.tokens") {
            Some(tokens) => tokens,
            None => keys.count("vocab_size", u32::MAX as usize)?,
        };
        let context_train = keys.count("context_length", u32::MAX as usize)?;
        let eps = keys.float("attention.layer_norm_rms_epsilon")?;
        if !(eps > 0.0 && eps < 1.0) {
            return Err(keys.value("attention.layer_norm_rms_epsilon", eps, "between 0 and 1".into()));
        }
        let rope = keys.rope(architecture, head_dim)?;
        Ok(Config {
            architecture,
            layers,
            hidden,
            inter,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab,
            context_train,
            eps,
            rope,
        })
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Bytes that one position takes in the KV cache of the whole model.
    pub fn kv_bytes_per_position(&self, kv: KvType) -> usize {
        2 * self.layers * self.n_kv_heads * kv.head_bytes(self.head_dim)
    }

    /// Bytes of keys and values of so many positions in each of so many slots. `u64::MAX` is more than can be counted:
    /// the header of a damaged file says anything.
    pub fn kv_bytes(&self, kv: KvType, context: usize, slots: NonZeroUsize) -> u64 {
        let slot = (self.kv_bytes_per_position(kv) as u64).saturating_mul(context as u64);
        slot.saturating_mul(slots.get() as u64)
    }
}

/// The keys under an architecture's prefix.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn value(&self, name: &str, found: impl fmt::Display, want: String) -> ConfigError {
        ConfigError::Value { key: self.key(name), found: found.to_string(), want }
    }

    fn checked(&self, name: &str, value: u64, most: usize) -> Result<usize, ConfigError> {
        match usize::try_from(value) {
            Ok(v) if v > 0 && v <= most => Ok(v),
            _ => Err(self.value(name, value, format!("1 to {most}"))),
        }
    }

    fn count(&self, name: &str, most: usize) -> Result<usize, ConfigError> {
        self.checked(name, self.gguf.uint(&self.key(name))?, most)
    }

    fn optional(&self, name: &str, most: usize) -> Result<Option<usize>, ConfigError> {
        match self.gguf.opt_uint(&self.key(name))? {
            Some(value) => self.checked(name, value, most).map(Some),
            None => Ok(None),
        }
    }

    fn count_or(&self, name: &str, default: usize, most: usize) -> Result<usize, ConfigError> {
        Ok(self.optional(name, most)?.unwrap_or(default))
    }

    fn float(&self, name: &str) -> Result<f32, ConfigError> {
        Ok(self.gguf.float(&self.key(name))?)
    }

    fn rope(&self, architecture: Architecture, head_dim: usize) -> Result<RopeConfig, ConfigError> {
        // Files converted before the key existed mean 10 000, as the first Llama did; the format says so.
        let base = self.gguf.opt_float(&self.key("rope.freq_base"))?.unwrap_or(10_000.0);
        if !(base.is_finite() && base > 1.0) {
            return Err(self.value("rope.freq_base", base, "above 1".into()));
        }
        let dims = self.count_or("rope.dimension_count", head_dim, MAX_WIDTH)?;
        if dims > head_dim || !dims.is_multiple_of(2) {
            return Err(self.value("rope.dimension_count", dims, format!("even and at most the head's {head_dim}")));
        }
        let kind = self.gguf.opt_str(&self.key("rope.scaling.type"))?.unwrap_or("");
        let factor = match self.gguf.opt_float(&self.key("rope.scaling.factor"))? {
            Some(factor) => Some(factor),
            None => self.gguf.opt_float(&self.key("rope.scale_linear"))?,
        };
        let linear_factor = match (kind, factor) {
            // The factor of `llama3` is spread over a factor tensor; the key only repeats it.
            ("none" | "llama3", _) | ("", None) => 1.0,
            ("linear" | "", Some(factor)) if factor.is_finite() && factor > 0.0 => factor,
            ("linear" | "", Some(factor)) => return Err(self.value("rope.scaling.factor", factor, "above 0".into())),
            ("linear", None) => 1.0,
            (other, _) => return Err(ConfigError::RopeScaling { found: other.to_owned() }),
        };
        Ok(RopeConfig { base, dims, linear_factor, pairing: architecture.pairing() })
    }
}
