//! Who wins a run-off, from the verdicts of its duels.

use harness_spec::record::Verdict;

use super::Judged;

/// The winner and why, in words that need no index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundResult {
    /// Index of the winner.
    pub winner: usize,
    /// Finalists that could not be told from it.
    pub ties: Vec<usize>,
    /// Why.
    pub reason: Why,
}

/// Why someone won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No challenger was proven faster.
    Stays,
    /// It alone was proven faster than the defender, or it beat all others that were.
    Faster,
    /// Several were proven faster than the defender and could not be told apart: it is the simplest of them.
    Simplest,
}

/// Decides a run-off among `finalists`, of whom `defender` stays in a tie. `simplicity` is less for simpler ones.
///
/// Challengers that are not proven faster than the defender are out. Of the rest, those beaten by another of them are out,
/// and of what is left the simplest wins: a difference that thirty pairs do not show is not worth a more complex kernel.
pub fn decide(
    finalists: &[usize],
    defender: usize,
    duels: &[Judged],
    simplicity: impl Fn(usize) -> u64,
) -> RoundResult {
    let verdict = |challenger: usize, other: usize| {
        duels.iter().find_map(|d| {
            if (d.challenger, d.defender) == (challenger, other) {
                Some(d.verdict)
            } else if (d.defender, d.challenger) == (challenger, other) {
                Some(match d.verdict {
                    Verdict::Faster => Verdict::Slower,
                    Verdict::Slower => Verdict::Faster,
                    same => same,
                })
            } else {
                None
            }
        })
    };
    let told_apart = |a: usize, b: usize| verdict(a, b).is_some_and(Verdict::is_difference);
    let others: Vec<usize> = finalists.iter().copied().filter(|&f| f != defender).collect();
    let ties_with = |winner: usize| -> Vec<usize> {
        finalists.iter().copied().filter(|&f| f != winner && !told_apart(winner, f)).collect()
    };
    let proven: Vec<usize> =
        others.iter().copied().filter(|&c| verdict(c, defender) == Some(Verdict::Faster)).collect();
    if proven.is_empty() {
        return RoundResult { winner: defender, ties: ties_with(defender), reason: Why::Stays };
    }
    let beaten = |&c: &usize| proven.iter().any(|&o| o != c && verdict(o, c) == Some(Verdict::Faster));
    let mut best: Vec<usize> = proven.iter().copied().filter(|c| !beaten(c)).collect();
    // Verdicts may run in a circle; then nobody is better than anybody.
    if best.is_empty() {
        best = proven;
    }
    let alone = best.len() == 1;
    let winner =
        best.into_iter().min_by_key(|&c| (simplicity(c), c)).expect("at least one challenger was proven faster");
    RoundResult { winner, ties: ties_with(winner), reason: if alone { Why::Faster } else { Why::Simplest } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duel(challenger: usize, defender: usize, verdict: Verdict) -> Judged {
        Judged { challenger, defender, time: None, cycles: None, verdict }
    }

    #[test]
    fn the_defender_stays_unless_someone_is_proven_faster() {
        use Verdict::{Inconclusive, Slower, Tie, Unstable};
        for v in [Tie, Inconclusive, Slower, Unstable] {
            let r = decide(&[3, 0], 0, &[duel(3, 0, v)], |_| 0);
            assert_eq!((r.winner, r.reason), (0, Why::Stays));
            assert_eq!(r.ties.is_empty(), v == Slower);
        }
        assert_eq!(decide(&[3, 0], 0, &[duel(3, 0, Verdict::Faster)], |_| 0).winner, 3);
    }

    #[test]
    fn of_several_faster_ones_the_unbeaten_and_then_the_simplest_wins() {
        use Verdict::{Faster, Tie};
        let against =
            |a, b, c| vec![duel(1, 0, Faster), duel(2, 0, Faster), duel(1, 2, a), duel(3, 0, b), duel(1, 3, c)];
        // 1 beats 2; 3 is not proven faster.
        let r = decide(&[1, 2, 3, 0], 0, &against(Faster, Tie, Tie), |i| 10 - i as u64);
        assert_eq!((r.winner, r.reason), (1, Why::Faster));
        assert_eq!(r.ties, [3]);
        // 1 and 2 tie: 2 is simpler.
        let r = decide(&[1, 2, 3, 0], 0, &against(Tie, Tie, Tie), |i| 10 - i as u64);
        assert_eq!((r.winner, r.reason), (2, Why::Simplest));
        // The duel counts from either side.
        let r = decide(&[1, 2, 0], 0, &[duel(1, 0, Faster), duel(2, 0, Faster), duel(2, 1, Verdict::Slower)], |i| {
            10 - i as u64
        });
        assert_eq!((r.winner, r.reason), (1, Why::Faster));
    }
}
