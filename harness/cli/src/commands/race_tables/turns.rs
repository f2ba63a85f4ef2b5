//! Whose turn it is: both sides are loaded four times, each first in two of them; pieces of a few requests in ABBA order, drawn
//! anew for every four of them, each behind requests that only warm.

use std::collections::BTreeSet;

use anyhow::anyhow;
use engine::launched::Launched;
use harness_spec::Nanos;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::line::{Difference, Length, Line, Request, Side};

/// An engine that was loaded with a table.
pub trait Contestant {
    /// Hash of what its table decides.
    fn table_hash(&self) -> String;

    /// Answers prompt `number` of a length, greedily.
    ///
    /// # Errors
    /// It cannot.
    fn answer(&mut self, prompt: u64, number: u64) -> anyhow::Result<Answer>;

    /// What it launches for a prompt of this length and for a token behind it.
    ///
    /// # Errors
    /// There is no kernel.
    fn launched(&mut self, prompt: u64) -> anyhow::Result<Launched>;

    /// How far the logit of a token lies under the greatest behind a prompt and some tokens, as [`super::line::under`] has
    /// it.
    ///
    /// # Errors
    /// It cannot be computed.
    fn under(&mut self, prompt: u64, number: u64, before: &[u32], id: u32) -> anyhow::Result<f64>;
}

/// Tokens, and when each of them was there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Their times since the request was made.
    pub token_ns: Vec<Nanos>,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Lengths of prompts with the pairs of each.
    pub lengths: Vec<(u64, u64)>,
    /// Pairs of a piece.
    pub block: u64,
    /// Requests that take this long together, and one at least, warm a side before each of its pieces.
    pub warm: Nanos,
    /// Whether lengths at which both tables launch the same kernels are run as well.
    pub same_too: bool,
    /// Draws the order.
    pub seed: u64,
}

/// Who is loaded first: whatever is loaded second may lie worse in memory, or better.
pub const FIRST: [Side; 4] = [Side::Old, Side::New, Side::New, Side::Old];

/// A loading has this many times the warm-up of a piece ahead of its first.
const FIRST_WARM_UP: u64 = 2;

