//! Whether a new table may replace the old one: decided in the whole engine, not by kernels (R27).
//!
//! The engine is loaded several times with both tables, each of them first as often as the other. What the new table does to
//! a rate is the mean over the loadings, in which what being loaded first or second does cancels. What loadings of one order
//! still differ by is no table's doing: it is what two sides differ by that run the same, in as many pairs and in the same
//! minutes, and makes the noise floor. A loading is the level at which measurements of a program repeat; more pairs within
//! one do not tell how far another would lie off.
//! What lasts longer than a request within a loading widens interval and p, as it does those of a run-off.
//! Source: Kalibera and Jones (2013), "Rigorous Benchmarking in Reasonable Time", ISMM.

use std::fmt;

use harness_spec::record::RatioEstimate;
use harness_spec::{VariantId, Workload};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::bootstrap::{RESAMPLES, Statistic, Units, bootstrap};
use crate::correlation::Spread;
use crate::describe::median_in_place;
use crate::verdict::LEAST_PAIRS;
use crate::wilcoxon::signed_rank_p;
use crate::{holm, noise};

/// A stage may lose this much at the lower end of its interval, or as much as the noise floor where that is more.
const MOST_LOST: f64 = 0.005;

/// Noise beyond this excuses nothing: it asks for a quieter machine.
const MOST_EXCUSED: f64 = 0.1;

/// Loadings of either order that it takes to see what loadings of one order differ by.
const LEAST_OF_AN_ORDER: usize = 2;
/// Loadings of both.
const LEAST_LOADINGS: usize = 2 * LEAST_OF_AN_ORDER;

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
    /// The loadings, of which each table is first in as many as the other. The i-th pairs of all are one unit.
    pub loadings: Vec<Loading>,
}

/// Both tables loaded once.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// Whether the new one was loaded first.
    pub new_first: bool,
    /// Pairs.
    pub pairs: Vec<Pair>,
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
    /// The ratio in each loading.
    pub by_loading: Vec<f64>,
    /// How far the mean over as many loadings lies off where nothing differs, 19 times of 20.
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
                "{} has {} valid pairs in each of {} loadings, {LEAST_PAIRS} in {LEAST_LOADINGS} at least are needed",
                e.stage,
                valid(e).len(),
                e.loadings.len()
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

/// The i-th pairs of all loadings, where every rate is some.
fn valid(e: &EngineEvidence) -> Vec<Vec<Pair>> {
    let all = e.loadings.iter().map(|l| l.pairs.len()).min().unwrap_or(0);
    let units = (0..all).map(|i| e.loadings.iter().map(|l| l.pairs[i]).collect::<Vec<_>>());
    units.filter(|unit| unit.iter().all(Pair::is_valid)).collect()
}

/// A ratio of medians in each loading, and of these the geometric mean.
struct OfLoadings<'a> {
    pairs: &'a [Vec<Pair>],
    units: &'a Units,
    scratch: Vec<f64>,
}

impl OfLoadings<'_> {
    fn median(&mut self, units: &[usize], rate: impl Fn(&[Pair]) -> f64) -> f64 {
        self.scratch.clear();
        let members = units.iter().flat_map(|&u| &self.units.members[u]);
        self.scratch.extend(members.map(|&i| rate(&self.pairs[i])));
        median_in_place(&mut self.scratch)
    }

    fn ratio(&mut self, units: &[usize], loading: usize) -> f64 {
        let new = self.median(units, |unit| unit[loading].new);
        new / self.median(units, |unit| unit[loading].old)
    }

    fn loadings(&self) -> usize {
        self.pairs.first().map_or(0, Vec::len)
    }
}

impl Statistic for OfLoadings<'_> {
    fn plain(&mut self, units: &[usize]) -> f64 {
        let loadings = self.loadings();
        let logs: f64 = (0..loadings).map(|l| self.ratio(units, l).ln()).sum();
        (logs / loadings as f64).exp()
    }
}

