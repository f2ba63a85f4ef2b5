//! A table: the kernel chosen for each op and weight type.

use harness_spec::{DType, VariantId};

use crate::registry::gemv_op;
use crate::{Activations, Backend, Isa, KernelSpec, registry};

/// Which kernel runs each op. An op that a table does not name runs its default: never a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    isa: Isa,
    baseline: bool,
}

impl Table {
    /// The best kernel of every op that runs on this instruction set level.
    pub const fn default_for(isa: Isa) -> Table {
        Table { isa, baseline: false }
    }

    /// Every op on its plain kernel: the embedded peer, and what every other kernel is compared with.
    pub const fn baseline() -> Table {
        Table { isa: Isa::Scalar, baseline: true }
    }

    /// Whether every op runs its plain kernel.
    pub const fn is_baseline(&self) -> bool {
        self.baseline
    }

    /// The instruction set level that the table was made for.
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// The kernel of an op without weights, on a machine of level `isa`.
    pub fn kernel(&self, op: &str, isa: Isa) -> Option<&'static KernelSpec> {
        self.pick(op, isa, |_| true)
    }

    /// The kernel that multiplies `[n, k]` weights of `dtype` on a machine of level `isa`, and its variant.
    ///
    /// `exact` leaves out the kernels that round their activations to int8.
    pub fn gemv(&self, dtype: DType, n: usize, k: usize, isa: Isa, exact: bool) -> (&'static KernelSpec, VariantId) {
        let _ = (n, k);
        let kernel = self
            .pick(gemv_op(dtype), isa, |k| {
                k.dtypes.contains(&dtype) && !(exact && k.activations != Some(Activations::F32))
            })
            .expect("a test proves that every type has a plain kernel, and plain kernels are exact");
        (kernel, kernel.default_variant())
    }

    fn pick(&self, op: &str, isa: Isa, fits: impl Fn(&KernelSpec) -> bool) -> Option<&'static KernelSpec> {
        let level = isa.min(self.isa);
        let space = registry().space(op)?;
        let fits = |k: &KernelSpec| k.backend == Backend::Cpu && level.runs(k.isa) && fits(k);
        let chosen = |k: &KernelSpec| if self.baseline { k.baseline } else { k.role.may_be_default() };
        space.kernels.iter().rfind(|k| chosen(k) && fits(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_an_exact_and_a_fast_kernel_at_every_level() {
        for dtype in DType::ALL {
            for isa in Isa::ALL {
                for exact in [false, true] {
                    let (kernel, variant) = Table::default_for(isa).gemv(dtype, 4096, 4096, isa, exact);
                    assert!(isa.runs(kernel.isa) && kernel.is_kernel_of(&variant));
                    assert!(!exact || kernel.activations == Some(Activations::F32));
                }
            }
        }
    }

    #[test]
    fn the_baseline_takes_the_plain_kernel_whatever_the_machine_can_do() {
        for dtype in DType::ALL {
            assert!(Table::baseline().gemv(dtype, 64, 64, Isa::Avx512Vnni, false).0.baseline);
        }
        assert!(Table::baseline().kernel("attention", Isa::Avx512Vnni).unwrap().baseline);
    }

    #[test]
    fn a_lower_level_of_the_machine_limits_the_table() {
        let (kernel, _) = Table::default_for(Isa::Avx512Vnni).gemv(DType::Q4_0, 64, 64, Isa::Avx2, false);
        assert!(kernel.isa <= Isa::Avx2);
    }
}
