//! `bench tune`: the search, and the table that it ends in.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ::kernels::cuda::library::cublaslt;
use anyhow::{Context, anyhow};
use harness_measure::tune::StrategyKind;
use harness_spec::record::{KernelRunKind, Provenance, Trial, TrialPurpose};

use super::{in_engine, kernel_report, kernels, log, promote, replay, timing};
use crate::args::{Budget, Command, Strategy, TimingArgs, TuneArgs, WorkloadArgs};
use crate::exit::{Exit, Outcome, usage};
use crate::kernel_suite::KernelSuite;
use crate::tables::{DeviceTable, Merged, RowChange};
use crate::target::open::{self, Checks};

/// Wall time of a tune that is not said otherwise: what remains of three minutes goes to the canary behind it, and to a
/// run-off that began within it.
const BUDGET: Duration = Duration::from_secs(150);

/// What a tune on a CPU leaves out.
const NO_PROMPTS: &str = "on a CPU the kernel that wins with one vector multiplies prompts too, several vectors at a time, which is \
                          not timed here: --promote MODEL measures prefill in the engine before the table is replaced";

/// `bench tune`.
pub fn run(args: TuneArgs, json: bool, command: Vec<String>) -> Outcome {
    let (args, command) = match &args.timing.resume {
        None => (args, command),
        Some(folder) => {
            let (first, command) = timing::first_command(folder, "tune")?;
            let Command::Tune(first) = first else { return Err(timing::other_verb(folder, "tune")) };
            let timing = TimingArgs { resume: args.timing.resume.clone(), ..args.timing.over(first.timing) };
            let accept_suspect = args.accept_suspect || first.accept_suspect;
            (TuneArgs { timing, accept_suspect, ..first }, command)
        }
    };
    let args = within_budget(args);
    if let Some(space) = &args.replay {
        let only = (args.strategy != Strategy::Default).then(|| StrategyKind::from(args.strategy));
        return replay::run(space, only, args.share, args.searches, json);
    }
    if !(args.share > 0.0 && args.share <= 1.0) {
        return Err(usage(anyhow!(
            "--share {} is no share of a space; give a number above 0 and at most 1",
            args.share
        )));
    }
    let place = open::places(args.device.device.as_deref())?[0];
    let engine = in_engine::asked(&args.timing.policy);
    if engine {
        in_engine::check(&args, place)?;
    } else if args.context.is_some() || args.kv.is_some() {
        return Err(usage(anyhow!(
            "--context and --kv are those of the engine\nhint: give --policy cold+in_engine, or leave them out"
        )));
    }
    let scripted = args.device.simulate.is_some();
    // The engine says by itself what a token launches; a scripted device has none.
    let suite = match engine && !scripted {
        true => None,
        false => Some(timing::suite(&args.what, None, place.is_gpu() && !scripted)?),
    };
    let suite = suite.map(|mut suite| {
        let of_a_model = args.what.model.is_some() && args.what.op.is_empty();
        if of_a_model
            && place.is_gpu()
            && !scripted
            && let Ok(library) = cublaslt()
        {
            suite.leave_prompts_to(&format!("cuBLASLt {}", library.version_text()));
        }
        suite
    });
    let opened = kernels::open(place, &args.device, Checks::Quick, args.table.as_deref())?;
    let provenance = opened.provenance;
    if provenance == Provenance::Simulated && args.table.is_none() && !args.timing.dry_run {
        // A scripted time must never choose what a real engine runs.
        eprintln!("note: a simulated device has no table; name one with --table to see the winners in it");
    }
    if args.promote.is_some() && provenance == Provenance::Simulated {
        return Err(usage(anyhow!(
            "--promote tries a table in the engine, which runs on no simulated device\nhint: leave --simulate out"
        )));
    }
    let (table, registry) = (opened.spaces.table().clone(), opened.spaces.registry().clone());
    // What the engine of the worker reads stays until the run is over.
    let (suite, bench, _in_use) = match (engine, suite) {
        (false, Some(mut suite)) => {
            leave_unlaunched(&mut suite, &args.what);
            leave_to_engine(&mut suite, &args.what, &table);
            (suite, opened.bench(), None)
        }
        (_, suite) => {
            let in_engine = in_engine::open(opened, &args, suite)?;
            (in_engine.suite, in_engine.bench, in_engine.in_use)
        }
    };
    if !place.is_gpu() && !scripted && args.promote.is_none() {
        eprintln!("note: {NO_PROMPTS}");
    }
    let job = timing::Job {
        kind: KernelRunKind::Tune,
        suite: &suite,
        timing: &args.timing,
        variants: crate::args::VariantChoice::All,
        in_engine: engine,
        adjust: &|plan| {
            plan.strategy = args.strategy.into();
            plan.share = args.share;
            if args.timing.dry_run {
                return Ok(());
            }
            if let Some(path) = &args.record_space {
                creatable(path)?;
            }
            let policies: Vec<_> = plan.workloads.iter().map(|w| w.policy).collect();
            table.writable(&policies)
        },
        command,
        json,
    };
    let Some(timed) = timing::time(&job, bench)? else { return Ok(Exit::Done) };
    // What cannot be printed, or written beside the table, is said at the end: the table comes first.
    let printed = kernel_report::print(&timed.record, json);
    if let Some(why) = timed.record.suspect.as_ref().filter(|_| !args.accept_suspect) {
        // Times of a device that was another one halfway say nothing of what the table holds: its rows stay.
        let recorded = args.record_space.as_deref().map_or(Ok(()), |path| record_space(path, &timed.trials));
        printed?;
        recorded?;
        let folder = timed.identity.folder.display();
        return Err(anyhow!(
            "the table was left as it was, since the run is suspect: {why}\nhint: `bench doctor` names sources of noise; tune \
             again without them, or take the winners all the same with bench tune --resume {folder} --accept-suspect"
        )
        .into());
    }
    let Merged { table: merged, changes, kept } = table.merge(&timed.record, &registry);
    for workload in &kept {
        eprintln!("note: {workload} keeps its row, which was chosen in the engine: a kernel alone says less");
    }
    for change in changes.iter().filter(|c| c.from.as_ref() != Some(&c.to)) {
        eprintln!("{change}");
    }
    let (merged, changes) = match (&args.promote, merged.file()) {
        (Some(model), Some(new)) => {
            let tried = promote::promote(&promote::Contest {
                model,
                place,
                threads: args.device.threads,
                old: &table,
                new,
                changes: &changes,
                same_too: false,
                seed: timed.record.plan.seed,
                folder: &timed.identity.folder,
            })?;
            (tried.table.unwrap_or_else(|| table.clone()), tried.taken)
        }
        _ => (merged, changes),
    };
    // A run that was stopped before its first winner leaves the table as it was.
    let written = if changes.is_empty() { None } else { merged.save()? };
    if provenance == Provenance::Measured {
        note(&timed, &changes);
    }
    let recorded = args.record_space.as_deref().map_or(Ok(()), |path| record_space(path, &timed.trials));
    let exit = timing::conclude(&timed, written.as_ref())?;
    recorded?;
    printed.map(|()| exit)
}

