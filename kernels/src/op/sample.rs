//! `sample`: a token drawn from logits, and the state of the token that follows.
//!
//! Device arguments: `(const float* logits, const u32* params, const double* draws, const u32* history, const u32* pos,
//! u32* next, u32* log, u8* work, u8* scratch, u32* ring, int N, int LEN)`.
//!
//! In this order: a penalty on the logits of recent tokens, once each; the `top_k` largest logits, of equal ones those of the
//! lowest index; temperature and softmax over what is left; the smallest prefix, in order of probability, whose sum reaches
//! `top_p`; what is at least `min_p` times as likely as the best; one draw. NaN counts as minus infinity. The draw is the
//! uniform number at `pos % 1024`: the first token at which the sum of probabilities goes beyond it, in order of probability
//! where `top_k` or `top_p` cut, else in order of index.
//!
//! `history` has the token of every position up to `pos`. The one drawn goes to `log[pos + 1]`, where that lies in its LEN words;
//! `next` becomes `{token, pos + 1, pos + 2, 0}` and, where there is a ring of 1024 words, `ring[pos % 1024] = token + 1` with a
//! release that the host sees. Params are those of [`SampleParams::words`]. `work` is memory of [`sample_work`] bytes; the
//! scratch is zeroed once, before the first launch, and every launch leaves it zeroed.

mod reference;

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::Op;
use super::normed::{float_arg, input};
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, SampleLogits, Sampling};
use crate::check::{Expected, Want};
use reference::{acceptable, ranked};

/// Uniform numbers that a launch finds, one a position, modulo this.
pub const SAMPLE_DRAWS: usize = 1024;
/// The fewest and the most tokens of a block, and those of which it passes on the best.
const SLICES: [usize; 2] = [1024, 2048];
const GROUP: usize = 128;
/// What a block says of its tokens in all, and by level.
const HEAD_BYTES: usize = 16 + 8 * 256;
/// The largest uniform number below 1.
const ALMOST_ONE: f64 = 1.0 - f64::EPSILON / 2.0;
/// A vocabulary from which on a few cases are enough.
const LARGE: usize = 20_000;

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleParams {
    /// Divides the logits; of 0 the best token alone is left.
    pub temperature: f32,
    /// Tokens that are kept; 0 keeps all.
    pub top_k: u32,
    /// The sum of probabilities that is kept; 1 keeps all.
    pub top_p: f32,
    /// The least probability, of the best token's; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub penalty: f32,
    /// How many of the last tokens are recent.
    pub recent: u32,
}

impl SampleParams {
    /// Everything kept as it is.
    pub const ALL: SampleParams =
        SampleParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalty: 1.0, recent: 0 };

    /// What a kernel takes: the inverse of temperature times ln 2 as the sum of two floats, top-p, min-p, penalty, top-k, recent
    /// tokens, and a word that is not used.
    pub fn words(&self) -> [u32; 8] {
        let greedy = self.temperature == 0.0;
        let temperature = if greedy { 1.0 } else { f64::from(self.temperature) };
        let inverse = std::f64::consts::LOG2_E / temperature;
        let scale = (inverse as f32).min(f32::MAX);
        let rest = (inverse - f64::from(scale)) as f32;
        let rest = if rest.is_finite() { rest } else { 0.0 };
        let top_k = if greedy { 1 } else { self.top_k };
        let [scale, rest, top_p, min_p, penalty] =
            [scale, rest, self.top_p, self.min_p, self.penalty].map(f32::to_bits);
        [scale, rest, top_p, min_p, penalty, top_k, self.recent, 0]
    }
}

/// Bytes of working memory of a launch for a vocabulary: the ranks of all tokens, the best of each group of them, what each
/// block says of its tokens, and all tokens once more in another order.
pub const fn sample_work(n: usize) -> usize {
    let places = n.next_multiple_of(SLICES[1]);
    4 * places + 4 * (places / GROUP) + n.div_ceil(SLICES[0]) * HEAD_BYTES + 8 * places
}

/// The choice of a token.
#[derive(Debug)]
pub(super) struct Sample;

fn case(name: impl Into<String>, seed: u64, logits: SampleLogits, params: SampleParams, uniform: Option<f64>) -> Case {
    Case { name: name.into(), seed, dtype: None, recipe: Recipe::Sample(Sampling { logits, params, uniform }) }
}

