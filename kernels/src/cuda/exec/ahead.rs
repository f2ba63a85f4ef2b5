//! Compiling what a program needs before it is bound: all kernels at once, on all threads, instead of one after the other.

use std::sync::PoisonError;

use harness_spec::{Shape, VariantId};
use variants::KernelSpec;

use super::taken::OnWeights;
use super::{Exec, Precision, Step};
use crate::cuda::CudaError;
use crate::cuda::driver::LaunchShape;

/// Kernels that steps would have been bound to.
pub(super) type Planned = Vec<(&'static KernelSpec, VariantId)>;

impl Exec {
    /// Runs `build` with steps that are bound to nothing and launch nothing, and compiles in parallel what they would have
    /// been bound to. Where a step cannot be built or a kernel does not compile, that shows where it is bound.
    pub fn compile_for(&self, build: impl FnOnce() -> Result<(), CudaError>) {
        let planned = || self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        *planned() = Some(Planned::new());
        // An error comes again, with its text, where the step is bound.
        let _ = build();
        let units = planned().take().unwrap_or_default();
        self.compile_all(&units);
    }

    /// Whether steps are planned and not bound at present.
    pub(super) fn is_planning(&self) -> bool {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A step that launches nothing, where steps are planned.
    pub(super) fn plan(
        &self,
        precision: Precision,
        op: &str,
        shape: &Shape,
        on: OnWeights,
    ) -> Result<Option<Step>, CudaError> {
        if !self.is_planning() {
            return Ok(None);
        }
        let choice = self.choice_on(precision, op, shape, on)?;
        let variant = choice.variant.clone();
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(units) = planned.as_mut()
            && units.iter().all(|(_, known)| *known != variant)
        {
            units.push((choice.spec, variant.clone()));
        }
        Ok(Some(Step {
            op: op.to_owned(),
            key: shape.clone(),
            variant,
            function: None,
            shape: LaunchShape::line(0, 0),
            args: Vec::new(),
            waits: false,
            _memory: Vec::new(),
        }))
    }
}
