//! `bench selftest stats`: are the statistics calibrated? On the scripted device always, on hardware where it is asked for.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, anyhow};
use harness_measure::cell::Settings;
use harness_measure::runoff::DuelSamples;
use harness_measure::selftest::{Effort, INJECTED, OnHardware, on_target, scripted, steps};
use harness_spec::record::{
    KERNEL_SCHEMA_VERSION, Outcome as TrialOutcome, Provenance, SELFTEST_SCHEMA_VERSION, SelftestFigure, SelftestKind,
    SelftestPlan, SelftestRun, StopReason, Trial, TrialCost, TrialPurpose,
};
use harness_spec::units::Nanos;
use harness_spec::{Cell, DeviceKey, Policy, Target};

use super::{kernels, print_json, print_text};
use crate::args::{DeviceArgs, SelftestArgs, SelftestStatsArgs, SelftestWhat, VariantChoice};
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::kernel_plan::plan as plan_suite;
use crate::machine::environment;
use crate::private::selftest_without_home;
use crate::record::Identity;
use crate::session::trials::TrialFile;
use crate::target::open::{self, Checks};
use crate::{interrupt, kernel_suite, progress};

/// `bench selftest`. 0: every figure lies within its range. 3: one does not, or it could not be taken.
pub fn run(args: &SelftestArgs, json: bool, command: &[String]) -> Outcome {
    match &args.what {
        SelftestWhat::Stats(args) => stats(args, json, command),
    }
}

fn stats(args: &SelftestStatsArgs, json: bool, command: &[String]) -> Outcome {
    // What is wrong with the device or the workload is found before anything is computed.
    let raced = args.device.as_deref().map(|device| Raced::open(args, device)).transpose()?;
    let identity = Identity::of("selftest", args.out.as_deref())?;
    let stop = interrupt::flag().context("watching for Ctrl-C")?;
    let began = Instant::now();
    let effort = Effort { suites: args.suites, comparisons: args.suites, ..Effort::FULL };
    let bar = progress::steps("scripted suites", steps(&effort));
    let figures = scripted(args.seed, &effort, &stop, &mut || bar.inc(1));
    bar.finish_and_clear();
    let mut record = SelftestRun {
        schema: SELFTEST_SCHEMA_VERSION,
        kind: SelftestKind::Selftest,
        id: identity.id.clone(),
        started: identity.started(),
        wall_ns: Nanos(0),
        command: command.to_vec(),
        tool: environment::tool(),
        environment: identity.environment.clone(),
        device: raced.as_ref().map(|r| r.device.clone()),
        plan: SelftestPlan {
            seed: args.seed,
            suites: args.suites,
            pairs: Settings::default().pairs as u64,
            runs: effort.runs,
            resamples: effort.resamples as u64,
            injected: INJECTED,
            kernel: raced.as_ref().map(Raced::name),
        },
        incomplete: figures
            .is_none()
            .then(|| "interrupted by a signal before the scripted suites were over".to_owned()),
        figures: figures.unwrap_or_default(),
        notes: few(args.suites).into_iter().collect(),
    };
    if record.incomplete.is_none()
        && let Some(raced) = raced
    {
        raced.play(args, &effort, &stop, &identity, &mut record)?;
    }
    record.wall_ns = Nanos(began.elapsed().as_nanos() as u64);
    conclude(selftest_without_home(record), &identity, json)
}

/// What a reader must know of a short selftest.
fn few(suites: u64) -> Option<String> {
    let full = Effort::FULL.suites;
    (suites < full).then(|| format!("{suites} suites of each kind were run, and the rule asks for {full}"))
}

/// Writes, prints and judges.
fn conclude(record: SelftestRun, identity: &Identity, json: bool) -> Outcome {
    reports::write_selftest(&identity.folder, &record)
        .with_context(|| format!("writing the report to {}", identity.folder.display()))?;
    if json {
        print_json(&record)?
    } else {
        print_text(&reports::selftest_terminal(&record))?
    }
    eprintln!("results: {} (run.json, report.html)", identity.folder.display());
    if let Some(why) = &record.incomplete {
        return Err(anyhow!("{why}\nhint: run it again to its end").into());
    }
    let outside: Vec<String> = record.failed().map(said).collect();
    if outside.is_empty() {
        return Ok(Exit::Done);
    }
    let hint = match record.failed().all(|f| f.provenance == Provenance::Derived) {
        true => "the scripted figures hold, so look for noise on this host with `bench doctor` and run it again",
        false => "verdicts of this build are not to be believed; run it with another --seed and report both",
    };
    Err(anyhow!("the statistics are out of their range: {}\nhint: {hint}", outside.join("; ")).into())
}

