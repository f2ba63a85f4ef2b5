//! From a file to a model: every tensor asked for by name, at the shape that the metadata implies.

use std::sync::Arc;

use kernels::cpu::{BuildError, Cpu, Precision};
use kernels::cuda::CudaError;
use variants::{Isa, TableError, UnknownIsa};

use super::config::{Architecture, Config, ConfigError};
use super::weights::{Source, Tensors, WeightFacts};
use super::{Layer, Model};
use crate::chat_template::ChatError;
use crate::generate::KvType;
use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::TokenizerError;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not readable GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The metadata describes no model that the engine runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot be compiled.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A tensor of the architecture is not in the file.
    #[error(
        "the file has no tensor `{tensor}`\nhint: it is incomplete, or one part of a split model; join the parts with llama-gguf-split --merge"
    )]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor that the forward pass has no place for.
    #[error(
        "the file has a tensor `{tensor}`, which the architecture does not use\nhint: this is a variant of the architecture that the engine does not run; leaving the tensor out would give wrong answers"
    )]
    UnusedTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor whose shape does not follow from the metadata.
    #[error(
        "tensor `{tensor}` has the shape {found:?}, and the metadata implies {want:?} (row length first)\nhint: the file is damaged or its metadata was edited; convert it again"
    )]
    TensorShape {
        /// Its name.
        tensor: String,
        /// Its dimensions, the row length first.
        found: Vec<usize>,
        /// What they must be.
        want: Vec<usize>,
    },
    /// A tensor that no kernel takes.
    #[error("tensor `{tensor}`: {source}")]
    Matrix {
        /// Its name.
        tensor: String,
        /// What the kernel says.
        source: BuildError,
    },
    /// An instruction set that the machine lacks.
    #[error(
        "this machine has no {asked} instructions\nhint: its best is {best}; leave the choice out, or take that or a lower one"
    )]
    Isa {
        /// What was asked for.
        asked: Isa,
        /// The best that the machine has.
        best: Isa,
    },
    /// A word that names no instruction set.
    #[error("EDGELLM_ISA: {0}")]
    IsaName(#[from] UnknownIsa),
    /// A table that was asked for by its path and cannot be used.
    #[error("--table: {0}")]
    Table(#[source] TableError),
    /// A table that was asked for by its path and is that of another kind of device.
    #[error(
        "--table: {} is a table for {found} and the model is loaded for {here}\nhint: choose a table of this device, or --table default",
        path.display()
    )]
    TableBackend {
        /// The file.
        path: std::path::PathBuf,
        /// What the table is for.
        found: String,
        /// What the model is loaded for.
        here: &'static str,
    },
    /// Keys and values of a type that the device has no kernels for.
    #[error("--kv {asked} is not possible on {device}, which has {has}\nhint: choose one of these, or leave --kv out")]
    Kv {
        /// The type asked for.
        asked: KvType,
        /// The device, in words.
        device: &'static str,
        /// The types that it has, in words.
        has: &'static str,
    },
    /// The device that was asked for is not there, or CUDA failed on it.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A word that names no architecture.
    #[error("EDGELLM_CUDA_ARCH: {0}")]
    CudaArch(#[source] kernels::cuda::compile::NotAnArch),
    /// A model that the CUDA engine has no kernels for.
    #[error("the CUDA engine does not run this model: {what}\nhint: --device cpu runs it")]
    NotOnCuda {
        /// What it has no kernel for.
        what: String,
    },
    /// A model that is larger than what is free on the device.
    #[error(
        "the model needs {} MiB of GPU memory and {} MiB are free on {device}\nhint: {}",
        mib_needed(*need),
        free >> 20,
        fix
    )]
    Vram {
        /// Bytes needed; `u64::MAX` is more than can be counted.
        need: u64,
        /// Bytes free.
        free: u64,
        /// The device's name.
        device: String,
        /// What would help.
        fix: String,
    },
    /// A model with its slots that is larger than what this machine has left, or may use.
    #[error(
        "the model needs {} MiB of memory and {} MiB are available\nhint: {}",
        mib_needed(*need),
        available >> 20,
        fix
    )]
    Memory {
        /// Bytes needed; `u64::MAX` is more than can be counted.
        need: u64,
        /// Bytes available.
        available: u64,
        /// What would help.
        fix: String,
    },
    /// No threads to run on.
    #[error("0 threads cannot run a model\nhint: leave the number out to take one for each core")]
    NoThreads,
    /// A context without positions.
    #[error("a context of {asked} positions is not possible\nhint: this model takes 2 to {most}")]
    Context {
        /// What was asked for.
        asked: usize,
        /// The context that the model was trained for.
        most: usize,
    },
}

