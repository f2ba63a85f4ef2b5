//! A model that says what a test tells it, and a server in front of it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use engine::chat_template::{ChatError, Message};
use engine::cuda::Counters;
use engine::generate::{
    DeviceChoice, Event, Finish, FinishReason, GenerateError, GenerateRequest, KvType, LoadOptions,
};
use engine::server::{
    Backend, DeviceFacts, KeepAlive, LoadFailure, LoadWish, Loader, ModelFacts, ServeError, ServeOptions, ServedModel,
    serve,
};
use kernels::cuda::CudaError;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the script's model does and what was asked of it.
#[derive(Default)]
pub struct Script {
    /// The texts of the tokens it generates, again and again.
    pub words: Vec<&'static str>,
    /// It ends after so many tokens with `stop`; 0 goes on until the limit.
    pub stops_after: usize,
    /// It waits before each turn until the gate lets it go on.
    pub gate: Gate,
    /// Answers that it has side by side; 0 is one.
    pub slots: usize,
    /// Tokens of a prompt that it takes in a turn; 0 is all.
    pub batch: usize,
    /// What was done in which slot, a turn a line.
    pub turns: Mutex<Vec<String>>,
    pub panics: AtomicBool,
    /// The device fails with this driver's code after the first token.
    pub fails_with: Mutex<Option<u32>>,
    pub has_no_template: bool,
    pub requests: Mutex<Vec<GenerateRequest>>,
    pub prompts: Mutex<Vec<String>>,
    pub loads: Mutex<Vec<LoadWish>>,
    /// Models that were dropped.
    pub unloads: AtomicUsize,
    /// Requests that were broken off.
    pub cancelled: AtomicUsize,
    /// Tokens that were generated.
    pub tokens: AtomicUsize,
}

/// Holds the model back until a test opens it. Open by default.
#[derive(Default)]
pub struct Gate {
    /// How many may pass; `None` where it is open.
    closed: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock().unwrap() = Some(0);
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = None;
        self.changed.notify_all();
    }

    /// Lets one pass more.
    pub fn let_one_through(&self) {
        if let Some(may_pass) = self.closed.lock().unwrap().as_mut() {
            *may_pass += 1;
        }
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        let mut closed = self.changed.wait_while(closed, |may_pass| *may_pass == Some(0)).unwrap();
        if let Some(may_pass) = closed.as_mut() {
            *may_pass -= 1;
        }
    }
}

impl Script {
    pub fn saying(words: &[&'static str]) -> Script {
        Script { words: words.to_vec(), stops_after: words.len(), ..Script::default() }
    }

    /// Never ends by itself.
    pub fn endless() -> Script {
        Script { words: vec!["la "], ..Script::default() }
    }
}

struct Scripted {
    script: Arc<Script>,
    threads: usize,
    /// The answers under way, by slot.
    slots: Vec<Option<Answer>>,
}

#[derive(Clone)]
struct Answer {
    request: GenerateRequest,
    filled: usize,
    generated: usize,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.script.unloads.fetch_add(1, Ordering::SeqCst);
    }
}

pub const CONTEXT: usize = 1_000;
/// What a model gets when no request asks for a number of threads.
pub const THREADS: usize = 4;

impl Backend for Scripted {
    fn context(&self) -> usize {
        CONTEXT
    }

    fn device(&self) -> DeviceFacts {
        DeviceFacts {
            device: DeviceChoice::Cuda(1),
            name: Some("A GPU".to_owned()),
            vram_bytes: 6_789,
            kv: KvType::F16,
            table_hash: "hash".to_owned(),
        }
    }

