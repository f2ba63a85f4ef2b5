//! Pairs that are not independent: what a host does lasts longer than one sample, and neighbouring pairs see the same of it.
//!
//! Thirty correlated pairs say as much as fewer independent ones. How much wider an estimate scatters for it is taken from
//! the pairs themselves, and interval, p and noise floor of a run-off are widened by as much, and those of a promotion.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Beyond this a correlation says that the pairs are one value with trifles on it.
const MOST: f64 = 0.95;

/// How much wider than of independent values the mean of a series scatters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// So many times as wide; at least 1.
    times: f64,
    /// Degrees of freedom of what independent values would say as much.
    freedom: f64,
}

impl Spread {
    /// Of these values; `blocks` are the numbers of the blocks that they were taken in, in their order: only neighbours of
    /// a block are neighbours in time.
    ///
    /// The values are taken as an autoregressive process of the first order, so that the variance of the mean of n of them
    /// grows by 1 + 2 Σ (1 − k/n) ρᵏ over k < n. That between blocks the sides change places, which cancels some of what
    /// lasts, is not counted on. ρ is the correlation of neighbours' ranks, so that one long time does not hide it, freed of
    /// the bias that a series of n values has.
    /// Sources: Bayley and Hammersley (1946), "The effective number of independent observations in an autocorrelated time
    /// series", Supplement to the JRSS 8; Marriott and Pope (1954), "Bias in the estimation of autocorrelations",
    /// Biometrika 41.
    pub fn of(values: &[f64], blocks: &[u64]) -> Spread {
        Spread::of_series(&[values], blocks)
    }

    /// Of the mean of several series that know nothing of each other, all as long and with the same blocks: whatever level
    /// each of them has, they share ρ, which all of them tell more of than one.
    pub fn of_series(series: &[&[f64]], blocks: &[u64]) -> Spread {
        let n = blocks.len() as f64;
        let (mut square, mut count, mut sum) = (0.0, 0.0, 0.0);
        for values in series {
            let ranks = centred_ranks(values);
            square += ranks.iter().map(|r| r * r).sum::<f64>() / n / series.len() as f64;
            for i in (1..ranks.len()).filter(|&i| blocks[i] == blocks[i - 1]) {
                count += 1.0;
                sum += ranks[i] * ranks[i - 1];
            }
        }
        let seen = if count > 0.0 && square > 0.0 { sum / count / square } else { 0.0 };
        let rho = if count > 0.0 { (seen + (1.0 + 4.0 * seen) / n).clamp(0.0, MOST) } else { 0.0 };
        let lags = (1..blocks.len()).map(|k| (1.0 - k as f64 / n) * rho.powi(k as i32));
        let growth = 1.0 + 2.0 * lags.sum::<f64>();
        Spread { times: growth.sqrt(), freedom: (n * series.len() as f64 / growth - 1.0).max(1.0) }
    }

    /// An estimate's own scatter, as wide as it is.
    pub fn widened(&self, width: f64) -> f64 {
        width * self.times
    }

    /// An interval of a ratio at this level, widened about its estimate. So few values as correlated ones stand for say
    /// little of their own scatter, which Student's distribution knows.
    pub fn interval(&self, [low, high]: [f64; 2], estimate: f64, level: f64) -> [f64; 2] {
        let tail = (1.0 + level) / 2.0;
        let times = match self.student() {
            None => 1.0,
            Some(t) => self.times * t.inverse_cdf(tail) / Normal::standard().inverse_cdf(tail),
        };
        [low, high].map(|end| estimate * (end / estimate).powf(times))
    }

    /// The two-sided p of a test for independent values.
    pub fn p(&self, p: f64) -> f64 {
        let score = Normal::standard().inverse_cdf(p.clamp(f64::MIN_POSITIVE, 1.0) / 2.0);
        self.student().map_or(p, |t| 2.0 * t.cdf(score / self.times))
    }

    /// The two-sided p of the mean of these values against none at all, by Student's test. Where few independent values stand
    /// behind many correlated ones, ranks can say nothing of however large a difference; its size can.
    pub fn p_of_mean(&self, values: &[f64]) -> Option<f64> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let score = mean.abs() / (self.widened(deviation) / n.sqrt());
        self.student().filter(|_| score.is_finite()).map(|t| 2.0 * t.cdf(-score))
    }

    /// `None` of independent values, which need nothing of it.
    fn student(&self) -> Option<StudentsT> {
        (self.times > 1.0).then(|| {
            StudentsT::new(0.0, 1.0, self.freedom).expect("a scale of 1 and at least one degree of freedom are legal")
        })
    }
}

