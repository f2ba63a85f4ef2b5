//! `bench explain`: why the engine runs this variant for this op and shape (R23).

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use harness_spec::record::{KernelRun, Outcome as CellOutcome, WorkloadResult};
use harness_spec::{Policy, Target, Workload};
use serde_json::{Value, json};
use variants::{Choice, ChosenBy, Isa, Limits, Row, Table, TableFile, registry};

use super::{print_json, print_text};
use crate::args::{DeviceArgs, ExplainArgs};
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::grid::Grid;
use crate::places;
use crate::registry_spaces::check_dims;
use crate::target::open::{self, Checks};

/// Candidates that are printed; `--json` has all.
const MOST_SHOWN: usize = 15;

/// A table with the device that reads it.
struct Read {
    table: Table,
    file: Option<TableFile>,
    found: String,
}

/// `bench explain`.
pub fn run(args: &ExplainArgs, json: bool) -> Outcome {
    let text = format!("{} {}", args.op, args.shape.join(" "));
    let workload: Workload = text.parse().map_err(usage)?;
    let Some(space) = registry().space(&workload.op) else {
        let known = registry().spaces().iter().map(|s| s.op.as_str()).collect::<Vec<_>>().join(", ");
        return Err(usage(anyhow!("unknown op `{}`\nhint: use one of {known}", workload.op)));
    };
    check_dims(&workload, &space.dims).map_err(usage)?;
    let read = read(args)?;
    if let Some(said) = read.file.as_ref().and_then(|file| file.passed_over(registry())) {
        eprintln!("note: {said}");
    }
    let choice = read.table.choose(&workload.op, &workload.shape).ok_or_else(|| {
        usage(anyhow!(
            "no kernel of {workload} can run on this device\nhint: `bench list kernels --op {}`",
            workload.op
        ))
    })?;
    let row = read
        .file
        .as_ref()
        .and_then(|f| f.rows.iter().find(|r| r.workload() == workload && r.variant == choice.variant));
    let policy = row.and_then(|r| r.policy).or_else(|| read.file.as_ref().map(|f| f.policy));
    let id = record_id(row, read.file.as_ref());
    let record = match &args.record {
        Some(folder) => Some((folder.clone(), reports::load_kernel_run(folder).map_err(anyhow::Error::new)?.record)),
        // A shape without a row was measured by no run of this table.
        None => id.filter(|_| row.is_some() || choice.from == ChosenBy::Bucket).and_then(find_record),
    };
    let result = record.as_ref().and_then(|(_, run)| result_of(run, &workload, policy));
    if json {
        print_json(&as_json(&workload, &read, choice, row, record.as_ref(), result))?;
    } else {
        print_text(&as_text(&workload, &read, choice, row, record.as_ref(), result))?;
    }
    Ok(Exit::Done)
}

fn read(args: &ExplainArgs) -> Result<Read, Failure> {
    if let Some(path) = &args.table {
        let file = TableFile::load(path).map_err(usage)?;
        let limits = limits_of(&file).map_err(usage)?;
        let found = format!("{}", path.display());
        return Ok(Read { table: Table::of_file(file.clone(), limits), file: Some(file), found });
    }
    let place = open::places(args.device.as_deref())?[0];
    let device =
        DeviceArgs { device: args.device.clone(), simulate: None, kernels: Vec::new(), threads: None, timeout: None };
    let target = open::start(place, &device, Checks::Quick)?;
    let (table, loaded) = Table::for_device(&target.device(), target.limits(), &[places::tables()?]);
    Ok(Read { file: table.file(), table, found: loaded.to_string() })
}

/// The run that tells of a row: its own, else the last that the table was written by, if that is of the row's policy.
fn record_id<'a>(row: Option<&'a Row>, file: Option<&'a TableFile>) -> Option<&'a str> {
    let own = row.and_then(|r| r.record.as_deref());
    own.or_else(|| file.filter(|_| row.is_none_or(|r| r.policy.is_none())).map(|f| f.record.as_str()))
}