/// Runs it. `load` loads the engine with a table, `say` hears every line.
///
/// # Errors
/// Those of the engine, or of `say`.
pub fn run<C: Contestant>(
    turns: &Turns,
    load: &mut dyn FnMut(Side) -> anyhow::Result<C>,
    say: &mut dyn FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(turns.seed);
    let mut lengths: Vec<Length> = Vec::new();
    for (loading, first) in (0u8..).zip(FIRST) {
        // What was loaded before is gone by now.
        let (mut old, mut new);
        match first {
            Side::Old => {
                old = load(Side::Old)?;
                new = load(Side::New)?;
            }
            Side::New => {
                new = load(Side::New)?;
                old = load(Side::Old)?;
            }
        }
        let mut sides = Sides { old: &mut old, new: &mut new, loading, say: &mut *say };
        if loading == 0 {
            lengths = sides.look(turns)?;
            lengths.retain(|length| turns.same_too || !length.is_same());
        }
        for length in &lengths {
            sides.race(turns, *length, &mut rng)?;
        }
        if lengths.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// Both sides as they are loaded.
struct Sides<'a, C> {
    old: &'a mut C,
    new: &'a mut C,
    loading: u8,
    say: &'a mut dyn FnMut(&Line) -> anyhow::Result<()>,
}

impl<C: Contestant> Sides<'_, C> {
    fn of(&mut self, side: Side) -> &mut C {
        match side {
            Side::Old => self.old,
            Side::New => self.new,
        }
    }

    /// What both launch. A kernel that cannot run shows at the first request, and another has taken its place after it.
    fn look(&mut self, turns: &Turns) -> anyhow::Result<Vec<Length>> {
        let mut lengths = Vec::new();
        let mut all = BTreeSet::new();
        for &(prompt, pairs) in &turns.lengths {
            self.warm(Side::Old, prompt, Nanos(0))?;
            self.warm(Side::New, prompt, Nanos(0))?;
            let (old, new) = (self.old.launched(prompt)?, self.new.launched(prompt)?);
            lengths.push(Length::of(prompt, pairs, &old, &new));
            all.extend(new.token.iter().chain(&new.prompt).cloned());
        }
        let (old, new) = (self.old.table_hash(), self.new.table_hash());
        (self.say)(&Line::Loaded { old, new, lengths: lengths.clone(), launched: all })?;
        Ok(lengths)
    }

    /// The pairs of a length that are this loading's.
    fn race(&mut self, turns: &Turns, length: Length, rng: &mut StdRng) -> anyhow::Result<()> {
        let (pairs, block) = (length.pairs_of_loading(), turns.block.max(1));
        for side in [Side::Old, Side::New] {
            self.warm(side, length.prompt, Nanos(FIRST_WARM_UP * turns.warm.0))?;
        }
        let mut first = Side::Old;
        for b in 0..pairs.div_ceil(block) {
            // Of two blocks the second is the mirror image of the first, so that a drift falls on both sides alike.
            first = match (b % 2 == 0, first) {
                (true, _) if rng.random_bool(0.5) => Side::New,
                (true, _) | (false, Side::New) => Side::Old,
                (false, Side::Old) => Side::New,
            };
            let second = if first == Side::Old { Side::New } else { Side::Old };
            // A number of its own for every pair of the run, so that none finds anything of another.
            let numbers = (b * block..((b + 1) * block).min(pairs)).map(|i| u64::from(self.loading) * pairs + i);
            let numbers: Vec<u64> = numbers.collect();
            let mut answers: [Vec<Vec<u32>>; 2] = Default::default();
            for side in [first, second] {
                self.warm(side, length.prompt, turns.warm)?;
                for &number in &numbers {
                    let ids = self.request(side, length.prompt, Some(number), b, number)?;
                    answers[side as usize].push(ids);
                }
            }
            let [of_old, of_new] = answers;
            for ((number, of_old), of_new) in numbers.into_iter().zip(of_old).zip(of_new) {
                self.compare(length.prompt, number, &of_old, &of_new)?;
            }
        }
        Ok(())
    }

    /// At least one request, and as many as take `least` together.
    fn warm(&mut self, side: Side, prompt: u64, least: Nanos) -> anyhow::Result<()> {
        let mut took = 0;
        loop {
            let answer = self.of(side).answer(prompt, u64::MAX)?;
            let Nanos(last) = answer.token_ns.last().copied().unwrap_or_default();
            self.report(side, prompt, None, 0, answer.token_ns)?;
            took += last;
            // An engine whose clock stands still has no time to take.
            if took >= least.0 || last == 0 {
                return Ok(());
            }
        }
    }

    fn request(
        &mut self,
        side: Side,
        prompt: u64,
        pair: Option<u64>,
        block: u64,
        number: u64,
    ) -> anyhow::Result<Vec<u32>> {
        let Answer { ids, token_ns } = self.of(side).answer(prompt, number)?;
        self.report(side, prompt, pair, block, token_ns)?;
        Ok(ids)
    }

    fn report(
        &mut self,
        side: Side,
        prompt_tokens: u64,
        pair: Option<u64>,
        block: u64,
        token_ns: Vec<Nanos>,
    ) -> anyhow::Result<()> {
        (self.say)(&Line::Request(Request { side, loading: self.loading, pair, block, prompt_tokens, token_ns }))
    }

    /// Says where two answers first differ, with what the old table's kernels make of the tokens before.
    fn compare(&mut self, prompt: u64, number: u64, of_old: &[u32], of_new: &[u32]) -> anyhow::Result<()> {
        let Some(at) = (0..of_old.len().max(of_new.len())).find(|&i| of_old.get(i) != of_new.get(i)) else {
            return Ok(());
        };
        let (Some(&a), Some(&b)) = (of_old.get(at), of_new.get(at)) else {
            return Err(anyhow!("the answers of pair {number} have {} and {} tokens", of_old.len(), of_new.len()));
        };
        let under = self.old.under(prompt, number, &of_old[..at], b)?;
        let difference = Difference { prompt_tokens: prompt, pair: number, token: at as u64, old: a, new: b, under };
        (self.say)(&Line::Difference(difference))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// What a scripted engine was asked, in order.
    #[derive(Clone, Debug, PartialEq)]
    enum Asked {
        Load(Side),
        Unload(Side),
        Warm(Side),
        Timed(Side, u64),
    }

    type Log = Rc<RefCell<Vec<Asked>>>;

    /// An engine whose tokens come every millisecond.
    struct Scripted {
        side: Side,
        log: Log,
        /// What runs a prompt and a token.
        runs: [&'static str; 2],
        ids: Vec<u32>,
    }

    impl Drop for Scripted {
        fn drop(&mut self) {
            self.log.borrow_mut().push(Asked::Unload(self.side));
        }
    }

    impl Contestant for Scripted {
        fn table_hash(&self) -> String {
            self.runs.concat()
        }

        fn answer(&mut self, _: u64, number: u64) -> anyhow::Result<Answer> {
            let warm = number == u64::MAX;
            self.log.borrow_mut().push(if warm { Asked::Warm(self.side) } else { Asked::Timed(self.side, number) });
            let token_ns = (1..=self.ids.len() as u64).map(|i| Nanos(i * 1_000_000)).collect();
            Ok(Answer { ids: self.ids.clone(), token_ns })
        }

        fn launched(&mut self, _: u64) -> anyhow::Result<Launched> {
            let of = |i: usize| [("gemv_q4_0 N=64 K=64".parse().unwrap(), self.runs[i].to_owned())].into();
            Ok(Launched { prompt: of(0), token: of(1) })
        }

        fn under(&mut self, _: u64, _: u64, before: &[u32], id: u32) -> anyhow::Result<f64> {
            assert_eq!(self.side, Side::Old, "the old table's kernels judge");
            Ok(before.len() as f64 + f64::from(id) / 1000.0)
        }
    }

    fn turns(pairs: u64) -> Turns {
        let lengths = vec![(128, pairs)];
        Turns { lengths, block: 3, warm: Nanos(4_000_000), same_too: false, seed: 1 }
    }

    /// What was asked and said.
    fn played(turns: &Turns, runs: [[&'static str; 2]; 2], ids: [&[u32]; 2]) -> (Vec<Asked>, Vec<Line>) {
        let log = Log::default();
        let mut lines = Vec::new();
        let mut load = |side: Side| {
            log.borrow_mut().push(Asked::Load(side));
            let at = side as usize;
            Ok(Scripted { side, log: Rc::clone(&log), runs: runs[at], ids: ids[at].to_vec() })
        };
        let mut say = |line: &Line| {
            lines.push(line.clone());
            Ok(())
        };
        run(turns, &mut load, &mut say).unwrap();
        let asked = log.borrow().clone();
        (asked, lines)
    }

    const DECODE_DIFFERS: [[&str; 2]; 2] = [["p", "a"], ["p", "b"]];

    #[test]
    fn each_side_is_loaded_first_as_often_as_the_other_and_both_are_gone_before_the_next() {
        let (asked, _) = played(&turns(12), DECODE_DIFFERS, [&[1, 2], &[1, 2]]);
        let loads: Vec<_> = asked.into_iter().filter(|a| matches!(a, Asked::Load(_) | Asked::Unload(_))).collect();
        assert_eq!(loads.len(), 16);
        for (four, first) in loads.chunks(4).zip([Side::Old, Side::New, Side::New, Side::Old]) {
            assert_eq!(four[0], Asked::Load(first), "{loads:?}");
            let is_load = |a: &Asked| matches!(a, Asked::Load(_));
            assert_eq!(four.iter().map(is_load).collect::<Vec<_>>(), [true, true, false, false], "{loads:?}");
        }
    }

    #[test]
    fn pieces_are_in_abba_order_and_each_is_warmed() {
        let (asked, _) = played(&turns(48), DECODE_DIFFERS, [&[1, 2], &[1, 2]]);
        // Twelve pairs a loading in pieces of three: four blocks, eight pieces.
        let mut pieces: Vec<(Side, Vec<u64>)> = Vec::new();
        let mut warmed = 0;
        for a in &asked {
            match a {
                Asked::Warm(_) => warmed += 1,
                Asked::Timed(side, number) => {
                    match pieces.last_mut().filter(|_| warmed == 0) {
                        Some((_, numbers)) => numbers.push(*number),
                        None => pieces.push((*side, vec![*number])),
                    }
                    warmed = 0;
                }
                Asked::Load(_) | Asked::Unload(_) => {}
            }
        }
        assert_eq!(pieces.len(), 32);
        for four in pieces.chunks(4) {
            let [a, b, c, d] = four else { panic!("{pieces:?}") };
            assert!(a.0 != b.0 && b.0 == c.0 && a.0 == d.0, "{four:?}");
            assert_eq!((&a.1, &c.1), (&b.1, &d.1), "both sides answer the same prompts");
            assert!(four.iter().all(|(_, numbers)| numbers.len() == 3));
        }
        let mut numbers: Vec<u64> =
            pieces.iter().filter(|(side, _)| *side == Side::New).flat_map(|(_, n)| n.clone()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..48).collect::<Vec<_>>(), "no prompt comes twice");
        // A request takes two milliseconds, and four warm a piece: two requests ahead of each.
        let first = asked.iter().position(|a| matches!(a, Asked::Timed(..))).unwrap();
        assert!(asked[first - 2..first].iter().all(|a| matches!(a, Asked::Warm(_))), "{asked:?}");
    }

    #[test]
    fn where_both_tables_launch_the_same_nothing_is_timed_unless_that_is_wanted() {
        let same = [["p", "a"]; 2];
        let (asked, lines) = played(&turns(12), same, [&[1, 2], &[1, 2]]);
        assert!(!asked.iter().any(|a| matches!(a, Asked::Timed(..))), "{asked:?}");
        assert_eq!(asked.iter().filter(|a| matches!(a, Asked::Load(_))).count(), 2);
        let Some(Line::Loaded { lengths, .. }) = lines.iter().find(|l| matches!(l, Line::Loaded { .. })) else {
            panic!("{lines:?}")
        };
        assert!(lengths[0].is_same());
        let (asked, _) = played(&Turns { same_too: true, ..turns(12) }, same, [&[1, 2], &[1, 2]]);
        assert_eq!(asked.iter().filter(|a| matches!(a, Asked::Timed(..))).count(), 24);
    }

    #[test]
    fn of_several_lengths_those_that_differ_are_run_and_all_launches_are_told() {
        let (_, lines) = played(&turns(12), DECODE_DIFFERS, [&[1, 2], &[1, 2]]);
        let Line::Loaded { old, new, lengths, launched } =
            lines.iter().find(|l| matches!(l, Line::Loaded { .. })).unwrap()
        else {
            panic!("{lines:?}")
        };
        assert_eq!((old.as_str(), new.as_str()), ("pa", "pb"));
        assert_eq!((lengths[0].same_prefill, lengths[0].same_decode), (true, false));
        let names: Vec<&str> = launched.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["b", "p"]);
        let timed = |loading: u8| {
            let is_of = |l: &&Line| matches!(l, Line::Request(r) if r.pair.is_some() && r.loading == loading);
            lines.iter().filter(is_of).count()
        };
        assert_eq!([0, 1, 2, 3].map(timed), [6; 4]);
    }

    #[test]
    fn the_first_token_that_differs_is_told_with_what_the_old_kernels_make_of_it() {
        let (_, lines) = played(&turns(8), DECODE_DIFFERS, [&[1, 2, 3], &[1, 2, 4]]);
        let differences: Vec<&Difference> = lines
            .iter()
            .filter_map(|l| match l {
                Line::Difference(d) => Some(d),
                _ => None,
            })
            .collect();
        assert_eq!(differences.len(), 8);
        let d = differences[0];
        assert_eq!((d.token, d.old, d.new, d.under), (2, 3, 4, 2.004));
    }
}