/// Ranks less their mean; equal values share one.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let shared = first as f64 + (equal.len() as f64 - 1.0) / 2.0 - middle;
        equal.iter().for_each(|&i| ranks[i] = shared);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::{median, stdev};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Thirty values.
    fn series(rho: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut normal = || {
            let (u, v): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        let mut out: Vec<f64> = Vec::new();
        for i in 0..30 {
            let fresh = normal();
            let value = if i == 0 { fresh } else { rho * out[i - 1] + (1.0 - rho * rho).sqrt() * fresh };
            out.push(value);
        }
        out
    }

    #[test]
    fn the_widening_of_a_series_is_about_how_much_wider_its_mean_scatters() {
        let blocks: Vec<u64> = (0..30).map(|i| i / 5).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for rho in [0.0, 0.3, 0.7] {
            let all: Vec<Vec<f64>> = (0..2000).map(|_| series(rho, &mut rng)).collect();
            let means: Vec<f64> = all.iter().map(|s| s.iter().sum::<f64>() / 30.0).collect();
            let truth = stdev(&means).unwrap() * 30f64.sqrt();
            let found: Vec<f64> = all.iter().map(|s| Spread::of(s, &blocks).times).collect();
            let found = median(&found).unwrap();
            assert!((found / truth - 1.0).abs() < 0.2, "rho {rho}: {found}, and truly {truth}");
        }
    }

    #[test]
    fn several_series_tell_more_of_it_whatever_their_levels() {
        let blocks: Vec<u64> = (0..30).map(|i| i / 5).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut widths = |count: usize| -> Vec<f64> {
            let one = |rng: &mut ChaCha8Rng| {
                let all: Vec<Vec<f64>> = (0..count)
                    .map(|level| series(0.5, rng).iter().map(|v| v + 100.0 * level as f64).collect())
                    .collect();
                let all: Vec<&[f64]> = all.iter().map(Vec::as_slice).collect();
                Spread::of_series(&all, &blocks).times
            };
            (0..500).map(|_| one(&mut rng)).collect()
        };
        let (one, four) = (widths(1), widths(4));
        assert!((median(&four).unwrap() / median(&one).unwrap() - 1.0).abs() < 0.1);
        assert!(stdev(&four).unwrap() < 0.6 * stdev(&one).unwrap());
        let quiet = Spread::of_series(&[&[1.0, 2.0][..], &[5.0, 3.0]], &[0, 1]);
        assert_eq!(quiet, Spread { times: 1.0, freedom: 3.0 });
    }

    #[test]
    fn values_without_neighbours_or_differences_are_taken_as_independent() {
        let of = |values: &[f64], blocks: &[u64]| Spread::of(values, blocks).times;
        assert_eq!(of(&[1.0, 2.0, 3.0], &[0, 1, 2]), 1.0);
        assert_eq!((of(&[], &[]), centred_ranks(&[5.0, 1.0, 5.0])), (1.0, vec![0.5, -1.0, 0.5]));
        let alone = Spread { times: 1.0, freedom: 29.0 };
        let same = alone.interval([1.01, 1.05], 1.03, 0.95).map(|v| (v * 1e9).round());
        assert_eq!((same, alone.p(0.04), alone.widened(0.01)), ([1.01e9, 1.05e9], 0.04, 0.01));
    }

    #[test]
    fn a_large_difference_is_told_where_ranks_can_tell_none() {
        // Ten times slower in every pair, under noise of a quarter that lasts for six pairs.
        let values: Vec<f64> = (0..30).map(|i| 0.1f64.ln() + if i / 6 % 2 == 1 { 0.15 } else { -0.1 }).collect();
        let spread = Spread::of(&values, &[0; 30]);
        let by_rank = spread.p(crate::wilcoxon::signed_rank_p(&values));
        assert!(by_rank > 0.02, "{by_rank}");
        assert!(spread.p_of_mean(&values).unwrap() < 5e-3, "{:?}", spread.p_of_mean(&values));
        // Nor does it find one where there is none, and of independent values it is not asked.
        let level: Vec<f64> = values.iter().map(|v| v - 0.1f64.ln()).collect();
        assert!(Spread::of(&level, &[0; 30]).p_of_mean(&level).unwrap() > 0.5);
        assert!(Spread { times: 1.0, freedom: 29.0 }.p_of_mean(&values).is_none());
    }

    #[test]
    fn intervals_and_p_widen_with_the_estimate_where_it_was() {
        // Student's 97.5 % at ten degrees of freedom is 2.228, the normal one 1.960.
        let twice = Spread { times: 2.0, freedom: 10.0 };
        let [low, high] = twice.interval([1.01, 1.05], 1.03, 0.95);
        let factor = |end: f64, was: f64| (end / 1.03).ln() / (was / 1.03f64).ln();
        assert!((factor(low, 1.01) - 2.274).abs() < 2e-3 && (factor(high, 1.05) - 2.274).abs() < 2e-3);
        // Half of 1.960 at ten degrees of freedom.
        assert!((twice.p(0.05) - 0.350).abs() < 2e-3, "{}", twice.p(0.05));
        assert!(twice.p(1.0) > 0.999 && twice.p(0.0) < 1e-6);
    }
}
