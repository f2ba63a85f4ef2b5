//! `logits_*`: y = W x for one token over the vocabulary, and the index of its largest value.
//!
//! Device arguments: `(const u8* W, const u8* x, float* y, u32* id, u8* scratch, int N, int K)`. The scratch is zeroed once,
//! before the first launch, and every launch leaves it zeroed. Ties go to the lowest index and NaN never wins; of only NaN
//! the index is 0.

use harness_spec::{Bytes, CellFailure, DType, Shape};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::product::{self, Product};
use super::recipe::{Recipe, Values, Weights};
use super::{Op, Placed};
use crate::check::{Expected, Want};

/// Scratch of a launch: a value and an index for each block of a grid, and a counter.
pub const SCRATCH: usize = 1 << 16;

/// A product with the choice of a token.
#[derive(Debug)]
pub(super) struct Logits {
    name: &'static str,
    product: Product,
}

/// Every op of this kind.
pub(super) static LOGITS: [Logits; 2] = [
    Logits { name: "logits_q8_0", product: Product { dtypes: &[DType::Q8_0], group: 1 } },
    Logits { name: "logits_q6_k", product: Product { dtypes: &[DType::Q6K], group: 1 } },
];

impl Op for Logits {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        Bytes(self.product.bytes(shape, spec).0 + 4)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (dim(shape, "N") * dim(shape, "K")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = self.product.cases(shape, seed, depth);
        cases.push(self.case("AD-17 maximum at the last index", seed, Weights::LastRowWins, Values::Constant(1.0)));
        cases
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = self.product.adversarial(seed, depth);
        cases.push(self.case("AD-17 every logit ties", seed, Weights::SameRows, Values::Random));
        cases.push(self.case("AD-17 every logit negative", seed, Weights::Negative, Values::Constant(1.0)));
        let nan = |all| Weights::NanRows { all };
        cases.push(self.case("AD-17 one NaN logit", seed, nan(false), Values::Random));
        cases.push(self.case("AD-17 every logit NaN", seed, nan(true), Values::Random));
        // Half a product of Q6_K is its offset, so an infinite scale gives NaN or infinity by the order of its terms.
        if self.name == "logits_q8_0" {
            let w = Weights::MinusInfinity;
            cases.push(self.case("AD-17 every logit minus infinity", seed, w, Values::Constant(1.0)));
        }
        cases
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        self.product.home_shapes()
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        self.product.awkward_shapes(false, depth)
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let mut problem = self.product.problem(self.name, shape, case);
        problem.outputs.push(OutputSpec { name: "id", elem: Elem::U32, len: 1 });
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let y = Want::Floats(self.product.expected(problem, form)?);
        Some(Expected { outputs: vec![y, Want::Argmax { of: 0 }] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [w, x] = self.product.operands(problem, spec)?;
        let [n, k] = ["N", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        let scratch = Arg::Scratch { bytes: SCRATCH, zeroed: true };
        Ok(vec![w, x, Arg::Out(0), Arg::Out(1), scratch, n, k])
    }

    fn activations(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![(1, product::activations(problem, spec))])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        self.product.redraw(problem, seed);
    }

    /// The index of the largest value is judged against the values that the kernel wrote, so it follows their sign.
    fn scale(&self, problem: &mut Problem, factor: f32) -> bool {
        let Tensor::F32(x) = &mut problem.inputs[1] else { return false };
        x.iter_mut().for_each(|v| *v *= factor);
        true
    }
}

impl Logits {
    fn case(&self, name: &str, seed: u64, w: Weights, x: Values) -> Case {
        let dtype = Some(self.product.dtypes[0]);
        Case { name: name.to_owned(), seed, dtype, recipe: Recipe::Product(w, x) }
    }
}
