//! The state of one workload: what is known of each candidate, and how a batch becomes trials.

use std::collections::BTreeMap;

use harness_spec::record::{
    CellResult, CellRole, KERNEL_SCHEMA_VERSION, KernelRunKind, Outcome, StopReason, Trial, TrialCost, TrialPurpose,
};
use harness_spec::units::Nanos;
use harness_spec::{Cell, CellFailure, CheckReport, DeviceKey, Prepared, Stage, VariantId};

use super::journal::{Journal, JournalError};
use super::key::trial_key;
use super::plan::{Plan, WorkloadPlan};
use super::progress::{Event, Progress};
use super::strategy::Known;
use crate::cell::{Ceiling, Ghost, Halt, RoundRobin, Runner, burn_in, cell_result, competes, warm_up};
use crate::clock::ReferenceClock;
use crate::cost::Timed;
use crate::describe::median;

/// What all workloads share.
pub(super) struct Shared<'a, 'b> {
    pub plan: &'a Plan,
    pub device: DeviceKey,
    pub bench: Timed<'b>,
    pub journal: &'a mut dyn Journal,
    pub progress: &'a mut dyn Progress,
    pub clock: ReferenceClock,
    pub burnt_in: bool,
}

/// A finished trial and where it came from.
pub(super) struct Entry {
    pub trial: Trial,
    pub from_cache: bool,
    /// What a strategy may know of it.
    pub known: Known,
    /// Its least kept time where it competes, ns; infinite where it does not.
    least: f64,
}

/// One workload while it is searched.
pub(super) struct Race<'a> {
    pub plan: &'a WorkloadPlan,
    pub ceiling: Ceiling,
    /// Evaluations at most.
    pub limit: usize,
    /// By candidate.
    pub entries: BTreeMap<usize, Entry>,
    pub floor: Vec<Entry>,
    pub library: Vec<Entry>,
    /// Candidates asked for, failed ones included, and those of them from the journal.
    pub evaluations: u64,
    pub from_cache: u64,
    pub trace: Vec<(u64, f64)>,
    /// Time that was waited for the compiler, and cells that it was for.
    built: (Nanos, u64),
    /// The least full median so far, ns.
    best_ns: Option<f64>,
    /// Why it ended before the strategy did.
    pub halted: Option<&'static str>,
}

/// A candidate on its way through one batch.
struct Pending {
    slot: usize,
    cell: Cell,
    key: String,
    prepared: Option<Prepared>,
    check: Option<CheckReport>,
    verify: Nanos,
    purpose: TrialPurpose,
}

impl Pending {
    fn trial(&self, shared: &Plan, outcome: Outcome, runner: Option<&Runner>, at: Nanos) -> Trial {
        let built = self.prepared.as_ref();
        Trial {
            schema: KERNEL_SCHEMA_VERSION,
            provenance: shared.provenance,
            purpose: self.purpose,
            cell: self.cell.clone(),
            key: self.key.clone(),
            outcome,
            warm_up: runner.and_then(|r| r.warm_up.clone()),
            samples: runner.map(|r| r.samples.clone()).unwrap_or_default(),
            stop: runner.and_then(|r| r.stop),
            check: self.check.clone(),
            resources: built.map(|p| p.resources.clone()),
            bytes: built.map(|p| p.bytes),
            flops: built.map(|p| p.flops),
            redundant: built.and_then(|p| p.redundant),
            cost: TrialCost {
                compile: built.map(|p| p.compile).unwrap_or_default(),
                verify: self.verify,
                time: runner.map(|r| r.time).unwrap_or_default(),
                idle: runner.map(|r| r.idle).unwrap_or_default(),
            },
            at_ns: at,
        }
    }
}

