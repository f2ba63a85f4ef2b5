//! Who multiplies which rows in a phase: each thread a run of equal bytes, of which others take what it has not begun.
//!
//! Cores never stream at quite the same rate, and on a shared machine one of them is away now and then. Yet groups taken one
//! at a time from a common counter cost a sixth of decode speed on SmolLM2 (300 against 360 tok/s): they break the streams
//! that the prefetchers follow, and every locked instruction waits for the loads before it. So a thread goes through a run of
//! its own from the front, in pieces of which each is half of what is left, and a thread that is done takes pieces of the
//! others from the back, small ones first.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pool::Line;

/// Parts that a phase may join.
pub(super) const MOST_PARTS: usize = 4;

/// Bytes that a piece has at least: a few microseconds of reading. A run of fewer than four is one piece, and its owner's.
const PIECE: usize = 96 << 10;

/// Groups of rows that are multiplied by one call: one, or two.
pub(super) type Visit = (usize, Option<usize>);

/// What of each thread's run has been taken in the current phase.
pub(super) struct Claims {
    phases: AtomicU64,
    taken: Vec<Line<AtomicU64>>,
}

/// Pieces taken from the front and from the back of a run; they belong to a phase, as nobody clears them.
#[derive(Clone, Copy, Default)]
struct Taken {
    phase: u64,
    front: u64,
    back: u64,
}

impl Taken {
    fn of(word: u64) -> Taken {
        Taken { phase: word >> 16, front: word >> 8 & 0xff, back: word & 0xff }
    }

    fn word(self) -> u64 {
        self.phase << 16 | self.front << 8 | self.back
    }
}

impl Claims {
    /// Claims of so many threads.
    pub(super) fn new(threads: usize) -> Claims {
        Claims { phases: AtomicU64::new(0), taken: (0..threads).map(|_| Line(AtomicU64::new(0))).collect() }
    }

