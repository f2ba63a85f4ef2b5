//! Whether a new table may replace the old one: decided in the whole engine, not by kernels (R27).
//!
//! The engine is loaded twice with both tables, the second time in the other order. What the new table does to a rate is
//! the mean of both halves, in which a side's place in memory and its turn to be loaded cancel. Half their difference is
//! what two sides differ by that run the same: a control of as many pairs, from the same minutes. How far its interval
//! reaches is the noise floor.

use std::fmt;

use harness_spec::record::RatioEstimate;
use harness_spec::{VariantId, Workload};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::{Draws, RESAMPLES, Statistic, Units, bootstrap};
use crate::describe::median_in_place;
use crate::verdict::LEAST_PAIRS;
use crate::wilcoxon::signed_rank_p;
use crate::{holm, noise};

/// A stage may lose this much at the lower end of its interval, or as much as the noise floor where that is more.
const MOST_LOST: f64 = 0.005;

/// The level of every interval.
const LEVEL: f64 = 0.95;

/// What is done with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Those of the prompt.
    Prefill,
    /// Generated ones, one after the other.
    Decode,
}

/// A stage of the engine, at a length of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage {
    /// What is done.
    pub work: Work,
    /// Tokens of the prompt.
    pub prompt: u64,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Prefill => write!(f, "prefill of {} tokens", self.prompt),
            Work::Decode => write!(f, "decode behind {} tokens", self.prompt),
        }
    }
}

/// Rates of both sides at one request, made in neighbouring pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// tok/s with the old table.
    pub old: f64,
    /// tok/s with the new table.
    pub new: f64,
    /// Number of its block.
    pub block: u64,
}

impl Pair {
    /// Finite and positive on both sides.
    fn is_valid(&self) -> bool {
        [self.old, self.new].iter().all(|rate| rate.is_finite() && *rate > 0.0)
    }
}

/// What was measured of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineEvidence {
    /// Which.
    pub stage: Stage,
    /// Whether both tables launch the very same kernels in it, so that it cannot differ.
    pub same_kernels: bool,
    /// Pairs with the old table loaded first, and pairs with the new one loaded first. The i-th of both are one unit.
    pub halves: [Vec<Pair>; 2],
}

/// A row that the new table changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Which workload.
    pub workload: Workload,
    /// The old variant; `None` where the default was used.
    pub from: Option<VariantId>,
    /// The new variant.
    pub to: VariantId,
}

impl fmt::Display for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or("the default".to_owned(), VariantId::short);
        write!(f, "{}: {from} -> {}", self.workload, self.to.short())
    }
}

/// What a stage says of a new table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Proven faster, beyond the noise floor.
    Faster,
    /// At most as much slower as a stage may be.
    Holds,
    /// Not shown to hold.
    MayBeSlower,
    /// The same kernels run: there is nothing to judge.
    SameKernels,
}

/// A stage with what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The stage.
    pub stage: Stage,
    /// New rate ÷ old rate, with what a stage may lose as its threshold.
    pub ratio: RatioEstimate,
    /// The interval of the control: what lies outside of 1 is no table's doing.
    pub control: [f64; 2],
    /// How far that reaches from 1.
    pub floor: f64,
    /// What follows.
    pub finding: Finding,
}

impl Judged {
    /// What was measured, as `+1.20 % (+0.80 to +1.70 %)`.
    pub fn measured(&self) -> String {
        let of = |x: f64| (x - 1.0) * 100.0;
        format!("{:+.2} % ({:+.2} to {:+.2} %)", of(self.ratio.ratio), of(self.ratio.ci[0]), of(self.ratio.ci[1]))
    }
}

/// What became of a new table.
#[derive(Clone, Debug, PartialEq)]
pub struct Promotion {
    /// Whether it may replace the old one.
    pub promoted: bool,
    /// The stages that have enough pairs.
    pub stages: Vec<Judged>,
    /// Every condition that is not met; empty if promoted.
    pub reasons: Vec<String>,
    /// The rows that are refused; empty if promoted.
    pub rows: Vec<String>,
}

