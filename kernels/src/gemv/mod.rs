//! Products of a weight matrix with activations, y = W x, for one token or many.
//!
//! A matrix is cut into groups of 16 rows, and a group into units of a kernel's own row count. A kernel multiplies one
//! unit with up to [`MAX_TOKENS`] rows of activations and leaves the result in a panel, from where the caller adds bias
//! or residual. The ladder:
//!
//! - `plain`: decodes four rows, 256 columns at a time, and multiplies in portable Rust. The baseline.
//! - `dequant`: the same with fused multiply-adds. Exact: activations stay floats. Every type has it.
//! - `unsigned`: int8 activations against codes repacked into tiles (`tile`), for the common types.

#[cfg(target_arch = "x86_64")]
mod dequant_avx2;
#[cfg(target_arch = "x86_64")]
mod dequant_avx512;
mod plain;
pub(crate) mod tile;

/// Defines `unit` for a kernel on tiles: rows of a tile, columns and bytes of a step, instruction sets, and the numbers of
/// tokens that `tokens` is compiled for, the largest first.
#[cfg(target_arch = "x86_64")]
macro_rules! tiled_unit {
    ($rows:literal, $columns:literal, $step:expr, $features:literal, [$($tokens:literal),+]) => {
        #[target_feature(enable = $features)]
        pub(in crate::gemv) fn unit(unit: &$crate::gemv::Unit<'_>, panel: &mut [f32]) {
            let steps = unit.k.div_ceil($columns);
            let (first, count) = unit.tokens;
            assert_eq!(unit.bytes.len(), steps * $step, "a unit is one run of tiles");
            let mut done = 0;
            $(while count - done >= $tokens {
                let x: [QuantPtr; $tokens] = std::array::from_fn(|t| unit.act.quant_row(first + done + t));
                // SAFETY: the bytes hold `steps` steps, and the rows of activations are padded to whole steps.
                let sums = unsafe { tokens::<$tokens>(unit.bytes.as_ptr(), steps, x) };
                for sums in sums {
                    panel[done * $crate::gemv::GROUP_ROWS..][..$rows].copy_from_slice(&sums);
                    done += 1;
                }
            })+
        }
    };
}

// Below the macro, which is only in scope from there on.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use harness_spec::DType;
use variants::{KernelSpec, Layout};

use crate::cpu::act::Act;

/// Rows of a group: what is handed to a thread, and the width of a panel.
pub(crate) const GROUP_ROWS: usize = 16;
/// Tokens that a kernel takes in one call.
pub(crate) const MAX_TOKENS: usize = 64;
/// Columns decoded at a time by the kernels that read `gguf` blocks: a multiple of every block.
const CHUNK: usize = 256;

/// Some rows of weights and the activations to multiply them with.
pub(crate) struct Unit<'a> {
    /// The weight type.
    pub dtype: DType,
    /// The bytes of the unit, in the kernel's layout.
    pub bytes: &'a [u8],
    /// Rows that exist; a packed unit holds zero rows beyond.
    pub rows: usize,
    /// Columns.
    pub k: usize,
    /// The activations.
    pub act: &'a Act,
    /// The first row of activations, and how many, at most [`MAX_TOKENS`].
    pub tokens: (usize, usize),
}

/// Multiplies a unit and writes `panel[token * 16 + row]` for each of its tokens and for at least its rows.
pub(crate) type UnitFn = unsafe fn(&Unit<'_>, &mut [f32]);

/// A kernel as matrices hold it.
#[derive(Clone, Copy)]
pub(crate) struct GemvKernel {
    /// The space's entry.
    pub spec: &'static KernelSpec,
    /// Rows of a unit: a divisor of 16.
    pub rows: usize,
    /// The code.
    pub run: UnitFn,
}

impl GemvKernel {
    /// The code behind a kernel of the space of `dtype`.
    ///
    /// # Panics
    /// Where the space names a kernel that does not exist; a test proves that none does.
    pub(crate) fn of(spec: &'static KernelSpec, dtype: DType) -> GemvKernel {
        let run: UnitFn = match (spec.name.as_str(), dtype) {
            ("plain", _) => plain::unit,
            #[cfg(target_arch = "x86_64")]
            ("dequant@avx2", _) => dequant_avx2::unit,
            #[cfg(target_arch = "x86_64")]
            ("dequant@avx512", _) => dequant_avx512::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", DType::Q4_0) => avx2::q4_0::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", DType::Q4_1) => avx2::q4_1::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", DType::Q8_0) => avx2::q8_0::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", DType::Q4K) => avx2::q4_k::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", DType::Q6K) => avx2::q6_k::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni", DType::Q4_0) => vnni::q4_0::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni", DType::Q4_1) => vnni::q4_1::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni", DType::Q8_0) => vnni::q8_0::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni", DType::Q4K) => vnni::q4_k::unit,
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni", DType::Q6K) => vnni::q6_k::unit,
            (name, _) => panic!("no code for the kernel {name} of {dtype}"),
        };
        let rows = match spec.layout {
            Some(Layout::Rows16Cols4) => 16,
            Some(Layout::Rows8Cols4) => 8,
            _ => 4,
        };
        GemvKernel { spec, rows, run }
    }
}

impl std::fmt::Debug for GemvKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.spec.name)
    }
}
