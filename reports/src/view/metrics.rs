//! Rows of the metric tables.

use harness_measure::compare::ALL;
use harness_spec::record::{MetricComparison, MetricId, RatioEstimate, RunRecord, SideSummary, Verdict};
use serde::Serialize;

use super::format;

/// A value with its interval, or a dash with the reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    /// The value, or a dash.
    pub text: String,
    /// Its confidence interval, or nothing.
    pub interval: String,
    /// Spread and n, or nothing.
    pub detail: String,
    /// Why there is no value; empty if there is one.
    pub why: String,
}

impl Cell {
    /// A dash with its reason.
    fn missing(why: impl Into<String>) -> Cell {
        Cell { text: format::NONE.to_owned(), interval: String::new(), detail: String::new(), why: why.into() }
    }

    /// Value and interval on one line.
    pub fn line(&self) -> String {
        if self.interval.is_empty() { self.text.clone() } else { format!("{} {}", self.text, self.interval) }
    }
}

/// A verdict with the class that gives it its colour and the sign that gives it its shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VerdictView {
    /// The word; also the CSS class.
    pub word: &'static str,
    /// The sign.
    pub sign: &'static str,
}

impl From<Verdict> for VerdictView {
    fn from(v: Verdict) -> VerdictView {
        VerdictView { word: format::verdict(v), sign: format::verdict_sign(v) }
    }
}

/// One metric of one group of runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MetricRow {
    /// Heading with unit, and with the length where the row is not about all runs.
    pub title: String,
    /// `higher is better` or `lower is better`.
    pub better: &'static str,
    /// The group of runs.
    pub group: String,
    /// Our side.
    pub engine: Cell,
    /// The other side; absent in a one-sided run.
    pub peer: Option<Cell>,
    /// Engine ÷ peer, turned so that above 1 is better for the engine.
    pub ratio: Option<Cell>,
    /// What it came to.
    pub verdict: Option<VerdictView>,
    /// What a reader must know of this row.
    pub note: String,
}

/// Rows of one metric over the groups.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GroupTable {
    /// Heading with unit.
    pub title: &'static str,
    /// `higher is better` or `lower is better`.
    pub better: &'static str,
    /// One row a group.
    pub rows: Vec<MetricRow>,
    /// What a reader must know of the rows.
    pub footnotes: Vec<String>,
}

/// The comparisons that stand for the whole run, in the order of the record: those over all runs, and for a metric that
/// mixed lengths have no value of, those over the runs of each length.
pub(crate) fn overall(record: &RunRecord) -> Vec<&MetricComparison> {
    let mut picked = Vec::new();
    for whole in record.metrics.iter().filter(|m| m.group == ALL) {
        let by_length: Vec<_> = record.metrics.iter().filter(|m| m.id == whole.id && length_of(m).is_some()).collect();
        if has_values(whole) || by_length.is_empty() {
            picked.push(whole);
        } else {
            picked.extend(by_length);
        }
    }
    picked
}

/// The rows of [`overall`].
pub(crate) fn overall_rows(record: &RunRecord) -> Vec<MetricRow> {
    overall(record).into_iter().map(row).collect()
}

/// The length of a group such as `all/50`.
fn length_of(m: &MetricComparison) -> Option<&str> {
    m.group.strip_prefix(ALL)?.strip_prefix('/')
}

/// Whether any side has a value.
fn has_values(m: &MetricComparison) -> bool {
    m.engine.estimate.is_some() || m.peer.as_ref().is_some_and(|p| p.estimate.is_some())
}

/// The title of a comparison, with the length where it is about one.
pub(crate) fn title_of(m: &MetricComparison) -> String {
    match length_of(m) {
        Some(length) => format!("{}, {length} tokens", m.id.title()),
        None => m.id.title().to_owned(),
    }
}

/// Tables by prompt and length, one for each metric that has any.
pub(crate) fn by_group(record: &RunRecord) -> Vec<GroupTable> {
    let mut tables: Vec<(MetricId, GroupTable)> = Vec::new();
    for metric in record.metrics.iter().filter(|m| m.group != ALL) {
        let row = row(metric);
        match tables.iter_mut().find(|(id, _)| *id == metric.id) {
            Some((_, table)) => table.rows.push(row),
            None => {
                let (title, better) = (metric.id.title(), row.better);
                tables.push((metric.id, GroupTable { title, better, rows: vec![row], footnotes: Vec::new() }));
            }
        }
    }
    let finished = tables.into_iter().map(|(_, mut table)| {
        table.footnotes = footnotes(&table.rows, |row| &row.group);
        table
    });
    // A table of dashes tells less than its absence: the overall table says why there are no values.
    finished.filter(|t| t.rows.iter().any(|r| r.engine.why.is_empty())).collect()
}

