//! The correctness gate: every input of an op's contract, run on anything that implements [`Runner`].
//!
//! Nothing is timed that has not passed. A failure names the input that exposed it.

mod compare;

pub use compare::{Errors, Expected, Floats, Mismatch, Norms, Want, compare};

use harness_spec::{CellFailure, CheckReport, Shape, Stage};
use variants::{Activations, KernelSpec};

use crate::op::{Depth, Op, Runner};

/// Runs the gate on one variant: random, realistic and exact inputs at this shape and at the awkward shapes that the variant
/// takes, and the adversarial inputs at a small shape, or at this one where the variant takes no small one.
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
    let mut work = vec![(shape.clone(), op.cases(shape, seed, depth))];
    let home = op.home_shapes(shape).into_iter().find(|home| runner.admits(home)).unwrap_or_else(|| shape.clone());
    work.push((home.clone(), op.adversarial(&home, seed, depth)));
    for other in op.awkward_shapes(shape, depth) {
        if &other != shape && runner.admits(&other) {
            let cases = op.cases(&other, seed, depth);
            work.push((other, cases));
        }
    }
    let form = spec.activations.unwrap_or(Activations::F32);
    let mut report = CheckReport { cases: Vec::new(), worst_of_bound: 0.0, worst_relative_l2: 0.0 };
    for (shape, case) in work.iter().flat_map(|(shape, cases)| cases.iter().map(move |case| (shape, case))) {
        if case.dtype.is_some_and(|dtype| !spec.dtypes.is_empty() && !spec.dtypes.contains(&dtype)) {
            continue;
        }
        let problem = op.problem(shape, case);
        let Some(expected) = op.expected(&problem, form) else { continue };
        let name = format!("{} at {shape}", case.name);
        let wrong = |stage: Stage, message: &str| CellFailure::new(stage, format!("{name}: {message}"));
        let outputs = runner.run(&problem).map_err(|f| wrong(f.stage, &f.message))?;
        let errors = compare(&expected, &outputs).map_err(|mismatch| wrong(Stage::Check, &mismatch.to_string()))?;
        report.worst_of_bound = report.worst_of_bound.max(errors.worst_of_bound);
        report.worst_relative_l2 = report.worst_relative_l2.max(errors.worst_relative_l2);
        report.cases.push(name);
    }
    Ok(report)
}
