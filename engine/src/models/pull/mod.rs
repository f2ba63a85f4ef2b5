//! Pulling a model: from a file, a URL, an Ollama store or registry, Hugging Face, or the built-in default.
//!
//! Whatever the source, a model enters the store only after its SHA-256 was checked (where the source states
//! one) and its file was seen to be GGUF. Until then it is a `.part` file in the store's downloads folder, from
//! which a broken download goes on.

mod builtin;
mod download;
mod error;
mod hugging_face;
mod index;
mod ollama_registry;
mod ollama_store;
mod settings;
mod source;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use builtin::BUILT_IN_SHA256;
pub use error::PullError;
pub use settings::PullSettings;
pub use source::Source;

use super::{Entry, ModelName, Progress, Sha256Hex, Store, sha256_file};
use download::{Downloader, Wanted};

/// Brings a model into the store under `name` and returns its entry. What the store has already is kept: the
/// same source and name again cost no transfer where the source states its digest.
///
/// # Errors
/// [`PullError`]; nothing of the store has changed then, and an unfinished download can be taken up again.
pub async fn pull(
    store: &Store,
    source: &Source,
    name: &ModelName,
    settings: &PullSettings,
    progress: &mut dyn Progress,
) -> Result<Entry, PullError> {
    store.create()?;
    let mut puller = Puller { store, name, progress, settings };
    match source {
        Source::File(path) => puller.pull_file(path),
        Source::Url(url) => puller.pull_url(url).await,
        Source::BuiltIn => builtin::pull(&mut puller).await,
        Source::Ollama(model) => puller.pull_ollama(model).await,
        Source::HuggingFace { repo, want } => hugging_face::pull(&mut puller, repo, want.as_deref()).await,
    }
}

/// [`pull`] for callers without a runtime.
///
/// # Errors
/// As [`pull`].
pub fn pull_blocking(
    store: &Store,
    source: &Source,
    name: &ModelName,
    settings: &PullSettings,
    progress: &mut dyn Progress,
) -> Result<Entry, PullError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PullError::Runtime)?;
    runtime.block_on(pull(store, source, name, settings, progress))
}

/// What every source works with.
struct Puller<'a> {
    store: &'a Store,
    name: &'a ModelName,
    settings: &'a PullSettings,
    progress: &'a mut dyn Progress,
}

impl Puller<'_> {
    fn downloader(&mut self) -> Result<Downloader<'_>, PullError> {
        Downloader::new(self.settings, self.progress)
    }

    /// The store's entry of this name, if its digest is `sha256`: then nothing needs to be fetched.
    fn present(&self, sha256: &Sha256Hex) -> Option<Entry> {
        self.store.find(self.name).ok().filter(|entry| entry.sha256.as_ref() == Some(sha256))
    }

    /// A place for an unfinished download. The key is of the content, so that another name or a later try finds it.
    fn part_file(&self, key: &str) -> PathBuf {
        let safe: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.store.downloads_dir().join(format!("{safe}.part"))
    }

    /// Downloads a GGUF, checks it and puts it into the store.
    async fn fetch(&mut self, wanted: &Wanted, key: &str, source: &str) -> Result<Entry, PullError> {
        if let Some(entry) = wanted.sha256.as_ref().and_then(|sha256| self.present(sha256)) {
            return Ok(entry);
        }
        let part = self.part_file(key);
        let sha256 = self.downloader()?.download(wanted, &part).await?;
        self.adopt(&part, &sha256, source)
    }

    /// Moves a checked file of the downloads folder to its place.
    fn adopt(&mut self, part: &Path, sha256: &Sha256Hex, source: &str) -> Result<Entry, PullError> {
        if let Err(error) = check_gguf(part) {
            // It is complete, so keeping it would only make the next try fail in the same way.
            fs::remove_file(part).map_err(|e| PullError::io("delete", part, e))?;
            return Err(error);
        }
        let file = self.store.file_for(self.name);
        fs::rename(part, &file).map_err(|e| PullError::io("write", &file, e))?;
        Ok(self.store.record(self.name, &file, sha256, source)?)
    }

    async fn pull_url(&mut self, url: &str) -> Result<Entry, PullError> {
        let wanted = Wanted { url: url.to_owned(), sha256: None, size: None, bearer: None };
        let shown = download::without_password(url);
        self.fetch(&wanted, &format!("url-{shown}"), &shown).await
    }

    // A hard link costs nothing and survives the deletion of the original; across file systems it is copied.
    fn pull_file(&mut self, path: &Path) -> Result<Entry, PullError> {
        if !path.is_file() {
            return Err(PullError::NoFile { path: path.to_owned() });
        }
        check_gguf(path)?;
        let sha256 = sha256_file(path, self.progress).map_err(|e| PullError::io("read", path, e))?;
        if let Some(entry) = self.present(&sha256) {
            return Ok(entry);
        }
        let file = self.store.file_for(self.name);
        let part = file.with_extension("gguf.part");
        remove_if_there(&part)?;
        let real = fs::canonicalize(path).map_err(|e| PullError::io("read", path, e))?;
        if fs::hard_link(&real, &part).is_err() {
            self.copy(&real, &part)?;
        }
        fs::rename(&part, &file).map_err(|e| PullError::io("write", &file, e))?;
        Ok(self.store.record(self.name, &file, &sha256, &path.display().to_string())?)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), PullError> {
        let mut input = fs::File::open(from).map_err(|e| PullError::io("read", from, e))?;
        let total = input.metadata().map_err(|e| PullError::io("read", from, e))?.len();
        let mut output = fs::File::create(to).map_err(|e| PullError::io("write", to, e))?;
        self.progress.begin("copying", Some(total), 0);
        let copied = copy_with_progress(&mut input, &mut output, self.progress);
        self.progress.end();
        copied.map_err(|e| PullError::io("write", to, e))
    }

    async fn pull_ollama(&mut self, model: &source::OllamaModel) -> Result<Entry, PullError> {
        if let Some(blob) = ollama_store::find(self.settings.ollama_models.as_deref(), model)? {
            // The store already promises this digest; reading the file again makes sure before it is used.
            let found = sha256_file(&blob.path, self.progress).map_err(|e| PullError::io("read", &blob.path, e))?;
            if found != blob.sha256 {
                return Err(PullError::Digest { what: blob.path.display().to_string(), expected: blob.sha256, found });
            }
            check_gguf(&blob.path)?;
            return Ok(self.store.record(self.name, &blob.path, &blob.sha256, "the Ollama store of this machine")?);
        }
        ollama_registry::pull(self, model).await
    }
}

fn copy_with_progress(from: &mut impl Read, to: &mut impl io::Write, progress: &mut dyn Progress) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return to.flush();
        }
        to.write_all(&buffer[..n])?;
        done += n as u64;
        progress.reached(done);
    }
}

fn remove_if_there(path: &Path) -> Result<(), PullError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(PullError::io("delete", path, e)),
        _ => Ok(()),
    }
}

/// Looks at the first four bytes: servers answer with error pages and people name other files `.gguf`.
fn check_gguf(path: &Path) -> Result<(), PullError> {
    let mut magic = [0; 4];
    let mut file = fs::File::open(path).map_err(|e| PullError::io("read", path, e))?;
    match file.read_exact(&mut magic) {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Ok(()) => Err(PullError::NotGguf { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(PullError::NotGguf { path: path.to_owned() }),
        Err(e) => Err(PullError::io("read", path, e)),
    }
}
