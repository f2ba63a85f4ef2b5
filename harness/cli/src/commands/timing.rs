//! What `sweep` and `tune` share: a device behind a worker, a plan, the timed run, its record and its files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, anyhow};
use harness_measure::cell::{OUT_OF_TIME, Settings};
use harness_measure::tune::{Costs, KernelOutcome, Plan, WorkloadPlan, run as run_plan};
use harness_spec::record::{KERNEL_SCHEMA_VERSION, KernelPlan, KernelRun, KernelRunKind, Provenance, Trial};
use harness_spec::units::Nanos;
use harness_spec::{Policy, Target};
use serde::{Deserialize, Serialize};

use super::{kernel_report, print_json, print_text};
use crate::args::{Budget, TimingArgs, VariantChoice, WorkloadArgs};
use crate::exit::{Exit, Failure, usage};
use crate::interrupt;
use crate::kernel_plan::{Planned, Spaces, plan as plan_suite};
use crate::kernel_suite::{self, KernelSuite, Overrides};
use crate::machine::environment;
use crate::places;
use crate::private::kernel_run_without_home;
use crate::record::Identity;
use crate::session::bar::KernelBar;
use crate::session::trials::{RunJournal, TrialCache, TrialFile};
use crate::target::WorkerTarget;

/// The suite that the flags name; on a GPU a model comes with what the engine launches there.
///
/// # Errors
/// Wrong usage, with the fix.
pub fn suite(a: &WorkloadArgs, default: Option<&str>, on_gpu: bool) -> Result<KernelSuite, Failure> {
    let overrides = Overrides { quants: a.quant.clone(), head: a.head.clone(), lengths: a.lengths.clone() };
    let mut suite = match (&a.suite, &a.model, a.workload.as_slice(), default) {
        (Some(name), ..) => kernel_suite::load(name, &overrides).map_err(usage)?,
        (None, Some(model), ..) => kernel_suite::of_model(model, a.joined, on_gpu, &overrides).map_err(usage)?,
        (None, None, [], Some(name)) => kernel_suite::load(name, &overrides).map_err(usage)?,
        (None, None, [], None) => {
            return Err(usage(anyhow!(
                "what to tune is not said\nhint: --model qwen2.5-1.5b, --suite quick, or --workload \"gemv_q4_0 N=4096 K=4096\""
            )));
        }
        (None, None, all, _) => kernel_suite::of_workloads(all),
    };
    if !a.op.is_empty() {
        let ops: std::collections::BTreeSet<&str> = suite.workloads.iter().map(|w| w.workload.op.as_str()).collect();
        if let Some(unknown) = a.op.iter().find(|op| !ops.contains(op.as_str())) {
            let known = ops.into_iter().collect::<Vec<_>>().join(", ");
            return Err(usage(anyhow!("suite {} has no op `{unknown}`\nhint: it has {known}", suite.name)));
        }
        suite.workloads.retain(|w| a.op.contains(&w.workload.op));
    }
    Ok(suite)
}

/// A device that is open, with the spaces of its kernels.
pub struct Bench {
    /// The device.
    pub target: WorkerTarget,
    /// Its kernels.
    pub spaces: Box<dyn Spaces>,
    /// Measured, or simulated.
    pub provenance: Provenance,
}

/// What a verb asks for.
pub struct Job<'a> {
    /// `sweep` or `tune`.
    pub kind: KernelRunKind,
    /// Workloads.
    pub suite: &'a KernelSuite,
    /// Flags of timing.
    pub timing: &'a TimingArgs,
    /// Which variants.
    pub variants: VariantChoice,
    /// Whether a model is loaded in the engine, or its device is scripted.
    pub in_engine: bool,
    /// Changes the plan before it is run, and refuses it where its results could not be kept.
    pub adjust: &'a dyn Fn(&mut Plan) -> anyhow::Result<()>,
    /// The command line.
    pub command: Vec<String>,
    /// JSON on stdout.
    pub json: bool,
}

/// A finished run, on disk.
pub struct Timed {
    /// Its record.
    pub record: KernelRun,
    /// Its trials.
    pub trials: Vec<Trial>,
    /// Where it lies.
    pub identity: Identity,
}

