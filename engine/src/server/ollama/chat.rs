//! `POST /api/chat`: the next turn of a conversation.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Shape, Writer, is_stream};
use super::generate::load_or_unload;
use super::options::Options;
use super::{check_empty, check_format, check_think};
use crate::chat_template::Message;
use crate::server::api_error::{ApiError, OllamaError};
use crate::server::app::{RequestBody, Shared};
use crate::server::job::{Input, Prompt};
use crate::server::keep_alive::KeepAlive;

#[derive(Deserialize)]
struct ChatBody {
    #[serde(default)]
    model: String,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<Vec<Value>>,
    #[serde(default)]
    format: Value,
    stream: Option<bool>,
    keep_alive: Option<KeepAlive>,
    #[serde(default)]
    think: Value,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default)]
    content: String,
    images: Option<Vec<Value>>,
    tool_calls: Option<Vec<Value>>,
}

pub(in crate::server) async fn chat(State(app): Shared, body: RequestBody) -> Result<Response, OllamaError> {
    let body: ChatBody = app.json(body)?;
    let model = app.catalog.job_model(&body.model)?;
    check_format(&body.format)?;
    check_think(&body.think)?;
    check_empty("tools", "calling tools", &body.tools)?;
    let options = body.options.unwrap_or_default();
    let wish = options.wish();
    let messages = body.messages.unwrap_or_default();
    let input = if messages.is_empty() {
        load_or_unload(body.keep_alive)
    } else {
        let messages = messages.into_iter().map(plain_message).collect::<Result<Vec<_>, _>>()?;
        let prompt = Prompt::Chat { messages, template: None, before: Vec::new() };
        Input::Generate { prompt, settings: options.settings()? }
    };
    let answer = app.worker.submit(model, input, wish, body.keep_alive)?;
    let writer = Writer { shape: Shape::Chat, model: body.model, with_context: false };
    writer.respond(answer, is_stream(body.stream)).await
}

fn plain_message(message: ChatMessage) -> Result<Message, ApiError> {
    check_empty("images", "pictures in a message", &message.images)?;
    check_empty("tool_calls", "calling tools", &message.tool_calls)?;
    match message.role.as_str() {
        "system" | "user" | "assistant" => Ok(Message::new(message.role, message.content)),
        other => Err(ApiError::field("messages", format!("role '{other}' is not one of system, user and assistant"))),
    }
}
