//! How a time budget is shared among workloads.
//!
//! Under a budget that is too small for all of it, every workload gets the same time, whatever its space and its place in
//! the list, and one that needs less leaves the rest to the others.

use harness_spec::units::Nanos;

/// Evaluations that the floor and the data of a workload take as long as.
const OVERHEAD: usize = 12;

/// Share of its time that a workload keeps for its run-off, until one was played.
const FINAL_SHARE: f64 = 0.3;

/// A budget, and what the workloads so far have taken of it.
pub(super) struct Shares {
    /// What searches and run-offs may use.
    budget: Nanos,
    /// Evaluations at most, the overhead among them, by workload.
    wants: Vec<usize>,
    search: Nanos,
    evaluations: u64,
    finals: Vec<Nanos>,
}

impl Shares {
    /// Of a budget of which the first canary has used `elapsed`. The last one will take as long, which is kept for it.
    pub fn new(budget: Nanos, elapsed: Nanos, limits: &[usize]) -> Shares {
        let wants = limits.iter().map(|limit| limit + OVERHEAD).collect();
        Shares { budget: budget - elapsed, wants, search: Nanos(0), evaluations: 0, finals: Vec::new() }
    }

    /// What a workload took: its search with so many evaluations on the device, and its run-off.
    pub fn took(&mut self, search: Nanos, evaluations: u64, last: Nanos) {
        // What came from a journal alone says nothing of the time.
        if evaluations > 0 {
            self.search = self.search + search;
            self.evaluations += evaluations + OVERHEAD as u64;
            self.finals.push(last);
        }
    }

    /// When the search of a workload that begins now has to end.
    pub fn deadline(&self, index: usize, elapsed: Nanos) -> Nanos {
        let left = (self.budget - elapsed).0 as f64;
        let each = (self.evaluations > 0).then(|| self.search.0 as f64 / self.evaluations as f64);
        let last = (!self.finals.is_empty())
            .then(|| self.finals.iter().map(|f| f.0 as f64).sum::<f64>() / self.finals.len() as f64);
        let needs: Option<Vec<f64>> = each
            .zip(last)
            .map(|(each, last)| self.wants[index..].iter().map(|want| *want as f64 * each + last).collect());
        let share = match needs {
            None => left / (self.wants.len() - index).max(1) as f64,
            Some(needs) => fair(left, &needs),
        };
        // A run-off is never longer than the search that it ends by so much that none would be left to search.
        let kept = last.map_or(share * FINAL_SHARE, |last| last.min(share * 0.5));
        Nanos(elapsed.0 + (share - kept) as u64)
    }
}

/// What the first of these needs gets of `left`: where all fit, in proportion; else as much as every other, or its need
/// where that is less.
fn fair(left: f64, needs: &[f64]) -> f64 {
    let Some(&own) = needs.first() else { return left };
    let all: f64 = needs.iter().sum();
    if all <= left {
        return left * own / all.max(f64::MIN_POSITIVE);
    }
    let mut sorted = needs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (mut rest, mut level) = (left, 0.0);
    for (i, need) in sorted.iter().enumerate() {
        level = rest / (sorted.len() - i) as f64;
        if *need > level {
            break;
        }
        rest -= need;
    }
    own.min(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_scarce_budget_is_shared_evenly_and_a_small_need_leaves_its_rest_to_the_others() {
        assert_eq!(fair(90.0, &[1000.0, 50.0, 200.0]), 30.0);
        assert_eq!(fair(90.0, &[1000.0, 10.0, 200.0]), 40.0);
        assert_eq!(fair(90.0, &[10.0, 1000.0, 200.0]), 10.0);
        assert_eq!(fair(90.0, &[20.0, 10.0, 15.0]), 40.0, "all fit, and what is left is shared in proportion");
        assert_eq!(fair(90.0, &[7.0]), 90.0);
    }

    #[test]
    fn the_first_of_many_shapes_gets_no_more_than_the_others_although_its_search_would_be_longer() {
        // A second shape of an op is given a third of the evaluations.
        let mut shares = Shares::new(Nanos(100 * SECOND), Nanos(0), &[500, 166, 166, 166]);
        let first = shares.deadline(0, Nanos(0));
        assert!((10 * SECOND..=25 * SECOND).contains(&first.0), "{first:?}");
        shares.took(first, 40, Nanos(5 * SECOND));
        let now = Nanos(first.0 + 5 * SECOND);
        let second = shares.deadline(1, now) - now;
        assert!(second.0 as f64 > 0.8 * first.0 as f64, "{second:?} after {first:?}");
    }

    #[test]
    fn what_is_over_ends_at_once_and_a_journal_says_nothing_of_the_time() {
        let mut shares = Shares::new(Nanos(10 * SECOND), Nanos(SECOND), &[100, 100]);
        shares.took(Nanos(1), 0, Nanos(0));
        assert_eq!(shares.evaluations, 0);
        assert_eq!(shares.deadline(1, Nanos(20 * SECOND)), Nanos(20 * SECOND));
    }
}