/// The default budget. One that goes on finishes what the first part left, and who asks for everything waits for it.
fn within_budget(args: TuneArgs) -> TuneArgs {
    let bounded = args.timing.resume.is_none() && args.strategy != Strategy::Exhaustive;
    let budget = args.timing.budget.or(bounded.then_some(Budget::Within(BUDGET)));
    TuneArgs { timing: TimingArgs { budget, ..args.timing }, ..args }
}

/// Leaves out what a model implies and the engine never launches there, as a fused op takes its place.
fn leave_unlaunched(suite: &mut KernelSuite, what: &WorkloadArgs) {
    if !what.op.is_empty() {
        return;
    }
    let (launched, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut suite.workloads).into_iter().partition(|w| w.tensors.is_empty() || w.per_token > 0);
    suite.workloads = launched;
    let ops: BTreeSet<&str> = others.iter().map(|w| w.workload.op.as_str()).collect();
    if !ops.is_empty() {
        let ops = ops.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!("the engine launches fused ops in place of {ops} here, which are left out; --op times them");
        suite.notes.push(text);
    }
}

/// Leaves out what a model implies and the table has a row for that was chosen in the engine: it would be kept all the same.
/// What was asked for by name is timed.
fn leave_to_engine(suite: &mut KernelSuite, what: &WorkloadArgs, table: &DeviceTable) {
    if !what.op.is_empty() {
        return;
    }
    let (kept, timed): (Vec<_>, Vec<_>) = std::mem::take(&mut suite.workloads)
        .into_iter()
        .partition(|w| !w.tensors.is_empty() && table.chosen_in_engine(&w.workload));
    suite.workloads = timed;
    suite.notes.extend(kept.iter().map(|w| {
        format!("{} is left out: its row was chosen in the engine; --op {} times it", w.workload, w.workload.op)
    }));
}

