//! Norms in front of products: in one launch, against a launch each.
//!
//! A run that timed `rmsnorm_gemv_*` and, under the same policy, `rmsnorm`, `quantize_a8` and `gemv_*` at its sizes shows both
//! ways side by side. The separate way is the sum of three medians, each measured by itself: what neighbouring launches cost or
//! spare each other is not in it.

use harness_spec::record::{KernelRun, RankRow, WorkloadResult};
use serde::Serialize;

use super::view::repeated;
use crate::view::format::{NONE, number};

/// What the separate way is, for the head of a table.
pub(super) const APART: &str = "the sum of the medians of three launches, each measured by itself";

const FUSED: &str = "rmsnorm_gemv_";

/// A fused product with the separate launches that do the same.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fusion {
    pub title: String,
    pub policy: String,
    /// The separate launches with their times and the sum.
    pub apart: String,
    /// The best of each kernel, the fastest first.
    pub rows: Vec<FusedRow>,
}

/// The best configuration of a fused kernel.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FusedRow {
    pub variant: String,
    pub time: String,
    /// Its time over the sum of the separate launches: below 1 it is faster.
    pub against_apart: String,
    pub repeated: String,
}

/// Every fused product of the run for which the separate launches were timed too.
pub(super) fn fusions(run: &KernelRun) -> Vec<Fusion> {
    run.results.iter().filter_map(|result| fusion(run, result)).collect()
}

fn fusion(run: &KernelRun, result: &WorkloadResult) -> Option<Fusion> {
    let format = result.workload.op.strip_prefix(FUSED)?;
    let dim = |name| result.workload.shape.get(name);
    let (n, k) = (dim("N")?, dim("K")?);
    let alike = |op: &str, n: Option<u64>| {
        let found = run.results.iter().find(|r| {
            let shape = &r.workload.shape;
            r.workload.op == op
                && r.policy == result.policy
                && (shape.get("N"), shape.get("K"), shape.get("M").unwrap_or(1)) == (n, Some(k), 1)
        });
        found.and_then(|r| r.ranking.first()).map(|row| row.median_ns / 1000.0)
    };
    let parts = [alike("rmsnorm", None)?, alike("quantize_a8", None)?, alike(&format!("gemv_{format}"), Some(n))?];
    let sum: f64 = parts.iter().sum();
    let [norm, rounding, product] = parts.map(number);
    let mut best: Vec<&RankRow> = Vec::new();
    for row in &result.ranking {
        if !best.iter().any(|b| b.variant.kernel == row.variant.kernel) {
            best.push(row);
        }
    }
    let rows = best.into_iter().map(|row| {
        let times = run
            .cells
            .iter()
            .find(|c| {
                c.cell.variant == row.variant && c.cell.workload == result.workload && c.cell.policy == result.policy
            })
            .and_then(|c| c.redundant);
        FusedRow {
            variant: row.variant.short(),
            time: number(row.median_ns / 1000.0),
            against_apart: format!("{:.2}x", row.median_ns / 1000.0 / sum),
            repeated: times.map_or_else(|| NONE.to_owned(), repeated),
        }
    });
    Some(Fusion {
        title: result.workload.to_string(),
        policy: result.policy.to_string(),
        apart: format!("rmsnorm {norm} + quantize_a8 {rounding} + gemv_{format} {product} = {} µs", number(sum)),
        rows: rows.collect(),
    })
}
