//! The report of `bench selftest`: its figures with the ranges that they are held to, in every form.

use std::path::Path;

use harness_spec::record::{Provenance, SELFTEST_SCHEMA_VERSION, SelftestFigure, SelftestRun};
use serde::Serialize;
use serde_json::Value;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use crate::error::ReportError;
use crate::files::{create_folder, read_unpacked, write_atomically};
use crate::html::{STYLE, render_page};
use crate::markdown::escaped;
use crate::run::WrittenPaths;
use crate::view::format;

const TEMPLATE: &str = include_str!("selftest.html");

/// A figure as it is shown.
#[derive(Serialize)]
struct Row {
    name: String,
    value: String,
    count: String,
    range: String,
    outcome: &'static str,
    over: String,
    provenance: &'static str,
}

impl Row {
    fn of(f: &SelftestFigure) -> Row {
        let percent = |v: f64| format!("{:.2} %", v * 100.0);
        let range = match (f.at_least, f.at_most) {
            (None, None) => "describes the host".to_owned(),
            (Some(least), None) => format!("at least {}", percent(least)),
            (None, Some(most)) => format!("at most {}", percent(most)),
            (Some(least), Some(most)) => format!("{} to {}", percent(least), percent(most)),
        };
        Row {
            name: f.name.clone(),
            value: f.value.map_or_else(|| format::NONE.to_owned(), percent),
            count: f.hits.map_or_else(|| f.of.to_string(), |hits| format!("{hits} of {}", f.of)),
            range,
            outcome: match (f.passed, f.at_least.is_none() && f.at_most.is_none()) {
                (true, false) => "holds",
                (true, true) => "",
                (false, _) => "FAILS",
            },
            over: f.over.clone(),
            provenance: match f.provenance {
                Provenance::Measured => "measured",
                Provenance::Derived => "derived",
                Provenance::Imported => "imported",
                Provenance::Estimated => "estimated",
                Provenance::Simulated => "simulated",
            },
        }
    }
}

/// The sentence that a selftest came to.
pub fn selftest_headline(run: &SelftestRun) -> String {
    let held = run.figures.iter().filter(|f| f.at_least.is_some() || f.at_most.is_some()).count();
    let on = run.device.as_ref().map_or_else(String::new, |d| format!(" and {}", format::one_line(&d.name)));
    match (run.failed().count(), &run.incomplete) {
        (0, None) => {
            format!("The statistics hold on the scripted device{on}: all {held} figures lie within their ranges")
        }
        // What was not tried does not hold.
        (0, Some(_)) if held == 0 => "The statistics were not tried: there is no figure".to_owned(),
        (0, Some(_)) => {
            format!("The statistics were not tried to the end: the {held} figures so far lie within their ranges")
        }
        (n, _) => {
            let names: Vec<&str> = run.failed().map(|f| f.name.as_str()).collect();
            format!(
                "The statistics do not hold: {n} of {} figures lie outside ({})",
                run.figures.len(),
                names.join("; ")
            )
        }
    }
}

/// For a terminal.
pub fn selftest_terminal(run: &SelftestRun) -> String {
    let mut out = format!("{}\n", selftest_headline(run));
    if let Some(why) = &run.incomplete {
        out += &format!("incomplete: {why}\n");
    }
    let mut table = Builder::default();
    table.push_record(["figure", "value", "count", "range", ""]);
    for r in run.figures.iter().map(Row::of) {
        table.push_record([&r.name, &r.value, &r.count, &r.range, r.outcome]);
    }
    let mut table = table.build();
    table.with(Style::blank());
    for column in [1, 2] {
        table.modify(Columns::one(column), Alignment::right());
    }
    out += &format!("\n{table}\n");
    run.notes.iter().for_each(|n| out += &format!("note: {n}\n"));
    out
}

/// As Markdown.
pub fn selftest_markdown(run: &SelftestRun) -> String {
    let mut out = format!("{}.\n\n", escaped(&selftest_headline(run)));
    out += "| figure | value | count | range | | over |\n|---|--:|--:|---|---|---|\n";
    for r in run.figures.iter().map(Row::of) {
        out += &format!(
            "| {} | {} | {} | {} | {} | {} ({}) |\n",
            escaped(&r.name),
            r.value,
            r.count,
            r.range,
            r.outcome,
            escaped(&r.over),
            r.provenance
        );
    }
    out + &format!("\n{}, `{}`, record {}.\n", run.started, format::command_line(&run.command), run.id)
}

