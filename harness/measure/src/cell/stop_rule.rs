//! When a cell has been sampled enough (MEASURING.md §6).

use std::cell::RefCell;
use std::collections::HashMap;

use harness_spec::record::StopReason;

use super::settings::Settings;
use crate::describe::{median_sorted, stdev};
use crate::percentile::rank_interval;

/// Half-widths that the plateau rule looks back over, how many it needs, and how often it looks.
const WINDOW: usize = 512;
const LEAST_WIDTHS: usize = 64;
const EVERY: usize = 16;
/// Relative standard deviation of the half-widths below which noise no longer falls.
const LEVEL_NOISE: f64 = 0.05;

/// 1-based ranks of an interval; `None` below six samples.
type Ranks = Option<(usize, usize)>;

thread_local! {
    /// Ranks of the 95 % interval of the median by number of samples: each takes a search through binomial tails.
    static RANKS: RefCell<HashMap<usize, Ranks>> = RefCell::new(HashMap::new());
}

fn median_ranks(n: usize) -> Ranks {
    RANKS.with_borrow_mut(|known| *known.entry(n).or_insert_with(|| rank_interval(n, 0.5, 0.95)))
}

/// Kept times of one cell with what the stop rule needs of them.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    ascending: Vec<f64>,
    half_widths: Vec<f64>,
    looked_at: usize,
}

impl Evidence {
    /// One more kept time, ns.
    pub fn push(&mut self, ns: f64) {
        let at = self.ascending.partition_point(|v| *v < ns);
        self.ascending.insert(at, ns);
        if let Some(h) = self.half_width() {
            self.half_widths.push(h);
        }
    }

    /// Takes a time out again that turned out to be the first of its cell.
    pub fn remove(&mut self, ns: f64) {
        if let Some(at) = self.ascending.iter().position(|v| *v == ns) {
            self.ascending.remove(at);
        }
    }

    /// Kept times.
    pub fn n(&self) -> usize {
        self.ascending.len()
    }

    /// Least kept time.
    pub fn min(&self) -> Option<f64> {
        self.ascending.first().copied()
    }

    /// Median of the kept times.
    pub fn median(&self) -> Option<f64> {
        median_sorted(&self.ascending)
    }

    /// Half-width of the 95 % order-statistic interval of the median, as a share of the median.
    pub fn half_width(&self) -> Option<f64> {
        let (lo, hi) = median_ranks(self.ascending.len())?;
        let median = self.median()?;
        Some((self.ascending[hi - 1] - self.ascending[lo - 1]) / 2.0 / median)
    }

    /// Whether what the samples alone say is enough. Elimination and budgets are judged by who knows the others.
    pub fn settled(&mut self, settings: &Settings) -> Option<StopReason> {
        if self.n() < settings.least {
            return None;
        }
        if self.half_width().is_some_and(|h| h <= settings.half_width) {
            return Some(StopReason::Converged);
        }
        // Samples come in turns, so the sixteenth may lie inside one: it is enough that one was passed.
        let looks = self.half_widths.len() / EVERY;
        if self.half_widths.len() >= LEAST_WIDTHS && looks > self.looked_at {
            self.looked_at = looks;
            let last = &self.half_widths[self.half_widths.len().saturating_sub(WINDOW)..];
            let mean = last.iter().sum::<f64>() / last.len() as f64;
            if stdev(last).is_some_and(|s| s < LEVEL_NOISE * mean) {
                return Some(StopReason::Plateau);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn run(mut next: impl FnMut(usize) -> f64, most: usize) -> (usize, Option<StopReason>) {
        let mut e = Evidence::default();
        let settings = Settings::default();
        for i in 0..most {
            e.push(next(i));
            if let Some(reason) = e.settled(&settings) {
                return (e.n(), Some(reason));
            }
        }
        (most, None)
    }

    #[test]
    fn a_quiet_cell_converges_at_ten_samples_and_not_before() {
        assert_eq!(run(|i| 100.0 + 0.01 * (i % 7) as f64, 1000), (10, Some(StopReason::Converged)));
    }

    #[test]
    fn a_noisy_cell_goes_on_until_its_interval_is_narrow() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (n, reason) = run(|_| rng.random_range(95.0..105.0), 5000);
        assert_eq!(reason, Some(StopReason::Converged));
        assert!((30..400).contains(&n), "{n}");
    }

    #[test]
    fn two_modes_of_equal_weight_end_on_a_plateau_of_noise() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (n, reason) = run(|_| if rng.random_bool(0.5) { 100.0 } else { 150.0 }, 5000);
        assert_eq!(reason, Some(StopReason::Plateau));
        assert!(n >= 64, "{n}");
    }

    #[test]
    fn drift_that_never_ends_is_never_settled() {
        // Each sample is a percent slower than the last: the interval widens for ever.
        assert_eq!(run(|i| 100.0 * 1.01f64.powi(i as i32), 200), (200, None));
    }

    #[test]
    fn a_removed_first_sample_leaves_the_statistics() {
        let mut e = Evidence::default();
        for v in [900.0, 1.0, 2.0, 3.0] {
            e.push(v);
        }
        e.remove(900.0);
        assert_eq!((e.n(), e.median(), e.min()), (3, Some(2.0), Some(1.0)));
    }
}
