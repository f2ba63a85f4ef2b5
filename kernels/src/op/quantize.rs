//! `quantize_a8`: activations of one token as int8 with a scale and a sum for every 32 (see [`super::activations`]).
//!
//! Device arguments: `(const float* x, u8* slab, int K)`. Codes must be those of `x * (127 / max|x|)` rounded half away from
//! zero, with the quotient rounded to a float first; a scale may be one unit in the last place off.

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::activations::slab_stride;
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Values};
use super::{Op, rmsnorm, values};
use crate::check::{Expected, Want};
use crate::reference::quantize_group;

const GROUP: usize = 32;

/// The rounding.
#[derive(Debug)]
pub(super) struct QuantizeA8;

fn floats(problem: &Problem) -> &[f32] {
    let Tensor::F32(x) = &problem.inputs[0] else { panic!("what is rounded is a row of floats") };
    x
}

impl Op for QuantizeA8 {
    fn name(&self) -> &'static str {
        "quantize_a8"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["K"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let k = dim(shape, "K");
        Bytes((4 * k + slab_stride(k, GROUP)) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        3 * dim(shape, "K") as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        rmsnorm::cases(seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        let mut cases = rmsnorm::adversarial(seed);
        // The fixed scale of B24 is right only below 1, and a code of -128 never occurs.
        cases.push(rmsnorm::case("magnitudes of 50", seed, Values::Times(50.0)));
        cases.push(rmsnorm::case("AD-13 all -128", seed, Values::Constant(-128.0)));
        cases
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        [576, 1024, 4096].map(|k| Shape::of([("K", k)])).to_vec()
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        [32, 64, 96, 576, 896, 1536, 4096, 4864, 18_944].map(|k| Shape::of([("K", k)])).to_vec()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let k = dim(shape, "K");
        let Recipe::Rows(recipe) = case.recipe else { panic!("rounding runs cases of rows, not {:?}", case.recipe) };
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::F32(values::rows(1, k, recipe, &mut Rng::new(case.seed, 2)))],
            outputs: vec![OutputSpec { name: "slab", elem: Elem::U8, len: slab_stride(k, GROUP) }],
            scalars: Vec::new(),
            exact: true,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for group in floats(problem).chunks_exact(GROUP) {
            let (q, s) = quantize_group(group);
            codes.extend(q);
            scales.push(s);
        }
        Some(Expected { outputs: vec![Want::Slab { codes, scales }] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let bytes = floats(problem).iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(vec![Arg::In { bytes, weights: false }, Arg::Out(0), Arg::I32(problem.dim("K") as i32)])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let k = problem.dim("K");
        problem.inputs[0] = Tensor::F32(values::rows(1, k, Values::Outliers, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}
