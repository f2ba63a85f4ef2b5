//! Every ratio of the comparison with its interval, against the band in which a difference counts as a tie.

use harness_measure::compare::ALL;
use harness_spec::record::{MetricComparison, MetricId, RatioEstimate, RunRecord, Verdict};
use plotters::prelude::{Color, RGBColor};
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::easel::{self, Draw, Frame, Plot, Sheet};
use super::palette::{BAND, ENGINE, GRID, INK, MUTED, PEER};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::view::format::{ratio, shortened, verdict};
use crate::view::metrics::{overall, title_of};

const NAME: &str = "ratios";
const TITLE: &str = "Engine against peer, with confidence intervals";
/// Height of a row, pixels.
const ROW: u32 = 28;
/// Rows by prompt and length that are drawn.
const MOST_GROUPS: usize = 24;

/// Draws the ratios over all runs, then decode by prompt and length.
pub(super) fn draw(record: &RunRecord) -> Result<ChartOutcome, ReportError> {
    let rows = rows(record);
    if rows.is_empty() {
        let why = if record.sides.len() < 2 {
            "one side ran alone, so there is nothing to compare"
        } else {
            "no metric has values on both sides"
        };
        return Ok(ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() });
    }
    let ends = rows.iter().map(|(_, r)| (r.ci[0].min(r.ratio).min(1.0 - r.tau), r.ci[1].max(r.ratio).max(1.0 + r.tau)));
    let (lo, hi) = ends.fold((0.95_f64, 1.05_f64), |(l, h), (a, b)| (l.min(a), h.max(b)));
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![
            (Some(ENGINE), "engine better".to_owned()),
            (Some(PEER), "peer better".to_owned()),
            (Some(MUTED), "tie, undecided, or descriptive".to_owned()),
            (Some(BAND), "counts as a tie (1 ± τ)".to_owned()),
        ],
        height: 64 + ROW * rows.len() as u32 + 54,
        left: 250,
        right: 246,
        x: (Axis::log(lo.max(1e-3) / 1.03, hi * 1.03, 7), "ratio, above 1 is better for the engine"),
        y: (Axis::rows(rows.len()), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        let (top, bottom) = plot.down();
        for (at, (metric, estimate)) in rows.iter().enumerate() {
            let row = Row { metric, estimate, from_bottom: rows.len() - at };
            let starts_groups = at > 0 && !stands_for_all(metric) && stands_for_all(rows[at - 1].0);
            row.draw(sheet, plot, starts_groups)?;
        }
        let one = plot.x(1.0);
        easel::line(sheet, (one, top), (one, bottom), &MUTED, 1)
    })?;
    let caption =
        "A ratio of medians of pairs, turned so that right of 1 is better for the engine in every row. The bar \
                   is the interval of the verdict; a verdict needs the interval to exclude 1 and the estimate to lie \
                   outside the band."
            .to_owned();
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}

/// The comparisons that stand for the whole run, then decode by prompt and length; those with a finite ratio.
fn rows(record: &RunRecord) -> Vec<(&MetricComparison, &RatioEstimate)> {
    let finite = |r: &&RatioEstimate| [r.ratio, r.ci[0], r.ci[1]].iter().all(|v| v.is_finite() && *v > 0.0);
    let groups = record.metrics.iter().filter(|m| !stands_for_all(m) && m.id == MetricId::DecodeTokPerS);
    let wanted = overall(record).into_iter().chain(groups.take(MOST_GROUPS));
    wanted.filter_map(|m| m.ratio.as_ref().filter(finite).map(|r| (m, r))).collect()
}

/// Whether the comparison is about all prompts.
fn stands_for_all(m: &MetricComparison) -> bool {
    m.group == ALL || m.group.starts_with("all/")
}

/// One row of the chart.
struct Row<'a> {
    metric: &'a MetricComparison,
    estimate: &'a RatioEstimate,
    from_bottom: usize,
}

impl Row<'_> {
    fn draw(&self, sheet: &Sheet, plot: &Plot, ruled: bool) -> Draw<()> {
        let (top, bottom) = (plot.y(self.from_bottom as f64), plot.y(self.from_bottom as f64 - 1.0));
        let middle = (top + bottom) / 2;
        let (_, right) = plot.across();
        let r = self.estimate;
        easel::rect(sheet, (plot.x(1.0 - r.tau), top), (plot.x(1.0 + r.tau) + 1, bottom), &BAND.to_rgba())?;
        if ruled {
            easel::line(sheet, (16, top), (right + 236, top), &GRID, 1)?;
        }
        let title = match stands_for_all(self.metric) {
            true => title_of(self.metric),
            false => format!("decode, {}", self.metric.group),
        };
        easel::text(sheet, &shortened(&title, 36), (242, middle), 12, &INK, HPos::Right)?;
        let ink = self.colour();
        let (from, to) = (plot.x(r.ci[0]), plot.x(r.ci[1]));
        easel::line(sheet, (from, middle), (to, middle), &ink, 3)?;
        for end in [from, to] {
            easel::line(sheet, (end, middle - 5), (end, middle + 5), &ink, 2)?;
        }
        easel::dot(sheet, (plot.x(r.ratio), middle), 5, &ink.to_rgba())?;
        let figures = format!("{} [{}, {}]", ratio(r.ratio), ratio(r.ci[0]), ratio(r.ci[1]));
        easel::text(sheet, &figures, (right + 14, middle), 12, &INK, HPos::Left)?;
        let word = self.metric.verdict.map(verdict).unwrap_or_default();
        easel::text(sheet, word, (right + 236, middle), 12, &ink, HPos::Right)
    }

    /// The colour of the side that the verdict favours.
    fn colour(&self) -> RGBColor {
        match self.metric.verdict {
            Some(Verdict::Faster) => ENGINE,
            Some(Verdict::Slower) => PEER,
            _ => MUTED,
        }
    }
}
