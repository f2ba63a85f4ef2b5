//! A file's tensors on the device.

use harness_spec::DType;
use kernels::cpu::{Pairing, RopeTable};
use kernels::cuda::CudaError;
use kernels::cuda::exec::{Cache, Exec, Heads, Precision, Rotation, Span, Weights};
use variants::{Activations, Layout};

use crate::generate::KvType;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{Architecture, Config, EMBED, HEAD, LoadError, Tensors, rope_factors};

/// Matrices that take the same input: one product where their types are the same, one after the other where not.
#[derive(Clone, Debug)]
pub struct Product {
    /// The parts in the order of their rows, each in the layout that its kernels take.
    pub parts: Vec<Weights>,
    /// Rows together.
    pub n: usize,
    /// Columns.
    pub k: usize,
}

impl Product {
    /// The only part, where there is one.
    pub fn single(&self) -> Option<&Weights> {
        match &self.parts[..] {
            [part] => Some(part),
            _ => None,
        }
    }
}

/// One block.
#[derive(Clone, Debug)]
pub struct Layer {
    pub attn_norm: Span,
    pub qkv: Product,
    pub bias: Option<Span>,
    pub head_norms: Option<(Span, Span)>,
    pub o: Product,
    pub ffn_norm: Span,
    pub gate_up: Product,
    pub down: Product,
    pub cache: Cache,
}

/// All of a model. Clones share its memory.
#[derive(Clone, Debug)]
pub struct DeviceModel {
    pub config: Config,
    pub heads: Heads,
    pub rotation: Rotation,
    pub embed: Weights,
    pub layers: Vec<Layer>,
    pub out_norm: Span,
    pub head: Weights,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// What decides in which layouts a matrix is sent.
struct Loader<'a> {
    exec: &'a Exec,
    precision: Precision,
    tensors: Tensors<'a>,
    bytes: u64,
}

/// The layout in which the fused kernels of a token read weights of a type, and the form in which they leave activations for
/// each other: floats meet floats. `None` for a type that has none.
pub fn fused_forms(dtype: DType) -> Option<(Layout, Activations)> {
    use DType::{BF16, F16, Q4_0, Q4_1, Q4K, Q5_0, Q5K, Q6K, Q8_0};
    match dtype {
        Q4_0 | Q4_1 | Q5_0 | Q8_0 | Q4K | Q5K | Q6K => Some((Layout::Planes, Activations::A8)),
        F16 | BF16 => Some((Layout::Gguf, Activations::F32)),
        _ => None,
    }
}

/// Whether prompts can be multiplied with weights as they lie: planes, the file's own floats, or ternary weights as the file
/// has them.
pub fn takes_prompts(weights: &Weights) -> bool {
    match weights.layout {
        Layout::Planes => true,
        Layout::Gguf => matches!(weights.dtype, DType::F16 | DType::BF16 | DType::TQ2_0),
        _ => false,
    }
}

/// The heads of a model's attention.
pub fn heads(config: &Config) -> Heads {
    Heads { heads: config.n_heads, kv_heads: config.n_kv_heads, dim: config.head_dim }
}

impl<'a> Loader<'a> {
    fn blocks(&self, infos: &[&TensorInfo]) -> Vec<u8> {
        infos.iter().flat_map(|info| self.tensors.gguf.data(info)).copied().collect()
    }

    fn send(&mut self, layout: Layout, infos: &[&TensorInfo], k: usize, what: &str) -> Result<Weights, LoadError> {
        let n = infos.iter().map(|i| i.n()).sum();
        let dtype = infos[0].dtype;
        let weights = match infos {
            [info] => self.exec.weights(dtype, n, k, layout, self.tensors.gguf.data(info), what)?,
            infos => self.exec.weights(dtype, n, k, layout, &self.blocks(infos), what)?,
        };
        self.bytes += weights.slab.len() as u64;
        Ok(weights)
    }

    /// A matrix of some tensors of one type, in the layout that its steps take.
    fn part(&mut self, infos: &[&'a TensorInfo], k: usize, what: &str) -> Result<Weights, LoadError> {
        let (dtype, n) = (infos[0].dtype, infos.iter().map(|i| i.n()).sum());
        // A product of no fused kernel takes its weights as the table's kernel wants them.
        let layout = match fused_forms(dtype).filter(|_| self.precision == Precision::Table) {
            Some((layout, _)) => layout,
            None => self.exec.product(self.precision, dtype, n, k, None)?.0,
        };
        self.send(layout, infos, k, what)
    }

    fn product(&mut self, names: &[(String, usize)], k: usize) -> Result<Product, LoadError> {
        let infos: Vec<&'a TensorInfo> =
            names.iter().map(|(name, n)| self.tensors.matrix(name, *n, k)).collect::<Result<_, _>>()?;
        let n = names.iter().map(|(_, n)| n).sum();
        let same = infos.iter().all(|i| i.dtype == infos[0].dtype);
        let what = &names[0].0;
        let parts = match same {
            true => vec![self.part(&infos, k, what)?],
            false => infos.iter().map(|info| self.part(&[info], k, what)).collect::<Result<_, _>>()?,
        };
        infos.iter().for_each(|info| self.tensors.gguf.mapping().drop_pages(info.span.clone()));
        Ok(Product { parts, n, k })
    }

    fn floats(&mut self, values: &[f32], what: &str) -> Result<Span, CudaError> {
        self.bytes += 4 * values.len() as u64;
        Span::floats(self.exec.stream(), values, what)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Span, LoadError> {
        let values = self.tensors.vector(name, len)?;
        Ok(self.floats(&values, name)?)
    }

    fn layer(&mut self, config: &Config, i: usize, cache: Cache) -> Result<Layer, LoadError> {
        let name = |tensor: &str| format!("blk.{i}.{tensor}");
        let (hidden, inter) = (config.hidden, config.inter);
        let (q, kv) = (config.q_width(), config.kv_width());
        let biases = [("attn_q.bias", q), ("attn_k.bias", kv), ("attn_v.bias", kv)];
        let biases = biases
            .map(|(tensor, len)| Ok::<_, LoadError>((self.tensors.optional_vector(&name(tensor), len)?, len)))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let bias = match biases.iter().any(|(values, _)| values.is_some()) {
            true => {
                let joined: Vec<f32> = biases.into_iter().flat_map(|(v, len)| v.unwrap_or(vec![0.0; len])).collect();
                Some(self.floats(&joined, "biases")?)
            }
            false => None,
        };
        let head_norms = match config.architecture == Architecture::Qwen3 {
            true => Some((
                self.vector(&name("attn_q_norm.weight"), config.head_dim)?,
                self.vector(&name("attn_k_norm.weight"), config.head_dim)?,
            )),
            false => None,
        };
        let of = |tensor: &str, n: usize| (name(tensor), n);
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            qkv: self.product(&[of("attn_q.weight", q), of("attn_k.weight", kv), of("attn_v.weight", kv)], hidden)?,
            bias,
            head_norms,
            o: self.product(&[of("attn_output.weight", hidden)], q)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate_up: self.product(&[of("ffn_gate.weight", inter), of("ffn_up.weight", inter)], hidden)?,
            down: self.product(&[of("ffn_down.weight", hidden)], inter)?,
            cache,
        })
    }
}

