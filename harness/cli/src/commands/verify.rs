//! `bench verify`: correctness alone. Every variant is run on random, realistic and adversarial inputs and compared with
//! the reference; a rejected one is named with the input that exposed it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use harness_measure::tune::{Journal, JournalError, MemoryJournal, Plan, run as run_plan};
use harness_spec::record::{
    CellResult, KERNEL_SCHEMA_VERSION, KernelRun, KernelRunKind, Outcome as CellOutcome, Trial,
};
use harness_spec::{Cell, LaunchMode, Policy, Shape, Stage, Target, Workload};

use super::timing::{Bench, kernel_plan, suite};
use super::{kernel_report, print_json, print_text};
use crate::args::{VariantChoice, VerifyArgs};
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::grid::Grid;
use crate::interrupt;
use crate::kernel_plan::{Planned, plan as plan_suite};
use crate::kernel_suite::{self, KernelSuite};
use crate::machine::environment;
use crate::private::kernel_run_without_home;
use crate::record::Identity;
use crate::registry_spaces::RegistrySpaces;
use crate::session::bar::KernelBar;
use crate::session::trials::TrialFile;
use crate::target::open::{self, Checks};

/// Samples in which a kernel that only cheats when it is timed is given the chance to.
const CHEAT_SAMPLES: u32 = 64;

/// `bench verify`. 0: every variant passed (or, with `--expect-rejected`, was rejected). 1: one did not. 3: nothing could
/// be checked, or the device failed.
pub fn run(args: &VerifyArgs, json: bool, command: &[String]) -> Outcome {
    if args.seeds == 0 {
        return Err(usage(anyhow!("--seeds 0 checks nothing; give at least 1")));
    }
    let stop = interrupt::flag().context("watching for Ctrl-C")?;
    let mut worst = Exit::Done;
    let places = open::places(args.device.device.as_deref())?;
    let many = places.len() > 1;
    for place in places {
        let checks = match (args.once, args.full) {
            (true, _) => Checks::Once,
            (false, true) => Checks::Full,
            (false, false) => Checks::Quick,
        };
        let mut opened = super::kernels::open(place, &args.device, checks, None)?;
        if args.expect_rejected {
            opened.spaces = opened.spaces.only_users();
        }
        let suite = what(args, &opened.spaces, place.is_gpu() && args.device.simulate.is_none())?;
        let own = opened.spaces.registry().kernels().filter(|(_, k)| k.folder.is_some());
        let own: BTreeSet<String> = own.map(|(_, k)| k.id()).collect();
        let bench = opened.bench();
        let asked = Asked { suite: &suite, own: &own, many, stop: &stop };
        let exit = one_device(args, json, command, &asked, bench)?;
        if exit.code() > worst.code() {
            worst = exit;
        }
    }
    Ok(worst)
}

/// The workloads: those of the flags, else one of every op; the gate itself adds awkward shapes around each.
fn what(args: &VerifyArgs, spaces: &RegistrySpaces, on_gpu: bool) -> Result<KernelSuite, Failure> {
    let w = &args.what;
    if w.suite.is_some() || w.model.is_some() || !w.workload.is_empty() {
        return suite(w, None, on_gpu);
    }
    let known = spaces.ops();
    if let Some(unknown) = w.op.iter().find(|op| !known.contains(&op.as_str())) {
        return Err(usage(anyhow!(
            "no kernel of `{unknown}` can be checked here\nhint: use one of {}",
            known.join(", ")
        )));
    }
    let ops = known.into_iter().filter(|op| w.op.is_empty() || w.op.iter().any(|o| o == op));
    let workloads: Vec<Workload> = ops.flat_map(|op| shapes(op, args.full)).collect();
    if workloads.is_empty() {
        return Err(anyhow!(
            "there is no kernel to check on this device\nhint: --device chooses another; `bench list kernels` says what each \
             kernel runs on"
        )
        .into());
    }
    let mut suite = kernel_suite::of_workloads(&workloads);
    suite.name = match (args.once, args.full) {
        (true, _) => "every op, once",
        (false, true) => "every op, full",
        (false, false) => "every op",
    }
    .to_owned();
    Ok(suite)
}

