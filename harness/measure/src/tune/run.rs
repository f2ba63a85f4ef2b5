//! A run from its first canary to its last, over all workloads.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use harness_spec::record::{CanaryReading, CellResult, CostReport, KernelRunKind, SpaceAccount, WorkloadResult};
use harness_spec::units::{Bytes, Nanos};
use harness_spec::{CacheState, Canary, Cell, DeviceKey, Target, VariantId};

use super::conclude::{account, conclude, untouched};
use super::finals::run_off;
use super::journal::{Journal, JournalError};
use super::plan::{Plan, WorkloadPlan};
use super::progress::{Event, Progress};
use super::race::{Race, Shared};
use super::shares::Shares;
use super::strategy::{Ask, Seen, Strategy, StrategyKind};
use crate::canary::suspect;
use crate::cell::{Ceiling, Halt, OUT_OF_TIME};
use crate::clock::ReferenceClock;
use crate::cost::Timed;

/// The best of a shape that other shapes of the op begin with, and how many of all shapes, the last first.
const LEADERS: usize = 3;
const HINTS: usize = 12;

/// Reads of the first floor, the fastest ones, that the floors of other sizes are timed with.
const READS: usize = 3;

/// Everything that a run found out; `bench` adds machine, program and command, and has a record.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelOutcome {
    /// What keys the results.
    pub device: DeviceKey,
    /// Wall time.
    pub wall: Nanos,
    /// Ceilings before and after.
    pub canaries: Vec<CanaryReading>,
    /// Why the run is suspect.
    pub suspect: Option<String>,
    /// Where the time went.
    pub cost: CostReport,
    /// What became of each search space.
    pub accounts: Vec<SpaceAccount>,
    /// Every cell that was reached, floors and kernels of libraries included.
    pub cells: Vec<CellResult>,
    /// Every workload.
    pub results: Vec<WorkloadResult>,
    /// Why this is not the whole answer.
    pub incomplete: Option<String>,
    /// Anything a reader must know.
    pub notes: Vec<String>,
}

/// Runs a plan to its end, or until `stop` is set or its time is used up; then the answer is valid and says that it is
/// incomplete, and a later run with the same journal finishes it.
///
/// # Errors
/// Only where a finished trial cannot be kept. Whatever happens on the device is data.
pub fn run(
    target: &mut dyn Target,
    plan: &Plan,
    journal: &mut dyn Journal,
    progress: &mut dyn Progress,
    stop: &AtomicBool,
) -> Result<KernelOutcome, JournalError> {
    let device = target.device();
    let bench = Timed::start(target);
    let clock = ReferenceClock(None);
    let mut shared = Shared { plan, device, bench, journal, progress, clock, burnt_in: false };
    let mut notes = Vec::new();
    let mut canaries = Canaries::default();
    let timing = plan.kind != KernelRunKind::Verify;
    if timing {
        canaries.before(&mut shared, &mut notes);
    }
    let (mut accounts, mut cells, mut results) = (Vec::new(), Vec::new(), Vec::new());
    let count = plan.workloads.len();
    let (limits, wanted) = (plan.limits(), plan.unbounded());
    let mut shares = plan.time_budget.map(|budget| Shares::new(budget, shared.bench.elapsed(), &limits, plan.costs));
    // Winners of an op at other shapes, by op and policy.
    let mut winners: BTreeMap<(&str, String), Vec<VariantId>> = BTreeMap::new();
    // The fastest reads of the first floor, by policy.
    let mut reads: BTreeMap<String, Vec<VariantId>> = BTreeMap::new();
    for (index, workload) in plan.workloads.iter().enumerate() {
        let name = format!("{} {}", workload.workload, workload.policy);
        let limit = limits[index];
        shared.progress.event(&Event::Workload { index, of: count, name, evaluations: limit });
        let ceiling = canaries.ceiling(&mut shared, workload, timing);
        let mut race = Race::new(workload, ceiling, limit);
        let began = shared.bench.elapsed();
        let deadline = shares.as_ref().map(|s| s.deadline(index, began));
        let end = shares.as_ref().map(|s| s.end);
        let halts = Halts { must: Halt { stop, deadline: end }, rest: Halt { stop, deadline } };
        let known = winners.entry((&workload.workload.op, workload.policy.to_string())).or_default();
        let scarce = limit < wanted[index];
        race.halted = open(&mut race, &mut shared, halts.must, reads.entry(workload.policy.to_string()).or_default())?;
        let opened = shared.bench.elapsed();
        if race.halted.is_none() {
            race.halted = search(&mut race, &mut shared, halts.rest, &Ideas { elsewhere: known, scarce })?;
        }
        let searched = shared.bench.elapsed();
        let goes_on = halts.must.asked(searched).is_none();
        if let Some(next) = plan.workloads.get(index + 1).filter(|_| goes_on) {
            let cells: Vec<Cell> = next.first().iter().map(|&i| next.cell(i)).chain(next.floor.clone()).collect();
            shared.bench.prefetch(&cells);
        }
        for i in race.ranked().into_iter().take(LEADERS) {
            let leader = &workload.candidates[i].variant;
            if !known.contains(leader) {
                known.push(leader.clone());
            }
        }
        let result = if timing {
            // The run-off belongs to the answer and is short: only Ctrl-C keeps it from being played.
            let final_round = run_off(&mut race, &mut shared, Halt { stop, deadline: None })?;
            conclude(&race, plan, final_round)
        } else {
            untouched(&race)
        };
        if let Some(winner) = &result.winner {
            shared.bench.settle(&Cell {
                variant: winner.clone(),
                workload: workload.workload.clone(),
                policy: workload.policy,
            });
        }
        let ended = shared.bench.elapsed();
        if let Some(shares) = &mut shares {
            shares.took(
                index,
                race.evaluations - race.from_cache,
                [opened - began, searched - opened, ended - searched],
            );
        }
        shared.progress.event(&Event::Finished { result: &result, elapsed: ended });
        accounts.push(account(&race));
        cells.extend(race.floor_results(plan));
        cells.extend(race.library_results(plan));
        cells.extend((0..workload.candidates.len()).filter_map(|i| race.result(i, plan)));
        results.push(result);
    }
    if timing && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        canaries.after(&mut shared, &mut notes);
    }
    let open: Vec<&str> = results.iter().filter_map(|r| r.incomplete.as_deref()).collect();
    let incomplete = (!open.is_empty()).then(|| {
        let reason = open[0];
        format!("{} of {count} workloads are incomplete: {reason}", open.len())
    });
    let cost = shared.bench.report();
    Ok(KernelOutcome {
        device: shared.device,
        wall: cost.wall,
        suspect: canaries.suspect(plan.workloads.iter().any(|w| !w.policy.is_in_engine())),
        canaries: canaries.readings,
        cost,
        accounts,
        cells,
        results,
        incomplete,
        notes,
    })
}

