//! Ollama's API, which our own server speaks as well.

use std::path::Path;
use std::time::Duration;

use harness_spec::record::ServerTimings;
use harness_spec::units::Nanos;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::{PeerError, excerpt};
use super::stream::{Clock, Last, LineError, Message, Protocol, Reply, Wait, Waiting, receive};
use super::{Request, http};

/// How long the peer keeps the model after a request: longer than any pause of a run.
const KEEP_ALIVE: &str = "60m";

/// A client of one server.
#[derive(Clone, Debug)]
pub struct OllamaClient {
    http: reqwest::Client,
    base: Url,
    silence: Duration,
    waiting: Waiting,
}

/// A model that the server has loaded, by `/api/ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Context length, where the version reports it.
    pub context: Option<u64>,
    /// Bytes of the loaded model.
    pub size: Option<u64>,
    /// Bytes of it on a GPU.
    pub size_vram: Option<u64>,
    /// What our own server adds.
    pub engine: Option<EngineState>,
}

/// What our own server says of the loaded model beside what Ollama has fields for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EngineState {
    /// What it computes on: `cpu` or `cuda:N`.
    pub device: String,
    /// The type that keys and values are kept in.
    pub kv_type: String,
    /// Hash of everything that decides which kernels run.
    pub table_hash: String,
    /// What was done on the GPU since the model was loaded.
    pub counters: Option<EngineCounters>,
}

/// The engine's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)] // As in `DeviceCounters` of the record.
pub struct EngineCounters {
    pub tokens: u64,
    pub graph_launches: u64,
    pub kernel_launches: u64,
    pub syncs: u64,
    pub h2d_bytes: u64,
    pub d2h_bytes: u64,
}

impl OllamaClient {
    /// Of a server.
    ///
    /// # Errors
    /// As [`http`].
    pub fn new(base: Url, silence: Duration) -> anyhow::Result<OllamaClient> {
        Ok(OllamaClient { http: http()?, base, silence, waiting: Waiting::Asleep })
    }

    /// Waits for the tokens of timed requests in this way; without it, asleep.
    #[must_use]
    pub fn waiting(self, waiting: Waiting) -> OllamaClient {
        OllamaClient { waiting, ..self }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base.as_str().trim_end_matches('/'))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, PeerError> {
        let url = self.url(path);
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        json_answer(request, &url, self.silence).await
    }

