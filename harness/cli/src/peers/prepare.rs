//! Makes a server ready to be measured: the same weights, loaded, and everything known that parity needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use engine::generate::{DeviceChoice, KvType};
use harness_spec::record::{Measure, SideRole};
use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::embedded::{EngineChild, EngineSpec, Kernels};
use super::ollama::{OllamaClient, blob_digest};
use super::openai::OpenAiClient;
use super::stream::{End, Waiting};
use super::{Client, Clock, PeerError, Request, SAMPLER, Side};
use crate::machine::gpu::Gpu;
use crate::machine::process::{self, Seen};
use crate::manifest::known::{self, Asked, OllamaFound, OpenAiFound};
use crate::model::{Model, Rendered};
use crate::suite::Suite;

/// The nonce of prompts that are only tokenised or counted.
const PROBE_NONCE: &str = "00000000";

/// What every side is made ready for.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// The suite.
    pub suite: &'a Suite,
    /// Context length.
    pub context: u32,
    /// What our engine computes on.
    pub device: DeviceChoice,
    /// The type that our engine keeps keys and values in.
    pub kv: KvType,
    /// Threads.
    pub threads: u32,
    /// Silence after which a request has failed.
    pub timeout: Duration,
    /// Folder for logs.
    pub out: &'a Path,
}

impl Setting<'_> {
    /// The name that servers know the model by: derived from the digest, so that it can mean no other file.
    pub fn served_name(&self) -> String {
        format!("edgellm-{}", &self.model.facts().sha256[..12])
    }

    /// Every prompt of the suite, rendered with the probe's nonce.
    fn probes(&self) -> anyhow::Result<Vec<Rendered>> {
        self.suite.prompts.iter().map(|p| self.model.render(&p.text, PROBE_NONCE)).collect()
    }

    /// How the client waits for the tokens of every side.
    fn waiting(&self) -> Waiting {
        Waiting::beside(self.device)
    }

    fn options(&self) -> BTreeMap<String, String> {
        [
            ("sampler", SAMPLER.to_owned()),
            ("num_ctx", self.context.to_string()),
            ("num_thread", self.threads.to_string()),
            ("raw", "true".to_owned()),
            ("client", self.waiting().to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }
}

/// A hash over the token ids of prompts: one word of the manifest instead of hundreds of numbers.
fn hash_ids<'a>(prompts: impl Iterator<Item = &'a [u32]>) -> String {
    let mut hash = Sha256::new();
    let mut count = 0;
    for ids in prompts {
        count += ids.len();
        hash.update((ids.len() as u64).to_le_bytes());
        for id in ids {
            hash.update(id.to_le_bytes());
        }
    }
    let hex: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("{count} ids, sha256 {hex}…")
}

/// Our engine as a child process: the engine's side, or the embedded peer on plain kernels.
///
/// # Errors
/// The child does not start or does not load the model.
pub async fn engine(s: &Setting<'_>, role: SideRole, kernels: Kernels) -> anyhow::Result<Side> {
    let baseline = kernels == Kernels::Plain;
    let file = s.model.path().ok_or_else(|| anyhow!("a model without a file cannot be served"))?;
    let name = s.served_name();
    let log = s.out.join(match role {
        SideRole::Engine => "engine.log",
        SideRole::Peer => "peer.log",
    });
    let spec = EngineSpec {
        model: file,
        name: &name,
        device: s.device,
        threads: s.threads,
        context: s.context,
        kv: s.kv,
        kernels,
        log,
    };
    let child = EngineChild::start(&spec).await?;
    let client = OllamaClient::new(child.url.clone(), s.timeout)?.waiting(s.waiting());
    let begun = Instant::now();
    let reported =
        client.load(&name, s.context, s.threads).await.context("loading the model in the engine's server")?;
    let state = client.loaded(&name).await.context("asking the engine's server what it computes on")?;
    let state = state.and_then(|l| l.engine).ok_or_else(|| anyhow!("the engine's server does not name its device"))?;
    // It is a program of its own, started by us: what it measures must be what we were asked for.
    if state.device != s.device.to_string() {
        return Err(anyhow!("the engine computes on {} and was told to use {}", state.device, s.device));
    }
    if state.kv_type != s.kv.name() {
        return Err(anyhow!("the engine keeps keys and values as {} and was told to use {}", state.kv_type, s.kv));
    }
    let load = child.start_time + reported.map_or(begun.elapsed(), |ns| Duration::from_nanos(ns.0));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let ids = hash_ids(s.probes()?.iter().map(|p| p.ids.as_slice()));
    let asked = Asked { model: s.model, context: s.context, threads: s.threads, prompt_ids: &ids };
    let label = if baseline { "edgellm baseline (plain kernels)" } else { "edgellm" };
    let mut options = s.options();
    options.insert("device".to_owned(), state.device.clone());
    options.insert("kv".to_owned(), state.kv_type.clone());
    options.insert("table".to_owned(), format!("sha256 {}…", state.table_hash.get(..12).unwrap_or_default()));
    Ok(Side {
        role,
        kind: if baseline { "baseline" } else { "edgellm" },
        label: match s.device {
            DeviceChoice::Cuda(_) => format!("{label} {version} on {}", s.device),
            DeviceChoice::Cpu | DeviceChoice::Auto => format!("{label} {version}"),
        },
        endpoint: child.url.clone(),
        shape: known::engine(&asked, &version, baseline, &state),
        version: Some(version),
        model: name,
        client: Client::Ollama(client),
        threads: Some(s.threads),
        can_ignore_eos: true,
        options,
        load_ms: Measure::measured(load.as_secs_f64() * 1e3),
        pid: Some(child.pid),
        device: Some(s.device),
        child: Some(child),
    })
}

