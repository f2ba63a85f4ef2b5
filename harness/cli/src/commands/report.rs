use std::path::Path;

use anyhow::Context;

use super::{print_json, print_text};
use crate::exit::{Exit, Outcome};

/// `bench report`: the page and charts again, from the files of a run alone.
pub fn run(folder: &Path, json: bool, markdown: bool) -> Outcome {
    let rebuilt = reports::rebuild(folder).with_context(|| format!("rebuilding the report of {}", folder.display()))?;
    for warning in &rebuilt.run.warnings {
        eprintln!("warning: {warning}");
    }
    if json {
        print_json(&rebuilt.run.record)?;
    } else if markdown {
        print_text(&reports::markdown(&rebuilt.run.record));
    } else {
        print_text(&reports::terminal(&rebuilt.run.record));
    }
    eprintln!("report: {}", rebuilt.paths.html.display());
    Ok(Exit::Done)
}
