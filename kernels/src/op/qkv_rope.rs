//! `qkv_rope_*`: queries, keys and values of the norm of one token, turned by RoPE, keys and values appended to the cache.
//!
//! The rows of Q, K and V are one matrix of `N = (HEADS + 2 KV_HEADS) DIM` rows. Pairs of all elements of a head of Q and K
//! are turned by the angles of the position: elements i and i + DIM/2 where PAIRING is 0, 2i and 2i + 1 where it is 1.
//!
//! Device arguments: `(const u8* W, const float* bias, const float* norm, const float* x, const float2* rope, const u32*
//! state, float* q, u8* k, u8* v, float* k_scale, float* v_scale, int HEADS, int KV_HEADS, int DIM, int K, int MAX_LEN,
//! int PAIRING, int KV, float eps, u8* scratch)`. `bias` may be null; `rope` is `[MAX_LEN, DIM / 2]` cosines and sines;
//! `state[1]` is the position. The cache is as in [`super::cache`]; where KV is 16, the scales and the scratch are null. The
//! scratch is zeroed once; a launch leaves it zero.

use half::f16;
use harness_spec::{Bytes, CellFailure, Shape};
use variants::{Activations, KernelSpec};

use super::normed::{self, float_arg, float_bytes, input, of_formats};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::product::Product;
use super::random::Rng;
use super::{Op, Placed, append::rounded, cache};
use crate::check::{Expected, Floats, Want};

const DIMS: [&str; 7] = ["HEADS", "KV_HEADS", "DIM", "K", "MAX_LEN", "KV", "PAIRING"];

/// Bytes of scratch memory of a launch that appends to a cache in int8: a ticket and the elements of each of its heads.
pub const fn scratch(kv_heads: usize, dim: usize) -> usize {
    (2 * kv_heads * 4).next_multiple_of(16) + 2 * kv_heads * dim * 4
}

/// What turning and adding a bias may be off, of the elements of a pair.
const RELATIVE: f64 = 4.0 / (1 << 24) as f64;

/// The projections of attention.
#[derive(Debug)]
pub(super) struct QkvRope {
    name: &'static str,
    product: Product,
}

/// Every op of this kind.
pub(super) static QKV_ROPE: [QkvRope; 9] = of_formats!(QkvRope, "qkv_rope");

struct Sizes {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    max_len: usize,
    kv: usize,
    pairing: usize,
}

impl Sizes {
    fn of(shape: &Shape) -> Sizes {
        let [heads, kv_heads, dim, max_len, kv, pairing] =
            ["HEADS", "KV_HEADS", "DIM", "MAX_LEN", "KV", "PAIRING"].map(|d| dim(shape, d));
        Sizes { heads, kv_heads, dim, max_len, kv, pairing }
    }

    fn rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    /// The two elements of a pair within a head.
    fn pair(&self, i: usize) -> [usize; 2] {
        if self.pairing == 0 { [i, i + self.dim / 2] } else { [2 * i, 2 * i + 1] }
    }
}

/// Cosines and sines of every position and pair.
fn angles(s: &Sizes) -> Vec<f32> {
    let half = s.dim / 2;
    let angle = |at: usize| (at / half) as f64 * 10_000f64.powf(-((at % half) as f64) / half as f64);
    (0..s.max_len * half).flat_map(|at| [angle(at).cos() as f32, angle(at).sin() as f32]).collect()
}

/// Rows of the product with bias, turned where they are of Q or K: values and bounds.
fn turned(rows: &Floats, problem: &Problem, s: &Sizes) -> (Vec<f64>, Vec<f64>) {
    let (bias, rope) = (input(problem, 3), input(problem, 4));
    let (mut want, mut bound) = (rows.want.clone(), rows.bound.clone());
    for (i, &b) in bias.iter().enumerate() {
        want[i] += f64::from(b);
        bound[i] += RELATIVE * (f64::from(b.abs()) + want[i].abs());
    }
    for head in 0..s.heads + s.kv_heads {
        for i in 0..s.dim / 2 {
            let at = (position(problem) * s.dim / 2 + i) * 2;
            let (cos, sin) = (f64::from(rope[at]), f64::from(rope[at + 1]));
            let [a, b] = s.pair(i).map(|e| head * s.dim + e);
            let (first, second) = (want[a], want[b]);
            (want[a], want[b]) = (first * cos - second * sin, first * sin + second * cos);
            let off = (bound[a] * cos.abs() + bound[b] * sin.abs(), bound[a] * sin.abs() + bound[b] * cos.abs());
            let size = RELATIVE * (first.abs() + second.abs());
            (bound[a], bound[b]) = (off.0 + size, off.1 + size);
        }
    }
    (want, bound)
}

