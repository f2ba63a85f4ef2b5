//! A new table is tried in the whole engine, paired with the old one, before its rows replace those of the old one (R27): at
//! the end of `bench tune --promote MODEL`, and alone by `bench promote NEW.toml`.
//!
//! Both tables are loaded in one process of its own, on the device that was tuned, and answer the same prompts in turns, so
//! that clocks, heat and the host fall on both alike. Both are loaded again and again, each first as often as the other: a
//! place in memory falls on both alike, too, and what it does is known.
//!
//! - `listen`: that process, and what it says.
//! - `decide`: what follows from it.
//! - `rows`: which rows the model runs, and the old table with them.

mod decide;
mod listen;
mod rows;

use std::path::Path;

use anyhow::{Context, anyhow};
use harness_measure::tune::Promotion;
use harness_spec::Target;
use harness_spec::record::Provenance;
use variants::TableFile;

use self::decide::Heard;
use super::print_json;
use super::race_tables::NO_TABLE;
use crate::args::PromoteArgs;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::record::Identity;
use crate::tables::{DeviceTable, RowChange};
use crate::target::open::{self, Place};

/// Two tables, and what they are tried with.
pub struct Contest<'a> {
    /// The model: a GGUF file, or one of the store.
    pub model: &'a str,
    /// The device that was tuned.
    pub place: Place,
    /// Threads of the CPU.
    pub threads: Option<u32>,
    /// The old table.
    pub old: &'a DeviceTable,
    /// The new one.
    pub new: &'a TableFile,
    /// What differs.
    pub changes: &'a [RowChange],
    /// Whether stages of the same kernels are measured and judged as well.
    pub same_too: bool,
    /// Of the order and of the bootstrap.
    pub seed: u64,
    /// The run's folder.
    pub folder: &'a Path,
}

/// What came of it.
pub struct Tried {
    /// The decision as JSON.
    pub json: serde_json::Value,
    /// The old table with the rows that were promoted; `None` where both tables run the same kernels with this model.
    pub table: Option<DeviceTable>,
    /// Those rows.
    pub taken: Vec<RowChange>,
}

/// `bench promote`.
pub fn run(args: &PromoteArgs, json: bool) -> Outcome {
    let place = open::places(args.device.as_deref())?[0];
    let file = TableFile::load(&args.new).map_err(usage)?;
    let target = open::start_plain(place)?;
    let device = target.device();
    if file.device != device {
        return Err(usage(anyhow!(
            "the table {} is that of {} ({}), under its conditions, and not of {} ({}) as it is now\nhint: tune on this \
             device; a table of another is never promoted here",
            args.new.display(),
            file.device.name,
            file.device.arch,
            device.name,
            device.arch
        )));
    }
    let old = DeviceTable::load(&device, target.limits(), args.table.as_deref(), Provenance::Measured)?;
    // The device is the engine's from here on.
    drop(target);
    old.writable(&[])?;
    let changes = old.changes_to(&file);
    let identity = Identity::of("promote", args.out.as_deref())?;
    let tried = promote(&Contest {
        model: &args.model,
        place,
        threads: args.threads,
        old: &old,
        new: &file,
        changes: &changes,
        same_too: args.same_too,
        seed: args.seed.unwrap_or_else(rand::random),
        folder: &identity.folder,
    })?;
    let written = tried.table.map_or(Ok(None), |table| table.save())?;
    if json {
        print_json(&tried.json)?;
    }
    if let Some(path) = written {
        eprintln!("table: {}", path.display());
    }
    Ok(Exit::Done)
}

/// Runs the engine with the old table and with the changed rows in it, and judges. What was heard and what it came to is left
/// in the run's folder.
///
/// # Errors
/// An engine that cannot be measured, or rows that it is not proven faster with: then they are named, and nothing is to be
/// written.
pub fn promote(c: &Contest<'_>) -> Result<Tried, Failure> {
    let folder = c.folder.join("promotion");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let changed: Vec<RowChange> =
        c.changes.iter().filter(|change| change.from.as_ref() != Some(&change.to)).cloned().collect();
    let all: Vec<&RowChange> = changed.iter().collect();
    let (before, after) = (folder.join("old.toml"), folder.join("new.toml"));
    let with = rows::overlaid(c.old.file(), c.new, &all);
    with.save_as(&after).with_context(|| format!("writing to {}", folder.display()))?;
    let before = match c.old.file() {
        Some(_) => {
            c.old.save_to(&before)?;
            before.display().to_string()
        }
        None => NO_TABLE.to_owned(),
    };
    let heard = match changed.is_empty() && !c.same_too {
        // Then both are one table, and there is nothing to load an engine for.
        true => Heard::default(),
        false => listen::race(c, &changed, &before, &after, &folder)?,
    };
    let (run, others) = rows::run_of(&changed, &heard.launched, &with);
    let decision = decide::decide(&heard, &run, c.same_too, c.seed);
    let text = decide::text(&decision, &heard, &run, others.len());
    let json = decide::as_json(&decision, &heard, &run, others.len(), c.seed);
    let pretty = serde_json::to_vec_pretty(&json).context("writing the decision")?;
    std::fs::write(folder.join("decision.txt"), &text)
        .and_then(|()| std::fs::write(folder.join("decision.json"), pretty))
        .with_context(|| format!("writing to {}", folder.display()))?;
    eprint!("{text}");
    if heard.is_same() && !decide::differs(&decision) {
        return Ok(Tried { json, table: None, taken: Vec::new() });
    }
    if decision.promoted && !heard.is_same() {
        let table = c.old.replaced_by(rows::overlaid(c.old.file(), c.new, &run));
        return Ok(Tried { json, table: Some(table), taken: run.into_iter().cloned().collect() });
    }
    Err(refused(&decision, &after))
}

fn refused(decision: &Promotion, tried: &Path) -> Failure {
    let rows = match decision.rows.is_empty() {
        true => String::new(),
        false => format!("\n  rows: {}", decision.rows.join("; ")),
    };
    let why = decision.reasons.join("; ");
    let tried = tried.display();
    anyhow!("the new table is not promoted: {why}{rows}\nhint: the old table stays; the one that was tried is {tried}")
        .into()
}
