//! The data of a timed workload: one set of weights, a small pool of activations whose right answers are known, and
//! draws from it that no kernel can foresee.

use std::sync::{Arc, OnceLock};

use harness_spec::{CellFailure, Stage, Workload};
use variants::{Activations, KernelSpec};

use crate::check::Expected;
use crate::op::{Arg, Depth, Op, Problem};
use crate::parallel::parallel;

/// Problems in a pool, and so different activations in a graph.
pub const POOL: usize = 4;

/// Powers of two by which activations are multiplied where the outputs follow exactly. Small, so that no form of them
/// leaves its range.
const FACTORS: [f32; 8] = [1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 4.0, -4.0];

/// Contents of arguments, each with its place among them.
pub type Active = Vec<(usize, Arc<[u8]>)>;

/// Activations of one launch: a problem of the pool, multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Its number among all draws.
    pub index: usize,
    /// Which problem.
    pub problem: usize,
    /// Times what.
    pub factor: f32,
}

/// The data of a workload for one layout and one form of activations.
pub struct Inputs {
    op: &'static dyn Op,
    spec: KernelSpec,
    problems: Vec<Problem>,
    args: Vec<Arg>,
    factors: Vec<f32>,
    expected: Vec<OnceLock<Option<Expected>>>,
}

impl Inputs {
    /// Makes the data. The weights are packed once; everything follows from `seed`.
    ///
    /// # Errors
    /// Where the op has no case for this kernel, or its layout does not take the weights.
    pub fn new(op: &'static dyn Op, workload: &Workload, spec: &KernelSpec, seed: u64) -> Result<Inputs, CellFailure> {
        let cases = op.cases(&workload.shape, seed, Depth::Quick);
        let fits = |dtype| spec.dtypes.is_empty() || spec.dtypes.contains(&dtype);
        let of_kind =
            |kind: &str| cases.iter().find(|c| c.dtype.is_none_or(fits) && c.name.to_lowercase().contains(kind));
        let case = of_kind("realistic")
            .or_else(|| of_kind("random"))
            .or_else(|| of_kind(""))
            .ok_or_else(|| CellFailure::new(Stage::Harness, format!("{} has no input for {}", op.name(), spec.id())))?;
        let first = op.problem(&workload.shape, case);
        let problems: Vec<Problem> = (0..POOL as u64)
            .map(|i| {
                let mut p = first.clone();
                op.redraw(&mut p, seed.wrapping_add(i));
                p
            })
            .collect();
        let args = op.arguments(&problems[0], spec)?;
        let factors = FACTORS.into_iter().filter(|&f| f == 1.0 || op.scale(&mut problems[0].clone(), f)).collect();
        let expected = problems.iter().map(|_| OnceLock::new()).collect();
        Ok(Inputs { op, spec: spec.clone(), problems, args, factors, expected })
    }

    /// Arguments of the kernel for the first problem of the pool.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// The first problem of the pool, for its outputs and its name.
    pub fn problem(&self) -> &Problem {
        &self.problems[0]
    }

    /// Every draw, in the order of their numbers.
    pub fn draws(&self) -> impl ExactSizeIterator<Item = Draw> {
        (0..self.problems.len() * self.factors.len()).map(|index| self.numbered(index))
    }

    fn numbered(&self, index: usize) -> Draw {
        let problems = self.problems.len();
        Draw { index, problem: index % problems, factor: self.factors[index / problems] }
    }

    /// A draw other than `last`, so that outputs left from the launches before are wrong.
    pub fn draw(&self, random: u64, last: Option<Draw>) -> Draw {
        let count = self.draws().len();
        let i = (random % count as u64) as usize;
        self.numbered(if last.is_some_and(|l| l.index == i) { (i + 1) % count } else { i })
    }

    /// The bytes of every argument that a redraw changes, for a draw.
    ///
    /// # Errors
    /// Where the form does not take the activations, which those of a redraw always fit.
    pub fn active(&self, draw: Draw) -> Result<Active, CellFailure> {
        let problem = &self.problems[draw.problem];
        if draw.factor == 1.0 {
            return self.op.activations(problem, &self.spec);
        }
        let mut scaled = problem.clone();
        let follows = self.op.scale(&mut scaled, draw.factor);
        assert!(follows, "only factors that the op follows are drawn");
        self.op.activations(&scaled, &self.spec)
    }

    /// What is right for a draw. The references of all problems are computed together on all processors, once.
    pub fn expected(&self, draw: Draw) -> Option<Expected> {
        if self.expected[draw.problem].get().is_none() {
            let form = self.spec.activations.unwrap_or(Activations::F32);
            let all: Vec<usize> = (0..self.problems.len()).collect();
            parallel(&all, |&i| {
                let _ = self.expected[i].get_or_init(|| self.op.expected(&self.problems[i], form));
            });
        }
        let expected = self.expected[draw.problem].get()?.as_ref()?;
        Some(if draw.factor == 1.0 { expected.clone() } else { expected.scaled(f64::from(draw.factor)) })
    }
}
