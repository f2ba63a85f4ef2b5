//! Recorded spaces: strategies compared without a device, and a target that plays a record back (R16).
//!
//! A space file is what a `sweep` leaves as `trials.jsonl`: one [`Trial`] a line. Of each, the variant, the outcome and the
//! kept samples are used; lines of run-offs and floors are passed over. The points of the space are made from the tunables
//! in the variants' names, so the file needs nothing beside it.

use std::collections::{BTreeMap, HashMap};

use harness_spec::record::{Outcome, Trial, TrialPurpose};
use harness_spec::units::{Bytes, Nanos};
use harness_spec::{
    Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, Policy, Prepared, Stage, Target, Workload,
};

use super::plan::{Candidate, candidates};
use super::strategy::{Ask, Known, Seen, StrategyKind};
use crate::describe::median;

/// A file that is no space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Nothing to replay.
    #[error("the file holds no trial of a candidate: record one with `bench sweep` and use its trials.jsonl")]
    Empty,
    /// Nothing valid to find.
    #[error("no candidate of {0} has a valid time, so there is no optimum to find")]
    NoTime(String),
}

/// A recorded space of one workload under one policy.
#[derive(Clone, Debug)]
pub struct Space {
    /// The workload.
    pub workload: Workload,
    /// The policy.
    pub policy: Policy,
    /// The points.
    pub candidates: Vec<Candidate>,
    /// What is known of each point: a time, or that it is invalid.
    pub known: Vec<Known>,
}

/// A search over a recorded space.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayedSearch {
    /// Candidates in the order they were asked for.
    pub asked: Vec<usize>,
    /// The best time found, ns.
    pub best_ns: Option<f64>,
}

impl Space {
    /// The spaces in a list of trials, one a workload and policy, in the order of their first line. Of several trials of
    /// one variant the last counts.
    ///
    /// # Errors
    /// Without a candidate, or without a valid time in one of the spaces.
    pub fn from_trials(trials: &[Trial]) -> Result<Vec<Space>, ReplayError> {
        let mut order: Vec<(Workload, Policy)> = Vec::new();
        let mut spaces: HashMap<(Workload, Policy), BTreeMap<String, &Trial>> = HashMap::new();
        for t in trials.iter().filter(|t| t.purpose == TrialPurpose::Candidate) {
            let id = (t.cell.workload.clone(), t.cell.policy);
            if !order.contains(&id) {
                order.push(id.clone());
            }
            spaces.entry(id).or_default().insert(t.cell.variant.to_string(), t);
        }
        if order.is_empty() {
            return Err(ReplayError::Empty);
        }
        order
            .into_iter()
            .map(|(workload, policy)| {
                let trials: Vec<&Trial> = spaces[&(workload.clone(), policy)].values().copied().collect();
                let ids: Vec<_> = trials.iter().map(|t| t.cell.variant.clone()).collect();
                let known: Vec<Known> = trials.iter().map(|t| known(t)).collect();
                if known.iter().all(|k| k.time().is_none()) {
                    return Err(ReplayError::NoTime(workload.to_string()));
                }
                Ok(Space { workload, policy, candidates: candidates(&ids), known })
            })
            .collect()
    }

    /// The least time of the space, ns.
    pub fn optimum_ns(&self) -> f64 {
        self.known.iter().filter_map(|k| k.time()).fold(f64::INFINITY, f64::min)
    }

    /// Share of the points within this factor of the optimum.
    pub fn share_within(&self, factor: f64) -> f64 {
        let best = self.optimum_ns();
        let near = self.known.iter().filter(|k| k.time().is_some_and(|t| t <= best * factor)).count();
        near as f64 / self.known.len() as f64
    }
}

fn known(trial: &Trial) -> Known {
    let kept: Vec<f64> = trial.samples.iter().filter(|s| s.dropped.is_none()).map(|s| s.ns).collect();
    match (trial.outcome.is_measured(), median(&kept)) {
        (true, Some(ns)) => Known::Time(ns),
        _ => Known::Invalid,
    }
}

