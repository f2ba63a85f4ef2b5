//! What `compare` and `e2e` share: the timed part, the statistics, the record and its files.

use std::collections::BTreeMap;

use anyhow::Context;
use engine::generate::DeviceChoice;
use harness_measure::agreement::greedy_agreement;
use harness_measure::{AnalysisOptions, Schedule, analyse, describe_one_side};
use harness_spec::record::{ManifestField, Provenance, RunKind, RunRecord};
use tokio_util::sync::CancellationToken;

use super::{print_json, print_text};
use crate::breakdown::{self, Broken};
use crate::ceiling::CeilingMeter;
use crate::exit::{Exit, Failure};
use crate::gpu_use;
use crate::machine::gpu::Gpu;
use crate::model::Model;
use crate::peers::{Clock, Side};
use crate::plan::RunPlan;
use crate::private::without_home;
use crate::quality::{self, Found, Judge};
use crate::record::{self, Identity, Parts};
use crate::session::log::SampleLog;
use crate::session::{Ended, Session};

/// Everything that is ready before the first request.
pub struct Prepared<'a> {
    /// Two sides or one.
    pub kind: RunKind,
    /// Measured, or simulated where scripted peers take part in a test.
    pub provenance: Provenance,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The model.
    pub model: &'a dyn Model,
    /// The order of runs.
    pub schedule: Schedule,
    /// The sides, the engine first.
    pub sides: Vec<Side>,
    /// Parity.
    pub manifest: Vec<ManifestField>,
    /// Why no verdict may be given.
    pub withhold: Option<String>,
    /// What was said before, such as which peer it is.
    pub notes: Vec<String>,
    /// The steps of a token, where they were asked for.
    pub broken: Broken,
    /// Which run.
    pub identity: &'a Identity,
    /// The command line.
    pub command: Vec<String>,
    /// The ceiling's first half; absent where it is not measured.
    pub ceiling: Option<CeilingMeter>,
    /// Ctrl-C.
    pub cancel: CancellationToken,
}

/// The steps of a token, where the plan asks for them: before any server is started.
///
/// # Errors
/// As [`breakdown::measure`].
pub async fn broken(plan: &RunPlan, model: &dyn Model, identity: &Identity) -> anyhow::Result<Broken> {
    match model.path().filter(|_| plan.breakdown) {
        Some(file) => breakdown::measure(plan, file, &identity.folder).await,
        None => Ok(Broken::default()),
    }
}

/// A finished run, on disk.
#[derive(Debug)]
pub struct Measured {
    /// Its record.
    pub record: RunRecord,
    /// How the timed part ended.
    pub ended: Ended,
}

