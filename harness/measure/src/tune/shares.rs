//! How a time budget is shared among workloads: as evaluations beforehand, and as time while the run lasts.

use harness_spec::units::Nanos;

use super::plan::Costs;

/// Evaluations that no workload goes below, whatever its weight, unless its space is smaller: who holds it, the default, the
/// plain kernel, and some of those that the roofline ranks first or that won elsewhere.
const LEAST: usize = 8;

/// Of what a workload takes beside its evaluations, the run-off, until one was played.
const RUN_OFF: f64 = 0.2;

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
    /// What is planned for each workload, ns.
    planned: Vec<f64>,
    /// What is planned for one beside its evaluations, ns.
    beside: f64,
    /// Of the workloads that were measured: how many, and what was planned for them, what they took, what of that was before
    /// their search and what their run-off, ns.
    done: Done,
}

#[derive(Default)]
struct Done {
    workloads: f64,
    planned: f64,
    took: f64,
    opening: f64,
    run_off: f64,
}

impl Shares {
    /// Of a budget of which the first canary has used `elapsed`. The last one will take as long, which is kept for it.
    pub fn new(budget: Nanos, elapsed: Nanos, limits: &[usize], costs: Costs) -> Shares {
        let planned = limits.iter().map(|limit| costs.of(*limit)).collect();
        Shares { end: budget - elapsed, planned, beside: costs.workload.0 as f64, done: Done::default() }
    }

    /// What a workload took until its references had a time, with its search, and with its run-off, where evaluations were
    /// measured: a journal alone says nothing of the time.
    pub fn took(&mut self, index: usize, evaluations: u64, [opening, search, run_off]: [Nanos; 3]) {
        if evaluations > 0 {
            let [opening, search, run_off] = [opening, search, run_off].map(|t| t.0 as f64);
            self.done.workloads += 1.0;
            self.done.planned += self.planned[index];
            self.done.took += opening + search + run_off;
            self.done.opening += opening;
            self.done.run_off += run_off;
        }
    }

    /// When the search of a workload that begins now has to end: it gets its part of what is left, and what those behind it
    /// will not need if they take as long as planned, or as much longer as those before it took. What those before it took
    /// until their references had a time and for their run-off, on average, is kept for each of them in any case: a search that
    /// is too long leaves none without a time, unless one takes much longer than that.
    pub fn deadline(&self, index: usize, elapsed: Nanos) -> Nanos {
        let (own, others) = (self.planned[index], &self.planned[index + 1..]);
        let behind: f64 = others.iter().sum();
        let left = (self.end - elapsed).0 as f64;
        let part = left * own / (own + behind);
        let done = &self.done;
        let (share, run_off) = if done.workloads > 0.0 {
            let spare = left - behind * (done.took / done.planned).max(1.0);
            let beside = (done.opening + done.run_off) / done.workloads;
            let most = left - beside * others.len() as f64;
            (part.max(spare).min(most).max(0.0), done.run_off / done.workloads)
        } else {
            (part, self.beside * RUN_OFF)
        };
        // A run-off is never longer than the search that it ends by so much that none would be left to search.
        let kept = run_off.min(share * 0.5);
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
        assert_eq!(apportion(10, &[300, 300], &[9.0, 1.0]), [8, 8]);
        assert_eq!(apportion(116, &[300, 300], &[9.0, 1.0]), [98, 18]);
        assert_eq!(apportion(116, &[36, 300], &[9.0, 1.0]), [36, 80]);
        assert_eq!(apportion(1000, &[300, 7], &[1.0, 1.0]), [300, 7]);
        assert_eq!(apportion(52, &[300, 300], &[0.0, 0.0]), [26, 26]);
        assert_eq!(apportion(28, &[300, 300, 40], &[1.0, 0.0, 0.0]), [12, 8, 8]);
        assert!(apportion(10, &[], &[]).is_empty());
    }

    /// Of three workloads of which 10, 5 and 5 s are planned, 2 s of each beside its evaluations.
    fn three(budget: u64) -> Shares {
        let costs = Costs { workload: Nanos(2 * SECOND), evaluation: Nanos(SECOND / 10) };
        Shares::new(Nanos(budget * SECOND), Nanos(0), &[80, 30, 30], costs)
    }

    fn at(shares: &Shares, index: usize, elapsed: u64) -> f64 {
        shares.deadline(index, Nanos(elapsed * SECOND)).0 as f64 / 1e9
    }

    fn close(is: f64, want: f64) -> bool {
        (is - want).abs() < 1e-6
    }

    /// The first one took this many seconds, the run-off, of half of one, and what comes before the search among them.
    fn after(mut shares: Shares, took: u64, opening: u64) -> Shares {
        let run_off = SECOND / 2;
        let search = (took - opening) * SECOND - run_off;
        shares.took(0, 80, [opening * SECOND, search, run_off].map(Nanos));
        shares
    }

    #[test]
    fn a_workload_may_take_what_those_before_it_left_and_not_what_is_planned_for_those_behind() {
        assert!(close(at(&three(20), 0, 0), 9.6));
        // Nothing is known of the time of an evaluation yet: all get more or less in proportion.
        assert!(close(at(&three(40), 0, 0), 19.6) && close(at(&three(10), 0, 0), 4.6));
        assert!(close(at(&after(three(20), 6, 1), 1, 6), 6.0 + 9.0 - 0.5), "it was faster than planned");
        assert!(close(at(&after(three(20), 12, 1), 1, 12), 12.0 + 4.0 - 0.5), "it was slower");
        assert!(close(at(&three(6), 1, 10), 10.0), "what is over ends at once");
    }

    #[test]
    fn what_the_others_need_for_a_time_at_all_is_kept_for_them() {
        // The first one has shown that it takes 5.5 s and not two.
        assert!(close(at(&after(three(20), 12, 5), 1, 12), 12.0 + 2.5 - 0.5));
        // The last one keeps nothing.
        assert!(close(at(&after(three(20), 12, 5), 2, 18), 18.0 + 2.0 - 0.5));
    }

    #[test]
    fn a_journal_says_nothing_of_the_time() {
        let mut shares = three(20);
        shares.took(0, 0, [Nanos(1), Nanos(1), Nanos(1)]);
        assert_eq!(shares.deadline(1, Nanos(0)), three(20).deadline(1, Nanos(0)));
    }
}
