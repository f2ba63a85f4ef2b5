//! What became of a target, by records alone.

use std::collections::BTreeMap;

use harness_measure::compare::ALL;
use harness_spec::record::{KernelRun, KernelRunKind, MetricId, RunRecord, SideRole, Verdict};
use serde::Serialize;

use super::{Metric, Target, Targets};
use crate::results::read::{Entry, Found, Record};
use crate::view::depths;

/// How a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetOutcome {
    /// What is wanted is reached.
    AimMet,
    /// What must be reached is.
    Met,
    /// It is by the figure, and the record gives no verdict on it.
    Unproven,
    /// It is not.
    Missed,
    /// No record has the figure.
    NoRecord,
}

impl TargetOutcome {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            TargetOutcome::AimMet => "aim met",
            TargetOutcome::Met => "met",
            TargetOutcome::Unproven => "reached, unproven",
            TargetOutcome::Missed => "missed",
            TargetOutcome::NoRecord => "no record",
        }
    }
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetStatus {
    /// The target.
    pub target: Target,
    /// How it stands.
    pub outcome: TargetOutcome,
    /// The figure of the newest record that has one.
    pub value: Option<f64>,
    /// By which share of its floor it is missed.
    pub missed_by: Option<f64>,
    /// What cannot be passed.
    pub ceiling: Option<f64>,
    /// Folder of the record.
    pub record: Option<String>,
    /// When that was begun, RFC 3339 UTC.
    pub started: Option<String>,
    /// What else a reader must know of the figure.
    pub note: Option<String>,
    /// File of the record that a link goes to.
    #[serde(skip)]
    pub(crate) entry: Option<usize>,
}

impl TargetStatus {
    /// How it stands, with the distance where it is missed.
    pub fn outcome_text(&self) -> String {
        match self.missed_by {
            Some(by) => format!("missed by {:.1} %", by * 100.0),
            None => self.outcome.word().to_owned(),
        }
    }
}

/// A figure of a record.
struct Figure {
    value: f64,
    entry: usize,
    note: Option<String>,
    /// Whether the record stands behind the figure.
    proven: bool,
}

/// Every target, in the order of the list.
pub(crate) fn all(targets: &Targets, found: &Found) -> Vec<TargetStatus> {
    targets.targets.iter().map(|target| status(target, found)).collect()
}

fn status(target: &Target, found: &Found) -> TargetStatus {
    let figure = match &target.metric {
        Metric::OverRead { .. } => over_read(target, found),
        _ => newest(target, found),
    };
    let reached = |value: f64, goal: f64| match target.metric.higher_is_better() {
        true => value >= goal,
        false => value <= goal,
    };
    let value = figure.as_ref().map(|f| f.value);
    let outcome = match value {
        None => TargetOutcome::NoRecord,
        Some(v) if reached(v, target.floor) && figure.as_ref().is_some_and(|f| !f.proven) => TargetOutcome::Unproven,
        Some(v) if target.aim.is_some_and(|aim| reached(v, aim)) => TargetOutcome::AimMet,
        Some(v) if reached(v, target.floor) => TargetOutcome::Met,
        Some(_) => TargetOutcome::Missed,
    };
    let entry = figure.as_ref().map(|f| &found.entries[f.entry]);
    TargetStatus {
        outcome,
        value,
        missed_by: value.filter(|_| outcome == TargetOutcome::Missed).map(|v| (v / target.floor - 1.0).abs()),
        ceiling: target.ceiling.value(),
        record: entry.map(|e| e.folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())),
        started: entry.map(started),
        entry: figure.as_ref().map(|f| f.entry),
        note: figure.and_then(|f| f.note),
        target: target.clone(),
    }
}

fn started(entry: &Entry) -> String {
    match &entry.record {
        Record::Run(r) => r.started.clone(),
        Record::Kernels(r) => r.started.clone(),
        Record::Selftest(r) => r.started.clone(),
    }
}

/// The figure of the newest record that has it.
fn newest(target: &Target, found: &Found) -> Option<Figure> {
    let figures = found.entries.iter().enumerate().filter_map(|(at, entry)| {
        let (value, note) = match &entry.record {
            Record::Run(record) => of_run(target, record)?,
            Record::Kernels(run) => (tune_seconds(target, run)?, None),
            Record::Selftest(_) => return None,
        };
        // Only a verdict that was not given leaves a note here.
        let proven = note.is_none();
        // A record whose figure is no number lacks it.
        value.is_finite().then_some(Figure { value, entry: at, note, proven })
    });
    figures.max_by(|a, b| started(&found.entries[a.entry]).cmp(&started(&found.entries[b.entry])))
}

/// The device that our side computed on.
fn on_device(target: &Target, record: &RunRecord) -> bool {
    let gpu = record.sides.iter().find(|s| s.role == SideRole::Engine).and_then(|s| s.gpu.as_ref());
    gpu.map_or(&record.environment.cpu.model, |g| &g.name).contains(&target.device)
}

