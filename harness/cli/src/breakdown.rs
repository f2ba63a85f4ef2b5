//! The steps of a token, for `--breakdown`: our engine in a process of its own, before any server is started, so that
//! nothing else is on the GPU and a fault costs the breakdown alone.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use engine::generate::DeviceChoice;
use harness_spec::record::{Breakdown, Check, RawBreakdown};

use crate::depth;
use crate::plan::RunPlan;

/// The raw times in the folder of a run.
pub const FILE: &str = "breakdown.jsonl";

/// Longest time for all depths: loading and compiling the first time included.
const LONGEST: Duration = Duration::from_secs(600);

/// Depth of a breakdown where the run has none of its own.
const DEPTH: u64 = 512;

/// Windows of decoding at each depth, where no number of tokens was asked for.
const WINDOWS: u64 = 16;

/// What was measured, and what must hold of it.
#[derive(Debug, Default)]
pub struct Broken {
    /// One entry a depth.
    pub breakdowns: Vec<Breakdown>,
    /// Of each.
    pub checks: Vec<Check>,
}

/// Takes the engine's token apart at each depth of the plan. The raw times go to [`FILE`] in `folder`.
///
/// # Errors
/// The engine's process fails; the message has its own words.
pub async fn measure(plan: &RunPlan, model: &Path, folder: &Path) -> anyhow::Result<Broken> {
    let DeviceChoice::Cuda(ordinal) = plan.device else {
        return Err(anyhow!("--breakdown is not available on the processor\nhint: --device cuda:N"));
    };
    let depths = depths_of(plan);
    let window = window(plan, &depths);
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg("profile-engine")
        .arg("--model")
        .arg(model)
        .args(["--ordinal", &ordinal.to_string()])
        .args(["--ctx", &plan.context.to_string()])
        .args(["--kv", plan.kv.name()])
        .args(["--depth", &depths.iter().map(u64::to_string).collect::<Vec<_>>().join(",")])
        .args(["--window", &window.to_string()])
        .args(["--windows", &plan.tokens.unwrap_or(0).div_ceil(window).max(WINDOWS).to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let bar = crate::progress::wait("timing the steps of a token");
    let ended = tokio::time::timeout(LONGEST, command.output()).await;
    bar.finish_and_clear();
    let output = ended
        .map_err(|_| anyhow!("the engine's process took longer than {} s", LONGEST.as_secs()))?
        .context("starting the engine's process")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!("{}", said.trim().trim_start_matches("error: ")).context("timing the steps of a token"));
    }
    let text = String::from_utf8(output.stdout).context("reading the times of the steps")?;
    let file = folder.join(FILE);
    std::fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    of_lines(&text)
}

/// The depths of the run, or one that stands for a prompt of usual length.
fn depths_of(plan: &RunPlan) -> Vec<u64> {
    let own: Vec<u64> = plan.suite.prompts.iter().filter_map(|p| p.depth).collect();
    if own.is_empty() { vec![DEPTH.min(u64::from(plan.context) / 2)] } else { own }
}

/// Tokens of a window: as many as a run at a depth generates, where they fit.
fn window(plan: &RunPlan, depths: &[u64]) -> u64 {
    let deepest = depths.iter().max().copied().unwrap_or(0);
    depth::LENGTH.min(u64::from(plan.context).saturating_sub(deepest)).max(2)
}

fn of_lines(text: &str) -> anyhow::Result<Broken> {
    let mut broken = Broken::default();
    for line in text.lines() {
        let raw: RawBreakdown = serde_json::from_str(line).context("reading the times of the steps")?;
        let breakdown = harness_measure::breakdown::summarise(&raw).map_err(|why| anyhow!("{why}"))?;
        broken.checks.extend(harness_measure::breakdown::checks(&breakdown));
        broken.breakdowns.push(breakdown);
    }
    if broken.breakdowns.is_empty() {
        return Err(anyhow!("the engine's process measured nothing"));
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use harness_spec::Shape;
    use harness_spec::record::{DeviceCounters, RawStep};

    use super::*;

    #[test]
    fn every_line_is_a_depth_with_its_checks_and_no_line_is_an_error() {
        let raw = |depth: u64| RawBreakdown {
            depth,
            position: depth + 1,
            window: 2,
            programmatic_edges: Some(0),
            steps: vec![RawStep {
                op: "add".into(),
                shape: Shape::of([("COUNT", 4)]),
                variant: "add/plain@cuda".parse().unwrap(),
                bytes: None,
                prefix_ns: vec![100.0],
            }],
            gaps_ns: vec![vec![100, 100]],
            counters: DeviceCounters { generated: 2, graph_launches: 2, d2h_bytes: 8, ..DeviceCounters::default() },
        };
        let line = |depth| serde_json::to_string(&raw(depth)).unwrap();
        let broken = of_lines(&format!("{}\n{}\n", line(128), line(2048))).unwrap();
        let depths: Vec<u64> = broken.breakdowns.iter().map(|b| b.depth).collect();
        assert_eq!((depths, broken.checks.len()), (vec![128, 2048], 4));
        assert!(broken.checks.iter().all(|c| !c.failed()), "{:?}", broken.checks);
        assert!(of_lines("").unwrap_err().to_string().contains("measured nothing"));
        assert!(of_lines("{}").is_err());
    }
}
