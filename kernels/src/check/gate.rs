//! The gate: which inputs a variant is run on, and what their outputs mean.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use harness_spec::{CellFailure, CheckReport, DType, Shape, Stage};
use variants::{Activations, KernelSpec};

use super::{Expected, compare};
use crate::op::{Case, Depth, Op, Problem, Runner};
use crate::parallel::parallel;

/// Bytes of problems and references that are made at the same time, unless a single one has more.
const MOST_AT_ONCE: usize = 1 << 30;

/// The gate, with the problems and references that it made before: variants of one op share them.
#[derive(Debug, Default)]
pub struct Gate {
    /// Bytes that may be kept.
    budget: usize,
    used: usize,
    once: bool,
    problems: HashMap<ProblemKey, Arc<Problem>>,
    references: HashMap<(ProblemKey, Activations), Option<Arc<Expected>>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ProblemKey {
    op: &'static str,
    shape: Shape,
    case: String,
    dtype: Option<DType>,
    seed: u64,
}

impl Gate {
    /// A gate that keeps up to `budget` bytes of problems and references for the next variant. Once they do not fit any
    /// more all are dropped, as the next op or shape needs others.
    pub fn new(budget: usize) -> Gate {
        Gate { budget, ..Gate::default() }
    }

    /// The gate reduced to one input of each variant, at the very shape that is asked for, and run once. For a run under
    /// a tool that slows a kernel down a thousand times; passing it says little of the numbers.
    #[must_use]
    pub fn once(self) -> Gate {
        Gate { once: true, ..self }
    }