fn position(problem: &Problem) -> usize {
    let Tensor::I32(state) = &problem.inputs[5] else { panic!("the last input is the state of the token") };
    state[1] as usize
}

/// What must be at one position of every head of a cache: elements, and scales where it has any. Nothing else is touched.
fn appended(want: &[f64], bound: &[f64], pos: usize, s: &Sizes) -> Vec<Want> {
    let part = |bytes: usize, want: Want| {
        let of_head = |head: usize| (head * s.max_len + pos) * bytes..(head * s.max_len + pos + 1) * bytes;
        Want::Part { ranges: (0..s.kv_heads).map(of_head).collect(), want: Box::new(want) }
    };
    if s.kv == 16 {
        // Beyond the largest f16 lies infinity. Half a unit in the last place is the rounding itself.
        let rounded = |v: &f64| if f16::from_f64(*v).is_infinite() { f64::INFINITY.copysign(*v) } else { *v };
        let room = |(v, b): (&f64, &f64)| b + (v.abs() + b) / 2047.0 + 1.0 / f64::from(1 << 24);
        let floats = Floats {
            want: want.iter().map(rounded).collect(),
            bound: want.iter().zip(bound).map(room).collect(),
            norms: None,
        };
        return vec![part(2 * s.dim, Want::Halves(floats))];
    }
    let (mut codes, mut scales) = (Floats::default(), Floats::default());
    for (row, bound) in want.chunks(s.dim).zip(bound.chunks(s.dim)) {
        let (code, scale) = rounded(row, bound.iter().copied().fold(0.0, f64::max));
        codes.want.extend(code.want);
        codes.bound.extend(code.bound);
        scales.want.extend(scale.want);
        scales.bound.extend(scale.bound);
    }
    vec![part(s.dim, Want::SignedBytes(codes)), part(4, Want::Floats(scales))]
}

impl Op for QkvRope {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self) -> &'static [&'static str] {
        &DIMS
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let s = Sizes::of(shape);
        let appended = 2 * s.kv_heads * cache::row_bytes(s.dim, s.kv);
        let written = 4 * s.heads * s.dim + appended;
        Bytes((normed::bytes(&self.product, s.rows(), shape, spec) + 4 * s.dim + written) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        2 * (Sizes::of(shape).rows() * dim(shape, "K")) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        normed::cases(&self.product, Sizes::of(shape).rows(), shape, seed, depth)
    }

    fn adversarial(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        self.product.adversarial(seed, depth)
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        let all = [16, 8].map(|kv| [[2, 1, 64, 1024, 9, kv, 0], [2, 1, 128, 1024, 9, kv, 0]]);
        normed::shapes(&self.product, DIMS, all.as_flattened())
    }

    fn awkward_shapes(&self, _: &Shape, depth: Depth) -> Vec<Shape> {
        let mut all = vec![
            [1, 1, 32, 32, 1, 16, 0],
            [2, 1, 32, 64, 5, 16, 1],
            [1, 1, 64, 96, 3, 16, 0],
            [2, 1, 128, 32, 2, 16, 1],
            [9, 3, 64, 576, 40, 16, 0],
            [9, 3, 64, 576, 40, 16, 1],
            [14, 2, 64, 896, 33, 16, 0],
            [12, 2, 128, 1536, 17, 16, 0],
        ];
        if depth == Depth::Full {
            all.extend([[32, 8, 128, 4096, 100, 16, 1], [28, 4, 128, 3584, 64, 16, 0], [32, 8, 64, 2048, 64, 16, 1]]);
        }
        let int8 =
            all.clone().into_iter().map(|[heads, kv_heads, dim, k, len, _, p]| [heads, kv_heads, dim, k, len, 8, p]);
        all.extend(int8);
        normed::shapes(&self.product, DIMS, &all)
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let s = Sizes::of(shape);
        let mut problem = normed::problem(&self.product, self.name, shape, s.rows(), case);
        let mut rng = Rng::new(case.seed ^ case.name.len() as u64, 8);
        // Half of the models have no bias.
        let bias = if rng.below(2) == 0 { Vec::new() } else { rng.many(s.rows(), |r| 0.5 * r.normal()) };
        let pos = match rng.below(4) {
            0 => 0,
            1 => s.max_len - 1,
            _ => rng.below(s.max_len),
        } as i32;
        problem.inputs.extend([Tensor::F32(bias), Tensor::F32(angles(&s)), Tensor::I32(vec![17, pos, pos + 1, 0])]);
        let slots = s.kv_heads * s.max_len;
        let elem = if s.kv == 16 { Elem::F16 } else { Elem::U8 };
        problem.outputs = vec![OutputSpec { name: "q", elem: Elem::F32, len: s.heads * s.dim }];
        problem.outputs.extend(["k", "v"].map(|name| OutputSpec { name, elem, len: slots * s.dim }));
        if s.kv == 8 {
            let scales = ["k_scale", "v_scale"].map(|name| OutputSpec { name, elem: Elem::F32, len: slots });
            problem.outputs.extend(scales);
        }
        problem
    }