/// The notes and the reasons of the dashes, each once with the names of the rows it is about.
pub(crate) fn footnotes(rows: &[MetricRow], name: impl Fn(&MetricRow) -> &str) -> Vec<String> {
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        let cells = [Some(&row.engine), row.peer.as_ref(), row.ratio.as_ref()].into_iter().flatten();
        let texts = cells.map(|c| c.why.as_str()).chain([row.note.as_str()]);
        // A note may hold several; told one by one, each is said once for all its rows.
        for text in texts.flat_map(|text| text.split("; ")).filter(|text| !text.is_empty()) {
            let name = name(row);
            match told.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) if names.contains(&name) => {}
                Some((_, names)) => names.push(name),
                None => told.push((text, vec![name])),
            }
        }
    }
    let line = |(text, names): (&str, Vec<&str>)| match names.len() {
        n if n == rows.len() && n > 1 => format!("all rows: {text}"),
        _ => format!("{}: {text}", names.join("; ")),
    };
    told.into_iter().map(line).collect()
}

/// What the ratio, its interval and its threshold mean in this record; empty if it has no ratio.
pub(crate) fn ratio_note(record: &RunRecord) -> String {
    let ratios: Vec<&RatioEstimate> = record.metrics.iter().filter_map(|m| m.ratio.as_ref()).collect();
    let Some(first) = ratios.first() else { return String::new() };
    let span = |value: fn(&RatioEstimate) -> f64| {
        let (lo, hi) = ratios.iter().map(|r| value(r)).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let text = |v: f64| format!("{:.2} %", v * 100.0);
        if text(lo) == text(hi) { text(lo) } else { format!("{} to {}", text(lo), text(hi)) }
    };
    format!(
        "Values are medians with 95 % intervals. A ratio is engine against peer, turned so that above 1 is better \
         for the engine; its interval is a BCa bootstrap over pairs (n = {}) at the level Holm's correction asks for \
         ({}). A difference within τ ({}) counts as a tie.",
        first.n_pairs,
        span(|r| r.level),
        span(|r| r.tau),
    )
}

/// The row of one comparison.
fn row(m: &MetricComparison) -> MetricRow {
    let better = if m.id.higher_is_better() { "higher is better" } else { "lower is better" };
    let ratio = m.peer.as_ref().map(|_| match &m.ratio {
        Some(r) => ratio_cell(r),
        None => Cell::missing(m.note.clone().unwrap_or_else(|| "a side has no values".to_owned())),
    });
    MetricRow {
        title: title_of(m),
        better,
        group: m.group.clone(),
        engine: side_cell(&m.engine),
        peer: m.peer.as_ref().map(side_cell),
        ratio,
        verdict: m.verdict.map(VerdictView::from),
        note: m.note.clone().unwrap_or_default(),
    }
}

/// A side's median with its interval.
fn side_cell(side: &SideSummary) -> Cell {
    let Some(e) = &side.estimate else {
        return Cell::missing(side.reason.clone().unwrap_or_else(|| "no reason was recorded".to_owned()));
    };
    let spread = format!(
        "n = {}, MAD σ {}, IQR {}, min {}, max {}, mean {}",
        e.n,
        format::number(e.mad_sigma),
        format::number(e.iqr),
        format::number(e.min),
        format::number(e.max),
        format::number(e.mean),
    );
    let interval = match e.ci95 {
        Some(ci) => format::interval(ci, e.median),
        None => "[—]".to_owned(),
    };
    let detail = if e.ci95.is_none() { format!("{spread}; too few values for an interval") } else { spread };
    Cell { text: format::number(e.median), interval, detail, why: String::new() }
}

/// A ratio with its interval.
fn ratio_cell(r: &RatioEstimate) -> Cell {
    let [lo, hi] = r.ci;
    Cell {
        text: format::ratio(r.ratio),
        interval: format!("[{}, {}]", format::ratio(lo), format::ratio(hi)),
        detail: format!(
            "{} pairs, interval at {:.2} %, p = {}, Holm p = {}, τ = {:.2} %",
            r.n_pairs,
            r.level * 100.0,
            p_value(r.p),
            p_value(r.p_holm),
            r.tau * 100.0
        ),
        why: String::new(),
    }
}

/// A p-value, without a false zero.
fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}
