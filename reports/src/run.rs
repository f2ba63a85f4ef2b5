//! The folder of a run: writing its report, reading it back, rebuilding it.

use std::fs;
use std::path::{Path, PathBuf};

use harness_spec::record::{Provenance, RunRecord, SCHEMA_VERSION, Sample};
use serde_json::Value;

use crate::charts::{self, ChartOutcome};
use crate::error::ReportError;
use crate::files::{create_folder, remove_if_there, write_atomically};
use crate::html;
use crate::series::Runs;

/// Whether records of scripted peers are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedRecords {
    /// Refused, as everywhere outside tests.
    Refuse,
    /// Accepted, and the page says so at its top. For tests alone: a simulated number must never look measured.
    AcceptInTests,
}

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPaths {
    /// `run.json`.
    pub run: PathBuf,
    /// `report.html`.
    pub html: PathBuf,
    /// `charts/*.svg`; a chart without data is not among them.
    pub charts: Vec<PathBuf>,
}

/// A run as read from its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedRun {
    /// `run.json`.
    pub record: RunRecord,
    /// `samples.jsonl`, in file order.
    pub samples: Vec<Sample>,
    /// What a reader should know of the files, such as a cut last line.
    pub warnings: Vec<String>,
}

/// What [`rebuild`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuilt {
    /// The run that was read.
    pub run: LoadedRun,
    /// The files that were written; `run.json` was only read.
    pub paths: WrittenPaths,
}

/// Writes `run.json`, `report.html` and `charts/*.svg` into `dir`, which is created if absent.
///
/// `samples.jsonl` is not written here: it grows while the run goes on. `run.json` comes first, so that a disk
/// that fills up meanwhile costs the page and not the record.
///
/// # Errors
/// [`ReportError`], each naming the path and the fix; [`ReportError::NotMeasured`] for a simulated record.
pub fn write_run(dir: &Path, record: &RunRecord, samples: &[Sample]) -> Result<WrittenPaths, ReportError> {
    write_run_with(dir, record, samples, SimulatedRecords::Refuse)
}

/// [`write_run`] with a say in whether simulated records are accepted.
///
/// # Errors
/// As [`write_run`].
pub fn write_run_with(
    dir: &Path,
    record: &RunRecord,
    samples: &[Sample],
    simulated: SimulatedRecords,
) -> Result<WrittenPaths, ReportError> {
    check_provenance(record, simulated)?;
    create_folder(dir)?;
    let run = dir.join("run.json");
    let mut json =
        serde_json::to_string_pretty(record).map_err(|source| ReportError::Encode { id: record.id.clone(), source })?;
    json.push('\n');
    write_atomically(&run, json.as_bytes())?;
    write_views(dir, record, samples)
}

/// Reads `run.json` and `samples.jsonl` of `dir`.
///
/// A last line of `samples.jsonl` without its newline is what a killed run leaves: it is left out with a warning.
///
/// # Errors
/// [`ReportError`] when a file is missing, unreadable, of another format version, or damaged elsewhere.
pub fn load_run(dir: &Path) -> Result<LoadedRun, ReportError> {
    let record = load_record(&dir.join("run.json"))?;
    let (samples, cut) = load_samples(&dir.join("samples.jsonl"))?;
    let warnings = cut.map(|line| {
        format!("the last line of samples.jsonl (line {line}) is cut short and was left out: the run was killed there")
    });
    Ok(LoadedRun { record, samples, warnings: warnings.into_iter().collect() })
}

/// Rewrites `report.html` and the charts of `dir` from `run.json` and `samples.jsonl`, byte for byte as
/// [`write_run`] wrote them.
///
/// # Errors
/// As [`load_run`] and [`write_run`].
pub fn rebuild(dir: &Path) -> Result<Rebuilt, ReportError> {
    rebuild_with(dir, SimulatedRecords::Refuse)
}

/// [`rebuild`] with a say in whether simulated records are accepted.
///
/// # Errors
/// As [`rebuild`].
pub fn rebuild_with(dir: &Path, simulated: SimulatedRecords) -> Result<Rebuilt, ReportError> {
    let run = load_run(dir)?;
    check_provenance(&run.record, simulated)?;
    // The page shows what was left out, but the record stays as it was written.
    let mut shown = run.record.clone();
    shown.notes.extend(run.warnings.iter().cloned());
    let paths = write_views(dir, &shown, &run.samples)?;
    Ok(Rebuilt { run, paths })
}

/// Writes the page and the charts, and removes charts of an earlier report that have no data now.
fn write_views(dir: &Path, record: &RunRecord, samples: &[Sample]) -> Result<WrittenPaths, ReportError> {
    let runs = Runs::new(samples);
    let drawn = charts::draw_runs(record, &runs)?;
    let page = dir.join("report.html");
    write_atomically(&page, html::render(record, &runs, &drawn)?.as_bytes())?;
    let folder = dir.join("charts");
    create_folder(&folder)?;
    let mut paths = WrittenPaths { run: dir.join("run.json"), html: page, charts: Vec::new() };
    for outcome in &drawn {
        let path = folder.join(format!("{}.svg", outcome.name()));
        match outcome {
            ChartOutcome::Drawn(chart) => {
                write_atomically(&path, chart.svg.as_bytes())?;
                paths.charts.push(path);
            }
            ChartOutcome::Omitted { .. } => remove_if_there(&path)?,
        }
    }
    Ok(paths)
}

/// Refuses numbers that were not measured.
fn check_provenance(record: &RunRecord, simulated: SimulatedRecords) -> Result<(), ReportError> {
    match record.provenance {
        Provenance::Measured | Provenance::Derived => Ok(()),
        Provenance::Simulated if simulated == SimulatedRecords::AcceptInTests => Ok(()),
        other => Err(ReportError::not_measured(&record.id, other)),
    }
}

/// Reads a record after a look at its version, since another version may not even parse.
fn load_record(path: &Path) -> Result<RunRecord, ReportError> {
    let bytes = fs::read(path).map_err(|e| ReportError::read(path, e))?;
    let bad = |source| ReportError::BadRecord { path: path.to_owned(), source };
    let value: Value = serde_json::from_slice(&bytes).map_err(bad)?;
    let Some(found) = value.get("schema").and_then(Value::as_u64) else {
        return Err(ReportError::NoVersion { path: path.to_owned() });
    };
    if found != u64::from(SCHEMA_VERSION) {
        return Err(ReportError::UnknownVersion { path: path.to_owned(), found, supported: SCHEMA_VERSION });
    }
    serde_json::from_slice(&bytes).map_err(bad)
}

/// Reads the samples, and the number of a cut last line if there is one.
fn load_samples(path: &Path) -> Result<(Vec<Sample>, Option<usize>), ReportError> {
    // Bytes and not text: the cut may lie inside a character.
    let bytes = fs::read(path).map_err(|e| ReportError::read(path, e))?;
    let ends_whole = bytes.last().is_none_or(|&b| b == b'\n');
    let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    let mut samples = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(sample) => samples.push(sample),
            Err(_) if at + 1 == lines.len() && !ends_whole => return Ok((samples, Some(at + 1))),
            Err(source) => return Err(ReportError::BadSample { path: path.to_owned(), line: at + 1, source }),
        }
    }
    Ok((samples, None))
}