    fn expected(&self, problem: &Problem, form: Activations) -> Option<Expected> {
        let s = Sizes::of(&problem.workload.shape);
        let (want, bound) = turned(&normed::rows(problem, form), problem, &s);
        let (q, k, v) =
            (0..s.heads * s.dim, s.heads * s.dim..(s.heads + s.kv_heads) * s.dim, s.rows() - s.kv_heads * s.dim..);
        let pos = position(problem);
        let queries = Floats { want: want[q.clone()].to_vec(), bound: bound[q].to_vec(), norms: None };
        // Elements of both, then scales of both.
        let mut outputs = vec![Want::Floats(queries)];
        let keys = appended(&want[k.clone()], &bound[k], pos, &s);
        let values = appended(&want[v.clone()], &bound[v], pos, &s);
        outputs.extend(keys.into_iter().zip(values).flat_map(|(k, v)| [k, v]));
        Some(Expected { outputs })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let Tensor::I32(state) = &problem.inputs[5] else { panic!("the last input is the state of the token") };
        let mut arguments = vec![
            self.product.weights(problem, spec)?,
            float_arg(input(problem, 3), true),
            float_arg(input(problem, 2), true),
            float_arg(input(problem, 1), false),
            float_arg(input(problem, 4), true),
            Arg::Settled { bytes: state.iter().flat_map(|v| v.to_le_bytes()).collect() },
            Arg::Out(0),
            Arg::Out(1),
            Arg::Out(2),
        ];
        let int8 = problem.dim("KV") == 8;
        arguments.extend(if int8 { [3, 4].map(Arg::Out) } else { [cache::NULL; 2] });
        let sizes = ["HEADS", "KV_HEADS", "DIM", "K", "MAX_LEN", "PAIRING", "KV"];
        // A missing dimension reads as 1, which no PAIRING that was meant to be 0 may become.
        let size = |d: &str| problem.workload.shape.get(d).map_or(0, |v| v as i32);
        arguments.extend(sizes.map(|d| Arg::I32(size(d))));
        arguments.push(Arg::F32(problem.scalars[0]));
        let s = Sizes::of(&problem.workload.shape);
        arguments.push(match int8 {
            true => Arg::Scratch { bytes: scratch(s.kv_heads, s.dim), zeroed: true },
            false => cache::NULL,
        });
        Ok(arguments)
    }

    fn activations(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Placed>, CellFailure> {
        Ok(vec![(3, float_bytes(input(problem, 1)))])
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        normed::redraw(problem, seed);
    }
}

#[cfg(test)]
mod tests {
    use harness_spec::DType;

    use super::*;
    use crate::op::recipe::{Recipe, Values, Weights};

    #[test]
    fn turning_keeps_lengths_and_values_are_not_turned() {
        let op = &QKV_ROPE[3];
        let shape = Shape::of(DIMS.into_iter().zip([2u64, 1, 32, 64, 9, 16, 1]));
        let recipe = Recipe::Product(Weights::Random, Values::Random);
        let case = Case { name: "a case".to_owned(), seed: 3, dtype: Some(DType::Q8_0), recipe };
        let mut problem = op.problem(&shape, &case);
        problem.inputs[3] = Tensor::F32(Vec::new());
        problem.inputs[5] = Tensor::I32(vec![0, 5, 6, 0]);
        let s = Sizes::of(&shape);
        let rows = normed::rows(&problem, Activations::F32);
        let (want, _) = turned(&rows, &problem, &s);
        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
        for head in 0..4 {
            let range = head * 32..(head + 1) * 32;
            let (before, after) = (length(&rows.want[range.clone()]), length(&want[range.clone()]));
            assert!((before - after).abs() < 1e-4 * before, "head {head}");
            assert_eq!(rows.want[range.clone()] == want[range], head == 3, "head {head}");
        }
    }
}
