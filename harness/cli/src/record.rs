//! Puts the record of a run together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use harness_measure::bandwidth;
use harness_measure::compare::ALL;
use harness_measure::{Analysis, Schedule};
use harness_spec::record::{
    Breakdown, Ceiling, Check, DropReason, Environment, Headline, ManifestField, Measure, MetricComparison, MetricId,
    ModelFacts, Plan, Provenance, Quality, RunKind, RunRecord, SCHEMA_VERSION, Sample, SideFacts, SideGpu, SideRole,
    Verdict,
};
use harness_spec::units::Nanos;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::machine::{environment, process};
use crate::model::Model;
use crate::peers::Side;
use crate::plan::RunPlan;
use crate::session::IdleUse;

/// Where and when a run happens.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Random, eight hex digits.
    pub id: String,
    /// Start.
    pub started: OffsetDateTime,
    /// Folder of the results.
    pub folder: PathBuf,
    /// The machine at the start, before the run itself is its load.
    pub environment: Environment,
}

impl Identity {
    /// A new run; its folder is made and tried before anything else, since a result that cannot be kept is none.
    ///
    /// # Errors
    /// The folder cannot be made, is not writable, or holds a run already.
    pub fn new(plan: &RunPlan) -> anyhow::Result<Identity> {
        Identity::of(plan.verb, plan.out.as_deref())
    }

    /// As [`Identity::new`], for a verb and a folder, if one is given.
    ///
    /// # Errors
    /// As [`Identity::new`].
    pub fn of(verb: &str, out: Option<&Path>) -> anyhow::Result<Identity> {
        let started = OffsetDateTime::now_utc();
        let id = format!("{:08x}", rand::random::<u32>());
        let stamp = started.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?;
        let folder = out.map_or_else(|| Path::new("results").join(format!("{stamp}-{verb}-{id}")), Path::to_owned);
        let hint = "choose another folder with --out";
        make_writable(&folder, hint)?;
        let files = ["run.json", crate::session::log::FILE, crate::session::trials::FILE];
        if files.iter().any(|file| folder.join(file).exists()) {
            anyhow::bail!("the output folder {} holds a run already\nhint: {hint}", folder.display());
        }
        Ok(Identity { id, started, folder, environment: environment::capture() })
    }

    /// A run that goes on in its folder under the name that it had.
    ///
    /// # Errors
    /// The folder is not writable, or the start is no time.
    pub fn resumed(id: &str, started: &str, folder: &Path) -> anyhow::Result<Identity> {
        make_writable(folder, "make it writable, or copy it to where you may write")?;
        let started = OffsetDateTime::parse(started, &Rfc3339).context("reading when the run was started")?;
        Ok(Identity { id: id.to_owned(), started, folder: folder.to_owned(), environment: environment::capture() })
    }

    /// The start as records write it.
    pub fn started(&self) -> String {
        self.started.format(&Rfc3339).unwrap_or_default()
    }
}

fn make_writable(folder: &Path, hint: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the output folder {}\nhint: {hint}", folder.display()))?;
    let probe = folder.join(".writable");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("cannot write to the output folder {}\nhint: {hint}", folder.display()))
}

/// All that a record is made of.
pub struct Parts<'a> {
    /// `compare` or `e2e`.
    pub kind: RunKind,
    /// Measured, or simulated in tests.
    pub provenance: Provenance,
    /// Which run.
    pub identity: &'a Identity,
    /// The command line.
    pub command: Vec<String>,
    /// Wall time.
    pub wall: Nanos,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The order of runs.
    pub schedule: &'a Schedule,
    /// The model.
    pub model: &'a dyn Model,
    /// The sides, the engine first.
    pub sides: &'a [Side],
    /// Parity.
    pub manifest: Vec<ManifestField>,
    /// The ceiling.
    pub ceiling: Option<Ceiling>,
    /// Every sample.
    pub samples: &'a [Sample],
    /// What they come to.
    pub analysis: Analysis,
    /// The machine before each block.
    pub telemetry: Vec<harness_spec::record::BlockTelemetry>,
    /// What each side used of the run's GPU.
    pub gpus: BTreeMap<SideRole, SideGpu>,
    /// The steps of a token.
    pub breakdowns: Vec<Breakdown>,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether what was timed computes the model.
    pub quality: Option<Quality>,
    /// What idle sides used.
    pub idle: &'a [IdleUse],
    /// Which peer it is, and anything else said before.
    pub notes: Vec<String>,
}