/// A need in MiB, rounded up.
fn mib_needed(bytes: u64) -> String {
    match bytes {
        u64::MAX => format!("more than {}", bytes >> 20),
        _ => bytes.div_ceil(1 << 20).to_string(),
    }
}

pub(crate) const EMBED: &str = "token_embd.weight";
pub(crate) const HEAD: &str = "output.weight";

/// Loads the weights of a file.
///
/// # Errors
/// [`LoadError`] names the tensor or key at fault.
pub fn load_model(gguf: &Gguf, cpu: &Cpu, precision: Precision) -> Result<Model, LoadError> {
    let config = Config::from_gguf(gguf)?;
    let mut source = Source::new(gguf, cpu, precision);
    let embed = Arc::new(source.matrix(EMBED, config.vocab, config.hidden)?);
    let layers = (0..config.layers).map(|i| load_layer(&mut source, &config, i)).collect::<Result<Vec<_>, _>>()?;
    let out_norm = source.tensors.vector("output_norm.weight", config.hidden)?;
    let head = match source.tensors.has(HEAD) {
        true => Arc::new(source.matrix(HEAD, config.vocab, config.hidden)?),
        false => Arc::clone(&embed),
    };
    let rope_factors = rope_factors(&mut source.tensors, &config)?;
    source.tensors.finish()?;
    let facts = WeightFacts::of(gguf);
    Ok(Model { config, embed, layers, out_norm, head, rope_factors, facts })
}

fn load_layer(source: &mut Source<'_>, config: &Config, layer: usize) -> Result<Layer, LoadError> {
    let name = |tensor: &str| format!("blk.{layer}.{tensor}");
    let (hidden, inter) = (config.hidden, config.inter);
    let (q, kv) = (config.q_width(), config.kv_width());
    // Norms on heads are part of Qwen3's forward pass and of no other's; elsewhere such a tensor is refused as unused.
    let head_norms = config.architecture == Architecture::Qwen3;
    let head_norm = |source: &mut Source<'_>, tensor| -> Result<Option<Vec<f32>>, LoadError> {
        if head_norms { source.tensors.vector(&name(tensor), config.head_dim).map(Some) } else { Ok(None) }
    };
    Ok(Layer {
        attn_norm: source.tensors.vector(&name("attn_norm.weight"), hidden)?,
        wq: source.matrix(&name("attn_q.weight"), q, hidden)?,
        wk: source.matrix(&name("attn_k.weight"), kv, hidden)?,
        wv: source.matrix(&name("attn_v.weight"), kv, hidden)?,
        wo: source.matrix(&name("attn_output.weight"), hidden, q)?,
        bq: source.tensors.optional_vector(&name("attn_q.bias"), q)?,
        bk: source.tensors.optional_vector(&name("attn_k.bias"), kv)?,
        bv: source.tensors.optional_vector(&name("attn_v.bias"), kv)?,
        q_norm: head_norm(source, "attn_q_norm.weight")?,
        k_norm: head_norm(source, "attn_k_norm.weight")?,
        ffn_norm: source.tensors.vector(&name("ffn_norm.weight"), hidden)?,
        gate: source.matrix(&name("ffn_gate.weight"), inter, hidden)?,
        up: source.matrix(&name("ffn_up.weight"), inter, hidden)?,
        down: source.matrix(&name("ffn_down.weight"), hidden, inter)?,
    })
}

/// What each frequency is divided by: the factor tensor and linear scaling, where the file has them.
pub(crate) fn rope_factors(tensors: &mut Tensors<'_>, config: &Config) -> Result<Option<Vec<f32>>, LoadError> {
    let tensor = tensors.optional_vector("rope_freqs.weight", config.rope.dims / 2)?;
    let linear = config.rope.linear_factor;
    if linear == 1.0 {
        return Ok(tensor);
    }
    let mut factors = tensor.unwrap_or_else(|| vec![1.0; config.rope.dims / 2]);
    factors.iter_mut().for_each(|factor| *factor *= linear);
    Ok(Some(factors))
}
