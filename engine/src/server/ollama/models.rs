//! What models there are: tags, show, ps, and the server's version.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::missing;
use crate::models::Entry;
use crate::server::api_error::{ApiError, OllamaError};
use crate::server::app::{App, RequestBody, Shared, json_response};
use crate::server::backend::ModelFacts;
use crate::server::clock::rfc3339;

pub(in crate::server) async fn version() -> Response {
    json_response(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /api/tags`: every model that can be served. One whose header cannot be read is listed without its details,
/// for it is there and asking for it says what is wrong.
pub(in crate::server) async fn tags(State(app): Shared) -> Result<Response, OllamaError> {
    let models = blocking(move || {
        let entries = app.catalog.list()?;
        entries.iter().map(|entry| described(&app, entry)).collect::<Result<Vec<Value>, ApiError>>()
    });
    Ok(json_response(&json!({ "models": models.await? })))
}

fn described(app: &App, entry: &Entry) -> Result<Value, ApiError> {
    let facts = app.catalog.facts(entry);
    Ok(json!({
        "name": entry.name.to_string(),
        "model": entry.name.to_string(),
        "modified_at": rfc3339(entry.modified),
        "size": entry.size,
        "digest": app.catalog.digest(entry)?.as_str(),
        "details": details(facts.as_deref().unwrap_or(&ModelFacts::default())),
    }))
}

fn details(facts: &ModelFacts) -> Value {
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": facts.parameter_size(),
        "quantization_level": facts.quantization,
    })
}

#[derive(Deserialize)]
struct ShowBody {
    model: Option<String>,
    /// The field's older name.
    name: Option<String>,
}

/// `POST /api/show`: what a model's file says.
pub(in crate::server) async fn show(State(app): Shared, body: RequestBody) -> Result<Response, OllamaError> {
    let body: ShowBody = app.json(body)?;
    let word = body.model.or(body.name).filter(|word| !word.is_empty()).ok_or_else(|| missing("model"))?;
    let (entry, facts) = blocking(move || {
        let entry = app.catalog.find(&word)?;
        let facts = app.catalog.facts(&entry)?;
        Ok::<_, ApiError>((entry, facts))
    })
    .await?;
    let template = facts.template.clone().unwrap_or_default();
    Ok(json_response(&json!({
        "modelfile": format!("# {}\nFROM {}\n", entry.name, entry.path.display()),
        "parameters": "",
        "template": template,
        "details": details(&facts),
        "model_info": facts.metadata,
        "capabilities": ["completion"],
        "modified_at": rfc3339(entry.modified),
    })))
}

/// `GET /api/ps`: the model in memory.
pub(in crate::server) async fn ps(State(app): Shared) -> Result<Response, OllamaError> {
    let Some(loaded) = app.worker.shared.loaded() else { return Ok(json_response(&json!({ "models": [] }))) };
    let model = blocking(move || {
        let entry = app.catalog.find(&loaded.model)?;
        let mut model = described(&app, &entry)?;
        model["size"] = json!(loaded.memory_bytes);
        model["size_vram"] = json!(loaded.device.vram_bytes);
        model["context_length"] = json!(loaded.context);
        // What Ollama has no field for; `bench` reads it.
        model["edgellm"] = json!({
            "device": loaded.device.device.to_string(),
            "gpu": loaded.device.name,
            "kv_type": loaded.device.kv.name(),
            "table_hash": loaded.device.table_hash,
            "counters": loaded.counters.map(|c| json!({
                "graph_launches": c.graph_launches,
                "kernel_launches": c.kernel_launches,
                "syncs": c.syncs,
                "h2d_bytes": c.h2d_bytes,
                "d2h_bytes": c.d2h_bytes,
                "tokens": c.tokens,
            })),
        });
        // A model that stays for ever has a time that no client will live to see.
        let forever = || "9999-12-31T23:59:59Z".to_owned();
        model["expires_at"] = json!(loaded.expires().map_or_else(forever, rfc3339));
        Ok::<_, ApiError>(model)
    });
    Ok(json_response(&json!({ "models": [model.await?] })))
}

/// Runs what reads files away from the thread that serves requests: a first digest takes a second for each GB.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ApiError::EngineFailed))
}