/// Judges a new table by the engine. Every stage that runs other kernels with it loses at most half a percent at the lower
/// end of its interval, or as much as the noise floor; one of them is proven faster, beyond the floor; and greedy tokens are
/// the same. `parity` is where the tokens first differ, if they do.
pub fn promote(evidence: &[EngineEvidence], parity: Result<(), String>, rows: &[RowChange], seed: u64) -> Promotion {
    let mut reasons = Vec::new();
    let mut stages: Vec<Judged> = Vec::new();
    for e in evidence {
        match judge(e, seed) {
            Some(judged) => stages.push(judged),
            None if e.same_kernels => {}
            None => reasons.push(format!(
                "{} has {} valid pairs in either half, {LEAST_PAIRS} are needed",
                e.stage,
                valid(e).len()
            )),
        }
    }
    conclude(&mut stages);
    for s in stages.iter().filter(|s| s.finding == Finding::MayBeSlower) {
        reasons.push(format!(
            "{} may be slower: {}, and {:.2} % may be lost",
            s.stage,
            s.measured(),
            s.ratio.tau * 100.0
        ));
    }
    if evidence.iter().all(|e| e.same_kernels) {
        reasons.push("both tables run the same kernels".to_owned());
    } else if !stages.is_empty() && !stages.iter().any(|s| s.finding == Finding::Faster) {
        reasons.push("no stage is proven faster".to_owned());
    }
    if let Err(difference) = parity {
        reasons.push(format!("greedy tokens differ: {difference}"));
    }
    let promoted = reasons.is_empty();
    let rows = if promoted { Vec::new() } else { rows.iter().map(ToString::to_string).collect() };
    Promotion { promoted, stages, reasons, rows }
}

/// The i-th pairs of both halves, where all four rates are some.
fn valid(e: &EngineEvidence) -> Vec<[Pair; 2]> {
    let [first, second] = &e.halves;
    let units = first.iter().zip(second).map(|(a, b)| [*a, *b]);
    units.filter(|unit| unit.iter().all(Pair::is_valid)).collect()
}

/// A ratio of medians in each half, and of these the geometric mean, or that of the first and of the inverse of the second.
struct OfHalves<'a> {
    pairs: &'a [[Pair; 2]],
    units: &'a Units,
    /// 1 for the mean, −1 for the control.
    second: f64,
    scratch: Vec<f64>,
}

impl OfHalves<'_> {
    fn median(&mut self, units: &[usize], rate: impl Fn(&[Pair; 2]) -> f64) -> f64 {
        self.scratch.clear();
        let members = units.iter().flat_map(|&u| &self.units.members[u]);
        self.scratch.extend(members.map(|&i| rate(&self.pairs[i])));
        median_in_place(&mut self.scratch)
    }
}

impl Statistic for OfHalves<'_> {
    fn plain(&mut self, units: &[usize]) -> f64 {
        let mut of = |half: usize| {
            let new = self.median(units, |unit| unit[half].new);
            (new / self.median(units, |unit| unit[half].old)).ln()
        };
        let (first, second) = (of(0), of(1));
        ((first + self.second * second) / 2.0).exp()
    }
}

/// Everything but what follows from the other stages of the family.
fn judge(e: &EngineEvidence, seed: u64) -> Option<Judged> {
    let pairs = valid(e);
    if (pairs.len() as u64) < LEAST_PAIRS {
        return None;
    }
    let log = |pair: &Pair| (pair.new / pair.old).ln();
    let logs: Vec<f64> = pairs.iter().map(|[a, b]| f64::midpoint(log(a), log(b))).collect();
    let blocks: Vec<u64> = pairs.iter().map(|[first, _]| first.block).collect();
    let units = Units::choose(&logs, &blocks);
    let draws = |second: f64| -> Draws {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut statistic = OfHalves { pairs: &pairs, units: &units, second, scratch: Vec::new() };
        bootstrap(units.members.len(), RESAMPLES, &mut statistic, &mut rng)
    };
    let (table, control) = (draws(1.0), draws(-1.0).bca(LEVEL));
    let floor = control.iter().map(|end| (end - 1.0).abs()).fold(0.0, f64::max);
    let p = signed_rank_p(&logs);
    let ratio = RatioEstimate {
        ratio: table.estimate,
        ci: table.bca(LEVEL),
        level: LEVEL,
        n_pairs: 2 * pairs.len() as u64,
        p,
        p_holm: p,
        tau: noise::tau([Some(floor), None], MOST_LOST),
    };
    let finding = if e.same_kernels { Finding::SameKernels } else { Finding::Holds };
    Some(Judged { stage: e.stage, ratio, control, floor, finding })
}

