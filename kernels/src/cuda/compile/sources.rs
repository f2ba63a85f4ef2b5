//! CUDA sources and the headers that they include.
//!
//! The built-in sources are embedded (`build.rs`). A header is found beside the file that includes it, then in
//! `cuda/include`, then from `cuda`; in a user's folder beside the file first, then among the built-in ones. Nothing else
//! is on the include path: the dialect needs no header of CUDA.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

static BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/cuda_sources.rs"));

/// A built-in source by its path from the root of the kernels crate, such as `cuda/gemv/planes_dp4a.cu`.
pub fn built_in(path: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// Paths of all built-in sources and headers.
pub fn built_in_paths() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// Where a source comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program itself; the path from the root of the kernels crate.
    BuiltIn(String),
    /// A user's file.
    File(PathBuf),
}

/// A source with all that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The name that the compiler's errors carry.
    pub name: String,
    /// The text.
    pub text: String,
    /// Headers by the name under which they are included, those that they include among them.
    pub headers: Vec<(String, String)>,
}

/// Why a source cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No such built-in source.
    #[error("no built-in CUDA source {0}: the space names a file that the program does not hold")]
    NotBuiltIn(String),
    /// A user's file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Two headers of different contents are included under one name.
    #[error("{file} includes two different headers as \"{name}\": rename one")]
    Ambiguous {
        /// The source.
        file: String,
        /// The name.
        name: String,
    },
}

/// Reads a source and the headers that it includes.
///
/// # Errors
/// [`SourceError`]. A header that is not found is left to the compiler, which names the line.
pub fn load(origin: &Origin) -> Result<SourceFile, SourceError> {
    let (name, text) = match origin {
        Origin::BuiltIn(path) => {
            let text = built_in(path).ok_or_else(|| SourceError::NotBuiltIn(path.clone()))?;
            (format!("kernels/{path}"), text.to_owned())
        }
        Origin::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| SourceError::Unreadable { path: path.display().to_string(), reason: e.to_string() })?;
            (path.display().to_string(), text)
        }
    };
    let mut headers: BTreeMap<String, (Origin, String)> = BTreeMap::new();
    let mut todo = vec![(origin.clone(), text.clone())];
    while let Some((from, text)) = todo.pop() {
        for included in includes(&text) {
            let Some((at, body)) = find(&from, included) else { continue };
            match headers.get(included) {
                Some((known, _)) if *known == at => {}
                Some((_, known)) if *known == body => {}
                Some(_) => return Err(SourceError::Ambiguous { file: name, name: included.to_owned() }),
                None => {
                    headers.insert(included.to_owned(), (at.clone(), body.clone()));
                    todo.push((at, body));
                }
            }
        }
    }
    let headers = headers.into_iter().map(|(name, (_, text))| (name, text)).collect();
    Ok(SourceFile { name, text, headers })
}

/// The names in `#include "name"` lines. One in a branch that is not compiled counts too: it only adds to the key.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
        rest.strip_prefix('"')?.split_once('"').map(|(name, _)| name)
    })
}

/// A header by the name under which `from` includes it.
fn find(from: &Origin, name: &str) -> Option<(Origin, String)> {
    let mut places = Vec::new();
    match from {
        Origin::File(path) => {
            let beside = path.parent().unwrap_or(Path::new("")).join(name);
            if let Ok(text) = std::fs::read_to_string(&beside) {
                return Some((Origin::File(beside), text));
            }
        }
        Origin::BuiltIn(path) => places.extend(join(path, name)),
    }
    places.push(format!("cuda/include/{name}"));
    places.push(format!("cuda/{name}"));
    let found = places.into_iter().find_map(|p| built_in(&p).map(|text| (p, text.to_owned())));
    found.map(|(path, text)| (Origin::BuiltIn(path), text))
}

/// The path of `name` seen from the folder of `file`, with `..` resolved.
fn join(file: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_source_brings_the_headers_beside_it_and_those_that_they_include() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("k.cu", "#include \"a.cuh\"\n  # include \"gone.cuh\"\n#include <math.h>\nint x;");
        write("a.cuh", "#include \"b.cuh\"\n");
        write("b.cuh", "#include \"a.cuh\"\n// b");
        let got = load(&Origin::File(dir.path().join("k.cu"))).unwrap();
        let names: Vec<&str> = got.headers.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a.cuh", "b.cuh"]);
        assert!(got.name.ends_with("k.cu"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let e = load(&Origin::File("/nowhere/k.cu".into())).unwrap_err();
        assert!(e.to_string().contains("/nowhere/k.cu"), "{e}");
        let e = load(&Origin::BuiltIn("cuda/none.cu".into())).unwrap_err();
        assert!(e.to_string().contains("cuda/none.cu"), "{e}");
    }

    #[test]
    fn a_path_is_joined_to_the_folder_of_the_file_that_includes_it() {
        assert_eq!(join("cuda/gemv/k.cu", "b.cuh").as_deref(), Some("cuda/gemv/b.cuh"));
        assert_eq!(join("cuda/gemv/k.cu", "../x/b.cuh").as_deref(), Some("cuda/x/b.cuh"));
        assert_eq!(join("k.cu", "../../b.cuh"), None);
    }
}
