//! Runs a variant for the correctness gate.

use harness_spec::{CellFailure, Shape, VariantId};
use variants::KernelSpec;

use super::Cpu;
use super::call::Call;
use crate::op::{Problem, Runner};

/// Runs one variant on the processor: the inputs of each problem are placed afresh, so weights are packed by the code that
/// packs a model's.
#[derive(Debug)]
pub struct CpuRunner<'a> {
    cpu: &'a Cpu,
    spec: &'a KernelSpec,
    variant: VariantId,
}

impl<'a> CpuRunner<'a> {
    /// A runner of a variant of this kernel.
    pub fn new(cpu: &'a Cpu, spec: &'a KernelSpec, variant: VariantId) -> CpuRunner<'a> {
        CpuRunner { cpu, spec, variant }
    }
}

impl Runner for CpuRunner<'_> {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let mut call = Call::new(self.cpu, self.spec, &self.variant, problem, 1)?;
        call.poison(0);
        call.run(self.cpu, 0, 0);
        call.outputs(0)
    }

    fn admits(&self, shape: &Shape) -> bool {
        super::target::admits(self.cpu, self.spec, &self.variant, shape).is_ok()
    }
}
