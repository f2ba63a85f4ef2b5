//! Shape × kernel: how the best configuration of each kernel does at each shape.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::record::{CellRole, KernelRun, WorkloadResult};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::{BAND, ENGINE, INK, MUTED};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::kernels::view;
use crate::view::format::{number, shortened};

const NAME: &str = "heat_map";
const TITLE: &str = "Best configuration of each kernel, time over the fastest at that shape";
/// Height of a workload, pixels.
const ROW: u32 = 30;
/// Room for the names of the kernels under the title, pixels.
const NAMES: i32 = 26;
/// Workloads that fit a readable chart.
const MOST_WORKLOADS: usize = 48;
/// Kernels that fit beside each other.
const MOST_KERNELS: usize = 9;

/// Median of the best configuration of each kernel at each workload, ns.
fn best(run: &KernelRun, result: &WorkloadResult) -> BTreeMap<String, f64> {
    let mut out: BTreeMap<String, f64> = BTreeMap::new();
    let timed = view::cells(run, result).filter(|c| c.outcome.is_measured() && c.role != CellRole::Floor);
    for (cell, time) in timed.filter_map(|c| Some((c, c.time_ns.as_ref()?.median))) {
        let name = format!("{}@{}", cell.cell.variant.kernel, cell.cell.variant.backend);
        let entry = out.entry(name).or_insert(time);
        *entry = entry.min(time);
    }
    out
}

/// Draws a cell for each kernel at each workload.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let rows: Vec<(&WorkloadResult, BTreeMap<String, f64>)> =
        run.results.iter().map(|r| (r, best(run, r))).filter(|(_, b)| !b.is_empty()).take(MOST_WORKLOADS).collect();
    if rows.is_empty() {
        return Ok(omitted("no cell was timed"));
    }
    // Kernels that win or come near at many shapes stand first.
    let names: BTreeSet<&String> = rows.iter().flat_map(|(_, b)| b.keys()).collect();
    let score = |name: &String| -> f64 {
        let shares = rows.iter().map(|(_, b)| {
            let fastest = b.values().copied().fold(f64::INFINITY, f64::min);
            b.get(name).map_or(0.0, |t| fastest / t)
        });
        shares.sum()
    };
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let left_out = names.len().saturating_sub(MOST_KERNELS);
    names.truncate(MOST_KERNELS);

    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![(Some(ENGINE), "the darker the faster".to_owned()), (None, "µs in small print".to_owned())],
        height: 64 + NAMES as u32 + ROW * rows.len() as u32 + 54,
        left: 250,
        right: 16,
        x: (Axis::with_ticks(0.0, names.len() as f64, Vec::new()), ""),
        y: (Axis::linear(0.0, rows.len() as f64 + f64::from(NAMES) / f64::from(ROW), 1), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        let width = plot.x(1.0) - plot.x(0.0);
        for (at, name) in names.iter().enumerate() {
            // About the mean advance of a sans-serif face of 11 pixels.
            let fits = (f64::from(width) / 5.8) as usize;
            let x = plot.x(at as f64 + 0.5);
            let middle = plot.down().0 + NAMES / 2;
            easel::text(sheet, &shortened(name, fits.max(4)), (x, middle), 11, &MUTED, HPos::Center)?;
        }
        for (row, (result, times)) in rows.iter().enumerate() {
            let middle = plot.y(rows.len() as f64 - row as f64 - 0.5);
            let label = shortened(&result.workload.to_string(), 38);
            easel::text(sheet, &label, (242, middle), 12, &INK, HPos::Right)?;
            let fastest = times.values().copied().fold(f64::INFINITY, f64::min);
            for (at, name) in names.iter().enumerate() {
                let (from, to) = (plot.x(at as f64) + 1, plot.x(at as f64 + 1.0) - 1);
                let half = ROW as i32 / 2 - 1;
                let Some(time) = times.get(*name) else {
                    easel::rect(sheet, (from, middle - half), (to, middle + half), &BAND.to_rgba())?;
                    continue;
                };
                let share = (fastest / time).clamp(0.0, 1.0);
                // Squared, so that 10 % is seen; never so dark that the text is lost.
                let fill = ENGINE.mix(share * share * 0.55);
                easel::rect(sheet, (from, middle - half), (to, middle + half), &fill)?;
                let x = (from + to) / 2;
                easel::text(sheet, &format!("{:.2}x", time / fastest), (x, middle - 5), 12, &INK, HPos::Center)?;
                easel::text(sheet, &number(time / 1000.0), (x, middle + 8), 9, &MUTED, HPos::Center)?;
            }
        }
        Ok(())
    })?;
    let rest = if left_out == 0 { String::new() } else { format!(" {left_out} slower kernels are not shown.") };
    let caption = format!(
        "Each cell is the fastest valid configuration of that kernel at that shape; 1.00x is the fastest of the row. A \
         grey cell has no valid time: the kernel does not take the shape or type, or failed.{rest}"
    );
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
