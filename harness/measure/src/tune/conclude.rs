//! What a workload came to: winner, ranking, floor, account.

use harness_spec::record::{
    CellRole, Floor, KernelRunKind, Measure, Outcome, RankRow, SearchReport, SpaceAccount, WorkloadResult,
};
use harness_spec::{Stage, VariantId};

use super::finals::Final;
use super::plan::Plan;
use super::race::Race;
use super::strategy::Known;
use crate::cell::competes;
use crate::runoff::derived;

/// The account of a workload's space (R2).
pub(super) fn account(race: &Race) -> SpaceAccount {
    let admitted = race.plan.candidates.len() + race.plan.library.len();
    let mut account = SpaceAccount {
        workload: race.plan.workload.clone(),
        policy: race.plan.policy,
        enumerated: (admitted + race.plan.pruned.len()) as u64,
        pruned: race.plan.pruned.len() as u64,
        compile_failed: 0,
        invalid: 0,
        timed: 0,
        not_reached: (admitted - race.entries.len() - race.library.len()) as u64,
    };
    for entry in race.entries.values().chain(&race.library) {
        // A time that cannot be is told from the ceiling, which the trial does not know.
        let impossible = entry.known == Known::Invalid;
        match &entry.trial.outcome {
            Outcome::Measured if impossible => account.invalid += 1,
            Outcome::Measured | Outcome::Verified | Outcome::Unstable { .. } => account.timed += 1,
            Outcome::Skipped { .. } => account.pruned += 1,
            Outcome::Failed { stage: Stage::Compile | Stage::Resources, .. } => account.compile_failed += 1,
            Outcome::Failed { .. } | Outcome::Implausible { .. } => account.invalid += 1,
            Outcome::NotReached => account.not_reached += 1,
        }
    }
    account
}

/// The result of a `verify`: nothing is ranked.
pub(super) fn untouched(race: &Race) -> WorkloadResult {
    let reason = "nothing was timed: the run was a verify".to_owned();
    WorkloadResult { reason, ..blank(race) }
}

fn blank(race: &Race) -> WorkloadResult {
    let name = |i: Option<usize>| i.map(|i| race.plan.candidates[i].variant.clone());
    // A deadline that falls behind the last evaluation leaves nothing out.
    let incomplete = race.halted.filter(|_| race.evaluations < race.limit as u64).map(|why| {
        let all = race.limit;
        format!("{why} after {} of at most {all} evaluations of {}", race.evaluations, race.plan.workload)
    });
    WorkloadResult {
        workload: race.plan.workload.clone(),
        policy: race.plan.policy,
        floor: None,
        baseline: name(race.plan.baseline),
        default: name(race.plan.default),
        incumbent: name(race.plan.incumbent),
        winner: None,
        reason: String::new(),
        runner_up: None,
        gap: Measure::missing("fewer than two candidates have a valid time"),
        ties: Vec::new(),
        run_off: None,
        ranking: Vec::new(),
        search: None,
        incomplete,
    }
}

