//! The element-wise work between two products: RMS norm, rounding to a8/32, SwiGLU, softmax's exponential.
//!
//! - `plain`: portable Rust, the baseline.
//! - `avx2`, `avx512`: vectors, with the exponential as a polynomial (see each file for its error).

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod plain;

use crate::cpu::act::QuantRow;
use variants::Isa;

/// The element-wise kernels of one instruction set level.
#[derive(Clone, Copy)]
pub(crate) struct NormKernels {
    rmsnorm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    quantize: unsafe fn(&[f32], &mut QuantRow<'_>),
    silu_mul: unsafe fn(&mut [f32], &[f32]),
}

impl NormKernels {
    /// The kernels of a level that this machine has.
    pub(crate) fn of(isa: Isa) -> NormKernels {
        assert!(isa <= Isa::detect(), "this machine does not run {isa}");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                NormKernels { rmsnorm: avx512::rmsnorm, quantize: avx512::quantize, silu_mul: avx512::silu_mul }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => NormKernels { rmsnorm: avx2::rmsnorm, quantize: avx2::quantize, silu_mul: avx2::silu_mul },
            _ => NormKernels { rmsnorm: plain::rmsnorm, quantize: plain::quantize, silu_mul: plain::silu_mul },
        }
    }

    /// `out = x / sqrt(mean(x²) + eps) * w` for one row.
    #[inline]
    pub(crate) fn rmsnorm(&self, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        assert!(x.len() == w.len() && x.len() == out.len());
        // SAFETY: `of` checked that the machine has the instruction set; the lengths agree.
        unsafe { (self.rmsnorm)(x, w, eps, out) }
    }

    /// Rounds one row to a8/32.
    #[inline]
    pub(crate) fn quantize(&self, x: &[f32], row: &mut QuantRow<'_>) {
        assert!(x.len() <= row.q.len() && x.len().is_multiple_of(32) && row.q.len() == row.s.len() * 32);
        // SAFETY: `of` checked that the machine has the instruction set; the lengths fit.
        unsafe { (self.quantize)(x, row) }
        let groups = x.len() / 32;
        for group in groups..row.s.len() {
            row.q[group * 32..][..32].fill(0);
            row.set_group(group, 0.0, [0, 0]);
        }
    }

    /// `gate = silu(gate) * up`, element by element.
    #[inline]
    pub(crate) fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        // SAFETY: `of` checked that the machine has the instruction set; the lengths agree.
        unsafe { (self.silu_mul)(gate, up) }
    }
}

#[cfg(test)]
mod tests;
