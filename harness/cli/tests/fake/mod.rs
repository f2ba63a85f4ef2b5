//! Scripted peers over real HTTP, and a model without a file: a whole comparison inside a test.
#![allow(dead_code)] // Each test file uses its own part.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, post};
use axum::{Json, Router};
use bench_cli::model::{Model, Rendered};
use bench_cli::plan::RunPlan;
use bench_cli::quality::judge::{Way, judge};
use bench_cli::quality::{Judge, Judgement, Questions};
use bench_cli::suite;
use engine::generate::{DeviceChoice, KvType};
use futures_util::stream;
use harness_spec::record::{ModelFacts, TensorGroup};
use reqwest::Url;
use serde_json::{Value, json};

/// What a scripted peer does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answers 404.
    NotFound,
    /// Closes the connection after so many tokens.
    DiesAfter(usize),
    /// Sends HTML.
    Garbage,
    /// Reports an error inside the stream.
    ErrorInStream,
    /// Sends two tokens a chunk.
    MergesTokens,
    /// Stops early by an end token after so many tokens.
    StopsAt(usize),
    /// Reports fewer tokens than it streamed.
    CountsFewer,
    /// Counts one prompt token more than there are.
    CountsPromptWrong,
    /// Answers part of the prompt from a cache, and says so (OpenAI only).
    CachesPrompt,
    /// Sends nothing at all.
    Hangs,
    /// Says one word again and again.
    Babbles,
}

/// A scripted peer's state, shared with its test.
pub struct Peer {
    /// Where it listens.
    pub url: Url,
    script: Arc<Script>,
}

struct Script {
    fault: Fault,
    /// The first request, counted from 0 over all `generate`s with a prompt, that the fault strikes.
    from: usize,
    pause: Duration,
    requests: AtomicUsize,
    /// Bodies of the requests, for a look at what was sent.
    bodies: Mutex<Vec<Value>>,
    models: Mutex<BTreeMap<String, String>>,
    blobs: Mutex<HashMap<String, usize>>,
    /// The digest that `/api/show` claims, whatever was created.
    claims: Option<String>,
}

impl Script {
    fn strikes(&self) -> Fault {
        let n = self.requests.fetch_add(1, Ordering::SeqCst);
        if n >= self.from { self.fault } else { Fault::None }
    }
}

impl Peer {
    /// Bodies of the requests so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.script.bodies.lock().unwrap().clone()
    }

    /// Models created so far, with their digests.
    pub fn models(&self) -> BTreeMap<String, String> {
        self.script.models.lock().unwrap().clone()
    }

    /// Sizes of the blobs uploaded so far.
    pub fn blobs(&self) -> HashMap<String, usize> {
        self.script.blobs.lock().unwrap().clone()
    }
}

/// How to script a peer.
#[derive(Clone)]
pub struct Scripted {
    pub fault: Fault,
    pub from: usize,
    pub pause: Duration,
    pub models: BTreeMap<String, String>,
    pub claims: Option<String>,
}

impl Default for Scripted {
    fn default() -> Self {
        Scripted { fault: Fault::None, from: 0, pause: Duration::ZERO, models: BTreeMap::new(), claims: None }
    }
}

impl Scripted {
    pub fn with(fault: Fault, from: usize) -> Self {
        Scripted { fault, from, ..Scripted::default() }
    }

    fn script(self) -> Arc<Script> {
        Arc::new(Script {
            fault: self.fault,
            from: self.from,
            pause: self.pause,
            requests: AtomicUsize::new(0),
            bodies: Mutex::default(),
            models: Mutex::new(self.models),
            blobs: Mutex::default(),
            claims: self.claims,
        })
    }

    /// Serves Ollama's API.
    pub async fn ollama(self) -> Peer {
        let script = self.script();
        let app = Router::new()
            .route("/api/version", get(|| async { Json(json!({ "version": "0.20.7" })) }))
            .route("/api/tags", get(tags))
            .route("/api/show", post(show))
            .route("/api/ps", get(ps))
            .route("/api/blobs/{digest}", head(has_blob).post(put_blob))
            .route("/api/create", post(create))
            .route("/api/generate", post(ollama_generate))
            // Models are large, and so are their uploads.
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(script.clone());
        serve(app, script).await
    }

