//! BCa bootstrap of a ratio over pairs, or over whole blocks of pairs (MEASURING.md §7).

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::describe::{median, median_in_place, stdev};
use crate::percentile::nearest_rank;

/// Resamples of a published interval.
pub const RESAMPLES: usize = 10_000;

/// A statistic of a multiset of units, a unit being a pair or a block of pairs.
pub trait Statistic {
    /// Of the units as they are.
    fn plain(&mut self, units: &[usize]) -> f64;

    /// Of a resample; a statistic of correlated values resamples inside the units as well.
    fn resampled(&mut self, units: &[usize], rng: &mut ChaCha8Rng) -> f64 {
        let _ = rng;
        self.plain(units)
    }
}

/// The bootstrap distribution of a statistic.
#[derive(Clone, Debug)]
pub struct Draws {
    /// The statistic of the data themselves.
    pub estimate: f64,
    /// Its values over the resamples, ascending.
    sorted: Vec<f64>,
    /// Efron's acceleration, from the jackknife over units.
    acceleration: f64,
}

/// Resamples `units` units with replacement, `resamples` times.
///
/// # Panics
/// Without a unit or a resample.
pub fn bootstrap(units: usize, resamples: usize, statistic: &mut impl Statistic, rng: &mut ChaCha8Rng) -> Draws {
    assert!(units > 0 && resamples > 0, "a bootstrap needs a unit and a resample");
    let all: Vec<usize> = (0..units).collect();
    let estimate = statistic.plain(&all);
    let mut pick = vec![0; units];
    let mut sorted: Vec<f64> = (0..resamples)
        .map(|_| {
            pick.fill_with(|| rng.random_range(0..units));
            statistic.resampled(&pick, rng)
        })
        .collect();
    sorted.sort_by(f64::total_cmp);
    Draws { estimate, sorted, acceleration: acceleration(&all, statistic) }
}

/// Skewness of the jackknife influence values; 0 where nothing varies.
fn acceleration(all: &[usize], statistic: &mut impl Statistic) -> f64 {
    if all.len() < 3 {
        return 0.0;
    }
    let left_out: Vec<f64> = (0..all.len())
        .map(|out| {
            let rest: Vec<usize> = all.iter().copied().filter(|&u| u != out).collect();
            statistic.plain(&rest)
        })
        .collect();
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let (square, cube) = left_out.iter().fold((0.0, 0.0), |(s, c), v| {
        let d = mean - v;
        (s + d * d, c + d * d * d)
    });
    if square > 0.0 { cube / (6.0 * square.powf(1.5)) } else { 0.0 }
}

impl Draws {
    /// The bias-corrected and accelerated interval at `level`.
    /// Source: Efron (1987), "Better Bootstrap Confidence Intervals", JASA 82.
    pub fn bca(&self, level: f64) -> [f64; 2] {
        let b = self.sorted.len() as f64;
        let below = self.sorted.partition_point(|v| *v < self.estimate) as f64;
        let not_above = self.sorted.partition_point(|v| *v <= self.estimate) as f64;
        // Draws equal to the estimate count half: medians of few values repeat often.
        let share = ((below + not_above) / 2.0 / b).clamp(0.5 / b, 1.0 - 0.5 / b);
        let standard = Normal::standard();
        let z0 = standard.inverse_cdf(share);
        let end = |tail: f64| {
            let z = z0 + standard.inverse_cdf(tail);
            let p = standard.cdf(z0 + z / (1.0 - self.acceleration * z));
            let at = (p * b).floor().clamp(0.0, b - 1.0) as usize;
            self.sorted[at]
        };
        let tail = (1.0 - level) / 2.0;
        [end(tail), end(1.0 - tail)]
    }

    /// Two-sided p that the statistic is 1, from the draws themselves: for statistics that have no value a pair.
    pub fn p_of_one(&self) -> f64 {
        let b = self.sorted.len() as f64;
        let at_most = self.sorted.partition_point(|v| *v <= 1.0) as f64;
        let at_least = b - self.sorted.partition_point(|v| *v < 1.0) as f64;
        (2.0 * (1.0 + at_most.min(at_least)) / (b + 1.0)).min(1.0)
    }
}

/// What is resampled: each pair for itself, or blocks of pairs as wholes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// The pairs of each unit, as indices.
    pub members: Vec<Vec<usize>>,
    /// Whether units are blocks.
    pub blocks: bool,
}