/// What the device of a table can, by its architecture.
fn limits_of(file: &TableFile) -> anyhow::Result<Limits> {
    let arch = &file.device.arch;
    if file.device.backend == "cpu" {
        return Ok(Limits::cpu(arch.parse::<Isa>()?, 0));
    }
    let cc = arch.strip_prefix("sm_").and_then(|cc| cc.parse().ok()).and_then(Limits::of_architecture);
    cc.ok_or_else(|| anyhow!("the table is of the unknown architecture `{arch}`"))
}

/// The run of this id, where its folder is still under `results` or among the published ones.
fn find_record(id: &str) -> Option<(PathBuf, KernelRun)> {
    let folders = ["results", "reports/published"]
        .into_iter()
        .flat_map(|root| std::fs::read_dir(Path::new(root)).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())));
    // The id is in the folder's name unless --out gave it another.
    let has_record = |f: &PathBuf| ["run.json", "run.json.gz"].iter().any(|name| f.join(name).is_file());
    let mut all: Vec<PathBuf> = folders.filter(has_record).collect();
    all.sort_by_key(|f| !f.to_string_lossy().ends_with(id));
    all.into_iter().take(200).find_map(|folder| {
        let run =
            reports::is_kernel_run(&folder).ok().filter(|k| *k).and_then(|_| reports::load_kernel_run(&folder).ok())?;
        (run.record.id == id).then_some((folder, run.record))
    })
}

fn result_of<'a>(run: &'a KernelRun, workload: &Workload, policy: Option<Policy>) -> Option<&'a WorkloadResult> {
    run.results.iter().find(|r| r.workload == *workload && policy.is_none_or(|p| p == r.policy))
}

fn by(choice: &Choice) -> &'static str {
    match choice.from {
        ChosenBy::Row => "a row of the table for exactly this shape",
        ChosenBy::Bucket => "a bucket of the table that covers this shape",
        ChosenBy::Default => "the default of the space: the table has no row for this shape",
        ChosenBy::Baseline => "the plain kernel: nothing else can run here",
    }
}

fn as_json(
    workload: &Workload,
    read: &Read,
    choice: &Choice,
    row: Option<&Row>,
    record: Option<&(PathBuf, KernelRun)>,
    result: Option<&WorkloadResult>,
) -> Value {
    let file = read.file.as_ref();
    json!({
        "workload": workload.to_string(), "variant": choice.variant.to_string(), "from": by(choice), "table": read.found,
        "row": row, "policy": file.map(|f| f.policy.to_string()), "date": file.map(|f| &f.date),
        "device": file.map(|f| &f.device), "record": record.map(|(folder, _)| folder.display().to_string()),
        "record_id": record_id(row, file), "result": result,
    })
}

fn as_text(
    workload: &Workload,
    read: &Read,
    choice: &Choice,
    row: Option<&Row>,
    record: Option<&(PathBuf, KernelRun)>,
    result: Option<&WorkloadResult>,
) -> String {
    let us = |ns: f64| format!("{:.2}", ns / 1e3);
    let mut out = vec![format!("{workload}: {}", choice.variant.short()), format!("  by      {}", by(choice))];
    out.push(format!("  table   {}", read.found));
    if let Some(file) = &read.file {
        out.push(format!("  device  {} ({})", file.device.name, file.device.arch));
        let record = record_id(row, Some(file)).unwrap_or("none of this row");
        out.push(format!("  made    {} by {}, policy {}, record {record}", file.date, file.tool, file.policy));
        // It names the first workload that was left incomplete; another's row is none of its business.
        let is_of = |why: &&String| row.is_none_or(|row| why.contains(&format!("{} {}", row.op, row.shape)));
        out.extend(file.incomplete.as_ref().filter(is_of).map(|why| format!("  note    incomplete: {why}")));
    }
    if let Some(row) = row {
        let ci = row.ci_ns.map_or_else(|| "no interval".to_owned(), |[lo, hi]| format!("{} to {}", us(lo), us(hi)));
        match row.policy.or(read.file.as_ref().map(|f| f.policy)).filter(|p| p.is_in_engine()) {
            Some(policy) => out.push(format!("  token   {} µs with it, 95 % {ci}, policy {policy}", us(row.median_ns))),
            None => out.push(format!("  median  {} µs, 95 % {ci}", us(row.median_ns))),
        }
        if let (Some(next), Some(gap)) = (&row.runner_up, row.gap_to_runner_up) {
            out.push(format!("  gap     {:+.1} % to {}", gap * 100.0, next.short()));
        }
        out.push(format!("  reason  {}", row.reason));
        out.extend(row.quarantined.as_ref().map(|why| format!("  note    in quarantine: {why}")));
    }
    match (record, result) {
        (Some((folder, run)), Some(result)) => {
            out.push(format!("candidates of {}", folder.display()));
            out.push(candidates(run, result));
        }
        // Of a shape that nobody measured no record would tell.
        _ if row.is_none() && choice.from != ChosenBy::Bucket => {
            out.push(format!("hint: bench tune --workload \"{workload}\" measures the candidates"));
        }
        (Some((folder, _)), None) => out.push(format!("the record {} has nothing of this workload", folder.display())),
        (None, _) => out.push(match record_id(row, read.file.as_ref()) {
            Some(id) => format!(
                "candidates: the record {id} is neither under results nor under reports/published here; name its folder with \
                 --record"
            ),
            None => "candidates: the row names no record".to_owned(),
        }),
    }
    out.join("\n")
}

