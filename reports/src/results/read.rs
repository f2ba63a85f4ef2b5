//! Finds the records below a folder.

use std::fs;
use std::path::{Path, PathBuf};

use harness_spec::record::{KERNEL_SCHEMA_VERSION, KernelRun, Provenance, RunRecord, SCHEMA_VERSION, SelftestRun};
use serde_json::Value;

use crate::error::ReportError;
use crate::files::read_unpacked;
use crate::selftest::read_selftest;

/// Folders below the given one that are looked into.
const DEEPEST: usize = 3;

/// The records of a folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of their folders' names.
    pub entries: Vec<Entry>,
    /// Folders with a record that cannot be shown, and why.
    pub left_out: Vec<String>,
}

/// A record and where it lies.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its folder.
    pub folder: PathBuf,
    /// The file that links go to: its page, or the record itself.
    pub file: String,
    /// What it is of.
    pub record: Record,
}

/// Any kind of record.
#[derive(Debug)]
pub(crate) enum Record {
    /// Of an engine.
    Run(Box<RunRecord>),
    /// Of kernels.
    Kernels(Box<KernelRun>),
    /// Of the statistics.
    Selftest(Box<SelftestRun>),
}

/// Every record in `dir` and below.
///
/// # Errors
/// A folder that cannot be read. What is wrong with one record is in [`Found::left_out`].
pub(crate) fn records(dir: &Path) -> Result<Found, ReportError> {
    let mut found = Found::default();
    look(dir, DEEPEST, &mut found)?;
    Ok(found)
}

fn look(dir: &Path, deeper: usize, found: &mut Found) -> Result<(), ReportError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| ReportError::read(dir, e))? {
        let entry = entry.map_err(|e| ReportError::read(dir, e))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    if let Some(file) = ["run.json", "run.json.gz"].iter().map(|f| dir.join(f)).find(|f| f.is_file()) {
        match read(&file) {
            Ok(record) => {
                let page = ["report.html", "run.json", "run.json.gz"].into_iter().find(|f| dir.join(f).is_file());
                let file = page.unwrap_or("run.json").to_owned();
                found.entries.push(Entry { folder: dir.to_owned(), file, record });
            }
            Err(e) => {
                let name =
                    dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
                // The hint is for whoever opens that record.
                found.left_out.push(format!("{name}: {}", e.to_string().lines().next().unwrap_or_default()));
            }
        }
    }
    if deeper > 0 {
        folders.iter().try_for_each(|folder| look(folder, deeper - 1, found))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Record, ReportError> {
    let bytes = read_unpacked(&path.with_file_name("run.json"))?;
    let bad = |source| ReportError::BadRecord { path: path.to_owned(), source };
    let value: Value = serde_json::from_slice(&bytes).map_err(bad)?;
    let kind = value.get("kind").and_then(Value::as_str);
    if kind == Some("selftest") {
        return read_selftest(&path.with_file_name("run.json")).map(|r| Record::Selftest(Box::new(r)));
    }
    let of_kernels = matches!(kind, Some("verify" | "sweep" | "tune"));
    let supported = if of_kernels { KERNEL_SCHEMA_VERSION } else { SCHEMA_VERSION };
    match value.get("schema").and_then(Value::as_u64) {
        None => return Err(ReportError::NoVersion { path: path.to_owned() }),
        Some(v) if v != u64::from(supported) => {
            return Err(ReportError::UnknownVersion { path: path.to_owned(), found: v, supported });
        }
        Some(_) => {}
    }
    // From the text and not from the value, which would round numbers once more.
    let record = match of_kernels {
        true => Record::Kernels(serde_json::from_slice(&bytes).map_err(bad)?),
        false => Record::Run(serde_json::from_slice(&bytes).map_err(bad)?),
    };
    let (id, provenance) = match &record {
        Record::Run(r) => (&r.id, r.provenance),
        Record::Kernels(r) => (&r.id, r.provenance),
        Record::Selftest(_) => return Ok(record),
    };
    match provenance {
        Provenance::Measured | Provenance::Derived => Ok(record),
        other => Err(ReportError::not_measured(id, other)),
    }
}
