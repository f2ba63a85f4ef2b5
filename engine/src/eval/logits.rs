//! How far logits are from others, where the whole distribution is known on both sides, and how far they may be.

use kernels::cpu::Precision;
use serde::Serialize;

use super::log_sum_exp;
use crate::generate;
use crate::sampler::argmax;

/// A place at which the most likely token differs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// The sequence, from 0.
    pub sequence: usize,
    /// How many of its tokens were fed.
    pub tokens: usize,
    /// The most likely token of the side that is right.
    pub want: u32,
    /// That of the other.
    pub got: u32,
    /// How far the side that is right has the other's token behind its own, in nats: small gaps are near ties.
    pub gap: f64,
    /// How far the other has the right token behind its own, in nats.
    pub lead: f64,
}

/// How far logits are from others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Steps compared.
    pub steps: usize,
    /// Share of steps at which both have the same most likely token, 0 to 1.
    pub top1_agreement: f64,
    /// Median of the difference of that token's log-probability, in nats; the token is that of the side that is right.
    pub median_logprob_diff: f64,
    /// 95th percentile of the same, by nearest rank.
    pub p95_logprob_diff: f64,
    /// Mean KL divergence over the whole vocabulary, in nats.
    pub mean_kl: f64,
    /// The largest [`Miss::gap`], 0 where there are no misses.
    pub largest_miss_gap: f64,
    /// The largest ‖got − want‖ / ‖want − mean of want‖ of a step.
    pub worst_relative_error: f64,
    /// Every step at which the tokens differ.
    pub misses: Vec<Miss>,
}

impl Difference {
    /// The gap that so large a share of the misses stays within, by nearest rank; `None` where there are no misses.
    pub fn gap_of_misses(&self, share: f64) -> Option<f64> {
        let mut gaps: Vec<f64> = self.misses.iter().map(|miss| miss.gap).collect();
        gaps.sort_by(f64::total_cmp);
        rank(&gaps, share)
    }
}

/// The element of a sorted list that so large a share of it stays within.
fn rank(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[((share * sorted.len() as f64).ceil() as usize).saturating_sub(1).min(last)])
}

/// What a difference must stay within.
///
/// Agreement is counted in whole steps, of which a few are near ties: each type of weights draws others. It may be three standard
/// errors of a count of this many steps below its bound, as dozens of rows are judged at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// At least, but for three standard errors.
    pub top1_agreement: f64,
    /// At most.
    pub median_logprob_diff: f64,
    /// At most: over the whole vocabulary, and so much less a matter of chance than agreement.
    pub mean_kl: f64,
    /// Less than, where misses must be near ties.
    pub largest_miss_gap: Option<f64>,
}

impl Bounds {
    /// 32-bit activations, keys and values of at least 16 bits: the bounds of the processor's exact path.
    pub const EXACT: Bounds =
        Bounds { top1_agreement: 0.998, median_logprob_diff: 0.001, mean_kl: 1e-4, largest_miss_gap: Some(0.01) };
    /// Eight-bit activations, or eight-bit keys and values: the bounds of the processor's fast path.
    pub const FAST: Bounds =
        Bounds { top1_agreement: 0.97, median_logprob_diff: 0.08, mean_kl: 0.01, largest_miss_gap: None };

    /// Those of a precision and a type of keys and values.
    pub fn of(precision: Precision, kv: generate::KvType) -> Bounds {
        match (precision, kv) {
            (Precision::Exact, generate::KvType::F16 | generate::KvType::F32) => Bounds::EXACT,
            _ => Bounds::FAST,
        }
    }

    /// Whether a difference stays within them. A NaN anywhere does not.
    pub fn hold(&self, d: &Difference) -> bool {
        let error = (self.top1_agreement * (1.0 - self.top1_agreement) / d.steps as f64).sqrt();
        d.steps > 0
            && d.top1_agreement >= self.top1_agreement - 3.0 * error
            && d.median_logprob_diff <= self.median_logprob_diff
            && self.largest_miss_gap.is_none_or(|most| d.largest_miss_gap < most)
            && d.mean_kl <= self.mean_kl
            && d.worst_relative_error.is_finite()
    }
}

/// Steps compared so far.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    logprobs: Vec<f64>,
    misses: Vec<Miss>,
    kl: f64,
    worst: f64,
}