    /// `/api/version`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn version(&self) -> Result<String, PeerError> {
        let v = self.call(Method::GET, "api/version", None).await?;
        v["version"].as_str().map(str::to_owned).ok_or_else(|| PeerError::Garbage {
            url: self.url("api/version"),
            protocol: "the Ollama API",
            found: excerpt(&v.to_string()),
        })
    }

    /// Names of the models the server has.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn tags(&self) -> Result<Vec<String>, PeerError> {
        let v = self.call(Method::GET, "api/tags", None).await?;
        let models = v["models"].as_array().cloned().unwrap_or_default();
        Ok(models.iter().filter_map(|m| m["name"].as_str().map(str::to_owned)).collect())
    }

    /// `/api/show` of a model.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn show(&self, model: &str) -> Result<Value, PeerError> {
        self.call(Method::POST, "api/show", Some(json!({ "model": model }))).await
    }

    /// `/api/ps` of a model; `None` where it is not loaded.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn loaded(&self, model: &str) -> Result<Option<Loaded>, PeerError> {
        let v = self.call(Method::GET, "api/ps", None).await?;
        let models = v["models"].as_array().cloned().unwrap_or_default();
        let same =
            |m: &&Value| [&m["name"], &m["model"]].iter().filter_map(|n| n.as_str()).any(|n| same_model(n, model));
        Ok(models.iter().find(same).map(|m| Loaded {
            context: m["context_length"].as_u64(),
            size: m["size"].as_u64(),
            size_vram: m["size_vram"].as_u64(),
            engine: serde_json::from_value(m["edgellm"].clone()).ok(),
        }))
    }

    /// Whether the server has a blob.
    ///
    /// # Errors
    /// [`PeerError`], other than that it has not.
    pub async fn has_blob(&self, sha256: &str) -> Result<bool, PeerError> {
        let url = self.url(&format!("api/blobs/sha256:{sha256}"));
        let response =
            self.http.head(&url).timeout(self.silence).send().await.map_err(|e| PeerError::sending(&url, &e))?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            s if s.is_success() => Ok(true),
            s => Err(PeerError::Status { url, status: s.as_u16(), body: "(no body)".into() }),
        }
    }

    /// Uploads a file as a blob.
    ///
    /// # Errors
    /// [`PeerError`], or the file cannot be read.
    pub async fn upload(&self, sha256: &str, file: &Path) -> anyhow::Result<()> {
        let url = self.url(&format!("api/blobs/sha256:{sha256}"));
        let total = std::fs::metadata(file)?.len();
        let bar = crate::progress::bytes("uploading the model", total);
        let (shown, path) = (bar.clone(), file.to_owned());
        let reader = std::fs::File::open(&path)?;
        let chunks = futures_util::stream::unfold(reader, move |mut reader| {
            let shown = shown.clone();
            async move {
                let mut buffer = vec![0u8; 1 << 20];
                match std::io::Read::read(&mut reader, &mut buffer) {
                    Ok(0) => None,
                    Ok(n) => {
                        buffer.truncate(n);
                        shown.inc(n as u64);
                        Some((Ok(buffer), reader))
                    }
                    Err(e) => Some((Err(e), reader)),
                }
            }
        });
        let request = self
            .http
            .post(&url)
            .header(reqwest::header::CONTENT_LENGTH, total)
            .body(reqwest::Body::wrap_stream(chunks));
        let response = request.send().await.map_err(|e| PeerError::sending(&url, &e))?;
        bar.finish_and_clear();
        let status = response.status();
        if !status.is_success() {
            let body = excerpt(&response.text().await.unwrap_or_default());
            return Err(PeerError::Status { url, status: status.as_u16(), body }.into());
        }
        Ok(())
    }

    /// Creates a model from a blob.
    ///
    /// # Errors
    /// [`PeerError`]; Ollama reports failures inside the stream of its answer.
    pub async fn create(&self, name: &str, sha256: &str) -> Result<(), PeerError> {
        let url = self.url("api/create");
        let body = json!({ "model": name, "files": { "model.gguf": format!("sha256:{sha256}") }, "stream": false });
        let answer =
            json_answer(self.http.post(&url).json(&body), &url, self.silence.max(Duration::from_secs(600))).await?;
        match answer["error"].as_str() {
            Some(message) => Err(PeerError::Reported { url, message: message.to_owned() }),
            None => Ok(()),
        }
    }

    /// Loads a model with the options that the runs will have, so that none of them reloads it. Returns the server's own
    /// load time where it gives one.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn load(&self, model: &str, context: u32, threads: u32) -> Result<Option<Nanos>, PeerError> {
        let body = json!({
            "model": model, "prompt": "", "stream": false, "keep_alive": KEEP_ALIVE,
            "options": { "num_ctx": context, "num_thread": threads },
        });
        let v = self.call(Method::POST, "api/generate", Some(body)).await?;
        Ok(v["load_duration"].as_u64().map(Nanos))
    }

    /// One timed request.
    pub async fn generate(&self, model: &str, r: &Request<'_>, clock: &Clock, cancel: &CancellationToken) -> Reply {
        let url = self.url("api/generate");
        let mut body = json!({
            "model": model,
            "prompt": r.prompt,
            "raw": true,
            "stream": true,
            // A prompt that does not fit is an error, not a shorter prompt.
            "truncate": false,
            "keep_alive": KEEP_ALIVE,
            "options": {
                "num_predict": r.length, "num_ctx": r.context, "num_thread": r.threads,
                "temperature": 0, "top_k": 1, "top_p": 1, "min_p": 0, "repeat_penalty": 1, "seed": r.seed & 0x7fff_ffff,
                // The peer may have taken stop strings from a template: none on either side.
                "stop": [],
            },
        });
        if r.ignore_eos {
            body["options"]["ignore_eos"] = true.into();
        }
        let wait = Wait { silence: self.silence, waiting: self.waiting, cancel };
        receive(self.http.post(&url).json(&body), &url, Ndjson, wait, clock).await
    }
}

