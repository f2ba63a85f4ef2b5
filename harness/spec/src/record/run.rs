//! `run.json`: what was asked, on what, and what came of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::breakdown::{Breakdown, Check};
use super::environment::{BlockTelemetry, Environment, ToolFacts};
use super::metric::{Measure, MetricComparison, Provenance, Verdict};
use super::quality::Quality;
use super::sample::DropReason;
use crate::units::Nanos;

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Engine against a peer.
    Compare,
    /// One side alone.
    E2e,
}

/// The two sides of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SideRole {
    /// Our engine.
    Engine,
    /// What it is compared with.
    Peer,
}

/// One server that took part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SideFacts {
    /// Which side.
    pub role: SideRole,
    /// `edgellm`, `ollama`, `openai` or `baseline`.
    pub kind: String,
    /// Name for tables, such as `Ollama 0.20.7`.
    pub label: String,
    /// Where it listened.
    pub endpoint: String,
    /// Version it reports.
    pub version: Option<String>,
    /// Model name sent in requests.
    pub model: String,
    /// Threads it computes with, where known.
    pub threads: Option<u32>,
    /// Options sent or known, as text.
    pub options: BTreeMap<String, String>,
    /// Time to load the model, ms.
    pub load_ms: Measure,
    /// Peak resident memory, bytes, over all processes of the server.
    pub rss_peak_bytes: Measure,
    /// Bandwidth efficiency: bytes per token × decode tok/s ÷ measured stream read. Where reads surround the blocks, the median
    /// over requests of the share of these; else that of the ceiling.
    pub bandwidth_efficiency: Measure,
    /// Achieved weight and KV traffic in decode, GB/s.
    pub achieved_gb_per_s: Measure,
    /// What it used of a GPU; absent where it computes on the processor, or where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<SideGpu>,
}

/// What a side used of a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SideGpu {
    /// The device as the command line writes it, such as `cuda:0`.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Memory that the loaded model holds on it, by the server's own word, bytes.
    pub vram_bytes: Measure,
    /// Memory that our engine said beforehand that the model needs, the driver's share included, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_need_bytes: Option<Measure>,
    /// Energy of the whole board over the side's blocks ÷ tokens generated in them, J. Prompts and the idle device are in it.
    pub energy_j_per_token: Measure,
    /// The same without what the idle board draws over that time with the model loaded (M18), J.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_net_j_per_token: Option<Measure>,
    /// What the engine counted over the whole run, warm-up included; absent for a server that does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<DeviceCounters>,
}

/// What an engine did on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceCounters {
    /// Tokens that were sent to the client.
    pub generated: u64,
    /// Tokens that went through the graph of one token: those generated, and those of prompts too short for a batch.
    pub tokens: u64,
    /// Graphs launched.
    pub graph_launches: u64,
    /// Kernels launched outside graphs, for prompts.
    pub kernel_launches: u64,
    /// Times that the host waited in the driver.
    pub syncs: u64,
    /// Bytes sent to the device.
    pub h2d_bytes: u64,
    /// Bytes that came back.
    pub d2h_bytes: u64,
}

/// Tensors of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorGroup {
    /// How many.
    pub count: u64,
    /// Bytes as stored.
    pub bytes: u64,
}

/// The model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFacts {
    /// Name it was asked by.
    pub name: String,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Size of the file.
    pub file_bytes: u64,
    /// `general.architecture`.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// Tensors by type.
    pub tensors: BTreeMap<String, TensorGroup>,
    /// Weight bytes read for one decoded token, head included.
    pub weight_bytes_per_token: u64,
    /// KV bytes read for each cached position.
    pub kv_bytes_per_position: u64,
    /// Layers.
    pub layers: u32,
    /// Context length the servers ran with.
    pub context: u32,
}

/// One prompt of the suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromptFacts {
    /// Short id.
    pub id: String,
    /// The text of the user's turn.
    pub text: String,
    /// SHA-256 of the text.
    pub sha256: String,
    /// Token ids of the text by the model's tokenizer, without template and nonce.
    pub token_ids: Vec<u32>,
    /// Tokens that the whole prompt has, of one that only fills the context to a depth; `text` is then its beginning and
    /// `token_ids` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u64>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuiteFacts {
    /// Name.
    pub name: String,
    /// Prompts.
    pub prompts: Vec<PromptFacts>,
    /// Generated lengths asked for.
    pub lengths: Vec<u64>,
}

/// How it was run; fixed before the first sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Runs a side.
    pub runs: u64,
    /// Runs in a block, at most.
    pub block_len: u64,
    /// The order of blocks, such as `ABBA`, `A` being the engine.
    pub order: String,
    /// Discarded runs a side before the first block.
    pub warmup: u64,
    /// Seed of the nonces, the first side and the bootstrap.
    pub seed: u64,
    /// Threads given to our engine.
    pub threads: u32,
    /// What our engine was told to compute on: `cpu` or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// The type that our engine keeps keys and values in.
    #[serde(default = "f16")]
    pub kv: String,
}