/// The result of a workload that was timed.
pub(super) fn conclude(race: &Race, plan: &Plan, last: Final) -> WorkloadResult {
    let mut out = blank(race);
    out.floor = floor(race, plan);
    out.ranking = ranking(race, plan);
    let variant = |i: usize| race.plan.candidates[i].variant.clone();
    match last {
        Final::Played(run_off, ties, winner) => {
            out.winner = Some(variant(winner));
            out.reason = run_off.reason.clone();
            out.ties = ties.into_iter().map(variant).collect();
            out.run_off = Some(run_off);
        }
        Final::Alone(winner) => {
            out.winner = Some(variant(winner));
            out.reason = "it alone has a valid time".to_owned();
        }
        Final::Nobody => out.reason = nobody(race),
        Final::Stopped => {
            let why = "the run was stopped before the run-off";
            without_run_off(race, &mut out, why);
            out.incomplete.get_or_insert_with(|| format!("{why} of {}", race.plan.workload));
        }
        Final::None => without_run_off(race, &mut out, "no run-off was asked for"),
    }
    if let Some(winner) = &out.winner {
        let median = |v: &VariantId| out.ranking.iter().find(|r| r.variant == *v).map(|r| r.median_ns);
        let next = out.ranking.iter().find(|r| r.variant != *winner);
        if let (Some(next), Some(own)) = (next, median(winner)) {
            let provenance = derived(plan.provenance);
            out.gap = Measure { value: Some(next.median_ns / own - 1.0), reason: None, provenance };
            out.runner_up = Some(next.variant.clone());
        }
    }
    if plan.kind == KernelRunKind::Tune {
        out.search = Some(SearchReport {
            strategy: plan.strategy.to_string(),
            seed: plan.seed,
            space: race.plan.candidates.len() as u64,
            evaluations: race.evaluations,
            from_cache: race.from_cache,
            trace: race.trace.clone(),
        });
    }
    out
}

/// Without a paired final nothing is proven faster, so that who was there stays.
fn without_run_off(race: &Race, out: &mut WorkloadResult, why: &str) {
    let valid = |v: &VariantId| out.ranking.iter().any(|r| r.variant == *v);
    let stays = race.plan.defender().map(|i| race.plan.candidates[i].variant.clone()).filter(valid);
    match (stays, out.ranking.first()) {
        (Some(stays), _) => {
            out.reason = format!("{why}, so {} stays", stays.short());
            out.winner = Some(stays);
        }
        (None, Some(best)) => {
            out.reason = format!("{why}; it has the least median and no default has a valid time");
            out.winner = Some(best.variant.clone());
        }
        (None, None) => out.reason = nobody(race),
    }
}

fn nobody(race: &Race) -> String {
    let first = race.entries.values().find_map(|e| match &e.trial.outcome {
        Outcome::Failed { stage, message } => {
            Some(format!("{} failed at {stage}: {}", e.trial.cell.variant, message.lines().next().unwrap_or("")))
        }
        Outcome::Skipped { reason } | Outcome::Implausible { reason } | Outcome::Unstable { reason } => {
            Some(format!("{}: {reason}", e.trial.cell.variant))
        }
        Outcome::Measured | Outcome::Verified | Outcome::NotReached => None,
    });
    match (first, race.halted) {
        (Some(first), _) => format!("no candidate has a valid time; for one, {first}"),
        (None, Some(why)) => format!("no candidate was reached: {why}"),
        (None, None) => "no candidate is admitted for this shape on this device".to_owned(),
    }
}

fn floor(race: &Race, plan: &Plan) -> Option<Floor> {
    let mut best: Option<Floor> = None;
    for r in race.floor_results(plan).iter().filter(|r| competes(r)) {
        let (Some(time), Some(bytes)) = (&r.time_ns, r.bytes) else { continue };
        if best.as_ref().is_none_or(|b| time.median < b.median_ns) {
            best = Some(Floor { variant: r.cell.variant.clone(), bytes, median_ns: time.median });
        }
    }
    best
}

fn ranking(race: &Race, plan: &Plan) -> Vec<RankRow> {
    let mut rows: Vec<RankRow> = race
        .entries
        .iter()
        .filter(|(_, e)| matches!(e.known, Known::Time(_)))
        .filter_map(|(&i, _)| {
            let r = race.result(i, plan)?;
            let time = r.time_ns?;
            Some(RankRow {
                variant: r.cell.variant,
                median_ns: time.median,
                ci_ns: time.ci95,
                role: race.plan.role(i),
                stop: r.stop,
            })
        })
        .collect();
    debug_assert!(rows.iter().all(|r| !matches!(r.role, CellRole::Floor | CellRole::Library)));
    rows.sort_by(|a, b| a.median_ns.total_cmp(&b.median_ns).then_with(|| a.variant.cmp(&b.variant)));
    rows
}