/// `plan.json`: what a killed run needs to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    /// Version of this file.
    pub schema: u32,
    /// Id of the run.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// The seed, drawn or given.
    pub seed: u64,
    /// The command line, from which the plan is made again.
    pub command: Vec<String>,
}

/// What a tune takes on a processor: over whole tunes of two threads an evaluation took 0.07 to 0.9 s, the larger the matrix
/// the longer, and floor, first check and run-off of a workload 0.3 to 3 s.
const COSTS_ON_CPU: Costs = Costs { workload: Nanos(3_000_000_000), evaluation: Nanos(600_000_000) };

/// The file's name in a run's folder.
const PLAN_FILE: &str = "plan.json";

/// Reads what a run in this folder was.
///
/// # Errors
/// It is no run that can go on.
pub fn resumable(folder: &Path) -> Result<PlanFile, Failure> {
    let path = folder.join(PLAN_FILE);
    let read = || -> anyhow::Result<PlanFile> {
        let bytes = std::fs::read(&path)?;
        let file: PlanFile = serde_json::from_slice(&bytes)?;
        anyhow::ensure!(file.schema == KERNEL_SCHEMA_VERSION, "it has schema {}", file.schema);
        Ok(file)
    };
    read().map_err(|e| {
        usage(e.context(format!(
            "{} is no run that can go on\nhint: give the folder of a sweep or tune",
            folder.display()
        )))
    })
}

/// Plans, runs, and writes the folder. `None` after a dry run.
///
/// # Errors
/// Wrong usage, a device that is not there, a folder that cannot be written, or a run that timed nothing.
pub fn time(job: &Job<'_>, mut bench: Bench) -> Result<Option<Timed>, Failure> {
    let resumed = job.timing.resume.as_deref().map(resumable).transpose()?;
    let device = bench.target.device();
    let cache = match job.timing.no_cache {
        true => None,
        false => Some(TrialCache::of(&places::cache()?, &device, bench.provenance)),
    };
    // A search asks by its seed: one that is repeated with the seed of its trials finds them.
    let of_trials = cache.as_ref().filter(|_| job.kind == KernelRunKind::Tune);
    let drawn = || of_trials.map_or_else(rand::random, |cache| cache.seed(!job.timing.dry_run));
    let seed = resumed.as_ref().map(|r| r.seed).or(job.timing.seed).unwrap_or_else(drawn);
    let policies = policies(job, &bench)?;
    let mut planned = plan_suite(job.suite, &policies, bench.spaces.as_ref(), job.variants, seed).map_err(usage)?;
    if job.kind == KernelRunKind::Tune {
        planned = planned.heaviest_first();
    }
    if planned.workloads.is_empty() {
        let notes = planned.notes.join("\n  ");
        return Err(anyhow!("nothing of suite {} runs on this device:\n  {notes}", job.suite.name).into());
    }
    let mut plan = Plan::new(job.kind, bench.provenance, planned.workloads.clone());
    if job.in_engine {
        plan.settings = Settings::in_engine();
    }
    plan.seed = seed;
    plan.time_budget = match job.timing.budget {
        Some(Budget::Within(time)) => Some(Nanos(time.as_nanos() as u64)),
        Some(Budget::Unlimited) | None => None,
    };
    if device.backend == "cpu" {
        plan.costs = COSTS_ON_CPU;
    }
    if let Some(budget) = job.timing.cell_budget {
        plan.settings.device_budget = Nanos(budget.as_nanos() as u64);
    }
    (job.adjust)(&mut plan)?;
    planned.notes.extend(left_out(&plan));
    if job.timing.dry_run {
        dry_run(job, &bench, &plan, &planned)?;
        return Ok(None);
    }
    planned.notes.iter().for_each(|n| eprintln!("note: {n}"));

    let verb = verb(job.kind);
    let identity = match (&job.timing.resume, &resumed) {
        (Some(folder), Some(file)) => Identity::resumed(&file.id, &file.started, folder)?,
        _ => Identity::of(verb, job.timing.out.as_deref())?,
    };
    let before = resumed.as_ref().and_then(|_| suspect_before(&identity.folder));
    let stop = interrupt::flag().context("watching for Ctrl-C")?;
    let file = open_journal(job, &identity, seed)?;
    let mut notes = planned.notes.clone();
    let mut cached = Vec::new();
    if let Some(cache) = &cache {
        let floors = |w: &WorkloadPlan| w.floor.iter().map(|c| (c.workload.clone(), c.policy)).collect::<Vec<_>>();
        let all = plan.workloads.iter().flat_map(|w| [vec![(w.workload.clone(), w.policy)], floors(w)].concat());
        for (workload, policy) in all {
            let (trials, warnings) = cache.load(&workload, policy);
            warnings.iter().for_each(|w| eprintln!("warning: {w}"));
            cached.extend(trials.into_iter().filter(|t| t.provenance == bench.provenance));
        }
    }
    let mut journal = RunJournal::new(Rc::clone(&file), cached, cache, &identity.id);
    let mut bar = KernelBar::new(&plan, Rc::clone(&file));
    let outcome = run_plan(&mut bench.target, &plan, &mut journal, &mut bar, &stop);
    bar.finish();
    let outcome =
        outcome.map_err(|e| anyhow!("{e}\nhint: what was measured until then is in {}", identity.folder.display()))?;
    notes.extend(journal.cache_failed().map(str::to_owned));
    notes.extend(bar.failed.take());
    let trials = file.borrow().trials().to_vec();
    let mut record = kernel_run_without_home(build(job, &bench, &plan, &planned, &identity, outcome, notes));
    // Trials of a run that was suspect stay so, however quiet the device is when it goes on.
    record.suspect = [record.suspect, before].into_iter().flatten().reduce(|now, before| match now == before {
        true => now,
        false => format!("{before}; {now}"),
    });
    if record.suspect.is_some()
        && let Some(why) = journal.forget()
    {
        record.notes.push(why);
    }
    kernel_report::write(&identity, &record, &trials)?;
    Ok(Some(Timed { record, trials, identity }))
}

