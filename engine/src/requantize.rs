//! A model file with its weights in other types: decoded, widened to whole blocks where asked, and encoded again.
//!
//! For holding every type of weights against its own decoded self on a real model. Encoding rounds to nearest without the
//! searches of `llama-quantize`: the file is for comparing kernels and says little about what a type costs in quality.
//!
//! K-quants take rows of 256 and many small models have none. [`Requantize::whole_blocks`] widens such a model to the next
//! multiple without changing what it computes: new columns, rows and heads are zero, and the norms make up for the mean over a
//! wider residual stream. Norms of heads, which Qwen3 has, share the ε that changes with it: there the result differs by as
//! much as ε matters.

use harness_spec::DType;
use kernels::quant;

use crate::gguf::{Gguf, GgufError, GgufWriter, MetaError, TensorInfo, WriteError};
use crate::model::{Config, ConfigError, EMBED, HEAD};
use crate::synth::{Role, Scheme};

/// What rows of every type are whole blocks of.
const WHOLE: usize = 256;

/// What to make of the weights of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requantize {
    /// The type of every matrix, the embedding and the head among them. [`Scheme::Q4KM`] and the ternary ones alone mix
    /// types, as `llama-quantize` does. Where a type's blocks do not fill a row, its fallback is taken.
    pub scheme: Scheme,
    /// Whether the model is widened until they do.
    pub whole_blocks: bool,
}

/// Why no file was made.
#[derive(Debug, thiserror::Error)]
pub enum RequantizeError {
    /// The file is no model that the engine runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its metadata cannot be copied.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A row that the type does not take, or what the system says.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file that was made cannot be read.
    #[error("the requantised model cannot be read back: {0}")]
    Read(#[from] GgufError),
}

/// The widths of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Widths {
    hidden: usize,
    inter: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl Widths {
    fn of(config: &Config) -> Widths {
        let &Config { hidden, inter, n_heads, n_kv_heads, head_dim, .. } = config;
        Widths { hidden, inter, n_heads, n_kv_heads, head_dim }
    }

    /// The next widths at which every row is whole blocks of every type. Heads are added with the key head that they share.
    fn whole(self) -> Widths {
        let group = self.n_heads / self.n_kv_heads;
        let fits = |&n_kv_heads: &usize| (n_kv_heads * group * self.head_dim).is_multiple_of(WHOLE);
        let n_kv_heads = (self.n_kv_heads..).find(fits).expect("a multiple of 256 key heads fits");
        Widths {
            hidden: self.hidden.next_multiple_of(WHOLE),
            inter: self.inter.next_multiple_of(WHOLE),
            n_heads: n_kv_heads * group,
            n_kv_heads,
            ..self
        }
    }

    /// The dimensions of a tensor, the row length first; `None` for one whose dimensions no width is part of.
    fn dims(self, vocab: usize, name: &str) -> Option<Vec<usize>> {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let of_block =
            name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, tensor)| tensor);
        Some(match of_block {
            EMBED | HEAD => vec![self.hidden, vocab],
            "attn_q.weight" => vec![self.hidden, q],
            "attn_k.weight" | "attn_v.weight" => vec![self.hidden, kv],
            "attn_output.weight" => vec![q, self.hidden],
            "ffn_gate.weight" | "ffn_up.weight" => vec![self.hidden, self.inter],
            "ffn_down.weight" => vec![self.inter, self.hidden],
            "attn_norm.weight" | "ffn_norm.weight" | "output_norm.weight" => vec![self.hidden],
            "attn_q.bias" => vec![q],
            "attn_k.bias" | "attn_v.bias" => vec![kv],
            _ => return None,
        })
    }
}

/// What a tensor becomes.
struct Target<'a> {
    name: &'a str,
    info: &'a TensorInfo,
    dtype: DType,
    dims: Vec<usize>,
    /// What its values are multiplied by.
    scale: f32,
}

/// The role of a matrix by its name.
fn role(name: &str, tied: bool) -> Role {
    let layer = || name.split('.').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    match name {
        EMBED if !tied => Role::Embed,
        EMBED | HEAD => Role::Head,
        _ if name.ends_with("attn_v.weight") || name.ends_with("ffn_down.weight") => Role::Sensitive { layer: layer() },
        _ => Role::Plain,
    }
}

/// A model with the weights of `gguf` in other types, in memory.
///
/// # Errors
/// [`RequantizeError`], where the file is no model or the types do not fit its rows.
pub fn requantize(gguf: &Gguf, options: Requantize) -> Result<Gguf, RequantizeError> {
    let config = Config::from_gguf(gguf)?;
    let before = Widths::of(&config);
    let after = if options.whole_blocks { before.whole() } else { before };
    let wider = after.hidden as f64 / before.hidden as f64;

    let mut writer = GgufWriter::new();
    gguf.copy_metadata(&mut writer)?;
    // Another alignment would be one of the data that is not copied.
    writer.remove_meta("general.alignment");
    let key = |name: &str| format!("{}.{name}", config.architecture.name());
    for (name, value) in [
        ("embedding_length", after.hidden),
        ("feed_forward_length", after.inter),
        ("attention.head_count", after.n_heads),
        ("attention.head_count_kv", after.n_kv_heads),
        ("attention.key_length", after.head_dim),
        ("attention.value_length", after.head_dim),
        ("rope.dimension_count", config.rope.dims),
    ] {
        writer.meta(&key(name), u32::try_from(value).expect("the widths of a model fit in 32 bits"));
    }
    writer.meta(&key("attention.layer_norm_rms_epsilon"), (f64::from(config.eps) / wider) as f32);
    writer.meta("general.file_type", options.scheme.file_type());

    let tied = gguf.tensor(HEAD).is_none();
    let mut targets = Vec::new();
    for (name, info) in gguf.tensors() {
        let dims = after.dims(config.vocab, name).unwrap_or_else(|| info.dims().to_vec());
        let dtype = match (info.n(), options.scheme) {
            (1, _) => DType::F32,
            (_, Scheme::Q4KM | Scheme::TQ1_0 | Scheme::TQ2_0) => {
                options.scheme.dtype(role(name, tied), dims[0], config.layers)
            }
            (_, scheme) => scheme.pure(dims[0]),
        };
        // A row of zeros beside others makes their mean of squares smaller.
        let norm = name.ends_with("norm.weight") && before.dims(config.vocab, name).is_some();
        let scale = if norm { (1.0 / wider).sqrt() as f32 } else { 1.0 };
        writer.tensor(name, dtype, &dims)?;
        targets.push(Target { name, info, dtype, dims, scale });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(writer.file_bytes()).expect("a model fits in memory"));
    let mut next = targets.iter();
    writer.write(&mut bytes, |name, _, _, out| {
        let target = next.next().expect("the writer asks for what it was given");
        debug_assert_eq!(target.name, name);
        out.write_all(&encode(gguf, target))
    })?;
    Ok(Gguf::from_bytes(bytes)?)
}

