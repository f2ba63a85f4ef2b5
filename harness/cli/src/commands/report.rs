use std::path::Path;

use anyhow::{Context, anyhow};

use super::{print_json, print_text};
use crate::args::ReportArgs;
use crate::exit::{Exit, Outcome, usage};

/// `bench report`.
pub fn run(args: &ReportArgs, json: bool, command: &[String]) -> Outcome {
    match (&args.folder, &args.records, &args.out) {
        (_, Some(records), Some(out)) => results(records, out, command),
        (Some(folder), ..) => rebuild(folder, json, args.markdown),
        _ => Err(usage(anyhow!("nothing to report\nhint: give the folder of a run, or --records DIR --out FILE"))),
    }
}

/// One page of many runs.
fn results(records: &Path, out: &Path, command: &[String]) -> Outcome {
    let page = reports::results_page(records, out, command, &super::targets::load(None)?)
        .with_context(|| format!("making a page of the records in {}", records.display()))?;
    for left_out in &page.left_out {
        eprintln!("warning: not shown: {left_out}");
    }
    eprintln!("results: {} ({} records)", page.path.display(), page.records);
    Ok(Exit::Done)
}

/// The page and charts again, from the files of a run alone.
fn rebuild(folder: &Path, json: bool, markdown: bool) -> Outcome {
    let rebuilding = || format!("rebuilding the report of {}", folder.display());
    // `run.json` says itself whether engines or kernels were measured, or the statistics were tried.
    if reports::is_selftest(folder).with_context(rebuilding)? {
        let (run, paths) = reports::rebuild_selftest(folder).with_context(rebuilding)?;
        if json {
            print_json(&run)?;
        } else if markdown {
            print_text(&reports::selftest_markdown(&run))?;
        } else {
            print_text(&reports::selftest_terminal(&run))?;
        }
        eprintln!("report: {}", paths.html.display());
    } else if reports::is_kernel_run(folder).with_context(rebuilding)? {
        let (run, paths) = reports::rebuild_kernel_run(folder).with_context(rebuilding)?;
        warn(&run.warnings);
        if json {
            print_json(&run.record)?;
        } else if markdown {
            print_text(&reports::kernel_markdown(&run.record))?;
        } else {
            print_text(&reports::kernel_terminal(&run.record))?;
        }
        eprintln!("report: {}", paths.html.display());
    } else {
        let rebuilt = reports::rebuild(folder).with_context(rebuilding)?;
        warn(&rebuilt.run.warnings);
        if json {
            print_json(&rebuilt.run.record)?;
        } else if markdown {
            print_text(&reports::markdown(&rebuilt.run.record))?;
        } else {
            print_text(&reports::terminal(&rebuilt.run.record))?;
        }
        eprintln!("report: {}", rebuilt.paths.html.display());
    }
    Ok(Exit::Done)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A record of kernels with nothing in it but the facts that every record has.
    fn record(kind: &str) -> Value {
        let engines = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reports/tests/fixtures/fabricated/run.json");
        let engines: Value = serde_json::from_str(&std::fs::read_to_string(engines).unwrap()).unwrap();
        json!({
            "schema": 1, "kind": kind, "provenance": "measured", "id": "empty", "started": "2026-11-21T00:00:00Z",
            "wall_ns": 1_000_000_000u64, "command": ["bench", kind], "tool": engines["tool"],
            "environment": engines["environment"],
            "device": {"backend": "cpu", "name": "a processor", "arch": "x86_64", "conditions": {}},
            "device_facts": {}, "canaries": [], "suspect": null,
            "plan": {"suite": "quick", "strategy": "exhaustive", "seed": 1, "time_budget": null, "run_off_pairs": 0,
                "workloads": []},
            "cost": {"wall": 1_000_000_000u64, "compile": 0, "transfer": 0, "verify": 1_000_000_000u64, "time": 0,
                "search": 0, "idle": 0},
            "accounts": [], "cells": [], "results": [], "incomplete": null, "notes": [],
        })
    }

    #[test]
    fn the_page_of_a_verify_a_sweep_and_a_tune_is_rebuilt_with_and_without_trials() {
        for kind in ["verify", "sweep", "tune"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("run.json"), record(kind).to_string()).unwrap();
            assert!(matches!(rebuild(dir.path(), false, false), Ok(Exit::Done)), "{kind}");
            let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
            assert!(page.contains(&format!("<span>{kind}</span>")), "{page}");
            assert!(dir.path().join("charts/cost.svg").is_file(), "{kind}");

            std::fs::write(dir.path().join("trials.jsonl"), "").unwrap();
            assert!(matches!(rebuild(dir.path(), true, false), Ok(Exit::Done)), "{kind}");
            assert!(matches!(rebuild(dir.path(), false, true), Ok(Exit::Done)), "{kind}");
        }
    }
}