/// Shapes at which every kernel of an op can be checked fast: whole blocks of every weight type, rows that no tile divides.
fn shapes(op: &str, full: bool) -> Vec<Workload> {
    let of = |dims: &[(&str, u64)]| Workload { op: op.to_owned(), shape: Shape::of(dims.iter().copied()) };
    let heads = |heads, kv_heads, dim, k, kv, pairing| {
        let [heads, kv_heads, max_len] = [("HEADS", heads), ("KV_HEADS", kv_heads), ("MAX_LEN", 64)];
        of(&[heads, kv_heads, ("DIM", dim), ("K", k), max_len, ("KV", kv), ("PAIRING", pairing)])
    };
    let attend = |heads, kv_heads, dim, max_len, more: &[(&str, u64)]| {
        let sizes = [("HEADS", heads), ("KV_HEADS", kv_heads), ("DIM", dim), ("MAX_LEN", max_len), ("KV", 16)];
        of(&[&sizes, more].concat())
    };
    let mut out = match op {
        "attn_token" => [16, 8].map(|kv| attend(12, 2, 128, 256, &[("LEN", 100), ("OUT", 8), ("KV", kv)])).to_vec(),
        "attn_prefill" => vec![attend(4, 2, 64, 256, &[("M", 65), ("POS", 20)])],
        "rope_append" => vec![attend(9, 3, 64, 64, &[("M", 5), ("ROT", 64), ("PAIRING", 0)])],
        _ if op.starts_with("qkv_rope_") => [16, 8].map(|kv| heads(4, 2, 64, 512, kv, 0)).to_vec(),
        _ if op.starts_with("gate_up_") => vec![of(&[("F", 256), ("K", 512)])],
        _ if op.starts_with("gemm_") => vec![of(&[("N", 256), ("K", 512), ("M", 33)])],
        _ if op.starts_with("embed_") => vec![of(&[("N", 256), ("K", 512), ("M", 5)])],
        "rmsnorm" | "rmsnorm_half" => vec![of(&[("K", 576), ("M", 1)])],
        "swiglu" => [8, 16, 32].map(|out| of(&[("F", 1536), ("M", 2), ("OUT", out)])).to_vec(),
        "add" => vec![of(&[("COUNT", 1536)])],
        "sample" => vec![of(&[("N", 49_152), ("LEN", 512)])],
        "quantize_a8" => vec![of(&[("K", 1536)])],
        "attn_decode" => {
            vec![of(&[("HEADS", 12), ("KV_HEADS", 2), ("DIM", 128), ("LEN", 100), ("MAX_LEN", 256)])]
        }
        "stream_read" => vec![of(&[("BYTES", 1 << 20)])],
        // A warp of `staged_bulk` streams 1024 columns at once.
        "gemv_q4_0" => vec![of(&[("N", 256), ("K", 1024)])],
        _ => vec![of(&[("N", 256), ("K", 512)])],
    };
    if full {
        out.extend(match op {
            "attn_token" => vec![
                attend(9, 3, 64, 2048, &[("LEN", 1023), ("OUT", 32)]),
                attend(32, 8, 128, 4096, &[("LEN", 2500), ("OUT", 8)]),
            ],
            "attn_prefill" => vec![attend(12, 2, 128, 1024, &[("M", 256), ("POS", 130)])],
            "rope_append" => vec![attend(32, 8, 128, 1024, &[("M", 256), ("ROT", 128), ("PAIRING", 1)])],
            _ if op.starts_with("qkv_rope_") => {
                vec![heads(12, 2, 128, 1536, 16, 1), heads(12, 2, 128, 1536, 8, 1), heads(28, 4, 128, 3584, 16, 0)]
            }
            _ if op.starts_with("gemm_") => vec![of(&[("N", 1536), ("K", 1536), ("M", 512)])],
            _ if op.starts_with("embed_") => vec![of(&[("N", 1000), ("K", 1536), ("M", 256)])],
            _ if op.starts_with("gate_up_") => vec![of(&[("F", 8960), ("K", 1536)]), of(&[("F", 96), ("K", 8960)])],
            "rmsnorm" | "rmsnorm_half" => vec![of(&[("K", 4096), ("M", 3)])],
            "swiglu" => vec![of(&[("F", 8960), ("M", 33), ("OUT", 16)])],
            "add" => vec![of(&[("COUNT", 1 << 20)])],
            "sample" => vec![of(&[("N", 151_936), ("LEN", 4096)])],
            "quantize_a8" => vec![of(&[("K", 14336)])],
            "attn_decode" => {
                vec![of(&[("HEADS", 9), ("KV_HEADS", 3), ("DIM", 64), ("LEN", 1023), ("MAX_LEN", 2048)])]
            }
            "stream_read" => vec![of(&[("BYTES", (8 << 20) + 16)])],
            _ => vec![of(&[("N", 1536), ("K", 8960)]), of(&[("N", 1000), ("K", 1536)])],
        });
    }
    out
}

