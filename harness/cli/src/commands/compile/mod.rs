//! `bench compile`: every CUDA variant for every architecture, without a device.

mod snapshot;

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use kernels::cuda::compile::{Cache, Compiler};
use kernels::cuda::survey::{self, Compiled, Job, Selection};
use kernels::cuda::target::compile_support;
use serde_json::{Value, json};
use variants::registry;

use super::{print_json, print_text};
use crate::args::CompileArgs;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::progress;
use snapshot::Snapshot;

/// Compiles, prints a table, and fails where a variant does not compile, a default spills, the machine code is of another
/// class than the space declares, or a snapshot differs.
pub fn run(args: CompileArgs, json: bool) -> Outcome {
    let mut registry = registry().clone();
    for folder in &args.kernels {
        registry.load_dir(folder).map_err(usage)?;
    }
    for op in &args.op {
        if registry.space(op).is_none() {
            return Err(usage(anyhow!("unknown op `{op}`\nhint: `bench list ops` shows those that there are")));
        }
    }
    let kept = args.check.as_deref().map(Snapshot::read).transpose().map_err(usage)?;
    let cache = if args.no_cache { None } else { Cache::of_this_user() };
    let compiler = Compiler::with_cache(cache).map_err(|e| Failure::Unmeasured(e.into()))?;
    let nvrtc = compiler.nvrtc();
    eprintln!("NVRTC {} ({}, {})", nvrtc.version_text(), nvrtc.path.display(), nvrtc.origin);

    for &arch in &args.arch {
        compile_support(&compiler, arch).with_context(|| format!("compiling the harness's own kernels for {arch}"))?;
    }
    let selection = Selection { archs: args.arch.clone(), ops: args.op.clone(), all: args.all };
    let jobs = survey::jobs(&registry, &selection);
    if jobs.is_empty() {
        return Err(Failure::Unmeasured(anyhow!("no CUDA kernel is registered for what was asked")));
    }
    let bar = progress::steps("compiling", jobs.len() as u64);
    let results = survey::run(&compiler, &jobs, &|| bar.inc(1));
    bar.finish_and_clear();
    compiler.take_warnings().iter().for_each(|w| eprintln!("warning: {w}"));

    let rows: Vec<(&Job, &Compiled)> = jobs.iter().zip(&results).collect();
    let problems: Vec<String> = rows
        .iter()
        .flat_map(|(job, r)| job.problems(r).into_iter().map(move |p| format!("{} for {}: {p}", job.variant, job.arch)))
        .collect();
    let found = Snapshot::of(&nvrtc.version_text(), &rows);
    let differences = kept.as_ref().map(|kept| kept.differences(&found, &args.op, &args.arch)).unwrap_or_default();
    if let Some(file) = &args.snapshot {
        found.write(file)?;
        eprintln!("wrote {}", file.display());
    }
    if json {
        print_json(&json!({
            "nvrtc": nvrtc.version_text(),
            "variants": rows.iter().map(|(job, r)| row(job, r)).collect::<Vec<_>>(),
            "problems": problems,
            "differences": differences,
        }))?;
    } else {
        print_text(&table(&rows))?;
    }
    for line in problems.iter().chain(&differences) {
        eprintln!("problem: {line}");
    }
    let count = |of: fn(&Compiled) -> bool| results.iter().filter(|r| of(r)).count();
    eprintln!(
        "{} compiled ({} from the cache), {} excluded by a constraint or a library's, {} failed; {} problem(s), \
         {} difference(s)",
        count(|r| matches!(r, Compiled::Done { .. })),
        count(|r| matches!(r, Compiled::Done { cached: true, .. })),
        count(|r| matches!(r, Compiled::Excluded(_))),
        count(|r| matches!(r, Compiled::Failed(_))),
        problems.len(),
        differences.len()
    );
    Ok(if problems.is_empty() && differences.is_empty() { Exit::Done } else { Exit::Unmeasured })
}

/// A row as JSON.
fn row(job: &Job, compiled: &Compiled) -> Value {
    let mut out = json!({
        "variant": job.variant, "arch": job.arch.to_string(), "default": job.is_default(),
        "declared": job.spec.instruction.name(), "problems": job.problems(compiled),
    });
    match compiled {
        Compiled::Done { resources, load_bytes, cached } => {
            out["resources"] = json!(resources);
            out["load_bytes"] = json!(load_bytes);
            out["occupancy"] = json!(job.occupancy(resources));
            out["cached"] = json!(cached);
            out["instructions_from"] = json!(if job.arch.ptx { "nothing: PTX" } else { "machine code" });
        }
        Compiled::Excluded(reason) => out["excluded"] = json!(reason),
        Compiled::Failed(failure) => out["failure"] = json!(failure),
    }
    out
}

/// One line a variant: architectures with equal figures share a column's worth of text.
fn table(rows: &[(&Job, &Compiled)]) -> String {
    let text = |n: Option<u32>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let mut by_variant: BTreeMap<String, Vec<(&Job, &Compiled)>> = BTreeMap::new();
    for (job, compiled) in rows {
        by_variant.entry(job.variant.to_string()).or_default().push((job, compiled));
    }
    let mut lines = vec![
        "registers+spilled/static+dynamic shared memory in bytes, blocks x warps of most warps on a multiprocessor, and the \
         widest load in bytes, by architecture"
            .to_owned(),
    ];
    for (variant, rows) in by_variant {
        let mut cells = Vec::new();
        let mut classes: Vec<String> = Vec::new();
        for (job, compiled) in &rows {
            cells.push(match compiled {
                Compiled::Done { resources: r, load_bytes, .. } => {
                    for class in &r.instructions {
                        if !classes.contains(class) {
                            classes.push(class.clone());
                        }
                    }
                    let (fixed, dynamic) = (text(r.static_smem_bytes), text(r.dynamic_smem_bytes));
                    let held = job.occupancy(r).map_or_else(
                        || "?".to_owned(),
                        |o| {
                            format!(
                                "{}x{}of{}",
                                o.blocks_per_sm,
                                o.warps.checked_div(o.blocks_per_sm).unwrap_or(0),
                                o.most_warps
                            )
                        },
                    );
                    let (registers, spilled) = (text(r.registers), text(r.spill_bytes));
                    let load = text(*load_bytes);
                    format!("{} {registers}+{spilled}/{fixed}+{dynamic} {held} {load}B", job.arch)
                }
                Compiled::Excluded(_) => format!("{} -", job.arch),
                Compiled::Failed(_) => format!("{} FAILED", job.arch),
            });
        }
        if let Some((Job { spec, .. }, Compiled::Excluded(why))) = rows.first()
            && spec.is_library()
        {
            lines.push(format!("{variant}\n    not compiled: {why}"));
            continue;
        }
        let found = if classes.is_empty() { "none".to_owned() } else { classes.join(",") };
        let declared = rows.first().map_or("none", |(job, _)| job.spec.instruction.name());
        lines.push(format!("{variant}\n    {}\n    declares {declared}, has {}", cells.join("  "), found));
    }
    lines.join("\n")
}