    fn counters(&mut self) -> Option<Counters> {
        let tokens = self.script.tokens.load(Ordering::SeqCst) as u64;
        Some(Counters { graph_launches: tokens, d2h_bytes: 4 * tokens, tokens, ..Counters::default() })
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn memory_bytes(&self) -> u64 {
        12_345
    }

    /// A token for each character.
    fn prompt_ids(&self, text: &str) -> Vec<u32> {
        self.script.prompts.lock().unwrap().push(text.to_owned());
        text.chars().map(u32::from).collect()
    }

    fn chat_prompt(&self, messages: &[Message], template: Option<&str>) -> Result<String, ChatError> {
        if let Some(template) = template {
            return Ok(format!("template {template}: {}", messages[messages.len() - 1].content));
        }
        if messages.iter().any(|message| message.content == "refuse") {
            return Err(ChatError::Render { why: "the template says no".to_owned() });
        }
        if self.script.has_no_template {
            return Err(ChatError::Absent);
        }
        Ok(messages.iter().map(|m| format!("<{}>{}", m.role, m.content)).collect())
    }

    fn begin(&mut self, slot: usize, request: &GenerateRequest) -> Result<(), GenerateError> {
        self.script.requests.lock().unwrap().push(request.clone());
        assert!(self.slots[slot].is_none(), "slot {slot} is taken");
        self.slots[slot] = Some(Answer { request: request.clone(), filled: 0, generated: 0 });
        Ok(())
    }

    fn turn(
        &mut self,
        slot: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, GenerateError> {
        let script = self.script.clone();
        let answer = self.slots[slot].as_mut().expect("an answer is under way");
        assert!(!script.panics.load(Ordering::SeqCst), "the script is told to panic");
        script.gate.pass();
        let prompt_tokens = answer.request.prompt.len();
        if answer.filled < prompt_tokens {
            let batch = if script.batch == 0 { prompt_tokens } else { script.batch };
            answer.filled = (answer.filled + batch).min(prompt_tokens);
            script.turns.lock().unwrap().push(format!("{slot}: {} of {prompt_tokens}", answer.filled));
            if answer.filled < prompt_tokens {
                return Ok(None);
            }
            let elapsed = Duration::from_millis(3);
            if on_event(Event::Prefilled { prompt_tokens, cached_tokens: 0, elapsed }).is_break() {
                return Ok(Some(self.cancel(slot)));
            }
            if answer.request.max_tokens == 0 {
                return Ok(Some(self.end(slot, FinishReason::Length)));
            }
        }
        if let (1, Some(code)) = (answer.generated, *script.fails_with.lock().unwrap()) {
            let (name, text) = ("CUDA_ERROR".to_owned(), "it failed".to_owned());
            let doing = "decoding a token".to_owned();
            return Err(CudaError::Driver { call: "cuGraphLaunch", code, name, text, doing }.into());
        }
        let text = script.words[answer.generated % script.words.len()];
        answer.generated += 1;
        script.tokens.fetch_add(1, Ordering::SeqCst);
        script.turns.lock().unwrap().push(format!("{slot}: {text}"));
        if on_event(Event::Token { id: 1000 + answer.generated as u32, text }).is_break() {
            return Ok(Some(self.cancel(slot)));
        }
        let (generated, most) = (answer.generated, answer.request.max_tokens);
        Ok(match generated {
            _ if generated == script.stops_after => Some(self.end(slot, FinishReason::Stop)),
            _ if generated == most => Some(self.end(slot, FinishReason::Length)),
            _ => None,
        })
    }

    fn cancel(&mut self, slot: usize) -> Finish {
        self.script.cancelled.fetch_add(1, Ordering::SeqCst);
        self.end(slot, FinishReason::Cancelled)
    }
}

impl Scripted {
    fn end(&mut self, slot: usize, reason: FinishReason) -> Finish {
        let answer = self.slots[slot].take().expect("an answer is under way");
        Finish {
            reason,
            prompt_tokens: answer.request.prompt.len(),
            prompt_time: Duration::from_millis(3),
            generated: answer.generated,
            decode_time: Duration::from_millis(5),
        }
    }
}

struct ScriptLoader(Arc<Script>);

impl Loader for ScriptLoader {
    fn slots(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.0.slots.max(1)).unwrap()
    }

    fn load(&self, path: &Path, wish: &LoadWish) -> Result<Box<dyn Backend>, LoadFailure> {
        if std::fs::read(path)? == b"broken" {
            return Err("the file is broken".into());
        }
        self.0.loads.lock().unwrap().push(*wish);
        let (script, slots) = (self.0.clone(), vec![None; self.slots().get()]);
        Ok(Box::new(Scripted { script, threads: wish.threads.unwrap_or(THREADS), slots }))
    }

    fn inspect(&self, _: &Path) -> Result<ModelFacts, LoadFailure> {
        let metadata = serde_json::from_str(r#"{"general.architecture":"llama","llama.context_length":2048}"#)?;
        Ok(ModelFacts {
            architecture: "llama".to_owned(),
            parameters: 134_515_008,
            quantization: "Q4_1".to_owned(),
            context_train: 2048,
            template: Some("{{ messages }}".to_owned()),
            metadata,
        })
    }
}

/// A running server. Dropping it leaves the server to end with the test's runtime.
pub struct Server {
    pub addr: SocketAddr,
    pub url: String,
    pub script: Arc<Script>,
    pub client: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

/// Serves the script as `tiny:1b`, and a file that does not load as `broken`.
pub async fn start(script: Script) -> Server {
    start_with(script, |_| {}).await
}

pub async fn start_with(script: Script, change: impl FnOnce(&mut ServeOptions)) -> Server {
    // reqwest takes its cryptography from the program, even for http. All but the first of these calls fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let script = Arc::new(script);
    let dir = tempfile::tempdir().unwrap();
    let served = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        ServedModel { name: name.parse().unwrap(), path }
    };
    let mut options = ServeOptions {
        loader: Arc::new(ScriptLoader(script.clone())),
        models: vec![served("tiny:1b", "GGUF"), served("other", "GGUF"), served("broken", "broken")],
        keep_alive: KeepAlive::Forever,
        grace: Duration::from_secs(20),
        ..ServeOptions::new(LoadOptions::default())
    };
    change(&mut options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, told) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(options, listener, async move {
        let _ = told.await;
    }));
    Server {
        addr,
        url: format!("http://{addr}"),
        script,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        shutdown: Some(shutdown),
        served,
        _dir: dir,
    }
}

impl Server {
    pub async fn post(&self, path: &str, body: Value) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// The status and the JSON of an answer.
    pub async fn post_json(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.post(path, body).await;
        (response.status().as_u16(), json(response).await)
    }

    /// Tells the server to end.
    pub fn shut_down(&mut self) {
        self.shutdown.take().expect("told once").send(()).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(self) -> Result<(), ServeError> {
        self.served.await.unwrap()
    }

    /// Waits until something holds; a test that waits in vain fails by its runner's limit and says for what.
    pub async fn until(&self, what: &str, holds: impl Fn(&Script) -> bool) {
        for _ in 0..3_000 {
            if holds(&self.script) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} did not happen");
    }
}

pub async fn json(response: reqwest::Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

/// The objects of a stream with one on each line.
pub async fn lines(response: reqwest::Response) -> Vec<Value> {
    let text = response.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The objects of a stream of server-sent events, without the end mark, which must be there.
pub async fn events(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut events: Vec<&str> = text.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}