    /// Serves OpenAI's API without llama-server's own paths.
    pub async fn openai(self) -> Peer {
        let script = self.script();
        serve(openai_paths().with_state(script.clone()), script).await
    }

    /// Serves OpenAI's API, and says as llama-server does what it is.
    pub async fn llama_server(self) -> Peer {
        let script = self.script();
        let props = json!({
            "default_generation_settings": { "n_ctx": 512 }, "total_slots": 1, "build_info": "b1-0000000",
        });
        let app = openai_paths().route("/props", get(|| async { Json(props) }));
        serve(app.with_state(script.clone()), script).await
    }
}

fn openai_paths() -> Router<Arc<Script>> {
    Router::new()
        .route("/v1/models", get(|| async { Json(json!({ "data": [{ "id": "some-model" }] })) }))
        .route("/v1/completions", post(openai_generate))
}

async fn serve(app: Router, script: Arc<Script>) -> Peer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Peer { url, script }
}

async fn tags(State(s): State<Arc<Script>>) -> Json<Value> {
    let names: Vec<Value> = s.models.lock().unwrap().keys().map(|n| json!({ "name": format!("{n}:latest") })).collect();
    Json(json!({ "models": names }))
}

async fn show(State(s): State<Arc<Script>>, Json(body): Json<Value>) -> Response {
    let name = body["model"].as_str().unwrap_or_default().trim_end_matches(":latest").to_owned();
    match (s.claims.clone(), s.models.lock().unwrap().get(&name).cloned()) {
        (Some(digest), Some(_)) | (None, Some(digest)) if digest.len() == 64 => {
            Json(json!({ "modelfile": format!("# x\nFROM /blobs/sha256-{digest}\n") })).into_response()
        }
        _ => (StatusCode::NOT_FOUND, Json(json!({ "error": "model not found" }))).into_response(),
    }
}

async fn ps(State(s): State<Arc<Script>>) -> Json<Value> {
    let names: Vec<Value> = s
        .models
        .lock()
        .unwrap()
        .keys()
        .map(|n| json!({ "name": format!("{n}:latest"), "size": 1000, "size_vram": 0, "context_length": 512 }))
        .collect();
    Json(json!({ "models": names }))
}

async fn has_blob(State(s): State<Arc<Script>>, UrlPath(digest): UrlPath<String>) -> StatusCode {
    if s.blobs.lock().unwrap().contains_key(&digest) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn put_blob(State(s): State<Arc<Script>>, UrlPath(digest): UrlPath<String>, body: Bytes) -> Response {
    let found = format!("sha256:{}", suite::sha256_hex(&body));
    if found != digest {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "digest mismatch" }))).into_response();
    }
    s.blobs.lock().unwrap().insert(digest, body.len());
    StatusCode::CREATED.into_response()
}

async fn create(State(s): State<Arc<Script>>, Json(body): Json<Value>) -> Json<Value> {
    let digest = body["files"].as_object().unwrap().values().next().unwrap().as_str().unwrap();
    if !s.blobs.lock().unwrap().contains_key(digest) {
        return Json(json!({ "error": "blob not found" }));
    }
    let (name, digest) = (body["model"].as_str().unwrap(), digest.trim_start_matches("sha256:"));
    s.models.lock().unwrap().insert(name.to_owned(), digest.to_owned());
    Json(json!({ "status": "success" }))
}

/// Tokens of a scripted tokenizer: words.
pub fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

