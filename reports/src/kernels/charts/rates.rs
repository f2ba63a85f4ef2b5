//! Roofline: the rate at which the winner, the plain variant and a pure read move the bytes of each workload.

use harness_spec::record::{KernelRun, WorkloadResult};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::{ENGINE, INK, MUTED, PEER};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::kernels::view;
use crate::view::format::number;

const NAME: &str = "roofline";
const TITLE: &str = "Bandwidth roofline: bytes of a launch against the rate they are moved at";

/// Bytes and GB/s of a workload's winner, plain variant and floor.
struct Point {
    bytes: f64,
    winner: Option<f64>,
    baseline: Option<f64>,
    floor: Option<f64>,
}

fn point(run: &KernelRun, result: &WorkloadResult) -> Option<Point> {
    let rate = |variant: &Option<harness_spec::VariantId>| {
        let variant = variant.as_ref()?;
        let cell = view::cells(run, result).find(|c| &c.cell.variant == variant)?;
        let (bytes, time) = (cell.bytes?.0 as f64, cell.time_ns.as_ref()?.median);
        (bytes > 0.0 && time > 0.0).then_some((bytes, bytes / time))
    };
    let winner = rate(&result.winner);
    let baseline = rate(&result.baseline);
    let floor = result.floor.as_ref().filter(|f| f.median_ns > 0.0).map(|f| f.bytes.0 as f64 / f.median_ns);
    let bytes = winner.or(baseline)?.0;
    Some(Point { bytes, winner: winner.map(|w| w.1), baseline: baseline.map(|b| b.1), floor })
}

/// Draws a dot for each.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let points: Vec<Point> = run.results.iter().filter_map(|r| point(run, r)).collect();
    if points.is_empty() {
        return Ok(omitted("no workload has a timed winner or plain variant"));
    }
    let roof = run
        .canaries
        .iter()
        .filter_map(|c| c.canary.as_ref())
        .map(|c| c.read_gb_per_s)
        .filter(|v| v.is_finite() && *v > 0.0)
        .fold(None, |most: Option<f64>, v| Some(most.map_or(v, |m| m.max(v))));
    let rates: Vec<f64> = points.iter().flat_map(|p| [p.winner, p.baseline, p.floor]).flatten().chain(roof).collect();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)))
    };
    let (slow, fast) = span(&mut rates.iter().copied());
    let (small, large) = span(&mut points.iter().map(|p| p.bytes / 1e6));
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![
            (Some(ENGINE), "winner".to_owned()),
            (Some(PEER), "plain variant".to_owned()),
            (Some(MUTED), "pure read of the same bytes".to_owned()),
        ],
        height: 420,
        left: 76,
        right: 24,
        x: (Axis::log(small / 1.3, large * 1.3, 8), "bytes of one launch, MB (log)"),
        y: (Axis::log(slow / 1.3, fast * 1.3, 8), "GB/s (log)"),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        if let Some(roof) = roof {
            let (from, to) = plot.across();
            easel::line(sheet, (from, plot.y(roof)), (to, plot.y(roof)), &INK, 2)?;
            let text = format!("measured read ceiling {} GB/s", number(roof));
            easel::text(sheet, &text, (from + 8, plot.y(roof) - 10), 12, &MUTED, HPos::Left)?;
        }
        for p in &points {
            let x = plot.x(p.bytes / 1e6);
            for (rate, colour) in [(p.floor, MUTED), (p.baseline, PEER), (p.winner, ENGINE)] {
                if let Some(rate) = rate {
                    easel::dot(sheet, (x, plot.y(rate)), 5, &colour.mix(0.8))?;
                }
            }
        }
        Ok(())
    })?;
    let caption = "GEMV does so few operations for each byte that the roof is bandwidth alone. Small launches lie under \
                   it because a launch has a fixed cost, which the pure read pays too: compare each winner with the grey \
                   dot above it. A dot beyond the line is a finding about the byte model or the ceiling."
        .to_owned();
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
