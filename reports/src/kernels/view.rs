//! What the tables of a run of kernels show, as text. One place, so that page, terminal and Markdown never disagree.

use std::collections::BTreeMap;

use harness_spec::record::{
    CellResult, CellRole, Finding, KernelRun, KernelRunKind, Outcome, SpaceAccount, StopReason, WorkloadResult,
};
use serde::Serialize;

use crate::view::format::{self, NONE, number, percent};

/// Rows of a ranking that are shown; the rest is in `run.json`.
pub(super) const MOST_ROWS: usize = 12;

/// One line of a ranking.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub rank: usize,
    pub variant: String,
    pub time: String,
    pub interval: String,
    pub rate: String,
    pub of_floor: String,
    pub against_best: String,
    pub clock: String,
    pub registers: String,
    pub marks: String,
}

/// A workload with its ranking.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WorkloadView {
    pub title: String,
    pub policy: String,
    pub reason: String,
    pub floor: String,
    pub incomplete: String,
    pub rows: Vec<Row>,
    pub more: usize,
    pub run_off: Vec<String>,
    pub search: String,
}

/// A cell that has no time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FailureRow {
    pub variant: String,
    pub workload: String,
    pub stage: String,
    pub message: String,
}

/// Name and value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Named {
    pub name: String,
    pub value: String,
}

pub(super) fn command_name(kind: KernelRunKind) -> &'static str {
    match kind {
        KernelRunKind::Verify => "verify",
        KernelRunKind::Sweep => "sweep",
        KernelRunKind::Tune => "tune",
    }
}

/// What the run came to, in a sentence.
pub(super) fn headline(run: &KernelRun) -> String {
    let device = &run.device.name;
    let of = |wanted: fn(&Outcome) -> bool| run.cells.iter().filter(|c| wanted(&c.outcome)).count();
    let failed = of(|o| matches!(o, Outcome::Failed { .. }));
    match run.kind {
        KernelRunKind::Verify => {
            let right = of(|o| matches!(o, Outcome::Verified));
            format!("{right} cells right and {failed} rejected on {device}")
        }
        KernelRunKind::Sweep | KernelRunKind::Tune => {
            let timed = of(Outcome::is_measured);
            let winners = run.results.iter().filter(|r| r.winner.is_some()).count();
            format!(
                "{winners} of {} workloads have a winner on {device}: {timed} cells timed, {failed} failed",
                run.results.len()
            )
        }
    }
}

/// The workloads in the order of the record.
pub(super) fn workloads(run: &KernelRun) -> Vec<WorkloadView> {
    run.results.iter().map(|r| workload(run, r)).collect()
}

/// The cells of a workload under its policy.
pub(super) fn cells<'a>(run: &'a KernelRun, result: &'a WorkloadResult) -> impl Iterator<Item = &'a CellResult> {
    run.cells.iter().filter(|c| c.cell.workload == result.workload && c.cell.policy == result.policy)
}

fn workload(run: &KernelRun, result: &WorkloadResult) -> WorkloadView {
    let best = result.ranking.first().map(|r| r.median_ns);
    let by_variant: BTreeMap<_, _> = cells(run, result).map(|c| (&c.cell.variant, c)).collect();
    let row = |(at, r): (usize, &harness_spec::record::RankRow)| {
        let cell = by_variant.get(&r.variant);
        let measure = |m: Option<&harness_spec::record::Measure>, show: fn(f64) -> String| {
            m.and_then(|m| format::measure(m, show).ok()).unwrap_or_else(|| NONE.to_owned())
        };
        let mut marks = Vec::new();
        if result.winner.as_ref() == Some(&r.variant) {
            marks.push("winner".to_owned());
        }
        if result.ties.contains(&r.variant) {
            marks.push("tie".to_owned());
        }
        marks.extend(role(r.role).map(str::to_owned));
        if r.stop == Some(StopReason::Eliminated) {
            marks.push("eliminated".to_owned());
        }
        marks.extend(cell.iter().flat_map(|c| &c.findings).map(|f| finding(*f).to_owned()));
        Row {
            rank: at + 1,
            variant: r.variant.short(),
            time: number(r.median_ns / 1000.0),
            interval: r.ci_ns.map_or_else(String::new, |[lo, hi]| {
                format::interval([lo / 1000.0, hi / 1000.0], r.median_ns / 1000.0)
            }),
            rate: measure(cell.map(|c| &c.gb_per_s), number),
            of_floor: measure(cell.map(|c| &c.of_floor), percent),
            against_best: best.map_or_else(String::new, |b| format!("{:.2}x", r.median_ns / b)),
            clock: measure(cell.map(|c| &c.sm_clock_mhz), |v| format!("{v:.0}")),
            registers: cell
                .and_then(|c| c.resources.as_ref()?.registers)
                .map_or_else(|| NONE.to_owned(), |r| r.to_string()),
            marks: marks.join(", "),
        }
    };
    // The winner, the default and the plain variant are shown however slow they are.
    let shown = |(at, r): &(usize, &harness_spec::record::RankRow)| {
        *at < MOST_ROWS || result.winner.as_ref() == Some(&r.variant) || r.role != CellRole::Candidate
    };
    let rows: Vec<Row> = result.ranking.iter().enumerate().filter(shown).map(row).collect();
    let duels = result.run_off.iter().flat_map(|r| &r.duels).map(|d| {
        let ratio = d.time.as_ref().map_or_else(
            || "no ratio".to_owned(),
            |t| format!("{} {}", format::ratio(t.ratio), format::interval(t.ci, t.ratio)),
        );
        format!(
            "{} against {}: {ratio}, {} ({} pairs, {})",
            d.challenger.short(),
            d.defender.short(),
            format::verdict(d.verdict),
            d.pairs_planned,
            d.order
        )
    });
    WorkloadView {
        title: result.workload.to_string(),
        policy: result.policy.to_string(),
        reason: result.reason.clone(),
        floor: result.floor.as_ref().map_or_else(
            || "no floor was measured".to_owned(),
            |f| format!("{} us, {}", number(f.median_ns / 1000.0), f.variant.short()),
        ),
        incomplete: result.incomplete.clone().unwrap_or_default(),
        more: result.ranking.len() - rows.len(),
        rows,
        run_off: duels.collect(),
        search: result.search.as_ref().map_or_else(String::new, |s| {
            format!(
                "{} with seed {}: {} of {} configurations asked for, {} from a journal",
                s.strategy, s.seed, s.evaluations, s.space, s.from_cache
            )
        }),
    }
}

