//! The steps of one decoded token.
//!
//! Fused, a block is five launches: norm + Q, K, V + rotation + append; attention; output + residual; norm + gate, up +
//! SwiGLU; down + residual. Where a model has a part that no fused kernel takes (weights of mixed types, norms of heads),
//! that part alone runs as single ops. Under [`Precision::Plain`] everything does, on plain kernels.

use kernels::cuda::CudaError;
use kernels::cuda::exec::{Exec, LengthClass, Precision, Program, QkvRope, RopeAppend, Span, Weights};
use variants::Activations;

use super::buffers::Buffers;
use super::weights::{DeviceModel, Layer, Product, fused_forms};

/// Builds the steps of a token.
pub struct Builder<'a> {
    pub exec: &'a Exec,
    pub model: &'a DeviceModel,
    pub buffers: &'a Buffers,
    pub precision: Precision,
    /// Where the head puts the most likely token, its position and its length: u32 `[4]`.
    pub next: &'a Span,
    /// Host memory that hears of every token, or 0.
    pub ring: u64,
    /// The lengths that attention is chosen for.
    pub class: LengthClass,
}

impl Builder<'_> {
    /// All steps, from the token's embedding to the next token.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn token(&self) -> Result<Program, CudaError> {
        let (exec, b) = (self.exec, self.buffers);
        let mut program = Program::new();
        program.push(exec.embed(&self.model.embed, &b.state, &b.x, 1)?);
        for layer in &self.model.layers {
            self.attention(layer, &mut program)?;
            self.feed_forward(layer, &mut program)?;
        }
        self.head(&b.x, &b.state.part(4, 4), &mut program)?;
        Ok(program)
    }

    /// Norm, logits and the next token of one row of the residual stream, whose position is at `pos`.
    ///
    /// # Errors
    /// As above.
    pub fn head(&self, x: &Span, pos: &Span, program: &mut Program) -> Result<(), CudaError> {
        let (b, model) = (self.buffers, self.model);
        let config = &model.config;
        program.push(self.exec.norm_logits(
            self.precision,
            &model.head,
            &model.out_norm,
            x,
            &b.logits,
            self.next,
            &b.head_scratch,
            pos,
            self.ring,
            config.eps,
        )?);
        Ok(())
    }

    /// The form in which fused kernels leave and take activations, where such may run on these weights.
    fn fused(&self, weights: &Weights) -> Option<Activations> {
        fused_forms(weights.dtype).filter(|_| self.precision == Precision::Table).map(|(_, form)| form)
    }

    /// The weights that a fused kernel adds to the residual stream, and the form of its activations.
    fn added<'w>(&self, product: &'w Product) -> Option<(&'w Weights, Activations)> {
        let w = product.single()?;
        let form = self.fused(w)?;
        self.exec.has_fast("gemv_add", w.dtype, &Exec::gemv_add_shape(w)).then_some((w, form))
    }

    fn attention(&self, layer: &Layer, program: &mut Program) -> Result<(), CudaError> {
        let (exec, b, model) = (self.exec, self.buffers, self.model);
        let (config, heads) = (&model.config, model.heads);
        let (state, len) = (&b.state, b.state.part(8, 4));
        let fused = layer.qkv.single().filter(|w| {
            let shape = Exec::qkv_rope_shape(heads, config.hidden, &layer.cache, model.rotation.adjacent);
            self.fused(w).is_some()
                && layer.head_norms.is_none()
                && model.rotation.dims == heads.dim
                && exec.has_fast("qkv_rope", w.dtype, &shape)
        });
        match fused {
            Some(w) => {
                let o = QkvRope {
                    w,
                    bias: layer.bias.as_ref(),
                    norm: &layer.attn_norm,
                    x: &b.x,
                    rotation: &model.rotation,
                    state,
                    q: &b.q,
                    cache: &layer.cache,
                    scratch: &b.attn_scratch,
                    eps: config.eps,
                };
                program.push(exec.qkv_rope(heads, &o)?);
            }
            None => {
                program.push(exec.rmsnorm(
                    self.precision,
                    &b.x,
                    &layer.attn_norm,
                    &b.normed,
                    config.hidden,
                    config.eps,
                )?);
                self.products(&layer.qkv, &b.normed, &b.qkv, program)?;
                let o = RopeAppend {
                    qkv: &b.qkv,
                    bias: layer.bias.as_ref(),
                    head_norms: layer.head_norms.as_ref().map(|(q, k)| (q, k)),
                    rotation: &model.rotation,
                    pos: &state.part(4, 4),
                    q: &b.q,
                    cache: &layer.cache,
                    eps: config.eps,
                    m: 1,
                };
                program.push(exec.rope_append(self.precision, heads, &o)?);
            }
        }
        let form = self.form(&layer.o);
        program.push(exec.attn_token(
            self.precision,
            heads,
            &b.q,
            &layer.cache,
            &b.mixed,
            form,
            &b.attn_scratch,
            &len,
            self.class,
        )?);
        self.add_product(&layer.o, &b.mixed, program)
    }

    fn feed_forward(&self, layer: &Layer, program: &mut Program) -> Result<(), CudaError> {
        let (exec, b, config) = (self.exec, self.buffers, &self.model.config);
        // It leaves its output in the form of its own kernels.
        let fused = layer.gate_up.single().filter(|w| {
            self.fused(w) == Some(self.form(&layer.down)) && exec.has_fast("gate_up", w.dtype, &Exec::gate_up_shape(w))
        });
        match fused {
            Some(w) => {
                program.push(exec.gate_up(w, &layer.ffn_norm, &b.x, &b.inner, config.eps)?);
            }
            None => {
                program.push(exec.rmsnorm(
                    self.precision,
                    &b.x,
                    &layer.ffn_norm,
                    &b.normed,
                    config.hidden,
                    config.eps,
                )?);
                self.products(&layer.gate_up, &b.normed, &b.gate_up, program)?;
                let bits = if self.form(&layer.down) == Activations::A8 { 8 } else { 32 };
                program.push(exec.swiglu(self.precision, &b.gate_up, &b.inner, config.inter, 1, bits)?);
            }
        }
        self.add_product(&layer.down, &b.inner, program)
    }

    /// The form in which [`Builder::add_product`] takes its input.
    fn form(&self, product: &Product) -> Activations {
        self.added(product).map_or(Activations::F32, |(_, form)| form)
    }

    /// Products of f32 activations, each to its place in `y`.
    fn products(&self, product: &Product, x: &Span, y: &Span, program: &mut Program) -> Result<(), CudaError> {
        let (exec, b) = (self.exec, self.buffers);
        let mut quantized = false;
        let mut at = 0;
        for w in &product.parts {
            let (_, form) = exec.product(self.precision, w.dtype, w.n, w.k, Some(w.layout))?;
            if form == Activations::A8 && !quantized {
                program.push(exec.quantize(x, &b.slab, product.k)?);
                quantized = true;
            }
            let input = if form == Activations::A8 { &b.slab } else { x };
            program.push(exec.gemv(self.precision, w, input, &y.part(at, 4 * w.n))?);
            at += 4 * w.n;
        }
        Ok(())
    }

    /// The residual stream plus a product, whose input is in the form that [`Builder::form`] says.
    fn add_product(&self, product: &Product, x: &Span, program: &mut Program) -> Result<(), CudaError> {
        let (exec, b) = (self.exec, self.buffers);
        match self.added(product) {
            Some((w, _)) => program.push(exec.gemv_add(w, x, &b.x, &b.x)?),
            None => {
                self.products(product, x, &b.product, program)?;
                program.push(exec.add(self.precision, &b.x, &b.product, &b.x, product.n)?);
            }
        }
        Ok(())
    }
}