/// Why the run in this folder was suspect when it ended last; a run that was killed has no record, and nothing to say.
fn suspect_before(folder: &Path) -> Option<String> {
    let text = std::fs::read(folder.join("run.json")).ok()?;
    serde_json::from_slice::<KernelRun>(&text).ok()?.suspect
}

fn verb(kind: KernelRunKind) -> &'static str {
    match kind {
        KernelRunKind::Verify => "verify",
        KernelRunKind::Sweep => "sweep",
        KernelRunKind::Tune => "tune",
    }
}

/// The policies: those of the command line, those of the suite, else how the engine launches on this device.
fn policies(job: &Job<'_>, bench: &Bench) -> Result<Vec<Policy>, Failure> {
    use harness_spec::LaunchMode::{Eager, Graph, GraphPdl, InEngine};
    let device = bench.target.device();
    let of_device = if device.backend == "cpu" { Policy::COLD_EAGER } else { Policy::COLD_GRAPH };
    let chosen = [job.timing.policy.clone(), job.suite.policies.clone()].into_iter().find(|p| !p.is_empty());
    let mut chosen = chosen.unwrap_or_else(|| vec![of_device]);
    chosen.dedup();
    for policy in &chosen {
        let wrong = match policy.launch {
            // A scripted device has no engine, and its script says what a token takes.
            InEngine if job.in_engine => None,
            InEngine => {
                Some("in_engine is measured by `bench tune --model FILE.gguf`, and by `bench compare` and `bench e2e`")
            }
            Graph | GraphPdl if device.backend == "cpu" => Some("a CPU has no graphs; write cold+eager or hot+eager"),
            GraphPdl if (1..90).contains(&bench.target.limits().cc) => {
                Some("dependent launches need compute capability 9.0; write cold+graph")
            }
            Eager | Graph | GraphPdl => None,
        };
        if let Some(wrong) = wrong {
            return Err(usage(anyhow!("policy {policy} cannot be measured here: {wrong}")));
        }
    }
    Ok(chosen)
}

