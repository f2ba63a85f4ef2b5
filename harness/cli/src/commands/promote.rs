//! `bench tune --promote`: a new table is tried in the whole engine, paired with the old one, before it replaces it (R27).
//!
//! Both sides are our own engine, served as `compare` serves it, on the device that was tuned; only their tables differ.

use std::path::Path;

use anyhow::{Context, anyhow};
use engine::generate::DeviceChoice;
use harness_measure::tune::{EngineEvidence, EngineStage, Promotion, RowChange as Change, promote as judge};
use harness_spec::record::{Sample, SampleStatus, SideRole};

use super::timing::Timed;
use crate::args::{RunArgs, TuneArgs};
use crate::exit::Failure;
use crate::interrupt;
use crate::model;
use crate::peers::embedded::Kernels;
use crate::peers::prepare::{self, Setting};
use crate::peers::{self, Clock};
use crate::plan::RunPlan;
use crate::session::log::SampleLog;
use crate::session::{Ended, Session};
use crate::tables::{DeviceTable, RowChange};

/// Pairs of requests, fixed beforehand.
const PAIRS: u64 = 40;
/// Tokens of each answer.
const LENGTH: u64 = 48;

/// Runs the engine with both tables and judges. The new table is not written where the answer is no.
///
/// # Errors
/// An engine that cannot be measured, or a table that it is slower with: then the rows are named.
pub fn promote(
    model: &str,
    device: DeviceChoice,
    args: &TuneArgs,
    old: &DeviceTable,
    new: &DeviceTable,
    changes: &[RowChange],
    timed: &Timed,
) -> Result<(), Failure> {
    let folder = timed.identity.folder.join("promotion");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (before, after) = (folder.join("old.toml"), folder.join("new.toml"));
    new.save_to(&after)?;
    let before = match old.file() {
        Some(_) => {
            old.save_to(&before)?;
            Kernels::Table(before)
        }
        None => Kernels::Default,
    };
    let plan = RunPlan::new(
        "tune",
        RunArgs {
            model: model.to_owned(),
            runs: PAIRS,
            suite: "quick".to_owned(),
            lengths: vec![LENGTH],
            device: Some(device),
            threads: args.device.threads,
            ctx: 2048,
            seed: Some(timed.record.plan.seed),
            block: 5,
            warmup: 2,
            out: None,
            timeout: 120,
            dry_run: false,
        },
    )?;
    let runtime = super::runtime()?;
    let samples = runtime.block_on(both(&plan, before, Kernels::Table(after), &folder))?;
    let decision = decide(&samples, changes, plan.seed);
    std::fs::write(folder.join("decision.txt"), text(&decision))
        .with_context(|| format!("writing to {}", folder.display()))?;
    eprint!("{}", text(&decision));
    if decision.promoted {
        return Ok(());
    }
    Err(anyhow!(
        "the new table is not promoted: {}\n  rows: {}\nhint: the old table stays; the new one is {}",
        decision.reasons.join("; "),
        decision.rows.join("; "),
        folder.join("new.toml").display()
    )
    .into())
}

/// Every request of the schedule, with both engines loaded and one busy at a time.
async fn both(plan: &RunPlan, old: Kernels, new: Kernels, folder: &Path) -> anyhow::Result<Vec<Sample>> {
    let cancel = interrupt::on_signal()?;
    let model = model::open(&plan.model, plan.context).await?;
    let setting = Setting {
        model: &model,
        suite: &plan.suite,
        context: plan.context,
        device: plan.device,
        threads: plan.threads,
        timeout: plan.timeout,
        out: folder,
    };
    let peer =
        prepare::engine(&setting, SideRole::Peer, old).await.context("starting the engine with the old table")?;
    let engine =
        prepare::engine(&setting, SideRole::Engine, new).await.context("starting the engine with the new table")?;
    let mut sides = vec![engine, peer];
    peers::agree_on_stop_rule(&mut sides);
    let schedule = plan.paired()?;
    let log = SampleLog::create(folder)?;
    let mut session = Session::new(plan, &model, &sides, Clock::start(), cancel, log);
    let ended = session.run(&schedule.warmup, &schedule.blocks).await?;
    let samples = std::mem::take(&mut session.samples);
    drop(session);
    for side in sides {
        if let Some(child) = side.child {
            child.stop().await;
        }
    }
    match ended {
        Ended::Complete => Ok(samples),
        Ended::Interrupted => Err(anyhow!("interrupted; the old table stays")),
        Ended::Lost(why) => Err(anyhow!("{why}\nhint: the old table stays")),
    }
}

/// Pairs of valid samples, the new table's first.
fn pairs(samples: &[Sample]) -> Vec<(&Sample, &Sample)> {
    let timed = |s: &&Sample| s.dropped.is_none() && matches!(s.status, SampleStatus::Length | SampleStatus::Stop);
    let of = |role: SideRole| samples.iter().filter(timed).filter(move |s| s.side == role);
    of(SideRole::Engine).filter_map(|new| Some((new, of(SideRole::Peer).find(|old| old.pair == new.pair)?))).collect()
}

fn decide(samples: &[Sample], changes: &[RowChange], seed: u64) -> Promotion {
    let pairs = pairs(samples);
    let stage = |stage: EngineStage, rate: fn(&Sample) -> f64| EngineEvidence {
        stage,
        old: pairs.iter().map(|(_, old)| rate(old)).collect(),
        new: pairs.iter().map(|(new, _)| rate(new)).collect(),
        blocks: pairs.iter().map(|(new, _)| new.block).collect(),
    };
    let evidence = [stage(EngineStage::Prefill, prefill), stage(EngineStage::Decode, decode)];
    // Greedy and of one length: the same weights must say the same words, whatever computes them.
    let parity = match pairs.iter().find(|(new, old)| new.text != old.text) {
        Some((new, _)) => {
            Err(format!("the answers to prompt {} of pair {} are not the same text", new.prompt, new.pair))
        }
        None => Ok(()),
    };
    let rows: Vec<Change> = changes
        .iter()
        .filter(|c| c.from.as_ref() != Some(&c.to))
        .map(|c| Change { workload: c.workload.clone(), from: c.from.clone(), to: c.to.clone() })
        .collect();
    judge(&evidence, parity, &rows, seed)
}

/// Prompt tokens ÷ TTFT, tok/s; NaN, which is no valid pair, where there is no token.
fn prefill(s: &Sample) -> f64 {
    s.token_ns.first().map_or(f64::NAN, |t| s.prompt_tokens as f64 / (*t - s.submit_ns).0 as f64 * 1e9)
}

/// (n − 1)/(tₙ − t₁), tok/s.
fn decode(s: &Sample) -> f64 {
    match s.token_ns.as_slice() {
        [first, .., last] => (s.token_ns.len() - 1) as f64 / (*last - *first).0 as f64 * 1e9,
        _ => f64::NAN,
    }
}

fn text(p: &Promotion) -> String {
    let mut out = String::new();
    for (stage, r) in &p.ratios {
        let percent = |x: f64| (x - 1.0) * 100.0;
        out.push_str(&format!(
            "promotion: {stage} {:+.2} % ({:+.2} to {:+.2} %, {} pairs)\n",
            percent(r.ratio),
            percent(r.ci[0]),
            percent(r.ci[1]),
            r.n_pairs
        ));
    }
    out.push_str(if p.promoted { "promotion: the new table replaces the old one\n" } else { "promotion: refused\n" });
    out
}
