//! `bench targets`: what has to hold, and how it stands by records alone.

use std::path::Path;

use anyhow::{Context, anyhow};
use reports::{Targets, TargetsStand};

use super::{print_json, print_text};
use crate::args::TargetsArgs;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::grid::Grid;

const BUILT_IN: &str = include_str!("../../../../suites/targets.toml");

/// `bench targets`.
pub fn run(args: &TargetsArgs, json: bool) -> Outcome {
    let targets = load(args.targets.as_deref())?;
    let records = &args.records;
    if !records.is_dir() {
        let hint = "hint: name the folder of records with --records DIR";
        return Err(usage(anyhow!("there is no folder {}\n{hint}", records.display())));
    }
    let reading = || format!("reading the records in {}", records.display());
    let TargetsStand { targets: all, left_out } = targets.status(records).with_context(reading)?;
    for left_out in &left_out {
        eprintln!("warning: no figure is taken from {left_out}");
    }
    if json {
        print_json(&all)?;
        return Ok(Exit::Done);
    }
    let mut grid = Grid::new(&["target", "device", "must be", "wanted", "ceiling", "is", "", "record"]);
    for s in &all {
        let metric = &s.target.metric;
        let shown = |v: Option<f64>| v.map_or_else(|| "—".to_owned(), |v| metric.shown(v));
        let note = s.note.as_ref().map_or_else(String::new, |n| format!(" ({n})"));
        grid.row([
            s.target.title.clone(),
            s.target.device.clone(),
            metric.shown(s.target.floor),
            shown(s.target.aim),
            shown(s.ceiling),
            shown(s.value),
            s.outcome_text(),
            format!("{}{note}", s.record.as_deref().unwrap_or_default()),
        ]);
    }
    print_text(&grid.render())?;
    let count = |outcome| all.iter().filter(|s| s.outcome == outcome).count();
    use reports::TargetOutcome::{AimMet, Met, Missed, NoRecord, Unproven};
    eprintln!(
        "{} targets: {} met, {} of them as wanted, {} reached without a verdict, {} missed, {} without a record",
        all.len(),
        count(Met) + count(AimMet),
        count(AimMet),
        count(Unproven),
        count(Missed),
        count(NoRecord)
    );
    Ok(Exit::Done)
}

/// The targets of a file, else those that the program carries; checked on entry.
///
/// # Errors
/// A file that is none, or a target that nobody can meet.
pub fn load(path: Option<&Path>) -> Result<Targets, Failure> {
    let (name, text) = match path {
        None => ("suites/targets.toml".to_owned(), BUILT_IN.to_owned()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the targets {}\nhint: name another file", path.display()))
                .map_err(usage)?;
            (path.display().to_string(), text)
        }
    };
    let targets: Targets = toml::from_str(&text)
        .with_context(|| format!("{name} is no list of targets\nhint: suites/targets.toml is one"))
        .map_err(usage)?;
    targets.checked().with_context(|| format!("{name} cannot be right")).map_err(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reports::TargetCeiling;

    #[test]
    fn the_targets_of_the_project_are_within_their_ceilings_and_one_beyond_is_refused_by_name() {
        let targets = load(None).unwrap();
        assert!(targets.targets.len() > 30);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let spoilt = |from: &str, to: &str| {
            assert!(BUILT_IN.contains(from), "{from}");
            std::fs::write(&path, BUILT_IN.replacen(from, to, 1)).unwrap();
            load(Some(&path)).unwrap_err()
        };
        // 4.36 GB a token at 4.5 TB/s are 1039 tokens a second, 3.2 times what the peer does.
        let beyond = spoilt("floor = 1.9\naim = 2.6", "floor = 1.9\naim = 3.3");
        assert!(beyond.to_string().contains("h200-decode-llama-3.1-8b-q4_0: its aim 3.3 lies beyond its ceiling 3.2"));
        assert_eq!(beyond.exit(), Exit::Usage);
        let unknown = spoilt("least_bytes = 8000000", "leastbytes = 8000000").to_string();
        assert!(unknown.contains("leastbytes") && unknown.contains("is no list of targets"), "{unknown}");
    }

    #[test]
    fn a_folder_of_records_that_is_none_is_refused_by_name() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let refused = run(&TargetsArgs { records: file.into(), targets: None }, false).unwrap_err();
        assert!(refused.to_string().contains("there is no folder") && refused.to_string().contains("--records DIR"));
        assert_eq!(refused.exit(), Exit::Usage);
    }

    #[test]
    fn the_read_rate_of_a_ceiling_is_that_of_the_record_it_names() {
        let records = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../reports/published"));
        let mut rates = 0;
        for target in load(None).unwrap().targets {
            let TargetCeiling::Read { read_gb_per_s, source, .. } = &target.ceiling else { continue };
            let name = source.strip_prefix("the ceiling of ").and_then(|s| s.split(';').next()).unwrap();
            let file = records.join(name).join("run.json");
            let text = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {}: {e}", target.id, file.display()));
            let run: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let rate = run["ceiling"]["read_gb_per_s"].as_f64().unwrap();
            assert!((rate / read_gb_per_s - 1.0).abs() < 1e-3, "{}: {rate} GB/s in {name}", target.id);
            rates += 1;
        }
        assert!(rates > 5);
    }

    #[test]
    fn the_figure_of_a_target_is_that_of_the_published_record() {
        let records = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../reports/published"));
        // One record, since reading all of them takes seconds.
        let folder = records.join("2026-11-21-h200-llama-server-0c1e570-llama-3.1-8b-q4_0-synthetic");
        let all = load(None).unwrap().status(&folder).unwrap().targets;
        let eight = all.iter().find(|s| s.target.id == "h200-decode-llama-3.1-8b-q4_0").unwrap();
        // What the record says is read here once more, by its text alone.
        let run: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
        let mut metrics = run["metrics"].as_array().unwrap().iter();
        let decode = metrics.find(|m| m["id"] == "decode_tok_per_s" && m["group"] == "all").unwrap();
        assert_eq!(eight.value, decode["ratio"]["ratio"].as_f64());
    }
}