fn open_journal(job: &Job<'_>, identity: &Identity, seed: u64) -> Result<Rc<RefCell<TrialFile>>, Failure> {
    let file = if job.timing.resume.is_some() {
        let (file, warnings) = TrialFile::resume(&identity.folder)?;
        warnings.iter().for_each(|w| eprintln!("warning: {w}"));
        eprintln!("going on with {} finished trials", file.trials().len());
        file
    } else {
        let plan = PlanFile {
            schema: KERNEL_SCHEMA_VERSION,
            id: identity.id.clone(),
            started: identity.started(),
            seed,
            command: job.command.clone(),
        };
        // The plan comes first: a journal without it could not go on.
        let text = serde_json::to_vec_pretty(&plan).context("writing the plan as JSON")?;
        let path = identity.folder.join(PLAN_FILE);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        TrialFile::create(&identity.folder)?
    };
    Ok(Rc::new(RefCell::new(file)))
}

fn build(
    job: &Job<'_>,
    bench: &Bench,
    plan: &Plan,
    planned: &Planned,
    identity: &Identity,
    mut outcome: KernelOutcome,
    mut notes: Vec<String>,
) -> KernelRun {
    // Variants that exist and were not asked for are part of the space that is accounted for.
    for (account, more) in outcome.accounts.iter_mut().zip(&planned.not_asked) {
        account.enumerated += more;
        account.not_reached += more;
    }
    notes.append(&mut outcome.notes);
    KernelRun {
        schema: KERNEL_SCHEMA_VERSION,
        kind: job.kind,
        provenance: bench.provenance,
        id: identity.id.clone(),
        started: identity.started(),
        wall_ns: outcome.wall,
        command: job.command.clone(),
        tool: environment::tool(),
        environment: identity.environment.clone(),
        device: outcome.device,
        device_facts: bench.target.facts(),
        canaries: outcome.canaries,
        suspect: outcome.suspect,
        plan: kernel_plan(job.suite, plan),
        cost: outcome.cost,
        accounts: outcome.accounts,
        cells: outcome.cells,
        results: outcome.results,
        incomplete: outcome.incomplete,
        notes,
    }
}

/// What was asked for, for the record.
pub fn kernel_plan(suite: &KernelSuite, plan: &Plan) -> KernelPlan {
    KernelPlan {
        suite: suite.name.clone(),
        strategy: match plan.kind {
            KernelRunKind::Tune => plan.strategy.to_string(),
            KernelRunKind::Verify | KernelRunKind::Sweep => "exhaustive".to_owned(),
        },
        seed: plan.seed,
        time_budget: plan.time_budget,
        run_off_pairs: if plan.run_off { plan.settings.pairs as u64 } else { 0 },
        workloads: plan.workloads.iter().map(|w| format!("{} {}", w.workload, w.policy)).collect(),
    }
}

/// What a time budget leaves out of a plan, if anything.
fn left_out(plan: &Plan) -> Option<String> {
    let sum = |of: Vec<usize>| of.iter().sum::<usize>();
    let (planned, all) = (sum(plan.limits()), sum(plan.unbounded()));
    let budget = plan.time_budget.filter(|_| planned < all)?;
    Some(format!(
        "the time budget of {} s leaves {planned} of {all} evaluations, shared out by what each workload is of a token's \
         time; --budget TIME gives it another, and --budget none as long as it takes",
        budget.secs()
    ))
}

