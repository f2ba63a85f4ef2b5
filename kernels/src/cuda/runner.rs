//! One variant on the device, as the correctness gate runs it.

use std::sync::Arc;

use harness_spec::{CellFailure, Shape, Stage, VariantId};
use variants::{KernelSpec, Limits};

use super::CudaError;
use super::driver::{Buffer, Function, Guarded, LaunchShape, Stream, Value};
use super::kernel::launch_shape;
use super::packed::{Packed, PackedWeights};
use super::target::Support;
use crate::op::{Arg, Op, Problem, Runner};

/// How late the producer of a programmatic launch writes: far longer than a consumer takes that does not wait.
const LATE_NANOS: u64 = 20_000;

/// Runs one variant on a device: fresh buffers for every problem, outputs poisoned and between guard bands.
pub struct CudaRunner<'a> {
    /// The op.
    pub op: &'static dyn Op,
    /// The kernel.
    pub spec: &'a KernelSpec,
    /// The variant of it.
    pub variant: &'a VariantId,
    /// What the device allows.
    pub limits: &'a Limits,
    /// The loaded function.
    pub function: &'a Function,
    /// The stream.
    pub stream: &'a Stream,
    /// The harness's own kernels.
    pub support: &'a Support,
    /// Weights that were packed and sent for other cases and variants.
    pub packed: &'a mut PackedWeights,
    /// Whether it is launched with the programmatic attribute, behind a producer that writes the activations late: a
    /// kernel that reads them before it waits is seen.
    pub early: bool,
    /// The error after which the context is lost, where one came.
    pub fatal: Option<CudaError>,
}

/// The device's side of an argument.
enum Held {
    Weights(u64),
    In { buffer: Buffer, source: Option<Buffer> },
    Out(Guarded),
    Scratch { buffer: Buffer, zeroed: bool },
    Value(Value),
}