    /// Takes the next of the `pieces` of a run for its owner, or the last for another thread.
    fn take(&self, phase: u64, owner: usize, pieces: usize, from_front: bool) -> Option<usize> {
        let taken = &self.taken[owner].0;
        let mut word = taken.load(Ordering::Relaxed);
        loop {
            let mut now = Taken::of(word);
            if now.phase != phase {
                now = Taken { phase, ..Taken::default() };
            }
            if now.front + now.back >= pieces as u64 {
                return None;
            }
            let piece = if from_front { now.front as usize } else { pieces - 1 - now.back as usize };
            if from_front {
                now.front += 1;
            } else {
                now.back += 1;
            }
            // The pieces alone are told by it: what threads write is ordered by the end of the phase.
            match taken.compare_exchange_weak(word, now.word(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(piece),
                Err(other) => word = other,
            }
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Part {
    groups: usize,
    bytes: usize,
    paired: bool,
}

/// The groups of rows of a phase, of one or several parts.
pub(super) struct Shares<'a> {
    claims: &'a Claims,
    phase: u64,
    tokens: usize,
    parts: [Part; MOST_PARTS],
    len: usize,
    bytes: usize,
}

/// A thread's run: groups of each part, which are visited alone or in pairs.
struct Run {
    groups: [Range<usize>; MOST_PARTS],
    visits: usize,
    least: usize,
}

impl<'a> Shares<'a> {
    /// A phase in which each row is multiplied with so many tokens.
    pub(super) fn new(claims: &'a Claims, tokens: usize) -> Shares<'a> {
        let phase = claims.phases.fetch_add(1, Ordering::Relaxed) + 1;
        Shares { claims, phase, tokens, parts: Default::default(), len: 0, bytes: 0 }
    }

    /// Adds a part of so many groups and bytes. Pairs are a group of the first half of a run and one of the second, which are
    /// two long streams; an odd one is alone.
    pub(super) fn push(&mut self, groups: usize, bytes: usize, paired: bool) {
        self.parts[self.len] = Part { groups, bytes, paired };
        self.len += 1;
        self.bytes += bytes;
    }

    fn run(&self, thread: usize) -> Run {
        let threads = self.claims.taken.len();
        let (lo, hi) = (self.bytes * thread / threads, self.bytes * (thread + 1) / threads);
        let mut run = Run { groups: Default::default(), visits: 0, least: 0 };
        let mut base = 0;
        for (mine, part) in run.groups.iter_mut().zip(&self.parts[..self.len]) {
            let Part { groups, bytes, .. } = *part;
            // A group belongs to the thread in whose range its middle lies, so that no thread is off by more than half.
            let first_at = |at: usize| {
                let at = at.saturating_sub(base).min(bytes);
                (2 * at * groups + bytes).div_ceil(2 * bytes).min(groups + 1) - 1
            };
            *mine = first_at(lo)..first_at(hi);
            run.visits += part.visits(mine);
            base += bytes;
        }
        let bytes = (hi - lo) * self.tokens;
        run.least = (run.visits * PIECE).div_ceil(bytes.max(1)).max(1);
        run
    }

    /// Calls `visit` with a part and groups of it until the phase has none left that nobody has begun.
    pub(super) fn each(&self, thread: usize, mut visit: impl FnMut(usize, Visit)) {
        self.pieces(thread, |run, visits| self.visit(run, visits, &mut visit));
    }

    /// Calls `visit` with neighbouring groups, up to `most` at a time, as `each` does with single ones.
    ///
    /// # Panics
    /// Where the phase has several parts, or pairs.
    pub(super) fn each_of_several(&self, thread: usize, most: usize, mut visit: impl FnMut(Range<usize>)) {
        assert!(self.len == 1 && !self.parts[0].paired, "neighbours are of one part, and visited alone");
        self.pieces(thread, |run, visits| {
            let first = run.groups[0].start;
            for at in visits.clone().step_by(most) {
                visit(first + at..first + (at + most).min(visits.end));
            }
        });
    }

    /// Calls `take` with a run and visits of it until the phase has none left that nobody has begun.
    fn pieces(&self, thread: usize, mut take: impl FnMut(&Run, Range<usize>)) {
        let own = self.run(thread);
        if own.pieces() == 1 {
            // Those of the others are as short.
            take(&own, 0..own.visits);
            return;
        }
        let threads = self.claims.taken.len();
        for owner in (thread..threads).chain(0..thread) {
            let run = self.run(owner);
            let pieces = run.pieces();
            if pieces == 1 {
                continue;
            }
            while let Some(piece) = self.claims.take(self.phase, owner, pieces, owner == thread) {
                take(&run, run.piece(piece, pieces));
            }
        }
    }

    fn visit(&self, run: &Run, visits: Range<usize>, visit: &mut impl FnMut(usize, Visit)) {
        let mut base = 0;
        for (i, (groups, part)) in run.groups.iter().zip(&self.parts[..self.len]).enumerate() {
            let count = part.visits(groups);
            for at in visits.start.max(base)..visits.end.min(base + count) {
                let group = groups.start + at - base;
                visit(i, (group, Some(group + count).filter(|second| part.paired && *second < groups.end)));
            }
            base += count;
        }
    }
}

impl Part {
    fn visits(&self, groups: &Range<usize>) -> usize {
        if self.paired { groups.len().div_ceil(2) } else { groups.len() }
    }
}

impl Run {
    fn pieces(&self) -> usize {
        if self.visits < 4 * self.least {
            return 1;
        }
        // Halves of what is left, down to those of the least size.
        (self.visits / self.least).ilog2() as usize + 1
    }

    /// The visits of a piece.
    fn piece(&self, piece: usize, pieces: usize) -> Range<usize> {
        let end = if piece + 1 == pieces { self.visits } else { self.visits - (self.visits >> (piece + 1)) };
        self.visits - (self.visits >> piece)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Pool;

    /// How often each group of each part is visited where threads come in this order, each until nothing is left.
    fn seen(
        parts: &[(usize, usize, bool)],
        threads: usize,
        order: impl Iterator<Item = usize>,
    ) -> (Vec<Vec<u32>>, Vec<usize>) {
        let claims = Claims::new(threads);
        let mut shares = Shares::new(&claims, 1);
        parts.iter().for_each(|&(groups, bytes, paired)| shares.push(groups, bytes, paired));
        let mut seen: Vec<_> = parts.iter().map(|&(groups, ..)| vec![0; groups]).collect();
        let mut counts = vec![0; threads];
        for thread in order {
            shares.each(thread, |part, (group, second)| {
                for group in [Some(group), second].into_iter().flatten() {
                    seen[part][group] += 1;
                    counts[thread] += 1;
                }
            });
        }
        (seen, counts)
    }

    #[test]
    fn every_group_of_every_part_is_taken_once_in_whatever_order_threads_come() {
        for parts in [
            vec![(1, 300, false)],
            vec![(36, 1000, true), (12, 333, false), (12, 777, true)],
            vec![(3072, 30_000_000, true)],
            vec![(3073, 900_000, false)],
            vec![(36, 190_000, true)],
        ] {
            for threads in 1..6 {
                for backwards in [false, true] {
                    let order = (0..threads).map(|t| if backwards { threads - 1 - t } else { t });
                    let (seen, _) = seen(&parts, threads, order);
                    assert!(seen.iter().flatten().all(|&count| count == 1), "{parts:?} on {threads}");
                }
            }
        }
    }

    #[test]
    fn neighbours_are_taken_once_and_never_too_many_at_a_time() {
        for (groups, bytes) in [(1, 300), (280, 15_000_000), (281, 900_000), (48, 1_000_000)] {
            for threads in 1..4 {
                let claims = Claims::new(threads);
                let mut shares = Shares::new(&claims, 1);
                shares.push(groups, bytes, false);
                let mut seen = vec![0; groups];
                for thread in (0..threads).rev() {
                    shares.each_of_several(thread, 16, |block| {
                        assert!((1..=16).contains(&block.len()), "{block:?}");
                        seen[block].iter_mut().for_each(|count| *count += 1);
                    });
                }
                assert!(seen.iter().all(|&count| count == 1), "{groups} on {threads}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_thread_that_never_comes_leaves_a_long_phase_to_the_others_and_a_short_one_is_shared_evenly() {
        let (long, counts) = seen(&[(3072, 30_000_000, true)], 3, 1..2);
        assert!(long[0].iter().all(|&count| count == 1) && counts == [0, 3072, 0], "{counts:?}");
        let (_, counts) = seen(&[(36, 190_000, true)], 3, 0..3);
        assert_eq!(counts, [12, 12, 12]);
    }

    #[test]
    fn pieces_halve_and_cover_a_run() {
        for (visits, least) in [(1, 1), (3, 1), (4, 1), (1000, 7), (1024, 1), (37, 9)] {
            let run = Run { groups: Default::default(), visits, least };
            let pieces = run.pieces();
            let all: Vec<_> = (0..pieces).map(|i| run.piece(i, pieces)).collect();
            assert_eq!((all[0].start, all[pieces - 1].end), (0, visits));
            assert!(all.windows(2).all(|w| w[0].end == w[1].start && w[0].len() + 1 >= w[1].len()), "{all:?}");
            assert!(pieces == 1 || all.iter().all(|piece| piece.len() >= least / 2), "{all:?}");
        }
    }

    #[test]
    fn threads_that_run_at_once_take_every_group_once_in_phase_after_phase() {
        use std::sync::atomic::AtomicUsize;
        let (pool, claims) = (Pool::new(3, false), Claims::new(3));
        let seen: Vec<_> = (0..3072).map(|_| AtomicUsize::new(0)).collect();
        for phase in 1..200 {
            let mut shares = Shares::new(&claims, 1);
            shares.push(3072, 30_000_000, phase % 2 == 0);
            pool.run(&|thread| {
                shares.each(thread, |_, (group, second)| {
                    for group in [Some(group), second].into_iter().flatten() {
                        seen[group].fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == phase));
        }
    }
}
