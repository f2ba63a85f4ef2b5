//! The models that a server knows by name: those of the store, and those it was given as files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::api_error::ApiError;
use super::backend::{Loader, ModelFacts};
use super::job::JobModel;
use crate::models::{Entry, ModelName, Sha256Hex, Silent, Store, StoreError, sha256_file};

/// A file that the server was started with, and the name it is served under.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// The name. Clients use it with or without its tag.
    pub name: ModelName,
    /// The GGUF file.
    pub path: PathBuf,
}

/// One version of a file: a changed file is a new key.
type FileKey = (PathBuf, u64, SystemTime);

pub(super) struct Catalog {
    store: Option<Store>,
    served: Vec<ServedModel>,
    loader: Arc<dyn Loader>,
    facts: Mutex<HashMap<FileKey, Arc<ModelFacts>>>,
    digests: Mutex<HashMap<FileKey, Sha256Hex>>,
}

impl Catalog {
    pub fn new(store: Option<Store>, served: Vec<ServedModel>, loader: Arc<dyn Loader>) -> Catalog {
        Catalog { store, served, loader, facts: Mutex::default(), digests: Mutex::default() }
    }

    /// The model that a client's word means.
    pub fn find(&self, word: &str) -> Result<Entry, ApiError> {
        if word.is_empty() {
            return Err(ApiError::field("model", "model is required"));
        }
        let name: ModelName = word.parse().map_err(StoreError::from)?;
        if let Some(served) = self.served.iter().find(|served| served.name == name) {
            return entry_of(served);
        }
        let unknown = || StoreError::Unknown { name: word.to_owned() };
        let store = self.store.as_ref().ok_or_else(unknown)?;
        match store.find(&name) {
            Err(StoreError::Unknown { .. }) => Err(unknown().into()),
            found => Ok(found?),
        }
    }

    /// The model as a job names it.
    pub fn job_model(&self, word: &str) -> Result<JobModel, ApiError> {
        Ok(JobModel { name: word.to_owned(), path: self.find(word)?.path })
    }

    /// Every model, each once.
    pub fn list(&self) -> Result<Vec<Entry>, ApiError> {
        let mut entries: Vec<Entry> = self.served.iter().filter_map(|served| entry_of(served).ok()).collect();
        if let Some(store) = &self.store {
            let others = store.list()?.into_iter().filter(|e| e.path.is_file());
            entries.extend(others.filter(|e| self.served.iter().all(|served| served.name != e.name)));
        }
        Ok(entries)
    }

    /// What the model's file says, read once for each version of the file.
    pub fn facts(&self, entry: &Entry) -> Result<Arc<ModelFacts>, ApiError> {
        let key = (entry.path.clone(), entry.size, entry.modified);
        if let Some(facts) = lock(&self.facts).get(&key) {
            return Ok(facts.clone());
        }
        let read = self.loader.inspect(&entry.path);
        let facts = Arc::new(read.map_err(|cause| ApiError::Load { model: entry.name.to_string(), cause })?);
        lock(&self.facts).insert(key, facts.clone());
        Ok(facts)
    }

    /// The model's digest: of the store's record, or computed, which reads the whole file the first time.
    pub fn digest(&self, entry: &Entry) -> Result<Sha256Hex, ApiError> {
        let key = (entry.path.clone(), entry.size, entry.modified);
        if let Some(digest) = entry.sha256.clone().or_else(|| lock(&self.digests).get(&key).cloned()) {
            return Ok(digest);
        }
        let digest = match &self.store {
            Some(store) if !entry.is_reference => store.digest(entry)?,
            _ => sha256_file(&entry.path, &mut Silent).map_err(|e| unreadable(&entry.path, e))?,
        };
        lock(&self.digests).insert(key, digest.clone());
        Ok(digest)
    }
}

fn entry_of(served: &ServedModel) -> Result<Entry, ApiError> {
    let metadata = std::fs::metadata(&served.path).map_err(|e| unreadable(&served.path, e))?;
    Ok(Entry {
        name: served.name.clone(),
        path: served.path.clone(),
        size: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        sha256: None,
        source: served.path.display().to_string(),
        is_reference: true,
    })
}

fn unreadable(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { action: "read", path: path.to_owned(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
