//! Teacher-forced comparison with a reference: the engine is fed the reference's tokens and asked at each step what it
//! thinks of the next one.
//!
//! The file holds, for each step, the reference's token and its log-probability, and the log-probabilities of the most
//! likely tokens. Mean KL is Σ p ln(p/q) over those listed tokens, plus one term for all others together, with p the
//! reference and q the engine: a lower bound of the KL over the whole vocabulary.
//!
//! llama.cpp's server reports no step for a token that ends inside a character, so that a reference made with it may lack
//! one that its text shows. Such a token is fed without being compared, and counted in the report: everything after it
//! would otherwise be compared at the wrong place. A test has the one case of this in the SmolLM2 reference.

pub mod compare;
pub mod logits;

use std::fmt;
use std::path::{Path, PathBuf};

use kernels::cpu::Precision;
use kernels::cuda::CudaError;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::sampler::argmax;
use crate::tokenizer::Tokenizer;

/// A reference file, as `smollm2_greedy.json`. Fields that the comparison does not need are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct ReferenceFile {
    /// SHA-256 of the model file, where the reference names it.
    pub sha256: Option<String>,
    /// The prompts with their continuations.
    pub cases: Vec<ReferenceCase>,
}

/// One prompt and the reference's greedy continuation.
#[derive(Clone, Debug, Deserialize)]
pub struct ReferenceCase {
    /// Token ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// The tokens that followed.
    pub steps: Vec<ReferenceStep>,
    /// The text that followed, where the file has it.
    pub text: Option<String>,
}

/// One step of the reference.
#[derive(Clone, Debug, Deserialize)]
pub struct ReferenceStep {
    /// The token that the reference chose.
    pub id: u32,
    /// Its natural log-probability.
    pub logprob: f64,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(u32, f64)>,
}

/// Why no comparison was made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The reference cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The reference is not in the format.
    #[error("{} is no reference file: {source}\nhint: the format is that of engine/tests/fixtures/smollm2_greedy.json", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The model is not the one that the reference was made with.
    #[error(
        "the model's SHA-256 is {found}, and the reference was made with {want}\nhint: give the model that the reference names"
    )]
    OtherModel {
        /// The digest of the model file.
        found: String,
        /// The digest in the reference.
        want: String,
    },
    /// The model's file cannot be read again to compute its digest.
    #[error("cannot read the model to compute its SHA-256: {0}")]
    Digest(std::io::Error),
    /// A case that does not fit.
    #[error(
        "case {case} has {tokens} tokens and the context holds {context}\nhint: load the model with a larger context"
    )]
    TooLong {
        /// Its number, from 0.
        case: usize,
        /// Prompt and continuation together.
        tokens: usize,
        /// Positions of the context.
        context: usize,
    },
    /// A case that cannot be compared.
    #[error("case {case} of the reference {why}")]
    Case {
        /// Its number, from 0.
        case: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(#[from] CudaError),
    /// There is nothing to compare.
    #[error("the reference has no steps")]
    Empty,
}

/// A step at which the engine would have chosen another token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// The case, from 0.
    pub case: usize,
    /// The step in it, from 0.
    pub step: usize,
    /// The reference's token.
    pub want: u32,
    /// The engine's.
    pub got: u32,
    /// How far the reference's second choice is behind its first, in nats: small gaps are ties.
    pub reference_gap: f64,
}

/// What was compared: which part of the engine answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvaluatedEngine {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `exact` or `fast`.
    pub precision: &'static str,
    /// The type of keys and values, such as `f16`.
    pub kv: &'static str,
}

impl EvaluatedEngine {
    fn of(engine: &Engine) -> EvaluatedEngine {
        let precision = match engine.options().precision {
            Precision::Exact => "exact",
            Precision::Fast => "fast",
        };
        EvaluatedEngine { device: engine.device().to_string(), precision, kv: engine.kv().name() }
    }
}

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// What was compared.
    pub engine: EvaluatedEngine,
    /// Steps compared.
    pub steps: usize,
    /// Tokens that the reference lacks but its text shows; they were fed and not compared.
    pub filled: usize,
    /// Share of steps at which both choose the same token, 0 to 1.
    pub top1_agreement: f64,
    /// Median of |engine − reference| of the chosen token's log-probability, in nats.
    pub median_logprob_diff: f64,
    /// 95th percentile of the same, by nearest rank.
    pub p95_logprob_diff: f64,
    /// Mean KL divergence of the engine from the reference, in nats; see the module for how it is computed.
    pub mean_kl: f64,
    /// The largest gap among the misses; 0 where there are none.
    pub largest_miss_gap: f64,
    /// Every step at which the choice differs.
    pub misses: Vec<Miss>,
}

