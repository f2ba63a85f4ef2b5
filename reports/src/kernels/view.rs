//! What the tables of a run of kernels show, as text. One place, so that page, terminal and Markdown never disagree.

use std::collections::BTreeMap;

use harness_spec::VariantId;
use harness_spec::record::{
    CellResult, CellRole, Finding, KernelRun, KernelRunKind, Outcome, RankRow, SpaceAccount, StopReason, Verdict,
    WorkloadResult,
};
use harness_spec::target::Resources;
use serde::Serialize;

use super::names;
use crate::view::format::{self, NONE, number, percent};

/// Rows of a ranking that are shown; the rest is in `run.json`.
pub(super) const MOST_ROWS: usize = 12;

/// One line of a ranking.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub rank: usize,
    pub variant: String,
    /// Without the backend and without what is the same in every row of its kernel, see [`WorkloadView::same`].
    pub name: String,
    pub time: String,
    pub interval: String,
    pub rate: String,
    pub of_floor: String,
    pub against_best: String,
    pub clock: String,
    pub registers: String,
    pub shared: String,
    pub marks: String,
}

/// A workload with its ranking.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WorkloadView {
    pub title: String,
    pub policy: String,
    pub reason: String,
    /// The reason with the numbers of the ranking in place of long names.
    pub numbered_reason: String,
    pub floor: String,
    /// What the kernels of libraries reached, or why they did not; empty where there are none.
    pub library: String,
    pub incomplete: String,
    pub rows: Vec<Row>,
    /// What [`Row::name`] leaves out.
    pub same: String,
    pub more: usize,
    pub run_off: Vec<DuelRow>,
    pub search: String,
}

/// A pair of finalists, by their numbers in the ranking.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DuelRow {
    pub challenger: String,
    pub defender: String,
    pub ratio: String,
    pub interval: String,
    pub verdict: &'static str,
    pub sign: &'static str,
    pub pairs: String,
    pub order: String,
}

/// Why a run is not the whole answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Incomplete {
    pub summary: String,
    /// Each workload that is not finished, with how far it came.
    pub open: Vec<Named>,
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

pub(crate) fn command_name(kind: KernelRunKind) -> &'static str {
    match kind {
        KernelRunKind::Verify => "verify",
        KernelRunKind::Sweep => "sweep",
        KernelRunKind::Tune => "tune",
    }
}

/// What the run came to, in a sentence.
pub(crate) fn headline(run: &KernelRun) -> String {
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
                "{winners} of {} workloads have a winner on {device}: {timed} cells timed, {} without a valid result",
                run.results.len(),
                failures(run).len()
            )
        }
    }
}

/// How many workloads are not finished and how far each came; none where the run is the whole answer.
pub(super) fn incomplete(run: &KernelRun) -> Option<Incomplete> {
    let whole = run.incomplete.as_ref()?;
    let open: Vec<(&WorkloadResult, &String)> =
        run.results.iter().filter_map(|r| Some((r, r.incomplete.as_ref()?))).collect();
    // A workload says "WHY after N of at most M evaluations of WORKLOAD"; a WHY that all share is said once.
    let parts: Option<Vec<(&str, &str)>> = open.iter().map(|(_, text)| text.split_once(" after ")).collect();
    let why = parts.as_ref().and_then(|p| p.first()).map(|p| p.0);
    let (Some(why), Some(parts)) = (why, &parts) else {
        return Some(Incomplete { summary: sentence(whole), open: Vec::new() });
    };
    let shared = parts.iter().all(|p| p.0 == why);
    let rows = open.iter().zip(parts).map(|((result, text), (_, after))| {
        let how_far = if shared { *after } else { text.as_str() };
        Named {
            name: format!("{} {}", result.workload, result.policy),
            value: how_far.strip_suffix(&format!(" of {}", result.workload)).unwrap_or(how_far).to_owned(),
        }
    });
    let count = format!("{} of {} workloads", open.len(), run.results.len());
    let summary = if shared { format!("{count}: {why}.") } else { format!("{count}.") };
    Some(Incomplete { summary, open: rows.collect() })
}

