//! Percentiles of TTFT and ITL by the client's clock, with the rule on least counts.

use harness_measure::percentile::percentile;
use harness_spec::record::{MetricId, RunRecord};
use serde::Serialize;

use super::facts::SideValue;
use super::format;
use crate::series::Runs;

/// Percentiles of one quantity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PercentileTable {
    /// What it is about, with the unit.
    pub title: &'static str,
    /// Over what the values were pooled.
    pub pooled: &'static str,
    /// Column headings.
    pub columns: Vec<String>,
    /// One row a side.
    pub rows: Vec<PercentileRow>,
    /// Why there are dashes.
    pub footnotes: Vec<String>,
}

/// One side's percentiles.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PercentileRow {
    /// Name of the side.
    pub side: String,
    /// Number of values.
    pub n: String,
    /// One value a column.
    pub values: Vec<SideValue>,
}

const PERCENTS: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// The tables; none without samples.
pub(crate) fn tables(record: &RunRecord, runs: &Runs) -> Vec<PercentileTable> {
    let of = |title, pooled, values: &dyn Fn(&harness_spec::record::SideFacts) -> Vec<f64>| {
        let rows: Vec<PercentileRow> = record
            .sides
            .iter()
            .map(|side| {
                let values = values(side);
                PercentileRow {
                    side: format::one_line(&side.label),
                    n: format::grouped(values.len() as u64),
                    values: PERCENTS.iter().map(|&p| cell(&values, p)).collect(),
                }
            })
            .collect();
        let columns = PERCENTS.iter().map(|p| format!("p{p}")).collect();
        let footnotes = footnotes(&rows);
        PercentileTable { title, pooled, columns, rows, footnotes }
    };
    if runs.kept().next().is_none() {
        return Vec::new();
    }
    vec![
        of("TTFT, ms", "over all kept runs", &|s| runs.values(s.role, MetricId::TtftMs)),
        of("ITL, ms", "over all tokens of all kept runs", &|s| runs.itl_ms(s.role)),
    ]
}

/// Why there are dashes, one line for each side and for sides that lack the same values.
fn footnotes(rows: &[PercentileRow]) -> Vec<String> {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for row in rows {
        let whys: Vec<&str> = row.values.iter().map(|v| v.why.as_str()).filter(|why| !why.is_empty()).collect();
        let text = whys.join("; ");
        match told.iter_mut().find(|(known, _)| *known == text) {
            Some((_, sides)) => sides.push(&row.side),
            None => told.push((text, vec![&row.side])),
        }
    }
    let lines = told.into_iter().filter(|(text, _)| !text.is_empty());
    lines.map(|(text, sides)| format!("{}: {text}", sides.join(" and "))).collect()
}

/// A percentile that may be printed, or a dash with the reason.
fn cell(values: &[f64], percent: f64) -> SideValue {
    percentile(values, percent).map(|p| format::number(p.value)).map_err(|why| why.to_string()).into()
}
