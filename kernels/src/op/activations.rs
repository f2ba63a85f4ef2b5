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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_codes_then_pairs_of_scale_and_sum_for_each_token() {
        // The largest magnitude is 127, so the scale is one and codes are the values themselves.
        let mut x: Vec<f32> = (0..96).map(|i| (i % 7) as f32).collect();
        x.iter_mut().step_by(16).for_each(|v| *v = -127.0);
        let bytes = slabs(&x, 48, 16);
        assert_eq!((slab_stride(48, 16), bytes.len()), (80, 160));
        for (x, slab) in x.chunks(48).zip(bytes.chunks(80)) {
            assert!(x.iter().zip(slab).all(|(&x, &q)| x == f32::from(q as i8)));
            for (x, pair) in x.chunks(16).zip(slab[48..72].chunks(8)) {
                assert_eq!(pair[..4], 1.0f32.to_le_bytes());
                assert_eq!(pair[4..], x.iter().sum::<f32>().to_le_bytes());
            }
            assert_eq!(slab[72..], [0; 8]);
        }
    }

    #[test]
    fn what_is_seen_is_what_was_encoded() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 29) % 64) as f32 / 7.0 - 4.0).collect();
        for form in [Activations::F32, Activations::F16, Activations::A8, Activations::A8Group16] {
            let seen = seen(&x, form).unwrap();
            let step = 4.0 * rounding_class(form);
            assert!(seen.iter().zip(&x).all(|(s, &x)| (s - f64::from(x)).abs() <= step), "{form:?}");
            assert_eq!(encode(&x, 64, form).len(), bytes(1, 64, form));
        }
        assert_eq!(seen(&[7e4], Activations::F16), None);
        assert_eq!(seen(&[7e4], Activations::F32), Some(vec![7e4]));
    }
}
