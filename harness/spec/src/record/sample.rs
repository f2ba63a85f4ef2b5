//! One run of one side: the raw data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run::SideRole;
use crate::units::Nanos;

/// Why a run, and with it its pair, is kept out of the statistics. It stays in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Warm-up, declared before the run.
    Warmup,
    /// The two sides produced different numbers of tokens.
    UnequalTokens,
    /// The two sides counted different numbers of prompt tokens.
    UnequalPromptTokens,
    /// The server answered part of the prompt from a cache.
    CachedPrompt,
    /// The server reports another number of tokens than the stream carried.
    WrongCount,
    /// The SM or core clock lay under the limit.
    Throttled,
    /// The other run of the pair failed or was dropped.
    PartnerLost,
    /// The request failed; see the status.
    Failed,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum SampleStatus {
    /// Complete, stopped by length as asked.
    Length,
    /// Complete, stopped by an end token before the asked length.
    Stop,
    /// Failed, with what went wrong.
    Failed {
        /// One line.
        error: String,
    },
    /// Cut by Ctrl-C.
    Interrupted,
}

/// What the server says of itself. Never mixed with client times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerTimings {
    /// Prompt tokens the server processed.
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens it took from a cache.
    pub cached_tokens: Option<u64>,
    /// Time on the prompt.
    pub prompt_ns: Option<Nanos>,
    /// Tokens generated.
    pub eval_tokens: Option<u64>,
    /// Time on generation.
    pub eval_ns: Option<Nanos>,
    /// Load time.
    pub load_ns: Option<Nanos>,
}

/// One complete request as the client saw it: a line of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Running number in the file, from 0.
    pub seq: u64,
    /// The pair it belongs to; both sides carry the same number.
    pub pair: u64,
    /// The block of consecutive runs of one side.
    pub block: u64,
    /// Which side.
    pub side: SideRole,
    /// Id of the prompt in the suite.
    pub prompt: String,
    /// Tokens asked for.
    pub asked_tokens: u64,
    /// Fresh text put at the start of the first user turn, the same for both sides of a pair.
    pub nonce: String,
    /// Request sent, ns since the start of the run, before tokenisation.
    pub submit_ns: Nanos,
    /// Arrival of each token, ns since the start of the run; one entry a token.
    pub token_ns: Vec<Nanos>,
    /// Whether each chunk carried exactly one token. Otherwise ITL is not defined for this run.
    pub one_token_per_chunk: bool,
    /// End of the response, ns since the start of the run.
    pub end_ns: Nanos,
    /// Prompt tokens by our tokenizer, as sent.
    pub prompt_tokens: u64,
    /// Generated tokens: the server's count where it gives one, else the chunks.
    pub generated_tokens: u64,
    /// The generated text.
    pub text: String,
    /// How it ended.
    #[serde(flatten)]
    pub status: SampleStatus,
    /// Server-side figures, if the peer gives them.
    pub server: Option<ServerTimings>,
    /// Why it is not in the statistics; `null` if it is.
    pub dropped: Option<DropReason>,
    /// Resident memory of the server process after the run, bytes, where readable.
    pub rss_bytes: Option<u64>,
}