/// An Ollama that answers: finds our weights on it or uploads them, loads them, and asks what it is.
///
/// # Errors
/// [`PeerError`] of any step.
pub async fn ollama(s: &Setting<'_>, role: SideRole, url: &Url) -> anyhow::Result<Side> {
    let client = OllamaClient::new(url.clone(), s.timeout)?.waiting(s.waiting());
    let version = client.version().await.map_err(|e| not_there(url, e))?;
    let name = same_weights(&client, s).await?;
    let begun = Instant::now();
    let reported =
        client.load(&name, s.context, s.threads).await.with_context(|| format!("loading {name} in Ollama"))?;
    let load_ms = reported.map_or(begun.elapsed().as_secs_f64() * 1e3, |ns| ns.millis());
    let digest = blob_digest(&client.show(&name).await?);
    let probes = s.probes()?;
    let side_client = Client::Ollama(client.clone());
    let same_counts = count_prompts(&side_client, &name, s, &probes).await?;
    let pid = local_pid(url);
    let ids = hash_ids(probes.iter().map(|p| p.ids.as_slice()));
    let asked = Asked { model: s.model, context: s.context, threads: s.threads, prompt_ids: &ids };
    let found = OllamaFound { url, version: &version, digest, loaded: client.loaded(&name).await?, pid, same_counts };
    Ok(Side {
        role,
        kind: "ollama",
        label: format!("Ollama {version}"),
        endpoint: url.clone(),
        shape: known::ollama(&asked, &found),
        version: Some(version),
        model: name,
        client: side_client,
        threads: Some(s.threads),
        // Ollama has no such option: it would take ours for an unknown one and stop all the same.
        can_ignore_eos: false,
        options: s.options(),
        load_ms: Measure::measured(load_ms),
        pid,
        device: None,
        child: None,
    })
}

/// Whether an Ollama answers at an address.
///
/// # Errors
/// That none does, and what to do.
pub async fn ollama_answers(url: &Url, timeout: Duration) -> anyhow::Result<()> {
    OllamaClient::new(url.clone(), timeout)?.version().await.map(drop).map_err(|e| not_there(url, e))
}

/// Whether a server with OpenAI's API answers at an address.
///
/// # Errors
/// That none does, and what to do.
pub async fn openai_answers(url: &Url, timeout: Duration) -> anyhow::Result<()> {
    let models = OpenAiClient::new(url.clone(), timeout)?.models().await;
    models.map(drop).with_context(|| format!("no server with OpenAI's API at {url}"))
}

fn not_there(url: &Url, e: PeerError) -> anyhow::Error {
    let said = match e {
        PeerError::Unreachable { reason, .. } => reason,
        // Whoever answers there is something else.
        other => other.to_string(),
    };
    anyhow!(
        "no Ollama at {url}: {said}\nhint: start it with `ollama serve`, give its address as ollama=URL, or use the embedded \
         baseline"
    )
}

/// The name under which the server has our file: one of its own models, or ours after an upload.
async fn same_weights(client: &OllamaClient, s: &Setting<'_>) -> anyhow::Result<String> {
    let sha256 = &s.model.facts().sha256;
    let ours = s.served_name();
    // Our own name is looked at first: after the first run it is there.
    let mut names = client.tags().await?;
    names.sort_by_key(|n| !n.starts_with(&ours));
    for name in names {
        // A model that cannot be shown is not ours.
        if let Ok(shown) = client.show(&name).await
            && blob_digest(&shown).as_deref() == Some(sha256.as_str())
        {
            return Ok(name);
        }
    }
    let file = s.model.path().ok_or_else(|| anyhow!("a model without a file cannot be uploaded"))?;
    eprintln!("the peer lacks these weights: uploading {} as {ours}", file.display());
    if !client.has_blob(sha256).await? {
        client.upload(sha256, file).await.context("uploading the model to Ollama")?;
    }
    client.create(&ours, sha256).await.with_context(|| format!("creating {ours} in Ollama"))?;
    Ok(ours)
}

