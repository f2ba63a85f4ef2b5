//! The folder of models on this machine.
//!
//! `NAME.gguf` is a model, and `NAME.json` beside it says what it is called, where it came from and what its
//! SHA-256 is. A model that another program's store holds has only the second file, which then points there.
//! A GGUF that someone just copied into the folder is a model too, under the name of its file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{ModelName, NameError, Sha256Hex, Silent, sha256_file};

/// The models on this machine.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// A model of the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is called.
    pub name: ModelName,
    /// The GGUF file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub size: u64,
    /// When the file was last written.
    pub modified: SystemTime,
    /// The digest that was checked when it was pulled; `None` for a file that was only copied here.
    pub sha256: Option<Sha256Hex>,
    /// Where it came from, in words.
    pub source: String,
    /// Whether the file belongs to someone else and stays when the model is removed.
    pub is_reference: bool,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No home directory is known, so there is no default place.
    #[error("no home directory is known; set EDGELLM_HOME to a folder for the models")]
    NoHome,
    /// A file or folder of the store could not be read or written.
    #[error("could not {action} {}: {source}\nhint: set EDGELLM_HOME to a folder that you can write", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The model is not there.
    #[error("{}", unknown_message(name))]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// A path was given, and there is no such file.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// A path was given, and it is a folder.
    #[error("{} is a folder; give the path of a .gguf file in it", path.display())]
    Folder {
        /// The path that was given.
        path: PathBuf,
    },
    /// The text is neither a path nor a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file that a model refers to has gone.
    #[error("{name} refers to {}, which no longer exists; pull it again: edgellm pull {name}", path.display())]
    Dangling {
        /// The model.
        name: ModelName,
        /// Where its file was.
        path: PathBuf,
    },
}

fn unknown_message(name: &str) -> String {
    format!("model '{name}' not found, try: edgellm pull {name}")
}

/// What the sidecar file says. `file` is relative to the store unless the model is a reference.
#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    name: String,
    file: PathBuf,
    sha256: Option<String>,
    size: u64,
    source: String,
}