/// How kernels are checked on a device. Where launches may overlap, the engine makes chains of them, and a kernel must also
/// be right behind one that is not done yet.
fn policy(backend: &str, cc: u32) -> Policy {
    match backend {
        "cpu" => Policy::COLD_EAGER,
        _ if cc >= 90 => Policy { launch: LaunchMode::GraphPdl, ..Policy::COLD_GRAPH },
        _ => Policy::COLD_GRAPH,
    }
}

/// What is checked on a device, beside the flags.
struct Asked<'a> {
    suite: &'a KernelSuite,
    /// Kernels of the user's folders, each of which must be checked.
    own: &'a BTreeSet<String>,
    /// Whether other devices are checked, too.
    many: bool,
    stop: &'a AtomicBool,
}

fn one_device(
    args: &VerifyArgs,
    json: bool,
    command: &[String],
    asked: &Asked<'_>,
    mut bench: Bench,
) -> Result<Exit, Failure> {
    let Asked { suite, own, many, stop } = *asked;
    let device = bench.target.device();
    let choice = if args.full && args.variants == VariantChoice::Default { VariantChoice::All } else { args.variants };
    let policy = policy(&device.backend, bench.target.limits().cc);
    let choice = if args.expect_rejected { VariantChoice::All } else { choice };
    let planned = plan_suite(suite, &[policy], bench.spaces.as_ref(), choice, args.seed).map_err(usage)?;
    planned.notes.iter().for_each(|n| eprintln!("note: {n}"));
    let candidates: usize = planned.workloads.iter().map(|w| w.candidates.len()).sum();
    if args.dry_run {
        return dry_run(&planned, json);
    }
    for w in planned.workloads.iter().filter(|w| w.candidates.is_empty()) {
        let why = w.pruned.first().map_or("there is none", |(_, why)| why.as_str());
        eprintln!("note: no configuration can run {}: {why}", w.workload);
    }
    if candidates == 0 {
        return Err(anyhow!("no variant of suite {} can run on this device", suite.name).into());
    }
    let (missed, others): (Vec<_>, Vec<_>) = unchecked(&planned).into_iter().partition(|(id, _)| own.contains(id));
    if let Some((id, why)) = others.first() {
        eprintln!("note: {} kernel(s) run at no shape that is checked here, such as {id}: {why}", others.len());
    }
    let out = args.out.as_ref().map(|o| if many { o.join(&device.backend) } else { o.clone() });
    let identity = Identity::of("verify", out.as_deref())?;
    let file = Rc::new(RefCell::new(TrialFile::create(&identity.folder)?));
    let mut record: Option<KernelRun> = None;
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let mut plan = Plan::new(KernelRunKind::Verify, bench.provenance, planned.workloads.clone());
        plan.seed = seed;
        let mut journal = Seeded { known: MemoryJournal::default(), file: Rc::clone(&file), seed };
        let mut bar = KernelBar::new(&plan, Rc::clone(&file));
        let done = run_plan(&mut bench.target, &plan, &mut journal, &mut bar, stop);
        bar.finish();
        let done = done.map_err(anyhow::Error::new)?;
        let cut = done.incomplete.clone();
        match &mut record {
            None => record = Some(first(command, suite, &bench, &plan, &planned, &identity, done)),
            Some(all) => merge(all, done.cells, done.wall, seed),
        }
        let left = args.seed.saturating_add(args.seeds) - 1 - seed;
        let stopped = stop.load(Ordering::Relaxed);
        if let Some(all) = &mut record {
            all.incomplete = all.incomplete.take().or(cut);
            if stopped && left > 0 && all.incomplete.is_none() {
                all.incomplete = Some(format!("the run was stopped with {left} of {} seeds not run", args.seeds));
            }
        }
        if stopped {
            break;
        }
    }
    let mut record = record.ok_or_else(|| anyhow!("nothing was checked"))?;
    if args.expect_rejected && !stop.load(Ordering::Relaxed) {
        expose_cheats(&mut record, &mut bench.target);
    }
    record.device_facts = bench.target.facts();
    let record = kernel_run_without_home(record);
    kernel_report::write(&identity, &record, file.borrow().trials())?;
    let printed = if json { print_json(&record) } else { print_text(&table(&record)) };
    eprintln!("results: {} (run.json, trials.jsonl)", identity.folder.display());
    printed?;
    let exit = judge(&record, args.expect_rejected)?;
    // Whoever gives a kernel asks for it: that nothing of it ran is no pass.
    match missed.first() {
        Some((id, why)) if exit == Exit::Done => Err(anyhow!(
            "{} kernel(s) of --kernels were not checked, such as {id}: {why}\nhint: name a shape that it takes with --workload",
            missed.len()
        )
        .into()),
        _ => Ok(exit),
    }
}

