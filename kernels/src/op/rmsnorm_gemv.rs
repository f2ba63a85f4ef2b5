//! `rmsnorm_gemv_*`: y = W norm(x) for one token, the norm and the product behind it in one launch.
//!
//! What the separate launches of `rmsnorm`, `quantize_a8` and `gemv_*` compute, so that both ways can be timed side by side.
//!
//! Device arguments: `(const u8* W, const float* norm, const float* x, float* y, int N, int K, float eps)`.

use harness_spec::{Bytes, CellFailure, DType, Shape};
use variants::{Activations, KernelSpec};

use super::normed::{self, float_arg, input};
use super::problem::{Arg, Case, Depth, Problem, dim};
use super::product::Product;
use super::{Op, Placed};
use crate::check::{Expected, Want};

/// A norm and a product.
#[derive(Debug)]
pub(super) struct RmsNormGemv {
    name: &'static str,
    product: Product,
}

/// Every op of this kind: a type for each way in which weights meet rounded activations.
pub(super) static RMSNORM_GEMV: [RmsNormGemv; 3] = [
    RmsNormGemv { name: "rmsnorm_gemv_q4_0", product: normed::product(&[DType::Q4_0]) },
    RmsNormGemv { name: "rmsnorm_gemv_q4_1", product: normed::product(&[DType::Q4_1]) },
    RmsNormGemv { name: "rmsnorm_gemv_q4_k", product: normed::product(&[DType::Q4K]) },
];

impl Op for RmsNormGemv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let n = dim(shape, "N");
        Bytes((normed::bytes(&self.product, n, shape, spec) + 4 * n) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (dim(shape, "N") * dim(shape, "K")) as u64
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
        self.product.awkward_shapes(false, depth)
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        normed::problem(&self.product, self.name, shape, dim(shape, "N"), case)
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        Some(Expected { outputs: vec![Want::Floats(normed::rows(problem, form))] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let w = self.product.weights(problem, spec)?;
        let [n, k] = ["N", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        let (norm, x) = (float_arg(input(problem, 2), true), float_arg(input(problem, 1), false));
        Ok(vec![w, norm, x, Arg::Out(0), n, k, Arg::F32(problem.scalars[0])])
    }

    fn activations(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![normed::placed(problem, 2)])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        normed::redraw(problem, seed);
    }
}
