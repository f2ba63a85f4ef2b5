//! `rope_append`: rows of queries, keys and values of M tokens get their bias, their heads' norm where the model has one, and
//! their rotation; queries go out, keys and values go to the cache (KERNELS.md 5.1).
//!
//! Device arguments: `(const float* qkv, const float* bias, const float* q_norm, const float* k_norm, const float2* rope,
//! const u32* pos, float* q, u8* k, u8* v, float* k_scale, float* v_scale, int HEADS, int KV_HEADS, int DIM, int ROT, int M,
//! int MAX_LEN, int PAIRING, int KV, float eps)`. A row of qkv is the heads of the query, then those of the key, then those of
//! the value. `rope` is `[MAX_LEN, ROT / 2]` cosines and sines; `bias` and the norms may be null, and the scales are where
//! KV is 16. What the cache holds at other positions stays as it is.

use std::ops::Range;

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::Op;
use super::cache::{self, half_step};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Append, Place, Recipe, Values};
use super::values;
use crate::check::{Expected, Floats, Want};

/// The largest error of a rotated element, relative to the two that it is made of: a few roundings of 32-bit floats, with
/// those of a norm ahead of them.
const RELATIVE: f64 = 2e-6;
/// What `qwen3` models have.
const EPS: f32 = 1e-6;
/// The base of the angles; any will do, as a kernel is given their cosines and sines.
const THETA: f64 = 1e4;

/// Rotation and append.
#[derive(Debug)]
pub(super) struct RopeAppend;

struct Sizes {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    rot: usize,
    m: usize,
    max_len: usize,
    kv: usize,
    adjacent: bool,
}

impl Sizes {
    fn of(shape: &Shape) -> Sizes {
        let [heads, kv_heads, dim, rot, m, max_len, kv, pairing] =
            ["HEADS", "KV_HEADS", "DIM", "ROT", "M", "MAX_LEN", "KV", "PAIRING"].map(|d| self::dim(shape, d));
        Sizes { heads, kv_heads, dim, rot, m, max_len: max_len.max(m), kv, adjacent: pairing == 1 }
    }

    /// Heads of a row, of all three kinds.
    fn rows(&self) -> usize {
        self.heads + 2 * self.kv_heads
    }

    /// Elements of a row.
    fn width(&self) -> usize {
        self.rows() * self.dim
    }
}

fn case(name: impl Into<String>, seed: u64, values: Values, bias: bool, norms: bool, place: Place) -> Case {
    let append = Append { values, bias, norms, place };
    Case { name: name.into(), seed, dtype: None, recipe: Recipe::Append(append) }
}

/// Head `head` of row `token` in f64 as it goes out, and what the error of each element is measured against.
fn head(problem: &Problem, s: &Sizes, token: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
    let [
        Tensor::F32(qkv),
        Tensor::F32(bias),
        Tensor::F32(q_norm),
        Tensor::F32(k_norm),
        Tensor::F32(rope),
        Tensor::I32(pos),
    ] = &problem.inputs[..]
    else {
        panic!("rows to append come with bias, norms, angles and a position")
    };
    let eps = f64::from(problem.scalars[0]);
    let mut row: Vec<f64> = (0..s.dim)
        .map(|d| {
            let at = head * s.dim + d;
            f64::from(qkv[token * s.width() + at]) + bias.get(at).copied().map_or(0.0, f64::from)
        })
        .collect();
    let is_value = head >= s.heads + s.kv_heads;
    let norm = if head < s.heads { q_norm } else { k_norm };
    if !is_value && !norm.is_empty() {
        let w: Vec<f64> = norm.iter().map(|&w| f64::from(w)).collect();
        row = crate::reference::rmsnorm(&row, &w, eps);
    }
    let mut size: Vec<f64> = row.iter().map(|v| v.abs()).collect();
    if !is_value {
        let position = pos[0] as usize + token;
        for i in 0..s.rot / 2 {
            let (a, b) = if s.adjacent { (2 * i, 2 * i + 1) } else { (i, i + s.rot / 2) };
            let angle = &rope[(position * s.rot / 2 + i) * 2..][..2];
            let (cos, sin) = (f64::from(angle[0]), f64::from(angle[1]));
            (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[a] * sin + row[b] * cos);
            size[a] += size[b];
            size[b] = size[a];
        }
    }
    (row, size)
}