fn of_run(target: &Target, record: &RunRecord) -> Option<(f64, Option<String>)> {
    if !on_device(target, record) {
        return None;
    }
    let named = |parts: &[String]| {
        let name = record.model.name.to_lowercase();
        parts.iter().any(|part| name.contains(&part.to_lowercase()))
    };
    let against = |peer: &str| {
        let mut peers = record.sides.iter().filter(|s| s.role == SideRole::Peer);
        peers.any(|s| s.label.to_lowercase().contains(&peer.to_lowercase()))
    };
    let ratio = |id: MetricId| {
        let note = match depths::metric(record, id, ALL)?.verdict {
            Some(Verdict::Withheld) => Some("the record withholds its verdict".to_owned()),
            Some(Verdict::Inconclusive | Verdict::Unstable) => Some("the record is not conclusive".to_owned()),
            _ => None,
        };
        Some((depths::ratio(record, id, ALL)?.ratio, note))
    };
    let engine = |id: MetricId, group: &str| depths::estimate(record, SideRole::Engine, id, group);
    let ran_with = |threads: &Option<u32>| threads.is_none_or(|n| record.plan.threads == n);
    let prompts_of = |tokens: &Option<u64>| {
        let prompts = &record.suite.prompts;
        tokens.is_none_or(|n| !prompts.is_empty() && prompts.iter().all(|p| p.depth == Some(n)))
    };
    match &target.metric {
        Metric::DecodeRatio { model, peer, threads } if named(model) && against(peer) && ran_with(threads) => {
            ratio(MetricId::DecodeTokPerS)
        }
        Metric::PromptRatio { model, peer, threads, prompt_tokens }
            if named(model) && against(peer) && ran_with(threads) && prompts_of(prompt_tokens) =>
        {
            ratio(MetricId::PromptTokPerSThroughTtft)
        }
        Metric::TtftRatio { model, peer, prompt_tokens }
            if named(model) && against(peer) && prompts_of(prompt_tokens) =>
        {
            ratio(MetricId::TtftMs)
        }
        Metric::ReadShare { model, threads } if named(model) && ran_with(threads) => {
            let side = record.sides.iter().find(|s| s.role == SideRole::Engine)?;
            Some((side.bandwidth_efficiency.value?, None))
        }
        Metric::ItlSpread { model, least_tokens } if named(model) => {
            let p99 = engine(MetricId::ItlP99Ms, ALL).filter(|e| e.n >= *least_tokens)?;
            Some((p99.median / engine(MetricId::ItlP50Ms, ALL)?.median, None))
        }
        Metric::DepthCost { model, from, to, kv } if named(model) && record.plan.kv == *kv => {
            let groups = depths::groups(record);
            let at = |depth: u64| {
                let (_, group) = groups.iter().find(|(d, group)| *d == depth && *group != ALL)?;
                Some(engine(MetricId::DecodeTokPerS, group)?.median)
            };
            Some((1.0 - at(*to)? / at(*from)?, None))
        }
        _ => None,
    }
}

fn tune_seconds(target: &Target, run: &KernelRun) -> Option<f64> {
    let Metric::TuneSeconds { suite, cached } = &target.metric else { return None };
    let recalled = run.cells.iter().filter(|c| c.from_cache).count();
    let fits = if *cached { 2 * recalled > run.cells.len() } else { recalled == 0 };
    let sound = run.incomplete.is_none() && run.suspect.is_none() && !run.cells.is_empty();
    (run.kind == KernelRunKind::Tune
        && sound
        && fits
        && run.plan.suite == *suite
        && run.device.name.contains(&target.device))
    .then(|| run.wall_ns.secs())
}

/// The worst shape: of each shape its newest record, of these the largest ratio.
fn over_read(target: &Target, found: &Found) -> Option<Figure> {
    let Metric::OverRead { op, policy, least_bytes, below_bytes } = &target.metric else { return None };
    let mut shapes: BTreeMap<String, (String, f64, usize)> = BTreeMap::new();
    for (at, entry) in found.entries.iter().enumerate() {
        let Record::Kernels(run) = &entry.record else { continue };
        if !run.device.name.contains(&target.device) || run.suspect.is_some() {
            continue;
        }
        for result in run.results.iter().filter(|r| r.workload.op == *op && r.policy == *policy) {
            let (Some(floor), Some(winner)) = (&result.floor, &result.winner) else { continue };
            let Some(row) = result.ranking.iter().find(|r| r.variant == *winner) else { continue };
            let over = row.median_ns / floor.median_ns;
            if over.is_finite() && (*least_bytes..*below_bytes).contains(&floor.bytes.0) {
                let new = (run.started.clone(), over, at);
                let known = shapes.entry(result.workload.to_string()).or_insert_with(|| new.clone());
                if known.0 < new.0 {
                    *known = new;
                }
            }
        }
    }
    let held = shapes.values().filter(|(_, over, _)| *over <= target.floor).count();
    let of = shapes.len();
    let (shape, (_, value, entry)) = shapes.into_iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
    Some(Figure { value, entry, note: Some(format!("{held} of {of} shapes hold; the worst is {shape}")), proven: true })
}
