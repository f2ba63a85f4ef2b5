//! What a kernel must take to be chosen here: weights of a type, as they lie, and activations that a step of a token leaves.

use harness_spec::{DType, Shape};
use variants::{Activations, Backend, Choice, ChosenBy, KernelSpec, Layout, gemv_op, registry};

use super::{Exec, Precision, Weights};
use crate::cuda::CudaError;

/// What is known of the weights that an op is chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct OnWeights {
    /// Their type; `None` for an op without weights.
    pub dtype: Option<DType>,
    /// How they lie, where they are on the device already.
    pub layout: Option<Layout>,
}

impl OnWeights {
    pub(super) fn of(weights: Option<&Weights>) -> OnWeights {
        OnWeights { dtype: weights.map(|w| w.dtype), layout: weights.map(|w| w.layout) }
    }

    /// Whether a kernel reads them. Both forms of ternary weights share an op, whose kernels need not read both.
    fn are_read_by(self, spec: &KernelSpec) -> bool {
        self.dtype.is_none_or(|dtype| spec.dtypes.contains(&dtype))
            && (self.layout.is_none() || spec.layout.is_none() || spec.layout == self.layout)
    }

    fn name(self) -> String {
        of_type_and_layout(self.dtype.as_slice(), self.layout)
    }

    /// Why a kernel of an op cannot take the place of the present one, if it cannot: the weights stay as they lie.
    pub(super) fn refuse(self, op: &str, spec: &KernelSpec) -> Option<String> {
        if !self.are_read_by(spec) {
            let reads = of_type_and_layout(&spec.dtypes, spec.layout);
            return Some(format!("it reads {reads}, and the weights are {}", self.name()));
        }
        lacks_input(op, spec)
    }
}

