//! Shape × kernel, a map for each op: how the best configuration of each kernel does at each shape.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::record::{CellRole, KernelRun, WorkloadResult};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Draw, Frame, Sheet};
use crate::charts::palette::{BAND, ENGINE, INK, MUTED};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::kernels::view;
use crate::view::format::{number, shortened};

const NAME: &str = "heat_map";
const TITLE: &str = "Best configuration of each kernel, time over the fastest at that shape";
/// Height of a workload, pixels.
const ROW: i32 = 30;
/// Height of a line of a column's head, pixels.
const LINE: i32 = 13;
/// Height of the name of an op, and of the room above it, pixels.
const OP: i32 = 24;
/// Widest column: a map of two kernels need not fill the sheet.
const WIDEST: i32 = 100;
/// Characters of a row's label that fit left of the widest map.
const MOST_LABEL: usize = 48;
/// Workloads that fit a readable chart.
const MOST_WORKLOADS: usize = 48;
/// Kernels that fit beside each other.
const MOST_KERNELS: usize = 12;
/// About the mean advance of a sans-serif face of 12 pixels.
const ADVANCE: f64 = 6.6;

/// Median of the best configuration of each kernel, ns.
type Best = BTreeMap<String, f64>;

/// The map of an op.
struct Map {
    title: String,
    kernels: Vec<String>,
    /// Label and times of each workload.
    rows: Vec<(String, Best)>,
    left_out: usize,
}

fn best(run: &KernelRun, result: &WorkloadResult) -> Best {
    let mut out = Best::new();
    let timed = view::cells(run, result).filter(|c| c.outcome.is_measured() && c.role != CellRole::Floor);
    for (cell, time) in timed.filter_map(|c| Some((c, c.time_ns.as_ref()?.median))) {
        let variant = &cell.cell.variant;
        // Most runs are of one backend, which the page names elsewhere.
        let own = variant.backend == run.device.backend;
        let name = if own { variant.kernel.clone() } else { format!("{}@{}", variant.kernel, variant.backend) };
        let entry = out.entry(name).or_insert(time);
        *entry = entry.min(time);
    }
    out
}

/// A map of the workloads of one op.
fn map(op: &str, rows: &[(&WorkloadResult, Best)]) -> Map {
    // Kernels that win or come near at many shapes stand first.
    let names: BTreeSet<&String> = rows.iter().flat_map(|(_, b)| b.keys()).collect();
    let score = |name: &String| -> f64 {
        rows.iter().map(|(_, times)| times.get(name).map_or(0.0, |t| fastest(times) / t)).sum()
    };
    let mut kernels: Vec<String> = names.into_iter().cloned().collect();
    kernels.sort_by(|a, b| score(b).total_cmp(&score(a)).then_with(|| a.cmp(b)));
    let left_out = kernels.len().saturating_sub(MOST_KERNELS);
    kernels.truncate(MOST_KERNELS);

    // What all rows have in common is said once, beside the op: of a single row, all of it.
    let words = |r: &WorkloadResult| -> Vec<String> {
        let text = format!("{} {}", r.workload.to_string().trim_start_matches(op), r.policy);
        text.split_whitespace().map(str::to_owned).collect()
    };
    let of: Vec<Vec<String>> = rows.iter().map(|(r, _)| words(r)).collect();
    let shared = |word: &String| of.iter().all(|other| other.contains(word));
    let common: Vec<&str> = of[0].iter().filter(|w| shared(w)).map(String::as_str).collect();
    let label = |all: &Vec<String>| {
        let own: Vec<&str> = all.iter().filter(|w| !shared(w)).map(String::as_str).collect();
        shortened(&own.join(" "), MOST_LABEL)
    };
    let rows = of.iter().zip(rows).map(|(words, (_, times))| (label(words), times.clone())).collect();
    Map { title: format!("{op}  {}", common.join(" ")), kernels, rows, left_out }
}

fn fastest(times: &Best) -> f64 {
    times.values().copied().fold(f64::INFINITY, f64::min)
}

/// A name in lines of at most `most` characters, broken after underscores where it can be.
fn wrapped(name: &str, most: usize) -> Vec<String> {
    let most = most.max(4);
    let mut lines = vec![String::new()];
    for part in name.split_inclusive(['_', '@']) {
        let mut letters: Vec<char> = part.chars().collect();
        let line = lines.last_mut().expect("there is a line from the start");
        if !line.is_empty() && line.chars().count() + letters.len() > most {
            lines.push(String::new());
        }
        while letters.len() > most {
            let rest = letters.split_off(most);
            lines.last_mut().expect("there is a line from the start").extend(letters);
            lines.push(String::new());
            letters = rest;
        }
        lines.last_mut().expect("there is a line from the start").extend(letters);
    }
    lines
}

impl Map {
    /// Width of a column where the labels take `left`.
    fn column(&self, left: i32) -> i32 {
        ((easel::WIDTH as i32 - left - 16) / self.kernels.len().max(1) as i32).min(WIDEST)
    }

