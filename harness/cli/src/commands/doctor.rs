use std::time::Duration;

use engine::models::Store;
use harness_spec::record::NoiseSource;
use serde_json::json;

use super::{print_json, print_text};
use crate::exit::{Exit, Outcome};
use crate::machine::{cuda, environment};
use crate::peers::ollama::OllamaClient;
use crate::plan::default_ollama;

/// `bench doctor`: the machine, what may disturb a measurement on it, and what can be measured.
pub fn run(json: bool) -> Outcome {
    let machine = environment::capture();
    let checks: Vec<NoiseSource> = [ollama(), store()].into_iter().chain(cuda::checks()).collect();
    if json {
        print_json(&json!({ "environment": machine, "checks": checks, "tool": environment::tool() }))?;
        return Ok(Exit::Done);
    }
    let cpu = &machine.cpu;
    let mib = |bytes: u64| bytes >> 20;
    let mut lines = vec![
        format!("system    {} on {}", machine.os, machine.arch),
        format!(
            "cpu       {}, {} processors, {} thread(s) a core, {}",
            cpu.model,
            cpu.threads,
            cpu.threads_per_core.map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
            if cpu.isa.is_empty() { "no SIMD level that the kernels use".to_owned() } else { cpu.isa.join(" ") }
        ),
        format!(
            "memory    {} MiB, last-level cache {}",
            mib(machine.memory_bytes),
            cpu.llc_bytes.map_or_else(|| "unknown".to_owned(), |b| format!("{} MiB", mib(b)))
        ),
        format!(
            "gpu       {}",
            if machine.gpus.is_empty() {
                "none; the engine computes on the CPU".to_owned()
            } else {
                machine.gpus.join(", ")
            }
        ),
        String::new(),
        "noise and prerequisites:".to_owned(),
    ];
    for s in machine.noise.iter().chain(&checks) {
        lines.push(format!("  {:<8} {:<15} {}", s.state, s.name, s.found));
        if !s.fix.is_empty() {
            lines.push(format!("  {:<8} {:<15} fix: {}", "", "", s.fix));
        }
    }
    print_text(&lines.join("\n"))?;
    Ok(Exit::Done)
}

fn check(name: &str, state: &str, found: String, fix: &str) -> NoiseSource {
    NoiseSource { name: name.to_owned(), state: state.to_owned(), found, fix: fix.to_owned() }
}

fn ollama() -> NoiseSource {
    let start = "ollama serve (or leave it: compare then uses the embedded baseline)";
    let url = match default_ollama(std::env::var("OLLAMA_HOST").ok().as_deref()) {
        Ok(url) => url,
        Err(e) => return check("ollama", "warn", format!("{e:#}"), "correct OLLAMA_HOST"),
    };
    let version = super::runtime().ok().and_then(|rt| {
        let client = OllamaClient::new(url.clone(), Duration::from_secs(3)).ok()?;
        rt.block_on(client.version()).ok()
    });
    match version {
        Some(v) => check("ollama", "ok", format!("{v} at {url}"), ""),
        None => check("ollama", "unknown", format!("nothing answers at {url}"), start),
    }
}

fn store() -> NoiseSource {
    let name = "model store";
    match Store::of_this_user().and_then(|s| Ok((s.dir().to_owned(), s.list()?))) {
        Ok((dir, models)) if models.is_empty() => check(
            name,
            "unknown",
            format!("{} is empty", dir.display()),
            "nothing to do: compare pulls the default model; or edgellm pull smollm2:135m",
        ),
        Ok((dir, models)) => check(name, "ok", format!("{} model(s) in {}", models.len(), dir.display()), ""),
        Err(e) => check(name, "warn", e.to_string(), "give EDGELLM_HOME a folder that can be written"),
    }
}
