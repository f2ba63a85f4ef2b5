//! One variant on the device, as the correctness gate runs it.

use harness_spec::{CellFailure, Shape, Stage, VariantId};
use variants::{KernelSpec, Limits};

use super::CudaError;
use super::code::{Code, Launch};
use super::driver::{Buffer, Guarded, Stream, Value};
use super::packed::{Packed, PackedWeights};
use super::target::{Late, Support, With};
use crate::op::{Arg, Op, Problem, Runner};

/// How late the producer of a programmatic launch writes: far longer than the next launch takes to arrive and a consumer
/// that does not wait takes to read or to store.
const LATE_NANOS: u64 = 50_000;

/// What outputs hold before a launch, and inputs until the late producer has written them: NaN to a float.
const POISON: u8 = 0xFF;

/// Inputs up to this size hold lengths and positions. Until they are written they are zero, as poison would lead a kernel
/// that reads them too early to an address that belongs to nobody, and the fault would take the context with it.
const SMALL: usize = 64;

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
    /// What computes it.
    pub code: &'a Code,
    /// The stream.
    pub stream: &'a Stream,
    /// The harness's own kernels.
    pub support: &'a Support,
    /// Weights that were packed and sent for other cases and variants.
    pub packed: &'a mut PackedWeights,
    /// Whether it is launched with the programmatic attribute, behind one producer that writes everything late which the
    /// kernels ahead write: inputs and state get their contents, outputs their poison, scratch memory its zeros. So a
    /// kernel is seen that reads any of them before it waits, and one that stores before it waits, as the producer writes
    /// over that. Constants of the model and what stands since before the token are there from the start.
    pub early: bool,
    /// Whether the function was launched before: a first launch may load code, longer than any producer is late.
    pub warm: bool,
    /// The error after which the context is lost, where one came.
    pub fatal: Option<CudaError>,
}

/// The device's side of an argument.
enum Held {
    Weights(u64),
    In { buffer: Buffer, source: Option<Buffer> },
    Out { guarded: Guarded, len: usize },
    Scratch { buffer: Buffer, zeroed: bool },
    Value(Value),
}

impl CudaRunner<'_> {
    /// Puts an argument on the device.
    fn hold(&self, at: usize, packed: &Packed, problem: &Problem, early: bool) -> Result<Held, CudaError> {
        let stream = self.stream;
        let mutable = |bytes: &[u8]| -> Result<Held, CudaError> {
            let source = Buffer::of(stream, bytes, "inputs")?;
            if !early {
                return Ok(Held::In { buffer: source, source: None });
            }
            let mut hidden = bytes.to_vec();
            for range in packed.args[at].late(bytes.len()) {
                hidden[range].fill(if bytes.len() <= SMALL { 0 } else { POISON });
            }
            Ok(Held::In { buffer: Buffer::of(stream, &hidden, "inputs")?, source: Some(source) })
        };
        if let Some((_, buffer)) = packed.weights.iter().find(|(i, _)| *i == at) {
            return Ok(Held::Weights(buffer.address()));
        }
        Ok(match &packed.args[at] {
            // Constants of the model may be read before the wait, so that they are there from the start.
            Arg::In { bytes, weights: true } => {
                Held::In { buffer: Buffer::of(stream, bytes, "weights")?, source: None }
            }
            Arg::In { bytes, weights: false } | Arg::State { bytes, .. } => mutable(bytes)?,
            Arg::Settled { bytes } => {
                Held::In { buffer: Buffer::of(stream, bytes, "state of the token")?, source: None }
            }
            Arg::Out(i) => {
                let len = problem.outputs[*i].bytes();
                Held::Out { guarded: Guarded::poisoned(stream, len, "outputs")?, len }
            }
            Arg::Scratch { bytes, zeroed } => {
                let buffer = Buffer::new(stream.device(), *bytes, "scratch memory")?;
                buffer.fill(stream, 0, *bytes, if *zeroed && !early { 0 } else { POISON })?;
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
        launch: &Launch,
        early: bool,
    ) -> Result<Vec<Vec<u8>>, Attempt> {
        let args = &packed.args;
        let held: Vec<Held> =
            (0..args.len()).map(|at| self.hold(at, packed, problem, early)).collect::<Result<_, _>>()?;
        let values: Vec<Value> = held.iter().map(Held::value).collect();
        let _table = if early {
            // Inputs first: what a kernel stores as soon as it sees them is written over all the same.
            let (outputs, inputs): (Vec<Late>, Vec<Late>) =
                held.iter().filter_map(Held::late).partition(|late| matches!(late.with, With::Fill(_)));
            // One producer: the programmatic launch overlaps with the kernel right ahead of it alone.
            Some(self.support.write_late(self.stream, &[inputs, outputs].concat(), LATE_NANOS)?)
        } else {
            None
        };
        // SAFETY: the op gives the arguments of its kernels in their order, and `held` and the table keep what is pointed to
        // until the stream has been waited for below. That a kernel stays inside is what the guard bands are there to tell.
        unsafe { launch.launch(self.stream, early, &values)? };
        let doing = || format!("running {} on {} ({})", self.variant, problem.workload, problem.case);
        let mut outputs: Vec<Option<Vec<u8>>> = vec![None; problem.outputs.len()];
        for (arg, h) in args.iter().zip(&held) {
            match (arg, h) {
                (Arg::Out(i), Held::Out { guarded, .. }) => {
                    let (bytes, touched) = guarded.read(self.stream, doing)?;
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
            Held::Out { guarded, .. } => Value::U64(guarded.address()),
            Held::Value(v) => *v,
        }
    }

    /// What a late producer writes there, which leaves it as an ordinary launch finds it.
    fn late(&self) -> Option<Late> {
        let late = |to: u64, bytes: usize, with| Late { to, bytes: bytes as u64, with };
        match self {
            Held::In { buffer, source: Some(from) } => {
                Some(late(buffer.address(), buffer.len(), With::Copy(from.address())))
            }
            Held::Out { guarded, len } => Some(late(guarded.address(), *len, With::Fill(POISON))),
            Held::Scratch { buffer, zeroed } => {
                Some(late(buffer.address(), buffer.len(), With::Fill(if *zeroed { 0 } else { POISON })))
            }
            Held::In { source: None, .. } | Held::Weights(_) | Held::Value(_) => None,
        }
    }
}

impl Runner for CudaRunner<'_> {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let launch = self.code.at(self.spec, self.variant, &problem.workload.shape, self.limits)?;
        let packed = self.packed.get(self.stream, self.op, problem, self.spec)?;
        let outcome = if self.early && !self.warm {
            self.attempt(problem, &packed, &launch, false).and_then(|_| self.attempt(problem, &packed, &launch, true))
        } else {
            self.attempt(problem, &packed, &launch, self.early)
        };
        self.warm = true;
        outcome.map_err(|e| match e {
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
