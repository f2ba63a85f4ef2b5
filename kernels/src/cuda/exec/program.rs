//! Launches with everything they need, and sequences of them.

use harness_spec::{Shape, VariantId};

use crate::cuda::CudaError;
use crate::cuda::driver::{Event, Function, Graph, LaunchShape, Stream, Value};

use super::{Overlap, Span};

/// One launch: a function, its geometry, its arguments, and the memory that these point to.
#[derive(Clone, Debug)]
pub struct Step {
    pub(super) op: String,
    pub(super) key: Shape,
    pub(super) variant: VariantId,
    /// `None` where the step was planned alone: it launches nothing.
    pub(super) function: Option<Function>,
    pub(super) shape: LaunchShape,
    pub(super) args: Vec<Value>,
    /// Whether the kernel waits for the one ahead by itself. Plain kernels do not.
    pub(super) waits: bool,
    // What the arguments point to lives as long as the step.
    pub(super) _memory: Vec<Span>,
}

impl Step {
    /// The op, such as `gemv_q4_0`.
    pub fn op(&self) -> &str {
        &self.op
    }

    /// The shape by which the variant was chosen.
    pub fn key(&self) -> &Shape {
        &self.key
    }

    /// The variant that runs it.
    pub fn variant(&self) -> &VariantId {
        &self.variant
    }

    /// Puts the launch on a stream; `early` lets it start before the one ahead has ended, where the kernel
    /// waits by itself; that needs sm_90.
    ///
    /// # Errors
    /// The driver's error.
    pub fn launch(&self, stream: &Stream, early: bool) -> Result<(), CudaError> {
        self.launch_as(&self.shape, stream, early)
    }

    fn launch_as(&self, shape: &LaunchShape, stream: &Stream, early: bool) -> Result<(), CudaError> {
        let Some(function) = &self.function else { return Ok(()) };
        // SAFETY: only the wrappers of this module make steps. They give the arguments of the op's contract in its order
        // and check that every span is as large as the contract says; `_memory` keeps them, and whoever owns a step waits
        // for the stream before it lets go. Registered kernels stay inside their buffers: the gate checks that.
        unsafe { function.launch(stream, shape, early && self.waits, &self.args) }
    }
}

/// What one step took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The op.
    pub op: String,
    /// The shape by which the variant was chosen.
    pub key: Shape,
    /// The variant.
    pub variant: VariantId,
    /// Nanoseconds.
    pub nanos: f64,
}

/// Steps in their order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    steps: Vec<Step>,
    /// The largest that any of them asks for.
    shared_percent: u32,
}

impl Program {
    /// No steps yet.
    pub fn new() -> Program {
        Program::default()
    }

    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        self.shared_percent = self.shared_percent.max(step.shape.shared_percent);
        self.steps.push(step);
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether another program launches the very same, under whatever keys its variants were chosen by.
    pub fn launches_as(&self, other: &Program) -> bool {
        let same = |a: &Step, b: &Step| {
            (&a.op, &a.variant, a.shape, a.waits) == (&b.op, &b.variant, b.shape, b.waits) && a.args == b.args
        };
        self.steps.len() == other.steps.len() && self.steps.iter().zip(&other.steps).all(|(a, b)| same(a, b))
    }

    /// Launches every step.
    ///
    /// # Errors
    /// The driver's error.
    pub fn run(&self, stream: &Stream, overlap: Overlap) -> Result<(), CudaError> {
        self.run_first(self.steps.len(), stream, overlap)
    }

    /// As [`Program::run`], and only the first `count` steps.
    ///
    /// # Errors
    /// The driver's error.
    pub fn run_first(&self, count: usize, stream: &Stream, overlap: Overlap) -> Result<(), CudaError> {
        let mut first = self.steps.iter().take(count).enumerate();
        first.try_for_each(|(i, step)| self.launch(step, stream, overlap.is_early(i)))
    }

    /// How one of its steps is launched: with the split of L1 that any of them asks for. A step starts beside the one ahead
    /// where both fit in it, and between two splits a multiprocessor must fall idle.
    fn shape_of(&self, step: &Step) -> LaunchShape {
        LaunchShape { shared_percent: self.shared_percent, ..step.shape }
    }

    fn launch(&self, step: &Step, stream: &Stream, early: bool) -> Result<(), CudaError> {
        step.launch_as(&self.shape_of(step), stream, early)
    }

    /// The program as one graph. Every function has been launched before: the first launch loads it, which a capture
    /// forbids.
    ///
    /// # Errors
    /// The driver's error.
    pub fn capture(&self, stream: &Stream, overlap: Overlap) -> Result<Graph, CudaError> {
        Graph::capture(stream, |stream| self.run(stream, overlap))
    }

    /// A graph that marks the time before each step and after the last, with its marks: between two of them lies one step
    /// and nothing else. Steps do not overlap in it.
    ///
    /// # Errors
    /// The driver's error.
    pub fn capture_marked(&self, stream: &Stream) -> Result<(Graph, Vec<Event>), CudaError> {
        let marks = (0..=self.steps.len()).map(|_| Event::new(stream.device())).collect::<Result<Vec<_>, _>>()?;
        let graph = Graph::capture(stream, |stream| {
            for (step, mark) in self.steps.iter().zip(&marks) {
                mark.record_in_graph(stream)?;
                self.launch(step, stream, false)?;
            }
            marks[self.steps.len()].record_in_graph(stream)
        })?;
        Ok((graph, marks))
    }

    /// The times between marks that a launch of the marked graph has set.
    ///
    /// # Errors
    /// The driver's error.
    pub fn times(&self, marks: &[Event]) -> Result<Vec<StepTime>, CudaError> {
        let pairs = marks.windows(2).zip(&self.steps);
        pairs
            .map(|(pair, step)| {
                let nanos = pair[0].until(&pair[1])?;
                let (op, key, variant) = (step.op.clone(), step.key.clone(), step.variant.clone());
                Ok(StepTime { op, key, variant, nanos })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_launched_with_the_largest_share_of_shared_memory_that_one_asks_for() {
        let step = |blocks, shared_percent| Step {
            op: "attn_token".to_owned(),
            key: Shape::of([("LEN", 2048)]),
            variant: "attn_token/k@cuda".parse().unwrap(),
            function: None,
            shape: LaunchShape { shared_percent, ..LaunchShape::line(blocks, 32) },
            args: Vec::new(),
            waits: true,
            _memory: Vec::new(),
        };
        let mut program = Program::new();
        for (blocks, percent) in [(1, 44), (2, 60), (3, 0)] {
            program.push(step(blocks, percent));
        }
        let shapes: Vec<LaunchShape> = program.steps().iter().map(|step| program.shape_of(step)).collect();
        assert_eq!(shapes, [1, 2, 3].map(|blocks| LaunchShape { shared_percent: 60, ..LaunchShape::line(blocks, 32) }));
    }
}
