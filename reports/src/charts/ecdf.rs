//! The share of inter-token latencies at or below each value.

use harness_measure::percentile::percentile;
use harness_spec::record::{RunRecord, SideRole};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::easel::{self, Frame, colour};
use super::palette::{GRID, MUTED};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::series::Runs;
use crate::view::facts;
use crate::view::format::{grouped, number, shortened};

/// Points a curve: finer than the pixels of the plot.
const POINTS: usize = 500;
/// Shortest latency that a logarithmic axis shows, ms; a coalesced chunk may read the same time twice.
const SHORTEST_MS: f64 = 1e-3;

const NAME: &str = "itl-ecdf";
const TITLE: &str = "Inter-token latency, cumulative";

/// Draws the curve of each side.
pub(super) fn draw(record: &RunRecord, runs: &Runs) -> Result<ChartOutcome, ReportError> {
    let curves: Vec<(SideRole, Vec<f64>)> =
        record.sides.iter().map(|s| (s.role, runs.itl_ms(s.role))).filter(|(_, values)| !values.is_empty()).collect();
    if curves.is_empty() {
        return Ok(ChartOutcome::Omitted {
            name: NAME,
            title: TITLE.to_owned(),
            why: "no run in the statistics carried one token a chunk, so latencies are not defined".to_owned(),
        });
    }
    let least = curves.iter().map(|(_, v)| v[0]).fold(f64::MAX, f64::min).max(SHORTEST_MS);
    let greatest = curves.iter().map(|(_, v)| v[v.len() - 1]).fold(SHORTEST_MS, f64::max);
    let legend = curves.iter().map(|(role, values)| {
        let label = shortened(&facts::label(record, *role), 40);
        (Some(colour(*role)), format!("{label} (n = {} tokens)", grouped(values.len() as u64)))
    });
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: legend.collect(),
        height: 400,
        left: 76,
        right: 40,
        x: (Axis::log(least / 1.1, greatest * 1.1, 9), "ITL, ms, logarithmic (lower is better)"),
        y: (Axis::with_ticks(0.0, 103.0, vec![0.0, 25.0, 50.0, 75.0, 90.0, 100.0]), "tokens at or below, %"),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        let (from, to) = plot.across();
        easel::line(sheet, (from, plot.y(99.0)), (to, plot.y(99.0)), &GRID, 1)?;
        for p in [50.0, 90.0, 99.0] {
            easel::text(sheet, &format!("p{p}"), (to + 6, plot.y(p)), 10, &MUTED, HPos::Left)?;
        }
        for (role, values) in &curves {
            let mut points = vec![(plot.x(values[0].max(SHORTEST_MS)), plot.y(0.0))];
            let count = values.len().min(POINTS);
            for i in 1..=count {
                let rank = i * values.len() / count;
                let (x, share) = (values[rank - 1].max(SHORTEST_MS), rank as f64 / values.len() as f64);
                let (x, y) = (plot.x(x), plot.y(share * 100.0));
                // A step and not a slope: between two values the share does not grow.
                let before = points[points.len() - 1].1;
                points.extend([(x, before), (x, y)]);
            }
            points.dedup();
            easel::path(sheet, points, &colour(*role), 2)?;
        }
        // The lower right corner lies below every curve, so the figures of the sides are written there.
        let (_, bottom) = plot.down();
        for (at, (role, values)) in curves.iter().enumerate() {
            let greatest = values[values.len() - 1];
            // A dot at the greatest value: at the top the curves lie on one another.
            easel::dot(sheet, (plot.x(greatest.max(SHORTEST_MS)), plot.y(100.0)), 4, &colour(*role).to_rgba())?;
            let line = bottom - 14 - 18 * (curves.len() - 1 - at) as i32;
            easel::text(sheet, &figures(values), (to - 8, line), 12, &colour(*role), HPos::Right)?;
        }
        Ok(())
    })?;
    let missing = record.sides.iter().filter(|s| curves.iter().all(|(role, _)| *role != s.role));
    let missing = missing.map(|s| {
        let label = facts::label(record, s.role);
        format!(" {label} has no curve: no run of it carried one token a chunk.")
    });
    let caption = format!(
        "All inter-token latencies of the kept runs; the whole tail is shown. Further left is better, and a steep \
         curve is an even stream.{}",
        missing.collect::<String>()
    );
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}

/// The percentiles that may be printed, and the greatest value.
fn figures(ascending: &[f64]) -> String {
    let mut parts = Vec::new();
    for p in [50.0, 99.0] {
        if let Ok(value) = percentile(ascending, p) {
            parts.push(format!("p{p} {} ms", number(value.value)));
        }
    }
    parts.push(format!("max {} ms", number(ascending[ascending.len() - 1])));
    parts.join(", ")
}