/// Whether the server counts the tokens of every prompt as we do; `None` where it reports no count.
async fn count_prompts(
    client: &Client,
    model: &str,
    s: &Setting<'_>,
    probes: &[Rendered],
) -> Result<Option<bool>, PeerError> {
    let (clock, never) = (Clock::start(), CancellationToken::new());
    let mut same = true;
    for probe in probes {
        let request = Request {
            prompt: &probe.text,
            length: 1,
            seed: 0,
            context: s.context,
            threads: s.threads,
            ignore_eos: false,
        };
        let reply = client.generate(model, &request, &clock, &never).await;
        if let End::Failed(e) = reply.end {
            return Err(e);
        }
        match reply.server.and_then(|t| t.prompt_tokens) {
            Some(n) => same &= n == probe.ids.len() as u64,
            None => return Ok(None),
        }
    }
    Ok(Some(same))
}

/// A server with OpenAI's API.
///
/// # Errors
/// [`PeerError`] of any step.
pub async fn openai(s: &Setting<'_>, role: SideRole, url: &Url) -> anyhow::Result<Side> {
    let client = OpenAiClient::new(url.clone(), s.timeout)?.waiting(s.waiting());
    let names = client.models().await.with_context(|| format!("asking {url} for its models"))?;
    let ours = s.served_name();
    let name = names.iter().find(|n| **n == ours || **n == s.model.facts().name).or(names.first()).cloned();
    let name = name.ok_or_else(|| anyhow!("{url} serves no model\nhint: start it with the model to compare"))?;
    let props = client.props().await;
    let probes = s.probes()?;
    let mut their_ids = Some(Vec::new());
    for probe in &probes {
        let ids = client.tokenize(&probe.text).await;
        their_ids = their_ids.zip(ids).map(|(mut all, ids)| {
            all.push(ids);
            all
        });
    }
    let side_client = Client::OpenAi(client.clone());
    // One short request also shows that the server really generates before anything is timed.
    count_prompts(&side_client, &name, s, &probes[..1]).await?;
    let pid = local_pid(url);
    let file = props.as_ref().and_then(|p| p["model_path"].as_str()).map(std::path::PathBuf::from);
    let digest = match file.filter(|f| process::is_loopback(url) && f.is_file()) {
        Some(f) if s.model.path().is_some_and(|ours| same_file(ours, &f)) => Some(s.model.facts().sha256.clone()),
        Some(f) => engine::models::sha256_file(&f, &mut engine::models::Silent).ok().map(|d| d.as_str().to_owned()),
        None => None,
    };
    let is_llama_server = props.is_some();
    let label = match &props {
        Some(p) => format!("llama-server {}", p["build_info"].as_str().unwrap_or("of unknown build")),
        None => format!("OpenAI API at {url}"),
    };
    let ids = hash_ids(probes.iter().map(|p| p.ids.as_slice()));
    let asked = Asked { model: s.model, context: s.context, threads: s.threads, prompt_ids: &ids };
    let found = OpenAiFound {
        url,
        slots: client.slots().await,
        digest,
        prompt_ids: their_ids.map(|all| hash_ids(all.iter().map(Vec::as_slice))),
        process: pid.map(|pid| seen(pid, s.device)),
        props,
    };
    let shape = known::openai(&asked, &found);
    let value = |field| shape.get(&field).and_then(|k: &crate::manifest::Known| k.value.clone());
    Ok(Side {
        role,
        kind: "openai",
        label,
        endpoint: url.clone(),
        version: value(crate::manifest::Field::Version),
        model: name,
        client: side_client,
        threads: value(crate::manifest::Field::Threads).and_then(|t| t.parse().ok()),
        // llama-server can; of another server it is not known.
        can_ignore_eos: is_llama_server,
        options: [
            ("sampler", SAMPLER.to_owned()),
            ("cache_prompt", "false".to_owned()),
            ("client", s.waiting().to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into(),
        load_ms: Measure::missing("the server loaded its model before it was reached"),
        pid,
        device: None,
        child: None,
        shape,
    })
}

/// What a server's process shows, with what it holds of the GPU of the run.
fn seen(pid: u32, device: DeviceChoice) -> Seen {
    let gpu = match device {
        DeviceChoice::Cuda(ordinal) => Gpu::open(ordinal).ok(),
        DeviceChoice::Cpu | DeviceChoice::Auto => None,
    };
    Seen::of(pid, |pids| gpu.as_ref()?.memory_of(pids))
}

/// The process behind an address of this machine.
fn local_pid(url: &Url) -> Option<u32> {
    process::is_loopback(url).then(|| url.port_or_known_default().and_then(process::listener)).flatten()
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