async fn ollama_generate(State(s): State<Arc<Script>>, Json(body): Json<Value>) -> Response {
    let prompt = body["prompt"].as_str().unwrap_or_default().to_owned();
    if prompt.is_empty() {
        return Json(json!({ "done": true, "load_duration": 5_000_000 })).into_response();
    }
    let asked = body["options"]["num_predict"].as_u64().unwrap() as usize;
    s.bodies.lock().unwrap().push(body);
    let fault = s.strikes();
    if let Some(response) = refusal(fault).await {
        return response;
    }
    let length = if let Fault::StopsAt(n) = fault { n.min(asked) } else { asked };
    let per_chunk = if fault == Fault::MergesTokens { 2 } else { 1 };
    let mut lines = chunk_texts(length, per_chunk, fault)
        .into_iter()
        .map(|text| json!({ "response": text, "done": false }).to_string())
        .collect::<Vec<_>>();
    if fault == Fault::ErrorInStream {
        lines.truncate(2);
        lines.push(json!({ "error": "model runner has unexpectedly stopped" }).to_string());
    }
    let stopped = length < asked;
    lines.push(
        json!({
            "response": "", "done": true, "done_reason": if stopped { "stop" } else { "length" },
            "prompt_eval_count": words(&prompt) + u64::from(fault == Fault::CountsPromptWrong),
            "prompt_eval_duration": 1_000_000,
            // The end token is counted and not sent, as Ollama does it.
            "eval_count": if fault == Fault::CountsFewer { length - 1 } else { length + usize::from(stopped) },
            "eval_duration": 2_000_000,
        })
        .to_string(),
    );
    streamed(lines, "\n", fault, s.pause)
}

async fn openai_generate(State(s): State<Arc<Script>>, _: HeaderMap, Json(body): Json<Value>) -> Response {
    let prompt = body["prompt"].as_str().unwrap_or_default().to_owned();
    let asked = body["max_tokens"].as_u64().unwrap() as usize;
    s.bodies.lock().unwrap().push(body);
    let fault = s.strikes();
    if let Some(response) = refusal(fault).await {
        return response;
    }
    let length = if let Fault::StopsAt(n) = fault { n.min(asked) } else { asked };
    let per_chunk = if fault == Fault::MergesTokens { 2 } else { 1 };
    let mut lines: Vec<String> = chunk_texts(length, per_chunk, fault)
        .into_iter()
        .map(|text| format!("data: {}", json!({ "choices": [{ "text": text, "finish_reason": null }] })))
        .collect();
    let reason = if length < asked { "stop" } else { "length" };
    let cached = if fault == Fault::CachesPrompt { 3 } else { 0 };
    let usage = json!({
        "prompt_tokens": words(&prompt) + u64::from(fault == Fault::CountsPromptWrong),
        "completion_tokens": length,
        "prompt_tokens_details": { "cached_tokens": cached },
    });
    lines.push(format!("data: {}", json!({ "choices": [{ "text": "", "finish_reason": reason }], "usage": usage })));
    lines.push("data: [DONE]".into());
    streamed(lines, "\n\n", fault, s.pause)
}

fn chunk_texts(length: usize, per_chunk: usize, fault: Fault) -> Vec<String> {
    let word = |i| if fault == Fault::Babbles { 7 } else { i };
    (0..length.div_ceil(per_chunk)).map(|i| format!(" w{}", word(i))).collect()
}

/// Judges by a model that says ` w0 w1 w2 …` behind every prompt, as peers without a fault do.
#[derive(Clone, Copy, Default)]
pub struct WordJudge {
    /// What the fast path has added to the logit of the first word.
    pub fast_is_off: f32,
    /// Whether it cannot judge.
    pub fails: bool,
}

impl Judge for WordJudge {
    async fn judge(&self, questions: &Questions) -> anyhow::Result<Judgement> {
        let way = |off| move || Ok(Words::new(off));
        match self.fails {
            true => Err(anyhow::anyhow!("the device is gone")),
            false => judge(questions, "exact path of a script", way(0.0), way(self.fast_is_off)),
        }
    }
}

/// The model of [`WordJudge`].
struct Words {
    pieces: Vec<String>,
    prompt: usize,
    off: f32,
    logits: Vec<f32>,
}

impl Words {
    /// Words that it knows; the longest answer of a test has fewer.
    const COUNT: usize = 300;

