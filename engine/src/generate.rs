//! What a caller asks of the engine and what it hears back: options, requests, events, errors.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use kernels::cpu::Precision;
use kernels::cuda::CudaError;
use variants::Isa;

pub use crate::device::DeviceChoice;
pub use crate::kv_type::KvType;

/// Which row of the dispatch table the kernels are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableChoice {
    /// The row of this device's table, and the default kernel where there is none.
    #[default]
    Device,
    /// The default kernel of each operation, whatever tables there are.
    Default,
    /// The rows of a file. The path lives as long as the program, as its command line does.
    File(&'static Path),
    /// The plain kernel of each operation: what the embedded peer runs.
    Baseline,
}

/// How a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// What the model computes on.
    pub device: DeviceChoice,
    /// Worker threads; `None` takes one for each core.
    pub threads: Option<usize>,
    /// The instruction set to use; `None` takes the best that this machine has. One that the machine lacks is
    /// an error and never a silent fallback.
    pub isa: Option<Isa>,
    /// Which kernels the operations run on.
    pub table: TableChoice,
    /// Whether activations stay in float32 or may be quantised to eight bits.
    pub precision: Precision,
    /// How keys and values are stored; `None` takes f32 where nothing else is rounded either (exact precision on the
    /// processor), and f16 elsewhere. A type that the device has no kernels for is an error.
    pub kv: Option<KvType>,
    /// Positions of the KV cache; `None` takes the smaller of the model's own context and [`DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    /// How many answers can be under way side by side. Each has a KV cache of that many positions.
    pub slots: NonZeroUsize,
}

/// The context a model is loaded with when none is asked for. Long-context models would otherwise reserve
/// gigabytes of KV cache that most requests never touch.
pub const DEFAULT_CONTEXT: usize = 8192;

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: DeviceChoice::Cpu,
            threads: None,
            isa: None,
            table: TableChoice::Device,
            precision: Precision::Fast,
            kv: None,
            context: None,
            slots: NonZeroUsize::MIN,
        }
    }
}

/// How the next token is chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits. 0 is greedy: the largest logit, and of equal ones the lowest id.
    pub temperature: f32,
    /// Keeps exactly this many of the most likely tokens, ties going to the lower id; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest prefix, in order of probability, whose sum reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this fraction of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens count as recent, prompt included.
    pub repeat_last_n: usize,
    /// Makes sampling reproducible; `None` takes a seed from the system.
    pub seed: Option<u64>,
}

impl SamplingParams {
    /// Greedy decoding without any penalty.
    pub fn greedy() -> SamplingParams {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: None,
        }
    }

    /// Whether every parameter is a number in its range.
    ///
    /// # Errors
    /// [`SamplingError`] names the parameter, its value and the range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let out_of = |name, value: f32, range| Err(SamplingError { name, value, range });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return out_of("temperature", self.temperature, "0 or more");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return out_of("top_p", self.top_p, "0 to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return out_of("min_p", self.min_p, "0 to 1");
        }
        if !(self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0) {
            return out_of("repeat_penalty", self.repeat_penalty, "above 0");
        }
        Ok(())
    }
}

impl Default for SamplingParams {
    /// Temperature 0.7, top-k 40, top-p 0.9 and a penalty of 1.1 over the last 64 tokens.
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            repeat_penalty: 1.1,
            repeat_last_n: 64,
            seed: None,
        }
    }
}

/// A sampling parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, and must be {range}")]
pub struct SamplingError {
    /// The parameter.
    pub name: &'static str,
    /// The value given.
    pub value: f32,
    /// The values accepted, in words.
    pub range: &'static str,
}

/// One request: the prompt as token ids, and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// Token ids, special tokens included. The engine adds none.
    pub prompt: Vec<u32>,
    /// The most tokens to generate. Generation also ends where the context is full.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Generation ends before the first of these strings to appear; none of it is emitted.
    pub stop: Vec<String>,
    /// Goes on past end tokens, to a given length. Stop strings still hold.
    pub ignore_eos: bool,
}

/// What happens during a request, in order: one `Prefilled`, a `Token` for every generated token, one `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The prompt is in the cache and the first token can be chosen.
    Prefilled {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// How many of them were in the cache already.
        cached_tokens: usize,
        /// Time from the start of the request.
        elapsed: Duration,
    },
    /// One generated token.
    Token {
        /// The token.
        id: u32,
        /// The text that became certain with this token: whole characters only. Empty while a character is
        /// incomplete or a stop string may be forming.
        text: &'a str,
    },
    /// The request is over.
    Finished(Finish),
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The token limit or the end of the context.
    Length,
    /// The caller broke off.
    Cancelled,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why generation ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Time to process the prompt, the choice of the first token excluded. As below, what answers beside this one took
    /// meanwhile is in it.
    pub prompt_time: Duration,
    /// Tokens generated, the end token included.
    pub generated: usize,
    /// Time from the end of the prompt to the last token.
    pub decode_time: Duration,
}

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// There is nothing to continue.
    #[error("the prompt has no tokens\nhint: give some text")]
    EmptyPrompt,
    /// The prompt leaves no room for one generated token.
    #[error(
        "the prompt has {tokens} tokens and the context holds {context}, of which one is for the answer\n\
         hint: shorten the prompt, or load the model with a larger context (--context, num_ctx)"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the context.
        context: usize,
    },
    /// The prompt names a token that the model does not have.
    #[error("token id {id} is outside the model's vocabulary of {vocab}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The device failed. What was generated before is right; the rest of the answer is missing.
    #[error("the device failed: {0}")]
    Device(#[from] CudaError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampling_parameter_out_of_range_is_named() {
        let bad = SamplingParams { top_p: 1.5, ..SamplingParams::default() };
        assert_eq!(bad.check().unwrap_err().to_string(), "top_p is 1.5, and must be 0 to 1");
        let nan = SamplingParams { temperature: f32::NAN, ..SamplingParams::default() };
        assert_eq!(nan.check().unwrap_err().name, "temperature");
        assert_eq!(
            SamplingParams { repeat_penalty: 0.0, ..SamplingParams::greedy() }.check().unwrap_err().name,
            "repeat_penalty"
        );
        assert_eq!(SamplingParams { min_p: -0.1, ..SamplingParams::greedy() }.check().unwrap_err().name, "min_p");
        assert_eq!(SamplingParams::default().check(), Ok(()));
    }
}
