//! `attn_token` and `attn_prefill`: attention of one token, and of M tokens, over a cache of keys and values in f16 or int8
//! (see [`super::cache`]).
//!
//! `attn_token`: `(const float* q, const u8* k, const u8* v, const float* k_scale, const float* v_scale, u8* out, u8* scratch,
//! const int* len, int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT)`. The result of all heads is a slab a8/32
//! where OUT is 8 and floats where it is 32. The scratch is zeroed once; what must be zero at the start of a launch is left
//! zero by the one before.
//!
//! `attn_prefill`: `(const float* q, const u8* k, const u8* v, const float* k_scale, const float* v_scale, u16* out, const u32*
//! pos, int HEADS, int KV_HEADS, int DIM, int M, int MAX_LEN, int KV)`. Token i stands at position pos + i and sees the keys up
//! to its own, which the cache holds already. The result is f16.
//!
//! The scales are null where KV is 16. Positions that do not exist hold NaN. A kernel with activations of its own rounds the
//! queries to them before it multiplies.

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::activations::{self, slab_stride};
use super::attention::{self, CLASS, MOST_SPLITS, Sizes};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Scores};
use super::{Op, cache};
use crate::check::{Expected, Floats, Slabs, Want};

/// Values that share a scale in a slab.
const GROUP: usize = 32;
/// Products of the reference from which fewer cases must do.
const LARGE: usize = 1 << 28;
/// Keys beyond which a quick check of one token runs most inputs at [`SHORTER`]. Sending a cache of many thousands takes
/// longer than everything else, and did so for each input and variant.
const LONG: usize = 1024;
/// Less than [`LONG`], a multiple of nothing, and more than one tile or split of any kernel.
const SHORTER: usize = 1000;

/// Attention over a cache.
#[derive(Debug)]
pub(super) struct Attend {
    prefill: bool,
}

/// One token, and many.
pub(super) static ATTEND: [Attend; 2] = [Attend { prefill: false }, Attend { prefill: true }];

/// What is not in [`Sizes`].
#[derive(Clone, Copy)]
struct Form {
    /// Tokens.
    m: usize,
    /// Position of the first.
    pos: usize,
    /// Bits of an element of the cache.
    kv: usize,
    /// Bits of an element of the result.
    out: usize,
}

impl Attend {
    fn sizes(&self, shape: &Shape) -> (Sizes, Form) {
        let [heads, kv_heads, dim, kv, max_len] =
            ["HEADS", "KV_HEADS", "DIM", "KV", "MAX_LEN"].map(|d| self::dim(shape, d));
        let of = |name| self::dim(shape, name);
        // A shape without the dimensions of the other op has 1 there.
        let form = if self.prefill {
            Form { m: of("M"), pos: of("POS"), kv, out: 16 }
        } else {
            Form { m: 1, pos: of("LEN") - 1, kv, out: of("OUT") }
        };
        let len = form.pos + form.m;
        (Sizes { heads, kv_heads, dim, len, max_len: max_len.max(len) }, form)
    }
}

/// Products of queries and keys, of one kind.
fn products(s: &Sizes, form: Form) -> usize {
    let pairs = form.m * form.pos + form.m * (form.m + 1) / 2;
    s.heads * s.dim * pairs
}

fn queries(s: &Sizes, m: usize, scores: Scores, rng: &mut Rng) -> Vec<f32> {
    (0..m).flat_map(|_| attention::queries(s, scores, rng)).collect()
}

/// Whether a long cache is checked with this input: that every key is found, and counts for what it is, shows by random and
/// realistic inputs and by values that tell their position. What the others try, scores of a kind and their maxima, is the
/// same in a tile and a split of a shorter one.
fn at_any_length(case: &Case) -> bool {
    let Recipe::Attention(scores) = case.recipe else { return true };
    matches!(scores, Scores::Peaked | Scores::Positions) || case.name == "random seed 0"
}

