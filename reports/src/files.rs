//! Writing a file so that a reader sees the old one or the new one, never a half; reading one that may be packed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::ReportError;

/// Creates `dir` with its parents.
pub(crate) fn create_folder(dir: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(dir).map_err(|e| ReportError::write(dir, e))
}

/// Writes `bytes` to `path` through a temporary file beside it and a rename.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let mut temporary = path.as_os_str().to_owned();
    // The process id keeps two writers of one folder from cutting each other's file.
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = File::create(temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            // Without this, a power cut after the rename may leave an empty file under the final name.
            file.sync_all()
        })
        .and_then(|()| fs::rename(temporary, path));
    written.map_err(|e| {
        // The first error is the one to report; a left-over temporary file does no harm.
        let _ = fs::remove_file(temporary);
        ReportError::write(path, e)
    })
}

/// Reads `path`, or what lies packed beside it as `path.gz` where it is absent, as in the published runs.
pub(crate) fn read_unpacked(path: &Path) -> Result<Vec<u8>, ReportError> {
    let absent = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => e,
        read => return read.map_err(|e| ReportError::read(path, e)),
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".gz");
    let beside = Path::new(&beside);
    // The name without the ending is the one that a person knows.
    let packed = File::open(beside).map_err(|_| ReportError::read(path, absent))?;
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).map_err(|e| ReportError::read(beside, e))?;
    Ok(bytes)
}

/// Removes `path`, which may be absent.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), ReportError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ReportError::write(path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        // A folder under the file's name makes the rename fail.
        let taken = dir.path().join("report.html");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), b"x").unwrap();
        let error = write_atomically(&taken, b"page").unwrap_err().to_string();
        assert!(error.contains("report.html"), "{error}");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")), "{names:?}");
    }
}
