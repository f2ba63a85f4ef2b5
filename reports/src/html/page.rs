//! What the page shows, ready for the template.

use harness_spec::record::{
    DropReason, MetricComparison, MetricId, Provenance, RunKind, RunRecord, Sample, SampleStatus, SideRole,
};
use serde::Serialize;

use crate::charts::{Chart, ChartOutcome};
use crate::series::{self, Runs};
use crate::view::breakdown::{self, BreakdownView};
use crate::view::facts::{self, CheckRow, Fact, ManifestRow, SideRow};
use crate::view::format;
use crate::view::metrics::{self, GroupTable, MetricRow, VerdictView};
use crate::view::percentiles::{self, PercentileTable};

/// Lost runs that are listed one by one; the rest is in `samples.jsonl`.
const MOST_LOST: usize = 60;
/// Characters of an output that are shown.
const MOST_TEXT: usize = 1600;

/// The page.
#[derive(Serialize)]
pub(super) struct Page {
    style: &'static str,
    title: String,
    simulated: bool,
    two_sided: bool,
    command_name: &'static str,
    id: String,
    started: String,
    peer_line: String,
    headline: String,
    verdict: Option<VerdictView>,
    blocked: String,
    interrupted: bool,
    notes: Vec<String>,
    findings: Vec<String>,
    checks: Vec<CheckRow>,
    breakdowns: Vec<BreakdownView>,
    sides: Vec<SideView>,
    cards: Vec<Card>,
    manifest: Vec<ManifestRow>,
    manifest_summary: String,
    metrics: Vec<MetricRow>,
    footnotes: Vec<String>,
    ratio_note: String,
    percentiles: Vec<PercentileTable>,
    server: Vec<SideRow>,
    charts: Vec<Figure>,
    omitted: Vec<Fact>,
    memory: Vec<SideRow>,
    bandwidth: Vec<SideRow>,
    ceiling: Vec<Fact>,
    hygiene: Vec<Fact>,
    lost: Vec<LostRun>,
    lost_more: usize,
    machine: Vec<Fact>,
    telemetry: Vec<Fact>,
    noise: Vec<NoiseRow>,
    plan: Vec<Fact>,
    model: Vec<Fact>,
    prompts: Vec<PromptRow>,
    groups: Vec<GroupTable>,
    outputs: Vec<Output>,
    tool: String,
    command: String,
}

/// One server.
#[derive(Serialize)]
struct SideView {
    role: &'static str,
    label: String,
    facts: Vec<Fact>,
}

/// A metric at the top of the page.
#[derive(Serialize)]
struct Card {
    row: MetricRow,
    engine_share: String,
    peer_share: String,
}

/// A chart inside the page.
#[derive(Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    caption: String,
    svg: String,
}

/// A run that is not in the statistics.
#[derive(Serialize)]
struct LostRun {
    seq: u64,
    pair: u64,
    side: String,
    group: String,
    status: &'static str,
    why: String,
}

/// One source of noise.
#[derive(Serialize)]
struct NoiseRow {
    name: String,
    state: String,
    found: String,
    fix: String,
}

/// One prompt of the suite.
#[derive(Serialize)]
struct PromptRow {
    id: String,
    text: String,
    tokens: usize,
    sha256: String,
}

/// What both sides said to one prompt, in the first kept pair.
#[derive(Serialize)]
struct Output {
    group: String,
    pair: u64,
    same: bool,
    texts: Vec<(String, String)>,
}

/// Gathers the page.
pub(super) fn build(record: &RunRecord, runs: &Runs, drawn: &[ChartOutcome], style: &'static str) -> Page {
    let two_sided = facts::side(record, SideRole::Peer).is_some();
    let (lost, lost_more) = lost_runs(record, runs);
    let overall = metrics::overall_rows(record);
    let command_name = match record.kind {
        RunKind::Compare => "compare",
        RunKind::E2e => "e2e",
    };
    Page {
        style,
        title: format!("{}: {}", format::one_line(&record.model.name), facts::peer_line(record)),
        simulated: record.provenance == Provenance::Simulated,
        two_sided,
        command_name,
        id: record.id.clone(),
        started: record.started.clone(),
        peer_line: facts::peer_line(record),
        headline: record.headline.text.clone(),
        verdict: facts::headline_verdict(record).map(VerdictView::from),
        blocked: record.headline.blocked.clone().unwrap_or_default(),
        interrupted: record.hygiene.interrupted,
        notes: record.notes.clone(),
        findings: facts::findings(record),
        checks: facts::checks(record),
        breakdowns: breakdown::views(record),
        sides: sides(record),
        cards: cards(record),
        manifest: facts::manifest(record),
        manifest_summary: facts::manifest_summary(record),
        footnotes: metrics::footnotes(&overall, |row| &row.title),
        metrics: overall,
        ratio_note: metrics::ratio_note(record),
        percentiles: percentiles::tables(record, runs),
        server: facts::server_reported(record),
        charts: drawn.iter().filter_map(figure).collect(),
        omitted: drawn.iter().filter_map(omitted).collect(),
        memory: facts::memory(record),
        bandwidth: facts::bandwidth(record),
        ceiling: facts::ceiling(record),
        hygiene: facts::hygiene(record),
        lost,
        lost_more,
        machine: facts::machine(&record.environment),
        telemetry: facts::telemetry(record),
        noise: noise(record),
        plan: facts::plan(record),
        model: facts::model(record),
        prompts: prompts(record),
        groups: metrics::by_group(record),
        outputs: outputs(record, runs),
        tool: facts::tool(record),
        command: format::command_line(&record.command),
    }
}

