//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::models::Entry;
use crate::server::api_error::OpenAiError;
use crate::server::app::{Shared, json_response};
use crate::server::clock::unix_seconds;

pub(in crate::server) async fn models(State(app): Shared) -> Result<Response, OpenAiError> {
    let models: Vec<Value> = app.catalog.list()?.iter().map(|e| described(e, &e.name.to_string())).collect();
    Ok(json_response(&json!({ "object": "list", "data": models })))
}

pub(in crate::server) async fn model(State(app): Shared, Path(id): Path<String>) -> Result<Response, OpenAiError> {
    Ok(json_response(&described(&app.catalog.find(&id)?, &id)))
}

fn described(entry: &Entry, id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": unix_seconds(entry.modified), "owned_by": "edgellm" })
}