/// A reason as a sentence: they are recorded without capital and full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    // A name at the beginning stays as it is written.
    let is_word = text.split([' ', ',']).next().is_some_and(|w| w.chars().all(|c| c.is_ascii_alphabetic()));
    let first = if is_word { first.to_ascii_uppercase() } else { first };
    format!("{first}{}{stop}", letters.as_str())
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
    let finalists = || result.run_off.iter().flat_map(|r| &r.finalists);
    // The winner and the rows with a part are shown however slow they are, and the finalists, which the run-off names.
    let shown: Vec<(usize, &RankRow)> = result
        .ranking
        .iter()
        .enumerate()
        .filter(|(at, r)| {
            *at < MOST_ROWS
                || result.winner.as_ref() == Some(&r.variant)
                || r.role != CellRole::Candidate
                || finalists().any(|f| f == &r.variant)
        })
        .collect();
    let same = names::shared_tunables(shown.iter().map(|(_, r)| &r.variant));
    let row = |&(at, r): &(usize, &RankRow)| {
        let cell = by_variant.get(&r.variant);
        let measure = |m: Option<&harness_spec::record::Measure>, show: fn(f64) -> String| {
            m.and_then(|m| format::measure(m, show).ok()).unwrap_or_else(|| NONE.to_owned())
        };
        let mut marks = Vec::new();
        if result.winner.as_ref() == Some(&r.variant) {
            marks.push("winner".to_owned());
        }
        if result.ties.contains(&r.variant) {
            marks.push(undecided(result, &r.variant).to_owned());
        }
        marks.extend(role(r.role).map(str::to_owned));
        if r.stop == Some(StopReason::Eliminated) {
            marks.push("eliminated".to_owned());
        }
        marks.extend(cell.and_then(|c| c.redundant).map(repeated));
        marks.extend(cell.iter().flat_map(|c| &c.findings).map(|f| finding(*f).to_owned()));
        Row {
            rank: at + 1,
            variant: r.variant.short(),
            name: names::short(&r.variant, &run.device.backend, &same),
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
            shared: cell.and_then(|c| shared_memory(c.resources.as_ref()?)).unwrap_or_else(|| NONE.to_owned()),
            marks: marks.join(", "),
        }
    };
    let rows: Vec<Row> = shown.iter().map(row).collect();
    let ranks: BTreeMap<_, _> = result.ranking.iter().enumerate().map(|(at, r)| (&r.variant, at + 1)).collect();
    let numbered = |v: &VariantId| ranks.get(v).map_or_else(|| v.short(), |rank| format!("#{rank}"));
    let duels = result.run_off.iter().flat_map(|r| &r.duels).map(|d| DuelRow {
        challenger: numbered(&d.challenger),
        defender: numbered(&d.defender),
        ratio: d.time.as_ref().map_or_else(|| NONE.to_owned(), |t| format::ratio(t.ratio)),
        interval: d.time.as_ref().map_or_else(String::new, |t| format::interval(t.ci, t.ratio)),
        verdict: format::verdict(d.verdict),
        sign: format::verdict_sign(d.verdict),
        pairs: match d.pairs_rerun {
            0 => d.pairs_planned.to_string(),
            again => format!("{} and {again} again", d.pairs_planned),
        },
        order: d.order.clone(),
    });
    let by_number = |word: &str| {
        let name = word.trim_end_matches([',', ';', '.']);
        let row = result.ranking.iter().find(|r| name.contains('@') && r.variant.short() == name)?;
        let part =
            role(row.role).filter(|_| row.role != CellRole::Floor).map_or_else(String::new, |p| format!("the {p} "));
        Some(format!("{part}{}{}", numbered(&row.variant), &word[name.len()..]))
    };
    let words = result.reason.split(' ').map(|w| by_number(w).unwrap_or_else(|| w.to_owned()));
    let numbered_reason = words.collect::<Vec<_>>().join(" ");
    WorkloadView {
        title: result.workload.to_string(),
        policy: result.policy.to_string(),
        reason: sentence(&result.reason),
        numbered_reason: sentence(&numbered_reason),
        floor: result.floor.as_ref().map_or_else(
            || "no floor was measured".to_owned(),
            |f| format!("{} µs, {}", number(f.median_ns / 1000.0), f.variant.short()),
        ),
        library: library(run, result),
        incomplete: result.incomplete.clone().unwrap_or_default(),
        more: result.ranking.len() - rows.len(),
        rows,
        same: names::same_line(&same),
        run_off: duels.collect(),
        search: result.search.as_ref().map_or_else(String::new, |s| {
            format!(
                "{} with seed {}: {} of {} configurations asked for, {} from a journal",
                s.strategy, s.seed, s.evaluations, s.space, s.from_cache
            )
        }),
    }
}

/// What the kernels of libraries reached on a workload, or why one has no time.
fn library(run: &KernelRun, result: &WorkloadResult) -> String {
    let said = |c: &CellResult| {
        let name = c.cell.variant.short();
        match (&c.time_ns, &c.outcome) {
            (Some(time), Outcome::Measured) => {
                let rate = format::measure(&c.gb_per_s, number).map(|r| format!(", {r} GB/s"));
                let of_floor = format::measure(&c.of_floor, percent).map(|p| format!(", {p} of the floor"));
                let (rate, of_floor) = (rate.unwrap_or_default(), of_floor.unwrap_or_default());
                format!("{} µs{rate}{of_floor}, {name}", number(time.median / 1000.0))
            }
            (_, Outcome::Skipped { reason }) => format!("{name} skipped: {}", format::one_line(reason)),
            _ => format!("{name} without a valid result"),
        }
    };
    let cells = cells(run, result).filter(|c| c.role == CellRole::Library && c.outcome != Outcome::Verified);
    cells.map(said).collect::<Vec<_>>().join("; ")
}

/// What became of the duel between the winner and one that was not proven slower.
fn undecided(result: &WorkloadResult, variant: &VariantId) -> &'static str {
    let mut duels = result.run_off.iter().flat_map(|run_off| &run_off.duels);
    let sides = [result.winner.as_ref(), Some(variant)];
    let duel = duels.find(|d| [&d.challenger, &d.defender].iter().all(|side| sides.contains(&Some(*side))));
    match duel.map(|duel| duel.verdict) {
        None | Some(Verdict::Tie) => "tie",
        Some(_) => "not told apart",
    }
}

/// How often a launch does the work that it repeats, in words. So far that is always the norm in front of a product.
pub fn repeated(times: u64) -> String {
    format!("{times} x norm")
}

/// Static and dynamic shared memory of a block; none where the compiler told neither.
fn shared_memory(resources: &Resources) -> Option<String> {
    let parts = [resources.static_smem_bytes, resources.dynamic_smem_bytes];
    let total: u32 = parts.iter().flatten().sum();
    parts.iter().any(Option::is_some).then(|| format::bytes(f64::from(total)))
}

fn role(role: CellRole) -> Option<&'static str> {
    match role {
        CellRole::Incumbent => Some("incumbent"),
        CellRole::Default => Some("default"),
        CellRole::Baseline => Some("baseline"),
        CellRole::Floor => Some("floor"),
        CellRole::Library => Some("library"),
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