/// Runs, has the quality of what was timed judged, concludes, and writes the folder. A run that was cut short is
/// written as well, marked as such and without a verdict, as nobody judged it.
///
/// # Errors
/// What cannot be rendered or written. What servers do wrong is in [`Measured::ended`].
pub async fn measure(mut p: Prepared<'_>, judge: &impl Judge) -> anyhow::Result<Measured> {
    let log = SampleLog::create(&p.identity.folder)?;
    let clock = Clock::start();
    let gpu = match p.plan.device {
        DeviceChoice::Cuda(ordinal) => Some(Gpu::open(ordinal).context("watching the GPU")?),
        DeviceChoice::Cpu | DeviceChoice::Auto => None,
    };
    let mut ceiling = p.ceiling;
    let mut session =
        Session::new(p.plan, p.model, &p.sides, clock, p.cancel.clone(), log).watching(gpu.as_ref(), ceiling.as_mut());
    let mut ended = session.run(&p.schedule.warmup, &p.schedule.blocks).await?;
    let wall = clock.now();
    let Session { mut samples, telemetry, idle, energy, idle_w, log, .. } = session;
    let gpus = match &gpu {
        Some(gpu) => gpu_use::of_sides(gpu, p.plan, p.model, &p.sides, &samples, &energy, &idle_w).await,
        None => BTreeMap::new(),
    };
    let mut notes = p.notes;
    if let (Some(meter), Ended::Complete) = (&mut ceiling, &ended)
        && let Err(e) = meter.measure("after")
    {
        // What was measured stands without it, and the first half of the ceiling too.
        notes.push(format!("the read ceiling was measured before the runs only: {e:#}"));
    }
    // The judge loads the model itself, and needs the memory that our own servers have.
    for side in &mut p.sides {
        if let Some(child) = side.child.take() {
            child.stop().await;
        }
    }
    let judged = match &ended {
        Ended::Complete => Some(quality::of_run(p.plan, p.model, &p.sides, &samples, judge).await?),
        Ended::Interrupted | Ended::Lost(_) => None,
    };
    if ended == Ended::Complete && p.cancel.is_cancelled() {
        ended = Ended::Interrupted;
    }
    let cut_short = || Found {
        withhold: Some("the run was cut short, and its quality was not judged".to_owned()),
        ..Found::default()
    };
    let Found { quality, checks: of_quality, withhold } =
        judged.filter(|_| ended == Ended::Complete).unwrap_or_else(cut_short);
    let mut checks = p.broken.checks;
    checks.extend(gpu_use::checks(&p.sides, &gpus, &samples));
    checks.extend(of_quality);
    for check in checks.iter().filter(|check| check.failed()) {
        eprintln!("check failed: {}: {}", check.name, check.found);
    }
    let options = AnalysisOptions {
        withhold: p.withhold.or(withhold),
        interrupted: ended != Ended::Complete,
        ..AnalysisOptions::new(p.plan.seed, p.plan.runs)
    };
    let analysis = match p.kind {
        RunKind::Compare => analyse(&samples, &options),
        RunKind::E2e => describe_one_side(&samples, p.sides[0].role, &options),
    };
    record::mark(&mut samples, &analysis.reasons);
    if p.kind == RunKind::Compare {
        notes.extend(greedy_agreement(&samples, &analysis.reasons).map(|a| a.to_string()));
    }
    match &ended {
        Ended::Complete => {}
        Ended::Interrupted => notes.push("interrupted by a signal: what was measured until then".into()),
        Ended::Lost(why) => notes.push(format!("cut short, a side was lost: {why}")),
    }
    let record = without_home(record::build(Parts {
        kind: p.kind,
        provenance: p.provenance,
        identity: p.identity,
        command: p.command,
        wall,
        plan: p.plan,
        schedule: &p.schedule,
        model: p.model,
        sides: &p.sides,
        manifest: p.manifest,
        ceiling: ceiling.and_then(CeilingMeter::finish),
        samples: &samples,
        analysis,
        telemetry,
        gpus,
        breakdowns: p.broken.breakdowns,
        checks,
        quality,
        idle: &idle,
        notes,
    }));
    log.finish(&samples)?;
    let simulated = match p.provenance {
        Provenance::Simulated => reports::SimulatedRecords::AcceptInTests,
        _ => reports::SimulatedRecords::Refuse,
    };
    reports::write_run_with(&p.identity.folder, &record, &samples, simulated)
        .with_context(|| format!("writing the report to {}", p.identity.folder.display()))?;
    Ok(Measured { record, ended })
}

/// Prints the record, says where it lies, and turns its end into an exit code: `done` for a complete one.
///
/// # Errors
/// A run that was cut short or kept nothing is one that could not be measured.
pub fn conclude(m: &Measured, identity: &Identity, json: bool, done: Exit) -> Result<Exit, Failure> {
    let printed = if json { print_json(&m.record) } else { print_text(&reports::terminal(&m.record)) };
    let folder = identity.folder.display();
    eprintln!("results: {folder} (run.json, samples.jsonl, report.html)");
    let kept = format!("what was measured until then is in {folder}");
    printed?;
    match &m.ended {
        Ended::Complete if m.record.hygiene.pairs_kept == 0 => {
            Err(anyhow::anyhow!("no run was valid: {:?}", m.record.hygiene.dropped).into())
        }
        Ended::Complete => Ok(done),
        Ended::Interrupted => Err(anyhow::anyhow!("interrupted; {kept}").into()),
        Ended::Lost(why) => Err(anyhow::anyhow!("{why}\n{kept}").into()),
    }
}