/// The codes of a row in int8 and its scale, where each element may be `off` by so much before it is rounded.
pub(super) fn rounded(row: &[f64], off: f64) -> (Floats, Floats) {
    let largest = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // A value at the middle between two codes may go either way. A row of zeros has codes of zero, unless its elements may be
    // off: then they are what its largest error makes of the others, and the bound of the scale keeps what they stand for small.
    let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    let bound = match largest == 0.0 {
        true if off == 0.0 => 0.0,
        true => 127.0,
        false => 0.5 + 1e-4 + 2.0 * off * inverse,
    };
    let codes = Floats { want: row.iter().map(|v| v * inverse).collect(), bound: vec![bound; row.len()], norms: None };
    let scale = vec![off / 127.0 + 1e-7 * largest + 1e-37];
    (codes, Floats { want: vec![largest / 127.0], bound: scale, norms: None })
}

/// What the cache must hold of the heads from `first`: elements, and scales where it has any.
fn appended(problem: &Problem, s: &Sizes, first: usize) -> Vec<Want> {
    let Tensor::I32(pos) = &problem.inputs[5] else { panic!("the last input is the position") };
    let pos = pos[0] as usize;
    let (mut rows, mut scales) = (Floats::default(), Floats::default());
    for (kv_head, token) in (0..s.kv_heads).flat_map(|h| (0..s.m).map(move |t| (h, t))) {
        let (row, size) = head(problem, s, token, first + kv_head);
        if s.kv == 16 {
            rows.bound.extend(row.iter().zip(&size).map(|(v, size)| RELATIVE * size + half_step(*v)));
            // What lies beyond the range of an f16 becomes the largest.
            rows.want.extend(row.iter().map(|v| v.clamp(-65504.0, 65504.0)));
        } else {
            let (code, scale) = rounded(&row, RELATIVE * size.iter().copied().fold(0.0, f64::max));
            rows.want.extend(code.want);
            rows.bound.extend(code.bound);
            scales.want.extend(scale.want);
            scales.bound.extend(scale.bound);
        }
    }
    let ranges = |bytes: usize| -> Vec<Range<usize>> {
        let at = |head: usize, pos: usize| (head * s.max_len + pos) * bytes;
        (0..s.kv_heads).map(|h| at(h, pos)..at(h, pos + s.m)).collect()
    };
    let part = |bytes: usize, want: Want| Want::Part { ranges: ranges(bytes), want: Box::new(want) };
    if s.kv == 16 {
        vec![part(s.dim * 2, Want::Halves(rows))]
    } else {
        vec![part(s.dim, Want::SignedBytes(rows)), part(4, Want::Floats(scales))]
    }
}

