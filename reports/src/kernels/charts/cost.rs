//! Where the wall time of a run went.

use harness_spec::record::KernelRun;
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::{ENGINE, INK};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::kernels::view;
use crate::view::format::{percent, wall};

const NAME: &str = "cost";
const TITLE: &str = "Where the wall time went";
/// Height of a bar with its room, pixels.
const ROW: u32 = 28;

/// Draws a bar a phase.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let total = run.cost.wall.secs();
    if total <= 0.0 {
        return Ok(omitted("the record has no wall time"));
    }
    let mut parts = view::costs(run);
    let explained: f64 = parts.iter().map(|p| p.1).sum();
    parts.push(("unexplained", (total - explained).max(0.0)));
    let longest = parts.iter().map(|p| p.1).fold(0.0, f64::max);
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![(None, format!("wall time {}", wall(total)))],
        height: 64 + ROW * parts.len() as u32 + 54,
        left: 110,
        right: 150,
        x: (Axis::linear(0.0, longest.max(total * 0.01), 8), "seconds"),
        y: (Axis::rows(parts.len()), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        for (at, (name, seconds)) in parts.iter().enumerate() {
            let middle = plot.y(parts.len() as f64 - at as f64 - 0.5);
            easel::text(sheet, name, (102, middle), 12, &INK, HPos::Right)?;
            let end = plot.x(*seconds);
            easel::rect(sheet, (plot.x(0.0), middle - 9), (end, middle + 9), &ENGINE.mix(0.8))?;
            let text = format!("{}, {}", wall(*seconds), percent(seconds / total));
            easel::text(sheet, &text, (end + 6, middle), 11, &INK, HPos::Left)?;
        }
        Ok(())
    })?;
    let caption =
        "Compiling is what the run waited for; what the compiler did while the device was busy is not in it. \
                   The parts do not overlap."
            .to_owned();
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
