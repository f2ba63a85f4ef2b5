//! `embed_*`: the rows of a matrix of weights that M tokens name, as floats.
//!
//! Device arguments: `(const u8* W, const u32* ids, float* x, int K, int M)`, with W as in the file. Every id is below N.

use harness_spec::{Bytes, CellFailure, DType, Shape};
use variants::{Activations, KernelSpec};

use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::product::Product;
use super::random::Rng;
use super::recipe::{Recipe, Values, Weights};
use super::{Op, blocks};
use crate::check::{Expected, Floats, Want};
use crate::quant;

/// The largest error of an element, relative to its own size and that of what its code is offset by: three roundings of
/// 32-bit floats.
const RELATIVE: f64 = 3.0 / (1u32 << 24) as f64;

/// Rows of a matrix.
#[derive(Debug)]
pub(super) struct Embed {
    name: &'static str,
    product: Product,
}

const fn embed(name: &'static str, dtypes: &'static [DType]) -> Embed {
    Embed { name, product: Product { dtypes, group: 1 } }
}

/// Every op of this kind.
pub(super) static EMBED: [Embed; 11] = [
    embed("embed_q4_0", &[DType::Q4_0]),
    embed("embed_q4_1", &[DType::Q4_1]),
    embed("embed_q5_0", &[DType::Q5_0]),
    embed("embed_q8_0", &[DType::Q8_0]),
    embed("embed_q4_k", &[DType::Q4K]),
    embed("embed_q5_k", &[DType::Q5K]),
    embed("embed_q6_k", &[DType::Q6K]),
    embed("embed_tq2_0", &[DType::TQ2_0]),
    embed("embed_f16", &[DType::F16]),
    embed("embed_bf16", &[DType::BF16]),
    embed("embed_f32", &[DType::F32]),
];

impl Embed {
    fn case(&self, name: impl Into<String>, seed: u64, weights: Weights) -> Case {
        let recipe = Recipe::Product(weights, Values::Constant(0.0));
        Case { name: name.into(), seed, dtype: Some(self.product.dtypes[0]), recipe }
    }
}

/// Tokens: the first row, the last, and any.
fn ids(n: usize, m: usize, rng: &mut Rng) -> Tensor {
    let id = |i: usize, rng: &mut Rng| match i {
        0 => n - 1,
        1 => 0,
        _ => rng.below(n),
    };
    Tensor::I32((0..m).map(|i| id(i, rng) as i32).collect())
}

impl Op for Embed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "K", "M"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let (k, m) = (dim(shape, "K"), dim(shape, "M"));
        let dtype = self.product.dtypes[0];
        Bytes((m * (k / dtype.block_len() * dtype.block_bytes() + 4 + 4 * k)) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (dim(shape, "K") * dim(shape, "M")) as u64
    }

    fn cases(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        let two = (0..2u64).map(|i| {
            self.case(format!("random seed {i}"), seed.wrapping_mul(0x1_0001).wrapping_add(i), Weights::Random)
        });
        two.chain([
            self.case("realistic", seed, Weights::Gaussian),
            self.case("ramp of all codes", seed, Weights::Ramp),
        ])
        .collect()
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        let mut cases = vec![self.case("AD-05 zero blocks", seed, Weights::Zero)];
        for (name, bits) in
            [("-1.5", 0xbe00), ("smallest subnormal", 1), ("-largest subnormal", 0x83ff), ("65504", 0x7bff)]
        {
            cases.push(self.case(format!("AD-09 d = {name}"), seed, Weights::Scale(bits)));
        }
        if matches!(self.product.dtypes[0], DType::Q4K | DType::Q5K) {
            cases.push(self.case("AD-10 sub-block 5 alone, all scales 63", seed, Weights::SubBlockFive));
        }
        if matches!(self.product.dtypes[0], DType::Q4K | DType::Q5K | DType::Q6K) {
            for low in [true, false] {
                let name = format!("AD-11 scales at both ends, codes {}", if low { "low" } else { "high" });
                cases.push(self.case(name, seed, Weights::SignedScales { low }));
            }
        }
        cases
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        let unit = self.product.unit() as u64;
        let shape = |(n, k, m): (u64, u64, u64)| Shape::of([("N", n), ("K", k.next_multiple_of(unit)), ("M", m)]);
        [(1, 32, 1), (3, 576, 2), (33, 896, 1), (7, 1056, 5), (2, 4864, 1), (1000, 32, 33)].map(shape).to_vec()
    }

    fn overflow_shape(&self) -> Option<Shape> {
        Some(Shape::of([("N", (1 << 31) / 4096 + 33), ("K", 4096), ("M", 2)]))
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let (n, k, m) = (dim(shape, "N"), dim(shape, "K"), dim(shape, "M"));
        let mut problem = self.product.problem(self.name, shape, case);
        problem.inputs[1] = ids(n, m, &mut Rng::new(case.seed, 2));
        problem.outputs = vec![OutputSpec { name: "x", elem: Elem::F32, len: m * k }];
        problem.exact = false;
        problem
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let [Tensor::Weights { dtype, n, k, bytes, .. }, Tensor::I32(ids)] = &problem.inputs[..] else {
            panic!("rows are of weights, by ids")
        };
        let row_bytes = bytes.len() / n;
        let (mut row, mut offset) = (vec![0.0f32; *k], vec![0.0f32; *k]);
        let mut floats = Floats::default();
        for &id in ids {
            let blocks = &bytes[id as usize * row_bytes..][..row_bytes];
            quant::dequantize_row(*dtype, blocks, &mut row);
            blocks::offsets(*dtype, blocks, &mut offset);
            let bound = |(w, o): (&f32, &f32)| match dtype {
                DType::F32 | DType::F16 | DType::BF16 => 0.0,
                _ => RELATIVE * (f64::from(w.abs()) + 2.0 * f64::from(o.abs())) + 1e-37,
            };
            floats.bound.extend(row.iter().zip(&offset).map(bound));
            floats.want.extend(row.iter().map(|&w| f64::from(w)));
        }
        Some(Expected { outputs: vec![Want::Floats(floats)] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let (_, _, _, bytes) = problem.weights().expect("rows are of weights");
        let Tensor::I32(ids) = &problem.inputs[1] else { panic!("rows are named by ids") };
        let ids = Arg::In { bytes: ids.iter().flat_map(|v| v.to_le_bytes()).collect(), weights: false };
        let [k, m] = ["K", "M"].map(|d| Arg::I32(problem.dim(d) as i32));
        Ok(vec![Arg::In { bytes: bytes.clone(), weights: true }, ids, Arg::Out(0), k, m])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let (n, m) = (problem.dim("N"), problem.dim("M"));
        let Tensor::I32(old) = &problem.inputs[1] else { panic!("rows are named by ids") };
        // Of one token, another row than before.
        let mut rng = Rng::new(seed, 3);
        let new = (0..m).map(|i| ((old[i] as usize + 1 + rng.below(n.max(2) - 1)) % n) as i32).collect();
        problem.inputs[1] = Tensor::I32(new);
        problem.case = format!("activations {seed:#x}");
    }
}