fn role(role: CellRole) -> Option<&'static str> {
    match role {
        CellRole::Incumbent => Some("incumbent"),
        CellRole::Default => Some("default"),
        CellRole::Baseline => Some("baseline"),
        CellRole::Floor => Some("floor"),
        CellRole::Candidate => None,
    }
}

fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Bimodal => "bimodal",
        Finding::AboveCeiling => "above the ceiling",
        Finding::TooShortForEager => "too short for eager launches",
        Finding::TooFewVerified => "too few launches verified",
        Finding::Spills => "spills registers",
    }
}

/// Every cell that failed, was implausible or unstable.
pub(super) fn failures(run: &KernelRun) -> Vec<FailureRow> {
    let row = |c: &CellResult| {
        let (stage, message) = match &c.outcome {
            Outcome::Failed { stage, message } => (stage.to_string(), message),
            Outcome::Implausible { reason } => ("implausible".to_owned(), reason),
            Outcome::Unstable { reason } => ("unstable".to_owned(), reason),
            Outcome::Measured | Outcome::Verified | Outcome::Skipped { .. } | Outcome::NotReached => return None,
        };
        Some(FailureRow {
            variant: c.cell.variant.to_string(),
            workload: c.cell.workload.shape.to_string(),
            stage,
            message: message.clone(),
        })
    };
    run.cells.iter().filter_map(row).collect()
}

/// Where the wall time went.
pub(super) fn costs(run: &KernelRun) -> Vec<(&'static str, f64)> {
    let c = &run.cost;
    [
        ("compile", c.compile),
        ("transfer", c.transfer),
        ("verify", c.verify),
        ("time", c.time),
        ("search", c.search),
        ("idle", c.idle),
    ]
    .map(|(name, t)| (name, t.secs()))
    .to_vec()
}

/// The cost report in a line.
pub(super) fn cost_line(run: &KernelRun) -> String {
    let parts: Vec<String> =
        costs(run).iter().filter(|(_, s)| *s > 0.0).map(|(name, s)| format!("{name} {}", format::wall(*s))).collect();
    format!(
        "wall {}: {} ({} explained)",
        format::wall(run.cost.wall.secs()),
        parts.join(", "),
        percent(run.cost.explained())
    )
}

/// The search space of a workload in a line.
pub(super) fn account_line(a: &SpaceAccount) -> String {
    format!(
        "{} {}: {} enumerated = {} pruned + {} compile failed + {} invalid + {} {} + {} not reached",
        a.workload, a.policy, a.enumerated, a.pruned, a.compile_failed, a.invalid, a.timed, "timed", a.not_reached
    )
}

/// Facts about the device.
pub(super) fn device(run: &KernelRun) -> Vec<Named> {
    let named = |name: &str, value: String| Named { name: name.to_owned(), value };
    let mut out = vec![named("device", run.device.name.clone()), named("architecture", run.device.arch.clone())];
    out.extend(run.device.conditions.iter().chain(&run.device_facts).map(|(n, v)| named(n, v.clone())));
    for reading in &run.canaries {
        let value = match &reading.canary {
            Some(c) => {
                let clock = c.sm_clock_mhz.map_or_else(String::new, |v| format!(", SM clock {v:.0} MHz"));
                let launch = c.empty_launch_ns.map_or_else(String::new, |v| format!(", empty launch {v:.0} ns"));
                format!(
                    "read {} GB/s over {}{launch}{clock}",
                    number(c.read_gb_per_s),
                    format::bytes(c.working_set.0 as f64)
                )
            }
            None => reading.reason.clone().unwrap_or_else(|| "not taken".to_owned()),
        };
        out.push(named(&format!("canary {}", reading.when), value));
    }
    out
}
