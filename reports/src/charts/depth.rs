//! Decode speed by depth of context.

use harness_spec::record::{MetricId, RunRecord, SideRole};
use plotters::prelude::{Color, RGBColor};

use super::axis::Axis;
use super::easel::{self, Frame};
use super::palette::{ENGINE, PARTS, PEER};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::view::format::{number, shortened};
use crate::view::{depths, facts};

const NAME: &str = "depth";

/// A line of the chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// Whose it is.
    pub label: String,
    /// The side, which gives its first line the colour.
    pub role: SideRole,
    /// Depth, median tokens a second, and the interval where there is one.
    pub points: Vec<(u64, f64, Option<[f64; 2]>)>,
}

/// The lines of a record, one a side; none where it has no depth.
pub(crate) fn series(record: &RunRecord) -> Vec<Series> {
    let groups = depths::groups(record);
    let of_side = |role| {
        let point = |&(depth, group): &(u64, &str)| {
            let e = depths::estimate(record, role, MetricId::DecodeTokPerS, group)?;
            Some((depth, e.median, e.ci95))
        };
        Series { label: facts::label(record, role), role, points: groups.iter().filter_map(point).collect() }
    };
    let all = record.sides.iter().map(|side| of_side(side.role));
    all.filter(|series| !series.points.is_empty()).collect()
}

/// Draws the lines of a record; nothing where it has fewer than two depths.
pub(super) fn draw(record: &RunRecord) -> Result<Option<ChartOutcome>, ReportError> {
    draw_series("Decode speed by depth of context".to_owned(), &series(record))
}

/// Draws lines; nothing where none has two points.
pub(crate) fn draw_series(title: String, all: &[Series]) -> Result<Option<ChartOutcome>, ReportError> {
    if all.iter().all(|s| s.points.len() < 2) {
        return Ok(None);
    }
    let points = || all.iter().flat_map(|s| &s.points);
    let rates = || points().flat_map(|&(_, rate, ci)| ci.unwrap_or([rate, rate]).into_iter().chain([rate]));
    let (shallow, deep) = points().fold((u64::MAX, 0), |(l, h), &(depth, ..)| (l.min(depth), h.max(depth)));
    let (least, most) = rates().fold((f64::MAX, f64::MIN), |(l, h), rate| (l.min(rate), h.max(rate)));
    let coloured: Vec<(&Series, RGBColor)> = all.iter().enumerate().map(|(at, s)| (s, colour(all, at))).collect();
    // A rate that looks halved must be halved: the axis begins at nothing, unless sides lie decades apart.
    let y =
        if most / least.max(1e-9) > 20.0 { Axis::around(least, most, 6) } else { Axis::linear(0.0, most * 1.06, 6) };
    let y_title = if y.is_log() { "decode tok/s, logarithmic" } else { "decode tok/s" };
    let ticks = std::iter::successors(Some(1u64), |t| t.checked_mul(2)).take_while(|&t| t <= 2 * deep);
    let ticks: Vec<f64> = ticks.filter(|&t| 2 * t > shallow).map(|t| t as f64).collect();
    let frame = Frame {
        name: NAME,
        title,
        legend: coloured.iter().map(|(s, c)| (Some(*c), shortened(&s.label, 44))).collect(),
        height: 360,
        left: 80,
        right: 40,
        x: (
            Axis::log_with_ticks(shallow.max(1) as f64 / 1.1, deep.max(1) as f64 * 1.1, ticks),
            "tokens of context, logarithmic",
        ),
        y: (y, y_title),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        for (series, colour) in &coloured {
            let at = |depth: u64, rate: f64| (plot.x(depth as f64), plot.y(rate));
            easel::path(sheet, series.points.iter().map(|&(d, r, _)| at(d, r)).collect(), colour, 2)?;
            for &(depth, rate, ci) in &series.points {
                easel::dot(sheet, at(depth, rate), 4, &colour.to_rgba())?;
                if let Some([lo, hi]) = ci {
                    easel::line(sheet, at(depth, lo), at(depth, hi), colour, 1)?;
                }
            }
        }
        Ok(())
    })?;
    let told = all.iter().filter_map(|s| {
        let (first, last) = (s.points.first()?, s.points.last()?);
        let kept = last.1 / first.1 * 100.0;
        (first.0 < last.0).then(|| {
            format!(
                "{}: {} tok/s at {}, {} at {} ({kept:.1} %)",
                s.label,
                number(first.1),
                first.0,
                number(last.1),
                last.0
            )
        })
    });
    let told: Vec<String> = told.collect();
    let caption = format!(
        "Median of runs that begin with so many tokens in the context, with its 95 % interval. {}.",
        told.join("; ")
    );
    Ok(Some(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg })))
}

/// The first line of a side has the side's colour, further ones those of parts.
fn colour(all: &[Series], at: usize) -> RGBColor {
    let role = all[at].role;
    let before = all[..at].iter().filter(|s| s.role == role).count();
    match (role, before) {
        (SideRole::Engine, 0) => ENGINE,
        (SideRole::Peer, 0) => PEER,
        (SideRole::Engine, n) => [PARTS[3], PARTS[0]][(n - 1) % 2],
        (SideRole::Peer, n) => [PARTS[2], PARTS[1]][(n - 1) % 2],
    }
}