fn said(f: &SelftestFigure) -> String {
    let Some(value) = f.value else { return format!("{}: of no experiment is there a figure", f.name) };
    let bound = match (f.at_least, f.at_most) {
        (Some(least), _) if value < least => format!("less than {:.1} %", least * 100.0),
        (_, most) => format!("more than {:.1} %", most.unwrap_or(1.0) * 100.0),
    };
    format!("{} in {:.1} % of {}, {bound}", f.name, value * 100.0, f.of)
}

/// A kernel on an open device.
struct Raced {
    opened: kernels::Opened,
    device: DeviceKey,
    cell: Cell,
}

impl Raced {
    fn open(args: &SelftestStatsArgs, device: &str) -> Result<Raced, Failure> {
        let place = open::places(Some(device))?[0];
        let device = DeviceArgs {
            device: Some(device.to_owned()),
            simulate: None,
            kernels: Vec::new(),
            threads: args.threads,
            timeout: None,
        };
        let opened = kernels::open(place, &device, Checks::Quick, None)?;
        let policy = if place.is_gpu() { Policy::COLD_GRAPH } else { Policy::COLD_EAGER };
        let suite = kernel_suite::of_workloads(std::slice::from_ref(&args.workload));
        let planned = plan_suite(&suite, &[policy], &opened.spaces, VariantChoice::Table, args.seed).map_err(usage)?;
        let first = planned.workloads.first().and_then(|w| Some((w, w.defender().or(w.first().first().copied())?)));
        let Some((workload, at)) = first else {
            let notes = planned.notes.join("\n  ");
            return Err(anyhow!("no kernel of {} runs on this device:\n  {notes}", args.workload).into());
        };
        let (cell, device) = (workload.cell(at), opened.target.device());
        Ok(Raced { opened, device, cell })
    }

    fn name(&self) -> String {
        format!("{} on {} {}", self.cell.variant, self.cell.workload, self.cell.policy)
    }

    /// Races it against itself, and keeps every sample.
    fn play(
        mut self,
        args: &SelftestStatsArgs,
        effort: &Effort,
        stop: &AtomicBool,
        identity: &Identity,
        record: &mut SelftestRun,
    ) -> Result<(), Failure> {
        let bar = progress::steps("duels on the device", args.suites);
        let (target, resamples) = (&mut self.opened.target, effort.resamples);
        let played = on_target(target, &self.cell, args.seed, args.suites, resamples, stop, &mut || bar.inc(1));
        bar.finish_and_clear();
        match played {
            Ok(OnHardware { figures, duels, key, stopped }) => {
                let mut file = TrialFile::create(&identity.folder)?;
                for (number, duel) in duels.iter().enumerate() {
                    for trial in self.trials(&key, number, duel) {
                        file.keep(&trial).map_err(anyhow::Error::new)?;
                    }
                }
                record.figures.extend(figures);
                record.incomplete =
                    stopped.then(|| format!("interrupted by a signal after {} of {} duels", duels.len(), args.suites));
            }
            // The scripted figures stand; that the device failed is the end all the same.
            Err(failure) => {
                record.incomplete = Some(format!("{} on {}: {failure}", self.cell.variant, self.device.name))
            }
        }
        Ok(())
    }

    /// Both sides of a duel as lines of `trials.jsonl`.
    fn trials(&self, key: &str, number: usize, duel: &DuelSamples) -> [Trial; 2] {
        [("a", true), ("b", false)].map(|(side, first)| Trial {
            schema: KERNEL_SCHEMA_VERSION,
            provenance: Provenance::Measured,
            purpose: TrialPurpose::RunOff,
            cell: self.cell.clone(),
            key: format!("{key}-against-itself-{number}-{side}"),
            outcome: TrialOutcome::Measured,
            warm_up: None,
            samples: duel.pairs.iter().map(|p| if first { p.challenger.clone() } else { p.defender.clone() }).collect(),
            stop: Some(StopReason::Complete),
            check: None,
            resources: None,
            bytes: None,
            flops: None,
            redundant: None,
            cost: TrialCost::default(),
            at_ns: Nanos(0),
        })
    }
}
