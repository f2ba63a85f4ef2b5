//! The charts of a run of kernels.

mod clock_trace;
mod cost;
mod heat_map;
mod rates;
mod search_trace;

use harness_spec::record::{KernelRun, Trial};

use crate::charts::ChartOutcome;
use crate::error::ReportError;

/// Draws every chart of the report, in the order of the page.
///
/// # Errors
/// [`ReportError::Draw`] where the plotting library fails.
pub fn draw_kernels(record: &KernelRun, trials: &[Trial]) -> Result<Vec<ChartOutcome>, ReportError> {
    Ok(vec![
        heat_map::draw(record)?,
        rates::draw(record)?,
        search_trace::draw(record)?,
        clock_trace::draw(record, trials)?,
        cost::draw(record)?,
    ])
}
