//! The data of a timed workload: one set of weights, a small pool of activations whose right answers are known, and
//! draws from it that no kernel can foresee.

use std::sync::{Arc, OnceLock};

use harness_spec::{CellFailure, Stage, Workload};
use variants::{Activations, KernelSpec};

use crate::check::Expected;
use crate::cuda::compile::parallel;
use crate::op::{Arg, Depth, Op, Problem, Tensor, activations};

/// Problems in a pool, and so different activations in a graph.
pub const POOL: usize = 4;

/// Powers of two by which activations are multiplied where the outputs follow exactly. Small, so that no form of them
/// leaves its range.
const FACTORS: [f32; 8] = [1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 4.0, -4.0];

/// Activations of one launch: a problem of the pool, multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Which problem.
    pub problem: usize,
    /// Times what.
    pub factor: f32,
}

/// The data of a workload for one layout and one form of activations.
pub struct Inputs {
    op: &'static dyn Op,
    form: Activations,
    problems: Vec<Problem>,
    args: Vec<Arg>,
    /// The bytes of each argument that is no weight, for each problem: those of the first where they never change.
    fixed: Vec<Vec<(usize, Arc<[u8]>)>>,
    /// The argument that holds the encoded activations and its row length, where it can be made without packing weights.
    encoded: Option<(usize, usize)>,
    factors: Vec<f32>,
    expected: Vec<OnceLock<Option<Expected>>>,
}

impl Inputs {
    /// Makes the data. The weights are packed once; everything follows from `seed`.
    ///
    /// # Errors
    /// Where the op has no case for this kernel, or its layout does not take the weights.
    pub fn new(op: &'static dyn Op, workload: &Workload, spec: &KernelSpec, seed: u64) -> Result<Inputs, CellFailure> {
        let form = spec.activations.unwrap_or(Activations::F32);
        let cases = op.cases(&workload.shape, seed, Depth::Quick);
        let fits = |dtype| spec.dtypes.is_empty() || spec.dtypes.contains(&dtype);
        let of_kind = |kind: &str| {
            cases.iter().find(|c| c.dtype.is_none_or(fits) && c.name.to_lowercase().contains(kind))
        };
        let case = of_kind("realistic").or_else(|| of_kind("random")).or_else(|| of_kind("")).ok_or_else(|| {
            CellFailure::new(Stage::Harness, format!("{} has no input for {}", op.name(), spec.id()))
        })?;
        let mut first = op.problem(&workload.shape, case);
        op.redraw(&mut first, seed);
        let args = op.arguments(&first, spec)?;
        let problems: Vec<Problem> = (0..POOL)
            .map(|i| {
                let mut p = first.clone();
                if i > 0 {
                    op.redraw(&mut p, seed.wrapping_add(i as u64));
                }
                p
            })
            .collect();
        let active = |args: &[Arg]| -> Vec<(usize, Arc<[u8]>)> {
            let ins = args.iter().enumerate();
            ins.filter_map(|(i, a)| match a {
                Arg::In { bytes, weights: false } => Some((i, bytes.clone())),
                _ => None,
            })
            .collect()
        };
        let first_active = active(&args);
        let encoded = encoded_argument(&problems[0], &first_active, form);
        let fixed = if encoded.is_some() {
            vec![Vec::new(); POOL]
        } else if first_active.is_empty() {
            vec![Vec::new(); POOL]
        } else {
            let rest = parallel(&problems[1..], |p| op.arguments(p, spec).map(|a| active(&a)));
            std::iter::once(Ok(first_active)).chain(rest).collect::<Result<_, _>>()?
        };
        let factors = match encoded {
            Some(_) => FACTORS.into_iter().filter(|&f| f == 1.0 || op.scale(&mut problems[0].clone(), f)).collect(),
            None => vec![1.0],
        };
        let expected = problems.iter().map(|_| OnceLock::new()).collect();
        Ok(Inputs { op, form, problems, args, fixed, encoded, factors, expected })
    }

    /// Arguments of the kernel for the first problem of the pool.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// The first problem of the pool, for its outputs and its name.
    pub fn problem(&self) -> &Problem {
        &self.problems[0]
    }

    /// A draw other than `last`, so that outputs left from the launches before are wrong.
    pub fn draw(&self, random: u64, last: Option<Draw>) -> Draw {
        let count = self.problems.len() * self.factors.len();
        let at = |i: usize| Draw { problem: i % self.problems.len(), factor: self.factors[i / self.problems.len()] };
        let i = (random % count as u64) as usize;
        if Some(at(i)) == last { at((i + 1) % count) } else { at(i) }
    }

    /// The bytes of every argument that is no weight, for a draw.
    pub fn active(&self, draw: Draw) -> Vec<(usize, Arc<[u8]>)> {
        let Some((arg, k)) = self.encoded else { return self.fixed[draw.problem].clone() };
        let mut problem = self.problems[draw.problem].clone();
        if draw.factor != 1.0 {
            let scaled = self.op.scale(&mut problem, draw.factor);
            assert!(scaled, "only factors that the op follows are drawn");
        }
        let x = floats(&problem).expect("an encoded argument is made of floats");
        vec![(arg, activations::encode(x, k, self.form).into())]
    }

    /// What is right for a draw. The references of all problems are computed together on all processors, once.
    pub fn expected(&self, draw: Draw) -> Option<Expected> {
        if self.expected[draw.problem].get().is_none() {
            let all: Vec<usize> = (0..self.problems.len()).collect();
            parallel(&all, |&i| {
                let _ = self.expected[i].get_or_init(|| self.op.expected(&self.problems[i], self.form));
            });
        }
        let expected = self.expected[draw.problem].get()?.as_ref()?;
        Some(if draw.factor == 1.0 { expected.clone() } else { expected.scaled(f64::from(draw.factor)) })
    }
}

/// The floats of a problem, where it has one such input.
fn floats(problem: &Problem) -> Option<&[f32]> {
    let mut all = problem.inputs.iter().filter_map(|t| if let Tensor::F32(v) = t { Some(v.as_slice()) } else { None });
    let only = all.next()?;
    all.next().is_none().then_some(only)
}

/// The one argument that is no weight, where it is the one float input of the problem in the kernel's form.
fn encoded_argument(problem: &Problem, active: &[(usize, Arc<[u8]>)], form: Activations) -> Option<(usize, usize)> {
    let [(arg, bytes)] = active else { return None };
    let (_, _, k, _) = problem.weights()?;
    let x = floats(problem)?;
    let divides = x.len().is_multiple_of(k) && activations::group_of(form).is_none_or(|g| k.is_multiple_of(g));
    (divides && activations::encode(x, k, form) == **bytes).then_some((*arg, k))
}
