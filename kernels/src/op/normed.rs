//! Products of the norm of a token: what `qkv_rope_*`, `gate_up_*`, `norm_logits_*` and `rmsnorm_gemv_*` share.
//!
//! The kernels norm and round a token themselves. The factor of the norm is the same for all its elements, so codes do not
//! depend on it; those that lie within a few roundings of the middle between two codes may be either.

use std::sync::Arc;

use harness_spec::{DType, Shape};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Problem, Tensor, dim};
use super::product::{self, Operand, Product};
use super::random::Rng;
use super::recipe::{Recipe, Values, Weights};
use super::{Placed, activations, values};
use crate::check::Floats;
use crate::reference;

/// What `llama` and `qwen2` models have.
const EPS: f32 = 1e-5;
/// How far a code may be off before it is rounded, of its value: seven roundings of 32-bit floats. An element and the largest
/// of its group are each a product with the norm's weight and, where a kernel multiplies with it first, with the norm's
/// factor; then come the inverse of the largest and the product with it.
const ROUNDINGS: f64 = 7.0 / (1 << 24) as f64;
/// How far the factor of the norm and the scales may be off.
const SCALE: f64 = 2e-6;

/// The names of the ops of one kind, one for each weight type.
macro_rules! of_formats {
    ($kind:ident, $op:literal) => {
        [
            $kind { name: concat!($op, "_q4_0"), product: crate::op::normed::product(&[harness_spec::DType::Q4_0]) },
            $kind { name: concat!($op, "_q4_1"), product: crate::op::normed::product(&[harness_spec::DType::Q4_1]) },
            $kind { name: concat!($op, "_q5_0"), product: crate::op::normed::product(&[harness_spec::DType::Q5_0]) },
            $kind { name: concat!($op, "_q8_0"), product: crate::op::normed::product(&[harness_spec::DType::Q8_0]) },
            $kind { name: concat!($op, "_q4_k"), product: crate::op::normed::product(&[harness_spec::DType::Q4K]) },
            $kind { name: concat!($op, "_q5_k"), product: crate::op::normed::product(&[harness_spec::DType::Q5K]) },
            $kind { name: concat!($op, "_q6_k"), product: crate::op::normed::product(&[harness_spec::DType::Q6K]) },
            $kind { name: concat!($op, "_f16"), product: crate::op::normed::product(&[harness_spec::DType::F16]) },
            $kind { name: concat!($op, "_bf16"), product: crate::op::normed::product(&[harness_spec::DType::BF16]) },
        ]
    };
}
pub(super) use of_formats;

/// A product of weights of one type.
pub(super) const fn product(dtypes: &'static [DType]) -> Product {
    Product { dtypes, group: 1 }
}

/// The shape of the product itself.
pub(super) fn matrix(n: usize, k: usize) -> Shape {
    Shape::of([("N", n as u64), ("K", k as u64)])
}

/// Shapes of these dimensions, with the last value, that of K, raised to whole blocks.
pub(super) fn shapes<const N: usize>(product: &Product, dims: [&str; N], all: &[[u64; N]]) -> Vec<Shape> {
    let of = |values: &[u64; N]| {
        let pairs = dims.iter().zip(values).map(|(&name, &value)| {
            (name, if name == "K" { value.next_multiple_of(product.unit() as u64) } else { value })
        });
        Shape::of(pairs)
    };
    let mut shapes: Vec<Shape> = all.iter().map(of).collect();
    shapes.dedup();
    shapes
}

/// A problem on the norm of a token: inputs are weights, the token, the weights of the norm.
pub(super) fn problem(product: &Product, op: &str, shape: &Shape, n: usize, case: &Case) -> Problem {
    let k = dim(shape, "K");
    let mut problem = product.problem(op, &matrix(n, k), case);
    problem.workload.shape = shape.clone();
    problem.inputs.push(Tensor::F32(Rng::new(case.seed, 4).many(k, |r| 1.0 + 0.3 * r.normal())));
    problem.scalars = vec![EPS];
    problem.exact = false;
    problem
}

/// Another token for the same weights.
pub(super) fn redraw(problem: &mut Problem, seed: u64) {
    let k = problem.dim("K");
    problem.inputs[1] = Tensor::F32(values::rows(1, k, Values::Outliers, &mut Rng::new(seed, 3)));
    problem.case = format!("activations {seed:#x}");
}