/// Each server with what is known of it.
fn sides(record: &RunRecord) -> Vec<SideView> {
    let view = |s: &harness_spec::record::SideFacts| {
        let maybe = |v: Option<String>| v.unwrap_or_else(|| "unknown".to_owned());
        let mut facts = vec![
            Fact::new("kind", s.kind.clone()),
            Fact::new("endpoint", format::endpoint(&s.endpoint)),
            Fact::new("version", maybe(s.version.clone())),
            Fact::new("model name", s.model.clone()),
            Fact::new("threads", maybe(s.threads.map(|t| t.to_string()))),
        ];
        facts.extend(s.options.iter().map(|(name, value)| Fact::new(name.clone(), value.clone())));
        let role = match s.role {
            SideRole::Engine => "engine",
            SideRole::Peer => "peer",
        };
        SideView { role, label: s.label.clone(), facts }
    };
    record.sides.iter().map(view).collect()
}

/// The first metrics over all runs, with bars of equal scale.
fn cards(record: &RunRecord) -> Vec<Card> {
    let wanted = [MetricId::DecodeTokPerS, MetricId::PromptTokPerSThroughTtft, MetricId::TtftMs, MetricId::ItlP50Ms];
    let median = |side: Option<&harness_spec::record::SideSummary>| {
        side.and_then(|s| s.estimate.as_ref()).map_or(0.0, |e| if e.median.is_finite() { e.median } else { 0.0 })
    };
    let card = |(m, row): (&MetricComparison, MetricRow)| {
        let (engine, peer) = (median(Some(&m.engine)), median(m.peer.as_ref()));
        let most = engine.max(peer);
        let share = |v: f64| if most > 0.0 { format!("{:.1}", v / most * 100.0) } else { "0".to_owned() };
        Card { row, engine_share: share(engine), peer_share: share(peer) }
    };
    let rows = metrics::overall(record).into_iter().zip(metrics::overall_rows(record));
    rows.filter(|(m, _)| wanted.contains(&m.id)).map(card).collect()
}

/// A drawn chart for the page: without the namespace that only a stand-alone file needs, and sized by its box.
pub(crate) fn figure(outcome: &ChartOutcome) -> Option<Figure> {
    let ChartOutcome::Drawn(Chart { name, caption, svg, .. }) = outcome else { return None };
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let view = svg.split_once("viewBox=\"").and_then(|(_, rest)| rest.split_once('"')).map_or("", |(view, _)| view);
    Some(Figure { name, caption: caption.clone(), svg: format!("<svg role=\"img\" viewBox=\"{view}\">{body}") })
}

/// A chart that was left out.
fn omitted(outcome: &ChartOutcome) -> Option<Fact> {
    match outcome {
        ChartOutcome::Drawn(_) => None,
        ChartOutcome::Omitted { title, why, .. } => Some(Fact::new(title.clone(), why.clone())),
    }
}

/// The runs outside the statistics, without declared warm-up, and how many more there are than are listed.
fn lost_runs(record: &RunRecord, runs: &Runs) -> (Vec<LostRun>, usize) {
    let row = |(s, reason): (&Sample, DropReason)| {
        let (status, error) = match &s.status {
            SampleStatus::Length => ("complete", None),
            SampleStatus::Stop => ("ended early", None),
            SampleStatus::Failed { error } => ("failed", Some(format::one_line(error))),
            SampleStatus::Interrupted => ("interrupted", None),
        };
        LostRun {
            seq: s.seq,
            pair: s.pair,
            side: facts::label(record, s.side),
            group: series::group_of(s),
            status,
            why: error.unwrap_or_else(|| format::drop_reason(reason).to_owned()),
        }
    };
    (runs.lost().take(MOST_LOST).map(row).collect(), runs.lost().count().saturating_sub(MOST_LOST))
}

/// Sources of noise.
fn noise(record: &RunRecord) -> Vec<NoiseRow> {
    let rows = record.environment.noise.iter().map(|n| NoiseRow {
        name: n.name.clone(),
        state: n.state.clone(),
        found: n.found.clone(),
        fix: n.fix.clone(),
    });
    rows.collect()
}

/// The prompts of the suite.
fn prompts(record: &RunRecord) -> Vec<PromptRow> {
    let rows = record.suite.prompts.iter().map(|p| PromptRow {
        id: p.id.clone(),
        text: p.text.clone(),
        tokens: p.depth.map_or(p.token_ids.len(), |depth| depth as usize),
        sha256: p.sha256.chars().take(12).collect(),
    });
    rows.collect()
}

/// For each group, what the sides said in its first kept pair.
fn outputs(record: &RunRecord, runs: &Runs) -> Vec<Output> {
    let mut outputs = Vec::new();
    for group in runs.groups(record) {
        let mut of_group = runs.kept().filter(|s| series::group_of(s) == group);
        let Some(first) = of_group.next() else { continue };
        let same_pair = |role| runs.kept().find(|s| s.pair == first.pair && s.side == role);
        let found: Vec<&Sample> = record.sides.iter().filter_map(|side| same_pair(side.role)).collect();
        let texts = found.iter().map(|s| (facts::label(record, s.side), format::shortened(&s.text, MOST_TEXT)));
        outputs.push(Output {
            group,
            pair: first.pair,
            same: found.len() == 2 && found[0].text == found[1].text,
            texts: texts.collect(),
        });
    }
    outputs
}
