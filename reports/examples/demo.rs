//! Writes the report of a made-up run, to look at the layout: `cargo run -p reports --example demo -- FOLDER [RUNS] [KIND]`.
//! KIND is `compare`, `short`, `slower`, `e2e` or `interrupted`. The page says at its top that nothing in it was measured.

#[path = "../tests/fabricated/mod.rs"]
mod fabricated;

use std::fs;
use std::path::PathBuf;

use fabricated::Script;
use reports::{SimulatedRecords, terminal, write_run_with};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("give a folder to write to")?);
    let runs = args.next().map_or(Ok(100), |n| n.parse())?;
    // The record of the snapshot tests is short, so that its file is.
    let kind = args.next();
    let lengths = if kind.as_deref() == Some("short") { vec![20, 40] } else { vec![50, 200] };
    let script = Script { runs, lengths, resamples: 2000, ..Script::default() };
    let (record, samples) = match kind.as_deref() {
        None | Some("compare" | "short") => fabricated::compare(&script),
        Some("slower") => fabricated::compare(&Script { speedup: 0.83, ..script }),
        Some("e2e") => fabricated::one_sided(&script),
        Some("interrupted") => fabricated::interrupted(&script, runs as usize / 2),
        Some(other) => return Err(format!("no such kind: {other}").into()),
    };
    let started = std::time::Instant::now();
    write_run_with(&folder, &record, &samples, SimulatedRecords::AcceptInTests)?;
    let lines: Result<String, serde_json::Error> =
        samples.iter().map(|s| serde_json::to_string(s).map(|line| line + "\n")).collect();
    fs::write(folder.join("samples.jsonl"), lines?)?;
    eprintln!("{} samples, written in {:.2} s", samples.len(), started.elapsed().as_secs_f64());
    print!("{}", terminal(&record));
    Ok(())
}
