//! The order of runs: ABBA blocks, fixed before the first sample (MEASURING.md §8.6).

use harness_spec::record::SideRole;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Most runs of one side in a row within a block.
pub const LONGEST_BLOCK: u64 = 10;

/// One request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRun {
    /// The pair; the other side makes the same request under the same number.
    pub pair: u64,
    /// Index of the prompt in the suite.
    pub prompt: usize,
    /// Tokens to ask for.
    pub length: u64,
    /// Eight decimal digits, fresh for each pair. Digits, because tokenizers split them evenly.
    pub nonce: String,
}

/// Consecutive runs of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Running number.
    pub index: u64,
    /// Whose turn it is.
    pub side: SideRole,
    /// The runs, in order.
    pub runs: Vec<PlannedRun>,
}

/// What a schedule is made from.
#[derive(Clone, Debug)]
pub struct ScheduleSpec<'a> {
    /// Runs a side.
    pub runs: u64,
    /// Most runs in a block, 1 to 10.
    pub block_len: u64,
    /// Prompts in the suite.
    pub prompts: usize,
    /// Lengths to ask for.
    pub lengths: &'a [u64],
    /// Discarded runs a side before the first block.
    pub warmup: u64,
    /// Seed of nonces and of the first side.
    pub seed: u64,
}

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Nothing to run.
    #[error("zero runs measure nothing; ask for at least 1")]
    NoRuns,
    /// Block length out of bounds.
    #[error("a block holds 1 to 10 runs, got {0}; longer blocks let drift pass for a difference")]
    BlockLen(u64),
    /// No prompt or no length.
    #[error("the suite needs at least one prompt and one length")]
    EmptySuite,
    /// A length that gives no rate.
    #[error("a length of {0} gives no decode rate; ask for at least 2 tokens")]
    Length(u64),
}

/// Every request of a run, warm-up first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Which side begins; drawn by the seed.
    pub first: SideRole,
    /// Discarded runs, each side's in a block.
    pub warmup: Vec<Block>,
    /// Timed runs.
    pub blocks: Vec<Block>,
}

impl Schedule {
    /// Two sides in ABBA order. Prompts and lengths cycle over pairs, so both sides do the same work.
    ///
    /// The number of block pairs is even where there is more than one run, so that each side is as often first as second.
    ///
    /// # Errors
    /// [`ScheduleError`] for a specification that measures nothing.
    pub fn paired(spec: &ScheduleSpec<'_>) -> Result<Schedule, ScheduleError> {
        let mut rng = check(spec)?;
        let first = if rng.random_bool(0.5) { SideRole::Engine } else { SideRole::Peer };
        let second = other(first);
        let groups = split(spec.runs, spec.block_len);
        let requests = requests(spec, spec.runs, 0, &mut rng);
        let mut blocks = Vec::new();
        let mut at = 0;
        for (i, len) in groups.into_iter().enumerate() {
            let runs = &requests[at..at + len as usize];
            at += len as usize;
            let order = if i % 2 == 0 { [first, second] } else { [second, first] };
            for side in order {
                blocks.push(Block { index: blocks.len() as u64, side, runs: runs.to_vec() });
            }
        }
        let warmup = warmup(spec, &[first, second], blocks.len() as u64, &mut rng);
        Ok(Schedule { first, warmup, blocks })
    }

    /// One side alone, in blocks for telemetry.
    ///
    /// # Errors
    /// As [`Schedule::paired`].
    pub fn one_sided(spec: &ScheduleSpec<'_>, side: SideRole) -> Result<Schedule, ScheduleError> {
        let mut rng = check(spec)?;
        let requests = requests(spec, spec.runs, 0, &mut rng);
        let blocks: Vec<Block> = requests
            .chunks(spec.block_len as usize)
            .enumerate()
            .map(|(i, runs)| Block { index: i as u64, side, runs: runs.to_vec() })
            .collect();
        let warmup = warmup(spec, &[side], blocks.len() as u64, &mut rng);
        Ok(Schedule { first: side, warmup, blocks })
    }
}

/// The side that `side` is compared with.
pub fn other(side: SideRole) -> SideRole {
    match side {
        SideRole::Engine => SideRole::Peer,
        SideRole::Peer => SideRole::Engine,
    }
}

fn check(spec: &ScheduleSpec<'_>) -> Result<ChaCha8Rng, ScheduleError> {
    if spec.runs == 0 {
        return Err(ScheduleError::NoRuns);
    }
    if !(1..=LONGEST_BLOCK).contains(&spec.block_len) {
        return Err(ScheduleError::BlockLen(spec.block_len));
    }
    if spec.prompts == 0 || spec.lengths.is_empty() {
        return Err(ScheduleError::EmptySuite);
    }
    if let Some(&short) = spec.lengths.iter().find(|l| **l < 2) {
        return Err(ScheduleError::Length(short));
    }
    Ok(ChaCha8Rng::seed_from_u64(spec.seed))
}

