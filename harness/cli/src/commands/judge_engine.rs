use anyhow::Context;
use engine::Engine;
use engine::generate::LoadOptions;
use kernels::cpu::Precision;

use super::print_text;
use crate::args::JudgeEngineArgs;
use crate::exit::{Exit, Outcome};
use crate::quality::{Questions, judge};

/// `bench judge-engine`: questions on standard input, what was found on standard output.
pub fn run(args: &JudgeEngineArgs) -> Outcome {
    let questions: Questions = serde_json::from_reader(std::io::stdin().lock()).context("reading the questions")?;
    // As the engine is served.
    let fast = LoadOptions {
        device: args.device,
        threads: Some(args.threads as usize),
        context: Some(args.ctx as usize),
        kv: Some(args.kv.into()),
        ..LoadOptions::default()
    };
    let exact = LoadOptions { precision: Precision::Exact, kv: None, ..fast };
    let load = |options: LoadOptions| move || Ok(Engine::load(&args.model, &options)?);
    let reference = format!("exact path on {}", args.device);
    let found = judge::judge(&questions, &reference, load(exact), load(fast))?;
    print_text(&serde_json::to_string(&found).map_err(anyhow::Error::new)?)?;
    Ok(Exit::Done)
}