impl Store {
    /// The store in a folder, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Store {
        Store { dir: dir.into() }
    }

    /// The store of this user: `EDGELLM_HOME/models`, or `models` in the user's data folder.
    ///
    /// # Errors
    /// [`StoreError::NoHome`] when neither is known.
    pub fn of_this_user() -> Result<Store, StoreError> {
        if let Some(home) = std::env::var_os("EDGELLM_HOME").filter(|home| !home.is_empty()) {
            return Ok(Store::at(Path::new(&home).join("models")));
        }
        let dirs = directories::ProjectDirs::from("", "", "edgellm").ok_or(StoreError::NoHome)?;
        Ok(Store::at(dirs.data_dir().join("models")))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of unfinished downloads.
    pub fn downloads_dir(&self) -> PathBuf {
        self.dir.join("downloads")
    }

    /// Makes the store's folders.
    ///
    /// # Errors
    /// [`StoreError::Io`] where they cannot be made.
    pub fn create(&self) -> Result<(), StoreError> {
        let dir = self.downloads_dir();
        fs::create_dir_all(&dir).map_err(|source| StoreError::Io { action: "create", path: dir, source })
    }

    /// Every model, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io("read", source)),
        };
        let mut paths = Vec::new();
        for item in listing {
            paths.push(item.map_err(|source| self.io("read", source))?.path());
        }
        let mut entries: Vec<Entry> = paths.iter().filter_map(|path| self.described_by(path)).collect();
        for path in &paths {
            let is_new = !entries.iter().any(|entry| entry.path == *path);
            if path.extension().is_some_and(|ext| ext == "gguf") && is_new {
                entries.extend(self.undescribed(path));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when there is none, [`StoreError::Dangling`] when its file has gone.
    pub fn find(&self, name: &ModelName) -> Result<Entry, StoreError> {
        let entries = self.list()?;
        let stem = name.file_stem();
        let by_name = entries.iter().find(|entry| entry.name == *name);
        // A file copied here by hand is called after its file, `smollm2-135m`, and answers to `smollm2:135m` too.
        let by_file = || entries.iter().find(|entry| entry.sha256.is_none() && entry.name.file_stem() == stem);
        match by_name.or_else(by_file) {
            Some(entry) if entry.path.is_file() => Ok(Entry { name: name.clone(), ..entry.clone() }),
            Some(entry) => Err(StoreError::Dangling { name: name.clone(), path: entry.path.clone() }),
            None => Err(StoreError::Unknown { name: shortest(name) }),
        }
    }

    /// Where a new model of this name is kept. Two names that map to one file name get two files.
    pub fn file_for(&self, name: &ModelName) -> PathBuf {
        let stem = name.file_stem();
        let mut candidate = stem.clone();
        let mut n = 2;
        loop {
            let owner = read_sidecar(&self.dir.join(format!("{candidate}.json")));
            match owner {
                Some(sidecar) if sidecar.name != name.to_string() => candidate = format!("{stem}-{n}"),
                _ => return self.dir.join(format!("{candidate}.gguf")),
            }
            n += 1;
        }
    }

    /// Records a model whose file lies at `path`: in the store, or elsewhere, which makes it a reference.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file cannot be read or the record cannot be written.
    pub fn record(&self, name: &ModelName, path: &Path, sha256: &Sha256Hex, source: &str) -> Result<Entry, StoreError> {
        let size = fs::metadata(path).map_err(|e| io_at("read", path, e))?.len();
        let is_inside = path.parent() == Some(self.dir.as_path());
        let file = match path.file_name() {
            Some(file) if is_inside => PathBuf::from(file),
            _ => std::path::absolute(path).map_err(|e| io_at("find", path, e))?,
        };
        let sidecar =
            Sidecar { name: name.to_string(), file, sha256: Some(sha256.to_string()), size, source: source.to_owned() };
        // This fails for a path that is not UTF-8, which JSON cannot hold.
        let text = serde_json::to_string_pretty(&sidecar).map_err(|e| io_at("record", path, e.into()))?;
        let target = self.file_for(name).with_extension("json");
        // Written beside and renamed, so that a reader never sees half of it.
        let partial = target.with_extension("json.part");
        fs::write(&partial, text).map_err(|e| io_at("write", &partial, e))?;
        fs::rename(&partial, &target).map_err(|e| io_at("write", &target, e))?;
        self.find(name)
    }

    /// Forgets a model, and deletes its file unless that belongs to someone else.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when there is none, [`StoreError::Io`] where a file cannot be deleted.
    pub fn remove(&self, name: &ModelName) -> Result<(), StoreError> {
        let entry = match self.find(name) {
            Err(StoreError::Dangling { .. }) => None,
            found => Some(found?),
        };
        let sidecar = self.file_for(name).with_extension("json");
        if let Some(entry) = entry.filter(|entry| !entry.is_reference) {
            fs::remove_file(&entry.path).map_err(|e| io_at("delete", &entry.path, e))?;
        }
        match fs::remove_file(&sidecar) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_at("delete", &sidecar, e)),
            _ => Ok(()),
        }
    }

    /// The digest of a model: the recorded one, or for a file that was copied here the one computed now and
    /// recorded for the next time.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file cannot be read.
    pub fn digest(&self, entry: &Entry) -> Result<Sha256Hex, StoreError> {
        if let Some(digest) = &entry.sha256 {
            return Ok(digest.clone());
        }
        let digest = sha256_file(&entry.path, &mut Silent).map_err(|e| io_at("read", &entry.path, e))?;
        // A store that is read-only still has a digest; it is only computed again the next time.
        if let Err(error) = self.record(&entry.name, &entry.path, &digest, &entry.source) {
            tracing::debug!("the digest of {} was not kept: {error}", entry.name);
        }
        Ok(digest)
    }

    fn described_by(&self, path: &Path) -> Option<Entry> {
        if path.extension()? != "json" {
            return None;
        }
        let sidecar = read_sidecar(path)?;
        let file = self.dir.join(&sidecar.file); // An absolute path replaces the folder.
        let modified = fs::metadata(&file).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Entry {
            name: sidecar.name.parse().ok()?,
            size: sidecar.size,
            modified,
            sha256: sidecar.sha256.and_then(|digest| digest.parse().ok()),
            source: sidecar.source,
            is_reference: sidecar.file.is_absolute(),
            path: file,
        })
    }

    fn undescribed(&self, path: &Path) -> Option<Entry> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Entry {
            name: ModelName::from_text(path.file_stem()?.to_str()?),
            path: path.to_owned(),
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            sha256: None,
            source: "a file copied into the store".to_owned(),
            is_reference: false,
        })
    }

    fn io(&self, action: &'static str, source: io::Error) -> StoreError {
        io_at(action, &self.dir, source)
    }
}

/// The file that a user's word means: a path to a file, or a name of the store.
///
/// # Errors
/// [`StoreError::NoFile`] for a path where nothing is, [`StoreError::Folder`] for a folder, [`StoreError::Unknown`] for a name
/// the store lacks.
pub fn resolve(store: &Store, word: &str) -> Result<Entry, StoreError> {
    let path = Path::new(word);
    if !looks_like_a_path(word) && !path.is_file() {
        return store.find(&word.parse()?);
    }
    // A folder of the store's own name must not hide the model, so only files count.
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::NoFile { path: path.to_owned() },
        _ => io_at("read", path, e),
    })?;
    if metadata.is_dir() {
        return Err(StoreError::Folder { path: path.to_owned() });
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("model");
    Ok(Entry {
        name: ModelName::from_text(stem),
        path: path.to_owned(),
        size: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        sha256: None,
        source: path.display().to_string(),
        is_reference: true,
    })
}