/// Kernels of which no configuration is checked, each with a constraint that keeps one out.
fn unchecked(planned: &Planned) -> BTreeMap<String, String> {
    let candidates = planned.workloads.iter().flat_map(|w| &w.candidates);
    let checked: BTreeSet<String> = candidates.map(|c| c.variant.kernel_id()).collect();
    let pruned = planned.workloads.iter().flat_map(|w| &w.pruned);
    let left = pruned.map(|(v, why)| (v.kernel_id(), why.clone())).filter(|(id, _)| !checked.contains(id));
    left.fold(BTreeMap::new(), |mut all, (id, why)| {
        all.entry(id).or_insert(why);
        all
    })
}

/// The journal of one seed: nothing is taken from earlier checks, and each line says whose inputs it ran on.
struct Seeded {
    known: MemoryJournal,
    file: Rc<RefCell<TrialFile>>,
    seed: u64,
}

impl Journal for Seeded {
    fn find(&self, key: &str) -> Option<&Trial> {
        self.known.find(key)
    }

    fn append(&mut self, trial: Trial) -> Result<(), JournalError> {
        let line = Trial { key: format!("{} seed {}", trial.key, self.seed), ..trial.clone() };
        self.file.borrow_mut().keep(&line)?;
        self.known.append(trial)
    }
}

fn first(
    command: &[String],
    suite: &KernelSuite,
    bench: &Bench,
    plan: &Plan,
    planned: &Planned,
    identity: &Identity,
    mut done: harness_measure::tune::KernelOutcome,
) -> KernelRun {
    for (account, more) in done.accounts.iter_mut().zip(&planned.not_asked) {
        account.enumerated += more;
        account.not_reached += more;
    }
    KernelRun {
        schema: KERNEL_SCHEMA_VERSION,
        kind: KernelRunKind::Verify,
        provenance: bench.provenance,
        id: identity.id.clone(),
        started: identity.started(),
        wall_ns: done.wall,
        command: command.to_vec(),
        tool: environment::tool(),
        environment: identity.environment.clone(),
        device: done.device,
        device_facts: bench.target.facts(),
        canaries: done.canaries,
        suspect: done.suspect,
        plan: kernel_plan(suite, plan),
        cost: done.cost,
        accounts: done.accounts,
        cells: done.cells,
        results: done.results,
        incomplete: done.incomplete,
        notes: planned.notes.iter().cloned().chain(done.notes).collect(),
    }
}

