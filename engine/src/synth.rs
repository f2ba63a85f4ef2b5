//! Model files with random weights at the shapes of real models, to measure speed with no download and to test with.
//!
//! The file is a complete GGUF: weights quantised from normally distributed numbers, a byte-level tokenizer that
//! round-trips any text, a chat template, every metadata key the shape implies. llama.cpp loads it. What the model says
//! is noise. Nothing but one pool of blocks for each tensor type and row length is held in memory.

mod blocks;
mod scheme;
mod shape;
mod vocab;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use harness_spec::DType;

use crate::gguf::{GgufWriter, WriteError};
use crate::model::Architecture;
use blocks::BlockPools;
pub(crate) use scheme::Role;
pub use scheme::Scheme;
pub use shape::{RopeLlama3, Shape, shapes};

/// Why no file was made.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// No built-in shape has this name.
    #[error(
        "there is no model shape `{name}`\nhint: built in are {}; a path to a .toml file works too",
        shape::names()
    )]
    UnknownShape {
        /// The name asked for.
        name: String,
    },
    /// A shape file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A shape file that is not one.
    #[error("{name} is no model shape: {why}")]
    Toml {
        /// The file or the shape.
        name: String,
        /// What the parser says.
        why: String,
    },
    /// A shape that no model can have.
    #[error("the shape `{name}` is impossible: {why}")]
    Shape {
        /// The shape.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A scheme that does not exist.
    #[error("there is no quantisation `{name}`\nhint: one of {}", Scheme::names())]
    UnknownScheme {
        /// The name asked for.
        name: String,
    },
    /// The file cannot be made or named.
    #[error("cannot write {}: {source}\nhint: check the folder and the space left on it", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The data cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What to make of a shape.
#[derive(Clone, Copy, Debug)]
pub struct SynthOptions {
    /// The types of the weights.
    pub scheme: Scheme,
    /// Another number of blocks than the shape's.
    pub layers: Option<usize>,
    /// The same seed makes the same file.
    pub seed: u64,
}

/// Writes a model to a file and returns its size in bytes. The file appears under its name only when it is whole.
///
/// `progress` hears the bytes done and the bytes of the whole file.
///
/// # Errors
/// [`SynthError`] where the shape is impossible or the file cannot be written.
pub fn write_file(
    path: &Path,
    shape: &Shape,
    options: &SynthOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, SynthError> {
    let failed = |source| SynthError::Create { path: path.to_owned(), source };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).map_err(failed)?;
    let written = write(BufWriter::with_capacity(1 << 20, file), shape, options, progress);
    match written {
        Ok(bytes) => {
            std::fs::rename(&part, path).map_err(failed)?;
            Ok(bytes)
        }
        Err(error) => {
            // The part is worthless, and the error at hand says more than a failure to remove it would.
            let _ = std::fs::remove_file(&part);
            Err(match error {
                SynthError::Write(WriteError::Io(source)) => failed(source),
                other => other,
            })
        }
    }
}

/// Writes a model to a stream and returns its size in bytes.
///
/// # Errors
/// As [`write_file`].
pub fn write<W: Write>(
    out: W,
    shape: &Shape,
    options: &SynthOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, SynthError> {
    shape.check()?;
    let layers = options.layers.unwrap_or(shape.layers);
    if layers == 0 {
        return Err(shape.impossible("it has no layers".into()));
    }
    let mut writer = GgufWriter::new();
    metadata(&mut writer, shape, options, layers)?;
    for tensor in tensors(shape, options.scheme, layers)? {
        writer.tensor(&tensor.name, tensor.dtype, &tensor.dims)?;
    }
    let total = writer.file_bytes();
    let mut pools = BlockPools::new(shape, options.seed);
    let mut done = 0;
    writer.write(out, |name, dtype, dims, out| {
        done += pools.write_tensor(name, dtype, dims, out)?;
        progress(done.min(total), total);
        Ok(())
    })?;
    Ok(total)
}

/// A whole model in memory, for tests.
///
/// # Errors
/// As [`write_file`].
pub fn to_bytes(shape: &Shape, options: &SynthOptions) -> Result<Vec<u8>, SynthError> {
    let mut bytes = Vec::new();
    write(&mut bytes, shape, options, &mut |_, _| {})?;
    Ok(bytes)
}

fn metadata(writer: &mut GgufWriter, shape: &Shape, options: &SynthOptions, layers: usize) -> Result<(), SynthError> {
    let arch = shape.architecture()?.name();
    let key = |name: &str| format!("{arch}.{name}");
    let count = |n: usize| u32::try_from(n).map_err(|_| shape.impossible(format!("{n} does not fit the format")));
    writer.meta("general.architecture", arch);
    writer.meta("general.type", "model");
    writer.meta("general.name", format!("{} with random weights", shape.name));
    writer.meta("general.file_type", options.scheme.file_type());
    writer.meta("general.quantization_version", 2u32);
    writer.meta(&key("block_count"), count(layers)?);
    writer.meta(&key("context_length"), count(shape.context)?);
    writer.meta(&key("embedding_length"), count(shape.hidden)?);
    writer.meta(&key("feed_forward_length"), count(shape.inter)?);
    writer.meta(&key("attention.head_count"), count(shape.n_heads)?);
    writer.meta(&key("attention.head_count_kv"), count(shape.n_kv_heads)?);
    writer.meta(&key("attention.layer_norm_rms_epsilon"), shape.eps);
    writer.meta(&key("attention.key_length"), count(shape.head_dim)?);
    writer.meta(&key("attention.value_length"), count(shape.head_dim)?);
    writer.meta(&key("rope.freq_base"), shape.rope_base);
    writer.meta(&key("rope.dimension_count"), count(shape.head_dim)?);
    writer.meta(&key("vocab_size"), count(shape.vocab)?);
    if let Some(factor) = shape.rope_linear {
        writer.meta(&key("rope.scaling.type"), "linear");
        writer.meta(&key("rope.scaling.factor"), factor);
    }
    vocab::metadata(writer, shape);
    Ok(())
}

struct Tensor {
    name: String,
    dtype: DType,
    dims: Vec<usize>,
}

/// The tensors in the order in which they are written, which is the order in which a forward pass reads them.
fn tensors(shape: &Shape, scheme: Scheme, layers: usize) -> Result<Vec<Tensor>, SynthError> {
    let architecture = shape.architecture()?;
    let (hidden, inter) = (shape.hidden, shape.inter);
    let (q, kv) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
    let mut list = Vec::new();
    let mut matrix = |name: String, role, k, n| {
        list.push(Tensor { name, dtype: scheme.dtype(role, k, layers), dims: vec![k, n] });
    };
    let embed = if shape.tied_head { scheme::Role::Head } else { scheme::Role::Embed };
    matrix("token_embd.weight".into(), embed, hidden, shape.vocab);
    for layer in 0..layers {
        let mut projection =
            |name: &str, role: scheme::Role, k, n| matrix(format!("blk.{layer}.{name}.weight"), role, k, n);
        projection("attn_q", scheme::Role::Plain, hidden, q);
        projection("attn_k", scheme::Role::Plain, hidden, kv);
        projection("attn_v", scheme::Role::Sensitive { layer }, hidden, kv);
        projection("attn_output", scheme::Role::Plain, q, hidden);
        projection("ffn_gate", scheme::Role::Plain, hidden, inter);
        projection("ffn_up", scheme::Role::Plain, hidden, inter);
        projection("ffn_down", scheme::Role::Sensitive { layer }, inter, hidden);
    }
    if !shape.tied_head {
        matrix("output.weight".into(), scheme::Role::Head, hidden, shape.vocab);
    }
    let mut vector = |name: String, len| list.push(Tensor { name, dtype: DType::F32, dims: vec![len] });
    for layer in 0..layers {
        let mut of_layer = |name: &str, len| vector(format!("blk.{layer}.{name}"), len);
        of_layer("attn_norm.weight", hidden);
        of_layer("ffn_norm.weight", hidden);
        if shape.qkv_bias {
            of_layer("attn_q.bias", q);
            of_layer("attn_k.bias", kv);
            of_layer("attn_v.bias", kv);
        }
        if architecture == Architecture::Qwen3 {
            of_layer("attn_q_norm.weight", shape.head_dim);
            of_layer("attn_k_norm.weight", shape.head_dim);
        }
    }
    vector("output_norm.weight".into(), hidden);
    if shape.rope_llama3.is_some() {
        vector("rope_freqs.weight".into(), shape.head_dim / 2);
    }
    Ok(list)
}
