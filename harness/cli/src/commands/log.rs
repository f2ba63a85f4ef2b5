//! `bench log`: the optimisation log, append-only (H10). Runs that end in a verdict add to it by themselves.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use harness_spec::record::{MetricId, RunRecord};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{print_json, print_text};
use crate::args::{LogAction, LogArgs};
use crate::exit::{Exit, Outcome, usage};
use crate::grid::Grid;
use crate::places;

/// Version of a line of the log.
const SCHEMA: u32 = 1;

/// One line of the log. What was not measured is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the line: 1.
    pub schema: u32,
    /// When, RFC 3339 UTC.
    pub date: String,
    /// Who wrote it: `person`, `tune`, `compare`.
    pub by: String,
    /// What was changed, or what was tuned.
    pub change: String,
    /// Decode tok/s before, or of the peer.
    pub before_tok_per_s: Option<f64>,
    /// Decode tok/s at batch 1.
    pub tok_per_s: Option<f64>,
    /// Sum over the kernels of one token, or time of the kernel, µs.
    pub kernel_us: Option<f64>,
    /// The same before.
    pub before_kernel_us: Option<f64>,
    /// What it came to.
    pub verdict: Option<String>,
    /// Device.
    pub device: Option<String>,
    /// Commit of the program.
    pub commit: Option<String>,
    /// Id or folder of the run that shows it.
    pub record: Option<String>,
}

impl Entry {
    /// An entry of now.
    pub fn now(by: &str, change: impl Into<String>) -> Entry {
        let tool = crate::machine::environment::tool();
        let dirty = if tool.dirty == Some(true) { " + changes" } else { "" };
        Entry {
            schema: SCHEMA,
            date: OffsetDateTime::now_utc()
                .replace_nanosecond(0)
                .ok()
                .and_then(|d| d.format(&Rfc3339).ok())
                .unwrap_or_default(),
            by: by.to_owned(),
            change: change.into(),
            commit: Some(format!("{}{dirty}", tool.commit)),
            ..Entry::default()
        }
    }
}

/// `bench log`.
pub fn run(args: LogArgs, json: bool) -> Outcome {
    let path = file(args.file)?;
    match args.action {
        None => show(&path, json),
        Some(LogAction::Add { change, before, tok_per_s, kernel_us, verdict, record }) => {
            if change.trim().is_empty() {
                return Err(usage(anyhow::anyhow!("an entry needs words on what was changed")));
            }
            let entry = Entry {
                before_tok_per_s: before,
                tok_per_s,
                kernel_us,
                verdict,
                record: record.map(|r| r.display().to_string()),
                ..Entry::now("person", change)
            };
            append(&path, &entry)?;
            eprintln!("added to {}", path.display());
            Ok(Exit::Done)
        }
    }
}

fn file(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    given.map_or_else(|| Ok(places::data()?.join("log.jsonl")), Ok)
}

/// Adds a line. One write call a line, so that two programs at once leave no mixture.
///
/// # Errors
/// The folder cannot be made or the file not written.
pub fn append(path: &Path, entry: &Entry) -> anyhow::Result<()> {
    let doing = || format!("cannot write to the log {}\nhint: choose another file with --file", path.display());
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(doing)?;
    }
    let mut line = serde_json::to_vec(entry).context("writing an entry as JSON")?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).open(path).with_context(doing)?;
    file.write_all(&line).with_context(doing)
}

/// Adds a line to the user's log. A log that cannot be written is said and costs no result.
pub fn note(entry: &Entry) {
    if let Err(e) = file(None).and_then(|path| append(&path, entry)) {
        eprintln!("warning: {e:#}");
    }
}

/// What a comparison adds.
pub fn note_comparison(record: &RunRecord) {
    let decode =
        record.metrics.iter().find(|m| m.id == MetricId::DecodeTokPerS && m.group == harness_measure::compare::ALL);
    let median = |s: Option<&harness_spec::record::SideSummary>| Some(s?.estimate.as_ref()?.median);
    note(&Entry {
        before_tok_per_s: median(decode.and_then(|m| m.peer.as_ref())),
        tok_per_s: median(decode.map(|m| &m.engine)),
        verdict: Some(record.headline.text.clone()),
        record: Some(record.id.clone()),
        ..Entry::now("compare", format!("engine against {} on {}", peer_label(record), record.model.name))
    });
}

fn peer_label(record: &RunRecord) -> &str {
    record.sides.get(1).map_or("nobody", |s| s.label.as_str())
}

/// Reads the log. Lines that are none are left out and named.
fn read(path: &Path) -> anyhow::Result<(Vec<Entry>, Vec<String>)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(e) => return Err(e).with_context(|| format!("reading the log {}", path.display())),
    };
    let (mut entries, mut warnings) = (Vec::new(), Vec::new());
    for (i, line) in String::from_utf8_lossy(&bytes).lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str::<Entry>(line) {
            Ok(entry) => entries.push(entry),
            Err(e) => warnings.push(format!("{} line {}: {e}, left out", path.display(), i + 1)),
        }
    }
    Ok((entries, warnings))
}

fn show(path: &Path, json: bool) -> Outcome {
    let (entries, warnings) = read(path)?;
    warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if json {
        print_json(&entries)?;
        return Ok(Exit::Done);
    }
    if entries.is_empty() {
        eprintln!("the log {} is empty; tune and compare add to it, and so does `bench log add`", path.display());
        return Ok(Exit::Done);
    }
    let number = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let change = |before: Option<f64>, after: Option<f64>| match before {
        Some(_) => format!("{} -> {}", number(before), number(after)),
        None => number(after),
    };
    let mut grid = Grid::new(&["date", "change", "tok/s", "kernel µs", "verdict", "commit"]);
    for e in &entries {
        grid.row([
            e.date.get(..16).unwrap_or(&e.date).replace('T', " "),
            e.change.clone(),
            change(e.before_tok_per_s, e.tok_per_s),
            change(e.before_kernel_us, e.kernel_us),
            e.verdict.clone().unwrap_or_else(|| "-".to_owned()),
            e.commit.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    print_text(&grid.render())?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_and_a_damaged_line_costs_only_itself() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("deep/log.jsonl");
        let entry = Entry { tok_per_s: Some(241.5), ..Entry::now("person", "wider loads") };
        append(&path, &entry).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{cut\n").unwrap();
        append(&path, &Entry::now("tune", "x")).unwrap();
        let (entries, warnings) = read(&path).unwrap();
        assert_eq!((entries.len(), warnings.len()), (2, 1));
        assert_eq!(entries[0], entry);
        assert!(warnings[0].contains("line 2"), "{warnings:?}");
    }

    #[test]
    fn a_log_that_is_not_there_is_empty() {
        assert_eq!(read(Path::new("/nowhere/log.jsonl")).unwrap().0, Vec::new());
    }
}