impl<'a> Race<'a> {
    pub fn new(plan: &'a WorkloadPlan, ceiling: Ceiling, limit: usize) -> Race<'a> {
        Race {
            plan,
            ceiling,
            limit,
            entries: BTreeMap::new(),
            floor: Vec::new(),
            library: Vec::new(),
            evaluations: 0,
            from_cache: 0,
            trace: Vec::new(),
            built: (Nanos(0), 0),
            best_ns: None,
            halted: None,
        }
    }

    /// What a candidate's trial says.
    pub fn result(&self, candidate: usize, plan: &Plan) -> Option<CellResult> {
        let entry = self.entries.get(&candidate)?;
        let role = self.plan.role(candidate);
        let floor = self.floor_ns(plan);
        Some(cell_result(&entry.trial, role, entry.from_cache, self.ceiling, floor, &plan.settings))
    }

    /// What the floor's trials say.
    pub fn floor_results(&self, plan: &Plan) -> Vec<CellResult> {
        self.results(&self.floor, CellRole::Floor, None, plan)
    }

    /// What the trials of libraries say.
    pub fn library_results(&self, plan: &Plan) -> Vec<CellResult> {
        self.results(&self.library, CellRole::Library, self.floor_ns(plan), plan)
    }

    fn results(&self, of: &[Entry], role: CellRole, floor: Option<f64>, plan: &Plan) -> Vec<CellResult> {
        of.iter().map(|e| cell_result(&e.trial, role, e.from_cache, self.ceiling, floor, &plan.settings)).collect()
    }

    /// The least valid time of a floor.
    pub fn floor_ns(&self, plan: &Plan) -> Option<f64> {
        let medians = self.floor_results(plan).into_iter().filter(competes).filter_map(|r| r.time_ns.map(|t| t.median));
        medians.min_by(f64::total_cmp)
    }

    /// The reads of the floor that have a valid time, the fastest first.
    pub fn fastest_reads(&self, plan: &Plan) -> Vec<VariantId> {
        let timed = self.floor_results(plan).into_iter().filter(competes);
        let mut timed: Vec<_> = timed.filter_map(|r| Some((r.time_ns?.median, r.cell.variant))).collect();
        timed.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        timed.into_iter().map(|(_, read)| read).collect()
    }

    /// What the strategy may know.
    pub fn known(&self) -> Vec<Option<Known>> {
        (0..self.plan.candidates.len()).map(|i| self.entries.get(&i).map(|e| e.known)).collect()
    }

    /// Evaluates candidates together. `Some` is why the run was halted inside; what was finished by then is kept.
    pub fn evaluate(
        &mut self,
        shared: &mut Shared,
        batch: &[usize],
        look: Option<u32>,
        halt: Halt<'_>,
    ) -> Result<Option<&'static str>, JournalError> {
        let cells: Vec<(usize, Cell)> = batch.iter().map(|&i| (i, self.plan.cell(i))).collect();
        let halted = self.trials(shared, cells, look, halt, TrialPurpose::Candidate)?;
        // By batches: within one, what the journal knew comes first, and a resumed run has to leave the same trace.
        if let Some(ns) = self.best_ns.filter(|ns| self.trace.last().is_none_or(|(_, last)| ns < last)) {
            self.trace.push((self.evaluations, ns));
        }
        Ok(halted)
    }