/// One stage of several is enough to promote, so that their p are adjusted for how many there are; none may be slower, which
/// needs no adjustment.
fn conclude(stages: &mut [Judged]) {
    let mut family: Vec<&mut Judged> = stages.iter_mut().filter(|s| s.finding != Finding::SameKernels).collect();
    let p: Vec<f64> = family.iter().map(|s| s.ratio.p).collect();
    for (s, adjusted) in family.iter_mut().zip(holm::adjust(&p)) {
        let r = &mut s.ratio;
        r.p_holm = adjusted.p;
        // Written so that NaN may be slower.
        let holds = r.ci[0] >= 1.0 - r.tau;
        let faster = r.ci[0] > 1.0 && r.p_holm < holm::ALPHA && r.ratio > 1.0 + s.floor;
        s.finding = match (faster, holds) {
            (true, _) => Finding::Faster,
            (false, true) => Finding::Holds,
            (false, false) => Finding::MayBeSlower,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    const PREFILL: Stage = Stage { work: Work::Prefill, prompt: 512 };
    const DECODE: Stage = Stage { work: Work::Decode, prompt: 512 };

    /// Sixty pairs a half: the new table's rates are `ratio` of the old one's, and those of whoever was loaded second are
    /// `second` of what they would be. `noise` is how far a rate may lie off.
    fn with(stage: Stage, ratio: f64, second: f64, noise: f64, seed: u64) -> EngineEvidence {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rate = |factor: f64| 100.0 * factor * rng.random_range(1.0 - noise..1.0 + noise);
        let mut half = |old: f64, new: f64| -> Vec<Pair> {
            (0..60).map(|i| Pair { old: rate(old), new: rate(ratio * new), block: i / 4 }).collect()
        };
        let halves = [half(1.0, second), half(second, 1.0)];
        EngineEvidence { stage, same_kernels: false, halves }
    }

    fn quiet(stage: Stage, ratio: f64, seed: u64) -> EngineEvidence {
        with(stage, ratio, 1.0, 0.005, seed)
    }

    fn rows() -> Vec<RowChange> {
        vec![RowChange {
            workload: "gemv_q4_0 N=64 K=64".parse().unwrap(),
            from: None,
            to: "gemv_q4_0/fast[R=2]@cuda".parse().unwrap(),
        }]
    }

    fn finding(p: &Promotion, stage: Stage) -> Finding {
        p.stages.iter().find(|s| s.stage == stage).unwrap().finding
    }

    #[test]
    fn a_table_that_speeds_decode_and_leaves_prefill_is_promoted() {
        let e = [quiet(PREFILL, 1.0, 1), quiet(DECODE, 1.05, 2)];
        let p = promote(&e, Ok(()), &rows(), 1);
        assert!(p.promoted && p.rows.is_empty() && p.reasons.is_empty(), "{p:?}");
        assert_eq!((finding(&p, PREFILL), finding(&p, DECODE)), (Finding::Holds, Finding::Faster));
        assert_eq!(p.stages[0].ratio.n_pairs, 120);
    }

    #[test]
    fn faster_kernels_in_a_slower_engine_are_refused_and_their_rows_named() {
        let e = [quiet(PREFILL, 1.2, 1), quiet(DECODE, 0.98, 2)];
        let p = promote(&e, Ok(()), &rows(), 1);
        assert!(!p.promoted);
        assert_eq!(p.rows, ["gemv_q4_0 K=64 N=64: the default -> fast[R=2]@cuda"]);
        assert!(
            p.reasons.len() == 1 && p.reasons[0].starts_with("decode behind 512 tokens may be slower: -"),
            "{:?}",
            p.reasons
        );
    }

    #[test]
    fn a_side_that_is_slower_wherever_it_is_loaded_second_is_neither_faster_nor_slower() {
        // Two percent for the place alone, which is more than a stage may lose.
        let e = [with(DECODE, 1.0, 0.98, 0.002, 3)];
        let p = promote(&e, Ok(()), &rows(), 1);
        let [s] = &p.stages[..] else { panic!("{p:?}") };
        assert!((s.ratio.ratio - 1.0).abs() < 0.002, "{:?}", s.ratio);
        assert!(s.control[1] < 0.985 && s.floor > 0.018, "{s:?}");
        assert_eq!((s.finding, p.reasons), (Finding::Holds, vec!["no stage is proven faster".to_owned()]));
        // A gain below the floor is none, one above it is.
        let gain = |ratio| promote(&[with(DECODE, ratio, 0.98, 0.002, 3)], Ok(()), &rows(), 1).promoted;
        assert_eq!((gain(1.01), gain(1.04)), (false, true));
    }

    #[test]
    fn a_stage_may_lose_what_its_noise_cannot_tell_and_no_more() {
        // The interval alone reaches further down than half a percent.
        let p = promote(&[with(PREFILL, 1.0, 0.97, 0.05, 1), quiet(DECODE, 1.05, 2)], Ok(()), &rows(), 1);
        let noisy = &p.stages[0];
        assert!(noisy.ratio.ci[0] < 0.995 && noisy.floor > 0.02, "{noisy:?}");
        assert!(p.promoted, "{:?}", p.reasons);
        let p = promote(&[with(PREFILL, 0.9, 0.97, 0.05, 1), quiet(DECODE, 1.05, 2)], Ok(()), &rows(), 1);
        assert!(p.reasons.len() == 1 && p.reasons[0].contains("prefill of 512 tokens may be slower"), "{p:?}");
    }

    #[test]
    fn a_stage_of_the_same_kernels_is_shown_and_not_judged() {
        let mut slower = quiet(PREFILL, 0.9, 1);
        slower.same_kernels = true;
        let p = promote(&[slower.clone(), quiet(DECODE, 1.05, 2)], Ok(()), &rows(), 1);
        assert!(p.promoted && finding(&p, PREFILL) == Finding::SameKernels, "{p:?}");
        // Nor does it make a table faster.
        let mut faster = quiet(PREFILL, 1.1, 1);
        faster.same_kernels = true;
        let p = promote(&[faster, quiet(DECODE, 1.0, 2)], Ok(()), &rows(), 1);
        assert_eq!(p.reasons, ["no stage is proven faster"]);
        let p = promote(&[slower], Ok(()), &rows(), 1);
        assert_eq!(p.reasons, ["both tables run the same kernels"]);
        assert!(!promote(&[], Ok(()), &rows(), 1).promoted);
    }

    #[test]
    fn of_five_comparisons_of_a_table_with_itself_none_promotes_it() {
        for seed in 0..5 {
            let e = [with(PREFILL, 1.0, 0.99, 0.03, 2 * seed), with(DECODE, 1.0, 0.9985, 0.004, 2 * seed + 1)];
            let p = promote(&e, Ok(()), &rows(), seed);
            assert!(!p.promoted, "{p:?}");
        }
    }

    #[test]
    fn no_gain_other_tokens_and_missing_pairs_each_refuse() {
        let same = [quiet(PREFILL, 1.0, 1), quiet(DECODE, 1.0, 2)];
        let p = promote(&same, Ok(()), &rows(), 1);
        assert_eq!(p.reasons, ["no stage is proven faster"]);
        let good = [quiet(PREFILL, 1.0, 1), quiet(DECODE, 1.05, 2)];
        let p = promote(&good, Err("token 7 is 3 instead of 4".into()), &rows(), 1);
        assert_eq!(p.reasons, ["greedy tokens differ: token 7 is 3 instead of 4"]);
        let mut few = good.clone();
        few[1].halves[1][..55].iter_mut().for_each(|pair| pair.new = f64::NAN);
        let p = promote(&few, Ok(()), &rows(), 1);
        assert!(p.reasons[0].contains("decode behind 512 tokens has 5 valid pairs"), "{:?}", p.reasons);
    }
}
