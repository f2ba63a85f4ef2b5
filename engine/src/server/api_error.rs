//! Why a request fails, and the form each API gives to that.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::backend::LoadFailure;
use crate::chat_template::ChatError;
use crate::generate::GenerateError;
use crate::models::StoreError;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not what the endpoint takes.
    #[error("{message}")]
    Invalid {
        /// The field at fault, where it is known.
        param: Option<&'static str>,
        /// What is wrong with it.
        message: String,
    },
    /// The body asks for something that this server does not do.
    #[error("{param}: {what} is not supported by this server")]
    Unsupported {
        /// The field that asks for it.
        param: &'static str,
        /// What it asks for.
        what: &'static str,
    },
    /// The body is larger than the server takes.
    #[error("the request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// No model of this name is known, or its name is no name.
    #[error(transparent)]
    Model(StoreError),
    /// The model's file cannot be loaded.
    #[error("model '{model}' could not be loaded: {cause}")]
    Load {
        /// The model.
        model: String,
        /// What the engine says.
        cause: LoadFailure,
    },
    /// The engine cannot answer the request as it is.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The messages do not fit the chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// As many requests wait as may.
    #[error("the server is busy: {limit} requests are waiting already; try again later")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// The server is about to end.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The engine's thread failed. The model is loaded anew for the next request.
    #[error("the engine failed while answering; the model is loaded again with the next request")]
    EngineFailed,
    /// There is no such endpoint.
    #[error("this server has no {method} {path}{hint}")]
    NoRoute {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// What to do instead, after a semicolon, or nothing.
        hint: &'static str,
    },
    /// The endpoint takes another method.
    #[error("{path} does not take {method}")]
    WrongMethod {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
}

impl ApiError {
    /// A field whose value is wrong.
    pub(super) fn field(param: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::Invalid { param: Some(param), message: message.into() }
    }

    /// The HTTP status that says the same.
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Invalid { .. } | ApiError::Unsupported { .. } => StatusCode::BAD_REQUEST,
            ApiError::Generate(GenerateError::Device(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Generate(_) | ApiError::Chat(_) => StatusCode::BAD_REQUEST,
            ApiError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Model(
                StoreError::Unknown { .. }
                | StoreError::Dangling { .. }
                | StoreError::NoFile { .. }
                | StoreError::Folder { .. }
                | StoreError::Name(_),
            ) => StatusCode::NOT_FOUND,
            ApiError::Model(_) | ApiError::Load { .. } | ApiError::EngineFailed => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::QueueFull { .. } | ApiError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::NoRoute { .. } => StatusCode::NOT_FOUND,
            ApiError::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The body of Ollama's API: `{"error": "…"}`.
    pub fn ollama_body(&self) -> Value {
        json!({ "error": self.to_string() })
    }

    /// The body of OpenAI's API: message, type, param and code.
    pub fn openai_body(&self) -> Value {
        let kind = match self.status() {
            status if status.is_server_error() => "server_error",
            StatusCode::NOT_FOUND => "not_found_error",
            _ => "invalid_request_error",
        };
        let param = match self {
            ApiError::Invalid { param, .. } => *param,
            ApiError::Unsupported { param, .. } => Some(*param),
            ApiError::Model(_) => Some("model"),
            _ => None,
        };
        let code = match self {
            ApiError::Model(_) if self.status() == StatusCode::NOT_FOUND => Some("model_not_found"),
            ApiError::Generate(GenerateError::PromptTooLong { .. }) => Some("context_length_exceeded"),
            ApiError::QueueFull { .. } => Some("queue_full"),
            ApiError::Unsupported { .. } => Some("unsupported_parameter"),
            _ => None,
        };
        json!({ "error": { "message": self.to_string(), "type": kind, "param": param, "code": code } })
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::Model(error)
    }
}

/// An error in the form of Ollama's API.
#[derive(Debug)]
pub(super) struct OllamaError(pub ApiError);

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        respond(&self.0, self.0.ollama_body())
    }
}

/// An error in the form of OpenAI's API.
#[derive(Debug)]
pub(super) struct OpenAiError(pub ApiError);

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        respond(&self.0, self.0.openai_body())
    }
}

impl<E: Into<ApiError>> From<E> for OllamaError {
    fn from(error: E) -> OllamaError {
        OllamaError(error.into())
    }
}

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> OpenAiError {
        OpenAiError(error.into())
    }
}

fn respond(error: &ApiError, body: Value) -> Response {
    tracing::debug!(status = error.status().as_u16(), "{error}");
    let mut response = (error.status(), Json(body)).into_response();
    if matches!(error, ApiError::QueueFull { .. }) {
        response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
    }
    response
}
