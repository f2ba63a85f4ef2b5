//! `attn_decode`: attention of one token over a cache of keys and values in 16-bit floats.
//!
//! `out[h] = softmax(q[h] · K[h / group] / sqrt(DIM)) V[h / group]` over the first LEN of MAX_LEN positions.
//!
//! Device arguments: `(const float* q, const u16* k, const u16* v, float* out, u8* scratch, const int* len, int HEADS,
//! int KV_HEADS, int DIM, int MAX_LEN)`. The scratch is zeroed once, before the first launch; what must be zero at the start
//! of a launch is left zero by the one before. Positions from LEN on hold NaN.
//!
//! A kernel whose layout is of pages takes pools of them and their block table (see [`super::pages`]): `const int* table` stands
//! behind `len`, and there is no MAX_LEN. The table is state of which a token's kernels write nothing.

use half::f16;
use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::pages::{self, Pages};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Scores};
use super::{Op, cache};
use crate::check::{Expected, Floats, Norms, Want};

/// The largest relative L2 error of a head.
pub(super) const CLASS: f64 = 2e-3;
/// The most parts that a launch may split the positions of a head into.
pub const MOST_SPLITS: usize = 256;

/// Decode attention.
#[derive(Debug)]
pub(super) struct AttnDecode;

/// The sizes that data follow from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    /// Positions that exist.
    pub len: usize,
    /// Positions that there is room for.
    pub max_len: usize,
}

fn sizes(shape: &Shape) -> Sizes {
    let [heads, kv_heads, dim, len, max_len] = ["HEADS", "KV_HEADS", "DIM", "LEN", "MAX_LEN"].map(|d| dim(shape, d));
    Sizes { heads, kv_heads, dim, len, max_len: max_len.max(len) }
}

fn case(name: impl Into<String>, seed: u64, scores: Scores) -> Case {
    Case { name: name.into(), seed, dtype: None, recipe: Recipe::Attention(scores) }
}

/// Every kind of scores.
pub(super) fn cases(seed: u64, count: u64) -> Vec<Case> {
    let random = (0..count)
        .map(|i| case(format!("random seed {i}"), seed.wrapping_mul(0x1_0001).wrapping_add(i), Scores::Random));
    let others = [
        case("realistic peaks and outliers", seed, Scores::Peaked),
        case("AD-14 all scores negative", seed, Scores::Negative),
        case("AD-14 one score of 1e4", seed, Scores::OneHuge),
        case("AD-14 equal scores", seed, Scores::Equal),
        case("AD-16 keys of growing magnitude", seed, Scores::Growing),
        case("AD-16 values that tell their position", seed, Scores::Positions),
    ];
    random.chain(others).collect()
}

/// What the rows of one head each are and how far off they may be: an element by itself may be anything that its head
/// allows; NaN and infinity still fail.
pub(super) fn judged(want: Vec<f64>, square: Vec<f64>, dim: usize) -> Floats {
    let bound = square.chunks(dim).flat_map(|square| {
        let size = square.iter().sum::<f64>().sqrt();
        std::iter::repeat_n(4.0 * CLASS * size + 1e-30, dim)
    });
    let bound = bound.collect();
    let classes = vec![CLASS; want.len() / dim];
    let norms = Some(Norms { want: want.clone(), square, row: dim, classes });
    Floats { want, bound, norms }
}

fn half(v: f32) -> u16 {
    f16::from_f32(v).to_bits()
}

/// Queries, keys and values of the positions that exist.
pub(super) fn data(s: &Sizes, scores: Scores, rng: &mut Rng) -> (Vec<f32>, Vec<u16>, Vec<u16>) {
    let q = queries(s, scores, rng);
    let count = s.kv_heads * s.max_len * s.dim;
    let nan = f16::NAN.to_bits();
    let (mut k, mut v) = (vec![nan; count], vec![nan; count]);
    let huge = rng.below(s.len);
    for head in 0..s.kv_heads {
        let shared = rng.many(s.dim, Rng::normal);
        for pos in 0..s.len {
            let at = (head * s.max_len + pos) * s.dim;
            for d in 0..s.dim {
                let normal = rng.normal();
                k[at + d] = half(match scores {
                    Scores::Random => normal,
                    Scores::Peaked => normal * if rng.below(64) == 0 { 6.0 } else { 1.0 },
                    // The queries are ones, so that every score is about -8 sqrt(DIM).
                    // So far below zero that weights taken without the maximum vanish.
                    Scores::Negative => -30.0 + 0.1 * normal,
                    // A score of 1e4: the queries are ones, and the sum over DIM is divided by its root.
                    Scores::OneHuge if pos == huge => 1e4 / (s.dim as f32).sqrt(),
                    Scores::OneHuge => 0.1 * normal,
                    Scores::Equal => shared[d],
                    Scores::Growing => normal * (1.0 + pos as f32) / s.len as f32 * 4.0,
                    Scores::Positions => 0.05 * normal,
                });
                v[at + d] = half(match scores {
                    // Below 2048 an f16 holds every whole number.
                    Scores::Positions => ((pos * 7 + head * 31 + d) % 2000) as f32,
                    Scores::Peaked => normal * if d % 17 == 3 { 20.0 } else { 1.0 } + 0.5,
                    _ => rng.normal(),
                });
            }
        }
    }
    (q, k, v)
}

