//! The folder of a run of kernels: writing its report, reading it back, rebuilding it.

use std::fs;
use std::path::Path;

use harness_spec::record::{KERNEL_SCHEMA_VERSION, KernelRun, Provenance, Trial};
use serde_json::Value;

use super::{charts, html};
use crate::charts::ChartOutcome;
use crate::error::ReportError;
use crate::files::{create_folder, read_unpacked, remove_if_there, write_atomically};
use crate::run::{SimulatedRecords, WrittenPaths};

/// A run of kernels as read from its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedKernelRun {
    /// `run.json`.
    pub record: KernelRun,
    /// `trials.jsonl`, in file order; none where the file is absent, as after a `verify`.
    pub trials: Vec<Trial>,
    /// What a reader should know of the files, such as a cut last line.
    pub warnings: Vec<String>,
}

/// Whether the `run.json` of `dir`, which may be packed as `run.json.gz`, is a record of kernels and not of engines.
///
/// # Errors
/// [`ReportError`] where it is missing or no JSON.
pub fn is_kernel_run(dir: &Path) -> Result<bool, ReportError> {
    let path = dir.join("run.json");
    let bytes = read_unpacked(&path)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|source| ReportError::BadRecord { path, source })?;
    Ok(matches!(value.get("kind").and_then(Value::as_str), Some("verify" | "sweep" | "tune")))
}

/// Writes `run.json`, `report.html` and `charts/*.svg` into `dir`, which is created if absent.
///
/// `trials.jsonl` is not written here: it grows while the run goes on.
///
/// # Errors
/// [`ReportError`], each naming the path and the fix; [`ReportError::NotMeasured`] for a simulated record.
pub fn write_kernel_run(dir: &Path, record: &KernelRun, trials: &[Trial]) -> Result<WrittenPaths, ReportError> {
    write_kernel_run_with(dir, record, trials, SimulatedRecords::Refuse)
}

/// [`write_kernel_run`] with a say in whether simulated records are accepted.
///
/// # Errors
/// As [`write_kernel_run`].
pub fn write_kernel_run_with(
    dir: &Path,
    record: &KernelRun,
    trials: &[Trial],
    simulated: SimulatedRecords,
) -> Result<WrittenPaths, ReportError> {
    check_provenance(record, simulated)?;
    create_folder(dir)?;
    let mut json =
        serde_json::to_string_pretty(record).map_err(|source| ReportError::Encode { id: record.id.clone(), source })?;
    json.push('\n');
    write_atomically(&dir.join("run.json"), json.as_bytes())?;
    write_views(dir, record, trials)
}

/// Reads `run.json`, which may be packed as `run.json.gz`, and, where it exists, `trials.jsonl` of `dir`.
///
/// # Errors
/// [`ReportError`] when a file is unreadable, of another format version, or damaged elsewhere than in a cut last line.
pub fn load_kernel_run(dir: &Path) -> Result<LoadedKernelRun, ReportError> {
    let record = load_record(&dir.join("run.json"))?;
    let (trials, cut) = load_trials(&dir.join("trials.jsonl"))?;
    let mut warnings = Vec::from_iter(cut.map(|line| {
        format!("the last line of trials.jsonl (line {line}) is cut short and was left out: the run was killed there")
    }));
    if trials.is_empty() && dir.join("trials.jsonl.gz").is_file() {
        warnings.push("trials.jsonl is packed, so the clocks are not drawn: unpack it with gunzip -k first".to_owned());
    }
    Ok(LoadedKernelRun { record, trials, warnings })
}

/// Rewrites `report.html` and the charts of `dir` from its files.
///
/// # Errors
/// As [`load_kernel_run`] and [`write_kernel_run`].
pub fn rebuild_kernel_run(dir: &Path) -> Result<(LoadedKernelRun, WrittenPaths), ReportError> {
    rebuild_kernel_run_with(dir, SimulatedRecords::Refuse)
}

/// [`rebuild_kernel_run`] with a say in whether simulated records are accepted.
///
/// # Errors
/// As [`rebuild_kernel_run`].
pub fn rebuild_kernel_run_with(
    dir: &Path,
    simulated: SimulatedRecords,
) -> Result<(LoadedKernelRun, WrittenPaths), ReportError> {
    let run = load_kernel_run(dir)?;
    check_provenance(&run.record, simulated)?;
    let mut shown = run.record.clone();
    shown.notes.extend(run.warnings.iter().cloned());
    let paths = write_views(dir, &shown, &run.trials)?;
    Ok((run, paths))
}

/// Writes the page and the charts, and removes charts of an earlier report that have no data now.
fn write_views(dir: &Path, record: &KernelRun, trials: &[Trial]) -> Result<WrittenPaths, ReportError> {
    let drawn = charts::draw_kernels(record, trials)?;
    let page = dir.join("report.html");
    write_atomically(&page, html::render(record, &drawn)?.as_bytes())?;
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

fn check_provenance(record: &KernelRun, simulated: SimulatedRecords) -> Result<(), ReportError> {
    match record.provenance {
        Provenance::Measured | Provenance::Derived => Ok(()),
        Provenance::Simulated if simulated == SimulatedRecords::AcceptInTests => Ok(()),
        other => Err(ReportError::not_measured(&record.id, other)),
    }
}

fn load_record(path: &Path) -> Result<KernelRun, ReportError> {
    let bytes = read_unpacked(path)?;
    let bad = |source| ReportError::BadRecord { path: path.to_owned(), source };
    let value: Value = serde_json::from_slice(&bytes).map_err(bad)?;
    let Some(found) = value.get("schema").and_then(Value::as_u64) else {
        return Err(ReportError::NoVersion { path: path.to_owned() });
    };
    if found != u64::from(KERNEL_SCHEMA_VERSION) {
        return Err(ReportError::UnknownVersion { path: path.to_owned(), found, supported: KERNEL_SCHEMA_VERSION });
    }
    serde_json::from_slice(&bytes).map_err(bad)
}

/// Reads the trials, and the number of a cut last line if there is one.
fn load_trials(path: &Path) -> Result<(Vec<Trial>, Option<usize>), ReportError> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
        read => read.map_err(|e| ReportError::read(path, e))?,
    };
    let ends_whole = bytes.last().is_none_or(|&b| b == b'\n');
    let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    let mut trials = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(trial) => trials.push(trial),
            Err(_) if at + 1 == lines.len() && !ends_whole => return Ok((trials, Some(at + 1))),
            Err(source) => return Err(ReportError::BadSample { path: path.to_owned(), line: at + 1, source }),
        }
    }
    Ok((trials, None))
}
