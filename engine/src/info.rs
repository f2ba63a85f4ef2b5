//! What a model file is, without loading its weights.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness_spec::{Bytes, DType};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::chat_template::ChatError;
use crate::generate::KvType;
use crate::gguf::Gguf;
use crate::model::{Config, LoadError, TensorFacts, WeightFacts};

/// Arrays in the metadata that are longer than this are left out of [`ModelInfo::metadata`]: token lists, mostly.
const LONGEST_ARRAY: usize = 64;

/// Facts about one model file.
#[derive(Debug)]
pub struct ModelInfo {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: Bytes,
    /// `general.name`, where the file has one.
    pub name: Option<String>,
    /// Shapes and constants.
    pub config: Config,
    /// Counts and bytes of the tensors.
    pub weights: WeightFacts,
    /// The quantisation by its usual name, such as `Q4_1`.
    pub quantization: String,
    /// The rule that cuts text into words.
    pub pre_tokenizer: String,
    /// The chat template, where the file has one.
    pub chat_template: Option<String>,
    /// All metadata but long arrays, which are null.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    sha256: OnceLock<String>,
}

impl ModelInfo {
    /// Reads the facts of a file.
    ///
    /// # Errors
    /// [`LoadError`] where the file is no model that the engine runs.
    pub fn read(path: &Path) -> Result<ModelInfo, LoadError> {
        ModelInfo::from_gguf(&Gguf::open(path)?)
    }

    /// Reads the facts of an open file.
    ///
    /// # Errors
    /// As [`ModelInfo::read`].
    pub fn from_gguf(gguf: &Gguf) -> Result<ModelInfo, LoadError> {
        let config = Config::from_gguf(gguf)?;
        let weights = WeightFacts::of(gguf);
        let text = |key| gguf.opt_str(key).map(|text| text.map(str::to_owned));
        let file_type = gguf.opt_uint("general.file_type").ok().flatten();
        Ok(ModelInfo {
            path: gguf.path().to_owned(),
            file_bytes: Bytes(gguf.mapping().bytes().len() as u64),
            name: gguf.opt_str("general.name").ok().flatten().map(str::to_owned),
            quantization: quantization(file_type, &weights.tensors),
            pre_tokenizer: text("tokenizer.ggml.pre").map_err(ChatError::from)?.unwrap_or_else(|| "default".to_owned()),
            chat_template: text("tokenizer.chat_template").map_err(ChatError::from)?,
            metadata: gguf.metadata_json(LONGEST_ARRAY),
            config,
            weights,
            sha256: OnceLock::new(),
        })
    }

    /// The file's SHA-256 in hexadecimal. Computed when first asked for, which takes about a second for each GB.
    ///
    /// # Errors
    /// What the system says where the file cannot be read any more.
    pub fn sha256(&self) -> io::Result<&str> {
        if let Some(known) = self.sha256.get() {
            return Ok(known);
        }
        // Read rather than hashed through the mapping, whose pages would count as this process's memory.
        let mut file = File::open(&self.path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
        let digest = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.sha256.get_or_init(|| digest))
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.weights.parameters
    }

    /// Number of weights as people write it: `134.52M`.
    pub fn parameter_size(&self) -> String {
        let n = self.weights.parameters as f64;
        match self.weights.parameters {
            0..1_000_000 => format!("{:.2}K", n / 1e3),
            1_000_000..1_000_000_000 => format!("{:.2}M", n / 1e6),
            _ => format!("{:.2}B", n / 1e9),
        }
    }

    /// Weight bytes that are read for one decoded token.
    pub fn weight_bytes_per_token(&self) -> Bytes {
        Bytes(self.weights.bytes_per_token)
    }

    /// Bytes that each position adds to what decoding a token reads, and to the KV cache.
    pub fn kv_bytes_per_position(&self, kv: KvType) -> Bytes {
        Bytes(self.config.kv_bytes_per_position(kv) as u64)
    }

    /// The facts as JSON, for `--json` and for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let c = &self.config;
        let tensors: serde_json::Map<_, _> = self
            .weights
            .tensors
            .iter()
            .map(|(dtype, facts)| (dtype.name().to_owned(), json!({ "count": facts.count, "bytes": facts.bytes })))
            .collect();
        json!({
            "path": self.path,
            "name": self.name,
            "file_bytes": self.file_bytes,
            "architecture": c.architecture.name(),
            "quantization": self.quantization,
            "parameters": self.weights.parameters,
            "layers": c.layers,
            "hidden": c.hidden,
            "inter": c.inter,
            "n_heads": c.n_heads,
            "n_kv_heads": c.n_kv_heads,
            "head_dim": c.head_dim,
            "vocab": c.vocab,
            "context_train": c.context_train,
            "eps": c.eps,
            "rope_base": c.rope.base,
            "tensors": tensors,
            "weight_bytes_per_token": self.weights.bytes_per_token,
            "kv_bytes_per_position_f16": c.kv_bytes_per_position(KvType::F16),
            "kv_bytes_per_position_f32": c.kv_bytes_per_position(KvType::F32),
            "kv_bytes_per_position_int8": c.kv_bytes_per_position(KvType::Int8),
            "pre_tokenizer": self.pre_tokenizer,
            "chat_template": self.chat_template,
        })
    }
}

/// The name of llama.cpp's file type; where the file names none, the type that most bytes have.
fn quantization(file_type: Option<u64>, tensors: &BTreeMap<DType, TensorFacts>) -> String {
    let name = match file_type {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(32) => "BF16",
        Some(36) => "TQ1_0",
        Some(37) => "TQ2_0",
        _ => tensors.iter().max_by_key(|(_, facts)| facts.bytes).map_or("unknown", |(dtype, _)| dtype.name()),
    };
    name.to_owned()
}