/// Plays one strategy with one seed over a recorded space, at most `limit` evaluations. Failed configurations count, and
/// so does a cheap look.
pub fn play(space: &Space, strategy: StrategyKind, seed: u64, limit: usize) -> PlayedSearch {
    let mut search = strategy.start(seed);
    let mut known: Vec<Option<Known>> = vec![None; space.candidates.len()];
    let mut asked: Vec<usize> = Vec::new();
    let mut best: Option<f64> = None;
    loop {
        let left = limit.saturating_sub(asked.len());
        let Ask { batch, look, .. } = search.ask(&Seen { candidates: &space.candidates, known: &known, left });
        if batch.is_empty() {
            return PlayedSearch { asked, best_ns: best };
        }
        let mut progressed = false;
        for i in batch {
            if known[i].is_none() {
                if asked.len() >= limit {
                    continue;
                }
                asked.push(i);
            }
            progressed = true;
            known[i] = Some(match (space.known[i], look) {
                (Known::Time(ns), Some(_)) => Known::Glimpse(ns),
                (answer, _) => answer,
            });
            if let Some(ns) = known[i].and_then(Known::time) {
                best = Some(best.map_or(ns, |b: f64| b.min(ns)));
            }
        }
        if !progressed {
            return PlayedSearch { asked, best_ns: best };
        }
    }
}

/// A device that answers from recorded trials. Its clock runs by what the samples took.
pub struct Replay {
    device: DeviceKey,
    canary: Canary,
    trials: HashMap<Cell, Trial>,
    next: HashMap<Cell, usize>,
    now: u64,
}

impl Replay {
    /// Of these trials on this device, with its canary.
    pub fn new(device: DeviceKey, canary: Canary, trials: &[Trial]) -> Replay {
        let candidates = trials.iter().filter(|t| t.purpose != TrialPurpose::RunOff);
        let trials = candidates.map(|t| (t.cell.clone(), t.clone())).collect();
        Replay { device, canary, trials, next: HashMap::new(), now: 0 }
    }

    fn trial(&self, cell: &Cell) -> Result<&Trial, CellFailure> {
        let missing = || CellFailure::new(Stage::Harness, format!("{} is not in the recorded space", cell.variant));
        self.trials.get(cell).ok_or_else(missing)
    }

    /// The recorded failure, if it happened at one of these stages.
    fn failure(&self, cell: &Cell, at: impl Fn(Stage) -> bool) -> Result<(), CellFailure> {
        match &self.trial(cell)?.outcome {
            Outcome::Failed { stage, message } if at(*stage) => Err(CellFailure::new(*stage, message.clone())),
            Outcome::Skipped { reason } if at(Stage::Constraint) => {
                Err(CellFailure::new(Stage::Constraint, reason.clone()))
            }
            _ => Ok(()),
        }
    }
}

fn before_launch(stage: Stage) -> bool {
    matches!(stage, Stage::Constraint | Stage::Compile | Stage::Resources)
}

impl Target for Replay {
    fn device(&self) -> DeviceKey {
        self.device.clone()
    }

    fn now(&self) -> Nanos {
        Nanos(self.now)
    }

    fn rest(&mut self, pause: Nanos) {
        self.now += pause.0;
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        cells
            .iter()
            .map(|cell| {
                self.failure(cell, before_launch)?;
                let trial = self.trial(cell)?;
                Ok(Prepared {
                    bytes: trial.bytes.unwrap_or_default(),
                    flops: trial.flops.unwrap_or(0),
                    redundant: trial.redundant,
                    resources: trial.resources.clone().unwrap_or_default(),
                    key: trial.key.clone(),
                    compile: Nanos(0),
                })
            })
            .collect()
    }

    fn check(&mut self, cell: &Cell, _: u64) -> Result<CheckReport, CellFailure> {
        self.failure(cell, |s| s == Stage::Check)?;
        let trial = self.trial(cell)?;
        let none = CheckReport { cases: Vec::new(), worst_of_bound: 0.0, worst_relative_l2: 0.0 };
        Ok(trial.check.clone().unwrap_or(none))
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        self.failure(cell, |s| !before_launch(s))?;
        let trial = self.trial(cell)?;
        let kept: Vec<&_> = trial.samples.iter().filter(|s| s.dropped.is_none()).collect();
        if kept.is_empty() {
            return Err(CellFailure::new(Stage::Harness, format!("{} has no recorded sample", cell.variant)));
        }
        let from = self.next.get(cell).copied().unwrap_or(0);
        let samples: Vec<CellSample> = (from..from + count as usize)
            .map(|i| {
                let s = kept[i % kept.len()];
                CellSample {
                    ns: s.ns,
                    launches: s.launches,
                    sm_clock_mhz: s.sm_clock_mhz,
                    mem_clock_mhz: s.mem_clock_mhz,
                    verified: s.verified,
                }
            })
            .collect();
        self.now += samples.iter().map(|s| s.ns * f64::from(s.launches)).sum::<f64>() as u64;
        self.next.insert(cell.clone(), from + count as usize);
        Ok(samples)
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        Ok(Canary { working_set, ..self.canary.clone() })
    }
}