/// The data of a tensor, its rows shared out to threads.
fn encode(gguf: &Gguf, target: &Target<'_>) -> Vec<u8> {
    let (from, to_k) = (target.info, target.dims[0]);
    let to_n: usize = target.dims[1..].iter().product();
    let row_bytes = from.dtype.row_bytes(from.k()).expect("the file was checked when it was opened");
    let data = gguf.data(from);
    let rows_of = |rows: std::ops::Range<usize>| {
        let mut values = vec![0.0f32; to_k];
        let mut bytes = Vec::new();
        for row in rows {
            match data.chunks_exact(row_bytes).nth(row) {
                Some(blocks) => {
                    quant::dequantize_row(from.dtype, blocks, &mut values[..from.k()]);
                    values.iter_mut().for_each(|v| *v *= target.scale);
                }
                None => values.fill(0.0),
            }
            bytes
                .extend(quant::quantize(target.dtype, &values).expect("the writer checked that rows are whole blocks"));
        }
        bytes
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = to_n.div_ceil(threads).max(64);
    let starts: Vec<usize> = (0..to_n).step_by(share).collect();
    std::thread::scope(|scope| {
        let parts: Vec<_> = starts.iter().map(|&at| scope.spawn(move || rows_of(at..(at + share).min(to_n)))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("encoding does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;
    use crate::synth::{Shape, SynthOptions, to_bytes};

    /// A model of odd widths: three query heads to a key head, rows that are no multiple of 256.
    fn odd(architecture: &str) -> Gguf {
        let shape = Shape {
            name: "odd".into(),
            architecture: architecture.into(),
            hidden: 96,
            inter: 160,
            layers: 2,
            n_heads: 6,
            n_kv_heads: 2,
            head_dim: 32,
            vocab: 288,
            tied_head: true,
            qkv_bias: architecture == "qwen2",
            eps: 1e-3,
            rope_base: 1e4,
            context: 512,
            pre_tokenizer: "smollm".into(),
            rope_llama3: None,
            rope_linear: None,
        };
        let options = SynthOptions { scheme: Scheme::F32, layers: None, seed: 3 };
        Gguf::from_bytes(to_bytes(&shape, &options).unwrap()).unwrap()
    }

    fn largest_difference(a: &Gguf, b: &Gguf) -> f64 {
        let ids: Vec<u32> = (0..12).map(|i| i * 37 % 288).collect();
        let [a, b] = [a, b].map(|gguf| Reference::load(gguf).unwrap().logits(&ids).concat());
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_widened_model_computes_the_same_and_its_rows_are_whole_blocks() {
        for architecture in ["llama", "qwen2"] {
            let gguf = odd(architecture);
            let wide = requantize(&gguf, Requantize { scheme: Scheme::F32, whole_blocks: true }).unwrap();
            let config = Config::from_gguf(&wide).unwrap();
            assert_eq!((config.hidden, config.inter, config.n_heads, config.n_kv_heads), (256, 256, 24, 8));
            let difference = largest_difference(&gguf, &wide);
            // Norms are rounded to 32 bits again.
            assert!(difference < 1e-5, "{architecture}: {difference:e}");
        }
    }

    #[test]
    fn every_matrix_gets_the_type_asked_for_and_decodes_to_the_weights_rounded_to_it() {
        let gguf = odd("llama");
        for scheme in [Scheme::Q4_0, Scheme::Q4K, Scheme::Q5K, Scheme::Q6K, Scheme::BF16] {
            let other = requantize(&gguf, Requantize { scheme, whole_blocks: true }).unwrap();
            for (name, info) in other.tensors() {
                let want = if info.n() == 1 { DType::F32 } else { scheme.pure(256) };
                assert_eq!(info.dtype, want, "{name}");
            }
            let decoded = requantize(&other, Requantize { scheme: Scheme::F32, whole_blocks: false }).unwrap();
            assert!(largest_difference(&other, &decoded) < 1e-12, "{}", scheme.name());
        }
    }

    #[test]
    fn what_no_weight_is_part_of_is_copied_as_it_is() {
        let gguf = odd("llama");
        let other = requantize(&gguf, Requantize { scheme: Scheme::Q8_0, whole_blocks: false }).unwrap();
        let (mut a, mut b) = (gguf.metadata_json(1000), other.metadata_json(1000));
        for json in [&mut a, &mut b] {
            json.remove("general.file_type");
            json.remove("general.alignment");
        }
        assert_eq!(a, b);
    }
}