impl Differences {
    /// Adds a step, behind so many tokens of a sequence: the logits that are right, and those that are held against them.
    ///
    /// # Panics
    /// Where one side has more tokens than the other.
    pub fn add(&mut self, sequence: usize, tokens: usize, want: &[f32], got: &[f32]) {
        assert_eq!(want.len(), got.len(), "logits of one vocabulary");
        let (want_sum, got_sum) = (log_sum_exp(want), log_sum_exp(got));
        let mean = want.iter().map(|&v| f64::from(v)).sum::<f64>() / want.len() as f64;
        let (mut kl, mut off, mut size) = (0.0, 0.0, 0.0);
        for (&w, &g) in want.iter().zip(got) {
            let (w, g) = (f64::from(w), f64::from(g));
            let p = w - want_sum;
            kl += p.exp() * (p - (g - got_sum));
            off += (g - w) * (g - w);
            size += (w - mean) * (w - mean);
        }
        let (best, chosen) = (argmax(want), argmax(got));
        let logprob = |logits: &[f32], sum: f64| f64::from(logits[best as usize]) - sum;
        self.logprobs.push((logprob(got, got_sum) - logprob(want, want_sum)).abs());
        self.kl += kl;
        let error = (off / size).sqrt();
        // NaN is larger than all, and stays.
        if !(error <= self.worst || self.worst.is_nan()) {
            self.worst = error;
        }
        if chosen != best {
            let behind = |logits: &[f32], first: u32, other: u32| {
                f64::from(logits[first as usize]) - f64::from(logits[other as usize])
            };
            let (gap, lead) = (behind(want, best, chosen), behind(got, chosen, best));
            self.misses.push(Miss { sequence, tokens, want: best, got: chosen, gap, lead });
        }
    }

    /// All steps together.
    pub fn summary(self) -> Difference {
        let mut sorted = self.logprobs;
        sorted.sort_by(f64::total_cmp);
        let steps = sorted.len();
        Difference {
            steps,
            top1_agreement: (steps - self.misses.len()) as f64 / steps as f64,
            median_logprob_diff: rank(&sorted, 0.5).unwrap_or(f64::NAN),
            p95_logprob_diff: rank(&sorted, 0.95).unwrap_or(f64::NAN),
            mean_kl: self.kl / steps as f64,
            largest_miss_gap: self.misses.iter().map(|miss| miss.gap).fold(0.0, f64::max),
            worst_relative_error: self.worst,
            misses: self.misses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_differ_in_nothing_and_a_shift_of_all_changes_no_probability() {
        let want = [1.0f32, 3.0, -2.0, 0.5];
        let mut same = Differences::default();
        same.add(0, 1, &want, &want);
        let shifted = want.map(|v| v + 2.0);
        same.add(0, 2, &want, &shifted);
        let d = same.summary();
        assert_eq!((d.steps, d.top1_agreement, d.largest_miss_gap), (2, 1.0, 0.0));
        assert!(d.p95_logprob_diff < 1e-12 && d.mean_kl.abs() < 1e-12, "{d:?}");
        assert!(d.worst_relative_error > 0.5);
    }

    #[test]
    fn a_miss_tells_where_it_is_and_how_far_the_chosen_token_was_behind() {
        let mut differences = Differences::default();
        differences.add(3, 7, &[1.0, 3.0, 2.75, 2.875], &[1.0, 2.5, 2.75, 2.0]);
        differences.add(3, 8, &[0.0, 1.0, 0.5, 0.0], &[0.0, 1.0, 0.5, 0.0]);
        let d = differences.summary();
        assert_eq!((d.steps, d.top1_agreement, d.largest_miss_gap), (2, 0.5, 0.25));
        assert_eq!(d.misses, [Miss { sequence: 3, tokens: 7, want: 1, got: 2, gap: 0.25, lead: 0.25 }]);
        assert!(d.mean_kl > 0.0 && !Bounds::FAST.hold(&d));
    }

    #[test]
    fn gaps_of_misses_are_told_by_nearest_rank() {
        let mut differences = Differences::default();
        for gap in [0.5, 0.125, 0.25, 1.0] {
            differences.add(0, 1, &[gap, 0.0], &[0.0, 1.0]);
        }
        let d = differences.summary();
        assert_eq!([0.5, 0.9, 1.0].map(|share| d.gap_of_misses(share)), [Some(0.25), Some(1.0), Some(1.0)]);
        assert_eq!(Differences::default().summary().gap_of_misses(0.5), None);
    }

    #[test]
    fn bounds_refuse_nan_wherever_it_is_and_a_comparison_of_nothing() {
        assert!(!Bounds::FAST.hold(&Differences::default().summary()), "of nothing");
        let mut differences = Differences::default();
        (0..100).for_each(|i| differences.add(0, i, &[0.0, 1.0], &[0.0, 1.0]));
        assert!(Bounds::EXACT.hold(&differences.clone().summary()));
        differences.add(0, 100, &[0.0, 1.0], &[f32::NAN, 1.0]);
        assert!(!Bounds::FAST.hold(&differences.summary()));
    }
}
