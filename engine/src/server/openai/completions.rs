//! `POST /v1/completions`: continue a text or a list of token ids, as they are.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::answer::{Shape, Writer};
use super::params::Params;
use crate::server::api_error::{ApiError, OpenAiError};
use crate::server::app::{RequestBody, Shared};
use crate::server::backend::LoadWish;
use crate::server::job::{Input, Prompt};

#[derive(Deserialize)]
struct CompletionBody {
    #[serde(flatten)]
    params: Params,
    prompt: Option<PromptForm>,
    suffix: Option<String>,
    echo: Option<bool>,
}

/// The forms that a prompt may have.
#[derive(Deserialize)]
#[serde(untagged)]
enum PromptForm {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    ManyIds(Vec<Vec<u32>>),
}

impl PromptForm {
    fn prompt(self) -> Result<Prompt, ApiError> {
        let one = |n: usize| match n {
            1 => Ok(()),
            n => Err(ApiError::field("prompt", format!("{n} prompts were sent, and one is answered at a time"))),
        };
        match self {
            PromptForm::Text(text) => Ok(Prompt::Raw(text)),
            PromptForm::Ids(ids) => Ok(Prompt::Ids(ids)),
            PromptForm::Texts(mut texts) => one(texts.len()).map(|()| Prompt::Raw(texts.remove(0))),
            PromptForm::ManyIds(mut lists) => one(lists.len()).map(|()| Prompt::Ids(lists.remove(0))),
        }
    }
}

pub(in crate::server) async fn completions(State(app): Shared, body: RequestBody) -> Result<Response, OpenAiError> {
    let body: CompletionBody = app.json(body)?;
    let params = body.params;
    let model = app.catalog.job_model(&params.model)?;
    if body.echo == Some(true) {
        return Err(ApiError::Unsupported { param: "echo", what: "repeating the prompt" }.into());
    }
    if body.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::Unsupported { param: "suffix", what: "filling in the middle" }.into());
    }
    let prompt = body.prompt.ok_or_else(|| ApiError::field("prompt", "prompt is required"))?.prompt()?;
    let input = Input::Generate { prompt, settings: params.settings()? };
    let answer = app.worker.submit(model, input, LoadWish::default(), None)?;
    let (stream, usage) = (params.stream.unwrap_or(false), params.include_usage());
    Writer::new(Shape::Completion, params.model, usage).respond(answer, stream).await
}