/// What ends a workload: the floor and those that must have a time have until the end of the whole budget, since nothing can
/// be said of a workload without them, and the rest until the end of the workload's part.
struct Halts<'a> {
    must: Halt<'a>,
    rest: Halt<'a>,
}

/// Where a search looks before its strategy asks.
struct Ideas<'a> {
    /// What won at other shapes of the op, the last behind.
    elsewhere: &'a [VariantId],
    /// Whether the time budget leaves fewer evaluations than the strategy would have.
    scarce: bool,
}

impl Ideas<'_> {
    /// Candidates to begin with. A row that the table has only since the last run changes none of them, or a run that is
    /// repeated would not find its answers in the cache.
    fn candidates(&self, race: &Race) -> Vec<usize> {
        let plan = race.plan;
        let references: Vec<usize> = plan.first().into_iter().filter(|&i| plan.is_reference(i)).collect();
        // Half is left to the strategy.
        let room = race.limit.saturating_sub(references.len()) / 2;
        let place = |v: &VariantId| plan.candidates.iter().position(|c| c.variant == *v);
        let mut out: Vec<usize> = self.elsewhere.iter().rev().filter_map(place).take(HINTS.min(room)).collect();
        if self.scarce {
            let taken = [references, out.clone()].concat();
            out.extend(plan.ranked_first(&taken).into_iter().take(room - out.len()));
        }
        out
    }
}

/// Times what must have a time: the floor, kernels of libraries, and those that the others are compared with. The floor is
/// timed with `reads`, which are found out where they are not known yet. The answer is why it was halted.
fn open(
    race: &mut Race,
    shared: &mut Shared,
    halt: Halt<'_>,
    reads: &mut Vec<VariantId>,
) -> Result<Option<&'static str>, JournalError> {
    let plan = shared.plan;
    if plan.kind != KernelRunKind::Verify {
        if let Some(why) = race.evaluate_floor(shared, reads, halt)? {
            return Ok(Some(why));
        }
        // A sweep leaves nothing out.
        if reads.is_empty() && plan.kind == KernelRunKind::Tune {
            *reads = race.fastest_reads(plan);
            reads.truncate(READS);
        }
    }
    if let Some(why) = race.evaluate_library(shared, halt)? {
        return Ok(Some(why));
    }
    race.evaluate(shared, &race.plan.first(), None, halt)
}

