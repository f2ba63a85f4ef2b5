//! Percentiles by nearest rank, and only where the sample is large enough for one (M9).

use statrs::distribution::{Binomial, DiscreteCDF};

use crate::describe::sorted;
use crate::metrics::Missing;

/// A percentile with its number of values and interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile {
    /// The value at the nearest rank.
    pub value: f64,
    /// How many values it was taken from.
    pub n: usize,
    /// 95 % order-statistic interval; `None` where the sample does not reach far enough into the tail for one.
    pub ci95: Option<[f64; 2]>,
}

/// Least number of values for the `percent`-th percentile: 10 ÷ (1 − p), so that ten values lie beyond it.
pub fn least_n(percent: f64) -> usize {
    // A millionth is taken off before rounding up: 1000 / (100 - 99.9) is a hair above 10 000 in binary.
    (1000.0 / (100.0 - percent) - 1e-6).ceil() as usize
}

/// 1-based nearest rank of the `percent`-th percentile of `n` values.
pub fn nearest_rank(n: usize, percent: f64) -> usize {
    ((percent * n as f64 / 100.0 - 1e-9).ceil() as usize).clamp(1, n.max(1))
}

/// The `percent`-th percentile of `values` by nearest rank.
///
/// # Errors
/// [`Missing::TooFewForPercentile`] below [`least_n`] values.
pub fn percentile(values: &[f64], percent: f64) -> Result<Percentile, Missing> {
    let need = least_n(percent);
    if values.len() < need {
        return Err(Missing::TooFewForPercentile { percent, n: values.len(), need });
    }
    let v = sorted(values);
    let ci95 = rank_interval(v.len(), percent / 100.0, 0.95).map(|(lo, hi)| [v[lo - 1], v[hi - 1]]);
    Ok(Percentile { value: v[nearest_rank(v.len(), percent) - 1], n: v.len(), ci95 })
}

/// The 1-based ranks between which the `q`-quantile of a population lies with at least `level`, for a sample of `n`.
///
/// Distribution-free: the number of sample values below the quantile is binomial(n, q). `None` where even the extremes
/// of the sample do not reach the level.
/// Source: Hoefler and Belli (2015), "Scientific Benchmarking of Parallel Computing Systems", SC'15.
pub fn rank_interval(n: usize, q: f64, level: f64) -> Option<(usize, usize)> {
    let tail = (1.0 - level) / 2.0;
    let below = Binomial::new(q, n as u64).ok()?;
    let ranks: Vec<usize> = (1..=n).collect();
    // P(X < l) <= tail, for the largest such l; P(X >= u) <= tail, for the least such u.
    let lo = ranks.partition_point(|&l| below.cdf(l as u64 - 1) <= tail);
    let hi = ranks.partition_point(|&u| 1.0 - below.cdf(u as u64 - 1) > tail) + 1;
    (lo >= 1 && hi <= n).then_some((lo, hi))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_sizes_are_those_of_the_law() {
        for (p, n) in [(50.0, 20), (90.0, 100), (95.0, 200), (99.0, 1000), (99.9, 10_000)] {
            assert_eq!(least_n(p), n, "p{p}");
        }
    }

    #[test]
    fn a_p99_of_999_values_is_refused_and_of_1000_is_the_990th() {
        let v: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            percentile(&v[..999], 99.0),
            Err(Missing::TooFewForPercentile { percent: 99.0, n: 999, need: 1000 })
        );
        let p = percentile(&v, 99.0).unwrap();
        assert_eq!((p.value, p.n), (990.0, 1000));
        let [lo, hi] = p.ci95.unwrap();
        assert!(lo < 990.0 && 990.0 < hi && hi <= 1000.0);
    }

    #[test]
    fn known_rank_intervals_of_the_median() {
        // Tabulated for the sign test: n = 10 gives ranks 2 and 9, n = 20 gives 6 and 15, n = 100 gives 40 and 61.
        assert_eq!(rank_interval(10, 0.5, 0.95), Some((2, 9)));
        assert_eq!(rank_interval(20, 0.5, 0.95), Some((6, 15)));
        assert_eq!(rank_interval(100, 0.5, 0.95), Some((40, 61)));
        assert_eq!(rank_interval(5, 0.5, 0.95), None);
    }

    proptest! {
        #[test]
        fn a_percentile_is_a_value_of_the_sample_with_the_right_share_below(v in proptest::collection::vec(0.0f64..1e3, 20..300)) {
            let p = percentile(&v, 50.0).unwrap().value;
            prop_assert!(v.contains(&p));
            let at_or_below = v.iter().filter(|x| **x <= p).count();
            prop_assert!(at_or_below * 2 >= v.len());
        }
    }
}
