//! The parameters that both completion endpoints take.

use serde::Deserialize;
use serde_json::Value;

use crate::generate::SamplingParams;
use crate::server::api_error::ApiError;
use crate::server::job::Settings;
use crate::server::stops::Stops;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    #[serde(default)]
    pub model: String,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stops>,
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u32>,
    best_of: Option<u32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    logprobs: Value,
    #[serde(default)]
    response_format: Value,
    // Beyond OpenAI's own, as other servers have them.
    top_k: Option<i64>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    #[serde(default)]
    ignore_eos: bool,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Params {
    pub fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// How the answer is to be generated. What would change the answer and is not implemented is refused.
    pub fn settings(&self) -> Result<Settings, ApiError> {
        let is_set = |value: Option<f32>| value.is_some_and(|value| value != 0.0);
        let refused = [
            ("n", "more than one answer", self.n.is_some_and(|n| n != 1)),
            ("best_of", "more than one answer", self.best_of.is_some_and(|n| n != 1)),
            ("presence_penalty", "this way of sampling", is_set(self.presence_penalty)),
            ("frequency_penalty", "this way of sampling", is_set(self.frequency_penalty)),
            ("logit_bias", "this way of sampling", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
            ("logprobs", "listing probabilities", !matches!(self.logprobs, Value::Null | Value::Bool(false))),
            ("response_format", "an answer in JSON or after a schema", !self.wants_text()),
        ];
        if let Some((param, what, _)) = refused.into_iter().find(|(_, _, is_refused)| *is_refused) {
            return Err(ApiError::Unsupported { param, what });
        }
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::field("max_tokens", "max_tokens is 0, and must be at least 1"));
        }
        Ok(Settings {
            max_tokens,
            context: None,
            sampling: SamplingParams {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k.map_or(0, |k| usize::try_from(k).unwrap_or(0)),
                top_p: self.top_p.unwrap_or(1.0),
                min_p: self.min_p.unwrap_or(0.0),
                repeat_penalty: self.repeat_penalty.or(self.repetition_penalty).unwrap_or(1.0),
                repeat_last_n: 64,
                seed: self.seed.and_then(|seed| u64::try_from(seed).ok()),
            },
            stop: self.stop.clone().map(Vec::from).unwrap_or_default(),
            ignore_eos: self.ignore_eos,
        })
    }

    fn wants_text(&self) -> bool {
        self.response_format.is_null() || self.response_format["type"] == "text"
    }
}