    /// Runs the gate on one variant: random, realistic and exact inputs at this shape and at the awkward shapes that the
    /// variant takes, and the adversarial inputs at a small shape, or at this one where the variant takes no small one.
    /// Unless the kernel says that it is not, it must be the same bit for bit when run again.
    ///
    /// # Errors
    /// The first failure of the runner, or the first wrong output as [`Stage::Check`]; the message starts with the case.
    pub fn run(
        &mut self,
        op: &dyn Op,
        shape: &Shape,
        spec: &KernelSpec,
        seed: u64,
        depth: Depth,
        runner: &mut dyn Runner,
    ) -> Result<CheckReport, CellFailure> {
        let mut report = CheckReport { cases: Vec::new(), worst_of_bound: 0.0, worst_relative_l2: 0.0 };
        let cases = match self.once {
            true => op.cases(shape, seed, Depth::Quick).into_iter().map(|case| (shape.clone(), case)).collect(),
            false => plan(op, shape, seed, depth, runner),
        };
        let fits = |dtype: DType| spec.dtypes.is_empty() || spec.dtypes.contains(&dtype);
        let cases: Vec<(Shape, Case)> = cases.into_iter().filter(|(_, case)| case.dtype.is_none_or(fits)).collect();
        // As many at a time as there are threads to make them and as are not too large, which the first says.
        let threads = if self.once { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let mut at_once = 1;
        let mut made = VecDeque::new();
        for (i, (shape, case)) in cases.iter().enumerate() {
            // What the kernel cannot hold is passed over, so that the first is the first that runs.
            if self.once && !report.cases.is_empty() {
                break;
            }
            if made.is_empty() {
                made.extend(self.problems(op, &cases[i..cases.len().min(i + at_once)], spec));
            }
            let Some((problem, expected)) = made.pop_front().flatten() else { continue };
            at_once = (MOST_AT_ONCE / (problem.bytes() + expected.bytes()).max(1)).clamp(1, threads);
            let name = format!("{} at {shape}", case.name);
            let wrong = |stage: Stage, message: &str| CellFailure::new(stage, format!("{name}: {message}"));
            let mut run = || runner.run(&problem).map_err(|f| wrong(f.stage, &f.message));
            let outputs = run()?;
            let errors = compare(&expected, &outputs).map_err(|mismatch| wrong(Stage::Check, &mismatch.to_string()))?;
            if !spec.nondet && !self.once {
                for again in 1..repeats(i, depth) {
                    if let Some(at) = first_difference(&outputs, &run()?) {
                        let what = format!("AD-24 run {again} differs from the first in {at}: a race or an atomic");
                        return Err(wrong(Stage::Check, &what));
                    }
                }
            }
            report.worst_of_bound = report.worst_of_bound.max(errors.worst_of_bound);
            report.worst_relative_l2 = report.worst_relative_l2.max(errors.worst_relative_l2);
            report.cases.push(name);
        }
        if self.once && report.cases.is_empty() {
            let why = format!("no input of {} that the kernel can hold at {shape}", op.name());
            return Err(CellFailure::new(Stage::Check, &why));
        }
        Ok(report)
    }

    /// Problems and what is right for them, made on several threads where they are not kept; `None` where the form of
    /// activations cannot hold one.
    fn problems(
        &mut self,
        op: &dyn Op,
        cases: &[(Shape, Case)],
        spec: &KernelSpec,
    ) -> Vec<Option<(Arc<Problem>, Arc<Expected>)>> {
        let form = spec.activations.unwrap_or(Activations::F32);
        let key = |(shape, case): &(Shape, Case)| {
            let (case_name, dtype) = (case.name.clone(), case.dtype);
            ProblemKey { op: op.name(), shape: shape.clone(), case: case_name, dtype, seed: case.seed }
        };
        let keys: Vec<ProblemKey> = cases.iter().map(key).collect();
        let kept: Vec<_> = keys
            .iter()
            .map(|key| (self.problems.get(key).cloned(), self.references.get(&(key.clone(), form)).cloned()))
            .collect();
        let all: Vec<_> = cases.iter().zip(&kept).collect();
        let made = parallel(&all, |((shape, case), (problem, expected))| {
            let problem = problem.clone().unwrap_or_else(|| Arc::new(op.problem(shape, case)));
            let expected = expected.clone().unwrap_or_else(|| op.expected(&problem, form).map(Arc::new));
            (problem, expected)
        });
        for ((key, kept), (problem, expected)) in keys.into_iter().zip(kept).zip(&made) {
            if kept.0.is_none() && self.keep(problem.bytes()) {
                self.problems.insert(key.clone(), problem.clone());
            }
            if kept.1.is_none() && self.keep(expected.as_ref().map_or(0, |e| e.bytes())) {
                self.references.insert((key, form), expected.clone());
            }
        }
        made.into_iter().map(|(problem, expected)| Some((problem, expected?))).collect()
    }

    /// Whether so many bytes may be kept, after making room for them.
    fn keep(&mut self, bytes: usize) -> bool {
        if bytes > self.budget {
            return false;
        }
        if self.used + bytes > self.budget {
            self.problems.clear();
            self.references.clear();
            self.used = 0;
        }
        self.used += bytes;
        true
    }
}

/// Runs the gate on one variant and keeps nothing; see [`Gate::run`].
///
/// # Errors
/// As [`Gate::run`].
pub fn run(
    op: &dyn Op,
    shape: &Shape,
    spec: &KernelSpec,
    seed: u64,
    depth: Depth,
    runner: &mut dyn Runner,
) -> Result<CheckReport, CellFailure> {
    Gate::default().run(op, shape, spec, seed, depth, runner)
}

/// Runs one input whose weights have more than 2³¹ elements (AD-26); `None` for an op where nothing can overflow, or a variant
/// that does not take the shape.
///
/// This takes gigabytes of memory on the host and on the device and seconds of time, so it is no part of [`Gate::run`].
///
/// # Errors
/// As [`Gate::run`].
pub fn overflow(
    op: &dyn Op,
    spec: &KernelSpec,
    seed: u64,
    runner: &mut dyn Runner,
) -> Result<Option<CheckReport>, CellFailure> {
    let form = spec.activations.unwrap_or(Activations::F32);
    let Some(shape) = op.overflow_shape().filter(|shape| runner.admits(shape)) else { return Ok(None) };
    let fits = |case: &Case| case.dtype.is_none_or(|d| spec.dtypes.is_empty() || spec.dtypes.contains(&d));
    let Some(case) = op.cases(&shape, seed, Depth::Quick).into_iter().find(fits) else { return Ok(None) };
    let problem = op.problem(&shape, &case);
    let Some(expected) = op.expected(&problem, form) else { return Ok(None) };
    let name = format!("AD-26 {} at {shape}", case.name);
    let wrong = |stage: Stage, message: &str| CellFailure::new(stage, format!("{name}: {message}"));
    let outputs = runner.run(&problem).map_err(|f| wrong(f.stage, &f.message))?;
    let errors = compare(&expected, &outputs).map_err(|mismatch| wrong(Stage::Check, &mismatch.to_string()))?;
    let (worst_of_bound, worst_relative_l2) = (errors.worst_of_bound, errors.worst_relative_l2);
    Ok(Some(CheckReport { cases: vec![name], worst_of_bound, worst_relative_l2 }))
}

/// Every case with the shape it runs at.
fn plan(op: &dyn Op, shape: &Shape, seed: u64, depth: Depth, runner: &dyn Runner) -> Vec<(Shape, Case)> {
    let mut plan: Vec<(Shape, Case)> = Vec::new();
    let mut add = |shape: &Shape, cases: Vec<Case>| plan.extend(cases.into_iter().map(|case| (shape.clone(), case)));
    add(shape, op.cases(shape, seed, depth));
    let home = op.home_shapes(shape).into_iter().find(|home| runner.admits(home)).unwrap_or_else(|| shape.clone());
    add(&home, op.adversarial(&home, seed, depth));
    for other in op.awkward_shapes(shape, depth) {
        if &other != shape && runner.admits(&other) {
            add(&other, op.cases(&other, seed, depth));
        }
    }
    plan
}

/// How often a case runs: the first ones again and again, as a race shows in one run of many.
fn repeats(case: usize, depth: Depth) -> usize {
    match (case, depth) {
        (0, Depth::Full) => 50,
        (0, Depth::Quick) => 4,
        (_, Depth::Full) => 2,
        (_, Depth::Quick) => 1,
    }
}

fn first_difference(first: &[Vec<u8>], again: &[Vec<u8>]) -> Option<String> {
    for (output, (a, b)) in first.iter().zip(again).enumerate() {
        if let Some(byte) = a.iter().zip(b).position(|(a, b)| a != b) {
            return Some(format!("byte {byte} of output {output}"));
        }
    }
    None
}