    /// Times the floor: with these reads, or with all where they are none.
    pub fn evaluate_floor(
        &mut self,
        shared: &mut Shared,
        reads: &[VariantId],
        halt: Halt<'_>,
    ) -> Result<Option<&'static str>, JournalError> {
        let cells = self.plan.floor.iter().filter(|c| reads.is_empty() || reads.contains(&c.variant));
        let cells = cells.cloned().enumerate().collect();
        let halted = self.trials(shared, cells, None, halt, TrialPurpose::Floor)?;
        // The read kernel of the workload's own size may reach more than the canary did.
        for r in self.floor_results(shared.plan).iter().filter(|r| competes(r)) {
            let rate = r.gb_per_s.value.unwrap_or(0.0);
            self.ceiling.read_gb_per_s = Some(self.ceiling.read_gb_per_s.unwrap_or(0.0).max(rate));
        }
        Ok(halted)
    }

    /// Times the kernels of libraries, apart from the candidates: neither eliminates the other.
    pub fn evaluate_library(
        &mut self,
        shared: &mut Shared,
        halt: Halt<'_>,
    ) -> Result<Option<&'static str>, JournalError> {
        if self.plan.library.is_empty() {
            return Ok(None);
        }
        let cells = self.plan.library.iter().map(|v| self.plan.cell_of(v)).enumerate().collect();
        self.trials(shared, cells, None, halt, TrialPurpose::Library)
    }

    /// Takes in a trial that is in the journal.
    fn take(&mut self, shared: &mut Shared, slot: usize, trial: Trial, from_cache: bool, look: Option<u32>) {
        let competing = trial.purpose == TrialPurpose::Candidate;
        let role = match trial.purpose {
            TrialPurpose::Floor => CellRole::Floor,
            TrialPurpose::Library => CellRole::Library,
            TrialPurpose::Candidate | TrialPurpose::RunOff => self.plan.role(slot),
        };
        let result = cell_result(&trial, role, from_cache, self.ceiling, None, &shared.plan.settings);
        let time = result.time_ns.as_ref().filter(|_| competes(&result));
        let known = match (time, look) {
            (Some(t), None) => Known::Time(t.median),
            (Some(t), Some(_)) => Known::Glimpse(t.median),
            (None, _) => Known::Invalid,
        };
        let before = self.entries.get(&slot).filter(|_| competing);
        // A look says less than a full time, and what this run has measured is not from the journal for being asked twice.
        let keep = look.is_some() && before.is_some_and(|e| matches!(e.known, Known::Time(_)));
        let from_cache = from_cache && before.is_none_or(|e| e.from_cache);
        let entry = Entry { known, least: time.map_or(f64::INFINITY, |t| t.min), from_cache, trial: trial.clone() };
        if !competing {
            let apart = if role == CellRole::Floor { &mut self.floor } else { &mut self.library };
            apart.push(entry);
        } else if !keep {
            if self.entries.insert(slot, entry).is_none() {
                self.evaluations += 1;
                self.from_cache += u64::from(from_cache);
            }
            if let Some(ns) = known.time().filter(|ns| self.best_ns.is_none_or(|best| *ns < best)) {
                self.best_ns = Some(ns);
            }
        }
        let (done, best_ns) = (self.evaluations as usize, self.best_ns);
        shared.progress.event(&Event::Trial { trial: &trial, from_cache, done, best_ns });
    }

    /// Builds, checks, warms and samples cells, and keeps each in the journal the moment it is finished.
    fn trials(
        &mut self,
        shared: &mut Shared,
        cells: Vec<(usize, Cell)>,
        look: Option<u32>,
        halt: Halt<'_>,
        purpose: TrialPurpose,
    ) -> Result<Option<&'static str>, JournalError> {
        let plan = shared.plan;
        let only_check = plan.kind == KernelRunKind::Verify;
        let (pending, ghosts) = self.build(shared, cells, look, purpose)?;
        let mut ready: Vec<Pending> = Vec::new();
        let mut runners: Vec<Runner> = Vec::new();
        // What has passed its check is timed to its end even where the time is over meanwhile: that takes a fraction of what
        // it has cost already, and a batch is short. Only Ctrl-C drops it.
        let mut out_of_time = None;
        for mut p in pending {
            out_of_time = halt.asked(shared.bench.elapsed());
            if out_of_time.is_some() {
                break;
            }
            // A longer look at what was only looked at: the same machine code has passed already.
            let passed = self.entries.get(&p.slot).filter(|_| purpose == TrialPurpose::Candidate);
            let (check, took) = match passed.and_then(|e| e.trial.check.clone()) {
                Some(report) => (Ok(report), Nanos(0)),
                None => shared.bench.check(&p.cell, plan.seed),
            };
            p.verify = took;
            match check {
                Err(failure) => self.fail(shared, &p, failure, None, look)?,
                Ok(report) if only_check => {
                    p.check = Some(report);
                    let trial = p.trial(plan, Outcome::Verified, None, shared.bench.elapsed());
                    shared.journal.append(trial.clone())?;
                    self.take(shared, p.slot, trial, false, None);
                }
                Ok(report) => {
                    p.check = Some(report);
                    let mut runner = Runner::new(p.cell.clone(), &plan.settings);
                    runner.look = look;
                    if let Some(built) = &p.prepared {
                        runner.least_ns = self.ceiling.least_ns(built.bytes, built.flops);
                    }
                    ready.push(p);
                    runners.push(runner);
                }
            }
        }
        let halt = Halt { deadline: None, ..halt };
        for (p, runner) in ready.iter().zip(&mut runners) {
            if let Some(why) = halt.asked(shared.bench.elapsed()) {
                return Ok(Some(why));
            }
            warm(shared, runner);
            if let Some(failure) = runner.failure.clone() {
                self.fail(shared, p, failure, Some(runner), look)?;
            }
        }
        // Floors and libraries are not held against candidates, nor the other way round.
        let earlier = self.entries.values().map(|e| e.least).fold(f64::INFINITY, f64::min);
        let best_before = if purpose == TrialPurpose::Candidate { earlier } else { f64::INFINITY };
        let robin = RoundRobin { settings: &plan.settings, clock: shared.clock, halt, ghosts: &ghosts, best_before };
        let mut done: Vec<(usize, Trial)> = Vec::new();
        let Shared { bench, journal, .. } = shared;
        let halted = robin.run(bench, &mut runners, &mut |i, runner, at| {
            let trial = ready[i].trial(plan, outcome_of(runner, &plan.settings, look), Some(runner), at);
            journal.append(trial.clone())?;
            done.push((ready[i].slot, trial));
            Ok(())
        })?;
        for (slot, trial) in done {
            self.take(shared, slot, trial, false, look);
        }
        Ok(halted.or(out_of_time))
    }

    /// What one more trial will take, about: the median of what those of this workload took on the device, and what was
    /// waited for the compiler. `None` where all came from the journal.
    pub fn cost_of_a_trial(&self) -> Option<Nanos> {
        let fresh = self.floor.iter().chain(self.entries.values()).filter(|e| !e.from_cache);
        let costs: Vec<f64> = fresh.map(|e| (e.trial.cost.verify + e.trial.cost.time).0 as f64).collect();
        let (waited, cells) = self.built;
        median(&costs).map(|ns| Nanos(ns as u64 + waited.0 / cells.max(1)))
    }

    /// Candidates with a full time, the fastest first.
    pub fn ranked(&self) -> Vec<usize> {
        let mut timed: Vec<(usize, f64)> =
            self.entries.iter().filter_map(|(&i, e)| Some((i, e.known.time()?))).collect();
        timed.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        timed.into_iter().map(|(i, _)| i).collect()
    }

    /// Builds cells; what the journal knows and what cannot be built is taken in at once.
    fn build(
        &mut self,
        shared: &mut Shared,
        cells: Vec<(usize, Cell)>,
        look: Option<u32>,
        purpose: TrialPurpose,
    ) -> Result<(Vec<Pending>, Vec<Ghost>), JournalError> {
        let plan = shared.plan;
        let list: Vec<Cell> = cells.iter().map(|(_, c)| c.clone()).collect();
        let before = shared.bench.elapsed();
        let built = shared.bench.prepare(&list);
        self.built = (self.built.0 + (shared.bench.elapsed() - before), self.built.1 + list.len() as u64);
        let (mut pending, mut ghosts) = (Vec::new(), Vec::new());
        for ((slot, cell), built) in cells.into_iter().zip(built) {
            let built_key = built.as_ref().ok().map(|p| p.key.as_str());
            let mut key = trial_key(built_key, &cell, &shared.device, &plan.settings, look);
            if plan.kind == KernelRunKind::Verify {
                key.push_str("-check");
            }
            // What the harness itself failed at says nothing of the variant, and a simulated time nothing of a device.
            let usable = |t: &&Trial| {
                let harness = matches!(t.outcome, Outcome::Failed { stage: Stage::Harness, .. });
                t.provenance == plan.provenance && !harness
            };
            let found = shared.journal.find(&key).filter(usable).cloned();
            let p = Pending { slot, cell, key, prepared: None, check: None, verify: Nanos(0), purpose };
            match (found, built) {
                (Some(mut trial), built) => {
                    trial.purpose = purpose;
                    // It follows from the space and not from the machine code, which alone is part of the key.
                    trial.redundant = built.map_or(trial.redundant, |p| p.redundant);
                    let (bytes, flops) = (trial.bytes.unwrap_or_default(), trial.flops.unwrap_or(0));
                    ghosts.push(Ghost::of(&trial, self.ceiling.least_ns(bytes, flops)));
                    self.take(shared, slot, trial, true, look);
                }
                (None, Err(failure)) => self.fail(shared, &p, failure, None, look)?,
                (None, Ok(prepared)) => pending.push(Pending { prepared: Some(prepared), ..p }),
            }
        }
        Ok((pending, ghosts))
    }

    /// Takes the time of a finalist that failed in the run-off: it may not win.
    pub fn disqualify(&mut self, candidate: usize, failure: CellFailure) {
        if let Some(entry) = self.entries.get_mut(&candidate) {
            entry.trial.outcome = Outcome::of_failure(failure);
            entry.known = Known::Invalid;
        }
    }

    fn fail(
        &mut self,
        shared: &mut Shared,
        pending: &Pending,
        failure: CellFailure,
        runner: Option<&Runner>,
        look: Option<u32>,
    ) -> Result<(), JournalError> {
        let trial = pending.trial(shared.plan, Outcome::of_failure(failure), runner, shared.bench.elapsed());
        shared.journal.append(trial.clone())?;
        self.take(shared, pending.slot, trial, false, look);
        Ok(())
    }
}

