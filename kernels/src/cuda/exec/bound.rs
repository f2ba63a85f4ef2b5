//! From a kernel that was chosen to a loaded function and its launch.

use std::sync::{Arc, PoisonError};

use harness_spec::{Shape, VariantId};
use variants::{Choice, KernelSpec};

use super::bind::Args;
use super::taken::OnWeights;
use super::{Exec, Precision, Step, Weights};
use crate::cuda::CudaError;
use crate::cuda::compile::Cubin;
use crate::cuda::driver::{Function, LaunchShape, Module};
use crate::cuda::kernel;

/// What runs an op at a shape.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub spec: &'static KernelSpec,
    pub variant: VariantId,
    function: Function,
    shape: LaunchShape,
}

/// What a kernel is bound for: the op, the shape, whether plain kernels alone may run, and the weights.
pub(super) type BoundKey = (String, Shape, bool, OnWeights);

/// A variant that was found not to run an op at a shape.
pub(super) type LeftOut = (String, Shape, VariantId);

impl Exec {
    fn function(&self, spec: &KernelSpec, choice: &Choice) -> Result<Function, CudaError> {
        let key = format!("{} {}", spec.fingerprint(), choice.variant);
        if let Some(found) = self.functions.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        let cubin: Cubin = kernel::compile(&self.compiler, spec, &choice.variant, self.arch).map_err(|e| {
            CudaError::NoKernel { op: choice.variant.to_string(), shape: self.arch.to_string(), reason: e.message }
        })?;
        let function = Module::load(self.device(), &cubin)?.function(&cubin.entry)?;
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).insert(key, function.clone());
        Ok(function)
    }

    fn bind(&self, precision: Precision, op: &str, shape: &Shape, on: OnWeights) -> Result<Arc<Bound>, CudaError> {
        let key = (op.to_owned(), shape.clone(), precision == Precision::Plain, on);
        if let Some(found) = self.bound.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        // A row that cannot be used is taken out of service and the next one tried (R25); the plain kernel comes last.
        let bound = loop {
            let choice = self.choice_on(precision, op, shape, on)?;
            match self.try_bind(&choice, op, shape) {
                Ok(bound) => break bound,
                Err(e) if e.is_fatal() || choice.spec.baseline => return Err(e),
                // Whoever tries a variant wants that one, and hears why it does not run.
                Err(e) if self.tried(precision, op, shape).is_some() => return Err(e),
                Err(e) => {
                    if !self.leave_out(precision, op, shape, &choice.variant, &e.to_string()) {
                        return Err(e);
                    }
                }
            }
        };
        let bound = Arc::new(bound);
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).insert(key, bound.clone());
        Ok(bound)
    }

    fn try_bind(&self, choice: &Choice, op: &str, shape: &Shape) -> Result<Bound, CudaError> {
        let function = self.function(choice.spec, choice)?;
        let launch = kernel::launch_shape(choice.spec, &choice.variant, shape, &self.limits)
            .map_err(|e| CudaError::NoKernel { op: op.to_owned(), shape: shape.to_string(), reason: e.message })?;
        function.allow(&launch)?;
        function.fits_in_clusters(&launch)?;
        Ok(Bound { spec: choice.spec, variant: choice.variant.clone(), function, shape: launch })
    }

    /// Whether a variant was found not to run an op at a shape.
    pub(super) fn is_left_out(&self, op: &str, shape: &Shape, variant: &VariantId) -> bool {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.iter().any(|(of, at, which)| of == op && at == shape && which == variant)
    }

    /// Takes a variant that does not run out of service: at this shape, as of no other was it found. False where it is that
    /// already.
    pub(super) fn leave_out(
        &self,
        precision: Precision,
        op: &str,
        shape: &Shape,
        variant: &VariantId,
        why: &str,
    ) -> bool {
        if self.is_left_out(op, shape, variant) {
            return false;
        }
        let entry = (op.to_owned(), shape.clone(), variant.clone());
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.of(precision).quarantine(op, shape, variant, why);
        // The same for all lengths of a context, mostly: without the shape it is said once.
        let note = format!("{variant} does not run here, and another kernel does in its place: {why}");
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
        true
    }

    /// A step whose arguments the caller has checked, by a kernel that takes the weights as they lie.
    pub(super) fn step(
        &self,
        precision: Precision,
        op: &str,
        shape: &Shape,
        weights: Option<&Weights>,
        args: Args,
    ) -> Result<Step, CudaError> {
        let on = OnWeights::of(weights);
        if let Some(step) = self.plan(precision, op, shape, on)? {
            return Ok(step);
        }
        let bound = self.bind(precision, op, shape, on)?;
        Ok(Step {
            op: op.to_owned(),
            key: shape.clone(),
            variant: bound.variant.clone(),
            function: Some(bound.function.clone()),
            shape: bound.shape,
            args: args.values,
            waits: !bound.spec.baseline,
            _memory: args.memory,
        })
    }
}