impl ReferenceFile {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`EvalError`] where the file cannot be read or has another format.
    pub fn read(path: &Path) -> Result<ReferenceFile, EvalError> {
        let text = std::fs::read(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| EvalError::Format { path: path.to_owned(), source })
    }

    /// Number of steps in all cases.
    pub fn steps(&self) -> usize {
        self.cases.iter().map(|case| case.steps.len()).sum()
    }
}

/// Feeds the engine every case of a reference. `progress` hears the steps done.
///
/// Prompts are prefilled in batches and the continuation is fed token by token, as in generation.
///
/// # Errors
/// [`EvalError`] where the reference is empty, was made with another model, or does not fit the context, or where the device fails.
pub fn evaluate(
    engine: &mut Engine,
    reference: &ReferenceFile,
    progress: &mut dyn FnMut(usize),
) -> Result<EvalReport, EvalError> {
    check(engine, reference)?;
    let mut diffs = Vec::with_capacity(reference.steps());
    let mut misses = Vec::new();
    let mut kl = 0.0;
    let mut filled = 0;
    for (case_idx, case) in reference.cases.iter().enumerate() {
        let lacking = lacking_tokens(engine.tokenizer(), case);
        let mut tokens = case.prompt_ids.clone();
        let mut fed = 0;
        for (step_idx, step) in case.steps.iter().enumerate() {
            if let Some(&(_, id)) = lacking.iter().find(|(before, _)| *before == step_idx) {
                tokens.push(id);
                filled += 1;
            }
            let logits = engine.feed(&tokens[fed..], fed)?;
            fed = tokens.len();
            tokens.push(step.id);
            let log_sum = log_sum_exp(logits);
            let logprob = |id: u32| f64::from(logits[id as usize]) - log_sum;
            diffs.push((logprob(step.id) - step.logprob).abs());
            kl += divergence(&step.top, logprob);
            let got = argmax(logits);
            if got != step.id {
                let reference_gap = step.top[0].1 - step.top[1].1;
                misses.push(Miss { case: case_idx, step: step_idx, want: step.id, got, reference_gap });
            }
            progress(diffs.len());
        }
    }
    diffs.sort_by(f64::total_cmp);
    let steps = diffs.len();
    let rank = |p: f64| diffs[((p * steps as f64).ceil() as usize).clamp(1, steps) - 1];
    Ok(EvalReport {
        engine: EvaluatedEngine::of(engine),
        steps,
        filled,
        top1_agreement: (steps - misses.len()) as f64 / steps as f64,
        median_logprob_diff: rank(0.5),
        p95_logprob_diff: rank(0.95),
        mean_kl: kl / steps as f64,
        largest_miss_gap: misses.iter().map(|miss| miss.reference_gap).fold(0.0, f64::max),
        misses,
    })
}

fn check(engine: &Engine, reference: &ReferenceFile) -> Result<(), EvalError> {
    if reference.steps() == 0 {
        return Err(EvalError::Empty);
    }
    if let Some(want) = &reference.sha256 {
        let found = engine.info().sha256().map_err(EvalError::Digest)?;
        if !found.eq_ignore_ascii_case(want) {
            return Err(EvalError::OtherModel { found: found.to_owned(), want: want.clone() });
        }
    }
    let vocab = engine.config().vocab;
    for (case, c) in reference.cases.iter().enumerate() {
        let lacking = lacking_tokens(engine.tokenizer(), c).len();
        let (tokens, context) = (c.prompt_ids.len() + c.steps.len() + lacking, engine.context());
        let known = |id: u32| (id as usize) < vocab;
        let steps_known = |s: &ReferenceStep| known(s.id) && s.top.iter().all(|&(id, _)| known(id));
        if tokens > context {
            return Err(EvalError::TooLong { case, tokens, context });
        }
        if c.prompt_ids.is_empty() {
            return Err(EvalError::Case { case, why: "has an empty prompt" });
        }
        if c.steps.iter().any(|s| s.top.len() < 2) {
            return Err(EvalError::Case { case, why: "has a step with fewer than two listed tokens" });
        }
        if !c.prompt_ids.iter().all(|&id| known(id)) || !c.steps.iter().all(steps_known) {
            return Err(EvalError::Case { case, why: "names a token that the model does not have" });
        }
    }
    Ok(())
}

