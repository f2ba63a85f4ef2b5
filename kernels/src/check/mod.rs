//! The correctness gate: every input of an op's contract, run on anything that implements [`Runner`].
//!
//! Nothing is timed that has not passed. A failure names the input that exposed it.

mod compare;

pub use compare::{Errors, Expected, Floats, Mismatch, Norms, Want, compare};

use harness_spec::{CellFailure, CheckReport, Shape, Stage};
use variants::{Activations, KernelSpec};

use crate::op::{Depth, Op, Runner};

/// Runs the gate on one variant: all cases of the op at this shape and at the awkward shapes that the variant takes.
///
/// # Errors
/// The first failure of the runner, or the first wrong output as [`Stage::Check`]; the message starts with the case.
pub fn run(
    op: &dyn Op,
    shape: &Shape,
    spec: &KernelSpec,
    seed: u64,
    depth: Depth,
    runner: &mut dyn Runner,
) -> Result<CheckReport, CellFailure> {
    let form = spec.activations.unwrap_or(Activations::F32);
    let mut report = CheckReport { cases: Vec::new(), worst_of_bound: 0.0, worst_relative_l2: 0.0 };
    let others = op.awkward_shapes(shape, depth).into_iter().filter(|other| other != shape && runner.admits(other));
    let shapes: Vec<Shape> = std::iter::once(shape.clone()).chain(others.collect::<Vec<_>>()).collect();
    for shape in &shapes {
        for case in op.cases(shape, seed, depth) {
            if case.dtype.is_some_and(|dtype| !spec.dtypes.is_empty() && !spec.dtypes.contains(&dtype)) {
                continue;
            }
            let problem = op.problem(shape, &case);
            let Some(expected) = op.expected(&problem, form) else { continue };
            let name = format!("{} at {shape}", case.name);
            let wrong = |failure: CellFailure| CellFailure::new(failure.stage, format!("{name}: {}", failure.message));
            let outputs = runner.run(&problem).map_err(wrong)?;
            let errors = compare(&expected, &outputs)
                .map_err(|mismatch| wrong(CellFailure::new(Stage::Check, mismatch.to_string())))?;
            report.worst_of_bound = report.worst_of_bound.max(errors.worst_of_bound);
            report.worst_relative_l2 = report.worst_relative_l2.max(errors.worst_relative_l2);
            report.cases.push(name);
        }
    }
    Ok(report)
}
