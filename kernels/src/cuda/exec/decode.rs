//! The ops of a decoded token. Buffers and their sizes: `kernels/src/op`.

use harness_spec::Shape;
use variants::{Activations, gemv_op};

use super::bind::Args;
use super::kernels::{matrix_shape, op_of};
use super::taken::OnWeights;
use super::{Exec, LengthClass, Precision, Span, Step, Weights};
use crate::cuda::CudaError;
use crate::op::activations::slab_stride;
use crate::op::{LOGITS_SCRATCH, MOST_SPLITS, qkv_scratch};

/// The room that stands in the shapes of ops on a cache. It changes with every request for another context: it is no part of
/// what chooses a kernel, and rows are measured at this. Of the length its class is ([`LengthClass`]).
pub(super) const KEY_MAX_LEN: usize = 4096;

/// The heads of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub dim: usize,
}

impl Heads {
    /// Rows of Q, K and V together.
    pub const fn joined(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    /// Rows of Q.
    pub const fn q_width(self) -> usize {
        self.heads * self.dim
    }
}

/// Keys and values of one layer: `[kv_heads, max_len, dim]` each, as f16, or as int8 with an f32 scale for each key.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Keys.
    pub k: Span,
    /// Values.
    pub v: Span,
    /// Scales of keys and of values `[kv_heads, max_len]`, where they are int8.
    pub scales: Option<(Span, Span)>,
    /// Positions.
    pub max_len: usize,
}

impl Cache {
    /// Bits of an element, as shapes say it.
    pub const fn bits(&self) -> usize {
        if self.scales.is_some() { 8 } else { 16 }
    }

    pub(super) fn bind(&self, args: Args, heads: Heads) -> Args {
        let elements = heads.kv_heads * self.max_len * heads.dim;
        let bytes = elements * self.bits() / 8;
        let scales = heads.kv_heads * self.max_len * 4;
        args.span("keys", &self.k, bytes)
            .span("values", &self.v, bytes)
            .maybe("scales of keys", self.scales.as_ref().map(|s| &s.0), scales)
            .maybe("scales of values", self.scales.as_ref().map(|s| &s.1), scales)
    }
}

/// How positions are rotated.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// f32 pairs (cos, sin), `[max_len, dims / 2]`.
    pub table: Span,
    /// Elements of a head that turn.
    pub dims: usize,
    /// Whether neighbours turn together, and not i with i + dims / 2.
    pub adjacent: bool,
}

/// Operands of `qkv_rope_*`.
#[derive(Debug)]
pub struct QkvRope<'a> {
    /// Rows of Q, K and V, one below the other.
    pub w: &'a Weights,
    /// As many biases, where the model has them.
    pub bias: Option<&'a Span>,
    /// The norm's weight.
    pub norm: &'a Span,
    /// The residual stream, f32 `[k]`.
    pub x: &'a Span,
    /// Rotation; all of a head turns.
    pub rotation: &'a Rotation,
    /// Token, position, length: u32 `[4]`.
    pub state: &'a Span,
    /// Queries, f32.
    pub q: &'a Span,
    /// Where keys and values go.
    pub cache: &'a Cache,
    /// What a cache in int8 takes of scratch memory, [`Exec::attn_scratch`] or more, zero between launches.
    pub scratch: &'a Span,
    /// ε of the norm.
    pub eps: f32,
}

/// Operands of `rope_append`.
#[derive(Debug)]
pub struct RopeAppend<'a> {
    /// f32 `[m, joined]`.
    pub qkv: &'a Span,
    /// Biases, where the model has them.
    pub bias: Option<&'a Span>,
    /// Norms of query and key heads, where the model has them.
    pub head_norms: Option<(&'a Span, &'a Span)>,
    /// Rotation.
    pub rotation: &'a Rotation,
    /// The position of the first token: u32 `[1]`.
    pub pos: &'a Span,
    /// Queries, f32 `[m, q_width]`.
    pub q: &'a Span,
    /// Where keys and values go.
    pub cache: &'a Cache,
    /// ε of the norms of heads.
    pub eps: f32,
    /// Tokens.
    pub m: usize,
}

