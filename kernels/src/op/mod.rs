//! The contracts of the ops: what goes in, what comes out, how many bytes that takes, what is right, and which inputs
//! show that a kernel is not.
//!
//! An op knows no device. [`crate::check`] runs its cases on anything that implements [`Runner`].
//!
//! | op | inputs | outputs |
//! |---|---|---|
//! | `gemv_*` | W `[N, K]`, x f32 `[M, K]` | y f32 `[M, N]` |
//! | `logits_*` | W `[N, K]`, x f32 `[K]` | y f32 `[N]`, id u32 `[1]` |
//! | `gemm_*` | W `[N, K]`, x f32 `[M, K]`, sometimes r f32 `[M, N]` | y f32 `[M, N]` |
//! | `dequantize_*` | W `[N, K]` | out f16 `[N, K]` |
//! | `rmsnorm` | x f32 `[M, K]`, w f32 `[K]`; eps | y f32 `[M, K]` |
//! | `rmsnorm_half` | the same | y f16 `[M, K]` |
//! | `swiglu` | gates and ups f32 `[M, 2 F]` | out f32 or f16 `[M, F]`, or M slabs u8 |
//! | `add` | a, b f32 `[COUNT]` | y f32 `[COUNT]` |
//! | `quantize_a8` | x f32 `[K]` | slab u8 |
//! | `attn_decode` | q f32 `[HEADS, DIM]`, k and v f16 `[KV_HEADS, MAX_LEN, DIM]`, len i32 `[1]` | out f32 `[HEADS, DIM]` |
//! | `attn_token` | q, k, v as `attn_decode` or k, v int8 with scales f32 `[KV_HEADS, MAX_LEN]`, len | out f32 or a slab u8 |
//! | `attn_prefill` | q f32 `[M, HEADS, DIM]`, k, v as `attn_token`, pos u32 `[1]` | out f16 `[M, HEADS, DIM]` |
//! | `rope_append` | qkv f32 `[M, (HEADS + 2 KV_HEADS) DIM]`, bias, norms, angles, pos u32 `[1]` | q f32, k, v, their scales |
//! | `embed_*` | W `[N, K]`, ids u32 `[M]` | x f32 `[M, K]` |
//! | `qkv_rope_*` | W `[N, K]`, x and norm f32 `[K]`, bias, angles, state u32 `[4]`; eps | q f32 `[HEADS, DIM]`, k, v, their scales |
//! | `gate_up_*` | W `[2 F, K]`, x f32 `[K]`, norm f32 `[K]`; eps | slab u8 of `[F]` |
//! | `gemv_add_*` | W `[N, K]`, x f32 `[K]`, r f32 `[N]` | y f32 `[N]` |
//! | `norm_logits_*` | W `[N, K]`, x f32 `[K]`, norm f32 `[K]`, pos u32 `[1]`; eps | y f32 `[N]`, next u32 `[4]` |
//! | `rmsnorm_gemv_*` | W `[N, K]`, x f32 `[K]`, norm f32 `[K]`; eps | y f32 `[N]` |
//! | `sample` | logits f32 `[N]`, params u32 `[8]`, draws f64 `[1024]`, history u32 `[LEN]`, pos u32 `[1]` | next u32 `[4]`, log u32 `[LEN]` |
//! | `stream_read` | data `[BYTES]` | y u32 `[blocks]` |

pub mod activations;
mod add;
mod append;
mod attend;
mod attention;
mod blocks;
mod cache;
mod embed;
mod gate_up;
mod gemm;
mod gemv;
mod gemv_add;
mod logits;
mod norm_logits;
mod normed;
mod pages;
mod problem;
mod product;
mod qkv_rope;
mod quantize;
mod random;
mod recipe;
mod rmsnorm;
mod rmsnorm_gemv;
mod sample;
mod stream;
mod swiglu;
mod values;

pub use attention::MOST_SPLITS;
pub use logits::SCRATCH as LOGITS_SCRATCH;
pub use problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
pub use qkv_rope::scratch as qkv_scratch;
pub(crate) use random::Rng;
pub use recipe::{Recipe, SampleLogits, Sampling, Scores, Values, Weights};
pub use sample::{SAMPLE_DRAWS, SampleParams, sample_work};

use std::sync::Arc;

use harness_spec::{Bytes, CellFailure, Shape};
use variants::{Activations, KernelSpec};

use crate::check::Expected;

/// The place of an argument and its bytes.
pub type Placed = (usize, Arc<[u8]>);

/// A contract: inputs, outputs, reference, tolerance, byte and FLOP model, and the inputs that a kernel must pass.
pub trait Op: Send + Sync {
    /// The name, such as `gemv_q4_0`.
    fn name(&self) -> &'static str;