/// The rows of the product, in the order of the weights.
pub(super) fn rows(problem: &Problem, form: Activations) -> Floats {
    let [_, Tensor::F32(x), Tensor::F32(w), ..] = &problem.inputs[..] else {
        panic!("a normed product has weights, a token and a norm")
    };
    product::floats(&problem.inputs[0], &operand(x, w, f64::from(problem.scalars[0]), form), form, false)
}

fn operand(x: &[f32], w: &[f32], eps: f64, form: Activations) -> Operand {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let exact = reference::rmsnorm(&wide(x), &wide(w), eps);
    let Some(group) = activations::group_of(form) else {
        return Operand { seen: exact.clone(), exact, unsure: Vec::new(), relative: SCALE };
    };
    let (mut seen, mut unsure) = (Vec::new(), Vec::new());
    for values in exact.chunks(group) {
        let scale = values.iter().fold(0.0f64, |m, v| m.max(v.abs())) / 127.0;
        for v in values {
            let steps = if scale == 0.0 { 0.0 } else { v / scale };
            // `round` takes halves away from zero, as the rounding does.
            seen.push(steps.round() * scale);
            let middle = (steps.abs().fract() - 0.5).abs();
            unsure.push(if middle <= ROUNDINGS * steps.abs() { scale } else { 0.0 });
        }
    }
    Operand { seen, exact, unsure, relative: SCALE }
}

/// A row of floats as a kernel takes it; one of no elements is a pointer to nothing.
pub(super) fn float_arg(values: &[f32], weights: bool) -> Arg {
    if values.is_empty() { Arg::I64(0) } else { Arg::In { bytes: float_bytes(values), weights } }
}

/// The bytes of floats.
pub(super) fn float_bytes(values: &[f32]) -> Arc<[u8]> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The floats of an input.
pub(super) fn input(problem: &Problem, at: usize) -> &[f32] {
    let Tensor::F32(values) = &problem.inputs[at] else { panic!("input {at} of {} is floats", problem.workload) };
    values
}

/// Words as a kernel takes them, written by the kernel ahead.
pub(super) fn word_arg(values: &[i32]) -> Arg {
    Arg::In { bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(), weights: false }
}

/// The token of a problem as a kernel whose argument `at` it is takes it.
pub(super) fn placed(problem: &Problem, at: usize) -> Placed {
    (at, float_bytes(input(problem, 1)))
}

/// A case beyond those of a product.
pub(super) fn case(product: &Product, name: &str, seed: u64, w: Weights, x: Values) -> Case {
    Case { name: name.to_owned(), seed, dtype: Some(product.dtypes[0]), recipe: Recipe::Product(w, x) }
}

/// Cases that every shape runs.
pub(super) fn cases(product: &Product, n: usize, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
    product.cases(&matrix(n, dim(shape, "K")), seed, depth)
}

/// Bytes of the weights as stored, of the token and of its norm.
pub(super) fn bytes(product: &Product, n: usize, shape: &Shape, spec: &KernelSpec) -> usize {
    let k = dim(shape, "K");
    product.weight_bytes(n, k, spec) + 8 * k
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_of_a_norm_are_its_codes_and_halves_may_be_either() {
        // Equal norm weights, so that codes are those of the token: 127 at one place, halves and whole numbers elsewhere.
        let x: Vec<f32> =
            (0..32).map(|i| if i == 0 { 127.0 } else { i as f32 - 15.0 + 0.25 * (i % 3) as f32 }).collect();
        let operand = operand(&x, &[1.0; 32], 1e-5, Activations::A8);
        let scale = operand.exact[0] / 127.0;
        for (i, x) in x.iter().enumerate() {
            let code = operand.seen[i] / scale;
            let half = x.fract().abs() == 0.5;
            // In f64 too a half may lie a little to either side.
            assert!((code - f64::from(x.round())).abs() < 1e-9 || half && (code - f64::from(*x)).abs() < 0.5001, "{i}");
            assert_eq!(operand.unsure[i] > 0.0, half, "{i}");
        }
        let exact = super::operand(&x, &[1.0; 32], 1e-5, Activations::F32);
        assert_eq!(exact.seen, exact.exact);
    }
}
