//! Activations as kernels read them: floats, halves, and int8 slabs (a8/32, a8/16).
//!
//! A slab holds one token:
//!
//! ```text
//! K int8 | K / G pairs (f32 s, f32 t) | padding to a multiple of 16 bytes
//! s = max|x| / 127      q = round(x * (127 / max|x|)), half away from zero, never -128      t = s * sum(q)
//! ```
//!
//! A group of zeros has s = 0 and codes 0.

use half::f16;
use variants::Activations;

use crate::reference::quantize_group;

/// Elements that share a scale in this form; `None` for floats.
pub const fn group_of(form: Activations) -> Option<usize> {
    match form {
        Activations::A8 => Some(32),
        Activations::A8Group16 => Some(16),
        Activations::F32 | Activations::F16 => None,
    }
}

/// Bytes from one token's slab to the next.
pub const fn slab_stride(k: usize, group: usize) -> usize {
    (k + k / group * 8).next_multiple_of(16)
}

/// The slabs of `x`, `[M, k]`. Padding is zero.
///
/// # Panics
/// Where `x` is no whole number of rows, or a row no whole number of groups.
pub fn slabs(x: &[f32], k: usize, group: usize) -> Vec<u8> {
    assert!(x.len().is_multiple_of(k) && k.is_multiple_of(group), "whole rows of whole groups of {group}");
    let stride = slab_stride(k, group);
    let mut out = vec![0u8; x.len() / k * stride];
    for (x, slab) in x.chunks_exact(k).zip(out.chunks_exact_mut(stride)) {
        let (codes, scales) = slab.split_at_mut(k);
        for ((x, codes), pair) in
            x.chunks_exact(group).zip(codes.chunks_exact_mut(group)).zip(scales.chunks_exact_mut(8))
        {
            let (q, s) = quantize_group(x);
            let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
            for (code, q) in codes.iter_mut().zip(q) {
                *code = q as u8;
            }
            pair[..4].copy_from_slice(&s.to_le_bytes());
            pair[4..].copy_from_slice(&(s * sum as f32).to_le_bytes());
        }
    }
    out
}

/// The bytes of `x`, `[M, k]`, in this form, as a device kernel reads them.
///
/// # Panics
/// As [`slabs`].
pub fn encode(x: &[f32], k: usize, form: Activations) -> Vec<u8> {
    match group_of(form) {
        Some(group) => slabs(x, k, group),
        None if form == Activations::F16 => x.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        None => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Bytes of `m` rows of `k` activations in this form.
pub const fn bytes(m: usize, k: usize, form: Activations) -> usize {
    match group_of(form) {
        Some(group) => m * slab_stride(k, group),
        None if matches!(form, Activations::F16) => m * k * 2,
        None => m * k * 4,
    }
}

/// The values that a kernel of this form sees; `None` where the form cannot hold them.
pub fn seen(x: &[f32], form: Activations) -> Option<Vec<f64>> {
    let Some(group) = group_of(form) else {
        if form == Activations::F16 {
            let halves: Vec<f64> = x.iter().map(|&v| f16::from_f32(v).to_f64()).collect();
            return halves.iter().all(|v| v.is_finite()).then_some(halves);
        }
        return Some(x.iter().map(|&v| f64::from(v)).collect());
    };
    Some(
        x.chunks(group)
            .flat_map(|x| {
                let (q, s) = quantize_group(x);
                q.into_iter().map(move |q| f64::from(q) * f64::from(s))
            })
            .collect(),
    )
}

/// Relative L2 error that rounding activations to this form may cause (class T2).
pub const fn rounding_class(form: Activations) -> f64 {
    match form {
        Activations::F32 => 1e-5,
        Activations::F16 => 1e-3,
        Activations::A8 | Activations::A8Group16 => 1e-2,
    }
}