impl Units {
    /// So many pairs, each for itself.
    pub fn singles(pairs: usize) -> Units {
        Units { members: (0..pairs).map(|i| vec![i]).collect(), blocks: false }
    }

    /// Chooses the unit for pairs with these log ratios, which lie in these blocks.
    ///
    /// Pairs of a block share the machine's state. Where that shows, because the blocks' medians spread wider than the
    /// values within blocks, pairs are not independent and blocks are resampled instead.
    pub fn choose(log_ratios: &[f64], blocks: &[u64]) -> Units {
        let singles = Units::singles(log_ratios.len());
        let mut members: Vec<Vec<usize>> = Vec::new();
        for i in 0..blocks.len() {
            match members.last_mut() {
                Some(last) if blocks[last[0]] == blocks[i] => last.push(i),
                _ => members.push(vec![i]),
            }
        }
        // Below five blocks a resample has too few distinct values to give an interval; below three values in a block
        // there is no inner spread to hold the blocks against.
        if members.len() < 5 || members.iter().any(|m| m.len() < 3) {
            return singles;
        }
        let of = |m: &Vec<usize>| m.iter().map(|&i| log_ratios[i]).collect::<Vec<f64>>();
        let centres: Vec<f64> = members.iter().filter_map(|m| median(&of(m))).collect();
        let inner: Vec<f64> = members.iter().filter_map(|m| stdev(&of(m))).collect();
        match (stdev(&centres), median(&inner)) {
            (Some(between), Some(within)) if between > within => Units { members, blocks: true },
            _ => singles,
        }
    }
}

/// Ratio of the medians of two paired lists, `numerator` over `denominator`.
pub struct RatioOfMedians<'a> {
    numerator: &'a [f64],
    denominator: &'a [f64],
    units: &'a Units,
    scratch: (Vec<f64>, Vec<f64>),
}

impl<'a> RatioOfMedians<'a> {
    /// Of lists of equal length, position i of both being pair i.
    pub fn new(numerator: &'a [f64], denominator: &'a [f64], units: &'a Units) -> Self {
        RatioOfMedians { numerator, denominator, units, scratch: (Vec::new(), Vec::new()) }
    }
}

impl Statistic for RatioOfMedians<'_> {
    fn plain(&mut self, units: &[usize]) -> f64 {
        let (n, d) = &mut self.scratch;
        n.clear();
        d.clear();
        for &i in units.iter().flat_map(|&u| &self.units.members[u]) {
            n.push(self.numerator[i]);
            d.push(self.denominator[i]);
        }
        median_in_place(n) / median_in_place(d)
    }
}

/// The pooled tokens of one pair: its workload cell and the inter-token latencies of both sides.
#[derive(Clone, Debug)]
pub struct PairTokens {
    /// Which prompt and length, as an index.
    pub cell: usize,
    /// Latencies of the side in the numerator.
    pub numerator: Vec<f64>,
    /// Latencies of the side in the denominator.
    pub denominator: Vec<f64>,
}

/// Ratio of a pooled percentile: taken in each cell over its runs, then the geometric mean over cells.
pub struct RatioOfPercentiles<'a> {
    pairs: &'a [PairTokens],
    percent: f64,
    pools: Vec<(Vec<f64>, Vec<f64>)>,
}

impl<'a> RatioOfPercentiles<'a> {
    /// Of the `percent`-th percentile.
    pub fn new(pairs: &'a [PairTokens], percent: f64) -> Self {
        let cells = pairs.iter().map(|p| p.cell + 1).max().unwrap_or(0);
        RatioOfPercentiles { pairs, percent, pools: vec![(Vec::new(), Vec::new()); cells] }
    }

    fn fill(&mut self, units: &[usize], mut add: impl FnMut(&[f64], &mut Vec<f64>)) -> f64 {
        for (n, d) in &mut self.pools {
            n.clear();
            d.clear();
        }
        for &u in units {
            let pair = &self.pairs[u];
            let (n, d) = &mut self.pools[pair.cell];
            add(&pair.numerator, n);
            add(&pair.denominator, d);
        }
        let mut logs = (0.0, 0usize);
        for (n, d) in &mut self.pools {
            // A resample may leave a cell out altogether.
            if !n.is_empty() && !d.is_empty() {
                logs.0 += (percentile_in_place(n, self.percent) / percentile_in_place(d, self.percent)).ln();
                logs.1 += 1;
            }
        }
        (logs.0 / logs.1 as f64).exp()
    }
}

