//! What is printed and written of a run of kernels. All of it comes from `reports`.

use anyhow::Context;
use harness_spec::record::{KernelRun, Provenance, Trial};

use super::{print_json, print_text};
use crate::exit::Failure;
use crate::record::Identity;

/// Writes `run.json`, `report.html` and the charts.
///
/// # Errors
/// What cannot be rendered or written.
pub fn write(identity: &Identity, record: &KernelRun, trials: &[Trial]) -> anyhow::Result<()> {
    // A simulated record says so in its page; only here, where it is made, is it let through.
    let simulated = match record.provenance {
        Provenance::Simulated => reports::SimulatedRecords::AcceptInTests,
        _ => reports::SimulatedRecords::Refuse,
    };
    reports::write_kernel_run_with(&identity.folder, record, trials, simulated)
        .with_context(|| format!("writing the report to {}", identity.folder.display()))?;
    Ok(())
}

/// Prints the record on stdout.
///
/// # Errors
/// A record that is no JSON, or a stdout that takes no more.
pub fn print(record: &KernelRun, json: bool) -> Result<(), Failure> {
    if json { print_json(record) } else { print_text(&reports::kernel_terminal(record)) }
}