    /// The heads of the columns, in lines.
    fn heads(&self, left: i32) -> Vec<Vec<String>> {
        let fits = (f64::from(self.column(left) - 4) / (ADVANCE * 11.0 / 12.0)) as usize;
        self.kernels.iter().map(|k| wrapped(k, fits)).collect()
    }

    fn head_height(&self, left: i32) -> i32 {
        self.heads(left).iter().map(Vec::len).max().unwrap_or(1) as i32 * LINE + 6
    }

    fn height(&self, left: i32) -> i32 {
        OP + self.head_height(left) + ROW * self.rows.len() as i32 + 14
    }

    fn draw(&self, sheet: &Sheet, top: i32, left: i32) -> Draw<()> {
        easel::bold(sheet, &self.title, (16, top + OP / 2), 13)?;
        let width = self.column(left);
        let first = top + OP + self.head_height(left);
        for (at, lines) in self.heads(left).iter().enumerate() {
            let x = left + width * at as i32 + width / 2;
            for (line, text) in lines.iter().rev().enumerate() {
                easel::text(sheet, text, (x, first - 9 - LINE * line as i32), 11, &MUTED, HPos::Center)?;
            }
        }
        for (row, (label, times)) in self.rows.iter().enumerate() {
            let (top, bottom) = (first + ROW * row as i32 + 1, first + ROW * (row as i32 + 1) - 1);
            let middle = (top + bottom) / 2;
            easel::text(sheet, label, (left - 10, middle), 12, &INK, HPos::Right)?;
            for (at, name) in self.kernels.iter().enumerate() {
                let (from, to) = (left + width * at as i32 + 1, left + width * (at as i32 + 1) - 1);
                let Some(time) = times.get(name) else {
                    easel::rect(sheet, (from, top), (to, bottom), &BAND.to_rgba())?;
                    continue;
                };
                let share = (fastest(times) / time).clamp(0.0, 1.0);
                // Squared, so that 10 % is seen; never so dark that the text is lost.
                easel::rect(sheet, (from, top), (to, bottom), &ENGINE.mix(share * share * 0.55))?;
                let x = (from + to) / 2;
                let over = format!("{:.2}x", time / fastest(times));
                easel::text(sheet, &over, (x, middle - 5), 12, &INK, HPos::Center)?;
                easel::text(sheet, &number(time / 1000.0), (x, middle + 8), 9, &INK, HPos::Center)?;
            }
        }
        Ok(())
    }
}

/// Draws a map for each op, below each other.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let mut rows: Vec<(&WorkloadResult, Best)> =
        run.results.iter().map(|r| (r, best(run, r))).filter(|(_, b)| !b.is_empty()).collect();
    if rows.is_empty() {
        return Ok(omitted("no cell was timed"));
    }
    let more = rows.len().saturating_sub(MOST_WORKLOADS);
    rows.truncate(MOST_WORKLOADS);
    let mut ops: Vec<(&str, Vec<(&WorkloadResult, Best)>)> = Vec::new();
    for row in rows {
        let op = row.0.workload.op.as_str();
        match ops.iter_mut().find(|(known, _)| *known == op) {
            Some((_, rows)) => rows.push(row),
            None => ops.push((op, vec![row])),
        }
    }
    let maps: Vec<Map> = ops.iter().map(|(op, rows)| map(op, rows)).collect();
    let longest = maps.iter().flat_map(|m| &m.rows).map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let left = ((longest as f64 * ADVANCE) as i32 + 28).max(110);
    let heights: i32 = maps.iter().map(|m| m.height(left)).sum();

    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![
            (Some(ENGINE), "the stronger the colour, the faster".to_owned()),
            (None, "µs in small print".to_owned()),
        ],
        height: (64 + heights + 8) as u32,
        left: 16,
        right: 16,
        x: (Axis::with_ticks(0.0, 1.0, Vec::new()), ""),
        y: (Axis::with_ticks(0.0, 1.0, Vec::new()), ""),
    };
    let svg = easel::blank(&frame, |sheet| {
        let mut top = 60;
        for map in &maps {
            map.draw(sheet, top, left)?;
            top += map.height(left);
        }
        Ok(())
    })?;
    let mut caption = "Each cell is the fastest valid configuration of that kernel at that shape; 1.00x is the fastest of \
                       the row. A grey cell was not timed: the kernel does not take the shape, failed, or the search did \
                       not ask for it."
        .to_owned();
    for map in maps.iter().filter(|m| m.left_out > 0) {
        let op = map.title.split(' ').next().unwrap_or_default();
        let kernels = if map.left_out == 1 { "kernel" } else { "kernels" };
        caption += &format!(" Not shown: {} slower {kernels} of {op}.", map.left_out);
    }
    if more > 0 {
        caption += &format!(" Workloads that are not shown: {more}.");
    }
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn a_long_name_breaks_after_its_underscores_and_loses_no_letter() {
        assert_eq!(wrapped("staged_cpasync", 9), ["staged_", "cpasync"]);
        assert_eq!(wrapped("plain", 9), ["plain"]);
        assert_eq!(wrapped("multirow_f16", 6), ["multir", "ow_f16"]);
        assert_eq!(wrapped("mma_small_batch", 10), ["mma_small_", "batch"]);
    }
}