impl Statistic for RatioOfPercentiles<'_> {
    fn plain(&mut self, units: &[usize]) -> f64 {
        self.fill(units, |from, into| into.extend_from_slice(from))
    }

    /// Tokens of a run are correlated, so runs are resampled first, and then tokens inside them.
    fn resampled(&mut self, units: &[usize], rng: &mut ChaCha8Rng) -> f64 {
        self.fill(units, |from, into| into.extend((0..from.len()).map(|_| from[rng.random_range(0..from.len())])))
    }
}

fn percentile_in_place(values: &mut [f64], percent: f64) -> f64 {
    let at = nearest_rank(values.len(), percent) - 1;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::{
        ChaCha8Rng, ContinuousCDF, Draws, Normal, PairTokens, RatioOfMedians, RatioOfPercentiles, Statistic, Units,
        bootstrap,
    };
    use proptest::prelude::{prop_assert, proptest};
    use rand::{Rng, SeedableRng};

    fn ratio(numerator: &[f64], denominator: &[f64], resamples: usize) -> Draws {
        let units = Units::choose(&vec![0.0; numerator.len()], &vec![0; numerator.len()]);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        bootstrap(units.members.len(), resamples, &mut RatioOfMedians::new(numerator, denominator, &units), &mut rng)
    }

    #[test]
    fn constant_sides_give_a_point_interval() {
        let d = ratio(&[110.0; 30], &[100.0; 30], 500);
        assert!((d.estimate - 1.1).abs() < 1e-12);
        assert_eq!(d.bca(0.95), [d.estimate, d.estimate]);
    }

    #[test]
    fn the_interval_of_a_normal_sample_covers_the_truth_at_its_level() {
        // 200 experiments whose true ratio is 1.05: a 95 % interval misses about ten of them.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut covered = 0;
        for _ in 0..200 {
            let mut noisy = |centre: f64| -> Vec<f64> {
                (0..40)
                    .map(|_| centre * (1.0 + 0.02 * Normal::standard().inverse_cdf(rng.random_range(1e-9..1.0))))
                    .collect()
            };
            let (n, d) = (noisy(105.0), noisy(100.0));
            let [lo, hi] = ratio(&n, &d, 1000).bca(0.95);
            covered += usize::from(lo <= 1.05 && 1.05 <= hi);
        }
        assert!((180..=199).contains(&covered), "{covered} of 200 intervals hold the true ratio");
    }

    #[test]
    fn blocks_that_differ_beyond_their_inner_spread_are_resampled_whole() {
        let blocks: Vec<u64> = (0..60).map(|i| i / 10).collect();
        let apart: Vec<f64> = blocks.iter().enumerate().map(|(i, b)| *b as f64 + 0.01 * (i % 10) as f64).collect();
        let alike: Vec<f64> = (0..60).map(|i| 0.01 * (i % 10) as f64).collect();
        let u = Units::choose(&apart, &blocks);
        assert!(u.blocks && u.members.len() == 6);
        let u = Units::choose(&alike, &blocks);
        assert!(!u.blocks && u.members.len() == 60);
    }

    #[test]
    fn the_p99_ratio_of_two_pools_is_that_of_their_ranks() {
        let pair = |k: f64| PairTokens {
            cell: 0,
            numerator: (1..=1000).map(|i| f64::from(i) * k).collect(),
            denominator: (1..=1000).map(f64::from).collect(),
        };
        let pairs = [pair(2.0), pair(2.0)];
        let mut s = RatioOfPercentiles::new(&pairs, 99.0);
        assert!((s.plain(&[0, 1]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_bootstrap_p_is_small_only_away_from_one() {
        let n: Vec<f64> = (0..40).map(|i| 110.0 + f64::from(i % 7)).collect();
        let d: Vec<f64> = (0..40).map(|i| 100.0 + f64::from(i % 5)).collect();
        assert!(ratio(&n, &d, 1000).p_of_one() < 0.01);
        assert!(ratio(&d, &d, 1000).p_of_one() > 0.5);
    }

    proptest! {
        #[test]
        fn a_wider_level_holds_the_narrower_interval(v in proptest::collection::vec(50.0f64..150.0, 12..40)) {
            let d: Vec<f64> = v.iter().rev().copied().collect();
            let draws = ratio(&v, &d, 400);
            let (narrow, wide) = (draws.bca(0.9), draws.bca(0.99));
            prop_assert!(wide[0] <= narrow[0] && narrow[1] <= wide[1]);
        }
    }
}