/// Whether a word is meant as a path, whatever exists: it says so by its beginning, by `.gguf` or by a `/` at its end.
pub(super) fn looks_like_a_path(word: &str) -> bool {
    let starts = ["/", "./", "../", "~"];
    starts.iter().any(|start| word.starts_with(start))
        || word.ends_with('/')
        || word.to_ascii_lowercase().ends_with(".gguf")
}

fn shortest(name: &ModelName) -> String {
    name.to_string().trim_end_matches(":latest").to_owned()
}

fn read_sidecar(path: &Path) -> Option<Sidecar> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn io_at(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(byte: char) -> Sha256Hex {
        byte.to_string().repeat(64).parse().unwrap()
    }

    fn name(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    fn with_model(dir: &Path, model: &str) -> (Store, PathBuf) {
        let store = Store::at(dir);
        store.create().unwrap();
        let file = store.file_for(&name(model));
        fs::write(&file, "GGUF").unwrap();
        store.record(&name(model), &file, &digest_of('a'), "a test").unwrap();
        (store, file)
    }

    #[test]
    fn a_recorded_model_is_found_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, file) = with_model(dir.path(), "tiny:1b");
        let found = store.find(&name("tiny:1b")).unwrap();
        assert_eq!((found.path, found.size, found.is_reference), (file.clone(), 4, false));
        assert_eq!(found.sha256, Some(digest_of('a')));
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove(&name("tiny:1b")).unwrap();
        assert!(!file.exists());
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn a_reference_is_forgotten_but_its_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("models"));
        store.create().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "GGUF").unwrap();
        let entry = store.record(&name("x:1"), &blob, &digest_of('b'), "elsewhere").unwrap();
        assert!(entry.is_reference);
        store.remove(&name("x:1")).unwrap();
        assert!(blob.exists());
        assert!(matches!(store.find(&name("x:1")), Err(StoreError::Unknown { .. })));
    }

    #[test]
    fn a_reference_whose_file_has_gone_is_an_error_that_names_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("models"));
        store.create().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "GGUF").unwrap();
        store.record(&name("x:1"), &blob, &digest_of('b'), "elsewhere").unwrap();
        fs::remove_file(&blob).unwrap();
        let message = store.find(&name("x:1")).unwrap_err().to_string();
        assert!(message.contains("edgellm pull x:1"), "{message}");
        store.remove(&name("x:1")).unwrap();
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn two_names_with_one_file_name_do_not_overwrite_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (store, first) = with_model(dir.path(), "a:b-c");
        let (_, second) = with_model(dir.path(), "a-b:c");
        assert_ne!(first, second);
        assert_eq!(store.find(&name("a:b-c")).unwrap().path, first);
        assert_eq!(store.find(&name("a-b:c")).unwrap().path, second);
    }

    #[test]
    fn a_file_copied_into_the_folder_is_a_model() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("smollm2-135m.gguf"), "abc").unwrap();
        let store = Store::at(dir.path());
        assert!(store.find(&name("smollm2-135m")).is_ok());
        let entry = store.find(&name("smollm2:135m")).unwrap();
        assert_eq!(entry.sha256, None);
        assert!(store.digest(&entry).unwrap().as_str().starts_with("ba7816bf"));
        assert!(store.find(&name("smollm2:135m")).unwrap().sha256.is_some(), "the digest is kept");
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_sidecar_hides_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = with_model(dir.path(), "good:1");
        fs::write(dir.path().join("bad.json"), "{").unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn a_word_is_a_path_or_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let (store, file) = with_model(dir.path(), "tiny:1b");
        assert_eq!(resolve(&store, "tiny:1b").unwrap().path, file);
        assert_eq!(resolve(&store, file.to_str().unwrap()).unwrap().path, file);
        assert!(matches!(resolve(&store, "./absent.gguf"), Err(StoreError::NoFile { .. })));
        for folder in ["./".to_owned(), "src/".to_owned(), format!("{}/", dir.path().display())] {
            assert!(matches!(resolve(&store, &folder), Err(StoreError::Folder { .. })), "{folder}");
        }
        assert!(matches!(resolve(&store, "two words"), Err(StoreError::Name(_))));
        let message = resolve(&store, "nope").unwrap_err().to_string();
        assert_eq!(message, "model 'nope' not found, try: edgellm pull nope");
    }
}
