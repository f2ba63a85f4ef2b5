//! `POST /v1/chat/completions`: the next turn of a conversation.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Shape, Writer};
use super::params::Params;
use crate::chat_template::Message;
use crate::server::api_error::{ApiError, OpenAiError};
use crate::server::app::{RequestBody, Shared};
use crate::server::backend::LoadWish;
use crate::server::job::{Input, Prompt};

#[derive(Deserialize)]
struct ChatBody {
    #[serde(flatten)]
    params: Params,
    #[serde(default)]
    messages: Vec<ChatMessage>,
    tools: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: Option<Content>,
}

/// A text, or a list of parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

impl ChatMessage {
    fn plain(self) -> Result<Message, ApiError> {
        let role = match self.role.as_str() {
            "system" | "user" | "assistant" => self.role,
            // The newer name of the same.
            "developer" => "system".to_owned(),
            other => {
                let message = format!("role '{other}' is not one of system, user and assistant");
                return Err(ApiError::field("messages", message));
            }
        };
        let content = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => match parts.iter().find(|part| part.kind != "text") {
                Some(_) => return Err(ApiError::Unsupported { param: "messages", what: "anything but text" }),
                None => parts.into_iter().map(|part| part.text).collect(),
            },
        };
        Ok(Message::new(role, content))
    }
}

pub(in crate::server) async fn chat_completions(
    State(app): Shared,
    body: RequestBody,
) -> Result<Response, OpenAiError> {
    let body: ChatBody = app.json(body)?;
    let params = body.params;
    let model = app.catalog.job_model(&params.model)?;
    if body.tools.is_some_and(|tools| !tools.is_empty()) {
        return Err(ApiError::Unsupported { param: "tools", what: "calling tools" }.into());
    }
    if body.messages.is_empty() {
        return Err(ApiError::field("messages", "messages is required, with at least one message").into());
    }
    let messages = body.messages.into_iter().map(ChatMessage::plain).collect::<Result<Vec<_>, _>>()?;
    let prompt = Prompt::Chat { messages, template: None, before: Vec::new() };
    let input = Input::Generate { prompt, settings: params.settings()? };
    let answer = app.worker.submit(model, input, LoadWish::default(), None)?;
    let (stream, usage) = (params.stream.unwrap_or(false), params.include_usage());
    Writer::new(Shape::Chat, params.model, usage).respond(answer, stream).await
}
