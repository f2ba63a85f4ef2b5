//! Ollama's API.

mod answer;
mod chat;
mod generate;
mod go_template;
mod models;
mod options;

pub(super) use chat::chat;
pub(super) use generate::generate;
pub(super) use models::{ps, show, tags, version};

use serde_json::Value;

use super::api_error::ApiError;

/// Refuses an answer format: answers are not constrained to a grammar here, and pretending would be worse.
fn check_format(format: &Value) -> Result<(), ApiError> {
    match format {
        Value::Null => Ok(()),
        Value::String(text) if text.is_empty() => Ok(()),
        _ => Err(ApiError::Unsupported { param: "format", what: "an answer in JSON or after a schema" }),
    }
}

/// Refuses thinking, which the served architectures have no switch for.
fn check_think(think: &Value) -> Result<(), ApiError> {
    match think {
        Value::Null | Value::Bool(false) => Ok(()),
        _ => Err(ApiError::Unsupported { param: "think", what: "thinking" }),
    }
}

/// Refuses a list that is not empty.
fn check_empty(param: &'static str, what: &'static str, list: &Option<Vec<Value>>) -> Result<(), ApiError> {
    match list.as_ref().is_none_or(Vec::is_empty) {
        true => Ok(()),
        false => Err(ApiError::Unsupported { param, what }),
    }
}