/// Half the width of the 95 % interval of the mean logarithm by Student's t, as a proportion, from what loadings of one order
/// differ by.
fn floor(by_loading: &[f64], new_first: &[bool]) -> f64 {
    let mut squares = 0.0;
    for order in [false, true] {
        let logs = by_loading.iter().zip(new_first).filter(|(_, first)| **first == order).map(|(r, _)| r.ln());
        let logs: Vec<f64> = logs.collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        squares += logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    }
    let n = by_loading.len() as f64;
    let t = StudentsT::new(0.0, 1.0, n - 2.0).expect("there are two loadings of either order");
    (t.inverse_cdf((1.0 + LEVEL) / 2.0) * (squares / (n - 2.0) / n).sqrt()).exp_m1()
}

/// Everything but what follows from the other stages of the family.
fn judge(e: &EngineEvidence, seed: u64) -> Option<Judged> {
    let pairs = valid(e);
    let firsts: Vec<bool> = e.loadings.iter().map(|l| l.new_first).collect();
    let of = |order: bool| firsts.iter().filter(|first| **first == order).count();
    if (pairs.len() as u64) < LEAST_PAIRS || of(true) != of(false) || of(true) < LEAST_OF_AN_ORDER {
        return None;
    }
    let log = |pair: &Pair| (pair.new / pair.old).ln();
    let logs: Vec<f64> = pairs.iter().map(|unit| unit.iter().map(log).sum::<f64>() / unit.len() as f64).collect();
    let blocks: Vec<u64> = pairs.iter().map(|unit| unit[0].block).collect();
    // Neighbouring requests see the same of what lasts on the host, as neighbouring pairs of a run-off do.
    let series: Vec<Vec<f64>> = (0..e.loadings.len()).map(|l| pairs.iter().map(|u| log(&u[l])).collect()).collect();
    let spread = Spread::of_series(&series.iter().map(Vec::as_slice).collect::<Vec<_>>(), &blocks);
    let units = Units::singles(pairs.len());
    let mut statistic = OfLoadings { pairs: &pairs, units: &units, scratch: Vec::new() };
    let all: Vec<usize> = (0..units.members.len()).collect();
    let by_loading: Vec<f64> = (0..e.loadings.len()).map(|l| statistic.ratio(&all, l)).collect();
    let draws = bootstrap(all.len(), RESAMPLES, &mut statistic, &mut ChaCha8Rng::seed_from_u64(seed));
    let floor = floor(&by_loading, &firsts);
    let p = spread.p(signed_rank_p(&logs));
    let ratio = RatioEstimate {
        ratio: draws.estimate,
        ci: spread.interval(draws.bca(LEVEL), draws.estimate, LEVEL),
        level: LEVEL,
        n_pairs: (e.loadings.len() * pairs.len()) as u64,
        p,
        p_holm: p,
        tau: noise::tau([Some(floor), None], MOST_LOST).min(MOST_EXCUSED),
    };
    let finding = if e.same_kernels { Finding::SameKernels } else { Finding::Holds };
    Some(Judged { stage: e.stage, ratio, by_loading, floor, finding })
}