/// Cosines and sines of every position, pair by pair.
fn angles(config: &Config, factors: Option<&[f32]>, context: usize) -> Vec<f32> {
    let table = RopeTable::new(config.rope.dims, f64::from(config.rope.base), factors);
    let pairs = (0..context).flat_map(|pos| table.frequencies().iter().map(move |f| pos as f64 * f));
    pairs.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect()
}

fn cache(exec: &Exec, heads: Heads, kv: KvType, context: usize) -> Result<Cache, CudaError> {
    let elements = heads.kv_heads * context * heads.dim;
    let zeroed = |bytes: usize| Span::zeroed(exec.stream(), bytes, "keys and values");
    let int8 = kv == KvType::Int8;
    let bytes = if int8 { elements } else { 2 * elements };
    let scales = 4 * heads.kv_heads * context;
    Ok(Cache {
        k: zeroed(bytes)?,
        v: zeroed(bytes)?,
        scales: if int8 { Some((zeroed(scales)?, zeroed(scales)?)) } else { None },
        max_len: context,
    })
}

/// Sends a model to the device.
///
/// # Errors
/// [`LoadError`] names the tensor at fault, or what the device lacks.
pub fn load(
    gguf: &Gguf,
    config: &Config,
    exec: &Exec,
    precision: Precision,
    kv: KvType,
    context: usize,
) -> Result<DeviceModel, LoadError> {
    let heads = heads(config);
    let mut loader = Loader { exec, precision, tensors: Tensors::new(gguf), bytes: 0 };
    let embed_info = loader.tensors.matrix(EMBED, config.vocab, config.hidden)?;
    // A row is looked up as the file has it; the head reads the same weights in the layout of its kernel.
    let embed = loader.send(Layout::Gguf, &[embed_info], config.hidden, EMBED)?;
    let layers = (0..config.layers)
        .map(|i| {
            let cache = cache(exec, heads, kv, context)?;
            let scales = cache.scales.as_ref().map_or(0, |(k, v)| k.len() + v.len());
            loader.bytes += (cache.k.len() + cache.v.len() + scales) as u64;
            loader.layer(config, i, cache)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let out_norm = loader.vector("output_norm.weight", config.hidden)?;
    let head_info = match loader.tensors.has(HEAD) {
        true => loader.tensors.matrix(HEAD, config.vocab, config.hidden)?,
        false => embed_info,
    };
    let head = head(&mut loader, head_info, config)?;
    let factors = rope_factors(&mut loader.tensors, config)?;
    let table = loader.floats(&angles(config, factors.as_deref(), context), "angles")?;
    let rotation = Rotation { table, dims: config.rope.dims, adjacent: config.rope.pairing == Pairing::Adjacent };
    let bytes = loader.bytes;
    loader.tensors.finish()?;
    Ok(DeviceModel { config: config.clone(), heads, rotation, embed, layers, out_norm, head, bytes })
}

fn head(loader: &mut Loader<'_>, info: &TensorInfo, config: &Config) -> Result<Weights, LoadError> {
    let layout = loader.exec.head_layout(loader.precision, info.dtype, config.vocab, config.hidden)?;
    loader.send(layout, &[info], config.hidden, HEAD)
}

#[cfg(test)]
mod tests {
    use variants::{Backend, registry};

    use super::*;

    #[test]
    fn fused_kernels_of_a_type_take_and_leave_what_is_said_of_it() {
        for dtype in DType::ALL {
            let name = dtype.name().to_lowercase();
            for family in ["qkv_rope", "gate_up", "gemv_add"] {
                let space = registry().space(&format!("{family}_{name}"));
                let kernels =
                    space.iter().flat_map(|s| &s.kernels).filter(|k| k.backend == Backend::Cuda && !k.baseline);
                let of: Vec<_> = kernels.map(|k| (k.layout.unwrap(), k.activations.unwrap())).collect();
                match fused_forms(dtype) {
                    Some(forms) => {
                        assert!(!of.is_empty() && of.iter().all(|of| *of == forms), "{family}_{name}: {of:?}")
                    }
                    None => assert!(of.is_empty(), "{family}_{name} is not used"),
                }
            }
        }
    }
}