impl CudaRunner<'_> {
    /// Puts an argument on the device; `active` are the activations of this problem, as the
    /// arguments may have been packed for another with the same weights.
    fn hold(
        &self,
        at: usize,
        packed: &Packed,
        problem: &Problem,
        active: &[(usize, Arc<[u8]>)],
    ) -> Result<Held, CudaError> {
        let stream = self.stream;
        if let Some((_, buffer)) = packed.weights.iter().find(|(i, _)| *i == at) {
            return Ok(Held::Weights(buffer.address()));
        }
        Ok(match &packed.args[at] {
            Arg::In { bytes, weights } => {
                let bytes = active.iter().find(|(i, _)| *i == at).map_or(bytes, |(_, bytes)| bytes);
                // Weights may be read before the wait, so that they are there from the start.
                if self.early && !weights && !bytes.is_empty() && bytes.len().is_multiple_of(4) {
                    let buffer = Buffer::new(stream.device(), bytes.len(), "activations")?;
                    buffer.fill(stream, 0, bytes.len(), 0xFF)?;
                    Held::In { buffer, source: Some(Buffer::of(stream, bytes, "activations")?) }
                } else {
                    Held::In { buffer: Buffer::of(stream, bytes, "inputs")?, source: None }
                }
            }
            Arg::State { bytes } => Held::In { buffer: Buffer::of(stream, bytes, "state")?, source: None },
            Arg::Out(i) => Held::Out(Guarded::poisoned(stream, problem.outputs[*i].bytes(), "outputs")?),
            Arg::Scratch { bytes, zeroed } => {
                let buffer = Buffer::new(stream.device(), *bytes, "scratch memory")?;
                buffer.fill(stream, 0, *bytes, if *zeroed { 0 } else { 0xFF })?;
                Held::Scratch { buffer, zeroed: *zeroed }
            }
            Arg::I32(v) => Held::Value(Value::I32(*v)),
            Arg::I64(v) => Held::Value(Value::U64(*v as u64)),
            Arg::F32(v) => Held::Value(Value::F32(*v)),
        })
    }

    fn attempt(
        &self,
        problem: &Problem,
        packed: &Packed,
        active: &[(usize, Arc<[u8]>)],
        shape: &LaunchShape,
    ) -> Result<Vec<Vec<u8>>, Attempt> {
        let args = &packed.args;
        let held: Vec<Held> =
            (0..args.len()).map(|at| self.hold(at, packed, problem, active)).collect::<Result<_, _>>()?;
        let values: Vec<Value> = held.iter().map(Held::value).collect();
        for h in &held {
            if let Held::In { buffer, source: Some(from) } = h {
                let words = buffer.len() as u64 / 4;
                self.support.late_copy(self.stream, buffer.address(), from.address(), words, LATE_NANOS)?;
            }
        }
        // SAFETY: the op gives the arguments of its kernels in their order, and `held` keeps what they point to until the
        // stream has been waited for below. That a kernel stays inside is what the guard bands are there to tell.
        unsafe { self.function.launch(self.stream, shape, self.early, &values)? };
        let doing = || format!("running {} on {} ({})", self.variant, problem.workload, problem.case);
        let mut outputs: Vec<Option<Vec<u8>>> = vec![None; problem.outputs.len()];
        for (arg, h) in args.iter().zip(&held) {
            match (arg, h) {
                (Arg::Out(i), Held::Out(out)) => {
                    let (bytes, touched) = out.read(self.stream, doing)?;
                    if let Some(at) = touched {
                        let name = problem.outputs[*i].name;
                        let side = if at < 0 { "before" } else { "behind" };
                        return Err(Attempt::Wrong(format!(
                            "wrote outside {name}: the byte at offset {at} of {}, {side} it, was changed",
                            bytes.len()
                        )));
                    }
                    outputs[*i] = Some(bytes);
                }
                (_, Held::Scratch { buffer, zeroed: true }) => {
                    let left = buffer.download(self.stream, 0, buffer.len(), doing)?;
                    if let Some(at) = left.iter().position(|&b| b != 0) {
                        return Err(Attempt::Wrong(format!(
                            "left byte {at} of its {} bytes of zeroed scratch memory at {}, and the next launch needs zero",
                            left.len(),
                            left[at]
                        )));
                    }
                }
                _ => {}
            }
        }
        // A kernel without outputs, or whose faults nothing above has waited for.
        self.stream.wait(doing)?;
        let named = |(o, spec): (Option<Vec<u8>>, &crate::op::OutputSpec)| {
            o.ok_or_else(|| Attempt::Wrong(format!("no argument is the output {}", spec.name)))
        };
        outputs.into_iter().zip(&problem.outputs).map(named).collect()
    }
}

/// How an attempt ended without outputs.
enum Attempt {
    Cuda(CudaError),
    Wrong(String),
}

impl From<CudaError> for Attempt {
    fn from(e: CudaError) -> Attempt {
        Attempt::Cuda(e)
    }
}

impl Held {
    fn value(&self) -> Value {
        match self {
            Held::Weights(address) => Value::U64(*address),
            Held::In { buffer, .. } | Held::Scratch { buffer, .. } => Value::U64(buffer.address()),
            Held::Out(out) => Value::U64(out.address()),
            Held::Value(v) => *v,
        }
    }
}

impl Runner for CudaRunner<'_> {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let shape = launch_shape(self.spec, self.variant, &problem.workload.shape, self.limits)?;
        self.function.allow(shape.threads(), shape.smem)?;
        let packed = self.packed.get(self.stream, self.op, problem, self.spec)?;
        // Arguments without packed weights are those of this very problem.
        let active = if packed.weights.is_empty() { Vec::new() } else { self.op.activations(problem, self.spec)? };
        self.attempt(problem, &packed, &active, &shape).map_err(|e| match e {
            Attempt::Wrong(message) => CellFailure::new(Stage::Check, message),
            Attempt::Cuda(e) => {
                let failure = CellFailure::from(&e);
                if e.is_fatal() {
                    self.fatal = Some(e);
                }
                failure
            }
        })
    }

    fn admits(&self, shape: &Shape) -> bool {
        self.spec.admits(self.variant, shape, self.limits).is_ok()
    }
}