fn logits(n: usize, kind: SampleLogits, rng: &mut Rng) -> Vec<f32> {
    let at = rng.below(n);
    let one = |i: usize, rng: &mut Rng| match kind {
        SampleLogits::Model if i % 89 == 17 => 4.0 * rng.normal() + 6.0,
        SampleLogits::Model => 2.0 * rng.normal(),
        SampleLogits::Flat => rng.uniform(-1.0, 1.0),
        SampleLogits::Equal => 0.5,
        SampleLogits::Levels => rng.whole(-4, 4) as f32 * 0.5,
        SampleLogits::OneHuge if i == at => 1e4,
        SampleLogits::OneHuge => rng.uniform(-1.0, 1.0),
        SampleLogits::Rising => i as f32 / 64.0,
        SampleLogits::LowInfinities if i < n - n.div_ceil(3) => f32::NEG_INFINITY,
        SampleLogits::LowInfinities => rng.normal(),
        SampleLogits::AllLowest => f32::NEG_INFINITY,
        SampleLogits::HighInfinities if i == n / 3 || i + 1 == n => f32::INFINITY,
        SampleLogits::HighInfinities => rng.normal(),
        SampleLogits::Nans if i % 3 == 1 || i == 0 && n > 3 => f32::NAN,
        SampleLogits::Nans => rng.normal(),
        SampleLogits::AllNan => f32::NAN,
        SampleLogits::Extremes => [3e38, -3e38, 0.0, -0.0, 1e-40][rng.below(5)],
    };
    (0..n).map(|i| one(i, rng)).collect()
}

fn words(problem: &Problem, at: usize) -> &[i32] {
    let Tensor::I32(words) = &problem.inputs[at] else { panic!("input {at} of a choice is words") };
    words
}

