//! Many tokens at once.
//!
//! Weights are decoded to f16 and multiplied on tensor cores: by a library where there is one, in the same way for every
//! type, else by our own kernel, which decodes as it goes. Activations are f16 between f32 sums; the residual stream stays
//! f32. A model with a matrix that neither takes goes token by token.

use kernels::cuda::CudaError;
use kernels::cuda::exec::{AttnPrefill, Exec, Matmul, Precision, RopeAppend, Span, Step, Weights};

use super::buffers::Buffers;
use super::weights::{DeviceModel, Layer, Product};

/// Below this many tokens each of them goes through the graph of a single token: decoding the weights for a few tokens
/// takes longer than reading them for each.
pub const FEW: usize = 12;

/// Runs chunks of prompts.
#[derive(Debug)]
pub struct Prompt {
    /// One matrix in f16, where the library multiplies.
    dequantized: Option<Span>,
}

/// What a launch or a library call needs.
struct Chunk<'a> {
    exec: &'a Exec,
    model: &'a DeviceModel,
    b: &'a Buffers,
    m: usize,
    launches: u64,
}

impl Prompt {
    /// Whether every matrix of a block has a product for many tokens.
    pub fn takes(model: &DeviceModel, precision: Precision) -> bool {
        let products = model.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]);
        precision == Precision::Table && products.flat_map(|p| &p.parts).all(|part| part.planes().is_some())
    }

    /// With room for the largest matrix, where the library is there.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(exec: &Exec, model: &DeviceModel) -> Result<Prompt, CudaError> {
        let products = model.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]);
        let largest = products.flat_map(|p| p.parts.iter().map(move |part| part.n * p.k)).max().unwrap_or(0);
        let dequantized = match exec.has_library() {
            true => Some(Span::zeroed(exec.stream(), 2 * largest, "a matrix in 16 bits")?),
            false => None,
        };
        Ok(Prompt { dequantized })
    }

    /// Fills the cache with `m` tokens, whose ids and positions are on the device, and leaves their residual stream.
    /// Answers how many kernels were launched.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn run(&self, exec: &Exec, model: &DeviceModel, b: &Buffers, m: usize) -> Result<u64, CudaError> {
        let mut chunk = Chunk { exec, model, b, m, launches: 0 };
        chunk.launch(exec.embed(&model.embed, &b.ids, &b.x, m)?)?;
        for layer in &model.layers {
            self.layer(&mut chunk, layer)?;
        }
        Ok(chunk.launches)
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

    /// `y = W x`, or `y += W x`. Matrices that follow each other stand side by side in the rows of `y`.
    fn product(&self, c: &mut Chunk<'_>, product: &Product, x: &Span, y: &Span, add: bool) -> Result<(), CudaError> {
        let mut column = 0;
        for part in &product.parts {
            let w = part.planes().expect("a model with other matrices does not come here");
            self.matmul(c, w, x, y, column, product.n, add)?;
            column += part.n;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // A product and where its output stands.
    fn matmul(
        &self,
        c: &mut Chunk<'_>,
        w: &Weights,
        x: &Span,
        y: &Span,
        column: usize,
        row: usize,
        add: bool,
    ) -> Result<(), CudaError> {
        match &self.dequantized {
            Some(half) => {
                c.launch(c.exec.dequantize(w, half)?)?;
                c.launches += 1;
                let o = Matmul { w: half, x, y, n: w.n, k: w.k, m: c.m, column, row, add };
                c.exec.matmul(&o)
            }
            None if w.n == row => {
                let r = add.then_some(y);
                c.launch(c.exec.gemm(w, x, r, y, c.m)?)
            }
            None => Err(CudaError::NoKernel {
                op: "gemm of weights of mixed types".to_owned(),
                shape: format!("N={} K={} M={}", w.n, w.k, c.m),
                reason: "our own kernel writes whole rows; the library (cuBLASLt) was not found".to_owned(),
            }),
        }
    }
}

impl Chunk<'_> {
    fn launch(&mut self, step: Step) -> Result<(), CudaError> {
        self.launches += 1;
        step.launch(self.exec.stream(), false)
    }
}