    fn new(off: f32) -> Words {
        // The last one is never shown.
        let pieces = (0..Words::COUNT).map(|i| format!(" w{i}")).chain([String::new()]).collect();
        Words { pieces, prompt: 0, off, logits: Vec::new() }
    }
}

impl Way for Words {
    fn prompt_ids(&self, text: &str) -> Vec<u32> {
        (0..words(text) as u32).collect()
    }

    fn piece(&self, id: u32) -> &[u8] {
        self.pieces[id as usize].as_bytes()
    }

    fn room(&self) -> usize {
        512
    }

    fn feed(&mut self, ids: &[u32], pos0: usize) -> anyhow::Result<&[f32]> {
        if pos0 == 0 {
            self.prompt = ids.len();
        }
        self.logits = vec![0.0; self.pieces.len()];
        self.logits[pos0 + ids.len() - self.prompt] = 10.0;
        self.logits[0] += self.off;
        Ok(&self.logits)
    }
}

async fn refusal(fault: Fault) -> Option<Response> {
    match fault {
        Fault::NotFound => Some((StatusCode::NOT_FOUND, Json(json!({ "error": "model not found" }))).into_response()),
        Fault::Garbage => Some("<html>It works!</html>\n".into_response()),
        Fault::Hangs => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            None
        }
        _ => None,
    }
}

fn streamed(lines: Vec<String>, end: &'static str, fault: Fault, pause: Duration) -> Response {
    let cut_at = if let Fault::DiesAfter(n) = fault { n } else { usize::MAX };
    let chunks = stream::unfold((lines.into_iter(), 0), move |(mut lines, n)| async move {
        if n >= cut_at {
            // What was sent must leave before the connection breaks.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Some((Err(io::Error::other("the process died")), (Vec::new().into_iter(), 0)));
        }
        let line = lines.next()?;
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, io::Error>(Bytes::from(format!("{line}{end}"))), (lines, n + 1)))
    });
    Body::from_stream(chunks).into_response()
}

/// A model without weights: its tokens are words.
pub struct Stub {
    facts: ModelFacts,
    path: Option<PathBuf>,
}

impl Stub {
    /// With the digest of a file's content.
    pub fn of_file(path: &Path) -> Stub {
        let sha256 = suite::sha256_hex(&std::fs::read(path).unwrap());
        Stub { path: Some(path.to_owned()), ..Stub::with_digest(&sha256) }
    }

    /// Without a file.
    pub fn with_digest(sha256: &str) -> Stub {
        Stub {
            facts: ModelFacts {
                name: "stub".into(),
                sha256: sha256.to_owned(),
                file_bytes: 1_000,
                architecture: "llama".into(),
                parameters: 100,
                tensors: [("Q4_1".to_owned(), TensorGroup { count: 2, bytes: 800 })].into(),
                weight_bytes_per_token: 800,
                kv_bytes_per_position: 16,
                layers: 1,
                context: 512,
            },
            path: None,
        }
    }
}

impl Model for Stub {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
    fn adds_bos(&self) -> bool {
        false
    }
    fn tokenizer(&self) -> String {
        "words".into()
    }
    fn render(&self, prompt: &str, nonce: &str) -> anyhow::Result<Rendered> {
        let text = format!("[{nonce}] {prompt}");
        let ids = self.ids(&text);
        Ok(Rendered { text, ids })
    }
    fn ids(&self, text: &str) -> Vec<u32> {
        (0..words(text) as u32).collect()
    }
}

/// A plan of few short runs.
pub fn plan(runs: u64, lengths: &[u64]) -> RunPlan {
    RunPlan {
        verb: "compare",
        model: "stub".into(),
        runs,
        suite: suite::load("quick").unwrap(),
        lengths: lengths.to_vec(),
        device: DeviceChoice::Cpu,
        kv: KvType::F16,
        breakdown: false,
        tokens: None,
        threads: 2,
        context: 512,
        seed: 7,
        block_len: 10,
        warmup: 1,
        out: None,
        timeout: Duration::from_secs(5),
        dry_run: false,
    }
}