impl Op for RopeAppend {
    fn name(&self) -> &'static str {
        "rope_append"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["HEADS", "KV_HEADS", "DIM", "ROT", "M", "MAX_LEN", "KV", "PAIRING"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let s = Sizes::of(shape);
        let appended = 2 * s.kv_heads * cache::row_bytes(s.dim, s.kv);
        Bytes((s.m * (4 * s.width() + 4 * s.rot + 4 * s.heads * s.dim + appended)) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        let s = Sizes::of(shape);
        (3 * s.m * (s.heads + s.kv_heads) * s.rot) as u64
    }

    fn cases(&self, _: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let count = if depth == Depth::Full { 5 } else { 2 };
        let random = (0..count).map(|i| {
            let seed = seed.wrapping_mul(0x1_0001).wrapping_add(i);
            case(format!("random seed {i}"), seed, Values::Random, i % 2 == 1, false, Place::Random)
        });
        let others = [
            case("realistic outliers and bias", seed, Values::Outliers, true, false, Place::Random),
            case("norms of heads", seed, Values::Outliers, false, true, Place::Random),
            case("bias and norms of heads", seed, Values::Random, true, true, Place::Random),
            case("AD-15 position 0", seed, Values::Random, false, false, Place::Start),
            case("AD-15 position 1", seed, Values::Random, false, false, Place::Second),
            case("AD-16 the last slot", seed, Values::Random, true, false, Place::Last),
        ];
        random.chain(others).collect()
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        let plain = |name: &str, values| case(name, seed, values, false, false, Place::Random);
        vec![
            plain("AD-04 amax 1e-6", Values::Times(1e-6)),
            plain("AD-04 amax 1e-30", Values::Times(1e-30)),
            plain("AD-05 zero rows", Values::Constant(0.0)),
            case("AD-05 zero rows with norms", seed, Values::Constant(0.0), false, true, Place::Random),
            plain("AD-06 one 1e4 among 1e-2", Values::OneLarge),
            plain("AD-13 all -128", Values::Constant(-128.0)),
            plain("AD-19 the maximum at the end", Values::LastLargest),
            plain("AD-28 exact halves", Values::Halves),
        ]
    }

    fn awkward_shapes(&self, shape: &Shape, depth: Depth) -> Vec<Shape> {
        let with = |dims: &[(&str, u64)]| {
            let mut other = shape.clone();
            other.0.extend(dims.iter().map(|&(name, value)| (name.to_owned(), value)));
            other
        };
        let mut shapes = Vec::new();
        for kv in [16, 8] {
            for pairing in [0, 1] {
                shapes.push(with(&[("KV", kv), ("PAIRING", pairing)]));
                // Elements beyond the rotated ones stay, and sizes that no warp divides.
                let odd = [("DIM", 80), ("ROT", 32), ("M", 3), ("MAX_LEN", 9)];
                shapes.push(with(&[&odd[..], &[("KV", kv), ("PAIRING", pairing)]].concat()));
            }
            let wide = [("HEADS", 3), ("KV_HEADS", 1), ("DIM", 256), ("ROT", 256), ("M", 2), ("MAX_LEN", 4)];
            shapes.push(with(&[&wide[..], &[("KV", kv)]].concat()));
            shapes.push(with(&[("M", 1), ("MAX_LEN", 1), ("KV", kv)]));
        }
        // Positions far out (AD-15).
        let far: &[u64] = if depth == Depth::Full { &[8192, 131_072] } else { &[8192] };
        for &max_len in far {
            let small = [("HEADS", 2), ("KV_HEADS", 1), ("DIM", 32), ("ROT", 32), ("M", 2), ("MAX_LEN", max_len)];
            shapes.push(with(&small));
        }
        shapes
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let Recipe::Append(recipe) = case.recipe else {
            panic!("rows are appended by their own cases, not {:?}", case.recipe)
        };
        let s = Sizes::of(shape);
        let room = s.max_len - s.m;
        let mut rng = Rng::new(case.seed, 5);
        let pos = match recipe.place {
            Place::Start => 0,
            Place::Second => room.min(1),
            Place::Random => rng.below(room + 1),
            Place::Last => room,
        };
        // Angles of other positions are NaN: a kernel that looks there shows.
        let mut rope = vec![f32::NAN; s.max_len * s.rot];
        for (at, angle) in rope[pos * s.rot..(pos + s.m) * s.rot].chunks_exact_mut(2).enumerate() {
            let (position, i) = (pos + at / (s.rot / 2), at % (s.rot / 2));
            let (sin, cos) = (position as f64 * THETA.powf(-2.0 * i as f64 / s.rot as f64)).sin_cos();
            angle.copy_from_slice(&[cos as f32, sin as f32]);
        }
        let weights = |there: bool, count: usize, salt: u64, mean: f32| -> Vec<f32> {
            let mut rng = Rng::new(case.seed, salt);
            if there { rng.many(count, |r| mean + 0.3 * r.normal()) } else { Vec::new() }
        };
        let cache = s.kv_heads * s.max_len;
        let elem = if s.kv == 16 { Elem::F16 } else { Elem::U8 };
        let mut outputs = vec![OutputSpec { name: "q", elem: Elem::F32, len: s.m * s.heads * s.dim }];
        outputs.extend(["k", "v"].map(|name| OutputSpec { name, elem, len: cache * s.dim }));
        if s.kv == 8 {
            outputs.extend(["k_scale", "v_scale"].map(|name| OutputSpec { name, elem: Elem::F32, len: cache }));
        }
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![
                Tensor::F32(values::rows(s.m, s.width(), recipe.values, &mut Rng::new(case.seed, 2))),
                Tensor::F32(weights(recipe.bias, s.width(), 6, 0.5)),
                Tensor::F32(weights(recipe.norms, s.dim, 7, 1.0)),
                Tensor::F32(weights(recipe.norms, s.dim, 8, 1.0)),
                Tensor::F32(rope),
                Tensor::I32(vec![pos as i32]),
            ],
            outputs,
            scalars: vec![EPS],
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let s = Sizes::of(&problem.workload.shape);
        let mut q = Floats::default();
        for (token, query) in (0..s.m).flat_map(|t| (0..s.heads).map(move |h| (t, h))) {
            let (row, size) = head(problem, &s, token, query);
            q.want.extend(row);
            q.bound.extend(size.iter().map(|size| RELATIVE * size + 1e-37));
        }
        let mut keys = appended(problem, &s, s.heads).into_iter();
        let mut values = appended(problem, &s, s.heads + s.kv_heads).into_iter();
        // Elements of both, then scales of both.
        let mut outputs = vec![Want::Floats(q)];
        while let (Some(k), Some(v)) = (keys.next(), values.next()) {
            outputs.extend([k, v]);
        }
        Some(Expected { outputs })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let s = Sizes::of(&problem.workload.shape);
        let floats = |input: &Tensor, weights: bool| match input {
            Tensor::F32(v) if v.is_empty() => cache::NULL,
            Tensor::F32(v) => Arg::In { bytes: v.iter().flat_map(|v| v.to_le_bytes()).collect(), weights },
            _ => panic!("rows, bias, norms and angles are floats"),
        };
        let Tensor::I32(pos) = &problem.inputs[5] else { panic!("the last input is the position") };
        let mut args = vec![floats(&problem.inputs[0], false)];
        args.extend(problem.inputs[1..5].iter().map(|input| floats(input, true)));
        args.push(Arg::In { bytes: pos.iter().flat_map(|v| v.to_le_bytes()).collect(), weights: false });
        args.extend([0, 1, 2].map(Arg::Out));
        args.extend(if s.kv == 8 { [3, 4].map(Arg::Out) } else { [cache::NULL; 2] });
        let sizes = [s.heads, s.kv_heads, s.dim, s.rot, s.m, s.max_len, usize::from(s.adjacent), s.kv];
        args.extend(sizes.map(|v| Arg::I32(v as i32)));
        args.push(Arg::F32(problem.scalars[0]));
        Ok(args)
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let s = Sizes::of(&problem.workload.shape);
        problem.inputs[0] = Tensor::F32(values::rows(s.m, s.width(), Values::Outliers, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_row_of_zeros_are_free_only_where_its_elements_may_be_off() {
        let (codes, scale) = rounded(&[0.0; 4], 0.0);
        assert!(codes.bound.iter().all(|&b| b == 0.0) && scale.bound[0] < 1e-36);
        // A sum that should have been zero: its rounding is all there is, up to the largest code.
        let off = 1e-6;
        let (codes, scale) = rounded(&[0.0; 4], off);
        assert!(codes.bound.iter().all(|&b| b == 127.0));
        assert!(
            127.0 * (scale.want[0] + scale.bound[0]) < 1.001 * off,
            "what the codes stand for stays within the error"
        );
        // Of a row that is not zero a code is half a step off, and what the error is in steps.
        let (codes, _) = rounded(&[0.0, 127.0], 1e-3);
        assert!((codes.bound[0] - 0.5021).abs() < 1e-9, "{}", codes.bound[0]);
    }
}