pub(super) fn queries(s: &Sizes, scores: Scores, rng: &mut Rng) -> Vec<f32> {
    match scores {
        Scores::Negative | Scores::OneHuge => vec![1.0; s.heads * s.dim],
        _ => rng.many(s.heads * s.dim, Rng::normal),
    }
}

impl Op for AttnDecode {
    fn name(&self) -> &'static str {
        "attn_decode"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["HEADS", "KV_HEADS", "DIM", "LEN", "MAX_LEN"]
    }

    fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let s = sizes(shape);
        let table = pages::page_of(spec.layout).map_or(0, |page| Pages::table_bytes(page, s.len));
        Bytes((2 * 2 * s.kv_heads * s.len * s.dim + 2 * 4 * s.heads * s.dim + table) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        let s = sizes(shape);
        (2 * 2 * s.heads * s.len * s.dim) as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let count = if depth == Depth::Full { 5 } else { 3 };
        cases(seed, count)
    }

    fn awkward_shapes(&self, shape: &Shape, depth: Depth) -> Vec<Shape> {
        let s = sizes(shape);
        let lens: &[usize] = match depth {
            Depth::Quick => &[1, 2, 33, 255, 257],
            Depth::Full => &[1, 2, 3, 15, 16, 17, 31, 33, 64, 127, 255, 256, 257, 1000, 4095],
        };
        lens.iter()
            .map(|&len| {
                let mut other = shape.clone();
                other.0.insert("LEN".to_owned(), len as u64);
                // Room beyond the length, so that a stride taken from the length shows (AD-16).
                other.0.insert("MAX_LEN".to_owned(), s.max_len.max(len + 63) as u64);
                other
            })
            .collect()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let Recipe::Attention(scores) = case.recipe else {
            panic!("attention runs its own cases, not {:?}", case.recipe)
        };
        let s = sizes(shape);
        let (q, k, v) = data(&s, scores, &mut Rng::new(case.seed, 1));
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::F32(q), Tensor::F16(k), Tensor::F16(v), Tensor::I32(vec![s.len as i32])],
            outputs: vec![OutputSpec { name: "out", elem: Elem::F32, len: s.heads * s.dim }],
            scalars: Vec::new(),
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let [Tensor::F32(q), Tensor::F16(k), Tensor::F16(v), Tensor::I32(_)] = &problem.inputs[..] else {
            panic!("attention takes queries, keys, values and a length")
        };
        let s = sizes(&problem.workload.shape);
        let group = s.heads / s.kv_heads;
        let (mut want, mut square) = (Vec::new(), Vec::new());
        for (head, q) in q.chunks_exact(s.dim).enumerate() {
            let from = head / group * s.max_len * s.dim;
            let [k, v] = [k, v].map(|all| -> Vec<f64> {
                all[from..from + s.len * s.dim].iter().map(|&b| f16::from_bits(b).to_f64()).collect()
            });
            let q: Vec<f64> = q.iter().map(|&q| f64::from(q)).collect();
            let (out, of_out) = cache::attend(&q, &k, &v);
            want.extend(out);
            square.extend(of_out);
        }
        Some(Expected { outputs: vec![Want::Floats(judged(want, square, s.dim))] })
    }

    fn arguments(&self, problem: &Problem, spec: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [Tensor::F32(q), Tensor::F16(k), Tensor::F16(v), Tensor::I32(len)] = &problem.inputs[..] else {
            panic!("attention takes queries, keys, values and a length")
        };
        let s = sizes(&problem.workload.shape);
        let pages = pages::page_of(spec.layout).map(|page| Pages::new(page, s));
        let halves = |all: &[u16]| all.iter().flat_map(|h| h.to_le_bytes()).collect();
        let words = |all: &[i32]| all.iter().flat_map(|v| v.to_le_bytes()).collect();
        let rows = |all: &[u16]| match &pages {
            Some(pages) => Arg::State { bytes: halves(&pages.pool(all)), late: pages.bytes_at(s.len - 1) },
            None => cache::state(halves(all), s.kv_heads, s.max_len, &(s.len - 1..s.len)),
        };
        // A partial result is its values, a maximum and a sum; a head has a counter.
        let scratch = MOST_SPLITS * s.heads * (s.dim + 2) * 4 + s.heads * 4;
        let mut args = vec![
            Arg::In { bytes: q.iter().flat_map(|v| v.to_le_bytes()).collect(), weights: false },
            rows(k),
            rows(v),
            Arg::Out(0),
            Arg::Scratch { bytes: scratch, zeroed: true },
            Arg::Settled { bytes: words(len) },
        ];
        args.extend(pages.as_ref().map(|pages| Arg::State { bytes: words(&pages.table), late: Vec::new() }));
        args.extend([s.heads, s.kv_heads, s.dim].map(|v| Arg::I32(v as i32)));
        args.extend(pages.is_none().then_some(Arg::I32(s.max_len as i32)));
        Ok(args)
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let s = sizes(&problem.workload.shape);
        problem.inputs[0] = Tensor::F32(queries(&s, Scores::Random, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}