fn warm(shared: &mut Shared, runner: &mut Runner) {
    let settings = &shared.plan.settings;
    let mut warmed = Ok(());
    if !shared.burnt_in {
        shared.burnt_in = true;
        warmed = burn_in(&mut shared.bench, &runner.cell, settings).map(|_| ());
    }
    match warmed.and_then(|()| warm_up(&mut shared.bench, &runner.cell, settings)) {
        Ok((warm, took)) => {
            runner.warm_up = Some(warm);
            runner.time = took;
        }
        Err(failure) => runner.failure = Some(failure),
    }
}

/// What a finished runner came to.
fn outcome_of(runner: &Runner, settings: &crate::cell::Settings, look: Option<u32>) -> Outcome {
    if let Some(failure) = &runner.failure {
        return Outcome::of_failure(failure.clone());
    }
    let least = look.map_or(settings.least, |l| l as usize);
    if runner.stop == Some(StopReason::Unstable) && runner.kept() >= least {
        return Outcome::Unstable { reason: "waiting for the clock to recover was used up".to_owned() };
    }
    if runner.kept() < least {
        let (kept, taken) = (runner.kept(), runner.samples.len());
        // Too slow for ten samples, as a plain kernel can be, is no fault of the samples.
        let budget = match runner.stop {
            Some(StopReason::Budget) => "; its device time was used up, --cell-budget gives it more",
            _ => "",
        };
        return Outcome::Unstable {
            reason: format!("{kept} of {taken} samples were valid, {least} are needed{budget}"),
        };
    }
    Outcome::Measured
}