/// Bytes of a token's slab of int8 activations.
pub(super) const fn slab_bytes(k: usize) -> usize {
    slab_stride(k, 32)
}

fn form_bytes(form: Activations, k: usize) -> usize {
    if form == Activations::A8 { slab_bytes(k) } else { 4 * k }
}

fn dims<const N: usize>(pairs: [(&str, usize); N]) -> Shape {
    Shape::of(pairs.map(|(name, v)| (name, v as u64)))
}

impl Exec {
    /// The bytes of activations of `k` elements in any form that a kernel takes.
    pub const fn activation_bytes(k: usize) -> usize {
        4 * k + 64
    }

    /// The shape of `qkv_rope_*`.
    pub fn qkv_rope_shape(heads: Heads, k: usize, cache: &Cache, adjacent: bool) -> Shape {
        dims([
            ("HEADS", heads.heads),
            ("KV_HEADS", heads.kv_heads),
            ("DIM", heads.dim),
            ("K", k),
            ("MAX_LEN", KEY_MAX_LEN),
            ("KV", cache.bits()),
            ("PAIRING", usize::from(adjacent)),
        ])
    }

    /// Norm, Q, K and V with biases and rotation; keys and values appended.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn qkv_rope(&self, heads: Heads, o: &QkvRope<'_>) -> Result<Step, CudaError> {
        let (n, k) = (heads.joined(), o.w.k);
        assert!(o.w.n == n && o.rotation.dims == heads.dim, "rows of Q, K and V, and a rotation of whole heads");
        let adjacent = o.rotation.adjacent;
        let shape = Exec::qkv_rope_shape(heads, k, o.cache, adjacent);
        let args = Args::new()
            .span("weights", &o.w.slab, 1)
            .maybe("biases", o.bias, 4 * n)
            .span("norm", o.norm, 4 * k)
            .span("x", o.x, 4 * k)
            .span("angles", &o.rotation.table, 4 * o.cache.max_len * o.rotation.dims)
            .span("state", o.state, 16)
            .span("queries", o.q, 4 * heads.q_width());
        let args = o.cache.bind(args, heads);
        let args = args
            .ints([heads.heads, heads.kv_heads, heads.dim, k, o.cache.max_len, usize::from(adjacent), o.cache.bits()])
            .float(o.eps)
            .maybe("scratch", o.cache.scales.as_ref().map(|_| o.scratch), qkv_scratch(heads.kv_heads, heads.dim));
        self.step(Precision::Table, &op_of("qkv_rope", o.w.dtype), &shape, Some(o.w), args)
    }

    /// The shape of `gate_up_*`.
    pub fn gate_up_shape(w: &Weights) -> Shape {
        dims([("F", w.n / 2), ("K", w.k)])
    }

    /// Norm, gate and up `[2f, k]`, SwiGLU, and its output in the form that `gemv_add` of this type takes.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn gate_up(&self, w: &Weights, norm: &Span, x: &Span, out: &Span, eps: f32) -> Result<Step, CudaError> {
        let (f, k) = (w.n / 2, w.k);
        let args = Args::new()
            .span("weights", &w.slab, 1)
            .span("norm", norm, 4 * k)
            .span("x", x, 4 * k)
            .span("out", out, Exec::activation_bytes(f))
            .ints([f, k])
            .float(eps);
        self.step(Precision::Table, &op_of("gate_up", w.dtype), &Exec::gate_up_shape(w), Some(w), args)
    }

    /// The shape of `gemv_add_*`.
    pub fn gemv_add_shape(w: &Weights) -> Shape {
        matrix_shape(w.n, w.k)
    }

    /// `y = r + W x`, with `x` in the form of the op's kernels; r may be y.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn gemv_add(&self, w: &Weights, x: &Span, r: &Span, y: &Span) -> Result<Step, CudaError> {
        let (op, shape) = (op_of("gemv_add", w.dtype), Exec::gemv_add_shape(w));
        let form = self.choice_on(Precision::Table, &op, &shape, OnWeights::of(Some(w)))?.spec.activations;
        let args = Args::new()
            .span("weights", &w.slab, 1)
            .span("x", x, form_bytes(form.unwrap_or(Activations::F32), w.k))
            .span("r", r, 4 * w.n)
            .span("y", y, 4 * w.n)
            .ints([w.n, w.k]);
        self.step(Precision::Table, &op, &shape, Some(w), args)
    }

    /// Norm, logits, and the most likely token: `next` becomes {token, pos + 1, pos + 2, 0}. `ring` is the address of 1024
    /// words of host memory that hear of it too, or 0.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    #[allow(clippy::too_many_arguments)] // The operands of one op, each of its own kind.
    pub fn norm_logits(
        &self,
        precision: Precision,
        w: &Weights,
        norm: &Span,
        x: &Span,
        logits: &Span,
        next: &Span,
        scratch: &Span,
        pos: &Span,
        ring: u64,
        eps: f32,
    ) -> Result<Step, CudaError> {
        let args = Args::new()
            .span("weights", &w.slab, 1)
            .span("norm", norm, 4 * w.k)
            .span("x", x, 4 * w.k)
            .span("logits", logits, 4 * w.n)
            .span("next", next, 16)
            .span("scratch", scratch, LOGITS_SCRATCH)
            .span("pos", pos, 4)
            .address(ring)
            .ints([w.n, w.k])
            .float(eps);
        self.step(precision, &op_of("norm_logits", w.dtype), &matrix_shape(w.n, w.k), Some(w), args)
    }

    /// Bytes of scratch memory that [`Exec::norm_logits`] takes, zeroed once.
    pub const fn head_scratch() -> usize {
        LOGITS_SCRATCH
    }

    /// Bytes of scratch memory that [`Exec::attn_token`] takes, zeroed once.
    pub const fn attn_scratch(heads: Heads) -> usize {
        MOST_SPLITS * heads.heads * (heads.dim + 2) * 4 + heads.heads * 4
    }

    /// Attention of one token, by the kernel for lengths of a class; the output as int8 activations or as f32. Any length
    /// within the cache is right.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    #[allow(clippy::too_many_arguments)] // As above.
    pub fn attn_token(
        &self,
        precision: Precision,
        heads: Heads,
        q: &Span,
        cache: &Cache,
        out: &Span,
        form: Activations,
        scratch: &Span,
        len: &Span,
        class: LengthClass,
    ) -> Result<Step, CudaError> {
        let bits = if form == Activations::A8 { 8 } else { 32 };
        let shape = dims([
            ("HEADS", heads.heads),
            ("KV_HEADS", heads.kv_heads),
            ("DIM", heads.dim),
            ("LEN", class.key()),
            ("MAX_LEN", KEY_MAX_LEN),
            ("KV", cache.bits()),
            ("OUT", bits),
        ]);
        let args = Args::new().span("queries", q, 4 * heads.q_width());
        let args = cache
            .bind(args, heads)
            .span("out", out, form_bytes(form, heads.q_width()))
            .span("scratch", scratch, Exec::attn_scratch(heads))
            .span("len", len, 4)
            .ints([heads.heads, heads.kv_heads, heads.dim, cache.max_len, cache.bits(), bits]);
        self.step(precision, "attn_token", &shape, None, args)
    }

    /// Biases, norms of heads, rotation; keys and values appended.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn rope_append(&self, precision: Precision, heads: Heads, o: &RopeAppend<'_>) -> Result<Step, CudaError> {
        let adjacent = usize::from(o.rotation.adjacent);
        let shape = dims([
            ("HEADS", heads.heads),
            ("KV_HEADS", heads.kv_heads),
            ("DIM", heads.dim),
            ("ROT", o.rotation.dims),
            ("M", o.m),
            ("MAX_LEN", KEY_MAX_LEN),
            ("KV", o.cache.bits()),
            ("PAIRING", adjacent),
        ]);
        let args = Args::new()
            .span("qkv", o.qkv, 4 * o.m * heads.joined())
            .maybe("biases", o.bias, 4 * heads.joined())
            .maybe("norm of queries", o.head_norms.map(|n| n.0), 4 * heads.dim)
            .maybe("norm of keys", o.head_norms.map(|n| n.1), 4 * heads.dim)
            .span("angles", &o.rotation.table, 4 * o.cache.max_len * o.rotation.dims)
            .span("pos", o.pos, 4)
            .span("queries", o.q, 4 * o.m * heads.q_width());
        let args = o
            .cache
            .bind(args, heads)
            .ints([
                heads.heads,
                heads.kv_heads,
                heads.dim,
                o.rotation.dims,
                o.m,
                o.cache.max_len,
                adjacent,
                o.cache.bits(),
            ])
            .float(o.eps);
        self.step(precision, "rope_append", &shape, None, args)
    }

    /// Rows of the embedding: `w` as the file has it, f32 `[m, k]` out.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn embed(&self, w: &Weights, ids: &Span, x: &Span, m: usize) -> Result<Step, CudaError> {
        let shape = dims([("N", w.n), ("K", w.k), ("M", m)]);
        let args =
            Args::new().span("embedding", &w.slab, 1).span("ids", ids, 4 * m).span("x", x, 4 * m * w.k).ints([w.k, m]);
        self.step(Precision::Table, &op_of("embed", w.dtype), &shape, Some(w), args)
    }

    /// `y = W x` for one token, with activations in the form that [`Exec::product`] names for its layout.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn gemv(&self, precision: Precision, w: &Weights, x: &Span, y: &Span) -> Result<Step, CudaError> {
        let (_, form) = self.product(precision, w.dtype, w.n, w.k, Some(w.layout))?;
        let args = Args::new()
            .span("weights", &w.slab, 1)
            .span("x", x, form_bytes(form, w.k))
            .span("y", y, 4 * w.n)
            .ints([w.n, w.k, 1]);
        self.step(precision, gemv_op(w.dtype), &matrix_shape(w.n, w.k), Some(w), args)
    }

    /// RMSNorm of one token in f32.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn rmsnorm(
        &self,
        precision: Precision,
        x: &Span,
        w: &Span,
        y: &Span,
        k: usize,
        eps: f32,
    ) -> Result<Step, CudaError> {
        let args = Args::new().span("x", x, 4 * k).span("w", w, 4 * k).span("y", y, 4 * k).ints([k, 1]).float(eps);
        self.step(precision, "rmsnorm", &dims([("K", k), ("M", 1)]), None, args)
    }

    /// One token's floats as int8 activations.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn quantize(&self, x: &Span, slab: &Span, k: usize) -> Result<Step, CudaError> {
        let args = Args::new().span("x", x, 4 * k).span("slab", slab, slab_bytes(k)).ints([k]);
        self.step(Precision::Table, "quantize_a8", &dims([("K", k)]), None, args)
    }

    /// `y = a + b`; y may be a.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn add(&self, precision: Precision, a: &Span, b: &Span, y: &Span, count: usize) -> Result<Step, CudaError> {
        let args = Args::new().span("a", a, 4 * count).span("b", b, 4 * count).span("y", y, 4 * count).ints([count]);
        self.step(precision, "add", &dims([("COUNT", count)]), None, args)
    }

    /// SwiGLU of `[m, 2f]` floats: `bits` 32 gives f32, 16 gives f16, 8 gives slabs.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn swiglu(
        &self,
        precision: Precision,
        gate_up: &Span,
        out: &Span,
        f: usize,
        m: usize,
        bits: usize,
    ) -> Result<Step, CudaError> {
        let bytes = match bits {
            8 => m * slab_bytes(f),
            bits => m * f * bits / 8,
        };
        let args = Args::new().span("gate and up", gate_up, 8 * m * f).span("out", out, bytes).ints([f, m, bits]);
        self.step(precision, "swiglu", &dims([("F", f), ("M", m), ("OUT", bits)]), None, args)
    }
}
