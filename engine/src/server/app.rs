//! The router, and what all its handlers share.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::api_error::{ApiError, OllamaError, OpenAiError};
use super::catalog::Catalog;
use super::metrics::Gauges;
use super::worker::Worker;
use super::{ollama, openai};

/// What every handler sees.
pub(super) struct App {
    pub worker: Worker,
    pub catalog: Catalog,
    pub body_limit: usize,
}

pub(super) type Shared = State<Arc<App>>;

/// The body of a request, or why it could not be read.
pub(super) type RequestBody = Result<Bytes, BytesRejection>;

impl App {
    /// Reads a JSON body, whatever content type it states: `curl -d` states a form.
    pub fn json<T: DeserializeOwned>(&self, body: RequestBody) -> Result<T, ApiError> {
        let bytes = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit: self.body_limit },
            _ => ApiError::Invalid { param: None, message: format!("the body could not be read: {rejection}") },
        })?;
        if bytes.is_empty() {
            return Err(ApiError::Invalid {
                param: None,
                message: "missing request body; send a JSON object".to_owned(),
            });
        }
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Invalid {
            param: None,
            message: format!("the body is not what this endpoint takes: {e}"),
        })
    }
}

/// Every endpoint. Handlers of Ollama's API answer errors in its form, those of OpenAI's in theirs.
pub(super) fn router(app: Arc<App>) -> Router {
    let limit = app.body_limit;
    Router::new()
        .route("/", get(|| async { "EdgeLLM is running" }))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/version", get(ollama::version))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/generate", post(ollama::generate))
        .route("/api/chat", post(ollama::chat))
        .route("/v1/models", get(openai::models))
        // A model's name may have slashes.
        .route("/v1/models/{*id}", get(openai::model))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/chat/completions", post(openai::chat_completions))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limit))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

/// Counts answers by route, not by path: a path is the client's choice and would grow the table without end.
async fn count(State(app): Shared, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    app.worker.shared.metrics.answered(route.as_deref().unwrap_or("other"), response.status().as_u16());
    response
}

async fn health() -> Response {
    json_response(&serde_json::json!({ "status": "ok" }))
}

async fn metrics(State(app): Shared) -> Response {
    let models_loaded = usize::from(app.worker.shared.loaded().is_some());
    let gauges = Gauges { models_loaded, ..app.worker.gauges() };
    let text = app.worker.shared.metrics.render(gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn no_route(method: Method, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let hint = match path.as_str() {
        "/api/pull" | "/api/create" | "/api/copy" | "/api/delete" | "/api/push" => {
            "; models are managed on its machine: edgellm pull NAME, edgellm models"
        }
        "/api/embed" | "/api/embeddings" | "/v1/embeddings" => "; it gives no embeddings",
        _ => "",
    };
    in_form_of(&path.clone(), ApiError::NoRoute { method: method.to_string(), path, hint })
}

async fn wrong_method(method: Method, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    in_form_of(&path.clone(), ApiError::WrongMethod { method: method.to_string(), path })
}

/// The error in the form of the API that the path belongs to.
fn in_form_of(path: &str, error: ApiError) -> Response {
    if path.starts_with("/v1/") { OpenAiError(error).into_response() } else { OllamaError(error).into_response() }
}

/// A JSON answer.
pub(super) fn json_response(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], value.to_string()).into_response()
}

/// An answer whose parts are sent as they come. Each item of the stream is one chunk on the wire.
pub(super) fn stream_response(
    content_type: &'static str,
    chunks: impl futures_util::Stream<Item = Bytes> + Send + 'static,
) -> Response {
    use futures_util::StreamExt;
    let body = Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>));
    // Proxies in between must not collect the chunks.
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, [("x-accel-buffering", "no")], body).into_response()
}