/// One stage of several is enough to promote, so that their p are adjusted for how many there are; none may be slower, which
/// needs no adjustment.
fn conclude(stages: &mut [Judged]) {
    let mut family: Vec<&mut Judged> = stages.iter_mut().filter(|s| s.finding != Finding::SameKernels).collect();
    let p: Vec<f64> = family.iter().map(|s| s.ratio.p).collect();
    for (s, adjusted) in family.iter_mut().zip(holm::adjust(&p)) {
        let r = &mut s.ratio;
        r.p_holm = adjusted.p;
        // Written so that NaN may be slower. No noise excuses an interval that lies below what may be lost as a whole.
        let holds = r.ci[0] >= 1.0 - r.tau && r.ci[1] >= 1.0 - MOST_LOST;
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

    /// Sixteen pairs in each of four loadings, in the order of use: the new table's rates are `ratio` of the old one's, and
    /// those of whoever was loaded second are `second` of what they would be. `noise` is how far a rate may lie off, and
    /// `place` how far all of a side in a loading.
    fn placed(stage: Stage, ratio: f64, second: f64, noise: f64, place: f64, seed: u64) -> EngineEvidence {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut off = |by: f64| if by > 0.0 { rng.random_range(1.0 - by..1.0 + by) } else { 1.0 };
        let mut loading = |old: f64, new: f64| -> Vec<Pair> {
            let (old, new) = (100.0 * old * off(place), 100.0 * ratio * new * off(place));
            (0..16).map(|i| Pair { old: old * off(noise), new: new * off(noise), block: i / 4 }).collect()
        };
        let loadings = [false, true, true, false].map(|new_first| {
            let (old, new) = if new_first { (second, 1.0) } else { (1.0, second) };
            Loading { new_first, pairs: loading(old, new) }
        });
        let loadings = loadings.into();
        EngineEvidence { stage, same_kernels: false, loadings }
    }

    fn with(stage: Stage, ratio: f64, second: f64, noise: f64, seed: u64) -> EngineEvidence {
        placed(stage, ratio, second, noise, 0.0, seed)
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
        assert_eq!((p.stages[0].ratio.n_pairs, p.stages[0].by_loading.len()), (64, 4));
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
        assert!(s.by_loading[0] < 0.985 && s.by_loading[1] > 1.015 && s.floor < 0.005, "{s:?}");
        assert_eq!((s.finding, p.reasons), (Finding::Holds, vec!["no stage is proven faster".to_owned()]));
        let p = promote(&[with(DECODE, 1.02, 0.98, 0.002, 3)], Ok(()), &rows(), 1);
        assert!(p.promoted, "{p:?}");
    }

    #[test]
    fn a_stage_may_lose_what_its_noise_cannot_tell_and_no_more() {
        // Places in memory move either side by up to three percent, and requests by up to five.
        let with_prefill = |ratio: f64| {
            let prefill = placed(PREFILL, ratio, 0.97, 0.05, 0.03, 4);
            promote(&[prefill, quiet(DECODE, 1.05, 2)], Ok(()), &rows(), 1)
        };
        let p = with_prefill(1.0);
        let noisy = &p.stages[0];
        assert!(noisy.ratio.ci[0] < 0.995 && noisy.floor > 0.01, "{noisy:?}");
        assert!(p.promoted, "{p:?}");
        let p = with_prefill(0.9);
        assert!(p.reasons.len() == 1 && p.reasons[0].contains("prefill of 512 tokens may be slower"), "{p:?}");
        // Places that move a side by half are no excuse for a loss of a tenth.
        let wild = placed(PREFILL, 1.0, 1.0, 0.3, 0.5, 5);
        let p = promote(&[wild, quiet(DECODE, 1.05, 2)], Ok(()), &rows(), 1);
        assert!(p.stages[0].floor > 0.2 && p.stages[0].ratio.tau == 0.1 && !p.promoted, "{p:?}");
        // A gain within the noise of its loadings is none.
        let mut gain = with(DECODE, 1.0, 1.0, 0.001, 6);
        for (loading, by) in gain.loadings.iter_mut().zip([1.02, 0.995, 1.015, 0.99]) {
            loading.pairs.iter_mut().for_each(|pair| pair.new *= by);
        }
        let p = promote(&[gain], Ok(()), &rows(), 1);
        assert!(p.stages[0].ratio.ci[0] > 1.0 && p.stages[0].floor > 0.01, "{p:?}");
        assert_eq!(p.reasons, ["no stage is proven faster"]);
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
    fn of_forty_comparisons_of_a_table_with_itself_two_at_most_promote_it() {
        // Places in memory move a side by more than its requests differ, which an interval over pairs alone does not see.
        let faster = |seed: u64| {
            let e = [placed(DECODE, 1.0, 0.9985, 0.002, 0.003, seed)];
            promote(&e, Ok(()), &rows(), seed).promoted
        };
        let wrong = (0..40).filter(|&seed| faster(seed)).count();
        assert!(wrong <= 2, "{wrong}");
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
        few[1].loadings[1].pairs[..11].iter_mut().for_each(|pair| pair.new = f64::NAN);
        let p = promote(&few, Ok(()), &rows(), 1);
        assert!(p.reasons[0].contains("decode behind 512 tokens has 5 valid pairs"), "{:?}", p.reasons);
    }
}
