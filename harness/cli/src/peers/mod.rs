//! Servers that generate tokens over HTTP. One client and one clock for both sides of a comparison.

pub mod embedded;
pub mod error;
pub mod ollama;
pub mod openai;
pub mod prepare;
pub mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::generate::DeviceChoice;
use harness_spec::record::{Measure, SideRole};
use reqwest::Url;
use tokio_util::sync::CancellationToken;

pub use error::PeerError;
pub use stream::{Clock, Reply, Waiting};

use crate::manifest::{Field, Known, Shape};
use embedded::EngineChild;
use ollama::{Loaded, OllamaClient};
use openai::OpenAiClient;

/// One request, the same for both sides of a pair.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Raw prompt.
    pub prompt: &'a str,
    /// Tokens to ask for.
    pub length: u64,
    /// Sampler seed. At temperature 0 nothing is drawn; it is sent because no side may run on defaults.
    pub seed: u64,
    /// Context length.
    pub context: u32,
    /// Threads.
    pub threads: u32,
    /// Go on past end tokens: only where every side of the run can.
    pub ignore_eos: bool,
}

/// The sampler of every request, in words: the manifest's field. Greedy, with the shortest chain of samplers that a server
/// can be asked for.
pub const SAMPLER: &str = "temperature 0, top_k 1, top_p 1, min_p 0, repeat_penalty 1, seed of the run";

/// When a request ends, in words. The rule is one for both sides: end tokens are ignored where each of them can, which
/// Ollama cannot; else each stops where its model stops, and unequal lengths drop the pair.
pub const fn stop_rule(ignore_eos: bool) -> &'static str {
    if ignore_eos {
        "asked length; end tokens ignored, no stop strings"
    } else {
        "asked length or end token; no stop strings"
    }
}

/// Whether a run ignores end tokens: only if each of its sides can.
pub fn ignores_eos(sides: &[Side]) -> bool {
    sides.iter().all(|s| s.can_ignore_eos)
}

/// Writes the stop rule, which depends on both sides, into each of them.
pub fn agree_on_stop_rule(sides: &mut [Side]) {
    let rule = stop_rule(ignores_eos(sides));
    for side in sides {
        side.options.insert("stop".to_owned(), rule.to_owned());
        side.shape.insert(Field::StopRule, Known::is(rule, "sent in every request"));
    }
}

/// Either API.
#[derive(Clone, Debug)]
pub enum Client {
    /// Ollama's: NDJSON.
    Ollama(OllamaClient),
    /// OpenAI's: server-sent events.
    OpenAi(OpenAiClient),
}

impl Client {
    /// Sends one request and times every token. Never retries.
    pub async fn generate(
        &self,
        model: &str,
        request: &Request<'_>,
        clock: &Clock,
        cancel: &CancellationToken,
    ) -> Reply {
        match self {
            Client::Ollama(c) => c.generate(model, request, clock, cancel).await,
            Client::OpenAi(c) => c.generate(model, request, clock, cancel).await,
        }
    }

    /// What the server says of the model that it has loaded; `None` where it says nothing, or cannot be asked.
    pub async fn loaded(&self, model: &str) -> Option<Loaded> {
        match self {
            Client::Ollama(c) => c.loaded(model).await.ok().flatten(),
            Client::OpenAi(_) => None,
        }
    }

    /// Whether the server still answers at all.
    pub async fn alive(&self) -> bool {
        match self {
            Client::Ollama(c) => c.version().await.is_ok(),
            Client::OpenAi(c) => c.models().await.is_ok(),
        }
    }
}

/// One side, ready to be measured.
#[derive(Debug)]
pub struct Side {
    /// Which.
    pub role: SideRole,
    /// `edgellm`, `ollama`, `openai` or `baseline`.
    pub kind: &'static str,
    /// For tables.
    pub label: String,
    /// Where it listens.
    pub endpoint: Url,
    /// Version it reports.
    pub version: Option<String>,
    /// Model name in requests.
    pub model: String,
    /// How to talk to it.
    pub client: Client,
    /// Threads it computes with.
    pub threads: Option<u32>,
    /// Whether it can be told to go on past end tokens.
    pub can_ignore_eos: bool,
    /// Options, as text.
    pub options: BTreeMap<String, String>,
    /// Load time.
    pub load_ms: Measure,
    /// Root of its processes, where it runs on this machine and may be seen.
    pub pid: Option<u32>,
    /// What is known of it for the parity manifest.
    pub shape: Shape,
    /// The device that our engine computes on; absent for a server that is not ours.
    pub device: Option<DeviceChoice>,
    /// The child process, where it is ours; it ends with this value.
    pub child: Option<EngineChild>,
}

/// The one HTTP client. Connections are kept, as every client of a server keeps them.
///
/// # Errors
/// Where the system has no usable TLS roots.
pub fn http() -> anyhow::Result<reqwest::Client> {
    // A second installation in one process, as in tests, finds the first and keeps it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("bench/", env!("CARGO_PKG_VERSION")))
        .build()?)
}
