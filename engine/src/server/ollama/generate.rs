//! `POST /api/generate`: continue a prompt, raw or through the model's template.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Shape, Writer, is_stream};
use super::options::Options;
use super::{check_empty, check_format, check_think, go_template};
use crate::chat_template::Message;
use crate::server::api_error::{ApiError, OllamaError};
use crate::server::app::{RequestBody, Shared};
use crate::server::job::{Input, Prompt};
use crate::server::keep_alive::KeepAlive;

#[derive(Deserialize)]
struct GenerateBody {
    #[serde(default)]
    model: String,
    prompt: Option<String>,
    suffix: Option<String>,
    images: Option<Vec<Value>>,
    #[serde(default)]
    format: Value,
    system: Option<String>,
    template: Option<String>,
    context: Option<Vec<u32>>,
    stream: Option<bool>,
    raw: Option<bool>,
    keep_alive: Option<KeepAlive>,
    #[serde(default)]
    think: Value,
    options: Option<Options>,
}

pub(in crate::server) async fn generate(State(app): Shared, body: RequestBody) -> Result<Response, OllamaError> {
    let body: GenerateBody = app.json(body)?;
    let model = app.catalog.job_model(&body.model)?;
    check_format(&body.format)?;
    check_think(&body.think)?;
    check_empty("images", "pictures in a prompt", &body.images)?;
    if body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::Unsupported { param: "suffix", what: "filling in the middle" }.into());
    }
    let is_raw = body.raw.unwrap_or(false);
    let stream = is_stream(body.stream);
    let keep_alive = body.keep_alive;
    let writer = Writer { shape: Shape::Generate, model: body.model.clone(), with_context: !is_raw };
    let mut options = body.options.unwrap_or_default();
    let wish = options.wish();
    let prompt_text = body.prompt.unwrap_or_default();
    let input = if prompt_text.is_empty() {
        load_or_unload(keep_alive)
    } else {
        let prompt = match is_raw {
            true => {
                let overrides = [("template", &body.template), ("system", &body.system)];
                if let Some((param, _)) = overrides.iter().find(|(_, v)| v.as_ref().is_some_and(|v| !v.is_empty())) {
                    let message = format!("raw mode takes the prompt as it is: leave {param} out, or raw");
                    return Err(ApiError::field(param, message).into());
                }
                Prompt::Raw(prompt_text)
            }
            false => {
                let before = body.context.unwrap_or_default();
                templated(prompt_text, body.system, body.template, before)?
            }
        };
        Input::Generate { prompt, settings: std::mem::take(&mut options).settings()? }
    };
    let answer = app.worker.submit(model, input, wish, keep_alive)?;
    writer.respond(answer, stream).await
}

/// What a request without a prompt means: have the model ready or, with a `keep_alive` of 0, let it go.
pub(super) fn load_or_unload(keep_alive: Option<KeepAlive>) -> Input {
    match keep_alive {
        Some(KeepAlive::For(time)) if time.is_zero() => Input::Unload,
        _ => Input::Load,
    }
}

fn templated(
    prompt: String,
    system: Option<String>,
    template: Option<String>,
    before: Vec<u32>,
) -> Result<Prompt, ApiError> {
    let system = system.filter(|system| !system.is_empty());
    let template = template.filter(|template| !template.is_empty());
    // Ollama's own templates are Go's; a model's in GGUF is Jinja. Both are known by how they name the prompt.
    if let Some(template) = template.as_deref().filter(|template| go_template::is_go(template)) {
        let text = go_template::render(template, system.as_deref().unwrap_or(""), &prompt);
        let text = text.map_err(|error| ApiError::field("template", error.to_string()))?;
        return Ok(match before.is_empty() {
            true => Prompt::Raw(text),
            false => {
                Prompt::Chat { messages: vec![Message::new("user", text)], template: Some(AS_IT_IS.to_owned()), before }
            }
        });
    }
    let mut messages = Vec::new();
    messages.extend(system.map(|system| Message::new("system", system)));
    messages.push(Message::new("user", prompt));
    Ok(Prompt::Chat { messages, template, before })
}

/// A Jinja template that adds nothing, for a text that is rendered already.
const AS_IT_IS: &str = "{{ messages[0].content }}";