/// What every run before the field kept keys and values in.
fn f16() -> String {
    "f16".to_owned()
}

/// What every run before the field computed on.
fn cpu() -> String {
    "cpu".to_owned()
}

/// Whether one field of the parity manifest agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManifestStatus {
    /// Both sides are the same.
    Equal,
    /// They differ: no verdict.
    Mismatch,
    /// Not to be known from outside: no verdict unless it was allowed.
    Unknown,
    /// Recorded only; a difference of it does not forbid a verdict.
    Info,
}

/// One field of the parity manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestField {
    /// Name, `weights digest` first.
    pub name: String,
    /// Our side.
    pub engine: Option<String>,
    /// The peer.
    pub peer: Option<String>,
    /// How they compare.
    pub status: ManifestStatus,
    /// How the peer's value is known, or why it is not.
    pub how: String,
}

/// The stream-read ceiling of this machine, measured in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ceiling {
    /// Best sustained read rate, GB/s.
    pub read_gb_per_s: f64,
    /// Bytes read in one pass: the model's working set.
    pub working_set_bytes: u64,
    /// Threads that read; 0 where a GPU did.
    pub threads: u32,
    /// The GPU that read; absent for the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Each pass, GB/s. Of a GPU the best before and after.
    pub passes_gb_per_s: Vec<f64>,
    /// Before or after the runs, or both.
    pub when: String,
    /// What was read around each block of requests: a host's memory is faster in one minute than in the next. Empty for a
    /// GPU, and in records from before 2026-11-22.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub around: Vec<ReadAround>,
}

/// The stream read before a block of requests and the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadAround {
    /// The block.
    pub block: u64,
    /// Median pass right before it, GB/s.
    pub before_gb_per_s: f64,
    /// Median pass right after it, GB/s.
    pub after_gb_per_s: f64,
}

/// What a server says of its own speed: shown apart, never mixed with client times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerReported {
    /// Which side.
    pub side: SideRole,
    /// Median decode rate by the server's durations, tok/s.
    pub decode_tok_per_s: Measure,
    /// Median prefill rate by the server's durations, tok/s.
    pub prefill_tok_per_s: Measure,
}

/// What was kept and what was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hygiene {
    /// Pairs planned.
    pub pairs_planned: u64,
    /// Pairs in the statistics.
    pub pairs_kept: u64,
    /// Failed requests, both sides.
    pub failed_requests: u64,
    /// Dropped runs by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Whether the run was cut short by Ctrl-C or a lost peer.
    pub interrupted: bool,
}

impl Hygiene {
    /// Counts one more dropped run.
    pub fn count(&mut self, reason: DropReason) {
        let key = serde_json::to_value(reason).ok().and_then(|v| v.as_str().map(str::to_owned));
        *self.dropped.entry(key.unwrap_or_default()).or_default() += 1;
    }
}

/// The one line that a reader takes away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Headline {
    /// The sentence.
    pub text: String,
    /// Verdict on decode tok/s over all runs; `null` in a one-sided run.
    pub verdict: Option<Verdict>,
    /// Why no verdict is given.
    pub blocked: Option<String>,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema: u32,
    /// What it is a record of.
    pub kind: RunKind,
    /// `measured`, or `simulated` for a run against scripted peers, which no report accepts outside tests.
    pub provenance: Provenance,
    /// Id of the run, also in its folder's name.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Wall time.
    pub wall_ns: Nanos,
    /// The command line.
    pub command: Vec<String>,
    /// The program.
    pub tool: ToolFacts,
    /// The machine.
    pub environment: Environment,
    /// The model.
    pub model: ModelFacts,
    /// What was run.
    pub suite: SuiteFacts,
    /// How it was run.
    pub plan: Plan,
    /// Both servers, the engine first.
    pub sides: Vec<SideFacts>,
    /// Parity manifest; empty in a one-sided run.
    pub manifest: Vec<ManifestField>,
    /// Stream-read ceiling; `null` if it was not measured.
    pub ceiling: Option<Ceiling>,
    /// Metrics, over all runs first.
    pub metrics: Vec<MetricComparison>,
    /// Server-side figures.
    pub server_reported: Vec<ServerReported>,
    /// What was kept.
    pub hygiene: Hygiene,
    /// Telemetry before each block.
    pub telemetry: Vec<BlockTelemetry>,
    /// The steps of a token, one entry a depth, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakdowns: Vec<Breakdown>,
    /// What must hold of this run beside its metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Whether what was timed computes the model; absent where it was not judged, as in every run before the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// What it came to.
    pub headline: Headline,
    /// Anything a reader must know, such as which peer stood in.
    pub notes: Vec<String>,
}