fn dry_run(job: &Job<'_>, bench: &Bench, plan: &Plan, planned: &Planned) -> Result<(), Failure> {
    let device = bench.target.device();
    let limits = plan.limits();
    // A candidate takes its warm-up and its samples at most, a run-off its pairs twice over, and each is checked first.
    let a_cell = plan.settings.warm_up_limit.0 + plan.settings.device_budget.0;
    let most = Nanos(limits.iter().map(|l| *l as u64 * a_cell).sum());
    let all: f64 = plan.workloads.iter().map(|w| w.weight).sum();
    let weight = |w: f64| if all > 0.0 { w / all } else { 0.0 };
    if job.json {
        let workloads: Vec<_> = plan
            .workloads
            .iter()
            .zip(&limits)
            .map(|(w, limit)| {
                serde_json::json!({
                    "workload": w.workload.to_string(), "policy": w.policy.to_string(), "candidates": w.candidates.len(),
                    "pruned": w.pruned.len(), "evaluations": limit, "weight": weight(w.weight),
                    "default": w.default.map(|i| w.candidates[i].variant.to_string()),
                    "incumbent": w.incumbent.map(|i| w.candidates[i].variant.to_string()),
                })
            })
            .collect();
        return print_json(&serde_json::json!({
            "verb": verb(job.kind), "device": device, "plan": kernel_plan(job.suite, plan), "workloads": workloads,
            "most_device_time_ns": most, "notes": planned.notes,
        }));
    }
    let mut grid = crate::grid::Grid::new(&["workload", "policy", "weight", "candidates", "pruned", "evaluations"]);
    for (w, limit) in plan.workloads.iter().zip(&limits) {
        grid.row([
            w.workload.to_string(),
            w.policy.to_string(),
            format!("{:.1} %", 100.0 * weight(w.weight)),
            w.candidates.len().to_string(),
            w.pruned.len().to_string(),
            limit.to_string(),
        ]);
    }
    print_text(&grid.render())?;
    let within = plan.time_budget.map_or_else(String::new, |b| format!("; it ends after {} s all the same", b.secs()));
    print_text(&format!(
        "{} on {} ({}), seed {}: at most {} evaluations, {:.0} s of device time, checks and builds apart{within}",
        verb(job.kind),
        device.name,
        device.arch,
        plan.seed,
        limits.iter().sum::<usize>(),
        most.0 as f64 / 1e9
    ))?;
    planned.notes.iter().for_each(|n| eprintln!("note: {n}"));
    Ok(())
}

/// Says where the results lie and turns the end into an exit code.
///
/// # Errors
/// A run in which nothing could be timed, or that was cut short.
pub fn conclude(t: &Timed, table: Option<&PathBuf>) -> Result<Exit, Failure> {
    let folder = t.identity.folder.display();
    eprintln!("results: {folder} (run.json, trials.jsonl, report.html)");
    if let Some(table) = table {
        eprintln!("table: {}", table.display());
    }
    if let Some(why) = &t.record.suspect {
        eprintln!("warning: {why}");
    }
    if t.record.results.iter().all(|r| r.winner.is_none()) {
        let why = t.record.results.first().map_or("there is no workload", |r| r.reason.as_str());
        return Err(anyhow!("nothing could be timed: {why}").into());
    }
    // Of a run with a budget, whoever ended it: Ctrl-C is no budget that was used up.
    let in_time = |why: &Option<String>| why.as_deref().is_none_or(|w| w.starts_with(OUT_OF_TIME));
    let by_budget = t.record.plan.time_budget.is_some() && t.record.results.iter().all(|r| in_time(&r.incomplete));
    match &t.record.incomplete {
        None => Ok(Exit::Done),
        Some(why) if by_budget => {
            // A budget that ends is what was asked for; the table says that it is incomplete.
            eprintln!("incomplete: {why}\nhint: go on with bench {} --resume {folder}", verb(t.record.kind));
            Ok(Exit::Done)
        }
        Some(why) => Err(anyhow!("{why}\nhint: go on with bench {} --resume {folder}", verb(t.record.kind)).into()),
    }
}

/// The command that a run in this folder was started by, read again.
///
/// # Errors
/// It is no run that can go on, or one of another verb.
pub fn first_command(folder: &Path, verb: &str) -> Result<(crate::args::Command, Vec<String>), Failure> {
    use clap::Parser;
    let file = resumable(folder)?;
    let parsed = crate::args::Bench::try_parse_from(&file.command);
    let bench = parsed.map_err(|e| usage(anyhow!("{} was not started by bench {verb}: {e}", folder.display())))?;
    Ok((bench.command, file.command))
}

/// A folder that another verb has written.
pub fn other_verb(folder: &Path, verb: &str) -> Failure {
    usage(anyhow!("{} holds no {verb}\nhint: go on with the verb that started it", folder.display()))
}

impl TimingArgs {
    /// These flags where they were given again with `--resume`, else those of the first command. The seed, the policies
    /// and the device time of a candidate stay, since another answer would be another run.
    pub fn over(&self, first: TimingArgs) -> TimingArgs {
        TimingArgs {
            // A budget is of this command: without one the rest is finished, as with `none`.
            budget: self.budget,
            no_cache: self.no_cache || first.no_cache,
            dry_run: self.dry_run,
            out: None,
            ..first
        }
    }
}
