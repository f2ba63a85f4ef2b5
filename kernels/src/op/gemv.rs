//! `gemv_*`: y = W x for M tokens.
//!
//! Device arguments: `(const u8* W, const u8* x, float* y, int N, int K, int M)`, with W in the kernel's layout and x in its
//! form of activations, a row or slab for each token.

use harness_spec::{Bytes, CellFailure, DType, Shape};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Problem, Tensor, dim};
use super::product::{self, Product};
use super::{Op, Placed};
use crate::check::{Expected, Want};

/// A product of weights and activations.
#[derive(Debug)]
pub(super) struct Gemv {
    name: &'static str,
    product: Product,
}

const fn gemv(name: &'static str, dtypes: &'static [DType]) -> Gemv {
    Gemv { name, product: Product { dtypes, group: 1 } }
}

/// Every op of this kind.
pub(super) static GEMV: [Gemv; 12] = [
    gemv("gemv_q4_0", &[DType::Q4_0]),
    gemv("gemv_q4_1", &[DType::Q4_1]),
    gemv("gemv_q5_0", &[DType::Q5_0]),
    gemv("gemv_q8_0", &[DType::Q8_0]),
    gemv("gemv_q4_k", &[DType::Q4K]),
    gemv("gemv_q5_k", &[DType::Q5K]),
    gemv("gemv_q6_k", &[DType::Q6K]),
    gemv("gemv_f16", &[DType::F16]),
    gemv("gemv_bf16", &[DType::BF16]),
    gemv("gemv_f32", &[DType::F32]),
    // On the host the weights are Q4_0 blocks of which four share a scale.
    Gemv { name: "gemv_g128", product: Product { dtypes: &[DType::Q4_0], group: 128 } },
    gemv("gemv_ternary", &[DType::TQ2_0, DType::TQ1_0]),
];

impl Op for Gemv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K", "M"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        self.product.bytes(shape, spec)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (dim(shape, "N") * dim(shape, "K") * dim(shape, "M")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.cases(shape, seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.adversarial(seed, depth)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        self.product.home_shapes()
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        self.product.awkward_shapes(true, depth)
    }

    fn overflow_shape(&self) -> Option<Shape> {
        // A few rows beyond, so that some of them lie wholly behind the first index that overflows.
        Some(Shape::of([("N", (1 << 31) / 4096 + 33), ("K", 4096)]))
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        self.product.problem(self.name, shape, case)
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        Some(Expected { outputs: vec![Want::Floats(self.product.expected(problem, form)?)] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [w, x] = self.product.operands(problem, spec)?;
        let [n, k, m] = ["N", "K", "M"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![w, x, Arg::Out(0), n, k, m])
    }

    fn activations(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![(1, product::activations(problem, spec))])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        self.product.redraw(problem, seed);
    }

    fn scale(&self, problem: &mut Problem, factor: f32) -> bool {
        let Tensor::F32(x) = &mut problem.inputs[1] else { return false };
        x.iter_mut().for_each(|v| *v *= factor);
        true
    }
}
