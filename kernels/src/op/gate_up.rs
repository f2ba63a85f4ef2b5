//! `gate_up_*`: silu(gate) * up of the norm of one token, rounded to a8/32 for the product behind it, or as it is where that
//! product takes floats.
//!
//! `out = a8(silu(G n) * (U n))` with `n = norm(x)` and the rows of G and then of U as one matrix `[2 F, K]`.
//!
//! Device arguments: `(const u8* W, const float* norm, const float* x, u8* out, int F, int K, float eps)`.

use harness_spec::{Bytes, CellFailure, DType, Shape};
use variants::{Activations, KernelSpec};

use super::activations::slab_stride;
use super::normed::{self, float_arg, input, of_formats};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, dim};
use super::product::Product;
use super::{Op, Placed};
use crate::check::{Expected, Floats, Slabs, Want};

const GROUP: usize = 32;
/// The error of the exponential and of the product, of the result.
const RELATIVE: f64 = 1e-5;

/// Gate, up and what joins them.
#[derive(Debug)]
pub(super) struct GateUp {
    name: &'static str,
    product: Product,
}

/// Every op of this kind.
pub(super) static GATE_UP: [GateUp; 9] = of_formats!(GateUp, "gate_up");

impl GateUp {
    /// The output: a slab, or floats for weights that are multiplied with floats.
    fn output(&self, f: usize) -> OutputSpec {
        match self.product.dtypes[0] {
            DType::F16 | DType::BF16 => OutputSpec { name: "out", elem: Elem::F32, len: f },
            _ => OutputSpec { name: "out", elem: Elem::U8, len: slab_stride(f, GROUP) },
        }
    }
}

/// silu(gate) * up, and how far it may be off where both are off by their bounds.
fn joined(rows: &Floats, f: usize) -> (Vec<f64>, Vec<f64>) {
    let one = |i: usize| {
        let (gate, up, gate_off, up_off) = (rows.want[i], rows.want[f + i], rows.bound[i], rows.bound[f + i]);
        let silu = gate / (1.0 + (-gate).exp());
        // The slope of silu is below 1.1 everywhere.
        let off = 1.1 * gate_off * (up.abs() + up_off) + silu.abs() * up_off + RELATIVE * (silu * up).abs();
        (silu * up, off + 1e-35 * (1.0 + up.abs()))
    };
    (0..f).map(one).unzip()
}

impl Op for GateUp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["F", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let f = dim(shape, "F");
        Bytes((normed::bytes(&self.product, 2 * f, shape, spec) + self.output(f).bytes()) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        4 * (dim(shape, "F") * dim(shape, "K")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        normed::cases(&self.product, 2 * dim(shape, "F"), shape, seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.adversarial(seed, depth)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        normed::shapes(&self.product, ["F", "K"], &[[32, 4096], [64, 4096], [128, 4096]])
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        let mut all = vec![[32, 32], [96, 64], [64, 576], [1536, 576], [4864, 896], [160, 4096]];
        if depth == Depth::Full {
            all.extend([[8960, 1536], [32, 18_944], [14_336, 64]]);
        }
        normed::shapes(&self.product, ["F", "K"], &all)
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let f = dim(shape, "F");
        let mut problem = normed::problem(&self.product, self.name, shape, 2 * f, case);
        problem.outputs = vec![self.output(f)];
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let f = problem.dim("F");
        let (want, bound) = joined(&normed::rows(problem, form), f);
        let out = match self.output(f).elem {
            Elem::F32 => Want::Floats(Floats { want, bound, norms: None }),
            _ => Want::Slabs(Slabs { k: f, group: GROUP, want, bound }),
        };
        Some(Expected { outputs: vec![out] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let w = self.product.weights(problem, spec)?;
        let [f, k] = ["F", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        let (norm, x) = (float_arg(input(problem, 2), true), float_arg(input(problem, 1), false));
        Ok(vec![w, norm, x, Arg::Out(0), f, k, Arg::F32(problem.scalars[0])])
    }

    fn activations(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![normed::placed(problem, 2)])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        normed::redraw(problem, seed);
    }
}