/// Evaluates until the strategy has no more questions, the limit is reached, or the run is halted.
fn search(
    race: &mut Race,
    shared: &mut Shared,
    halt: Halt<'_>,
    ideas: &Ideas<'_>,
) -> Result<Option<&'static str>, JournalError> {
    let plan = shared.plan;
    let limit = race.limit;
    let first = race.plan.first();
    // Behind those that must have a time, and no more than there is time for.
    let affordable = |race: &Race, shared: &Shared| {
        let remaining = halt.deadline.map(|d| d - shared.bench.elapsed());
        remaining.zip(race.cost_of_a_trial()).map(|(time, cost)| (time.0 / cost.0.max(1)) as usize)
    };
    let ideas = match plan.kind {
        KernelRunKind::Tune => ideas.candidates(race),
        KernelRunKind::Verify | KernelRunKind::Sweep => Vec::new(),
    };
    let mut asked: Vec<usize> = ideas.iter().copied().filter(|i| !first.contains(i)).collect();
    asked.truncate(affordable(race, shared).unwrap_or(usize::MAX));
    if !asked.is_empty()
        && let Some(why) = race.evaluate(shared, &asked, None, halt)?
    {
        return Ok(Some(why));
    }
    let mut strategy = strategy_of(plan);
    // The strategy learns of a row when it asks, for the same reason.
    let mut hidden = race.plan.incumbent.filter(|&i| !race.plan.is_reference(i) && !ideas.contains(&i));
    loop {
        let mut known = race.known();
        if let Some(i) = hidden {
            known[i] = None;
        }
        // A question that cannot be answered in time is not asked: what is left is planned with what there is time for.
        let affordable = affordable(race, shared);
        let left = (limit + usize::from(hidden.is_some())).saturating_sub(race.evaluations as usize);
        let cut = affordable.is_some_and(|n| n < left);
        let left = affordable.map_or(left, |n| n.min(left));
        let Ask { mut batch, look, soon } =
            strategy.ask(&Seen { candidates: &race.plan.candidates, known: &known, left });
        // New candidates beyond the limit are not taken; a longer look at a known one costs no evaluation.
        let mut fresh = 0;
        batch.retain(|&i| {
            fresh += usize::from(known[i].is_none());
            known[i].is_some() || fresh <= left
        });
        if batch.is_empty() {
            return Ok(cut.then_some(OUT_OF_TIME));
        }
        hidden = hidden.filter(|i| !batch.contains(i));
        let cells: Vec<Cell> = batch.iter().chain(&soon).map(|&i| race.plan.cell(i)).collect();
        shared.bench.prefetch(&cells);
        if let Some(why) = race.evaluate(shared, &batch, look, halt)? {
            return Ok(Some(why));
        }
    }
}

fn strategy_of(plan: &Plan) -> Box<dyn Strategy> {
    match plan.kind {
        KernelRunKind::Verify | KernelRunKind::Sweep => StrategyKind::Exhaustive.start(plan.seed),
        KernelRunKind::Tune => plan.strategy.start(plan.seed),
    }
}

/// The canaries of a run: one for everything cold, one for each hot working set.
#[derive(Default)]
struct Canaries {
    readings: Vec<CanaryReading>,
    cold: Option<Canary>,
    hot: BTreeMap<Bytes, Option<Canary>>,
    last: Option<Canary>,
}

impl Canaries {
    fn read(&mut self, shared: &mut Shared, when: &str, set: Bytes, notes: &mut Vec<String>) -> Option<Canary> {
        let answer = shared.bench.canary(set);
        let at_ns = shared.bench.elapsed();
        let (canary, reason) = match answer {
            Ok(c) => (Some(c), None),
            Err(e) => (None, Some(e.to_string())),
        };
        if let Some(reason) = &reason {
            notes.push(format!("the canary {when} the run failed, so its ceilings are unknown: {reason}"));
        }
        self.readings.push(CanaryReading { when: when.to_owned(), at_ns, canary: canary.clone(), reason });
        canary
    }

    fn before(&mut self, shared: &mut Shared, notes: &mut Vec<String>) {
        self.cold = self.read(shared, "before", shared.plan.settings.cold_working_set, notes);
        if let Some(c) = &self.cold {
            shared.clock = ReferenceClock(c.sm_clock_mhz);
            shared.progress.event(&Event::Canary(c));
        }
    }

    fn after(&mut self, shared: &mut Shared, notes: &mut Vec<String>) {
        self.last = self.read(shared, "after", shared.plan.settings.cold_working_set, notes);
    }

    fn suspect(&self, launches: bool) -> Option<String> {
        suspect(self.cold.as_ref()?, self.last.as_ref()?, launches)
    }

    /// The ceilings at the residency of a workload's policy.
    fn ceiling(&mut self, shared: &mut Shared, workload: &WorkloadPlan, timing: bool) -> Ceiling {
        if !timing {
            return Ceiling::default();
        }
        let canary = match workload.policy.cache {
            CacheState::Cold => self.cold.clone(),
            CacheState::Hot => {
                let set = hot_working_set(workload);
                self.hot.entry(set).or_insert_with(|| shared.bench.canary(set).ok()).clone()
            }
        };
        Ceiling {
            read_gb_per_s: canary.as_ref().map(|c| c.read_gb_per_s),
            // Arithmetic does not depend on where the weights are.
            gflop_per_s: self.cold.as_ref().or(canary.as_ref()).and_then(|c| c.gflop_per_s),
        }
    }
}

/// What a hot workload reads again and again: its floor's bytes, else one byte a weight.
fn hot_working_set(workload: &WorkloadPlan) -> Bytes {
    let floor = workload.floor.iter().filter_map(|c| c.workload.shape.get("BYTES")).max();
    let weights = || workload.workload.shape.get("N").unwrap_or(1) * workload.workload.shape.get("K").unwrap_or(1);
    Bytes(floor.unwrap_or_else(weights).max(4096))
}
