//! The registry protocol of Ollama: a manifest by name and tag, blobs by digest.

use super::download::Wanted;
use super::ollama_store::Manifest;
use super::source::OllamaModel;
use super::{PullError, Puller};
use crate::models::{Entry, NotADigest, Sha256Hex};

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(super) async fn pull(puller: &mut Puller<'_>, model: &OllamaModel) -> Result<Entry, PullError> {
    let base = match &model.host {
        Some(host) => format!("{}://{host}", scheme_of(host)),
        None => puller.settings.ollama_registry.clone(),
    };
    let name = format!("{}:{}", model.repository.trim_start_matches("library/"), model.tag);
    let url = format!("{base}/v2/{}/manifests/{}", model.repository, model.tag);
    let text = match puller.downloader()?.text(&url, MANIFEST_TYPE, None).await {
        Ok((text, _)) => text,
        Err(PullError::Status { status: 404, .. }) => return Err(PullError::UnknownModel { place: base, model: name }),
        Err(error) => return Err(error),
    };
    let bad = |cause: String| PullError::Answer { url: url.clone(), what: "manifest of a model", cause };
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let layer = manifest.model_layer().ok_or(PullError::NoModelLayer { model: name })?;
    let sha256: Sha256Hex = layer.digest.parse().map_err(|e: NotADigest| bad(e.to_string()))?;
    let wanted = Wanted {
        url: format!("{base}/v2/{}/blobs/sha256:{sha256}", model.repository),
        sha256: Some(sha256.clone()),
        size: Some(layer.size),
        bearer: None,
    };
    puller.fetch(&wanted, &format!("sha256-{sha256}"), &format!("{base}/{}:{}", model.repository, model.tag)).await
}

// A registry on this machine has no certificate; every other one must have.
fn scheme_of(host: &str) -> &'static str {
    let name = host.split(':').next().unwrap_or(host);
    if name == "localhost" || name.starts_with("127.") { "http" } else { "https" }
}