impl Op for Attend {
    fn name(&self) -> &'static str {
        if self.prefill { "attn_prefill" } else { "attn_token" }
    }

    fn dims(&self) -> &'static [&'static str] {
        if self.prefill {
            &["HEADS", "KV_HEADS", "DIM", "M", "POS", "MAX_LEN", "KV"]
        } else {
            &["HEADS", "KV_HEADS", "DIM", "LEN", "MAX_LEN", "KV", "OUT"]
        }
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        let (s, form) = self.sizes(shape);
        let width = s.heads * s.dim;
        let out = if form.out == 8 { slab_stride(width, GROUP) } else { width * form.out / 8 };
        Bytes((2 * s.kv_heads * s.len * cache::row_bytes(s.dim, form.kv) + form.m * (4 * width + out)) as u64)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        let (s, form) = self.sizes(shape);
        4 * products(&s, form) as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let (s, form) = self.sizes(shape);
        let large = products(&s, form) > LARGE;
        let seeds = match depth {
            Depth::Full => 5,
            Depth::Quick if large => 1,
            Depth::Quick => 3,
        };
        let mut cases = attention::cases(seed, seeds);
        if large && depth == Depth::Quick {
            cases.truncate(2);
        }
        if depth == Depth::Quick && !self.prefill && s.len > LONG {
            cases.retain(at_any_length);
        }
        cases
    }

    fn awkward_shapes(&self, shape: &Shape, depth: Depth) -> Vec<Shape> {
        let with = |dims: &[(&str, usize)]| {
            let mut other = shape.clone();
            other.0.extend(dims.iter().map(|&(name, value)| (name.to_owned(), value as u64)));
            other
        };
        let (s, form) = self.sizes(shape);
        let forms = [16, 8].map(|kv| ("KV", kv));
        let mut shapes = Vec::new();
        // A group of odd size, and heads of the other length.
        let heads = [("HEADS", 7), ("KV_HEADS", 1), ("DIM", if s.dim == 64 { 128 } else { 64 })];
        if self.prefill {
            let tiles: &[(usize, usize)] = match depth {
                Depth::Quick => &[(1, 0), (2, 1), (17, 0), (1, 70), (65, 3)],
                Depth::Full => &[
                    (1, 0),
                    (2, 1),
                    (17, 0),
                    (1, 70),
                    (65, 3),
                    (64, 0),
                    (128, 64),
                    (33, 255),
                    (129, 257),
                    (200, 1000),
                    (512, 0),
                ],
            };
            for kv in forms {
                for &(m, pos) in tiles {
                    shapes.push(with(&[("M", m), ("POS", pos), ("MAX_LEN", s.max_len.max(m + pos + 63)), kv]));
                }
                shapes.push(with(&[&heads[..], &[("M", 9), ("POS", 30), ("MAX_LEN", 77), kv]].concat()));
            }
            return shapes;
        }
        let lens: &[usize] = match depth {
            Depth::Quick => &[1, 2, 33, 255, 257],
            Depth::Full => &[1, 2, 3, 15, 16, 17, 31, 33, 64, 65, 127, 255, 256, 257, 1000, 4095],
        };
        // The cache of a model has more room, which the shape itself is checked with.
        let (room, most) = if depth == Depth::Quick { (0, SHORTER) } else { (s.max_len, usize::MAX) };
        // Few heads, so that many keys are checked anywhere; groups that fill a tile of heads, and one that takes two.
        let few = |heads: usize| [("HEADS", heads), ("KV_HEADS", 1), ("DIM", s.dim.min(64))];
        let wide = [("HEADS", 3), ("KV_HEADS", 1), ("DIM", 128)];
        for (kv, out) in forms.into_iter().zip([8, 32]) {
            for &len in lens {
                // Room beyond the length, so that a stride taken from the length shows (AD-16).
                let max_len = room.max(len + 63);
                let sizes = [("LEN", len), ("MAX_LEN", max_len), kv];
                if depth == Depth::Full || len < 100 {
                    shapes.push(with(&[&sizes[..], &[("OUT", form.out)]].concat()));
                    shapes.push(with(&[&sizes[..], &[("OUT", out)]].concat()));
                } else {
                    shapes.push(with(&[&few(2)[..], &sizes, &[("OUT", out)]].concat()));
                }
            }
            let sizes = |len: usize| [("LEN", len), ("MAX_LEN", 107), kv, ("OUT", out)];
            shapes.push(with(&[&few(8)[..], &sizes(70)].concat()));
            shapes.push(with(&[&few(9)[..], &sizes(40)].concat()));
            shapes.push(with(&[&wide[..], &sizes(100)].concat()));
        }
        if depth == Depth::Quick && s.len > LONG {
            shapes.push(with(&[("LEN", SHORTER), ("MAX_LEN", SHORTER + 63)]));
        }
        // Every slot of the cache is in use.
        let full = s.len.min(most);
        shapes.push(with(&[("LEN", full), ("MAX_LEN", full)]));
        shapes.dedup();
        shapes
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let Recipe::Attention(scores) = case.recipe else {
            panic!("attention runs its own cases, not {:?}", case.recipe)
        };
        let (s, form) = self.sizes(shape);
        let (q, k, v) = attention::data(&s, scores, &mut Rng::new(case.seed, 1));
        let q = if self.prefill { queries(&s, form.m, scores, &mut Rng::new(case.seed, 9)) } else { q };
        let at = if self.prefill { form.pos } else { s.len };
        let width = s.heads * s.dim;
        let (elem, len) = match form.out {
            8 => (Elem::U8, slab_stride(width, GROUP)),
            16 => (Elem::F16, form.m * width),
            _ => (Elem::F32, width),
        };
        let [k, v, k_scale, v_scale] = cache::tensors(k, v, s.dim, form.kv);
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::F32(q), k, v, k_scale, v_scale, Tensor::I32(vec![at as i32])],
            outputs: vec![OutputSpec { name: "out", elem, len }],
            scalars: Vec::new(),
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, seen: Activations) -> Option<Expected> {
        let (s, form) = self.sizes(&problem.workload.shape);
        let Tensor::F32(q) = &problem.inputs[0] else { panic!("queries are floats") };
        // A kernel that rounds its queries answers for what it does with them then: rounding gives the same codes anywhere, so
        // that its result is held to the same bounds as any other's.
        let q = activations::seen(q, seen)?;
        let rows = cache::Rows::of(problem, s.dim);
        let width = s.heads * s.dim;
        let (mut want, mut square) = (vec![0.0; form.m * width], vec![0.0; form.m * width]);
        let of_head = |kv_head: usize| -> Vec<_> {
            let [k, v] = rows.each_ref().map(|rows| rows.decoded(kv_head * s.max_len, s.len));
            let group = s.heads / s.kv_heads;
            let heads = (0..form.m).flat_map(|t| (0..group).map(move |h| (t, kv_head * group + h)));
            let at = heads.map(|(token, head)| {
                let at = token * width + head * s.dim;
                let seen = (form.pos + token + 1) * s.dim;
                (at, cache::attend(&q[at..at + s.dim], &k[..seen], &v[..seen]))
            });
            at.collect()
        };
        // Heads share nothing; those of a long cache take a second one by one.
        let heads: Vec<Vec<_>> = std::thread::scope(|scope| {
            let of_head = &of_head;
            let threads: Vec<_> = (0..s.kv_heads).map(|head| scope.spawn(move || of_head(head))).collect();
            threads.into_iter().map(|t| t.join().expect("attention in f64 does not panic")).collect()
        });
        for (at, (out, of_out)) in heads.into_iter().flatten() {
            want[at..at + s.dim].copy_from_slice(&out);
            square[at..at + s.dim].copy_from_slice(&of_out);
        }
        let want = match form.out {
            8 => {
                // No element is further off than its whole head may be.
                let bound = square
                    .chunks(s.dim)
                    .flat_map(|square| std::iter::repeat_n(CLASS * square.iter().sum::<f64>().sqrt() + 1e-30, s.dim));
                Want::Slabs(Slabs { k: width, group: GROUP, bound: bound.collect(), want })
            }
            16 => {
                let Floats { want, bound, norms } = attention::judged(want, square, s.dim);
                let bound = bound.iter().zip(&want).map(|(b, v)| b + cache::half_step(*v)).collect();
                Want::Halves(Floats { want, bound, norms })
            }
            _ => Want::Floats(attention::judged(want, square, s.dim)),
        };
        Some(Expected { outputs: vec![want] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let (s, form) = self.sizes(&problem.workload.shape);
        let (Tensor::F32(q), Tensor::I32(at)) = (&problem.inputs[0], &problem.inputs[5]) else {
            panic!("attention takes queries, a cache and a position")
        };
        let input = |bytes| Arg::In { bytes, weights: false };
        let mut args = vec![input(q.iter().flat_map(|v| v.to_le_bytes()).collect())];
        // A token finds every key but its own in place; a prompt comes behind kernels of which not all wait for those ahead.
        let late = if self.prefill { 0..s.max_len } else { s.len - 1..s.len };
        args.extend(cache::arguments(problem, s.kv_heads, s.max_len, late));
        args.push(Arg::Out(0));
        if !self.prefill {
            // A partial result is its values, a maximum and a sum; a head has a counter.
            let bytes = (MOST_SPLITS * s.heads * (s.dim + 2) + s.heads) * 4;
            args.push(Arg::Scratch { bytes, zeroed: true });
        }
        let at = at.iter().flat_map(|v| v.to_le_bytes()).collect();
        args.push(if self.prefill { input(at) } else { Arg::Settled { bytes: at } });
        let heads = [s.heads, s.kv_heads, s.dim];
        let rest = if self.prefill { vec![form.m, s.max_len, form.kv] } else { vec![s.max_len, form.kv, form.out] };
        args.extend(heads.into_iter().chain(rest).map(|v| Arg::I32(v as i32)));
        Ok(args)
    }

    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let (s, form) = self.sizes(&problem.workload.shape);
        problem.inputs[0] = Tensor::F32(queries(&s, form.m, Scores::Random, &mut Rng::new(seed, 3)));
        problem.case = format!("activations {seed:#x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cache_is_sent_for_three_inputs_and_every_input_is_tried_at_a_thousand_keys() {
        let dims = |len: u64| {
            let all =
                [("HEADS", 32), ("KV_HEADS", 8), ("DIM", 128), ("LEN", len), ("MAX_LEN", 8192), ("KV", 16), ("OUT", 8)];
            Shape::of(all)
        };
        let op = &ATTEND[0];
        let names = |shape: &Shape, depth| -> Vec<String> {
            op.cases(shape, 1, depth).into_iter().map(|case| case.name).collect()
        };
        let long = names(&dims(8192), Depth::Quick);
        assert_eq!(long, ["random seed 0", "realistic peaks and outliers", "AD-16 values that tell their position"]);
        let all = names(&dims(512), Depth::Quick);
        let shapes = op.awkward_shapes(&dims(8192), Depth::Quick);
        let same = |s: &&Shape| ["HEADS", "KV_HEADS", "DIM", "KV", "OUT"].iter().all(|d| s.get(d) == dims(1).get(d));
        let shorter = shapes.iter().filter(same).find(|s| s.get("LEN") == Some(1000)).unwrap();
        assert_eq!((names(shorter, Depth::Quick), all.len()), (all, 9));
        assert!(shapes.iter().all(|s| s.get("MAX_LEN").unwrap() <= 1063), "{shapes:?}");
        assert_eq!(names(&dims(8192), Depth::Full).len(), 11);
    }

    /// The result in floats of a case, of kernels that read a cache of `kv` bits and queries in this form.
    fn result(name: &str, kv: u64, form: Activations) -> Vec<f64> {
        let dims =
            [("HEADS", 14), ("KV_HEADS", 2), ("DIM", 64), ("LEN", 256), ("MAX_LEN", 256), ("KV", kv), ("OUT", 32)];
        let (op, shape) = (&ATTEND[0], Shape::of(dims));
        let case = op.cases(&shape, 1, Depth::Full).into_iter().find(|case| case.name == name).unwrap();
        let expected = op.expected(&op.problem(&shape, &case), form).unwrap();
        match &expected.outputs[..] {
            [Want::Floats(floats)] => floats.want.clone(),
            other => panic!("attention has one output in floats, not {other:?}"),
        }
    }

    /// What `dp4a` may lose: keys, values and queries in int8 against all of them as they were.
    #[test]
    fn a_cache_and_queries_in_int8_are_within_two_percent_of_floats() {
        for name in ["random seed 0", "random seed 1", "random seed 2"] {
            let exact = result(name, 16, Activations::F32);
            let square = |of: &[f64]| of.iter().map(|v| v * v).sum::<f64>();
            let off = |got: &[f64]| {
                let apart: Vec<f64> = got.iter().zip(&exact).map(|(g, e)| g - e).collect();
                (square(&apart) / square(&exact)).sqrt()
            };
            let [cache, all] = [Activations::F32, Activations::A8].map(|form| off(&result(name, 8, form)));
            assert!(0.0 < cache && cache < all && all < 0.02, "{name}: {cache} with the cache alone, {all} with all");
        }
    }
}
