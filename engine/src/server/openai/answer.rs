//! The answers of both completion endpoints: one JSON object, or server-sent events, one for each token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};

use crate::server::api_error::{ApiError, OpenAiError};
use crate::server::app::{json_response, stream_response};
use crate::server::clock::unix_seconds;
use crate::server::job::{Answer, Done, Reply, Start};

/// Which endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Completion,
    Chat,
}

pub(super) struct Writer {
    shape: Shape,
    model: String,
    id: String,
    created: u64,
    include_usage: bool,
}

impl Writer {
    pub fn new(shape: Shape, model: String, include_usage: bool) -> Writer {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let prefix = match shape {
            Shape::Completion => "cmpl",
            Shape::Chat => "chatcmpl",
        };
        let created = unix_seconds(SystemTime::now());
        // Unique in this process and, by its start, among those before it.
        let id = format!("{prefix}-{created:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Writer { shape, model, id, created, include_usage }
    }

    pub async fn respond(self, mut answer: Answer, is_stream: bool) -> Result<Response, OpenAiError> {
        match answer.started().await? {
            Start::Tokens { .. } => {}
            Start::Done(_) => unreachable!("only load and unload are done at once, and this API has neither"),
        }
        if is_stream {
            return Ok(stream_response("text/event-stream", self.events(answer)));
        }
        let collected = answer.collect().await?;
        let choice = match self.shape {
            Shape::Completion => json!({
                "text": collected.text, "index": 0, "logprobs": null, "finish_reason": collected.done().reason.word(),
            }),
            Shape::Chat => json!({
                "index": 0,
                "message": { "role": "assistant", "content": collected.text },
                "logprobs": null,
                "finish_reason": collected.done().reason.word(),
            }),
        };
        let mut body = self.object(vec![choice], false);
        body["usage"] = usage(collected.done());
        Ok(json_response(&body))
    }

    /// An event for each token, one with the reason of the end, one with the usage if asked for, and the end mark.
    fn events(self, answer: Answer) -> impl stream::Stream<Item = Bytes> {
        stream::unfold(Some((self, answer, true)), async |state| {
            let (writer, mut answer, is_first) = state?;
            match answer.next_of_stream().await {
                Reply::Token { text, .. } => {
                    let event = event(&writer.object(vec![writer.delta(&text, is_first)], true));
                    Some((Bytes::from(event), Some((writer, answer, false))))
                }
                Reply::Done(done) => Some((Bytes::from(writer.end(&done)), None)),
                Reply::Failed(error) => Some((Bytes::from(broken_off(&error)), None)),
                Reply::Started { .. } => unreachable!("the worker sends Started once, and it was taken"),
            }
        })
    }

    // The role comes with the first token and not in an event of its own, so that every event is one token.
    fn delta(&self, text: &str, is_first: bool) -> Value {
        match (self.shape, is_first) {
            (Shape::Completion, _) => json!({ "text": text, "index": 0, "logprobs": null, "finish_reason": null }),
            (Shape::Chat, true) => {
                json!({ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null })
            }
            (Shape::Chat, false) => json!({ "index": 0, "delta": { "content": text }, "finish_reason": null }),
        }
    }

    fn end(&self, done: &Done) -> String {
        let reason = done.reason.word();
        let choice = match self.shape {
            Shape::Completion => json!({ "text": "", "index": 0, "logprobs": null, "finish_reason": reason }),
            Shape::Chat => json!({ "index": 0, "delta": {}, "finish_reason": reason }),
        };
        let mut text = event(&self.object(vec![choice], true));
        if self.include_usage {
            let mut last = self.object(Vec::new(), true);
            last["usage"] = usage(done);
            text.push_str(&event(&last));
        }
        text.push_str("data: [DONE]\n\n");
        text
    }

    fn object(&self, choices: Vec<Value>, is_chunk: bool) -> Value {
        let object = match (self.shape, is_chunk) {
            (Shape::Completion, _) => "text_completion",
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": concat!("edgellm-", env!("CARGO_PKG_VERSION")), "choices": choices,
        })
    }
}

fn usage(done: &Done) -> Value {
    json!({
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.generated,
        "total_tokens": done.prompt_tokens + done.generated,
    })
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

// The status has been sent already, so the error is an event, which OpenAI's own clients raise.
fn broken_off(error: &ApiError) -> String {
    event(&error.openai_body())
}