/// Builds the record.
pub fn build(parts: Parts<'_>) -> RunRecord {
    let facts = parts.model.facts();
    let sides: Vec<SideFacts> = parts.sides.iter().map(|s| side_facts(s, &parts, facts)).collect();
    let mut notes = parts.notes.clone();
    notes.extend(idle_notes(parts.sides, parts.idle));
    for s in &sides {
        if let Some(share) = s.bandwidth_efficiency.value.filter(|e| *e > 1.0) {
            notes.push(format!(
                "finding: {} moves {:.0} % of the measured read rate; either the byte model or that rate is off, and no verdict rests on it",
                s.label,
                share * 100.0
            ));
        }
    }
    notes.extend(parts.analysis.notes.iter().cloned());
    let headline = headline(&parts);
    let plan = parts.plan;
    RunRecord {
        schema: SCHEMA_VERSION,
        kind: parts.kind,
        provenance: parts.provenance,
        id: parts.identity.id.clone(),
        started: parts.identity.started.format(&Rfc3339).unwrap_or_default(),
        wall_ns: parts.wall,
        command: parts.command,
        tool: environment::tool(),
        environment: parts.identity.environment.clone(),
        model: facts.clone(),
        suite: plan.suite.facts(&plan.lengths, |text| parts.model.ids(text)),
        plan: Plan {
            runs: plan.runs,
            block_len: plan.block_len,
            order: match (parts.kind, parts.schedule.first) {
                (RunKind::E2e, _) => "one side".to_owned(),
                (RunKind::Compare, SideRole::Engine) => "ABBA, A the engine, A first".to_owned(),
                (RunKind::Compare, SideRole::Peer) => "ABBA, A the peer, A first".to_owned(),
            },
            warmup: plan.warmup,
            seed: plan.seed,
            threads: plan.threads,
            device: plan.device.to_string(),
            kv: plan.kv.name().to_owned(),
        },
        sides,
        manifest: parts.manifest,
        ceiling: parts.ceiling,
        metrics: parts.analysis.metrics,
        server_reported: parts.analysis.server_reported,
        hygiene: parts.analysis.hygiene,
        telemetry: parts.telemetry,
        breakdowns: parts.breakdowns,
        checks: parts.checks,
        quality: parts.quality,
        headline,
        notes,
    }
}

fn side_facts(side: &Side, parts: &Parts<'_>, model: &ModelFacts) -> SideFacts {
    let kept = parts
        .samples
        .iter()
        .zip(&parts.analysis.reasons)
        .filter(|(s, reason)| s.side == side.role && reason.is_none())
        .map(|(s, _)| s)
        .collect::<Vec<_>>();
    let (achieved_gb_per_s, bandwidth_efficiency) = bandwidth::efficiency(model, &kept, parts.ceiling.as_ref());
    let rss_peak_bytes = match side.pid.and_then(process::rss_peak_bytes) {
        Some(bytes) => Measure::measured(bytes as f64),
        // The process may be gone by now; its samples then hold the largest that was seen.
        None => match parts.samples.iter().filter(|s| s.side == side.role).filter_map(|s| s.rss_bytes).max() {
            Some(bytes) => Measure::measured(bytes as f64),
            None => Measure::missing("the server's process cannot be seen from here"),
        },
    };
    SideFacts {
        role: side.role,
        kind: side.kind.to_owned(),
        label: side.label.clone(),
        endpoint: side.endpoint.to_string(),
        version: side.version.clone(),
        model: side.model.clone(),
        threads: side.threads,
        options: side.options.clone(),
        load_ms: side.load_ms.clone(),
        rss_peak_bytes,
        bandwidth_efficiency,
        achieved_gb_per_s,
        gpu: parts.gpus.get(&side.role).cloned(),
    }
}

/// Share of a core above which an idle side is not idle.
const IDLE_LIMIT: f64 = 0.05;