/// Any of some types in a layout, in words: none and `None` are any.
fn of_type_and_layout(dtypes: &[DType], layout: Option<Layout>) -> String {
    let types: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
    let layout = layout.map(|layout| format!("in the layout {}", layout.name()));
    let words = [types.join(" or "), layout.unwrap_or_default()];
    words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Why no step of a token gives a kernel of an op its activations, if none does. Products alone have kernels of several
/// forms, and a table may name any of them after they were timed alone; another op's contract says its form.
pub(super) fn lacks_input(op: &str, spec: &KernelSpec) -> Option<String> {
    let is_product = spec.dtypes.iter().any(|&dtype| gemv_op(dtype) == op);
    match spec.activations {
        None | Some(Activations::F32 | Activations::A8) => None,
        Some(form) if is_product => {
            Some(format!("it takes activations as {}, which no step of a token leaves", form.name()))
        }
        Some(_) => None,
    }
}

fn refused(op: &str, shape: &Shape, reason: String) -> CudaError {
    CudaError::NoKernel { op: op.to_owned(), shape: shape.to_string(), reason }
}

impl Exec {
    /// What runs an op at a shape on these weights: what the table says, or the default of another kernel where that one
    /// reads other weights. Whatever is bound, planned or offered is chosen here.
    ///
    /// A row whose kernel takes activations that nobody leaves gives its place to the next, which is said.
    pub(super) fn choice_on(
        &self,
        precision: Precision,
        op: &str,
        shape: &Shape,
        on: OnWeights,
    ) -> Result<Choice, CudaError> {
        let tried = self.tried(precision, op, shape);
        let choice = match &tried {
            Some(choice) => choice.clone(),
            None => self.with_input(precision, op, shape)?,
        };
        if on.are_read_by(choice.spec) {
            return Ok(choice);
        }
        // Whoever tries a variant wants that one.
        let kernels = registry().space(op).filter(|_| tried.is_none()).map_or(&[][..], |space| &space.kernels);
        let found = kernels.iter().rev().filter(|k| precision == Precision::Table || k.baseline).find(|k| {
            let variant = k.default_variant();
            k.backend == Backend::Cuda
                && !k.is_library()
                && on.are_read_by(k)
                && lacks_input(op, k).is_none()
                && k.admits(&variant, shape, &self.limits).is_ok()
                && !self.is_left_out(op, shape, &variant)
        });
        let none = || refused(op, shape, format!("no kernel of it that runs here takes weights of {}", on.name()));
        let spec = found.ok_or_else(none)?;
        Ok(Choice { spec, variant: spec.default_variant(), from: ChosenBy::Default })
    }

    fn with_input(&self, precision: Precision, op: &str, shape: &Shape) -> Result<Choice, CudaError> {
        loop {
            let choice = self.choice(precision, op, shape)?.clone();
            match lacks_input(op, choice.spec) {
                None => return Ok(choice),
                Some(why) if self.leave_out(precision, op, shape, &choice.variant, &why) => {}
                Some(why) => return Err(refused(op, shape, format!("{} is chosen, and {why}", choice.variant))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products() -> impl Iterator<Item = (&'static str, &'static KernelSpec)> {
        let kernels = registry().kernels().filter(|(_, k)| k.backend == Backend::Cuda);
        kernels.filter(|(op, k)| k.dtypes.iter().any(|&dtype| gemv_op(dtype) == *op))
    }

    #[test]
    fn a_product_of_half_activations_lacks_its_input_and_kernels_of_other_ops_never_do() {
        let half = |k: &KernelSpec| k.activations == Some(Activations::F16);
        let refused: Vec<_> = products().filter(|(op, k)| lacks_input(op, k).is_some()).collect();
        assert!(refused.len() >= 2, "f16 activations on vector units and on tensor cores");
        assert!(refused.iter().all(|(_, k)| half(k)), "{refused:?}");
        assert_eq!(refused.len(), products().filter(|(_, k)| half(k)).count());
        // A matrix of many tokens takes halves, which a norm ahead of it leaves.
        let gemm = registry().space("gemm_q4_0").unwrap().kernels.iter().find(|k| half(k)).unwrap();
        assert_eq!(lacks_input("gemm_q4_0", gemm), None);
    }

    #[test]
    fn weights_are_read_by_kernels_of_their_own_type_and_layout_alone() {
        let (_, ternary) = products().find(|(op, _)| *op == "gemv_ternary").unwrap();
        let on = |dtype, layout| OnWeights { dtype: Some(dtype), layout };
        assert!(on(DType::TQ2_0, None).are_read_by(ternary));
        assert!(!on(DType::TQ1_0, None).are_read_by(ternary));
        for (op, kernel) in products() {
            for layout in [Layout::Gguf, Layout::Planes] {
                let reads = on(kernel.dtypes[0], Some(layout)).are_read_by(kernel);
                assert_eq!(reads, kernel.layout == Some(layout), "{op}/{}", kernel.name);
            }
        }
    }

    #[test]
    fn a_kernel_that_cannot_replace_another_is_refused_by_what_it_reads() {
        let (op, ternary) = products().find(|(op, _)| *op == "gemv_ternary").unwrap();
        let own = ternary.layout.unwrap();
        let other = if own == Layout::Gguf { Layout::Planes } else { Layout::Gguf };
        let said = |dtype, layout| OnWeights { dtype, layout: Some(layout) }.refuse(op, ternary);
        let (own_name, other_name) = (own.name(), other.name());
        let reads = format!("it reads TQ2_0 in the layout {own_name}, and the weights are");
        for (dtype, layout, want) in [
            (Some(DType::TQ1_0), own, format!("{reads} TQ1_0 in the layout {own_name}")),
            (Some(DType::TQ2_0), other, format!("{reads} TQ2_0 in the layout {other_name}")),
            (None, other, format!("{reads} in the layout {other_name}")),
        ] {
            assert_eq!(said(dtype, layout), Some(want));
        }
        assert_eq!(said(Some(DType::TQ2_0), own), None);
    }
}
