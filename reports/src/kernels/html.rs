//! The page of a run of kernels.

use harness_spec::record::{KernelRun, Provenance, Trial};
use serde::Serialize;

use super::fusion::{self, Fusion};
use super::view::{self, FailureRow, Incomplete, Named, WorkloadView};
use crate::charts::ChartOutcome;
use crate::error::ReportError;
use crate::html::{Figure, figure, render_page};
use crate::view::format;

const TEMPLATE: &str = include_str!("kernels.html");
/// Failures that are listed; the rest is in `run.json`.
const MOST_FAILURES: usize = 200;

#[derive(Serialize)]
struct Page {
    style: &'static str,
    title: String,
    simulated: bool,
    command_name: &'static str,
    headline: String,
    id: String,
    started: String,
    suspect: String,
    incomplete: Option<Incomplete>,
    notes: Vec<String>,
    charts: Vec<Figure>,
    omitted: Vec<Named>,
    workloads: Vec<WorkloadView>,
    fusions: Vec<Fusion>,
    fusions_apart: &'static str,
    failures: Vec<FailureRow>,
    failures_more: usize,
    accounts: Vec<String>,
    cost: String,
    device: Vec<Named>,
    plan: Vec<Named>,
    command: String,
}

/// The page of a record and its trials.
///
/// # Errors
/// [`ReportError::Draw`] or [`ReportError::Render`].
pub fn kernel_html(record: &KernelRun, trials: &[Trial]) -> Result<String, ReportError> {
    render(record, &super::charts::draw_kernels(record, trials)?)
}

/// The page with charts that are drawn already.
pub(super) fn render(run: &KernelRun, drawn: &[ChartOutcome]) -> Result<String, ReportError> {
    let named = |name: &str, value: String| Named { name: name.to_owned(), value };
    let mut failures = view::failures(run);
    let failures_more = failures.len().saturating_sub(MOST_FAILURES);
    failures.truncate(MOST_FAILURES);
    let omitted = drawn.iter().filter_map(|o| match o {
        ChartOutcome::Drawn(_) => None,
        ChartOutcome::Omitted { title, why, .. } => Some(named(title, why.clone())),
    });
    let page = Page {
        style: crate::html::STYLE,
        title: format!("{}: {}", run.device.name, run.plan.suite),
        simulated: run.provenance == Provenance::Simulated,
        command_name: view::command_name(run.kind),
        headline: view::headline(run),
        id: run.id.clone(),
        started: run.started.clone(),
        suspect: run.suspect.clone().unwrap_or_default(),
        incomplete: view::incomplete(run),
        notes: run.notes.clone(),
        charts: drawn.iter().filter_map(figure).collect(),
        omitted: omitted.collect(),
        workloads: view::workloads(run),
        fusions: fusion::fusions(run),
        fusions_apart: fusion::APART,
        failures,
        failures_more,
        accounts: run.accounts.iter().map(view::account_line).collect(),
        cost: view::cost_line(run),
        device: view::device(run),
        plan: vec![
            named("suite", run.plan.suite.clone()),
            named("strategy", run.plan.strategy.clone()),
            named("seed", run.plan.seed.to_string()),
            named("time budget", run.plan.time_budget.map_or_else(|| "none".to_owned(), |t| format::wall(t.secs()))),
            named("pairs of a run-off, at least", run.plan.run_off_pairs.to_string()),
            named("program", format!("bench {} ({} build)", run.tool.version, run.tool.profile)),
            named("commit", run.tool.commit.clone()),
        ],
        command: format::command_line(&run.command),
    };
    render_page(TEMPLATE, &page)
}
