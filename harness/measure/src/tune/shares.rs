//! How a time budget is shared among workloads: as evaluations beforehand, and as time while the run lasts.

use harness_spec::units::Nanos;

/// Evaluations that the floor, the data and the run-off of a workload take as long as.
pub(super) const OVERHEAD: usize = 16;

/// Of these, the run-off, until one was played.
const RUN_OFF: usize = 4;

/// Evaluations that no workload goes below, whatever its weight, unless its space is smaller: who holds it, the default, the
/// plain kernel, and one of each kernel that the roofline ranks first.
const LEAST: usize = 16;

/// Shares `room` evaluations out among workloads that want so many at most: [`LEAST`] to each, and the rest by weight. What
/// one does not want is for the others.
pub(super) fn apportion(room: usize, wants: &[usize], weights: &[f64]) -> Vec<usize> {
    let mut out: Vec<usize> = wants.iter().map(|want| (*want).min(LEAST)).collect();
    let mut spare = room.saturating_sub(out.iter().sum()) as f64;
    let mut open: Vec<usize> = (0..wants.len()).filter(|&i| wants[i] > out[i]).collect();
    while !open.is_empty() {
        let all: f64 = open.iter().map(|&i| weights[i]).sum();
        // Where nothing has a weight all weigh the same.
        let part = |i: usize| if all > 0.0 { weights[i] / all } else { 1.0 / open.len() as f64 };
        let full: Vec<usize> =
            open.iter().copied().filter(|&i| spare * part(i) >= (wants[i] - out[i]) as f64).collect();
        if full.is_empty() {
            for &i in &open {
                out[i] += (spare * part(i)) as usize;
            }
            break;
        }
        for &i in &full {
            spare -= (wants[i] - out[i]) as f64;
            out[i] = wants[i];
        }
        open.retain(|i| !full.contains(i));
    }
    out
}

/// A budget, and what the workloads so far have taken of it.
pub(super) struct Shares {
    /// When searches and run-offs have to be over.
    pub end: Nanos,
    /// What is planned for each workload.
    planned: Vec<Nanos>,
    /// What is kept for a run-off: the mean of those that were played.
    run_off: Nanos,
    played: u64,
    /// What was planned for the workloads that are done, and what they took.
    done: (Nanos, Nanos),
}

impl Shares {
    /// Of a budget of which the first canary has used `elapsed`. The last one will take as long, which is kept for it.
    pub fn new(budget: Nanos, elapsed: Nanos, limits: &[usize], evaluation: Nanos) -> Shares {
        let planned = limits.iter().map(|limit| Nanos((limit + OVERHEAD) as u64 * evaluation.0)).collect();
        let run_off = Nanos(RUN_OFF as u64 * evaluation.0);
        Shares { end: budget - elapsed, planned, run_off, played: 0, done: (Nanos(0), Nanos(0)) }
    }

    /// What a workload took with its search and its run-off, where evaluations were measured: a journal alone says nothing
    /// of the time.
    pub fn took(&mut self, index: usize, evaluations: u64, search: Nanos, run_off: Nanos) {
        if evaluations > 0 {
            self.run_off = Nanos((self.run_off.0 * self.played + run_off.0) / (self.played + 1));
            self.played += 1;
            self.done = (self.done.0 + self.planned[index], self.done.1 + search + run_off);
        }
    }

    /// When the search of a workload that begins now has to end: it gets its part of what is left, and what those behind it
    /// will not need if they take as long as planned, or as much longer as those before it took.
    pub fn deadline(&self, index: usize, elapsed: Nanos) -> Nanos {
        let sum = |of: &[Nanos]| of.iter().map(|n| n.0 as f64).sum::<f64>();
        let (own, behind) = (self.planned[index].0 as f64, sum(&self.planned[index + 1..]));
        let left = (self.end - elapsed).0 as f64;
        let part = left * own / (own + behind);
        let (planned, took) = (self.done.0.0 as f64, self.done.1.0 as f64);
        let spare = if planned > 0.0 { left - behind * (took / planned).max(1.0) } else { part };
        let share = part.max(spare);
        // A run-off is never longer than the search that it ends by so much that none would be left to search.
        let kept = (self.run_off.0 as f64).min(share * 0.5);
        Nanos(elapsed.0 + (share - kept) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_scarce_budget_gives_each_workload_its_least_and_the_rest_by_weight() {
        // Nothing is left over, the weights decide, and what one does not want is for the others.
        assert_eq!(apportion(20, &[300, 300], &[9.0, 1.0]), [16, 16]);
        assert_eq!(apportion(132, &[300, 300], &[9.0, 1.0]), [106, 26]);
        assert_eq!(apportion(132, &[36, 300], &[9.0, 1.0]), [36, 96]);
        assert_eq!(apportion(1000, &[300, 7], &[1.0, 1.0]), [300, 7]);
        assert_eq!(apportion(52, &[300, 300], &[0.0, 0.0]), [26, 26]);
        assert_eq!(apportion(52, &[300, 300, 40], &[1.0, 0.0, 0.0]), [20, 16, 16]);
        assert!(apportion(10, &[], &[]).is_empty());
    }

    #[test]
    fn a_workload_may_take_what_those_before_it_left_and_not_what_is_planned_for_those_behind() {
        let shares = |budget: u64| Shares::new(Nanos(budget * SECOND), Nanos(0), &[84, 34, 34], Nanos(SECOND / 10));
        let at = |shares: &Shares, index, at: u64| shares.deadline(index, Nanos(at * SECOND)).0 as f64 / 1e9;
        // 10, 5 and 5 s are planned, 0.4 s of each for its run-off.
        assert!((at(&shares(20), 0, 0) - 9.6).abs() < 1e-6);
        // Nothing is known of the time of an evaluation yet: all get more or less in proportion.
        assert!((at(&shares(40), 0, 0) - 19.6).abs() < 1e-6 && (at(&shares(10), 0, 0) - 4.6).abs() < 1e-6);
        let after = |took: u64| {
            let mut shares = shares(20);
            shares.took(0, 84, Nanos(took * SECOND - 4 * SECOND / 10), Nanos(4 * SECOND / 10));
            at(&shares, 1, took)
        };
        assert!((after(6) - (6.0 + 9.0 - 0.4)).abs() < 1e-6, "it was faster than planned");
        assert!((after(12) - (12.0 + 4.0 - 0.4)).abs() < 1e-6, "it was slower");
        assert!((at(&shares(6), 1, 10) - 10.0).abs() < 1e-6, "what is over ends at once");
    }

    #[test]
    fn run_offs_are_expected_to_take_what_they_took_and_a_journal_says_nothing_of_it() {
        let mut shares = Shares::new(Nanos(20 * SECOND), Nanos(0), &[84, 34], Nanos(SECOND / 10));
        shares.took(0, 0, Nanos(1), Nanos(1));
        assert_eq!(shares.run_off, Nanos(4 * SECOND / 10));
        shares.took(0, 30, Nanos(SECOND), Nanos(2 * SECOND));
        shares.took(1, 30, Nanos(SECOND), Nanos(SECOND));
        assert_eq!(shares.run_off, Nanos(15 * SECOND / 10));
    }
}
