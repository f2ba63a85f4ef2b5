//! Many tokens at once.
//!
//! Weights are decoded to f16 and multiplied on tensor cores: by a library where there is one, in the same way for every
//! type, else by our own kernel, which decodes as it goes. Weights that are f16 in the file are multiplied as they lie. Matrices
//! of several types that share an input are decoded below each other and multiplied as one. Activations are f16 between f32
//! sums; the residual stream stays f32.

use harness_spec::{DType, VariantId, Workload};
use kernels::cuda::CudaError;
use kernels::cuda::exec::{AttnPrefill, Exec, Matmul, Precision, RopeAppend, Span, Step, Weights};
use variants::Layout;

use super::buffers::{Buffers, CHUNK};
use super::model;
use super::weights::{DeviceModel, Layer, Product, takes_prompts};

/// Below this many tokens each of them goes through the graph of a single token: decoding the weights for a few tokens
/// takes longer than reading them for each.
pub const FEW: usize = 12;

/// Runs chunks of prompts.
#[derive(Debug)]
pub struct Prompt {
    /// The matrices of one product in f16, where some are decoded before they are multiplied.
    halves: Option<Span>,
}

/// What a launch or a library call needs.
struct Chunk<'a> {
    exec: &'a Exec,
    model: &'a DeviceModel,
    b: &'a Buffers,
    m: usize,
    launches: u64,
    /// What was launched, where somebody wants to know.
    named: Option<Vec<(Workload, VariantId)>>,
}

fn products(model: &DeviceModel) -> impl Iterator<Item = &Product> {
    model.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down])
}

/// Whether a product takes its weights as they lie.
fn as_it_lies(exec: &Exec, product: &Product) -> bool {
    product.single().is_some_and(|w| w.dtype == DType::F16 || !exec.has_library())
}

impl Prompt {
    /// Whether prompts are taken at once: the exact path goes token by token.
    pub fn takes(model: &DeviceModel, precision: Precision) -> bool {
        precision == Precision::Table && products(model).flat_map(|p| &p.parts).all(takes_prompts)
    }

    /// With room for the largest product whose weights are decoded first.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(exec: &Exec, model: &DeviceModel) -> Result<Prompt, CudaError> {
        let decoded = products(model).filter(|p| !as_it_lies(exec, p));
        let halves = match decoded.map(|p| p.n * p.k).max() {
            Some(largest) => Some(Span::zeroed(exec.stream(), 2 * largest, "matrices in 16 bits")?),
            None => None,
        };
        Ok(Prompt { halves })
    }

    /// Builds the steps of chunks of several lengths and launches none, for [`Exec::compile_for`].
    ///
    /// # Errors
    /// No kernel.
    pub fn plan(&self, exec: &Exec, model: &DeviceModel, b: &Buffers) -> Result<(), CudaError> {
        [FEW + 1, CHUNK / 8, CHUNK].into_iter().try_for_each(|m| self.run(exec, model, b, m).map(drop))
    }

    /// Fills the cache with `m` tokens, whose ids and positions are on the device, and leaves their residual stream.
    /// Answers how many kernels were launched.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn run(&self, exec: &Exec, model: &DeviceModel, b: &Buffers, m: usize) -> Result<u64, CudaError> {
        let mut chunk = Chunk { exec, model, b, m, launches: 0, named: None };
        self.all(&mut chunk)?;
        Ok(chunk.launches)
    }

    /// The launches of a chunk of `m` tokens, of which none is made. What the library multiplies is no launch of ours.
    ///
    /// # Errors
    /// No kernel.
    pub fn steps(
        &self,
        exec: &Exec,
        model: &DeviceModel,
        b: &Buffers,
        m: usize,
    ) -> Result<Vec<(Workload, VariantId)>, CudaError> {
        let mut named = Ok(Vec::new());
        exec.compile_for(|| {
            let mut chunk = Chunk { exec, model, b, m, launches: 0, named: Some(Vec::new()) };
            named = self.all(&mut chunk).map(|()| chunk.named.take().unwrap_or_default());
            Ok(())
        });
        named
    }

    fn all(&self, c: &mut Chunk<'_>) -> Result<(), CudaError> {
        c.launch(c.exec.embed(&c.model.embed, &c.b.ids, &c.b.x, c.m)?)?;
        c.model.layers.iter().try_for_each(|layer| self.layer(c, layer))
    }

    fn layer(&self, c: &mut Chunk<'_>, layer: &Layer) -> Result<(), CudaError> {
        let (exec, model, b, m) = (c.exec, c.model, c.b, c.m);
        let config = &model.config;
        c.launch(exec.rmsnorm_half(&b.x, &layer.attn_norm, &b.normed, config.hidden, m, config.eps)?)?;
        self.product(c, &layer.qkv, &b.normed, &b.qkv, false)?;
        let append = RopeAppend {
            qkv: &b.qkv,
            bias: layer.bias.as_ref(),
            head_norms: layer.head_norms.as_ref().map(|(q, k)| (q, k)),
            rotation: &model.rotation,
            pos: &b.positions,
            q: &b.q,
            cache: &layer.cache,
            eps: config.eps,
            m,
        };
        c.launch(exec.rope_append(Precision::Table, model.heads, &append)?)?;
        let attend = AttnPrefill { q: &b.q, cache: &layer.cache, out: &b.mixed, pos: &b.positions, m };
        c.launch(exec.attn_prefill(model.heads, &attend)?)?;
        self.product(c, &layer.o, &b.mixed, &b.x, true)?;
        c.launch(exec.rmsnorm_half(&b.x, &layer.ffn_norm, &b.normed, config.hidden, m, config.eps)?)?;
        self.product(c, &layer.gate_up, &b.normed, &b.gate_up, false)?;
        c.launch(exec.swiglu(Precision::Table, &b.gate_up, &b.inner, config.inter, m, 16)?)?;
        self.product(c, &layer.down, &b.inner, &b.x, true)
    }

    /// `y = W x`, or `y += W x`, `[M, n]`.
    fn product(&self, c: &mut Chunk<'_>, product: &Product, x: &Span, y: &Span, add: bool) -> Result<(), CudaError> {
        let (n, k) = (product.n, product.k);
        let joined;
        let w = match as_it_lies(c.exec, product) {
            true => &product.parts[0],
            false => {
                joined = self.decoded(c, product)?;
                &joined
            }
        };
        if c.exec.has_library() {
            c.launches += 1;
            return c.exec.matmul(&Matmul { w: &w.slab, x, y, n, k, m: c.m, column: 0, row: n, add });
        }
        c.launch(c.exec.gemm(w, x, add.then_some(y), y, c.m)?)
    }

    /// All parts of a product in f16, one below the other.
    fn decoded(&self, c: &mut Chunk<'_>, product: &Product) -> Result<Weights, CudaError> {
        let (n, k) = (product.n, product.k);
        let halves = self.halves.as_ref().expect("there is room wherever weights are decoded").part(0, 2 * n * k);
        let mut row = 0;
        for w in &product.parts {
            c.launch(c.exec.dequantize(w, &halves.part(2 * row * k, 2 * w.n * k))?)?;
            row += w.n;
        }
        Ok(Weights { dtype: DType::F16, n, k, layout: Layout::Gguf, slab: halves })
    }
}

impl Chunk<'_> {
    fn launch(&mut self, step: Step) -> Result<(), CudaError> {
        self.launches += 1;
        if let Some(named) = &mut self.named {
            named.push(model::named(&step));
        }
        step.launch(self.exec.stream(), false)
    }
}