#[derive(Serialize)]
struct Page {
    style: &'static str,
    headline: String,
    incomplete: String,
    notes: Vec<String>,
    id: String,
    started: String,
    rows: Vec<Row>,
    plan: Vec<(&'static str, String)>,
    command: String,
}

/// As a page.
///
/// # Errors
/// [`ReportError::Render`].
pub fn selftest_html(run: &SelftestRun) -> Result<String, ReportError> {
    let plan = &run.plan;
    let page = Page {
        style: STYLE,
        headline: selftest_headline(run),
        incomplete: run.incomplete.clone().unwrap_or_default(),
        notes: run.notes.clone(),
        id: run.id.clone(),
        started: run.started.clone(),
        rows: run.figures.iter().map(Row::of).collect(),
        plan: vec![
            ("seed", plan.seed.to_string()),
            ("suites of each kind", plan.suites.to_string()),
            ("pairs of a duel", plan.pairs.to_string()),
            ("runs a side of a comparison", plan.runs.to_string()),
            ("resamples of an interval", plan.resamples.to_string()),
            ("kernel against itself", plan.kernel.clone().unwrap_or_else(|| "none, no --device was given".to_owned())),
            ("wall time", format::wall(run.wall_ns.secs())),
            ("program", format!("bench {} ({} build)", run.tool.version, run.tool.profile)),
            ("commit", run.tool.commit.clone()),
        ],
        command: format::command_line(&run.command),
    };
    render_page(TEMPLATE, &page)
}

/// Whether the `run.json` of `dir`, which may be packed, is the record of a selftest.
///
/// # Errors
/// [`ReportError`] where it is missing or no JSON.
pub fn is_selftest(dir: &Path) -> Result<bool, ReportError> {
    let path = dir.join("run.json");
    let bytes = read_unpacked(&path)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|source| ReportError::BadRecord { path, source })?;
    Ok(value.get("kind").and_then(Value::as_str) == Some("selftest"))
}

/// Writes `run.json` and `report.html` into `dir`, which is created if absent.
///
/// # Errors
/// [`ReportError`], each naming the path and the fix.
pub fn write_selftest(dir: &Path, run: &SelftestRun) -> Result<WrittenPaths, ReportError> {
    create_folder(dir)?;
    let mut json =
        serde_json::to_string_pretty(run).map_err(|source| ReportError::Encode { id: run.id.clone(), source })?;
    json.push('\n');
    write_atomically(&dir.join("run.json"), json.as_bytes())?;
    write_page(dir, run)
}

/// Reads `run.json` of `dir` and writes its page again.
///
/// # Errors
/// [`ReportError`] when the file is unreadable or of another version, or the page cannot be written.
pub fn rebuild_selftest(dir: &Path) -> Result<(SelftestRun, WrittenPaths), ReportError> {
    let run = read_selftest(&dir.join("run.json"))?;
    let paths = write_page(dir, &run)?;
    Ok((run, paths))
}

/// Reads a record, which may be packed.
pub(crate) fn read_selftest(path: &Path) -> Result<SelftestRun, ReportError> {
    let bytes = read_unpacked(path)?;
    let bad = |source| ReportError::BadRecord { path: path.to_owned(), source };
    let value: Value = serde_json::from_slice(&bytes).map_err(bad)?;
    match value.get("schema").and_then(Value::as_u64) {
        None => Err(ReportError::NoVersion { path: path.to_owned() }),
        Some(found) if found != u64::from(SELFTEST_SCHEMA_VERSION) => {
            Err(ReportError::UnknownVersion { path: path.to_owned(), found, supported: SELFTEST_SCHEMA_VERSION })
        }
        Some(_) => serde_json::from_slice(&bytes).map_err(bad),
    }
}

fn write_page(dir: &Path, run: &SelftestRun) -> Result<WrittenPaths, ReportError> {
    let html = dir.join("report.html");
    write_atomically(&html, selftest_html(run)?.as_bytes())?;
    Ok(WrittenPaths { run: dir.join("run.json"), html, charts: Vec::new() })
}
