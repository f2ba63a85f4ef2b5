//! `rmsnorm`: y = x / sqrt(mean(x²) + eps) * w, row by row, and `rmsnorm_half`, whose result is in 16-bit floats.
//!
//! Device arguments: `(const float* x, const float* w, float* y, int K, int M, float eps)`; `u16* y` in 16-bit floats, of
//! which what lies beyond their range becomes the largest.

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::Op;
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Values};
use super::swiglu::{half_ulp_f16, saturated_f16};
use super::values;
use crate::check::{Expected, Floats, Want};
use crate::reference;

/// The largest relative error of an element.
const RELATIVE: f64 = 1e-6;
/// What `llama` and `qwen2` models have.
const EPS: f32 = 1e-5;

/// The norm.
#[derive(Debug)]
pub(super) struct RmsNorm {
    /// Whether the result is in 16-bit floats.
    half: bool,
}

/// The norm in floats, and in 16-bit floats.
pub(super) static RMSNORM: [RmsNorm; 2] = [RmsNorm { half: false }, RmsNorm { half: true }];

/// A case of an op on rows of activations.
pub(super) fn case(name: impl Into<String>, seed: u64, x: Values) -> Case {
    Case { name: name.into(), seed, dtype: None, recipe: Recipe::Rows(x) }
}

/// Random and realistic rows.
pub(super) fn cases(seed: u64, depth: Depth) -> Vec<Case> {
    let count = if depth == Depth::Full { 5 } else { 3 };
    let random = (0..count)
        .map(|i| case(format!("random seed {i}"), seed.wrapping_mul(0x1_0001).wrapping_add(i), Values::Random));
    random.chain([case("outliers", seed, Values::Outliers)]).collect()
}

/// Rows that are hard to sum or to scale.
pub(super) fn adversarial(seed: u64) -> Vec<Case> {
    let mut cases = vec![
        case("AD-03 all 3000", seed, Values::Constant(3000.0)),
        case("AD-03 signs of 7e4", seed, Values::Alternate(7e4)),
        case("AD-05 zero vector", seed, Values::Constant(0.0)),
        case("AD-05 zero group", seed, Values::ZeroGroup),
        case("AD-06 one 1e4 among 1e-2", seed, Values::OneLarge),
        case("AD-19 the maximum at the end", seed, Values::LastLargest),
        case("AD-27 patterns of four", seed, Values::Fours),
        case("AD-28 exact halves", seed, Values::Halves),
    ];
    for size in [1e-6, 1e-9, 1e-30] {
        cases.push(case(format!("AD-04 amax {size:e}"), seed, Values::Times(size)));
    }
    for at in [0, 31, 32, 575] {
        cases.push(case(format!("AD-02 one-hot {at}"), seed, Values::OneHot(at)));
    }
    cases
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        if self.half { "rmsnorm_half" } else { "rmsnorm" }
    }

    fn dims(&self) -> &'static [&'static str] {
        &["K", "M"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let (k, m) = (dim(shape, "K"), dim(shape, "M"));
        let out = if self.half { 2 } else { 4 };
        Bytes((4 * (m * k + k) + out * m * k) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        4 * (dim(shape, "K") * dim(shape, "M")) as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        cases(seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        adversarial(seed)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        [576, 1024].map(|k| Shape::of([("K", k)])).to_vec()
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        let one = [32, 64, 576, 896, 1536, 4096, 4864, 18_944].map(|k| Shape::of([("K", k)]));
        let many = [(576, 3), (1536, 8)].map(|(k, m)| Shape::of([("K", k), ("M", m)]));
        one.into_iter().chain(many).collect()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let (k, m) = (dim(shape, "K"), dim(shape, "M"));
        let Recipe::Rows(recipe) = case.recipe else { panic!("a norm runs cases of rows, not {:?}", case.recipe) };
        let x = values::rows(m, k, recipe, &mut Rng::new(case.seed, 2));
        let w = Rng::new(case.seed, 4).many(k, |r| 1.0 + 0.3 * r.normal());
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::F32(x), Tensor::F32(w)],
            outputs: vec![OutputSpec { name: "y", elem: if self.half { Elem::F16 } else { Elem::F32 }, len: m * k }],
            scalars: vec![EPS],
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let [Tensor::F32(x), Tensor::F32(w)] = &problem.inputs[..] else { panic!("a norm has two rows of floats") };
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let want = reference::rmsnorm(&wide(x), &wide(w), f64::from(problem.scalars[0]));
        // Products below the smallest normal float lose digits.
        let of_floats = |v: &f64| RELATIVE * v.abs() + 1e-37;
        if self.half {
            let bound = want.iter().map(|v| of_floats(v) + half_ulp_f16(*v)).collect();
            let want = want.into_iter().map(saturated_f16).collect();
            return Some(Expected { outputs: vec![Want::Halves(Floats { want, bound, norms: None })] });
        }
        let bound = want.iter().map(of_floats).collect();
        Some(Expected { outputs: vec![Want::Floats(Floats { want, bound, norms: None })] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [Tensor::F32(x), Tensor::F32(w)] = &problem.inputs[..] else { panic!("a norm has two rows of floats") };
        let bytes = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect();
        let [k, m] = ["K", "M"].map(|d| Arg::I32(problem.dim(d) as i32));
        let eps = Arg::F32(problem.scalars[0]);
        let (x, w) = (Arg::In { bytes: bytes(x), weights: false }, Arg::In { bytes: bytes(w), weights: true });
        Ok(vec![x, w, Arg::Out(0), k, m, eps])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let (k, m) = (problem.dim("K"), problem.dim("M"));
        problem.inputs[0] = Tensor::F32(values::rows(m, k, Values::Outliers, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}
