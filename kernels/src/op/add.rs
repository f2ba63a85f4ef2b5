//! `add`: y = a + b, the residual of a transformer where no kernel adds it on its way out.
//!
//! Device arguments: `(const float* a, const float* b, float* y, int COUNT)`; y may be a. A sum of two floats is exact to
//! the last bit.

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Values};
use super::{Op, rmsnorm, values};
use crate::check::{Expected, Floats, Want};

/// The sum.
#[derive(Debug)]
pub(super) struct Add;

fn operands(problem: &Problem) -> [&[f32]; 2] {
    let [Tensor::F32(a), Tensor::F32(b)] = &problem.inputs[..] else { panic!("a sum has two rows of floats") };
    [a, b]
}

fn draw(count: usize, recipe: Values, seed: u64, salt: u64) -> Tensor {
    Tensor::F32(values::rows(1, count, recipe, &mut Rng::new(seed, salt)))
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["COUNT"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        Bytes(12 * dim(shape, "COUNT") as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        dim(shape, "COUNT") as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        rmsnorm::cases(seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        rmsnorm::adversarial(seed)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        vec![Shape::of([("COUNT", 576)])]
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        [1, 2, 3, 5, 31, 33, 896, 1153, 4097, 7 * 1536].map(|n| Shape::of([("COUNT", n)])).to_vec()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let count = dim(shape, "COUNT");
        let Recipe::Rows(recipe) = case.recipe else { panic!("a sum runs cases of rows, not {:?}", case.recipe) };
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![draw(count, recipe, case.seed, 2), draw(count, Values::Outliers, case.seed, 5)],
            outputs: vec![OutputSpec { name: "y", elem: Elem::F32, len: count }],
            scalars: Vec::new(),
            exact: true,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let [a, b] = operands(problem);
        let want: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from(a + b)).collect();
        let bound = vec![0.0; want.len()];
        Some(Expected { outputs: vec![Want::Floats(Floats { want, bound, norms: None })] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [a, b] = operands(problem).map(|v| {
            let bytes = v.iter().flat_map(|v| v.to_le_bytes()).collect();
            Arg::In { bytes, weights: false }
        });
        Ok(vec![a, b, Arg::Out(0), Arg::I32(problem.dim("COUNT") as i32)])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let count = problem.dim("COUNT");
        problem.inputs = vec![draw(count, Values::Outliers, seed, 3), draw(count, Values::Outliers, seed, 6)];
        problem.case = format!("activations {seed:#x}");
    }
}
