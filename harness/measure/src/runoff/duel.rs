//! The samples of one duel: blocks in ABBA order, pairs across neighbouring blocks, and pairs run again where the clock
//! moved (§5).

use harness_spec::record::{SampleDrop, TrialSample};
use harness_spec::{Cell, CellFailure, CellSample};

use crate::cell::{Halt, Settings};
use crate::clock::{ReferenceClock, Waiting, clocks_differ};
use crate::cost::Timed;

/// The two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who would have to be faster.
    Challenger,
    /// Who stays in a tie.
    Defender,
}

/// A pair, kept or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Number of the pair of blocks it comes from.
    pub block: u64,
    /// The challenger's sample.
    pub challenger: TrialSample,
    /// The defender's sample.
    pub defender: TrialSample,
}

/// Everything that a duel sampled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DuelSamples {
    /// Pairs in the order they were taken.
    pub pairs: Vec<Pair>,
    /// Why it ended before its pairs were complete: a launch that failed, with the side that did.
    pub failure: Option<(Side, CellFailure)>,
}

impl DuelSamples {
    /// One more pair, of this pair of blocks.
    pub fn push(&mut self, block: u64, challenger: TrialSample, defender: TrialSample) {
        self.pairs.push(Pair { block, challenger, defender });
    }

    /// Pairs in the statistics.
    pub fn kept(&self) -> Vec<&Pair> {
        self.pairs.iter().filter(|p| p.challenger.dropped.is_none() && p.defender.dropped.is_none()).collect()
    }

    /// Pairs that were run again.
    pub fn rerun(&self) -> u64 {
        (self.pairs.len() - self.kept().len()) as u64
    }
}

/// Plays a duel until the planned pairs are kept. Pairs whose clocks differ, or that were throttled, are run again, at
/// most as many as were planned. `None` if the run was halted.
pub fn play(
    bench: &mut Timed,
    challenger: &Cell,
    defender: &Cell,
    settings: &Settings,
    clock: ReferenceClock,
    halt: Halt<'_>,
) -> Option<DuelSamples> {
    let mut out = DuelSamples::default();
    let mut kept = 0;
    let mut waiting = Waiting::within(settings.waiting);
    // ABBA: the side that begins changes with every pair of blocks.
    for block in 0u64.. {
        if kept >= settings.pairs || out.pairs.len() >= 2 * settings.pairs {
            break;
        }
        let many = (settings.block as usize).min(settings.pairs - kept) as u32;
        let order = if block % 2 == 0 {
            [(Side::Challenger, challenger), (Side::Defender, defender)]
        } else {
            [(Side::Defender, defender), (Side::Challenger, challenger)]
        };
        let mut samples: [Vec<CellSample>; 2] = Default::default();
        for (side, cell) in order {
            if halt.asked(bench.elapsed()).is_some() {
                return None;
            }
            // The first of a block still sees what the other side left behind, in caches and clocks; it is not timed.
            match bench.sample(cell, many + 1).0 {
                Ok(s) => samples[side as usize] = s.into_iter().skip(1).collect(),
                Err(failure) => {
                    out.failure = Some((side, failure));
                    return Some(out);
                }
            }
        }
        let mut throttled = false;
        let [a, b] = samples;
        for (a, b) in a.iter().zip(&b) {
            let slow = [a, b].map(|s| clock.throttled(s));
            let differ = clocks_differ(a, b);
            throttled |= slow[0] || slow[1];
            let pair = out.pairs.len() as u32;
            let drop = |s: &CellSample, slow: bool| {
                if !(s.ns.is_finite() && s.ns > 0.0) {
                    Some(SampleDrop::NotFinite)
                } else if slow {
                    Some(SampleDrop::Throttled)
                } else if differ {
                    Some(SampleDrop::ClockMismatch)
                } else {
                    None
                }
            };
            let sample = |s: &CellSample, dropped| TrialSample {
                ns: s.ns,
                launches: s.launches,
                sm_clock_mhz: s.sm_clock_mhz,
                mem_clock_mhz: s.mem_clock_mhz,
                verified: s.verified,
                round: pair,
                dropped,
            };
            let pair = Pair { block, challenger: sample(a, drop(a, slow[0])), defender: sample(b, drop(b, slow[1])) };
            kept += usize::from(pair.challenger.dropped.is_none() && pair.defender.dropped.is_none());
            out.pairs.push(pair);
        }
        if a.is_empty() || b.is_empty() {
            break;
        }
        if throttled {
            let Some(pause) = waiting.throttled() else { break };
            bench.rest(pause);
        } else {
            waiting.recovered();
        }
    }
    Some(out)
}