/// Whether the space can be written later, found before anything is measured. What lies there stays until it is.
fn creatable(path: &Path) -> anyhow::Result<()> {
    let there = path.exists();
    std::fs::OpenOptions::new().append(true).create(true).open(path).map(drop).with_context(|| {
        format!("cannot write to the space {}\nhint: name another file with --record-space", path.display())
    })?;
    if !there {
        std::fs::remove_file(path).with_context(|| format!("removing the empty {}", path.display()))?;
    }
    Ok(())
}

/// Writes candidates and their times as a space that `--replay` reads: of the samples of each the least, the quartiles and
/// the greatest, which leave its median what it was.
fn record_space(path: &Path, trials: &[Trial]) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for trial in trials.iter().filter(|t| t.purpose == TrialPurpose::Candidate) {
        let mut kept: Vec<_> = trial.samples.iter().filter(|s| s.dropped.is_none()).cloned().collect();
        kept.sort_by(|a, b| a.ns.total_cmp(&b.ns));
        let n = kept.len();
        // An even number keeps both of its middle samples.
        let mut at = vec![0, n / 4, n.saturating_sub(1) / 2, n / 2, (3 * n) / 4, n.saturating_sub(1)];
        if n % 2 == 1 {
            at.remove(2);
        }
        let samples = if n < 6 { kept } else { at.into_iter().map(|i| kept[i].clone()).collect() };
        serde_json::to_writer(&mut text, &Trial { samples, warm_up: None, ..trial.clone() })?;
        text.push(b'\n');
    }
    std::fs::write(path, text).with_context(|| {
        format!("writing the space {}\nhint: --replay also reads the trials.jsonl of the run", path.display())
    })?;
    eprintln!("space: {}", path.display());
    Ok(())
}