/// The tokens that a case lacks, each with the step before which it belongs: where the steps' bytes do not continue the
/// text, but do so after some more bytes, and these are one token. Empty unless that explains the whole text.
fn lacking_tokens(tokenizer: &Tokenizer, case: &ReferenceCase) -> Vec<(usize, u32)> {
    let Some(mut rest) = case.text.as_deref().map(str::as_bytes) else { return Vec::new() };
    let mut lacking = Vec::new();
    for (step_idx, step) in case.steps.iter().enumerate() {
        let piece = tokenizer.piece(step.id);
        // A character has at most four bytes, and a token that brings its end is reported.
        let Some(gap) = (0..4).find(|&gap| rest.get(gap..).is_some_and(|rest| rest.starts_with(piece))) else {
            return Vec::new();
        };
        if gap > 0 {
            let Some(id) = (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.piece(id) == &rest[..gap]) else {
                return Vec::new();
            };
            lacking.push((step_idx, id));
        }
        rest = &rest[gap + piece.len()..];
    }
    if rest.is_empty() { lacking } else { Vec::new() }
}

/// ln Σ exp(logit), around the maximum so that nothing overflows.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits[argmax(logits) as usize]);
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// KL of the engine from the reference over the listed tokens and the rest as one.
fn divergence(top: &[(u32, f64)], logprob: impl Fn(u32) -> f64) -> f64 {
    let (mut sum, mut p_listed, mut q_listed) = (0.0, 0.0, 0.0);
    for &(id, p_log) in top {
        let q_log = logprob(id);
        sum += p_log.exp() * (p_log - q_log);
        p_listed += p_log.exp();
        q_listed += q_log.exp();
    }
    // The listed log-probabilities are rounded, so that their sum may exceed one by a little.
    let (p_rest, q_rest) = (1.0 - p_listed, 1.0 - q_listed);
    if p_rest > 0.0 && q_rest > 0.0 { sum + p_rest * (p_rest / q_rest).ln() } else { sum }
}

impl fmt::Display for EvalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EvaluatedEngine { device, precision, kv } = &self.engine;
        writeln!(f, "engine               {device}, {precision} path, keys and values in {kv}")?;
        let agreeing = self.steps - self.misses.len();
        writeln!(f, "steps                {}", self.steps)?;
        if self.filled > 0 {
            writeln!(f, "filled in            {} (tokens that the reference lacks and its text shows)", self.filled)?;
        }
        writeln!(f, "top-1 agreement      {:.2} % ({agreeing} of {})", 100.0 * self.top1_agreement, self.steps)?;
        writeln!(
            f,
            "logprob difference   median {:.5}, p95 {:.5} nat",
            self.median_logprob_diff, self.p95_logprob_diff
        )?;
        writeln!(f, "mean KL              {:.6} nat (over the listed tokens and the rest as one)", self.mean_kl)?;
        for miss in &self.misses {
            let Miss { case, step, want, got, reference_gap } = miss;
            writeln!(
                f,
                "miss                 case {case} step {step}: {got} for {want}, reference gap {reference_gap:.4} nat"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_have_no_divergence_and_others_a_positive_one() {
        let top = [(0u32, 0.5f64.ln()), (1, 0.3f64.ln())];
        let same = divergence(&top, |id| top[id as usize].1);
        assert!(same.abs() < 1e-15, "{same}");
        // 0.5 ln(0.5/0.4) + 0.3 ln(0.3/0.3) + 0.2 ln(0.2/0.3)
        let other = divergence(&top, |id| [0.4f64, 0.3][id as usize].ln());
        assert!((other - (0.5 * (1.25f64).ln() + 0.2 * (2.0f64 / 3.0).ln())).abs() < 1e-15, "{other}");
    }

    #[test]
    fn the_sum_of_exponentials_does_not_overflow() {
        let got = log_sum_exp(&[1000.0, 1000.0]);
        assert!((got - (1000.0 + 2f64.ln())).abs() < 1e-12, "{got}");
    }
}
