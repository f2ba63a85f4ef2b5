//! Verification of the very launches that are timed (R4): right when looked at must mean right when timed.
//!
//! A timed interval runs over *slots*, each with activations and outputs of its own at addresses that never change. Before
//! every interval each slot gets other activations than it had, out of a pool whose results are known, and its outputs are
//! either poisoned or left as the last interval wrote them. Some slots are compared afterwards, drawn after the same
//! stream, so that nothing a kernel can see tells which. So
//!
//! - a cache of outputs by address returns the results of other activations,
//! - a kernel that computes only into poisoned outputs leaves results of other activations,
//! - a kernel that skips some launches of a batch leaves poison or results of other activations.

use std::sync::Arc;

use harness_spec::{CellFailure, Stage};
use variants::{Activations, KernelSpec};

use super::{Errors, Expected, Mismatch, compare};
use crate::op::{Op, Problem, Rng};

/// Of all slots of all intervals, at least one in this many is compared.
const ONE_IN: u64 = 20;
/// A slot is compared by itself with this chance, one in so many: a little more often than the least.
const CHANCE: usize = 16;
/// Problems of a pool where activations can be scaled, and where each needs a reference of its own.
const SCALED: [f32; 4] = [1.0, -1.0, 2.0, -0.5];
const DRAWN: u64 = 4;

/// What the outputs of a slot hold before an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// All bytes 0xFF.
    Poison,
    /// What the last interval left there.
    Stale,
}

/// What a slot is to an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which problem of the pool has its activations.
    pub activation: usize,
    /// How its outputs are prepared.
    pub fill: Fill,
    /// Whether its outputs are compared afterwards.
    pub verify: bool,
}

/// Draws the slots of timed intervals and judges their outputs.
#[derive(Debug)]
pub struct TimedCheck {
    pool: Vec<(Arc<Problem>, Arc<Expected>)>,
    rng: Rng,
    /// The activations that each slot had last.
    last: Vec<Option<usize>>,
    drawn: u64,
    verified: u64,
}

impl TimedCheck {
    /// A check of timed runs of `problem` over so many slots, with activations drawn after `seed`. `None` where the form
    /// cannot hold the activations, which those of a redraw always can.
    pub fn new(op: &dyn Op, problem: &Problem, spec: &KernelSpec, slots: usize, seed: u64) -> Option<TimedCheck> {
        let form = spec.activations.unwrap_or(Activations::F32);
        let mut rng = Rng::new(seed, 0x71ed);
        let pool = pool(op, problem, form, &mut rng)?;
        Some(TimedCheck { pool, rng, last: vec![None; slots], drawn: 0, verified: 0 })
    }

    /// The problems of the pool: the same weights with different activations.
    pub fn problems(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.pool.iter().map(|(problem, _)| &**problem)
    }

    /// Draws the next interval: one entry for each slot.
    pub fn next_interval(&mut self) -> Vec<Slot> {
        let pool = self.pool.len();
        let mut slots: Vec<Slot> = Vec::with_capacity(self.last.len());
        for last in &mut self.last {
            let activation = match *last {
                // Never the one it had: its outputs may still hold the results of that.
                Some(last) if pool > 1 => (last + 1 + self.rng.below(pool - 1)) % pool,
                _ => self.rng.below(pool),
            };
            // Where all results are alike, what was left behind would pass.
            let stale = last.is_some() && pool > 1 && self.rng.below(2) == 0;
            *last = Some(activation);
            let verify = self.rng.below(CHANCE) == 0;
            slots.push(Slot { activation, fill: if stale { Fill::Stale } else { Fill::Poison }, verify });
        }
        self.drawn += slots.len() as u64;
        self.verified += slots.iter().filter(|s| s.verify).count() as u64;
        while self.verified * ONE_IN < self.drawn && !slots.is_empty() {
            let more = self.rng.below(slots.len());
            self.verified += u64::from(!slots[more].verify);
            slots[more].verify = true;
            if slots.iter().all(|s| s.verify) {
                break;
            }
        }
        slots
    }

