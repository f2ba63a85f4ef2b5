//! How fast the search found its best: time of the best so far over evaluations.

use harness_spec::record::KernelRun;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::ENGINE;
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;

const NAME: &str = "search";
const TITLE: &str = "Search: best so far over the final best";

/// Draws a line a workload.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let searches: Vec<_> =
        run.results.iter().filter_map(|r| r.search.as_ref()).filter(|s| !s.trace.is_empty()).collect();
    if searches.is_empty() {
        return Ok(omitted("nothing was searched: a sweep times every variant"));
    }
    let most = searches.iter().map(|s| s.evaluations).max().unwrap_or(1).max(2) as f64;
    let ratio = |trace: &[(u64, f64)]| -> Vec<(f64, f64)> {
        let last = trace.last().map_or(1.0, |t| t.1);
        trace.iter().map(|&(n, t)| (n as f64, t / last)).collect()
    };
    let worst = searches.iter().flat_map(|s| ratio(&s.trace)).map(|p| p.1).fold(1.05, f64::max).min(20.0);
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![(Some(ENGINE), format!("{} workloads, a line each", searches.len()))],
        height: 340,
        left: 76,
        right: 24,
        x: (Axis::linear(0.0, most, 8), "evaluations"),
        y: (Axis::log(0.98, worst * 1.05, 6), "time over the final best (log)"),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        for search in &searches {
            let mut points = Vec::new();
            let mut level = None;
            for (n, t) in ratio(&search.trace) {
                if let Some(level) = level {
                    points.push((plot.x(n), plot.y(level)));
                }
                points.push((plot.x(n), plot.y(t.min(worst))));
                level = Some(t.min(worst));
            }
            points.push((plot.x(search.evaluations as f64), plot.y(1.0)));
            easel::path(sheet, points, &ENGINE, 1)?;
        }
        Ok(())
    })?;
    let caption = "Each step down is a configuration that beat all before it. The earlier a line reaches 1, the fewer \
                   evaluations the search needed."
        .to_owned();
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
