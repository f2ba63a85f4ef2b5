//! The ops of a prompt: many tokens at once.

use harness_spec::Shape;

use super::bind::Args;
use super::decode::{Cache, Heads, KEY_MAX_LEN};
use super::kernels::op_of;
use super::{Exec, Precision, Span, Step, Weights};
use crate::cuda::{CudaError, Product};

/// Operands of `attn_prefill`.
#[derive(Debug)]
pub struct AttnPrefill<'a> {
    /// Queries, f32 `[m, q_width]`.
    pub q: &'a Span,
    /// Keys and values, those of these tokens among them.
    pub cache: &'a Cache,
    /// f16 `[m, q_width]`.
    pub out: &'a Span,
    /// The position of the first token: u32 `[1]`.
    pub pos: &'a Span,
    /// Tokens.
    pub m: usize,
}

/// Operands of [`Exec::matmul`].
#[derive(Debug)]
pub struct Matmul<'a> {
    /// f16 `[n, k]`.
    pub w: &'a Span,
    /// f16 `[m, k]`.
    pub x: &'a Span,
    /// f32, rows of `row` columns, of which the product fills `n` from `column` on.
    pub y: &'a Span,
    /// Rows of `w`.
    pub n: usize,
    /// Columns of `w`.
    pub k: usize,
    /// Tokens.
    pub m: usize,
    /// Where the output starts in a row of `y`.
    pub column: usize,
    /// Columns of `y`.
    pub row: usize,
    /// Whether the product is added to what is there.
    pub add: bool,
}

impl Exec {
    /// RMSNorm of `m` tokens, f16 out.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn rmsnorm_half(&self, x: &Span, w: &Span, y: &Span, k: usize, m: usize, eps: f32) -> Result<Step, CudaError> {
        let shape = Shape::of([("K", k as u64), ("M", m as u64)]);
        let args =
            Args::new().span("x", x, 4 * m * k).span("w", w, 4 * k).span("y", y, 2 * m * k).ints([k, m]).float(eps);
        self.step(Precision::Table, "rmsnorm_half", &shape, None, args)
    }

    /// The shape of `gemm_*` and, without M, of `dequantize_*`.
    pub fn gemm_shape(w: &Weights, m: usize) -> Shape {
        Shape::of([("N", w.n as u64), ("K", w.k as u64), ("M", m as u64)])
    }

    /// `y = W x`, or `y = r + W x`, for `m` tokens of f16.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn gemm(&self, w: &Weights, x: &Span, r: Option<&Span>, y: &Span, m: usize) -> Result<Step, CudaError> {
        let args = Args::new()
            .span("weights", &w.slab, 1)
            .span("x", x, 2 * m * w.k)
            .maybe("r", r, 4 * m * w.n)
            .span("y", y, 4 * m * w.n)
            .ints([w.n, w.k, m]);
        self.step(Precision::Table, &op_of("gemm", w.dtype), &Exec::gemm_shape(w, m), Some(w), args)
    }

    /// Weights as f16, row-major.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn dequantize(&self, w: &Weights, out: &Span) -> Result<Step, CudaError> {
        let shape = Shape::of([("N", w.n as u64), ("K", w.k as u64)]);
        let args = Args::new().span("weights", &w.slab, 1).span("out", out, 2 * w.n * w.k).ints([w.n, w.k]);
        self.step(Precision::Table, &op_of("dequantize", w.dtype), &shape, Some(w), args)
    }

    /// Causal attention of `m` tokens.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn attn_prefill(&self, heads: Heads, o: &AttnPrefill<'_>) -> Result<Step, CudaError> {
        let shape = Shape::of([
            ("HEADS", heads.heads as u64),
            ("KV_HEADS", heads.kv_heads as u64),
            ("DIM", heads.dim as u64),
            ("M", o.m as u64),
            // Where the prompt stands in the context changes from chunk to chunk and chooses no kernel.
            ("POS", 0),
            ("MAX_LEN", KEY_MAX_LEN as u64),
            ("KV", o.cache.bits() as u64),
        ]);
        let args = Args::new().span("queries", o.q, 4 * o.m * heads.q_width());
        let args = o
            .cache
            .bind(args, heads)
            .span("out", o.out, 2 * o.m * heads.q_width())
            .span("pos", o.pos, 4)
            .ints([heads.heads, heads.kv_heads, heads.dim, o.m, o.cache.max_len, o.cache.bits()]);
        self.step(Precision::Table, "attn_prefill", &shape, None, args)
    }

    /// Whether the library that multiplies f16 matrices was found.
    pub fn has_library(&self) -> bool {
        self.library().is_some()
    }

    /// Queues a product by the library.
    ///
    /// # Errors
    /// No library, or its error.
    pub fn matmul(&self, o: &Matmul<'_>) -> Result<(), CudaError> {
        let &Matmul { w, x, y, n, k, m, column, row, add } = o;
        let blas = self.library().ok_or_else(|| CudaError::NoKernel {
            op: "matmul".to_owned(),
            shape: format!("N={n} K={k} M={m}"),
            reason: "cuBLASLt was not found".to_owned(),
        })?;
        assert!(w.len() >= 2 * n * k && x.len() >= 2 * m * k, "f16 matrices of {n} by {k} and {m} by {k}");
        assert!(column + n <= row && y.len() >= 4 * m * row, "{n} of {row} columns of {m} rows");
        if self.is_planning() {
            return Ok(());
        }
        let y = y.address() + 4 * column as u64;
        let product = Product { w: w.address(), x: x.address(), y, n, k, m, row, half: true, accumulate: add };
        // SAFETY: the spans are as large as asserted and are kept by the caller, who waits for the stream before it lets them
        // go; everything of an `Exec` is queued on its one stream.
        unsafe { blas.matmul(self.stream(), &product) }
    }
}
