//! Whether what was timed computes the model (SPEC.md H18): a wrong kernel is fast for nothing.
//!
//! What is right is said by the engine's exact path: 32-bit activations and plain kernels, on the weights as they
//! lie. How far a token lies under the path's choice is a share of the distance between the greatest logit and the
//! mean of all, so that it means the same for a model of any scale. 0 is the choice itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run::SideRole;

/// The quality of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quality {
    /// What was taken for right.
    pub reference: String,
    /// What was asked for.
    pub bounds: QualityBounds,
    /// Our fast path, which was timed, on a fixed text.
    pub text: TextQuality,
    /// Greedy answers of the run, of each side.
    pub answers: Vec<AnswerQuality>,
    /// How far the answers of both sides to a prompt go together.
    pub agreements: Vec<AnswerAgreement>,
    /// Whether all of it is within bounds, `null` where there is too little to judge. Without `true` there is no
    /// verdict.
    pub passed: Option<bool>,
}

/// What the quality of a run must stay within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QualityBounds {
    /// Largest mean KL divergence, nats.
    pub mean_kl: f64,
    /// Largest change of the perplexity, as a share of the reference's.
    pub perplexity: f64,
    /// Largest share by which a token of an answer may lie under the reference's choice: two tokens nearer than this
    /// are level.
    pub level: f64,
    /// Fewest tokens of a side's answers.
    pub least_tokens: u64,
}

/// A path of the engine on a fixed text, fed token by token, against the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TextQuality {
    /// Tokens of the text that were predicted.
    pub tokens: u64,
    /// Perplexity.
    pub perplexity: f64,
    /// That of the reference.
    pub reference_perplexity: f64,
    /// Mean KL divergence from the reference over the whole vocabulary, nats.
    pub mean_kl: f64,
    /// Share of tokens at which both have the same most likely one, 0 to 1.
    pub top1_agreement: f64,
}

/// One greedy answer, its tokens fed to the reference as they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerQuality {
    /// The pair of runs.
    pub pair: u64,
    /// Id of the prompt.
    pub prompt: String,
    /// Whose answer it is.
    pub side: SideRole,
    /// Tokens that were judged: up to where the model may have ended, or the text is no text.
    pub tokens: u64,
    /// Of these, how many are not the reference's choice.
    pub others: u64,
    /// Of these, how many lie under its choice by more than the bound.
    pub beyond: u64,
    /// The largest share by which a token lies under it.
    pub farthest: f64,
}

/// The answers of both sides to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerAgreement {
    /// The pair of runs.
    pub pair: u64,
    /// Id of the prompt.
    pub prompt: String,
    /// Tokens that both begin with.
    pub same: u64,
    /// Judged tokens of the longer one.
    pub tokens: u64,
    /// How far apart the reference has the two tokens at which they part; absent where they do not.
    pub apart: Option<f64>,
}