/// Ollama adds `:latest` to a name without a tag.
fn same_model(a: &str, b: &str) -> bool {
    a.trim_end_matches(":latest") == b.trim_end_matches(":latest")
}

/// SHA-256 of the GGUF blob behind a model, from the `FROM` line that `/api/show` prints.
pub fn blob_digest(show: &Value) -> Option<String> {
    let modelfile = show["modelfile"].as_str()?;
    modelfile.lines().filter_map(|l| l.strip_prefix("FROM ")).find_map(|from| {
        let (_, hex) = from.rsplit_once("sha256-").or_else(|| from.rsplit_once("sha256:"))?;
        let hex: String = hex.chars().take_while(char::is_ascii_hexdigit).collect();
        (hex.len() == 64).then(|| hex.to_ascii_lowercase())
    })
}

/// Sends a request whose answer is one JSON document.
pub(super) async fn json_answer(
    request: reqwest::RequestBuilder,
    url: &str,
    silence: Duration,
) -> Result<Value, PeerError> {
    let response = request.timeout(silence).send().await.map_err(|e| {
        if e.is_timeout() && !e.is_connect() {
            PeerError::Timeout { url: url.to_owned(), silence }
        } else {
            PeerError::sending(url, &e)
        }
    })?;
    let status = response.status();
    let body = response.text().await.map_err(|e| PeerError::Cut {
        url: url.to_owned(),
        tokens: 0,
        reason: super::error::innermost(&e),
    })?;
    if !status.is_success() {
        return Err(PeerError::Status { url: url.to_owned(), status: status.as_u16(), body: excerpt(&body) });
    }
    serde_json::from_str(&body).map_err(|_| PeerError::Garbage {
        url: url.to_owned(),
        protocol: "JSON",
        found: excerpt(&body),
    })
}

/// Newline-delimited JSON: one message a line.
struct Ndjson;

impl Protocol for Ndjson {
    const NAME: &'static str = "Ollama's NDJSON";

    fn line(&mut self, line: &str) -> Result<Message, LineError> {
        let v: Value = serde_json::from_str(line).map_err(|_| LineError::Garbage)?;
        if let Some(e) = v["error"].as_str() {
            return Err(LineError::Reported(e.to_owned()));
        }
        let done = v["done"].as_bool().ok_or(LineError::Garbage)?;
        if !done {
            return Ok(Message::Token(v["response"].as_str().ok_or(LineError::Garbage)?.to_owned()));
        }
        Ok(Message::Done(Last {
            stopped: v["done_reason"].as_str() == Some("stop"),
            timings: ServerTimings {
                prompt_tokens: v["prompt_eval_count"].as_u64(),
                // Ollama reuses prefixes and never says so; the nonce leaves it nothing to reuse.
                cached_tokens: None,
                prompt_ns: v["prompt_eval_duration"].as_u64().map(Nanos),
                eval_tokens: v["eval_count"].as_u64(),
                eval_ns: v["eval_duration"].as_u64().map(Nanos),
                load_ns: v["load_duration"].as_u64().map(Nanos),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_read_from_the_from_line_of_a_real_answer() {
        let hex = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        let modelfile = format!(
            "# Modelfile generated by \"ollama show\"\n# FROM smol:latest\n\nFROM /home/u/.ollama/models/blobs/sha256-{hex}\nTEMPLATE {{{{ .Prompt }}}}\n"
        );
        assert_eq!(blob_digest(&json!({ "modelfile": modelfile })).as_deref(), Some(hex));
        assert_eq!(blob_digest(&json!({ "modelfile": "FROM smol:latest\n" })), None);
    }

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        assert!(same_model("edgellm-1:latest", "edgellm-1") && !same_model("a:7b", "a"));
    }
}
