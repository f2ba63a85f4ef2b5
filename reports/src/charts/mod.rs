//! The charts of a report, each an SVG with its text as text.
//!
//! A chart is drawn from the record and its samples alone. One that has no data is left out with the reason, never
//! drawn empty.

pub(crate) mod axis;
pub(crate) mod breakdown;
pub(crate) mod depth;
mod distribution;
pub(crate) mod easel;
mod ecdf;
pub(crate) mod palette;
mod ratios;
mod roofline;
mod timeline;

use harness_spec::record::{MetricId, RunRecord, Sample};

use crate::error::ReportError;
use crate::series::Runs;

/// A drawn chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Name of the file, without `.svg`.
    pub name: &'static str,
    /// Title, also inside the drawing.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The stand-alone SVG.
    pub svg: String,
}

/// What became of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChartOutcome {
    /// It was drawn.
    Drawn(Chart),
    /// There is nothing to draw.
    Omitted {
        /// Name of the file that would have been written, without `.svg`.
        name: &'static str,
        /// Title.
        title: String,
        /// Why it is left out.
        why: String,
    },
}

impl ChartOutcome {
    /// Name of the file, without `.svg`.
    pub fn name(&self) -> &'static str {
        match self {
            ChartOutcome::Drawn(chart) => chart.name,
            ChartOutcome::Omitted { name, .. } => name,
        }
    }
}

/// Draws every chart of the report, in the order of the page.
///
/// # Errors
/// [`ReportError::Draw`] where the plotting library fails.
pub fn draw_all(record: &RunRecord, samples: &[Sample]) -> Result<Vec<ChartOutcome>, ReportError> {
    draw_runs(record, &Runs::new(samples))
}

/// [`draw_all`] for samples that are judged already.
pub(crate) fn draw_runs(record: &RunRecord, runs: &Runs) -> Result<Vec<ChartOutcome>, ReportError> {
    let first = vec![ratios::draw(record)?];
    let asked_for = [depth::draw(record)?, breakdown::draw(record)?];
    let rest = vec![
        distribution::draw(record, runs, MetricId::DecodeTokPerS)?,
        distribution::draw(record, runs, MetricId::TtftMs)?,
        ecdf::draw(record, runs)?,
        roofline::draw(record)?,
        timeline::draw(record, runs)?,
    ];
    Ok(first.into_iter().chain(asked_for.into_iter().flatten()).chain(rest).collect())
}