    /// The dimensions of its shapes. M may be left out of a shape and is 1 then.
    fn dims(&self) -> &'static [&'static str];

    /// Bytes that one run must move: weights as stored in the layout of `spec` with scales and padding, activations in the
    /// form that `spec` reads, keys and values, outputs.
    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes;

    /// Operations of one run, a multiply-add as two.
    fn flops(&self, shape: &Shape) -> u64;

    /// The inputs that every shape is checked with: random, realistic, exact.
    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case>;

    /// The adversarial inputs (AD-*). They run at the first of [`Op::home_shapes`] that the variant takes.
    fn adversarial(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let _ = (shape, seed, depth);
        Vec::new()
    }

    /// Small shapes for the adversarial inputs; where a variant takes none of them, they run at `shape` itself.
    fn home_shapes(&self, shape: &Shape) -> Vec<Shape> {
        let _ = shape;
        Vec::new()
    }

    /// Further shapes that a kernel which is asked for `shape` is checked at, where it takes them: tails of every kind,
    /// single blocks, other numbers of tokens.
    fn awkward_shapes(&self, shape: &Shape, depth: Depth) -> Vec<Shape>;

    /// A shape whose weights have more than 2³¹ elements (AD-26), for ops where an index may overflow.
    fn overflow_shape(&self) -> Option<Shape> {
        None
    }

    /// The data of a case. The same case and shape give the same data.
    fn problem(&self, shape: &Shape, case: &Case) -> Problem;

    /// What is right, in f64 on decoded weights and on the very activations that a kernel of this form reads. `None` where
    /// the form cannot hold the activations of this problem, such as 7e4 as a 16-bit float.
    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected>;

    /// The arguments of a device kernel, in the order of its parameters.
    ///
    /// # Errors
    /// Where the layout of `spec` does not take these weights.
    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure>;

    /// The inputs that [`Op::redraw`] changes, as a device kernel takes them, each with its place among the arguments.
    ///
    /// # Errors
    /// As [`Op::arguments`].
    fn activations(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        let arguments = self.arguments(problem, spec)?;
        let inputs = arguments.into_iter().enumerate().filter_map(|(i, arg)| match arg {
            Arg::In { bytes, weights: false } => Some((i, bytes)),
            _ => None,
        });
        Ok(inputs.collect())
    }

    /// Draws other activations for the same weights, for launches that are verified while they are timed.
    fn redraw(&self, problem: &mut Problem, seed: u64);

    /// Multiplies the activations by a power of two or its negative, where the outputs then scale by exactly the same.
    /// Answers whether they do; where not, the problem is unchanged.
    fn scale(&self, problem: &mut Problem, factor: f32) -> bool {
        let _ = (problem, factor);
        false
    }
}

/// Something that runs one variant.
pub trait Runner {
    /// Runs a problem and returns the bytes of each output.
    ///
    /// Outputs are filled with 0xFF beforehand, which is NaN to a float, and lie between guard bands of at least 256 bytes.
    ///
    /// # Errors
    /// Where the launch fails, or a guard band was written to (as [`harness_spec::Stage::Check`]).
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure>;

    /// Whether the variant takes this shape. The gate asks before it runs the awkward shapes.
    fn admits(&self, shape: &Shape) -> bool {
        let _ = shape;
        true
    }
}

/// The op of this name.
pub fn op(name: &str) -> Option<&'static dyn Op> {
    ops().find(|op| op.name() == name)
}

/// Ops of which there is one each.
static OTHERS: &[&dyn Op] = &[
    &quantize::QuantizeA8,
    &attention::AttnDecode,
    &append::RopeAppend,
    &stream::StreamRead,
    &swiglu::SwiGlu,
    &add::Add,
    &sample::Sample,
];

