//! The answers of generate and chat: one JSON object, or a line for each token and one at the end.

use axum::body::Bytes;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Map, Value, json};

use crate::server::api_error::{ApiError, OllamaError};
use crate::server::app::{json_response, stream_response};
use crate::server::clock::now_rfc3339;
use crate::server::job::{Answer, Done, DoneReason, Reply, Start};

/// Which endpoint answers: they differ in where the text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `"response": "…"`
    Generate,
    /// `"message": {"role": "assistant", "content": "…"}`
    Chat,
}

/// What is needed to write an answer.
pub(super) struct Writer {
    pub shape: Shape,
    pub model: String,
    /// Whether the last object lists prompt and answer as token ids, for a client that sends them back as `context`.
    pub with_context: bool,
}

impl Writer {
    /// Answers with what comes, as a stream or at once.
    pub async fn respond(self, mut answer: Answer, is_stream: bool) -> Result<Response, OllamaError> {
        let prompt = match answer.started().await? {
            Start::Done(done) => return Ok(json_response(&self.last("", &done, &[]))),
            Start::Tokens { prompt } => prompt,
        };
        if !is_stream {
            let collected = answer.collect().await?;
            let context = [prompt, collected.ids.clone()].concat();
            return Ok(json_response(&self.last(&collected.text, collected.done(), &context)));
        }
        Ok(stream_response("application/x-ndjson", self.lines(answer, prompt)))
    }

    /// A line for each token, and the last one. An error in between is a line too.
    fn lines(self, answer: Answer, context: Vec<u32>) -> impl stream::Stream<Item = Bytes> {
        stream::unfold(Some((self, answer, context)), async |state| {
            let (writer, mut answer, mut context) = state?;
            match answer.next_of_stream().await {
                Reply::Token { id, text } => {
                    if writer.with_context {
                        context.push(id);
                    }
                    let line = line(writer.object(&text, false));
                    Some((line, Some((writer, answer, context))))
                }
                Reply::Done(done) => Some((line(writer.last("", &done, &context)), None)),
                Reply::Failed(error) => Some((line(error.ollama_body()), None)),
                Reply::Started { .. } => unreachable!("the worker sends Started once, and it was taken"),
            }
        })
    }

    fn object(&self, text: &str, is_done: bool) -> Value {
        let mut object = Map::new();
        object.insert("model".to_owned(), json!(self.model));
        object.insert("created_at".to_owned(), json!(now_rfc3339()));
        match self.shape {
            Shape::Generate => object.insert("response".to_owned(), json!(text)),
            Shape::Chat => object.insert("message".to_owned(), json!({ "role": "assistant", "content": text })),
        };
        object.insert("done".to_owned(), json!(is_done));
        Value::Object(object)
    }

    /// The last object, with the counts and the engine's times in nanoseconds.
    fn last(&self, text: &str, done: &Done, context: &[u32]) -> Value {
        let mut object = self.object(text, true);
        object["done_reason"] = json!(done.reason.word());
        if matches!(done.reason, DoneReason::Load | DoneReason::Unload) {
            return object;
        }
        if self.with_context {
            object["context"] = json!(context);
        }
        object["total_duration"] = json!(nanos(done.total_time));
        object["load_duration"] = json!(nanos(done.load_time));
        object["prompt_eval_count"] = json!(done.prompt_tokens);
        object["prompt_eval_duration"] = json!(nanos(done.prompt_time));
        object["eval_count"] = json!(done.generated);
        object["eval_duration"] = json!(nanos(done.decode_time));
        object
    }
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn line(value: Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    Bytes::from(text)
}

/// Ollama's own default: a request streams unless it says otherwise.
pub(super) fn is_stream(stream: Option<bool>) -> bool {
    stream.unwrap_or(true)
}

/// The error for a body that is missing what it must have.
pub(super) fn missing(param: &'static str) -> ApiError {
    ApiError::field(param, format!("{param} is required"))
}
