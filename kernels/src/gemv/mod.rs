//! Products of a weight matrix with activations, y = W x, for one token or many.
//!
//! A matrix is cut into groups of 16 rows, and a group into units of a kernel's own row count. A kernel multiplies one
//! unit with up to [`MAX_TOKENS`] rows of activations and leaves the result in a panel, from where the caller adds bias
//! or residual. The ladder:
//!
//! - `plain`: decodes four rows, 256 columns at a time, and multiplies in portable Rust. The baseline.
//! - `dequant`: the same with fused multiply-adds. Exact: activations stay floats. Every type has it.
//! - `unsigned`: int8 activations against codes repacked into tiles (`tile`), for all types but the unblocked and TQ1_0.
//! - `dot`: the same idea on ARM.
//! - `lut`: table look-up for ternary weights.
//! - `g128`: an INT4 layout of which no file type exists, so no matrix of a model has it.
//!
//! Tunables, as the spaces list them: `PREFETCH`, bytes ahead of the stream that one token's product fetches; `ACC`, the
//! chains of additions of an integer dot of one token; `TOKENS`, the most tokens that share the unpacking of codes.

#[cfg(target_arch = "x86_64")]
mod dequant_avx2;
#[cfg(target_arch = "x86_64")]
mod dequant_avx512;
pub(crate) mod g128;
#[cfg(target_arch = "x86_64")]
mod lut_avx2;
mod plain;
pub(crate) mod tile;

/// Defines `unit` and `pick` for a kernel on tiles: rows of a tile, columns and bytes of a step, instruction sets, and the
/// numbers of tokens above one that `tokens` is compiled for, the largest first.
///
/// Weights are streamed from memory by one token alone, or by the first of many, whose work hides it: so `PREFETCH` and
/// `ACC` change the code for one token.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! tiled_unit {
    ($rows:literal, $columns:literal, $step:expr, $features:literal, [$($tokens:literal),+]) => {
        #[target_feature(enable = $features)]
        fn unit<const PREFETCH: usize, const ACC: usize>(unit: &$crate::gemv::Unit<'_>, panel: &mut [f32]) {
            let steps = unit.k.div_ceil($columns);
            let (first, count) = unit.tokens;
            assert_eq!(unit.bytes.len(), steps * $step, "a unit is one run of tiles");
            let mut done = 0;
            $(while unit.share >= $tokens && count - done >= $tokens {
                let x: [QuantPtr; $tokens] = std::array::from_fn(|t| unit.act.quant_row(first + done + t));
                // SAFETY: the bytes hold `steps` steps, and the rows of activations are padded to whole steps.
                let sums = unsafe { tokens::<$tokens, 0, 1>(unit.bytes.as_ptr(), steps, x) };
                for sums in sums {
                    panel[done * $crate::gemv::GROUP_ROWS..][..$rows].copy_from_slice(&sums);
                    done += 1;
                }
            })+
            while done < count {
                // SAFETY: as above.
                let [sums] = unsafe {
                    tokens::<1, PREFETCH, ACC>(unit.bytes.as_ptr(), steps, [unit.act.quant_row(first + done)])
                };
                panel[done * $crate::gemv::GROUP_ROWS..][..$rows].copy_from_slice(&sums);
                done += 1;
            }
        }

        /// The kernel for these tunables, if it was compiled for them.
        pub(in crate::gemv) fn pick(knobs: $crate::gemv::Knobs) -> Option<$crate::gemv::UnitFn> {
            Some(match (knobs.prefetch, knobs.acc) {
                (0, 1) => unit::<0, 1>,
                (4096, 1) => unit::<4096, 1>,
                (8192, 1) => unit::<8192, 1>,
                (0, 2) => unit::<0, 2>,
                (4096, 2) => unit::<4096, 2>,
                (8192, 2) => unit::<8192, 2>,
                _ => return None,
            })
        }
    };
}

// Below the macro, which is only in scope from there on.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::collections::BTreeMap;

use harness_spec::{DType, VariantId};
use variants::{Activations, KernelSpec, Layout};

use crate::cpu::act::Act;
use tile::Tile;

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
    /// The most tokens that share the unpacking of codes (`TOKENS`).
    pub share: usize,
}

