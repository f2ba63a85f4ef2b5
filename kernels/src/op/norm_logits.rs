//! `norm_logits_*`: the logits of one token, the index of the largest, and the state of the token that follows.
//!
//! Device arguments: `(const u8* W, const float* norm, const float* x, float* y, u32* next, u8* scratch, const u32* pos,
//! u32* ring, int N, int K, float eps)`. The last block to arrive writes `next = {index, pos + 1, pos + 2, 0}` and, where
//! there is a ring of 1024 words, `ring[pos % 1024] = index + 1` with a release that the host sees. The scratch is zeroed
//! once, before the first launch, and every launch leaves it zeroed. Ties go to the lowest index and NaN never wins; of only
//! NaN the index is 0.

use harness_spec::{Bytes, CellFailure, Shape};
use variants::{Activations, KernelSpec};

use super::normed::{self, case, float_arg, input, of_formats, word_arg};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::product::Product;
use super::random::Rng;
use super::recipe::{Values, Weights};
use super::{Op, Placed};
use crate::check::{Expected, Want};

/// Scratch of a launch.
const SCRATCH: usize = 16;

/// The head of a model.
#[derive(Debug)]
pub(super) struct NormLogits {
    name: &'static str,
    product: Product,
}

/// Every op of this kind.
pub(super) static NORM_LOGITS: [NormLogits; 9] = of_formats!(NormLogits, "norm_logits");

fn position(problem: &Problem) -> i32 {
    let Tensor::I32(pos) = &problem.inputs[3] else { panic!("the last input is a position") };
    pos[0]
}

impl Op for NormLogits {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let n = dim(shape, "N");
        Bytes((normed::bytes(&self.product, n, shape, spec) + 4 * n + 16) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (dim(shape, "N") * dim(shape, "K")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = self.product.cases(shape, seed, depth);
        let (name, w) = ("AD-17 maximum at the last index", Weights::LastRowWins);
        cases.push(case(&self.product, name, seed, w, Values::Constant(1.0)));
        cases
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = self.product.adversarial(seed, depth);
        let mut add = |name, w, x| cases.push(case(&self.product, name, seed, w, x));
        add("AD-17 every logit ties", Weights::SameRows, Values::Random);
        add("AD-17 every logit negative", Weights::Negative, Values::Constant(1.0));
        add("AD-17 one NaN logit", Weights::NanRows { all: false }, Values::Random);
        add("AD-17 every logit NaN", Weights::NanRows { all: true }, Values::Random);
        cases
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        self.product.home_shapes()
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        self.product.awkward_shapes(false, depth)
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let mut problem = normed::problem(&self.product, self.name, shape, dim(shape, "N"), case);
        // Positions on both sides of the ring's end.
        problem.inputs.push(Tensor::I32(vec![Rng::new(case.seed, 7).below(4096) as i32]));
        problem.outputs.push(OutputSpec { name: "next", elem: Elem::U32, len: 4 });
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let y = Want::Floats(normed::rows(problem, form));
        let pos = position(problem) as u32;
        Some(Expected { outputs: vec![y, Want::Next { of: 0, behind: vec![pos + 1, pos + 2, 0] }] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let w = self.product.weights(problem, spec)?;
        let [n, k] = ["N", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        let (norm, x) = (float_arg(input(problem, 2), true), float_arg(input(problem, 1), false));
        let scratch = Arg::Scratch { bytes: SCRATCH, zeroed: true };
        let (pos, ring) = (word_arg(&[position(problem)]), Arg::I64(0));
        Ok(vec![w, norm, x, Arg::Out(0), Arg::Out(1), scratch, pos, ring, n, k, Arg::F32(problem.scalars[0])])
    }

    fn activations(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        let pos = position(problem).to_le_bytes().to_vec();
        Ok(vec![normed::placed(problem, 2), (6, pos.into())])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        normed::redraw(problem, seed);
        problem.inputs[3] = Tensor::I32(vec![Rng::new(seed, 7).below(4096) as i32]);
    }
}
