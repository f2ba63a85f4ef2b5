//! What can go wrong with a report, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use harness_spec::record::Provenance;

/// Why a report could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The disk or the quota is used up.
    #[error("no space left to write {path}\nhint: free some space, then run `bench report` on this folder")]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The user may not write there.
    #[error("no permission to write {path}\nhint: choose a folder you may write to with `--out DIR`")]
    Permission {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A part of the path is a file.
    #[error("{path} cannot be a folder because a file has its name\nhint: choose another folder with `--out DIR`")]
    NotAFolder {
        /// The folder that was wanted.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Any other failure to write.
    #[error("cannot write {path}: {source}\nhint: check the disk, or choose another folder with `--out DIR`")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file of the run is missing.
    #[error("{path} does not exist\nhint: give the folder of a run, such as `bench compare` or `bench tune` writes{}", packed(.path))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder without a record.
    #[error(
        "{path} and the folders in it hold no record that can be shown\nhint: give a folder of runs, such as `results`"
    )]
    NoRecords {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the run cannot be read.
    #[error("cannot read {path}: {source}\nhint: check that you may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `run.json` is not JSON, or not a record.
    #[error("{path} is not a run record: {source}\nhint: restore it, or measure again")]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// `run.json` has no usable version number.
    #[error("{path} has no schema version\nhint: it was not written by `bench`; give the folder of a run")]
    NoVersion {
        /// The file.
        path: PathBuf,
    },
    /// The record was written by another version of the format.
    #[error(
        "{path} has record format {found}, and this program reads format {supported}\nhint: use the version of `bench` that wrote it"
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        supported: u32,
    },
    /// A line of `samples.jsonl`, other than a cut last one, is no sample.
    #[error("line {line} of {path} is not a sample: {source}\nhint: restore the file, or delete the line and say so")]
    BadSample {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The numbers were not measured, so no report may show them.
    #[error(
        "run {id} has {provenance} numbers, and a report shows measured ones only\nhint: measure with `bench compare`"
    )]
    NotMeasured {
        /// Id of the run.
        id: String,
        /// Their provenance, in lower case.
        provenance: &'static str,
    },
    /// A record could not be written as JSON.
    #[error("cannot write run {id} as JSON: {source}")]
    Encode {
        /// Id of the run.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A chart could not be drawn.
    #[error("cannot draw the chart {chart}: {message}")]
    Draw {
        /// Name of the chart.
        chart: &'static str,
        /// What the plotting library said.
        message: String,
    },
    /// The page could not be rendered.
    #[error("cannot render report.html: {source}")]
    Render {
        /// What the template engine said.
        source: minijinja::Error,
    },
}

/// What to do about a file that lies packed beside its name, as in the published runs.
fn packed(path: &Path) -> String {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".gz");
    let beside = Path::new(&beside);
    if beside.is_file() { format!(", or unpack this one with `gunzip -k {}`", beside.display()) } else { String::new() }
}

impl ReportError {
    /// The case for a failed write to `path`.
    pub(crate) fn write(path: &Path, source: io::Error) -> ReportError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ReportError::DiskFull { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ReportError::Permission { path, source }
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ReportError::NotAFolder { path, source },
            _ => ReportError::Write { path, source },
        }
    }

    /// The case for a failed read of `path`.
    pub(crate) fn read(path: &Path, source: io::Error) -> ReportError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReportError::Missing { path },
            _ => ReportError::Read { path, source },
        }
    }

    /// The case for a record that a report must not show.
    pub(crate) fn not_measured(id: &str, provenance: Provenance) -> ReportError {
        let provenance = match provenance {
            Provenance::Measured => "measured",
            Provenance::Derived => "derived",
            Provenance::Imported => "imported",
            Provenance::Estimated => "estimated",
            Provenance::Simulated => "simulated",
        };
        ReportError::NotMeasured { id: id.to_owned(), provenance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_a_missing_permission_and_a_file_in_the_way_each_name_the_path_and_the_fix() {
        let cases = [
            (io::ErrorKind::StorageFull, "no space left to write /x/run.json", "free some space"),
            (io::ErrorKind::PermissionDenied, "no permission to write /x/run.json", "--out DIR"),
            (io::ErrorKind::ReadOnlyFilesystem, "no permission to write /x/run.json", "--out DIR"),
            (io::ErrorKind::NotADirectory, "/x/run.json cannot be a folder", "--out DIR"),
            (io::ErrorKind::Interrupted, "cannot write /x/run.json", "--out DIR"),
        ];
        for (kind, says, fix) in cases {
            let text = ReportError::write(Path::new("/x/run.json"), io::Error::from(kind)).to_string();
            assert!(text.contains(says) && text.contains(fix), "{text}");
        }
    }
}
