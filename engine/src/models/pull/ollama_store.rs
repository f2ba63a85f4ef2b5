//! The models that an Ollama on this machine has pulled: manifests that name blobs by digest.
//!
//! The blob of a model is a GGUF file, so it is used where it lies and nothing is copied.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::PullError;
use super::source::{OLLAMA_HOST, OllamaModel};
use crate::models::Sha256Hex;

/// A model's GGUF in the store of Ollama.
pub(super) struct Blob {
    pub path: PathBuf,
    pub sha256: Sha256Hex,
}

/// What a manifest says, of what is needed here. The registry sends the same form.
#[derive(Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
pub(super) struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    pub digest: String,
    pub size: u64,
}

impl Manifest {
    /// The layer that is the model itself, beside those for template, licence and parameters.
    pub fn model_layer(&self) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.media_type == "application/vnd.ollama.image.model")
    }
}

/// Looks a model up in the store; `None` when there is no store or it lacks the model.
pub(super) fn find(models: Option<&Path>, model: &OllamaModel) -> Result<Option<Blob>, PullError> {
    let Some(models) = models else { return Ok(None) };
    // A port's colon is kept by Ollama too.
    let host = model.host.as_deref().unwrap_or(OLLAMA_HOST);
    let manifest_path = models.join("manifests").join(host).join(&model.repository).join(&model.tag);
    let text = match fs::read(&manifest_path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(PullError::io("read", &manifest_path, e)),
    };
    let damaged = |cause: String| PullError::Answer {
        url: manifest_path.display().to_string(),
        what: "manifest of a model",
        cause,
    };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let name = format!("{}:{}", model.repository, model.tag);
    let layer = manifest.model_layer().ok_or(PullError::NoModelLayer { model: name })?;
    let sha256: Sha256Hex = layer.digest.parse().map_err(|e: crate::models::NotADigest| damaged(e.to_string()))?;
    let path = models.join("blobs").join(format!("sha256-{sha256}"));
    // A manifest without its blob is a pull that Ollama did not finish; the registry has the rest.
    Ok(path.is_file().then_some(Blob { path, sha256 }))
}