    /// Compares the outputs of a slot of the last interval.
    ///
    /// # Errors
    /// [`Stage::Cheat`], as the same variant passed the gate before it was timed.
    pub fn verify(&self, slot: &Slot, outputs: &[Vec<u8>]) -> Result<Errors, CellFailure> {
        let (problem, expected) = &self.pool[slot.activation];
        compare(expected, outputs).map_err(|mismatch| cheat(problem, &mismatch))
    }

    /// The share of slots that were compared so far.
    pub fn verified_share(&self) -> f64 {
        self.verified as f64 / self.drawn.max(1) as f64
    }
}

fn cheat(problem: &Problem, mismatch: &Mismatch) -> CellFailure {
    let what = "the variant passed the check, and a launch that was timed is wrong";
    CellFailure::new(Stage::Cheat, format!("{what}: {}, {}: {mismatch}", problem.workload, problem.case))
}

/// Problems with known results that differ in their activations alone.
fn pool(
    op: &dyn Op,
    problem: &Problem,
    form: Activations,
    rng: &mut Rng,
) -> Option<Vec<(Arc<Problem>, Arc<Expected>)>> {
    let mut pool: Vec<(Arc<Problem>, Arc<Expected>)> = Vec::new();
    for _ in 0..DRAWN {
        let mut drawn = problem.clone();
        op.redraw(&mut drawn, rng.bits());
        let expected = op.expected(&drawn, form)?;
        if pool.first().is_some_and(|(_, first)| **first == expected) {
            // An op whose inputs are all weights has one result.
            break;
        }
        for factor in SCALED {
            let mut scaled = drawn.clone();
            if factor != 1.0 && !op.scale(&mut scaled, factor) {
                break;
            }
            let results = if factor == 1.0 { expected.clone() } else { expected.scaled(f64::from(factor)) };
            pool.push((Arc::new(scaled), Arc::new(results)));
        }
        if pool.len() >= 2 * SCALED.len() {
            break;
        }
    }
    Some(pool)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use harness_spec::{DType, Shape};
    use variants::registry;

    use super::*;
    use crate::op::{Case, Recipe, Tensor, Values, Weights, op};
    use crate::reference;

    const SLOTS: usize = 10;

    /// What a kernel sees of a launch: the address of its slot, its activations, and what its output holds.
    type Launch<'a> = (usize, &'a Problem, &'a mut Vec<u8>);

    fn problem() -> Problem {
        let recipe = Recipe::Product(Weights::Random, Values::Random);
        let case = Case { name: "timed".to_owned(), seed: 5, dtype: Some(DType::Q4_0), recipe };
        op("gemv_q4_0").unwrap().problem(&Shape::of([("N", 20), ("K", 64)]), &case)
    }

    fn right(problem: &Problem) -> Vec<u8> {
        let (Tensor::Weights { dtype, n, k, bytes, .. }, Tensor::F32(x)) = (&problem.inputs[0], &problem.inputs[1])
        else {
            unreachable!()
        };
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let y = reference::matmul(&reference::decode(*dtype, *n, bytes), &x, *k);
        y.into_iter().flat_map(|(y, _)| (y as f32).to_le_bytes()).collect()
    }

    /// Times a kernel for so many intervals; the interval in which it was found out.
    fn time(seed: u64, intervals: usize, mut kernel: impl FnMut(Launch<'_>)) -> Option<usize> {
        let spec = registry().space("gemv_q4_0").unwrap().kernels.iter().find(|k| k.baseline).unwrap();
        let mut check = TimedCheck::new(op("gemv_q4_0").unwrap(), &problem(), spec, SLOTS, seed).unwrap();
        let mut outputs = vec![vec![0xff; 80]; SLOTS];
        for interval in 0..intervals {
            let slots = check.next_interval();
            for (i, slot) in slots.iter().enumerate() {
                if slot.fill == Fill::Poison {
                    outputs[i].fill(0xff);
                }
            }
            let problems: Vec<Problem> = check.problems().cloned().collect();
            for (i, slot) in slots.iter().enumerate() {
                kernel((i, &problems[slot.activation], &mut outputs[i]));
            }
            for (slot, output) in slots.iter().zip(&outputs).filter(|(slot, _)| slot.verify) {
                if let Err(failure) = check.verify(slot, std::slice::from_ref(output)) {
                    assert_eq!(failure.stage, Stage::Cheat);
                    return Some(interval);
                }
            }
            assert!(check.verified_share() >= 0.05);
        }
        None
    }

    #[test]
    fn an_honest_kernel_is_never_found_out() {
        for seed in 0..100 {
            assert_eq!(time(seed, 40, |(_, problem, out)| *out = right(problem)), None, "seed {seed}");
        }
    }

    #[test]
    fn a_cache_of_outputs_by_address_is_found_out() {
        for seed in 0..100 {
            let mut cache: HashMap<usize, Vec<u8>> = HashMap::new();
            let found = time(seed, 100, |(slot, problem, out)| {
                *out = cache.entry(slot).or_insert_with(|| right(problem)).clone();
            });
            assert!(found.is_some(), "seed {seed}");
        }
    }

    #[test]
    fn a_kernel_that_computes_only_into_poison_is_found_out() {
        for seed in 0..100 {
            let found = time(seed, 100, |(_, problem, out)| {
                if out.iter().all(|&b| b == 0xff) {
                    *out = right(problem);
                }
            });
            assert!(found.is_some(), "seed {seed}");
        }
    }

    #[test]
    fn a_kernel_that_skips_launches_of_a_batch_is_found_out() {
        for seed in 0..100 {
            for kept in [1, 2, 3, SLOTS - 1] {
                // All but `kept` of ten launches are left out; the first or the last are those most likely looked at.
                for first in [true, false] {
                    let found = time(seed, 400, |(slot, problem, out)| {
                        if if first { slot < kept } else { slot >= SLOTS - kept } {
                            *out = right(problem);
                        }
                    });
                    assert!(found.is_some(), "seed {seed}, {kept} launches kept");
                }
            }
        }
    }

    #[test]
    fn a_slot_never_has_the_activations_it_had_before() {
        let spec = registry().space("gemv_q4_0").unwrap().kernels.iter().find(|k| k.baseline).unwrap();
        let mut check = TimedCheck::new(op("gemv_q4_0").unwrap(), &problem(), spec, SLOTS, 1).unwrap();
        assert!(check.problems().len() >= 4);
        let mut last = check.next_interval();
        assert!(last.iter().all(|s| s.fill == Fill::Poison), "nothing was written yet");
        let mut stale = 0;
        for _ in 0..100 {
            let next = check.next_interval();
            assert!(last.iter().zip(&next).all(|(a, b)| a.activation != b.activation));
            stale += next.iter().filter(|s| s.fill == Fill::Stale).count();
            last = next;
        }
        assert!((300..700).contains(&stale), "{stale} of 1000 slots were left as they were");
    }

    #[test]
    fn an_op_of_weights_alone_always_gets_poison() {
        let read = op("stream_read").unwrap();
        let shape = Shape::of([("BYTES", 4096)]);
        let problem = read.problem(&shape, &read.cases(&shape, 1, crate::op::Depth::Quick)[0]);
        let spec = registry().space("gemv_q4_0").unwrap().kernels.iter().find(|k| k.baseline).unwrap();
        let mut check = TimedCheck::new(read, &problem, spec, 3, 1).unwrap();
        assert_eq!(check.problems().len(), 1);
        assert!((0..50).all(|_| check.next_interval().iter().all(|s| s.fill == Fill::Poison)));
    }
}
