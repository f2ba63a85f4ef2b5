//! Kernels of a user's folder.

use std::path::{Component, Path, PathBuf};

use crate::space::{Backend, SpaceError, check};
use crate::{KernelSpec, Space};

/// The spaces with the kernels of `folder` added.
pub(crate) fn merged(spaces: &[Space], folder: &Path) -> Result<Vec<Space>, SpaceError> {
    let mut spaces = spaces.to_vec();
    for path in space_files(folder)? {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
        // The op decides which names an expression may use, so it is looked up before the rest is checked. A file without
        // one is no space, which the parser says.
        let op = op_of(&text).unwrap_or_default();
        let Some(at) = spaces.iter().position(|s| s.op == op) else {
            if op.is_empty() {
                Space::parse(&file, &text, Some(folder), &[])?;
            }
            let known: Vec<&str> = spaces.iter().map(|s| s.op.as_str()).collect();
            return Err(SpaceError::UnknownOp { file, op, known: known.join(", ") });
        };
        let dims = spaces[at].dims.clone();
        let theirs = Space::parse(&file, &text, Some(folder), &dims)?;
        if theirs.dims != dims {
            return Err(SpaceError::OtherDims { file, op: theirs.op, want: dims.join(", ") });
        }
        for kernel in theirs.kernels {
            source(&file, folder, &kernel)?;
            if spaces[at].kernels.iter().any(|k| k.id() == kernel.id()) {
                return Err(SpaceError::Duplicate { file, kernel: kernel.id() });
            }
            // Behind the baseline, but in front of the kernels that the tables know: a user's kernel runs where a sweep or
            // a table asks for it, and is never what the engine takes by default.
            let after_baseline = spaces[at].kernels.iter().position(|k| k.baseline).map_or(0, |i| i + 1);
            spaces[at].kernels.insert(after_baseline, kernel);
        }
        check::baselines(&file, &spaces[at].kernels)?;
    }
    Ok(spaces)
}

fn unreadable(path: &Path, error: &std::io::Error) -> SpaceError {
    SpaceError::Unreadable { path: path.display().to_string(), reason: error.to_string() }
}

/// The `.toml` files of a folder in the order of their names.
fn space_files(folder: &Path) -> Result<Vec<PathBuf>, SpaceError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, &e))? {
        let path = entry.map_err(|e| unreadable(folder, &e))?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(SpaceError::Empty { folder: folder.display().to_string() });
    }
    files.sort();
    Ok(files)
}

/// The op of a space file, if it is one. What else may be wrong with the file is found when all of it is read.
fn op_of(text: &str) -> Option<String> {
    text.parse::<toml::Table>().ok()?.get("op")?.as_str().map(str::to_owned)
}

/// Checks that the source is there, beside the space file, and knows its entry and its tunables.
fn source(file: &str, folder: &Path, kernel: &KernelSpec) -> Result<(), SpaceError> {
    let (file, name, path) = (file.to_owned(), kernel.name.clone(), kernel.source.clone());
    if kernel.backend != Backend::Cuda {
        return Err(SpaceError::NotCuda { file, kernel: name });
    }
    if Path::new(&path).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(SpaceError::SourceOutside { file, kernel: name, path });
    }
    let at = folder.join(&path);
    if !at.is_file() {
        return Err(SpaceError::NoSource { file, kernel: name, path: at.display().to_string() });
    }
    let text = std::fs::read_to_string(&at).map_err(|e| unreadable(&at, &e))?;
    let missing = || SpaceError::MissingKey { file: file.clone(), kernel: name.clone(), backend: "cuda", key: "entry" };
    // Only a library has none, and those are built in.
    let entry = kernel.entry.clone().ok_or_else(missing)?;
    if !mentions(&text, &entry) {
        return Err(SpaceError::NoEntry { file, kernel: name, path, name: entry });
    }
    match kernel.tunables.keys().find(|tunable| !mentions(&text, tunable)) {
        Some(tunable) => Err(SpaceError::Unused { file, kernel: name, path, name: tunable.clone() }),
        None => Ok(()),
    }
}

/// Whether a source uses a name as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !part(c)).any(|word| word == name)
}