fn draws(problem: &Problem) -> Vec<f64> {
    let Tensor::Bytes(bytes) = &problem.inputs[1] else { panic!("uniform numbers are bytes") };
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// Uniform numbers at all places, and at one of them this where there is one.
fn ring_of_draws(rng: &mut Rng, at: usize, uniform: Option<f64>) -> Tensor {
    let mut draws = rng.many(SAMPLE_DRAWS, |r| (r.bits() >> 11) as f64 / (1u64 << 53) as f64);
    if let Some(uniform) = uniform {
        draws[at % SAMPLE_DRAWS] = uniform;
    }
    Tensor::Bytes(draws.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn params(problem: &Problem) -> SampleParams {
    let s = &problem.scalars;
    let [temperature, top_p, min_p, penalty] = [s[0], s[2], s[3], s[4]];
    SampleParams { temperature, top_k: s[1] as u32, top_p, min_p, penalty, recent: s[5] as u32 }
}

impl Op for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["N", "LEN"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        Bytes(4 * dim(shape, "N") as u64 + 32 + 8 + 4 + 16 + 4)
    }

    fn flops(&self, shape: &Shape) -> u64 {
        4 * dim(shape, "N") as u64
    }

    fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        use SampleLogits::{Equal, Flat, Levels, Model, Rising};
        let all = SampleParams::ALL;
        let usual = SampleParams { temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.0, penalty: 1.1, recent: 64 };
        let mut cases = vec![
            case("usual parameters", seed, Model, usual, None),
            case("everything kept", seed, Model, all, None),
            case("everything kept, all alike, the last token", seed, Equal, all, Some(ALMOST_ONE)),
            case("top-p 0.95", seed, Model, SampleParams { top_p: 0.95, ..all }, None),
            case(
                "top-k 40 of all alike, the last of them",
                seed,
                Equal,
                SampleParams { top_k: 40, ..all },
                Some(ALMOST_ONE),
            ),
            case("top-p 0.9 of what is alike", seed, Flat, SampleParams { top_p: 0.9, ..all }, None),
        ];
        if dim(shape, "N") >= LARGE && depth == Depth::Quick {
            return cases;
        }
        let mut add = |name: &str, logits, params, uniform| cases.push(case(name, seed, logits, params, uniform));
        add("usual parameters, the first", Model, usual, Some(0.0));
        add("usual parameters, the last", Model, usual, Some(ALMOST_ONE));
        add("temperature 0.2", Model, SampleParams { temperature: 0.2, ..all }, None);
        add("temperature 3", Rising, SampleParams { temperature: 3.0, ..all }, None);
        add("min-p 0.05", Model, SampleParams { min_p: 0.05, ..all }, None);
        add("min-p 0.05, the last", Model, SampleParams { min_p: 0.05, ..all }, Some(ALMOST_ONE));
        add("min-p 1 among ties", Levels, SampleParams { min_p: 1.0, ..all }, None);
        add("greedy with a penalty", Levels, SampleParams { temperature: 0.0, penalty: 1.5, recent: 30, ..all }, None);
        add("a penalty below one", Model, SampleParams { penalty: 0.5, recent: 1000, ..usual }, None);
        add("top-k 1 among ties", Levels, SampleParams { top_k: 1, ..all }, Some(ALMOST_ONE));
        add("top-k 2 among ties", Levels, SampleParams { top_k: 2, ..all }, Some(ALMOST_ONE));
        add("top-k 300 among ties", Levels, SampleParams { top_k: 300, ..all }, Some(ALMOST_ONE));
        add(
            "top-k 1000, top-p 0.99, min-p 0.3",
            Flat,
            SampleParams { top_k: 1000, top_p: 0.99, min_p: 0.3, ..all },
            None,
        );
        add("top-k 40 of what is alike", Flat, SampleParams { top_k: 40, ..all }, None);
        add("top-p 1e-6", Model, SampleParams { top_p: 1e-6, ..all }, Some(ALMOST_ONE));
        add("top-p 0", Levels, SampleParams { top_p: 0.0, ..all }, Some(ALMOST_ONE));
        add("top-p 0.5 of all alike, the last of them", Equal, SampleParams { top_p: 0.5, ..all }, Some(ALMOST_ONE));
        add("top-p 0.9 of what is alike, the last", Flat, SampleParams { top_p: 0.9, ..all }, Some(ALMOST_ONE));
        add("top-p 0.8 and min-p 0.5", Flat, SampleParams { top_p: 0.8, min_p: 0.5, ..all }, None);
        add("top-p 0.999 at temperature 0.1", Flat, SampleParams { temperature: 0.1, top_p: 0.999, ..all }, None);
        add("min-p 0.5 of what is alike", Flat, SampleParams { min_p: 0.5, ..all }, None);
        cases
    }

    fn adversarial(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        use SampleLogits::{AllLowest, AllNan, Extremes, HighInfinities, LowInfinities, Nans, OneHuge};
        let all = SampleParams::ALL;
        let cut = SampleParams { top_k: 40, top_p: 0.9, min_p: 0.1, penalty: 1.2, recent: 20, ..all };
        let kinds = [
            ("one huge logit", OneHuge),
            ("minus infinity at first", LowInfinities),
            ("minus infinity alone", AllLowest),
            ("two infinities", HighInfinities),
            ("every third logit NaN", Nans),
            ("every logit NaN", AllNan),
            ("the largest floats and both zeros", Extremes),
        ];
        let ways = [
            ("everything kept", all),
            ("cuts", cut),
            ("top-p 0.99", SampleParams { top_p: 0.99, ..all }),
            ("min-p 0.1", SampleParams { min_p: 0.1, ..all }),
            ("temperature 1e-40", SampleParams { temperature: 1e-40, ..all }),
        ];
        let of = |(name, logits)| {
            ways.iter().flat_map(move |(way, params)| {
                [None, Some(ALMOST_ONE)].map(|u| {
                    let end = if u.is_some() { ", the last" } else { "" };
                    case(format!("AD-18 {name}, {way}{end}"), seed, logits, *params, u)
                })
            })
        };
        kinds.into_iter().flat_map(of).collect()
    }

    fn home_shapes(&self, _: &Shape) -> Vec<Shape> {
        vec![Shape::of([("N", 2500), ("LEN", 40)])]
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        let sizes = [(1, 1), (2, 5), (31, 100), (1024, 3000), (1025, 64), (49_152, 70), (128_256, 9), (151_936, 1500)];
        sizes.map(|(n, len)| Shape::of([("N", n), ("LEN", len)])).to_vec()
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let Recipe::Sample(s) = case.recipe else { panic!("a choice runs its own cases, not {:?}", case.recipe) };
        let (n, len) = (dim(shape, "N"), dim(shape, "LEN"));
        let mut rng = Rng::new(case.seed, 21);
        let logits = logits(n, s.logits, &mut rng);
        // The best tokens are recent, as they are in a text; the last position has no room for the token behind it.
        let best = ranked(&logits);
        let pos = if case.seed % 7 == 3 { len - 1 } else { rng.below(len) };
        let history = rng.many(len, |r| best[if r.below(2) == 0 { r.below(n.min(8)) } else { r.below(n) }] as i32);
        let p = s.params;
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![
                Tensor::F32(logits),
                ring_of_draws(&mut rng, pos, s.uniform),
                Tensor::I32(history),
                Tensor::I32(vec![pos as i32]),
            ],
            outputs: vec![
                OutputSpec { name: "next", elem: Elem::U32, len: 4 },
                OutputSpec { name: "log", elem: Elem::U32, len },
            ],
            scalars: vec![p.temperature, p.top_k as f32, p.top_p, p.min_p, p.penalty, p.recent as f32],
            exact: false,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let (p, pos) = (params(problem), words(problem, 3)[0] as usize);
        let recent = &words(problem, 2)[(pos + 1).saturating_sub(p.recent as usize)..=pos];
        let uniform = draws(problem)[pos % SAMPLE_DRAWS];
        let ids = acceptable(input(problem, 0).to_vec(), &p, recent, uniform);
        let behind = vec![pos as u32 + 1, pos as u32 + 2, 0];
        let log = match pos + 1 < problem.dim("LEN") {
            true => {
                let want = Box::new(Want::OneOf { ids: ids.clone(), behind: Vec::new() });
                Want::Part { ranges: std::iter::once(4 * (pos + 1)..4 * (pos + 2)).collect(), want }
            }
            // Nothing is written.
            false => Want::Part { ranges: Vec::new(), want: Box::new(Want::WordSum(0)) },
        };
        Some(Expected { outputs: vec![Want::OneOf { ids, behind }, log] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let [n, len] = ["N", "LEN"].map(|d| Arg::I32(problem.dim(d) as i32));
        let Tensor::Bytes(draws) = &problem.inputs[1] else { panic!("uniform numbers are bytes") };
        let history = words(problem, 2).iter().flat_map(|w| w.to_le_bytes()).collect();
        Ok(vec![
            float_arg(input(problem, 0), false),
            // All but the logits stands since the choice of the token before.
            Arg::Settled { bytes: params(problem).words().iter().flat_map(|w| w.to_le_bytes()).collect() },
            Arg::Settled { bytes: draws.clone() },
            Arg::State { bytes: history, late: Vec::new() },
            Arg::Settled { bytes: words(problem, 3).iter().flat_map(|w| w.to_le_bytes()).collect() },
            Arg::Out(0),
            Arg::Out(1),
            Arg::Scratch { bytes: sample_work(problem.dim("N")), zeroed: false },
            Arg::Scratch { bytes: 16, zeroed: true },
            Arg::I64(0),
            n,
            len,
        ])
    }

    /// Other logits.
    fn redraw(&self, problem: &mut Problem, seed: u64) {
        let n = problem.dim("N");
        problem.inputs[0] = Tensor::F32(logits(n, SampleLogits::Model, &mut Rng::new(seed, 22)));
        problem.case = format!("activations {seed:#x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_any_temperature_is_finite() {
        for temperature in [0.0, f32::from_bits(1), 1e-38, 0.1, 1.0, 1e38, f32::MAX] {
            let words = SampleParams { temperature, ..SampleParams::ALL }.words();
            assert!(words[..2].iter().all(|w| f32::from_bits(*w).is_finite()), "{temperature}");
        }
        let [scale, rest, ..] = SampleParams { temperature: 0.7, ..SampleParams::ALL }.words();
        let sum = f64::from(f32::from_bits(scale)) + f64::from(f32::from_bits(rest));
        assert!((sum - std::f64::consts::LOG2_E / f64::from(0.7f32)).abs() < 1e-13);
    }
}
