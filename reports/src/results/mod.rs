//! One page over many records: what was measured on which machine with which model, every figure with a link to its record.
//!
//! The page is a function of the records alone. A record that cannot be read is listed with the reason, never left out in
//! silence.

mod markdown;
mod page;
pub(crate) mod read;
mod view;

use std::path::{Path, PathBuf};

use crate::error::ReportError;
use crate::files::{create_folder, write_atomically};
use crate::targets::Targets;

/// What [`results_page`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsPage {
    /// The page.
    pub path: PathBuf,
    /// Records on it.
    pub records: usize,
    /// Folders that hold a record which is not on it, and why.
    pub left_out: Vec<String>,
}

/// Writes one page of every record below `records` to `out`: Markdown where its name ends in `.md`, else HTML. `command` is
/// how it was asked for. Where these records have the figure of a target, all of `targets` stand on the page.
///
/// # Errors
/// [`ReportError`], each naming the path and the fix; [`ReportError::NoRecords`] where there is none.
pub fn results_page(
    records: &Path,
    out: &Path,
    command: &[String],
    targets: &Targets,
) -> Result<ResultsPage, ReportError> {
    let found = read::records(records)?;
    if found.entries.is_empty() {
        return Err(ReportError::NoRecords { path: records.to_owned() });
    }
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(folder)?;
    let view = view::build(&found, folder, targets)?;
    let text = match out.extension().is_some_and(|e| e == "md") {
        true => markdown::render(&view, command),
        false => page::render(&view, command)?,
    };
    write_atomically(out, text.as_bytes())?;
    Ok(ResultsPage { path: out.to_owned(), records: found.entries.len(), left_out: found.left_out })
}