/// One line of the optimisation log for each row that changed.
fn note(timed: &timing::Timed, changes: &[RowChange]) {
    for change in changes.iter().filter(|c| c.from.as_ref() != Some(&c.to)) {
        let from = change.from.as_ref().map_or_else(|| "the default".to_owned(), |v| v.short());
        // In the engine the time is that of a token.
        let token = change.policy.is_in_engine();
        let (kernel, rate) = (|ns: f64| (!token).then_some(ns / 1e3), |ns: f64| token.then_some(1e9 / ns));
        log::note(&log::Entry {
            before_kernel_us: change.before_ns.and_then(kernel),
            kernel_us: kernel(change.median_ns),
            before_tok_per_s: change.before_ns.and_then(rate),
            tok_per_s: rate(change.median_ns),
            verdict: Some(change.reason.clone()),
            device: Some(timed.record.device.name.clone()),
            record: Some(timed.record.id.clone()),
            ..log::Entry::now("tune", format!("{} {}: {from} -> {}", change.workload, change.policy, change.to.short()))
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::kernel_suite::{Overrides, of_model, of_workloads};

    #[test]
    fn what_the_engine_chose_is_left_out_of_a_model_and_timed_where_it_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("t.toml");
        let text = "schema = 1\npolicy = \"cold+graph\"\ndate = \"\"\ntool = \"\"\nrecord = \"\"\n[device]\nbackend = \"cuda\"\n\
                    name = \"G\"\narch = \"sm_90\"\n[device.conditions]\n[[rows]]\nop = \"gemv_add_q4_0\"\nshape = \"K=4096 \
                    N=4096\"\nlayout = \"planes\"\nvariant = \"gemv_add_q4_0/plain@cuda\"\nmedian_ns = 1.0\nreason = \"\"\nkey = \
                    \"\"\npolicy = \"cold+in_engine\"\n";
        std::fs::write(&path, text).unwrap();
        let device = harness_spec::DeviceKey {
            backend: "cuda".into(),
            name: "G".into(),
            arch: "sm_90".into(),
            conditions: Default::default(),
        };
        let limits = variants::Limits::of_architecture(90).unwrap();
        let table = DeviceTable::load(&device, limits, Some(&path), Provenance::Measured).unwrap();
        let mut suite = of_model("llama-3.1-8b", false, true, &Overrides::default()).unwrap();
        let all = suite.workloads.len();
        let mut what = match crate::args::Bench::try_parse_from(["bench", "tune", "--model", "m"]).unwrap().command {
            Command::Tune(args) => args.what,
            other => panic!("{other:?}"),
        };
        leave_to_engine(&mut suite, &what, &table);
        assert_eq!(suite.workloads.len(), all - 1);
        assert!(suite.notes[0].contains("gemv_add_q4_0 K=4096 N=4096 is left out"), "{:?}", suite.notes);
        what.op = vec!["gemv_add_q4_0".into()];
        let mut named = of_workloads(&["gemv_add_q4_0 K=4096 N=4096".parse().unwrap()]);
        leave_to_engine(&mut named, &what, &table);
        assert_eq!(named.workloads.len(), 1);
    }

    #[test]
    fn what_no_token_launches_is_left_out_of_a_model_with_a_note_and_timed_where_it_is_named() {
        let args = |text: &str| match crate::args::Bench::try_parse_from(text.split(' ')).unwrap().command {
            Command::Tune(args) => args,
            other => panic!("{other:?}"),
        };
        let plain = args("bench tune --model m");
        let mut suite = of_model("qwen2.5-1.5b", false, true, &Overrides::default()).unwrap();
        leave_unlaunched(&mut suite, &plain.what);
        let ops: Vec<&str> = suite.workloads.iter().map(|w| w.workload.op.as_str()).collect();
        assert!(ops.contains(&"gate_up_q4_0") && ops.contains(&"gemm_q4_0"), "{ops:?}");
        assert!(!ops.iter().any(|op| op.starts_with("gemv_q") || *op == "attn_decode"), "{ops:?}");
        assert!(suite.notes.iter().any(|n| n.contains("in place of attn_decode, gemv_q4_0")), "{:?}", suite.notes);
        let mut suite = of_model("qwen2.5-1.5b", false, true, &Overrides::default()).unwrap();
        let all = suite.workloads.len();
        leave_unlaunched(&mut suite, &args("bench tune --model m --op gemv_q4_0").what);
        assert_eq!(suite.workloads.len(), all);
    }

    #[test]
    fn a_tune_has_a_budget_unless_it_is_resumed_or_asks_for_everything() {
        let budget = |more: &str| {
            let text = format!("bench tune --model m{more}");
            match crate::args::Bench::try_parse_from(text.split(' ')).unwrap().command {
                Command::Tune(args) => within_budget(args).timing.budget,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(budget(""), Some(Budget::Within(BUDGET)));
        assert_eq!(budget(" --budget none"), Some(Budget::Unlimited));
        assert_eq!(budget(" --budget 20s"), Some(Budget::Within(Duration::from_secs(20))));
        assert_eq!((budget(" --resume o"), budget(" --strategy exhaustive")), (None, None));
    }
}