fn idle_notes(sides: &[Side], idle: &[IdleUse]) -> Vec<String> {
    if sides.len() < 2 {
        return Vec::new();
    }
    sides
        .iter()
        .map(|side| {
            let shares: Vec<f64> = idle.iter().filter(|u| u.side == side.role).map(|u| u.share_of_core).collect();
            match (harness_measure::describe::median(&shares), shares.iter().copied().reduce(f64::max)) {
                (Some(median), Some(max)) => {
                    let verdict = if median > IDLE_LIMIT { "was not idle" } else { "was idle" };
                    format!(
                        "{} {verdict} in the other side's blocks: {:.1} % of a core, at most {:.1} %",
                        side.label,
                        median * 100.0,
                        max * 100.0
                    )
                }
                _ => format!("{}: whether it was idle in the other side's blocks cannot be seen", side.label),
            }
        })
        .collect()
}

/// The sentence that a reader takes away.
fn headline(parts: &Parts<'_>) -> Headline {
    let a = &parts.analysis;
    let Some(m) = a.metrics.iter().find(|m| m.id == MetricId::DecodeTokPerS && m.group == ALL) else {
        return Headline { text: "nothing was measured".into(), verdict: a.verdict, blocked: a.blocked.clone() };
    };
    let median = |s: &harness_spec::record::SideSummary| s.estimate.as_ref().map(|e| e.median);
    let text = match (parts.kind, &m.ratio, median(&m.engine), m.peer.as_ref().and_then(median)) {
        (RunKind::E2e, ..) if parts.plan.suite.prompts.iter().filter(|p| p.depth.is_some()).count() > 1 => {
            by_depth(parts)
        }
        (RunKind::E2e, _, engine, peer) => match engine.or(peer) {
            Some(rate) => format!("{}: {rate:.1} tok/s decode at batch 1", parts.sides[0].label),
            None => "no run was valid".to_owned(),
        },
        (RunKind::Compare, Some(r), Some(engine), Some(peer)) => {
            let (us, them) = (&parts.sides[0].label, &parts.sides[1].label);
            let numbers = format!(
                "decode {engine:.1} against {peer:.1} tok/s at batch 1, ratio {:.3} (CI {:.3} to {:.3} at {:.2} %), {} pairs",
                r.ratio,
                r.ci[0],
                r.ci[1],
                r.level * 100.0,
                r.n_pairs
            );
            let word = if a.blocked.is_some() { None } else { a.verdict };
            match word {
                Some(Verdict::Faster) => format!("{us} is faster than {them}: {numbers}"),
                Some(Verdict::Slower) => format!("{us} is slower than {them}: {numbers}"),
                Some(Verdict::Tie) => format!("{us} and {them} are tied: {numbers}"),
                Some(Verdict::Unstable) => {
                    format!("too few valid pairs for a verdict on {us} against {them}: {numbers}")
                }
                Some(Verdict::Inconclusive) => format!("inconclusive between {us} and {them}: {numbers}"),
                Some(Verdict::Withheld) | None => format!("no verdict on {us} against {them}: {numbers}"),
            }
        }
        (RunKind::Compare, ..) => "no pair of runs was valid, so nothing can be said".to_owned(),
    };
    Headline { text, verdict: a.verdict, blocked: a.blocked.clone() }
}

/// Decode rates of one side, depth by depth: one over all of them would say nothing.
fn by_depth(parts: &Parts<'_>) -> String {
    let rates = parts.plan.suite.prompts.iter().filter_map(|p| {
        let of_prompt = |m: &&MetricComparison| {
            m.id == MetricId::DecodeTokPerS && m.group.rsplit_once('/').is_some_and(|(id, _)| id == p.id)
        };
        let m = parts.analysis.metrics.iter().find(of_prompt)?;
        let peer = m.peer.as_ref().and_then(|p| p.estimate.as_ref());
        let estimate = m.engine.estimate.as_ref().or(peer)?;
        Some(format!("{:.1} tok/s at a depth of {}", estimate.median, p.depth?))
    });
    let rates: Vec<String> = rates.collect();
    match rates.is_empty() {
        true => "no run was valid".to_owned(),
        false => format!("{}: decode at batch 1: {}", parts.sides[0].label, rates.join(", ")),
    }
}

/// Writes the final reason into each sample.
pub fn mark(samples: &mut [Sample], reasons: &[Option<DropReason>]) {
    for (sample, reason) in samples.iter_mut().zip(reasons) {
        sample.dropped = *reason;
    }
}
