//! Where the time of a decoded token goes, by op: a bar a depth.

use harness_spec::record::RunRecord;
use plotters::prelude::{Color, RGBColor};
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::easel::{self, Frame};
use super::palette::{ENGINE, INK, MUTED, PARTS, PEER};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::view::breakdown::by_op;
use crate::view::format::grouped;

const NAME: &str = "breakdown";
const TITLE: &str = "Where the time of a decoded token goes";
/// Height of a bar with its room, pixels.
const ROW: u32 = 46;
/// Width of a part from which its share is written into it, pixels.
const LABELLED: i32 = 44;

/// Draws a stacked bar a depth; nothing where no token was taken apart.
pub(crate) fn draw(record: &RunRecord) -> Result<Option<ChartOutcome>, ReportError> {
    let all = &record.breakdowns;
    if all.is_empty() {
        return Ok(None);
    }
    let mut ops: Vec<&str> = Vec::new();
    for sum in all.iter().flat_map(by_op) {
        if !ops.contains(&sum.first.op.as_str()) {
            ops.push(&sum.first.op);
        }
    }
    let parts: Vec<Vec<(&str, f64)>> =
        all.iter().map(|b| by_op(b).iter().map(|sum| (sum.first.op.as_str(), sum.cost_ns / 1e3)).collect()).collect();
    // What lies below nothing is drawn to the left of nothing.
    let left = |parts: &[(&str, f64)]| parts.iter().map(|p| p.1.min(0.0)).sum::<f64>();
    let right = |parts: &[(&str, f64)]| parts.iter().map(|p| p.1.max(0.0)).sum::<f64>();
    let least = parts.iter().map(|p| left(p)).fold(0.0, f64::min);
    let walls = all.iter().map(|b| b.decode.wall_ns / 1e3);
    let most = parts.iter().map(|p| right(p)).chain(walls).fold(0.0, f64::max);
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: ops.iter().enumerate().map(|(at, op)| (Some(colour(at)), (*op).to_owned())).collect(),
        height: 64 + ROW * all.len() as u32 + 54,
        left: 110,
        right: 40,
        x: (Axis::linear(least * 1.05, most * 1.05, 8), "microseconds of one token"),
        y: (Axis::rows(all.len()), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        for (at, (breakdown, parts)) in all.iter().zip(&parts).enumerate() {
            let middle = plot.y(all.len() as f64 - at as f64 - 0.5);
            let label = format!("depth {}", grouped(breakdown.depth));
            easel::text(sheet, &label, (102, middle), 12, &INK, HPos::Right)?;
            let (mut below, mut above) = (0.0, 0.0);
            for &(op, us) in parts {
                let end = if us < 0.0 { &mut below } else { &mut above };
                let (from, to) = (plot.x(*end), plot.x(*end + us));
                *end += us;
                let place = ops.iter().position(|o| *o == op).unwrap_or_default();
                let (from, to) = (from.min(to), from.max(to));
                easel::rect(sheet, (from, middle - 13), (to, middle + 13), &colour(place).mix(0.85))?;
                if to - from >= LABELLED {
                    let share = format!("{:.0} %", us * 1e3 / breakdown.sum_ns * 100.0);
                    easel::text(sheet, &share, ((from + to) / 2, middle), 11, &INK, HPos::Center)?;
                }
            }
            let wall = plot.x(breakdown.decode.wall_ns / 1e3);
            easel::line(sheet, (wall, middle - 19), (wall, middle + 19), &MUTED, 2)?;
        }
        Ok(())
    })?;
    let caption = "What each op adds to the graph of a token, by the difference between graphs that end with it and just \
                   before it: steps overlap as in use, and the parts add up to the whole graph. The line is the wall time of \
                   a greedy token in the same process."
        .to_owned();
    Ok(Some(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg })))
}

/// The colour of a part by its place; they repeat where there are more.
fn colour(at: usize) -> RGBColor {
    let all = [ENGINE, PARTS[0], PARTS[2], PARTS[1], PARTS[3], PEER];
    all[at % all.len()]
}
