//! Jitter as M8 defines it: the spread of inter-token latencies at fixed prompt and fixed length.

use std::collections::BTreeSet;

use harness_spec::record::Sample;

use crate::describe::{mad_sigma, median, stdev};
use crate::metrics::{Missing, itl_ms};
use crate::percentile::percentile;

/// Dispersion of inter-token latencies, in ms unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Jitter {
    /// Number of latencies.
    pub n: usize,
    /// Standard deviation.
    pub stdev: f64,
    /// Median absolute deviation × 1.4826.
    pub mad_sigma: f64,
    /// Standard deviation ÷ mean.
    pub cv: f64,
    /// p99 − p50; `None` below the 1000 values that p99 needs.
    pub p99_minus_p50: Option<f64>,
    /// Longest.
    pub max: f64,
    /// How many exceed three times the median.
    pub stalls: usize,
}

impl Jitter {
    /// Of latencies of one prompt and length.
    ///
    /// # Errors
    /// [`Missing::TooFewTokens`] below two latencies.
    pub fn of(itl: &[f64]) -> Result<Jitter, Missing> {
        let too_few = Missing::TooFewTokens { n: itl.len() as u64 + 1, need: 3 };
        let stdev = stdev(itl).ok_or(too_few.clone())?;
        let centre = median(itl).ok_or(too_few.clone())?;
        Ok(Jitter {
            n: itl.len(),
            stdev,
            mad_sigma: mad_sigma(itl).ok_or(too_few)?,
            cv: stdev / (itl.iter().sum::<f64>() / itl.len() as f64),
            p99_minus_p50: percentile(itl, 99.0).ok().map(|p| p.value - centre),
            max: itl.iter().copied().fold(f64::MIN, f64::max),
            stalls: itl.iter().filter(|&&t| t > 3.0 * centre).count(),
        })
    }

    /// Of the pooled latencies of several runs of one prompt and length.
    ///
    /// # Errors
    /// [`Missing::MixedLengths`] and [`Missing::MixedPrompts`] where the runs are not of one kind, since the spread of
    /// different work is not jitter; else as [`itl_ms`].
    pub fn pooled(runs: &[&Sample]) -> Result<Jitter, Missing> {
        one_length(runs)?;
        let prompts: BTreeSet<&str> = runs.iter().map(|s| s.prompt.as_str()).collect();
        if prompts.len() > 1 {
            return Err(Missing::MixedPrompts { prompts: prompts.len() });
        }
        let mut all = Vec::new();
        for run in runs {
            all.extend(itl_ms(run)?);
        }
        Jitter::of(&all)
    }
}

/// Refuses runs of different output lengths.
///
/// # Errors
/// [`Missing::MixedLengths`] with the lengths; [`Missing::NoRuns`] of nothing.
pub fn one_length(runs: &[&Sample]) -> Result<u64, Missing> {
    let lengths: BTreeSet<u64> = runs.iter().map(|s| s.generated_tokens).collect();
    match lengths.len() {
        0 => Err(Missing::NoRuns),
        1 => Ok(lengths.into_iter().next().expect("the set has one member")),
        _ => Err(Missing::MixedLengths { lengths: lengths.into_iter().collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use harness_spec::record::SideRole::Engine;

    #[test]
    fn a_stall_is_an_itl_above_three_medians() {
        let mut gaps = [1000; 40];
        gaps[7] = 3001;
        gaps[9] = 3000;
        let j = Jitter::pooled(&[&run(Engine, 0, 5000, &gaps)]).unwrap();
        assert_eq!((j.n, j.stalls, j.p99_minus_p50), (40, 1, None));
        assert!((j.max - 3.001).abs() < 1e-9);
    }

    #[test]
    fn runs_of_mixed_lengths_are_refused_with_the_lengths() {
        let (a, b) = (run(Engine, 0, 5000, &[1000; 49]), run(Engine, 1, 5000, &[1000; 199]));
        assert_eq!(Jitter::pooled(&[&a, &b]), Err(Missing::MixedLengths { lengths: vec![50, 200] }));
    }

    #[test]
    fn runs_of_two_prompts_are_not_pooled() {
        let (a, mut b) = (run(Engine, 0, 5000, &[1000; 49]), run(Engine, 1, 5000, &[1000; 49]));
        b.prompt = "photosynthesis".into();
        assert_eq!(Jitter::pooled(&[&a, &b]), Err(Missing::MixedPrompts { prompts: 2 }));
    }

    #[test]
    fn the_tail_distance_appears_with_a_thousand_values() {
        let runs: Vec<_> = (0..21).map(|i| run(Engine, i, 5000, &[1000; 49])).collect();
        let refs: Vec<_> = runs.iter().collect();
        assert_eq!(Jitter::pooled(&refs).unwrap().p99_minus_p50, Some(0.0));
    }
}
