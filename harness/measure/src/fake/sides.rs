//! Scripted engines: runs of two sides over a schedule, whose speeds are known beforehand.

use harness_spec::record::{Sample, SampleStatus, ServerTimings, SideRole};
use harness_spec::units::Nanos;

use super::noise::Draw;
use crate::schedule::Schedule;

/// How a scripted side behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SideScript {
    /// Time to the first token, ms.
    pub ttft_ms: f64,
    /// From token to token, ms.
    pub itl_ms: f64,
    /// Relative standard deviation of a run's speed.
    pub run_noise: f64,
    /// Relative standard deviation of one token's time within a run.
    pub token_noise: f64,
    /// Share of runs that something else on the machine slows by a tenth.
    pub outliers: f64,
}

impl SideScript {
    /// Without noise, so many times as fast as a side with a first token after 20 ms and one every 4 ms.
    pub fn quiet(speed: f64) -> SideScript {
        SideScript { ttft_ms: 20.0 / speed, itl_ms: 4.0 / speed, run_noise: 0.0, token_noise: 0.0, outliers: 0.0 }
    }

    /// Noise of a machine that was prepared by `bench doctor`: 0.8 % from run to run, 5 % from token to token, and one run
    /// in fifty slowed by a tenth.
    pub fn noisy(speed: f64) -> SideScript {
        SideScript { run_noise: 0.008, token_noise: 0.05, outliers: 0.02, ..SideScript::quiet(speed) }
    }
}

/// Plays a schedule: both sides on one clock, with a drift of the machine that both share.
pub fn play_sides(schedule: &Schedule, engine: &SideScript, peer: &SideScript, seed: u64) -> Vec<Sample> {
    let mut draw = Draw::of(seed, &["sides"], 0);
    let mut now_ms: f64 = 1.0;
    let mut samples = Vec::new();
    for block in &schedule.blocks {
        let script = if block.side == SideRole::Engine { engine } else { peer };
        for run in &block.runs {
            let drift = 1.0 + 0.02 * (now_ms / 20_000.0).sin();
            let slow = if draw.uniform() < script.outliers { 1.1 } else { 1.0 };
            let pace = drift * slow * (script.run_noise * draw.normal()).exp();
            // Longer answers read more of the cache: three percent slower at 200 tokens than at 50.
            let depth = 1.0 + 0.03 * (run.length as f64 - 50.0) / 150.0;
            let submit = now_ms;
            let mut t = submit + script.ttft_ms * pace;
            let mut token_ns = Vec::new();
            for _ in 0..run.length {
                token_ns.push(Nanos((t * 1e6) as u64));
                t += script.itl_ms * pace * depth * (script.token_noise * draw.normal()).exp();
            }
            samples.push(Sample {
                seq: samples.len() as u64,
                pair: run.pair,
                block: block.index,
                side: block.side,
                prompt: format!("p{}", run.prompt),
                asked_tokens: run.length,
                nonce: run.nonce.clone(),
                submit_ns: Nanos((submit * 1e6) as u64),
                end_ns: token_ns.last().copied().unwrap_or_default(),
                token_ns,
                one_token_per_chunk: true,
                prompt_tokens: 40,
                generated_tokens: run.length,
                text: String::new(),
                status: SampleStatus::Length,
                server: Some(ServerTimings {
                    prompt_tokens: Some(40),
                    prompt_ns: Some(Nanos((script.ttft_ms * 1e6) as u64)),
                    eval_tokens: Some(run.length),
                    eval_ns: Some(Nanos((script.itl_ms * run.length as f64 * 1e6) as u64)),
                    ..Default::default()
                }),
                dropped: None,
                rss_bytes: None,
            });
            now_ms = t + 1.0;
        }
    }
    samples
}