fn candidates(run: &KernelRun, result: &WorkloadResult) -> String {
    let mut grid = Grid::new(&["", "variant", "µs", "95 %", "vs best", "note"]);
    let best = result.ranking.first().map_or(f64::NAN, |r| r.median_ns);
    for (i, r) in result.ranking.iter().take(MOST_SHOWN).enumerate() {
        let mut notes = Vec::new();
        for (name, v) in [
            ("winner", &result.winner),
            ("default", &result.default),
            ("incumbent", &result.incumbent),
            ("plain", &result.baseline),
        ] {
            if v.as_ref() == Some(&r.variant) {
                notes.push(name);
            }
        }
        if result.ties.contains(&r.variant) {
            notes.push("tie");
        }
        let cell = run.cells.iter().find(|c| {
            c.cell.variant == r.variant && c.cell.workload == result.workload && c.cell.policy == result.policy
        });
        let repeated = cell.and_then(|c| c.redundant).map(reports::repeated);
        let notes = notes.into_iter().chain(repeated.as_deref()).collect::<Vec<_>>();
        let ci = r.ci_ns.map_or_else(String::new, |[lo, hi]| format!("{:.2}..{:.2}", lo / 1e3, hi / 1e3));
        grid.row([
            (i + 1).to_string(),
            r.variant.short(),
            format!("{:.2}", r.median_ns / 1e3),
            ci,
            format!("{:.2}", r.median_ns / best),
            notes.join(", "),
        ]);
    }
    let mut text = grid.render();
    let more = result.ranking.len().saturating_sub(MOST_SHOWN);
    if more > 0 {
        text.push_str(&format!("\nand {more} more"));
    }
    let failed: Vec<String> = run
        .cells
        .iter()
        .filter(|c| c.cell.workload == result.workload && c.cell.policy == result.policy)
        .filter_map(|c| match &c.outcome {
            CellOutcome::Failed { stage, message } => {
                Some(format!("{} failed at {stage}: {}", c.cell.variant.short(), message.lines().next().unwrap_or("")))
            }
            CellOutcome::Implausible { reason } | CellOutcome::Unstable { reason } => {
                Some(format!("{} has no time: {reason}", c.cell.variant.short()))
            }
            CellOutcome::Measured | CellOutcome::Verified | CellOutcome::Skipped { .. } | CellOutcome::NotReached => {
                None
            }
        })
        .collect();
    for line in failed.iter().take(MOST_SHOWN) {
        text.push_str(&format!("\n{line}"));
    }
    if let Some(off) = &result.run_off {
        text.push_str(&format!("\nrun-off of {}: {}", off.finalists.len(), off.reason));
    }
    text
}
