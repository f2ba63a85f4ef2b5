//! OpenAI's completions API, as llama-server and vLLM answer it.

use std::time::Duration;

use harness_spec::units::Nanos;
use reqwest::Url;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::PeerError;
use super::ollama::json_answer;
use super::stream::{Clock, Last, LineError, Message, Protocol, Reply, Wait, Waiting, receive};
use super::{Request, http};

/// A client of one server.
#[derive(Clone, Debug)]
pub struct OpenAiClient {
    http: reqwest::Client,
    base: Url,
    silence: Duration,
    waiting: Waiting,
}

impl OpenAiClient {
    /// Of a server; a trailing `/v1` of the address is understood.
    ///
    /// # Errors
    /// As [`http`].
    pub fn new(base: Url, silence: Duration) -> anyhow::Result<OpenAiClient> {
        Ok(OpenAiClient { http: http()?, base, silence, waiting: Waiting::Asleep })
    }

    /// Waits for the tokens of timed requests in this way; without it, asleep.
    #[must_use]
    pub fn waiting(self, waiting: Waiting) -> OpenAiClient {
        OpenAiClient { waiting, ..self }
    }

    fn url(&self, path: &str) -> String {
        let base = self.base.as_str().trim_end_matches('/').trim_end_matches("/v1");
        format!("{base}/{path}")
    }

    async fn get(&self, path: &str) -> Result<Value, PeerError> {
        let url = self.url(path);
        json_answer(self.http.get(&url), &url, self.silence).await
    }

    /// Ids of `/v1/models`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn models(&self) -> Result<Vec<String>, PeerError> {
        let v = self.get("v1/models").await?;
        let data = v["data"].as_array().cloned().unwrap_or_default();
        Ok(data.iter().filter_map(|m| m["id"].as_str().map(str::to_owned)).collect())
    }

    /// llama-server's `/props`; other servers have none.
    pub async fn props(&self) -> Option<Value> {
        self.get("props").await.ok().filter(Value::is_object)
    }

    /// llama-server's `/slots`.
    pub async fn slots(&self) -> Option<Value> {
        self.get("slots").await.ok().filter(Value::is_array)
    }

    /// llama-server's token ids of a raw prompt.
    pub async fn tokenize(&self, text: &str) -> Option<Vec<u32>> {
        let url = self.url("tokenize");
        let body = json!({ "content": text, "add_special": true, "parse_special": true });
        let v = json_answer(self.http.post(&url).json(&body), &url, self.silence).await.ok()?;
        v["tokens"].as_array()?.iter().map(|t| t.as_u64().and_then(|t| u32::try_from(t).ok())).collect()
    }

    /// One timed request.
    pub async fn generate(&self, model: &str, r: &Request<'_>, clock: &Clock, cancel: &CancellationToken) -> Reply {
        let url = self.url("v1/completions");
        let mut body = json!({
            "model": model,
            "prompt": r.prompt,
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": r.length,
            "temperature": 0, "top_k": 1, "top_p": 1, "min_p": 0, "repeat_penalty": 1, "seed": r.seed & 0x7fff_ffff,
            "cache_prompt": false,
        });
        if r.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        let wait = Wait { silence: self.silence, waiting: self.waiting, cancel };
        receive(self.http.post(&url).json(&body), &url, Sse::default(), wait, clock).await
    }
}

/// Server-sent events: `data: {json}` lines, at the end `data: [DONE]`.
#[derive(Default)]
struct Sse {
    last: Last,
    finished: bool,
}

impl Protocol for Sse {
    const NAME: &'static str = "OpenAI's event stream";

    fn line(&mut self, line: &str) -> Result<Message, LineError> {
        let Some(data) = line.strip_prefix("data:") else {
            // Comments and other fields of the event stream carry no tokens.
            let field = [":", "event:", "id:", "retry:"].iter().any(|f| line.starts_with(f));
            if let Ok(v) = serde_json::from_str::<Value>(line)
                && let Some(message) = error_message(&v)
            {
                return Err(LineError::Reported(message));
            }
            return if field { Ok(Message::Nothing) } else { Err(LineError::Garbage) };
        };
        let data = data.trim();
        if data == "[DONE]" {
            return if self.finished { Ok(Message::Done(self.last.clone())) } else { Err(LineError::Garbage) };
        }
        let v: Value = serde_json::from_str(data).map_err(|_| LineError::Garbage)?;
        if let Some(message) = error_message(&v) {
            return Err(LineError::Reported(message));
        }
        let choices = v["choices"].as_array().ok_or(LineError::Garbage)?;
        self.figures(&v);
        let Some(choice) = choices.first() else { return Ok(Message::Note(self.last.clone())) };
        let text = choice["text"].as_str().unwrap_or_default();
        match choice["finish_reason"].as_str() {
            None => Ok(Message::Token(text.to_owned())),
            Some(reason) => {
                self.finished = true;
                self.last.stopped = reason == "stop";
                // vLLM sends its last token together with the reason, llama-server sends the reason alone.
                Ok(if text.is_empty() { Message::Note(self.last.clone()) } else { Message::Token(text.to_owned()) })
            }
        }
    }
}

impl Sse {
    fn figures(&mut self, v: &Value) {
        let t = &mut self.last.timings;
        let usage = &v["usage"];
        if usage.is_object() {
            t.prompt_tokens = usage["prompt_tokens"].as_u64();
            t.eval_tokens = usage["completion_tokens"].as_u64();
            t.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
        }
        let timings = &v["timings"];
        if timings.is_object() {
            let ns = |key: &str| timings[key].as_f64().map(|ms| Nanos((ms * 1e6) as u64));
            t.cached_tokens = timings["cache_n"].as_u64().or(t.cached_tokens);
            t.prompt_ns = ns("prompt_ms");
            t.eval_ns = ns("predicted_ms");
        }
    }
}

fn error_message(v: &Value) -> Option<String> {
    let e = v.get("error")?;
    Some(e["message"].as_str().or(e.as_str()).map_or_else(|| e.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_llama_server_is_understood() {
        let mut p = Sse::default();
        let token = p.line(r#"data: {"choices":[{"text":" Paris","index":0,"finish_reason":null}]}"#);
        assert!(matches!(token, Ok(Message::Token(t)) if t == " Paris"));
        let end = p.line(
            r#"data: {"choices":[{"text":"","finish_reason":"length"}],"usage":{"completion_tokens":4,"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0,"prompt_n":5,"prompt_ms":80.146,"predicted_n":4,"predicted_ms":95.962}}"#,
        );
        assert!(matches!(end, Ok(Message::Note(_))));
        let Ok(Message::Done(last)) = p.line("data: [DONE]") else { panic!("the stream is over") };
        assert_eq!((last.timings.eval_tokens, last.timings.cached_tokens, last.stopped), (Some(4), Some(0), false));
        assert_eq!(last.timings.prompt_ns, Some(Nanos(80_146_000)));
    }

    #[test]
    fn an_end_without_a_reason_and_a_page_of_html_are_garbage() {
        assert_eq!(Sse::default().line("data: [DONE]").unwrap_err(), LineError::Garbage);
        assert_eq!(Sse::default().line("<html>").unwrap_err(), LineError::Garbage);
    }

    #[test]
    fn an_error_inside_the_stream_is_the_servers_own_words() {
        let e = Sse::default().line(r#"data: {"error":{"message":"out of memory","code":500}}"#).unwrap_err();
        assert_eq!(e, LineError::Reported("out of memory".into()));
    }
}
