//! The quality gate of a run (SPEC.md H18): answers of the run and a fixed text, held against the engine's exact path
//! in a process of its own, after everything that is timed.

pub mod judge;

use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use harness_measure::{pairs, quality};
use harness_spec::record::{
    AnswerAgreement, AnswerQuality, Check, Quality, QualityBounds, Sample, SideRole, TextQuality,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::model::Model;
use crate::peers::Side;
use crate::plan::RunPlan;

/// Longest time for all answers: the exact path of a large model on a processor decodes a few tokens a second.
const LONGEST: Duration = Duration::from_secs(1800);

/// The gate as `suites/quality.toml` has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    mean_kl: f64,
    perplexity: f64,
    level: f64,
    pairs: usize,
    answer_tokens: usize,
    least_tokens: u64,
    text_tokens: usize,
    text: String,
}

impl Gate {
    /// The gate of this program.
    pub fn built_in() -> Gate {
        toml::from_str(include_str!("../../../../suites/quality.toml")).expect("a test reads the file")
    }

    fn bounds(&self) -> QualityBounds {
        let Gate { mean_kl, perplexity, level, least_tokens, .. } = *self;
        QualityBounds { mean_kl, perplexity, level, least_tokens }
    }
}

/// What is to be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Questions {
    /// The fixed text.
    pub text: String,
    /// Tokens of it, at most.
    pub text_tokens: usize,
    /// Tokens of an answer, at most.
    pub answer_tokens: usize,
    /// The share of [`QualityBounds::level`].
    pub level: f64,
    /// Prompts with their answers.
    pub asked: Vec<Asked>,
}

/// A prompt with the answer of each side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The pair of runs.
    pub pair: u64,
    /// Id of the prompt.
    pub prompt: String,
    /// The prompt as it was sent.
    pub rendered: String,
    /// The greedy answers, the engine's first.
    pub answers: Vec<(SideRole, String)>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What was taken for right.
    pub reference: String,
    /// The fast path on the text.
    pub text: TextQuality,
    /// Every answer.
    pub answers: Vec<AnswerQuality>,
    /// Of every pair of answers.
    pub agreements: Vec<AnswerAgreement>,
}

/// Whoever answers questions of quality. A scripted model has a judge of its own in tests.
pub trait Judge {
    /// Judges.
    ///
    /// # Errors
    /// What kept it from that. Nothing is known of the quality then.
    fn judge(&self, questions: &Questions) -> impl Future<Output = anyhow::Result<Judgement>>;
}

/// Our engine: this program again, with a hidden verb.
pub struct EngineJudge<'a> {
    /// How the engine was served.
    pub plan: &'a RunPlan,
    /// The model.
    pub model: &'a dyn Model,
    /// Ctrl-C.
    pub cancel: &'a CancellationToken,
}

impl Judge for EngineJudge<'_> {
    async fn judge(&self, questions: &Questions) -> anyhow::Result<Judgement> {
        let file = self.model.path().ok_or_else(|| anyhow!("a model without a file cannot be loaded"))?;
        let bar = crate::progress::wait("judging quality");
        let found = tokio::select! {
            () = self.cancel.cancelled() => Err(anyhow!("interrupted")),
            found = tokio::time::timeout(LONGEST, ask(self.plan, file, questions)) => {
                found.unwrap_or_else(|_| Err(anyhow!("the engine's process took longer than {} s", LONGEST.as_secs())))
            }
        };
        bar.finish_and_clear();
        found
    }
}

async fn ask(plan: &RunPlan, file: &Path, questions: &Questions) -> anyhow::Result<Judgement> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut child = tokio::process::Command::new(program)
        .arg("judge-engine")
        .arg("--model")
        .arg(file)
        .args(["--device", &plan.device.to_string()])
        .args(["--threads", &plan.threads.to_string()])
        .args(["--ctx", &plan.context.to_string()])
        .args(["--kv", plan.kv.name()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the engine's process")?;
    let mut input = child.stdin.take().expect("it was asked for");
    // A process that has ended does not read; what it said is below.
    let _ = input.write_all(&serde_json::to_vec(questions).context("writing the questions")?).await;
    drop(input);
    let output = child.wait_with_output().await.context("waiting for the engine's process")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!("{}", said.trim().trim_start_matches("error: ").to_owned()));
    }
    serde_json::from_slice(&output.stdout).context("reading what the engine's process found")
}

/// What a run has of quality.
#[derive(Debug, Default)]
pub struct Found {
    /// The figures, where there are any.
    pub quality: Option<Quality>,
    /// What must hold of them.
    pub checks: Vec<Check>,
    /// Why there is no verdict on speed.
    pub withhold: Option<String>,
}

/// Judges a complete run. A run without our engine, or without an answer that counts, has nothing to judge.
///
/// # Errors
/// A prompt that cannot be rendered again. What keeps the judge from judging is a failed check.
pub async fn of_run(
    plan: &RunPlan,
    model: &dyn Model,
    sides: &[Side],
    samples: &[Sample],
    judge: &impl Judge,
) -> anyhow::Result<Found> {
    let gate = Gate::built_in();
    let chosen = quality::chosen(samples, &pairs::judge(samples), gate.pairs);
    let Some(ours) = sides.iter().find(|s| s.role == SideRole::Engine).filter(|_| !chosen.is_empty()) else {
        return Ok(Found::default());
    };
    let asked = chosen.iter().map(|answered| {
        let first = answered.samples[0];
        let prompt = plan.suite.prompts.iter().find(|p| p.id == first.prompt).context("a sample of no prompt")?;
        Ok(Asked {
            pair: first.pair,
            prompt: first.prompt.clone(),
            rendered: model.render(&prompt.text, &first.nonce)?.text,
            answers: answered.samples.iter().map(|s| (s.side, s.text.clone())).collect(),
        })
    });
    let questions = Questions {
        text: gate.text.clone(),
        text_tokens: gate.text_tokens,
        answer_tokens: gate.answer_tokens,
        level: gate.level,
        asked: asked.collect::<anyhow::Result<_>>()?,
    };
    let mut found = Found::default();
    match judge.judge(&questions).await {
        Ok(Judgement { reference, text, answers, agreements }) => {
            let mut q = Quality { reference, bounds: gate.bounds(), text, answers, agreements, passed: None };
            let label = |role| sides.iter().find(|s| s.role == role).map_or_else(String::new, |s| s.label.clone());
            found.checks = quality::checks(&q, label);
            q.passed = quality::passed(&found.checks);
            found.quality = Some(q);
        }
        Err(e) => found.checks.push(Check {
            name: format!("quality of {} is known", ours.label),
            passed: Some(false),
            found: format!("{e:#}"),
        }),
    }
    found.withhold = quality::withhold(&found.checks);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_read_and_asks_for_something() {
        let gate = Gate::built_in();
        assert!(gate.pairs > 0 && gate.text_tokens >= 2 && gate.least_tokens > 0);
        for bound in [gate.mean_kl, gate.perplexity, gate.level] {
            assert!(bound > 0.0 && bound < 0.2, "{gate:?}");
        }
        // Two bytes a token is less than any tokenizer makes of English.
        assert!(gate.text.len() > 2 * gate.text_tokens);
    }
}
