//! Decode speed in the order of the runs, where drift, heat and outside load show.

use harness_measure::metrics;
use harness_spec::record::{MetricId, RunRecord, Sample, SideRole};
use plotters::prelude::{Color, RGBColor};

use super::axis::Axis;
use super::easel::{self, Frame, colour};
use super::palette::MUTED;
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::series::Runs;
use crate::view::facts;
use crate::view::format::{grouped, shortened};

const NAME: &str = "timeline";
const TITLE: &str = "Decode speed in run order";
/// Dots in all: more are not told apart in 800 pixels.
const MOST_DOTS: usize = 4000;

/// Draws a dot a run.
pub(super) fn draw(record: &RunRecord, runs: &Runs) -> Result<ChartOutcome, ReportError> {
    let rate = |s: &Sample| metrics::value(s, MetricId::DecodeTokPerS).ok().filter(|v| v.is_finite());
    let kept: Vec<(&Sample, f64)> = runs.kept().filter_map(|s| rate(s).map(|v| (s, v))).collect();
    if kept.is_empty() {
        let why = "no run in the statistics has a decode rate".to_owned();
        return Ok(ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why });
    }
    let lost: Vec<&Sample> = runs.lost().map(|(s, _)| s).collect();
    let (least, greatest) = kept.iter().fold((f64::MAX, f64::MIN), |(l, h), &(_, v)| (l.min(v), h.max(v)));
    let first = runs.all().iter().map(|s| s.seq).min().unwrap_or(0) as f64;
    let last = runs.all().iter().map(|s| s.seq).max().unwrap_or(0) as f64;
    let mut legend: Vec<(Option<RGBColor>, String)> = record
        .sides
        .iter()
        .map(|s| {
            let n = kept.iter().filter(|(k, _)| k.side == s.role).count();
            let label = shortened(&facts::label(record, s.role), 40);
            (Some(colour(s.role)), format!("{label} (n = {})", grouped(n as u64)))
        })
        .collect();
    if !lost.is_empty() {
        legend.push((None, format!("× not in the statistics ({})", lost.len())));
    }
    let axis = Axis::around(least, greatest, 5);
    let axis_title = if axis.is_log() { "decode tok/s, logarithmic" } else { "decode tok/s" };
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend,
        height: 340,
        left: 80,
        right: 24,
        x: (Axis::linear(first - 1.0, last + 1.0, 10), "run number, both sides interleaved"),
        y: (axis, axis_title),
    };
    let step = kept.len().div_ceil(MOST_DOTS);
    let svg = easel::drawn(&frame, |sheet, plot| {
        for role in [SideRole::Engine, SideRole::Peer] {
            let values = runs.values(role, MetricId::DecodeTokPerS);
            if let Some(median) = harness_measure::describe::median_sorted(&values) {
                let (from, to) = plot.across();
                easel::line(sheet, (from, plot.y(median)), (to, plot.y(median)), &colour(role), 1)?;
            }
        }
        for (sample, value) in kept.iter().step_by(step) {
            let at = (plot.x(sample.seq as f64), plot.y(*value));
            easel::dot(sheet, at, 3, &colour(sample.side).mix(0.65))?;
        }
        let (_, bottom) = plot.down();
        for sample in lost.iter().take(MOST_DOTS) {
            easel::cross(sheet, (plot.x(sample.seq as f64), bottom - 8), &MUTED)?;
        }
        Ok(())
    })?;
    let thinned = if step > 1 { format!(" One run in {step} is drawn.") } else { String::new() };
    let caption = format!(
        "Each dot is one run, the thin lines are the medians. A slope or a step in both colours is the machine, in one \
         colour the server.{thinned}"
    );
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
