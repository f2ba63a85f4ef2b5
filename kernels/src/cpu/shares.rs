//! Who multiplies which rows in a phase: each thread a run of equal bytes.
//!
//! Nothing is taken from a common counter, though cores never stream at quite the same rate: groups taken one at a time
//! break the streams that the prefetchers follow, and cost a sixth of decode speed on SmolLM2 (300 against 360 tok/s).

use std::ops::Range;

/// Parts that a phase may join.
pub(super) const MOST_PARTS: usize = 4;

/// The groups of rows of a phase, of one or several parts.
#[derive(Default)]
pub(super) struct Shares {
    /// Groups and bytes of each part.
    parts: [(usize, usize); MOST_PARTS],
    len: usize,
    bytes: usize,
}

impl Shares {
    /// Adds a part of so many groups and bytes.
    pub(super) fn push(&mut self, groups: usize, bytes: usize) {
        self.parts[self.len] = (groups, bytes);
        self.len += 1;
        self.bytes += bytes;
    }

    /// This thread's groups of each part, in order.
    pub(super) fn of(&self, thread: usize, threads: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (lo, hi) = (self.bytes * thread / threads, self.bytes * (thread + 1) / threads);
        let mut base = 0;
        self.parts[..self.len].iter().enumerate().map(move |(part, &(groups, bytes))| {
            // A group belongs to the thread in whose range its middle lies, so that no thread is off by more than half.
            let first_at = |at: usize| {
                let at = at.saturating_sub(base).min(bytes);
                (2 * at * groups + bytes).div_ceil(2 * bytes).min(groups + 1) - 1
            };
            let mine = first_at(lo)..first_at(hi);
            base += bytes;
            (part, mine)
        })
    }
}

/// A thread's groups one at a time, or two: then from the first half of the run and from the second, which are two long
/// streams. An odd one is alone.
pub(super) fn visits(run: Range<usize>, pairs: bool) -> impl Iterator<Item = (usize, Option<usize>)> {
    let first = if pairs { run.len().div_ceil(2) } else { run.len() };
    (run.start..run.start + first).map(move |group| (group, Some(group + first).filter(|second| *second < run.end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_every_part_is_taken_once_and_shares_are_even() {
        for parts in
            [vec![(1, 300)], vec![(36, 1000), (12, 333), (12, 777)], vec![(3072, 30_000_000)], vec![(36, 190_000)]]
        {
            for threads in 1..6 {
                let mut shares = Shares::default();
                parts.iter().for_each(|&(groups, bytes)| shares.push(groups, bytes));
                let mut seen: Vec<_> = parts.iter().map(|&(groups, _)| vec![0; groups]).collect();
                let mut counts = vec![0; threads];
                for (thread, count) in counts.iter_mut().enumerate() {
                    for (part, run) in shares.of(thread, threads) {
                        *count += run.len();
                        run.for_each(|group| seen[part][group] += 1);
                    }
                }
                assert!(seen.iter().flatten().all(|&count| count == 1), "{parts:?} on {threads}");
                if parts.len() == 1 {
                    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
                }
            }
        }
    }

    #[test]
    fn a_run_is_visited_whole_one_or_two_groups_at_a_time() {
        for run in [0..0, 3..4, 5..11, 5..12] {
            for pairs in [false, true] {
                let visited: Vec<_> = visits(run.clone(), pairs).flat_map(|(a, b)| [Some(a), b]).flatten().collect();
                let alone = visits(run.clone(), pairs).filter(|(_, second)| second.is_none()).count();
                let mut sorted = visited.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, run.clone().collect::<Vec<_>>());
                assert_eq!(alone, if pairs { run.len() % 2 } else { run.len() });
            }
        }
    }
}