/// Adds the cells of a further seed: one failure is enough, and of the errors the worst counts.
fn merge(all: &mut KernelRun, cells: Vec<CellResult>, wall: harness_spec::Nanos, seed: u64) {
    all.wall_ns.0 += wall.0;
    all.cost.wall.0 += wall.0;
    all.cost.verify.0 += wall.0;
    for new in cells {
        let Some(known) = all.cells.iter_mut().find(|c| c.cell == new.cell) else {
            all.cells.push(new);
            continue;
        };
        if !passed(known) {
            continue;
        }
        if passed(&new) {
            if let (Some(k), Some(n)) = (&mut known.check, &new.check) {
                k.cases.extend(n.cases.iter().map(|c| format!("{c} (seed {seed})")));
                k.worst_of_bound = k.worst_of_bound.max(n.worst_of_bound);
                k.worst_relative_l2 = k.worst_relative_l2.max(n.worst_relative_l2);
            }
        } else {
            *known = new;
        }
    }
}

/// Times what passed a few times: a kernel that is right when looked at and wrong when timed shows here (R4).
fn expose_cheats(record: &mut KernelRun, target: &mut dyn Target) {
    for cell in record.cells.iter_mut().filter(|c| passed(c)) {
        let id: Cell = cell.cell.clone();
        if let Err(failure) = target.sample(&id, CHEAT_SAMPLES) {
            cell.outcome = CellOutcome::of_failure(failure);
        }
    }
}

fn passed(cell: &CellResult) -> bool {
    matches!(cell.outcome, CellOutcome::Verified | CellOutcome::Measured)
}

/// Whether the gate rejected a cell, as opposed to a build or the machine that failed.
fn rejected(cell: &CellResult) -> bool {
    match &cell.outcome {
        CellOutcome::Failed { stage, .. } => {
            matches!(stage, Stage::Check | Stage::Cheat | Stage::Fault | Stage::Hang | Stage::Launch)
        }
        CellOutcome::Implausible { .. } => true,
        CellOutcome::Measured
        | CellOutcome::Verified
        | CellOutcome::Skipped { .. }
        | CellOutcome::Unstable { .. }
        | CellOutcome::NotReached => false,
    }
}

/// One line a variant: passed, or what exposed it.
fn table(record: &KernelRun) -> String {
    let mut grid = Grid::new(&["variant", "shape", "outcome", "cases", "of bound", "what exposed it"]);
    for c in &record.cells {
        let (outcome, why) = match &c.outcome {
            CellOutcome::Verified | CellOutcome::Measured => ("pass".to_owned(), String::new()),
            CellOutcome::Failed { stage, message } => (
                if rejected(c) { format!("REJECTED at {stage}") } else { format!("failed at {stage}") },
                message.lines().next().unwrap_or_default().to_owned(),
            ),
            CellOutcome::Skipped { reason } => ("skipped".to_owned(), reason.replace('\n', " ")),
            CellOutcome::Implausible { reason } => ("REJECTED as impossible".to_owned(), reason.clone()),
            CellOutcome::Unstable { reason } => ("unstable".to_owned(), reason.clone()),
            CellOutcome::NotReached => ("not reached".to_owned(), String::new()),
        };
        let check = c.check.as_ref();
        grid.row([
            c.cell.variant.to_string(),
            c.cell.workload.shape.to_string(),
            outcome,
            check.map_or_else(|| "-".to_owned(), |r| r.cases.len().to_string()),
            check.map_or_else(|| "-".to_owned(), |r| format!("{:.3}", r.worst_of_bound)),
            why,
        ]);
    }
    let count = |f: fn(&CellResult) -> bool| record.cells.iter().filter(|c| f(c)).count();
    format!(
        "{}\n{} on {}: {} passed, {} rejected, {} failed otherwise, {} pruned by constraints",
        grid.render(),
        record.cells.len(),
        record.device.name,
        count(passed),
        count(rejected),
        count(|c| matches!(c.outcome, CellOutcome::Failed { .. }) && !rejected(c)),
        record.accounts.iter().map(|a| a.pruned).sum::<u64>(),
    )
}

