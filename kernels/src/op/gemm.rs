//! `gemm_*`: y = W x, or y = r + W x, for the many tokens of a prompt; and `dequantize_*`: weights as 16-bit floats, for the
//! library that multiplies those.
//!
//! Device arguments: `(const u8* W, const u16* x, const float* r, float* y, int N, int K, int M)` with f16 activations `[M, K]`
//! and a residual `[M, N]` that may be null or y; and `(const u8* W, u16* out, int N, int K)`.
//!
//! A product here rounds weights to 16-bit floats and adds in 32-bit floats. Weights beyond the range of the former are not
//! for it: no case with such weights is run.

use harness_spec::{Bytes, CellFailure, DType, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::product::{self, Product};
use super::random::Rng;
use super::recipe::{Recipe, Values, Weights};
use super::swiglu::half_ulp_f16;
use super::{Op, Placed, values};
use crate::check::{Expected, Floats, Want};
use crate::quant;

/// From here on a value rounds to an infinite 16-bit float.
const BEYOND_F16: f32 = 65_520.0;
/// What rounding a weight to a 16-bit float may cost, relative to it; a little more, as sums of 32 bits are truncated.
const HALF: f64 = 1.01 / 2048.0;

/// The relative error of a token's `n` outputs that roundings of weights alone make, which are as likely up as down, at most
/// six standard deviations of it. One output strays far by chance, many together do not.
fn class_of_rounded_weights(n: usize) -> f64 {
    // An error is spread evenly over what `HALF` allows. It is measured against magnitudes (`Norms::square`), and factors that
    // are normal have a product whose root mean square is so much more than its mean magnitude.
    let deviation = HALF / 3f64.sqrt() * std::f64::consts::FRAC_PI_2;
    deviation * (1.0 + 6.0 / (n as f64).sqrt())
}

/// A product of weights and the 16-bit activations of many tokens.
#[derive(Debug)]
pub(super) struct Gemm {
    name: &'static str,
    product: Product,
}

/// Weights as 16-bit floats.
#[derive(Debug)]
pub(super) struct Dequantize {
    name: &'static str,
    product: Product,
}

macro_rules! of_types {
    ($kind:ident, $prefix:literal, $($suffix:literal $dtype:ident),*) => {
        [$($kind { name: concat!($prefix, $suffix), product: Product { dtypes: &[DType::$dtype], group: 1 } }),*]
    };
}

/// Every product of this kind.
pub(super) static GEMM: [Gemm; 10] = of_types!(
    Gemm, "gemm_", "q4_0" Q4_0, "q4_1" Q4_1, "q5_0" Q5_0, "q8_0" Q8_0, "q4_k" Q4K, "q5_k" Q5K, "q6_k" Q6K, "tq2_0" TQ2_0,
    "f16" F16, "bf16" BF16
);

/// Every type that is decoded.
pub(super) static DEQUANTIZE: [Dequantize; 10] = of_types!(
    Dequantize, "dequantize_", "q4_0" Q4_0, "q4_1" Q4_1, "q5_0" Q5_0, "q8_0" Q8_0, "q4_k" Q4K, "q5_k" Q5K, "q6_k" Q6K,
    "tq2_0" TQ2_0, "f16" F16, "bf16" BF16
);

/// The rows of a matrix that differ, decoded.
fn rows(problem: &Problem) -> (usize, usize, usize, Vec<f32>) {
    let Tensor::Weights { dtype, n, k, bytes, period } = &problem.inputs[0] else {
        panic!("the first input of a product is its weights")
    };
    let row_bytes = bytes.len() / n;
    let mut all = vec![0.0f32; period * k];
    for (row, blocks) in all.chunks_exact_mut(*k).zip(bytes.chunks_exact(row_bytes)) {
        quant::dequantize_row(*dtype, blocks, row);
    }
    (*n, *k, *period, all)
}

/// The same case without its residual.
fn plain(case: &Case) -> Case {
    let recipe = match case.recipe {
        Recipe::ProductAndResidual(w, x) => Recipe::Product(w, x),
        other => other,
    };
    Case { recipe, ..case.clone() }
}

fn shape_of(n: u64, k: u64, unit: usize, m: u64) -> Shape {
    Shape::of([("N", n), ("K", k.next_multiple_of(unit as u64)), ("M", m)])
}

impl Op for Gemm {
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
        let mut cases = self.product.cases(shape, seed, depth);
        let recipe = Recipe::ProductAndResidual(Weights::Random, Values::Random);
        cases.push(Case { name: "random and a residual".into(), seed, dtype: Some(self.product.dtypes[0]), recipe });
        cases
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.adversarial(seed, depth)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        let unit = self.product.unit();
        vec![shape_of(33, 4096, unit, 3), shape_of(17, 512, unit, 3)]
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        let unit = self.product.unit();
        // Tails of rows, columns and tokens around every tile; small ones first, which the emulator takes too.
        let mut sizes =
            vec![(1, 32, 1), (3, 96, 7), (9, 64, 33), (17, 96, 15), (5, 352, 17), (1, 32, 129), (2, 32, 513)];
        sizes.extend([(33, 896, 7), (129, 576, 15), (65, 1536, 33), (1000, 4864, 3), (130, 576, 513), (1152, 576, 64)]);
        if depth == Depth::Full {
            sizes.extend([(1, 18_944, 2), (257, 8960, 65), (4096, 1024, 512), (64, 14_336, 127)]);
        }
        sizes.into_iter().map(|(n, k, m)| shape_of(n, k, unit, m)).collect()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let mut problem = self.product.problem(self.name, shape, &plain(case));
        if let Recipe::ProductAndResidual(..) = case.recipe {
            let (n, m) = (dim(shape, "N"), dim(shape, "M"));
            problem.inputs.push(Tensor::F32(values::rows(m, n, Values::Random, &mut Rng::new(case.seed, 7))));
        }
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let (_, k, _, weights) = rows(problem);
        if weights.iter().any(|w| w.abs() >= BEYOND_F16) {
            return None;
        }
        let mut floats = self.product.expected(problem, form)?;
        // The bound is that of sums in floats, so many times the sum of magnitudes; a rounded weight costs so many more.
        let of_sums = 4.0 * (k as f64).sqrt() / f64::from(1u32 << 24);
        floats.bound.iter_mut().for_each(|b| *b *= 2.0 + HALF / of_sums);
        if let Some(norms) = &mut floats.norms {
            // The class is that of rounded activations: independent of what happens to weights.
            let of_weights = class_of_rounded_weights(norms.row);
            norms.classes.iter_mut().for_each(|class| *class = class.hypot(of_weights));
        }
        if let Some(Tensor::F32(r)) = problem.inputs.get(2) {
            for ((want, bound), &r) in floats.want.iter_mut().zip(&mut floats.bound).zip(r) {
                *want += f64::from(r);
                *bound += want.abs() / f64::from(1u32 << 24);
            }
            // Whole rows are judged where nothing covers what is lost.
            floats.norms = None;
        }
        Some(Expected { outputs: vec![Want::Floats(floats)] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [w, x] = self.product.operands(problem, spec)?;
        let r = match problem.inputs.get(2) {
            Some(Tensor::F32(r)) => Arg::In { bytes: r.iter().flat_map(|v| v.to_le_bytes()).collect(), weights: false },
            _ => Arg::I64(0),
        };
        let [n, k, m] = ["N", "K", "M"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![w, x, r, Arg::Out(0), n, k, m])
    }

    fn activations(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![(1, product::activations(problem, spec))])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        self.product.redraw(problem, seed);
    }

    fn scale(&self, problem: &mut Problem, factor: f32) -> bool {
        let [_, Tensor::F32(x)] = &mut problem.inputs[..] else { return false };
        x.iter_mut().for_each(|v| *v *= factor);
        true
    }
}

impl Op for Dequantize {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let (n, k) = (dim(shape, "N"), dim(shape, "K"));
        // What a product moves, but for its activations and outputs.
        let floats = (4 * (n + k)) as u64;
        let mut of_floats = spec.clone();
        of_floats.activations = None;
        Bytes(self.product.bytes(shape, &of_floats).0 - floats + 2 * (n * k) as u64)
    }

    /// A multiplication for each weight.
    fn flops(&self, shape: &Shape) -> u64 {
        (dim(shape, "N") * dim(shape, "K")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.cases(shape, seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        // Cases that differ in their activations alone are one here.
        let mut cases: Vec<Case> = Vec::new();
        for case in self.product.adversarial(seed, depth) {
            let weights = |c: &Case| if let Recipe::Product(w, _) = c.recipe { Some(w) } else { None };
            if cases.iter().all(|c| weights(c) != weights(&case)) {
                cases.push(case);
            }
        }
        cases
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        vec![Shape::of([("N", 33), ("K", 1024)])]
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        let unit = self.product.unit() as u64;
        let mut sizes = vec![(1, 32), (3, 96), (33, 896), (1152, 576), (7, 4864), (1, 18_944)];
        if depth == Depth::Full {
            sizes.extend([(1153, 96), (4096, 1024), (49_152, 64)]);
        }
        sizes.into_iter().map(|(n, k): (u64, u64)| Shape::of([("N", n), ("K", k.next_multiple_of(unit))])).collect()
    }

    fn overflow_shape(&self) -> Option<Shape> {
        Some(Shape::of([("N", (1 << 31) / 4096 + 33), ("K", 4096)]))
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let (n, k) = (dim(shape, "N"), dim(shape, "K"));
        let problem = self.product.problem(self.name, shape, case);
        Problem {
            workload: Workload { op: self.name.to_owned(), shape: shape.clone() },
            inputs: problem.inputs.into_iter().take(1).collect(),
            outputs: vec![OutputSpec { name: "out", elem: Elem::F16, len: n * k }],
            ..problem
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let (n, k, period, weights) = rows(problem);
        let one = |w: f32| match f64::from(w) {
            w if w.abs() >= f64::from(BEYOND_F16) => (f64::INFINITY.copysign(w), 0.0),
            // The product of scales is rounded to 24 bits first.
            w => (w, half_ulp_f16(w) * 1.001),
        };
        let (want, bound): (Vec<f64>, Vec<f64>) = weights.into_iter().map(one).unzip();
        let want = Want::Halves(Floats { want, bound, norms: None });
        let output = if period == n { want } else { Want::Cycle { bytes: period * k * 2, want: Box::new(want) } };
        Some(Expected { outputs: vec![output] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [n, k] = ["N", "K"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![self.product.weights(problem, spec)?, Arg::Out(0), n, k])
    }

    /// The weights are all that there is, so they stay.
    fn redraw(&self, _: &mut Problem, _: u64) {}
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::{Mismatch, compare};

    /// What a right kernel answers: weights and activations rounded to 16 bits, sums in floats. Weights are `off` times that.
    fn rounded(problem: &Problem, off: f32) -> Vec<Vec<u8>> {
        let (n, k, period, weights) = rows(problem);
        let [_, Tensor::F32(x), ..] = &problem.inputs[..] else { panic!("activations are floats") };
        let half = |v: f32| f16::from_f32(v).to_f32();
        let x: Vec<f32> = x.iter().map(|&v| half(v)).collect();
        let y = (0..x.len() / k * n).map(|i| {
            let row = &weights[i % n % period * k..][..k];
            row.iter().zip(&x[i / n * k..][..k]).map(|(&w, &x)| off * half(w) * x).sum::<f32>()
        });
        vec![y.flat_map(f32::to_le_bytes).collect()]
    }

    #[test]
    fn weights_rounded_to_sixteen_bits_are_right_whatever_the_seed_and_a_percent_off_is_wrong() {
        for (name, shape) in [("gemm_q8_0", shape_of(1, 32, 32, 513)), ("gemm_q5_k", shape_of(2, 256, 256, 129))] {
            let op = GEMM.iter().find(|op| op.name == name).unwrap();
            for seed in 0..100 {
                let case = op.cases(&shape, seed, Depth::Quick).swap_remove(0);
                let problem = op.problem(&shape, &case);
                let expected = op.expected(&problem, Activations::F16).unwrap();
                let right = compare(&expected, &rounded(&problem, 1.0));
                assert!(right.is_ok(), "{name} seed {seed}: {right:?}");
                let wrong = compare(&expected, &rounded(&problem, 1.01));
                assert!(matches!(wrong, Err(Mismatch::Element { .. } | Mismatch::Norm { .. })), "{name} seed {seed}");
            }
        }
    }
}