/// Sizes of the block pairs: an even number of them, none above `most`, as equal as they can be.
fn split(runs: u64, most: u64) -> Vec<u64> {
    let mut groups = runs.div_ceil(most);
    // Blocks of one run leave no room for one more, and an odd number of them then stays odd.
    if groups % 2 == 1 && groups < runs {
        groups += 1;
    }
    (0..groups).map(|i| runs / groups + u64::from(i < runs % groups)).collect()
}

fn requests(spec: &ScheduleSpec<'_>, count: u64, from: u64, rng: &mut ChaCha8Rng) -> Vec<PlannedRun> {
    (0..count)
        .map(|i| PlannedRun {
            pair: from + i,
            prompt: i as usize % spec.prompts,
            length: spec.lengths[(i as usize / spec.prompts) % spec.lengths.len()],
            nonce: format!("{:08}", rng.random_range(0..100_000_000u32)),
        })
        .collect()
}

/// Warm-up runs carry numbers after those of the timed ones, so that no pair number is used twice.
fn warmup(spec: &ScheduleSpec<'_>, sides: &[SideRole], blocks: u64, rng: &mut ChaCha8Rng) -> Vec<Block> {
    if spec.warmup == 0 {
        return Vec::new();
    }
    let runs = requests(spec, spec.warmup, spec.runs, rng);
    sides
        .iter()
        .enumerate()
        .map(|(i, side)| Block { index: blocks + i as u64, side: *side, runs: runs.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn spec(runs: u64, seed: u64) -> ScheduleSpec<'static> {
        ScheduleSpec { runs, block_len: 10, prompts: 4, lengths: &[50, 200], warmup: 2, seed }
    }

    #[test]
    fn a_hundred_runs_are_ten_block_pairs_in_abba_order() {
        let s = Schedule::paired(&spec(100, 1)).unwrap();
        assert_eq!(s.blocks.len(), 20);
        let a = s.first;
        let want: Vec<SideRole> = (0..5).flat_map(|_| [a, other(a), other(a), a]).collect();
        assert_eq!(s.blocks.iter().map(|b| b.side).collect::<Vec<_>>(), want);
        assert!(s.blocks.iter().all(|b| b.runs.len() == 10));
    }

    #[test]
    fn the_first_side_is_drawn_by_the_seed() {
        let firsts: BTreeSet<SideRole> = (0..20).map(|seed| Schedule::paired(&spec(4, seed)).unwrap().first).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_gives_other_nonces() {
        assert_eq!(Schedule::paired(&spec(30, 5)), Schedule::paired(&spec(30, 5)));
        let nonces = |seed| Schedule::paired(&spec(30, seed)).unwrap().blocks[0].runs[0].nonce.clone();
        assert_ne!(nonces(5), nonces(6));
    }

    #[test]
    fn nonsense_is_refused_before_anything_starts() {
        assert_eq!(Schedule::paired(&spec(0, 1)), Err(ScheduleError::NoRuns));
        assert_eq!(Schedule::paired(&ScheduleSpec { block_len: 11, ..spec(3, 1) }), Err(ScheduleError::BlockLen(11)));
        assert_eq!(Schedule::paired(&ScheduleSpec { prompts: 0, ..spec(3, 1) }), Err(ScheduleError::EmptySuite));
        assert_eq!(Schedule::paired(&ScheduleSpec { lengths: &[50, 1], ..spec(3, 1) }), Err(ScheduleError::Length(1)));
    }

    proptest! {
        #[test]
        fn both_sides_make_the_same_requests(runs in 1u64..250, block_len in 1u64..=10, prompts in 1usize..12, seed: u64) {
            let s = Schedule::paired(&ScheduleSpec { runs, block_len, prompts, lengths: &[50, 200], warmup: 1, seed }).unwrap();
            let of = |side| -> Vec<PlannedRun> {
                s.blocks.iter().filter(|b| b.side == side).flat_map(|b| b.runs.clone()).collect()
            };
            let (engine, peer) = (of(SideRole::Engine), of(SideRole::Peer));
            prop_assert_eq!(&engine, &peer);
            prop_assert_eq!(engine.len() as u64, runs);
            prop_assert!(engine.iter().enumerate().all(|(i, r)| r.pair == i as u64));
            prop_assert!(s.blocks.iter().all(|b| (1..=block_len).contains(&(b.runs.len() as u64))));
            // Drift cancels: as many block pairs begin with one side as with the other.
            prop_assert!(block_len == 1 || runs == 1 || s.blocks.len().is_multiple_of(4));
            // Warm-up shares no number with a timed pair.
            prop_assert!(s.warmup.iter().flat_map(|b| &b.runs).all(|r| r.pair >= runs));
        }
    }
}