fn judge(record: &KernelRun, expect_rejected: bool) -> Result<Exit, Failure> {
    if let Some(why) = &record.incomplete {
        return Err(anyhow!("not everything was checked: {why}").into());
    }
    let ran: Vec<&CellResult> =
        record.cells.iter().filter(|c| !matches!(c.outcome, CellOutcome::Skipped { .. })).collect();
    if ran.is_empty() {
        return Err(anyhow!("no variant could be checked on this device").into());
    }
    if expect_rejected {
        // A source that does not compile was not rejected: it proves nothing of the gate.
        let through: Vec<String> = ran.iter().filter(|c| !rejected(c)).map(|c| c.cell.variant.to_string()).collect();
        if through.is_empty() {
            return Ok(Exit::Done);
        }
        eprintln!("error: {} of {} were not rejected: {}", through.len(), ran.len(), through.join(", "));
        return Ok(Exit::Slower);
    }
    // A harness that failed says nothing of the kernels.
    let harness = |c: &&&CellResult| matches!(&c.outcome, CellOutcome::Failed { stage: Stage::Harness, .. });
    if let Some(cell) = ran.iter().find(harness)
        && let CellOutcome::Failed { message, .. } = &cell.outcome
    {
        return Err(anyhow!("{} could not be checked: {message}", cell.cell.variant).into());
    }
    Ok(if ran.iter().all(|c| passed(c)) { Exit::Done } else { Exit::Slower })
}

fn dry_run(planned: &Planned, json: bool) -> Result<Exit, Failure> {
    if json {
        let all: Vec<_> = planned
            .workloads
            .iter()
            .map(|w| {
                let variants: Vec<String> = w.candidates.iter().map(|c| c.variant.to_string()).collect();
                serde_json::json!({ "workload": w.workload.to_string(), "variants": variants, "pruned": w.pruned.len() })
            })
            .collect();
        print_json(&all)?;
        return Ok(Exit::Done);
    }
    let mut grid = Grid::new(&["workload", "variants", "pruned"]);
    for w in &planned.workloads {
        grid.row([w.workload.to_string(), w.candidates.len().to_string(), w.pruned.len().to_string()]);
    }
    print_text(&grid.render())?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use kernels::op::op as contract;
    use variants::{Backend, Limits, registry};

    use super::*;

    #[test]
    fn the_default_of_every_kernel_of_a_gpu_runs_at_a_shape_that_verify_takes_by_itself() {
        let limits = Limits::of_architecture(90).expect("sm_90 is known");
        let mut missing = Vec::new();
        for (op, spec) in registry().kernels().filter(|(_, spec)| spec.backend == Backend::Cuda) {
            let dims = contract(op).expect("an op of the registry has a contract").dims();
            let all = shapes(op, false);
            for shape in all.iter().chain(&shapes(op, true)) {
                assert!(shape.shape.0.keys().all(|d| dims.contains(&d.as_str())), "{shape} names more than {dims:?}");
                assert!(dims.iter().all(|d| *d == "M" || shape.shape.0.contains_key(*d)), "{shape} lacks of {dims:?}");
            }
            // The default of a kernel, which is what is checked where nothing else is asked for.
            let default = spec.default_variant();
            if all.iter().all(|w| spec.admits(&default, &w.shape, &limits).is_err()) {
                missing.push(spec.id());
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