/// Multiplies a unit and writes `panel[token * 16 + row]` for each of its tokens and for at least its rows.
pub(crate) type UnitFn = unsafe fn(&Unit<'_>, &mut [f32]);

/// Multiplies one token with a unit and with the bytes of a second, and writes sixteen rows of either.
pub(crate) type PairFn = unsafe fn(&Unit<'_>, &[u8], &mut [f32]);

/// The tunables of the kernels on the processor, with their values where a space does not list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// Bytes ahead that one token's product fetches.
    pub prefetch: usize,
    /// Chains of additions of an integer dot.
    pub acc: usize,
    /// The most tokens that share the unpacking of codes.
    pub tokens: usize,
}

impl Knobs {
    /// The tunables by name, or the name that no kernel has.
    fn of(tunables: &BTreeMap<String, i64>) -> Result<Knobs, String> {
        let mut knobs = Knobs { prefetch: 0, acc: 1, tokens: 8 };
        for (name, &value) in tunables {
            let value = usize::try_from(value).map_err(|_| format!("{name} = {value} is negative"))?;
            match name.as_str() {
                "PREFETCH" => knobs.prefetch = value,
                "ACC" => knobs.acc = value,
                "TOKENS" => knobs.tokens = value,
                _ => return Err(format!("no tunable {name}")),
            }
        }
        Ok(knobs)
    }
}

/// Why there is no code for a variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this build has no code for {variant} of {dtype} weights: {reason}")]
pub struct NoCode {
    /// The variant, boxed to keep results of the happy path small.
    pub variant: Box<VariantId>,
    /// The weight type.
    pub dtype: DType,
    /// What is missing.
    pub reason: String,
}

/// A kernel as matrices hold it.
#[derive(Clone)]
pub(crate) struct GemvKernel {
    /// The variant.
    pub variant: VariantId,
    /// The form of activations that it multiplies.
    pub activations: Activations,
    /// The layout that it reads.
    pub layout: Layout,
    /// The tile of the layout, where it is tiled.
    pub tile: Option<Tile>,
    /// Rows of a unit: a divisor of 16.
    pub rows: usize,
    /// The most tokens that share the unpacking of codes.
    pub share: usize,
    /// The code.
    pub run: UnitFn,
    /// The code for one token and two units of sixteen rows, where it has some.
    pub pair: Option<PairFn>,
}

impl GemvKernel {
    /// The code behind a variant of a kernel of the space of `dtype`. That this machine runs it is for the caller to check.
    ///
    /// # Errors
    /// [`NoCode`] where the space names a kernel or a value that this build lacks.
    pub(crate) fn of(spec: &KernelSpec, variant: &VariantId, dtype: DType) -> Result<GemvKernel, NoCode> {
        let none = |reason: &str| NoCode { variant: Box::new(variant.clone()), dtype, reason: reason.to_owned() };
        let layout = spec.layout.unwrap_or(Layout::Gguf);
        let knobs = Knobs::of(&variant.tunables).map_err(|reason| none(&reason))?;
        let tile = Tile::new(dtype, layout);
        if tile.is_none() && layout != Layout::Gguf {
            return Err(none(&format!("the type has no layout {layout}")));
        }
        let pick: fn(Knobs) -> Option<UnitFn> = match (spec.name.as_str(), dtype) {
            ("plain", _) => |_| Some(plain::unit),
            #[cfg(target_arch = "x86_64")]
            ("dequant@avx2", _) => |_| Some(dequant_avx2::unit),
            #[cfg(target_arch = "x86_64")]
            ("dequant@avx512", _) => |_| Some(dequant_avx512::unit),
            #[cfg(target_arch = "x86_64")]
            ("lut@avx2", DType::TQ2_0) => |_| Some(lut_avx2::unit),
            #[cfg(target_arch = "x86_64")]
            ("unsigned@avx2", dtype) => match dtype {
                DType::Q4_0 => avx2::q4_0::pick,
                DType::Q4_1 => avx2::q4_1::pick,
                DType::Q5_0 => avx2::q5_0::pick,
                DType::Q8_0 => avx2::q8_0::pick,
                DType::Q4K => avx2::k_quants::q4_k::pick,
                DType::Q5K => avx2::k_quants::q5_k::pick,
                DType::Q6K => avx2::k_quants::q6_k::pick,
                DType::TQ2_0 => avx2::ternary::tq2_0::pick,
                _ => return Err(none("the type is not tiled")),
            },
            #[cfg(target_arch = "x86_64")]
            ("unsigned@vnni" | "paired@vnni", dtype) => match dtype {
                DType::Q4_0 => vnni::q4_0::pick,
                DType::Q4_1 => vnni::q4_1::pick,
                DType::Q5_0 => vnni::q5_0::pick,
                DType::Q8_0 => vnni::q8_0::pick,
                DType::Q4K => vnni::k_quants::q4_k::pick,
                DType::Q5K => vnni::k_quants::q5_k::pick,
                DType::Q6K => vnni::k_quants::q6_k::pick,
                DType::TQ2_0 => vnni::ternary::tq2_0::pick,
                _ => return Err(none("the type is not tiled")),
            },
            #[cfg(target_arch = "aarch64")]
            ("dot@dotprod", DType::Q4_0) => neon::q4_0::pick,
            #[cfg(target_arch = "aarch64")]
            ("dot@dotprod", DType::Q4_1) => neon::q4_1::pick,
            #[cfg(target_arch = "aarch64")]
            ("dot@dotprod", DType::Q8_0) => neon::q8_0::pick,
            _ => return Err(none("it is not compiled in, or was made for another processor")),
        };
        let pick_pair: fn(Knobs) -> Option<PairFn> = match (spec.name.as_str(), dtype) {
            #[cfg(target_arch = "x86_64")]
            ("paired@vnni", dtype) => match dtype {
                DType::Q4_0 => vnni::q4_0::pick_pair,
                DType::Q4_1 => vnni::q4_1::pick_pair,
                DType::Q5_0 => vnni::q5_0::pick_pair,
                DType::Q8_0 => vnni::q8_0::pick_pair,
                DType::Q4K => vnni::k_quants::q4_k::pick_pair,
                DType::Q5K => vnni::k_quants::q5_k::pick_pair,
                DType::Q6K => vnni::k_quants::q6_k::pick_pair,
                _ => return Err(none("the type has no code for two units")),
            },
            _ => |_| None,
        };
        let run = pick(knobs).ok_or_else(|| none("it is not compiled for these values"))?;
        Ok(GemvKernel {
            variant: variant.clone(),
            activations: spec.activations.unwrap_or(Activations::F32),
            layout,
            tile,
            rows: tile.map_or(4, Tile::rows),
            share: knobs.tokens,
            run,
            pair: pick_pair(knobs),
        })
    }
}

impl GemvKernel {
    /// What multiplies many tokens, in words: two kernels of a type that say the same run the same code there, however they
    /// multiply a token alone.
    pub(crate) fn code_of_many(&self) -> String {
        match self.tile {
            // `tiled_unit`: for several tokens there is one function for a tile and a level, whatever `PREFETCH` and `ACC` are;
            // whoever has code for two units as well takes it for a token alone.
            Some(_) if self.share > 1 => {
                format!("{}@{}, {} tokens at a time", self.layout, self.variant.backend, self.share)
            }
            _ => self.variant.short(),
        }
    }
}

impl std::fmt::Debug for GemvKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.variant.fmt(f)
    }
}

