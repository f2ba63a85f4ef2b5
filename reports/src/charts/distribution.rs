//! How a metric is distributed over the runs: every run a dot, a box for the quartiles, by prompt and length.

use harness_spec::record::{MetricId, RunRecord, Sample, SideRole};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::easel::{self, Draw, Frame, Plot, Sheet, colour};
use super::palette::{GRID, INK, MUTED};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::series::{self, Runs};
use crate::view::facts;
use crate::view::format::{grouped, number, shortened};

/// Dots a lane: more would only darken it and swell the page. The kept ones are evenly spaced quantiles.
const MOST_DOTS: usize = 160;
/// Groups that get a lane of their own.
const MOST_GROUPS: usize = 24;
/// Height of one side's lane, pixels.
const LANE: u32 = 20;

/// The values of one group, by side.
struct Group {
    name: String,
    sides: Vec<(SideRole, Vec<f64>)>,
}

/// Draws the distribution of `id`, which is decode tok/s or TTFT.
pub(super) fn draw(record: &RunRecord, runs: &Runs, id: MetricId) -> Result<ChartOutcome, ReportError> {
    let (name, title, [linear, log]) = match id {
        MetricId::TtftMs => {
            ("ttft", "Time to first token", ["TTFT, ms (lower is better)", "TTFT, ms, logarithmic (lower is better)"])
        }
        _ => (
            "decode",
            "Decode speed at batch 1",
            ["decode tok/s (higher is better)", "decode tok/s, logarithmic (higher is better)"],
        ),
    };
    let groups = collect(record, runs, id);
    let all: Vec<f64> = groups.iter().flat_map(|g| g.sides.iter().flat_map(|(_, v)| v.iter().copied())).collect();
    if all.is_empty() {
        let why = "no run in the statistics has this value".to_owned();
        return Ok(ChartOutcome::Omitted { name, title: title.to_owned(), why });
    }
    let (least, greatest) = all.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    let lanes = record.sides.len().max(1) as u32;
    // A group of one side still needs room for its name and its count.
    let row = (LANE * lanes + 12).max(40);
    let legend = groups[0].sides.iter().map(|(role, values)| {
        let text = format!("{} (n = {})", shortened(&facts::label(record, *role), 40), grouped(values.len() as u64));
        (Some(colour(*role)), text)
    });
    let axis = Axis::around(least, greatest, 8);
    let axis_title = if axis.is_log() { log } else { linear };
    let frame = Frame {
        name,
        title: format!("{title}, by prompt and length"),
        legend: legend.collect(),
        height: 64 + row * groups.len() as u32 + 54,
        left: 190,
        right: 76,
        x: (axis, axis_title),
        y: (Axis::rows(groups.len()), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        for (at, group) in groups.iter().enumerate() {
            lane(sheet, plot, group, groups.len() - at, at > 0)?;
        }
        Ok(())
    })?;
    let thinned = groups.iter().flat_map(|g| &g.sides).any(|(_, values)| values.len() > MOST_DOTS);
    let caption = format!(
        "Each dot is one run, the box spans the quartiles, the line and the figure at the right are the median.{}",
        if thinned {
            format!(" Where a lane has more than {MOST_DOTS} runs, evenly spaced quantiles are drawn.")
        } else {
            String::new()
        }
    );
    Ok(ChartOutcome::Drawn(Chart { name, title: frame.title, caption, svg }))
}

/// All runs first, then each prompt and length that has values.
fn collect(record: &RunRecord, runs: &Runs, id: MetricId) -> Vec<Group> {
    let group = |name: String, of: &dyn Fn(&&Sample) -> bool| Group {
        sides: record.sides.iter().map(|s| (s.role, series::values_of(runs.kept().filter(of), s.role, id))).collect(),
        name,
    };
    let has_values = |g: &Group| g.sides.iter().any(|(_, values)| !values.is_empty());
    let parts = runs.groups(record);
    let mut groups: Vec<Group> = parts
        .iter()
        .map(|name| group(name.clone(), &|s| series::group_of(s) == *name))
        .filter(has_values)
        .take(MOST_GROUPS)
        .collect();
    // One group alone is the same as all runs.
    if groups.len() != 1 {
        groups.insert(0, group("all runs".to_owned(), &|_| true));
    }
    groups.retain(has_values);
    groups
}

/// One group: its name, then a lane a side.
fn lane(sheet: &Sheet, plot: &Plot, group: &Group, row_from_bottom: usize, ruled: bool) -> Draw<()> {
    let (top, bottom) = (plot.y(row_from_bottom as f64), plot.y(row_from_bottom as f64 - 1.0));
    let (from, to) = plot.across();
    if ruled {
        easel::line(sheet, (16, top), (to + 70, top), &GRID, 1)?;
    }
    let middle = (top + bottom) / 2;
    easel::text(sheet, &shortened(&group.name, 27), (182, middle - 7), 12, &INK, HPos::Right)?;
    let counts: Vec<String> = group.sides.iter().map(|(_, values)| grouped(values.len() as u64)).collect();
    let same = counts.iter().all(|n| *n == counts[0]);
    let counts = if same { counts[0].clone() } else { counts.join(" and ") };
    easel::text(sheet, &format!("n = {counts}"), (182, middle + 8), 10, &MUTED, HPos::Right)?;
    let height = (bottom - top - 8) / group.sides.len().max(1) as i32;
    for (at, (role, values)) in group.sides.iter().enumerate() {
        let centre = top + 4 + height * at as i32 + height / 2;
        strip(sheet, plot, *role, values, centre)?;
        if !values.is_empty() {
            let median = number(harness_measure::describe::median_sorted(values).unwrap_or(f64::NAN));
            easel::text(sheet, &median, (to + 70, centre), 11, &MUTED, HPos::Right)?;
        } else {
            easel::text(sheet, "no values", (from + 6, centre), 11, &MUTED, HPos::Left)?;
        }
    }
    Ok(())
}

/// Dots, box and median of one side.
fn strip(sheet: &Sheet, plot: &Plot, role: SideRole, values: &[f64], centre: i32) -> Draw<()> {
    if values.is_empty() {
        return Ok(());
    }
    let ink = colour(role);
    let drawn = values.len().min(MOST_DOTS);
    for i in 0..drawn {
        // Both extremes are among the drawn ones: nothing is trimmed.
        let at = if drawn < 2 { 0 } else { i * (values.len() - 1) / (drawn - 1) };
        // A fixed pattern and not chance: a rebuilt chart equals the first one.
        let offset = (i as i32 * 5) % 11 - 5;
        easel::dot(sheet, (plot.x(values[at]), centre + offset), 2, &ink.mix(0.32))?;
    }
    let quartile = |p| plot.x(series::drawn_quantile(values, p));
    easel::rect(sheet, (quartile(25.0), centre - 7), (quartile(75.0) + 1, centre + 7), &ink.mix(0.28))?;
    let median = plot.x(harness_measure::describe::median_sorted(values).unwrap_or(values[0]));
    easel::line(sheet, (median, centre - 8), (median, centre + 8), &ink, 3)
}
