//! Kernels that are wrong on purpose, most of them as a real kernel once was. Each must be rejected by the gate.
//!
//! They compute in f64 and round at the end, so that nothing but the mutation is wrong.

pub mod attention;
pub mod elementwise;
pub mod memory;
pub mod products;

use harness_spec::{CellFailure, Shape, Stage};
use kernels::check;
use kernels::op::{Case, Depth, Problem, Runner, op};
use variants::{Activations, Backend, KernelSpec, registry};

/// Bytes of a guard band.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;

/// An output between guard bands, which a mutant may write to at any place.
pub struct Output(Vec<u8>);

impl Output {
    fn new(bytes: usize) -> Output {
        let mut all = vec![GUARD_BYTE; bytes + 2 * GUARD];
        all[GUARD..GUARD + bytes].fill(0xff);
        Output(all)
    }

    /// Writes the float at `index`, which may lie outside.
    pub fn put(&mut self, index: isize, value: f32) {
        let at = (GUARD as isize + 4 * index) as usize;
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes floats from the start.
    pub fn fill(&mut self, values: &[f32]) {
        values.iter().enumerate().for_each(|(i, &v)| self.put(i as isize, v));
    }

    /// Writes a u32 at the start.
    pub fn word(&mut self, value: u32) {
        self.put(0, f32::from_bits(value));
    }

    /// Writes bytes from the start.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0[GUARD..][..bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self) -> Result<Vec<u8>, CellFailure> {
        let end = self.0.len() - GUARD;
        if self.0[..GUARD].iter().chain(&self.0[end..]).any(|&b| b != GUARD_BYTE) {
            return Err(CellFailure::new(Stage::Check, "wrote outside of its output: a guard band changed"));
        }
        Ok(self.0[GUARD..end].to_vec())
    }
}

/// What a mutant does with a problem.
pub type Kernel = Box<dyn FnMut(&Problem, &mut [Output])>;

/// A wrong kernel.
pub struct Mutant {
    /// Its number in the inventory of bugs, where it has one, and what is wrong.
    pub name: &'static str,
    /// The op.
    pub op: &'static str,
    /// The form of its activations.
    pub form: Activations,
    /// An input that must expose it, by the start of its name: the one that was made for this bug.
    pub made_for_it: &'static str,
    /// The kernel, in its state before the first run.
    pub make: fn() -> Kernel,
}

/// A mutant without state.
pub fn mutant(
    name: &'static str,
    op: &'static str,
    form: Activations,
    made_for_it: &'static str,
    make: fn() -> Kernel,
) -> Mutant {
    Mutant { name, op, form, made_for_it, make }
}

/// Every mutant.
pub fn all() -> Vec<Mutant> {
    [products::mutants(), elementwise::mutants(), attention::mutants(), memory::mutants()]
        .into_iter()
        .flatten()
        .collect()
}

/// Runs a mutant as the gate runs a kernel.
pub struct MutantRunner(pub Kernel);

impl Runner for MutantRunner {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let mut outputs: Vec<Output> = problem.outputs.iter().map(|o| Output::new(o.bytes())).collect();
        (self.0)(problem, &mut outputs);
        outputs.iter().map(Output::read).collect()
    }
}

/// The shape that an op's mutants are asked to run at: smooth, so that tails show in the awkward shapes alone.
pub fn shape_of(op: &str) -> Shape {
    match op {
        "rmsnorm" | "quantize_a8" => Shape::of([("K", 1024)]),
        "attn_decode" => Shape::of([("HEADS", 6), ("KV_HEADS", 2), ("DIM", 32), ("LEN", 64), ("MAX_LEN", 64)]),
        "stream_read" => Shape::of([("BYTES", 1 << 16)]),
        _ => Shape::of([("N", 32), ("K", 1024)]),
    }
}

/// A kernel of the registry with this form of activations, for its weight types and form.
pub fn spec(op: &str, form: Activations) -> KernelSpec {
    let space = registry().space(op).unwrap();
    let fits = |k: &&KernelSpec| k.backend == Backend::Cpu && k.activations.unwrap_or(Activations::F32) == form;
    space.kernels.iter().rfind(fits).unwrap().clone()
}

/// Every case by itself, with what the gate says of it.
pub fn verdicts(mutant: &Mutant, seed: u64) -> Vec<(String, Option<String>)> {
    let op = op(mutant.op).unwrap();
    let shape = shape_of(mutant.op);
    let home = op.home_shapes(&shape).into_iter().next().unwrap_or_else(|| shape.clone());
    let mut work: Vec<(Shape, Case)> = Vec::new();
    let mut add = |shape: &Shape, cases: Vec<Case>| work.extend(cases.into_iter().map(|case| (shape.clone(), case)));
    add(&shape, op.cases(&shape, seed, Depth::Quick));
    add(&home, op.adversarial(&home, seed, Depth::Quick));
    for other in op.awkward_shapes(&shape, Depth::Quick) {
        add(&other, op.cases(&other, seed, Depth::Quick));
    }
    let spec = spec(mutant.op, mutant.form);
    let mut runner = MutantRunner((mutant.make)());
    let verdict = |(shape, case): (Shape, Case)| {
        if case.dtype.is_some_and(|d| !spec.dtypes.is_empty() && !spec.dtypes.contains(&d)) {
            return None;
        }
        let problem = op.problem(&shape, &case);
        let expected = op.expected(&problem, mutant.form)?;
        let failure = match runner.run(&problem) {
            Err(failure) => Some(failure.message),
            Ok(outputs) => check::compare(&expected, &outputs).err().map(|m| m.to_string()),
        };
        Some((format!("{} at {shape}", case.name), failure))
    };
    work.into_iter().filter_map(verdict).collect()
}
