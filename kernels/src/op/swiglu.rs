//! `swiglu`: out = gate / (1 + exp(-gate)) * up, what the second matrix of a feed-forward network takes.
//!
//! Device arguments: `(const float* gu, u8* out, int F, int M, int OUT)`. A row of `gu` is the gates of a token, then its
//! ups. OUT is the form of the result: 32 for floats `[M, F]`, 16 for 16-bit floats `[M, F]`, and 8 for M slabs a8/32. What
//! lies beyond the range of a 16-bit float becomes its largest value.

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::activations::slab_stride;
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Values};
use super::{Op, rmsnorm, values};
use crate::check::{Expected, Floats, Slabs, Want};

const GROUP: usize = 32;

/// The gated unit.
#[derive(Debug)]
pub(super) struct SwiGlu;

/// The largest error of a 16-bit float next to `v`: half a unit in the last place, or half of the smallest subnormal.
pub(super) fn half_ulp_f16(v: f64) -> f64 {
    v.abs() / 2048.0 + 1.0 / f64::from(1u32 << 25)
}

/// `v` where a 16-bit float can hold it, else the largest that it can.
pub(super) fn saturated_f16(v: f64) -> f64 {
    v.clamp(-65504.0, 65504.0)
}

fn gates_and_ups(problem: &Problem) -> &[f32] {
    let Tensor::F32(gu) = &problem.inputs[0] else { panic!("gates and ups are rows of floats") };
    gu
}

impl Op for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["F", "M", "OUT"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let (f, m) = (dim(shape, "F"), dim(shape, "M"));
        let out = match dim(shape, "OUT") {
            8 => slab_stride(f, GROUP),
            16 => f * 2,
            _ => f * 4,
        };
        Bytes((m * (8 * f + out)) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        4 * (dim(shape, "F") * dim(shape, "M")) as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = rmsnorm::cases(seed, depth);
        // Gates of both signs that are neither near zero nor far from it, where the exponential counts.
        cases.push(rmsnorm::case("magnitudes of 8", seed, Values::Times(8.0)));
        cases
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        let mut cases = rmsnorm::adversarial(seed);
        cases.push(rmsnorm::case("magnitudes of 100", seed, Values::Times(100.0)));
        cases
    }

    fn home_shapes(&self, shape: &Shape) -> Vec<Shape> {
        vec![Shape::of([("F", 576), ("M", 2), ("OUT", dim(shape, "OUT") as u64)])]
    }

    fn awkward_shapes(&self, shape: &Shape, _: Depth) -> Vec<Shape> {
        let of = |(f, m, out)| Shape::of([("F", f), ("M", m), ("OUT", out)]);
        let asked = dim(shape, "OUT") as u64;
        let sizes = [(32, 1), (1536, 1), (96, 7), (4864, 2), (18_944, 1), (160, 33)];
        let mut shapes: Vec<Shape> = sizes.into_iter().map(|(f, m)| of((f, m, asked))).collect();
        // One source serves every form of the result.
        shapes.extend([8, 16, 32].into_iter().filter(|&out| out != asked).map(|out| of((224, 3, out))));
        shapes
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let (f, m) = (dim(shape, "F"), dim(shape, "M"));
        let Recipe::Rows(recipe) = case.recipe else { panic!("a gate runs cases of rows, not {:?}", case.recipe) };
        let output = match dim(shape, "OUT") {
            8 => OutputSpec { name: "out", elem: Elem::U8, len: m * slab_stride(f, GROUP) },
            16 => OutputSpec { name: "out", elem: Elem::F16, len: m * f },
            _ => OutputSpec { name: "out", elem: Elem::F32, len: m * f },
        };
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::F32(values::rows(m, 2 * f, recipe, &mut Rng::new(case.seed, 2)))],
            outputs: vec![output],
            scalars: Vec::new(),
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let f = problem.dim("F");
        let (mut want, mut bound) = (Vec::new(), Vec::new());
        for token in gates_and_ups(problem).chunks_exact(2 * f) {
            let (gates, ups) = token.split_at(f);
            for (&g, &u) in gates.iter().zip(ups) {
                let (g, u) = (f64::from(g), f64::from(u));
                let value = g / (1.0 + (-g).exp()) * u;
                // The exponent of a large gate is rounded before it is raised; an exponential may be subnormal.
                bound.push(1e-6 * (1.0 + g.abs()) * value.abs() + 1.2e-38 * (1.0 + g.abs()) * (1.0 + u.abs()));
                want.push(value);
            }
        }
        let output = match problem.dim("OUT") {
            8 => Want::Slabs(Slabs { k: f, group: GROUP, want, bound }),
            16 => {
                bound.iter_mut().zip(&want).for_each(|(b, &v)| *b += half_ulp_f16(v));
                let want = want.into_iter().map(saturated_f16).collect();
                Want::Halves(Floats { want, bound, norms: None })
            }
            _ => Want::Floats(Floats { want, bound, norms: None }),
        };
        Some(Expected { outputs: vec![output] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let bytes = gates_and_ups(problem).iter().flat_map(|v| v.to_le_bytes()).collect();
        let [f, m, out] = ["F", "M", "OUT"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![Arg::In { bytes, weights: false }, Arg::Out(0), f, m, out])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let (f, m) = (problem.dim("F"), problem.dim("M"));
        problem.inputs[0] = Tensor::F32(values::rows(m, 2 * f, Values::Outliers, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}
