//! The paired final (R14): few finalists, ABBA blocks, a number of pairs fixed beforehand, and a tie that changes nothing.

mod decide;
mod duel;

pub use decide::{RoundResult, Why, decide};
pub use duel::{DuelSamples, Side, play};

use harness_spec::record::{Provenance, RatioEstimate, TrialSample, Verdict};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::{RatioOfMedians, Units, bootstrap};
use crate::cell::Settings;
use crate::correlation::Spread;
use crate::holm;
use crate::noise::{same_side_floor, tau};
use crate::verdict;
use crate::wilcoxon::signed_rank_p;

/// One duel as measured, before its verdict.
#[derive(Clone, Debug)]
pub struct Played {
    /// Index of the challenger.
    pub challenger: usize,
    /// Index of the defender.
    pub defender: usize,
    /// What was sampled.
    pub samples: DuelSamples,
    /// Whether both sides are bound by memory, so that cycles need not agree where memory clocks are equal.
    pub memory_bound: bool,
}

/// A duel with its estimates and verdict, for the challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Index of the challenger.
    pub challenger: usize,
    /// Index of the defender.
    pub defender: usize,
    /// Defender's time ÷ challenger's.
    pub time: Option<RatioEstimate>,
    /// The same in cycles.
    pub cycles: Option<RatioEstimate>,
    /// What it came to.
    pub verdict: Verdict,
}

/// Judges the duels of one run-off as one family: BCa interval at the level Holm asks for, Wilcoxon on log ratios, τ from
/// the noise of the sides themselves, and in cycles as well as in time (§7). All are for independent pairs, and are widened
/// by what the correlation of neighbouring pairs makes of them: on a host whose noise lasts longer than a sample, equals
/// would be told apart else.
pub fn judge(duels: &[Played], settings: &Settings, seed: u64) -> Vec<Judged> {
    let sides: Vec<Sides> = duels.iter().map(|d| Sides::of(&d.samples)).collect();
    let p: Vec<f64> = sides.iter().map(|s| s.p(&s.time)).collect();
    let adjusted = holm::adjust(&p);
    duels
        .iter()
        .zip(&sides)
        .enumerate()
        .map(|(i, (duel, side))| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(i as u64 + 1);
            if side.time.0.len() < settings.pairs {
                let (challenger, defender) = (duel.challenger, duel.defender);
                return Judged { challenger, defender, time: None, cycles: None, verdict: Verdict::Unstable };
            }
            let time = side.ratio(&side.time, p[i], adjusted[i], settings, &mut rng);
            let cycles = side.cycles.as_ref().map(|c| side.ratio(c, side.p(c), adjusted[i], settings, &mut rng));
            let mut verdict = verdict::decide(&time);
            let agrees = |c: &RatioEstimate| match verdict {
                Verdict::Faster => c.ci[0] > 1.0,
                Verdict::Slower => c.ci[1] < 1.0,
                _ => true,
            };
            if !duel.memory_bound && cycles.as_ref().is_some_and(|c| !agrees(c)) {
                verdict = Verdict::Inconclusive;
            }
            Judged { challenger: duel.challenger, defender: duel.defender, time: Some(time), cycles, verdict }
        })
        .collect()
}

/// The two sides of a duel: position i of both is pair i.
struct Sides {
    /// Challenger's and defender's times.
    time: (Vec<f64>, Vec<f64>),
    /// The same in cycles, where every sample has a clock.
    cycles: Option<(Vec<f64>, Vec<f64>)>,
    blocks: Vec<u64>,
}

impl Sides {
    fn of(samples: &DuelSamples) -> Sides {
        let kept = samples.kept();
        let time = kept.iter().map(|p| (p.challenger.ns, p.defender.ns)).unzip();
        let cycle = |s: &TrialSample| s.sm_clock_mhz.map(|mhz| s.ns * mhz / 1e3);
        let cycles: Option<Vec<(f64, f64)>> =
            kept.iter().map(|p| Some((cycle(&p.challenger)?, cycle(&p.defender)?))).collect();
        let blocks = kept.iter().map(|p| p.block).collect();
        Sides { time, cycles: cycles.map(|c| c.into_iter().unzip()), blocks }
    }

    fn log_ratios(&self, (challenger, defender): &(Vec<f64>, Vec<f64>)) -> Vec<f64> {
        challenger.iter().zip(defender).map(|(c, d)| (d / c).ln()).collect()
    }

    fn spread(&self, values: &(Vec<f64>, Vec<f64>)) -> Spread {
        Spread::of(&self.log_ratios(values), &self.blocks)
    }

    fn p(&self, values: &(Vec<f64>, Vec<f64>)) -> f64 {
        let (spread, ratios) = (self.spread(values), self.log_ratios(values));
        let by_rank = spread.p(signed_rank_p(&ratios));
        spread.p_of_mean(&ratios).map_or(by_rank, |by_size| by_rank.min(by_size))
    }

    fn ratio(
        &self,
        values: &(Vec<f64>, Vec<f64>),
        p: f64,
        adjusted: holm::Adjusted,
        settings: &Settings,
        rng: &mut ChaCha8Rng,
    ) -> RatioEstimate {
        let (challenger, defender) = values;
        let spread = self.spread(values);
        let units = Units::singles(challenger.len());
        let draws = bootstrap(
            units.members.len(),
            settings.resamples,
            &mut RatioOfMedians::new(defender, challenger, &units),
            rng,
        );
        let floor = |side: &[f64], rng: &mut ChaCha8Rng| {
            let in_order: Vec<(u64, f64)> = self.blocks.iter().copied().zip(side.iter().copied()).collect();
            same_side_floor(&in_order, rng).map(|floor| spread.widened(floor))
        };
        let tau = tau([floor(challenger, rng), floor(defender, rng)], settings.least_tau);
        RatioEstimate {
            ratio: draws.estimate,
            ci: spread.interval(draws.bca(adjusted.level), draws.estimate, adjusted.level),
            level: adjusted.level,
            n_pairs: challenger.len() as u64,
            p,
            p_holm: adjusted.p,
            tau,
        }
    }
}

/// Provenance of a number derived from samples of this provenance.
pub fn derived(of: Provenance) -> Provenance {
    if of == Provenance::Simulated { Provenance::Simulated } else { Provenance::Derived }
}
