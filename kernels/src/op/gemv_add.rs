//! `gemv_add_*`: y = r + W x for one token, the product that ends on the residual.
//!
//! Device arguments: `(const u8* W, const u8* x, const float* r, float* y, int N, int K)`, with x a slab a8/32,
//! or floats for weights in 16-bit floats. `r` and `y` may be the same memory: each element is read and written by one thread.

use harness_spec::{Bytes, CellFailure, Shape};
use variants::{Activations, KernelSpec};

use super::normed::{float_arg, float_bytes, input, of_formats};
use super::problem::{Arg, Case, Depth, Problem, Tensor, dim};
use super::product::{self, Product};
use super::random::Rng;
use super::{Op, Placed};
use crate::check::{Expected, Want};

/// A product that is added to.
#[derive(Debug)]
pub(super) struct GemvAdd {
    name: &'static str,
    product: Product,
}

/// Every op of this kind.
pub(super) static GEMV_ADD: [GemvAdd; 9] = of_formats!(GemvAdd, "gemv_add");

impl Op for GemvAdd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        Bytes(self.product.bytes(shape, spec).0 + 4 * dim(shape, "N") as u64)
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
        let mut problem = self.product.problem(self.name, shape, case);
        // Whole numbers, so that exact sums stay exact.
        let residual = Rng::new(case.seed, 5).many(dim(shape, "N"), |r| r.whole(-1000, 1000) as f32);
        problem.inputs.push(Tensor::F32(residual));
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let mut y = self.product.expected(problem, form)?;
        for (i, &r) in input(problem, 2).iter().enumerate() {
            let r = f64::from(r);
            // A sum that is exact without the residual has room for it: it is a thousand of its units at most.
            if y.bound[i] > 0.0 {
                y.bound[i] += (r.abs() + y.want[i].abs()) / f64::from(1 << 23);
            }
            y.want[i] += r;
        }
        // Against a residual an error of the product may not hide: elements are judged by their own bounds alone.
        y.norms = None;
        Some(Expected { outputs: vec![Want::Floats(y)] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [w, x] = self.product.operands(problem, spec)?;
        let [n, k] = ["N", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![w, x, float_arg(input(problem, 2), false), Arg::Out(0), n, k])
    }

    fn activations(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![(1, product::activations(problem, spec)), (2, float_bytes(input(problem, 2)))])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        self.product.redraw(problem, seed);
        let n = problem.dim("N");
        problem.inputs[2] = Tensor::F32(Rng::new(seed, 6).many(n, |r| r.normal()));
    }

    fn scale(&self, problem: &mut Problem, factor: f32) -> bool {
        for at in [1, 2] {
            let Tensor::F32(values) = &mut problem.inputs[at] else { return false };
            values.iter_mut().for_each(|v| *v *= factor);
        }
        true
    }
}