/// Every op.
pub fn ops() -> impl Iterator<Item = &'static dyn Op> {
    let qkv = qkv_rope::QKV_ROPE.iter().map(|op| op as &'static dyn Op);
    let gate_up = gate_up::GATE_UP.iter().map(|op| op as &'static dyn Op);
    let gemv_add = gemv_add::GEMV_ADD.iter().map(|op| op as &'static dyn Op);
    let heads = norm_logits::NORM_LOGITS.iter().map(|op| op as &'static dyn Op);
    let norms_and_products = rmsnorm_gemv::RMSNORM_GEMV.iter().map(|op| op as &'static dyn Op);
    let fused = qkv.chain(gate_up).chain(gemv_add).chain(heads).chain(norms_and_products);
    let gemv = gemv::GEMV.iter().map(|op| op as &'static dyn Op);
    let logits = logits::LOGITS.iter().map(|op| op as &'static dyn Op);
    let gemm = gemm::GEMM.iter().map(|op| op as &'static dyn Op);
    let dequantize = gemm::DEQUANTIZE.iter().map(|op| op as &'static dyn Op);
    let norms = rmsnorm::RMSNORM.iter().map(|op| op as &'static dyn Op);
    let embed = embed::EMBED.iter().map(|op| op as &'static dyn Op);
    let attend = attend::ATTEND.iter().map(|op| op as &'static dyn Op);
    let products = gemv.chain(logits).chain(fused).chain(gemm).chain(dequantize);
    products.chain(norms).chain(embed).chain(attend).chain(OTHERS.iter().copied())
}

#[cfg(test)]
mod tests {
    use variants::registry;

    use super::*;

    #[test]
    fn every_op_is_found_by_its_name_and_has_a_space() {
        for op in ops() {
            assert_eq!(super::op(op.name()).unwrap().name(), op.name());
            assert!(registry().space(op.name()).is_some(), "{}", op.name());
        }
        assert!(super::op("gemv").is_none());
    }

    #[test]
    fn bytes_are_those_of_the_layout_the_form_of_activations_and_the_outputs() {
        let shape = Shape::of([("N", 64), ("K", 256)]);
        let bytes = |op: &str, kernel: &str| {
            let spec = registry().space(op).unwrap().kernels.iter().find(|k| k.name == kernel).unwrap();
            super::op(op).unwrap().bytes(&shape, spec).0
        };
        assert_eq!(bytes("gemv_q4_0", "plain"), 64 * 8 * 18 + 256 * 4 + 64 * 4);
        // Tiles of Q4_0 take what the file does; activations are a slab.
        assert_eq!(bytes("gemv_q4_0", "unsigned@avx2"), 64 * 8 * 18 + (256 + 8 * 8) + 64 * 4);
        // Tiles of Q4_K hold unpacked scales: 16 bytes where the file has 12.
        assert_eq!(bytes("gemv_q4_k", "unsigned@avx2"), 64 * 148 + (256 + 8 * 8) + 64 * 4);
        assert_eq!(bytes("logits_q8_0", "plain"), 64 * 8 * 34 + 256 * 4 + 64 * 4 + 4);
    }

    #[test]
    fn arguments_stand_in_the_order_of_the_contract() {
        let spec = |op: &str| registry().space(op).unwrap().kernels.iter().find(|k| k.baseline).unwrap();
        let kinds = |op: &'static str, shape: Shape| -> String {
            let op = super::op(op).unwrap();
            let problem = op.problem(&shape, &op.cases(&shape, 1, Depth::Quick)[0]);
            let kind = |arg: &Arg| match arg {
                Arg::In { weights: true, .. } => 'W',
                Arg::In { weights: false, .. } => 'x',
                Arg::State { .. } => 'c',
                Arg::Settled { .. } => 'n',
                Arg::Out(_) => 'y',
                Arg::Scratch { .. } => 's',
                Arg::I32(_) => 'i',
                Arg::I64(_) => 'l',
                Arg::F32(_) => 'f',
            };
            op.arguments(&problem, spec(op.name())).unwrap().iter().map(kind).collect()
        };
        let matrix = || Shape::of([("N", 4), ("K", 256)]);
        assert_eq!(kinds("gemv_q4_0", matrix()), "Wxyiii");
        assert_eq!(kinds("logits_q8_0", matrix()), "Wxyysii");
        assert_eq!(kinds("rmsnorm", Shape::of([("K", 64)])), "xWyiif");
        assert_eq!(kinds("quantize_a8", Shape::of([("K", 64)])), "xyi");
        assert_eq!(kinds("stream_read", Shape::of([("BYTES", 64)])), "Wyl");
        let heads = Shape::of([("HEADS", 4), ("KV_HEADS", 2), ("DIM", 16), ("LEN", 5), ("MAX_LEN", 8)]);
        assert_eq!(kinds("attn_decode", heads.clone()), "xccysniiii");
        let with = |dims: &[(&str, u64)]| {
            let mut shape = heads.clone();
            shape.0.extend(dims.iter().map(|&(name, value)| (name.to_owned(), value)));
            shape
        };
        // Scales, biases and norms that are not there are null.
        assert_eq!(kinds("attn_token", with(&[("KV", 16), ("OUT", 32)])), "xccllysniiiiii");
        assert_eq!(kinds("attn_token", with(&[("DIM", 32), ("KV", 8), ("OUT", 8)])), "xccccysniiiiii");
        assert_eq!(kinds("attn_prefill", with(&[("KV", 8), ("M", 2), ("POS", 1)])), "xccccyxiiiiii");
        assert_eq!(kinds("rope_append", with(&[("ROT", 16), ("KV", 16), ("PAIRING", 1)])), "xlllWxyyylliiiiiiiif");
        assert_eq!(kinds("rope_append", with(&[("ROT", 16), ("KV", 8), ("PAIRING", 1)])), "xlllWxyyyyyiiiiiiiif");
        assert_eq!(kinds("embed_q4_0", matrix()), "Wxyii");
        assert_eq!(kinds("sample", Shape::of([("N", 30), ("LEN", 9)])), "xnncnyysslii");
    }
}