/// Fetches the lines of the `BYTES` that stand `DISTANCE` bytes ahead of `at` into the second-level cache; nothing where
/// the distance is zero. Into the first, lines that far ahead would wait for the few buffers that its misses have.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch<const DISTANCE: usize, const BYTES: usize>(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    if DISTANCE > 0 {
        for line in (0..BYTES).step_by(64) {
            // SAFETY: a prefetch of any address, also one beyond the buffer, does not fault and reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(DISTANCE + line).cast()) };
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use variants::registry;

    use super::*;

    #[test]
    fn kernels_that_differ_for_one_token_alone_say_the_same_of_many() {
        let code = |variant: &str| {
            let variant: VariantId = format!("gemv_q4_0/{variant}").parse().unwrap();
            let (_, spec) = registry().find(&variant).unwrap();
            GemvKernel::of(spec, &variant, DType::Q4_0).unwrap().code_of_many()
        };
        let base = code("unsigned[ACC=1,PREFETCH=0,TOKENS=8]@vnni");
        assert_eq!(code("unsigned[ACC=2,PREFETCH=8192,TOKENS=8]@vnni"), base);
        assert_eq!(code("paired[ACC=2,PREFETCH=4096,TOKENS=8]@vnni"), base);
        for other in ["unsigned[ACC=1,PREFETCH=0,TOKENS=4]@vnni", "unsigned[ACC=1,PREFETCH=0,TOKENS=4]@avx2"] {
            assert_ne!(code(other), base, "{other}");
        }
        assert_ne!(code("dequant@avx2"), code("dequant@avx512"));
    }
}
