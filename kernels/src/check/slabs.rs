//! int8 slabs as outputs: of given activations to the code, of computed ones to the code beside.

use super::Mismatch;
use super::compare::as_f32;
use crate::op::activations::slab_stride;

/// What slabs of computed values must hold, one slab a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slabs {
    /// Values of a token.
    pub k: usize,
    /// Values that share a scale.
    pub group: usize,
    /// The reference of every value before it is rounded, token by token.
    pub want: Vec<f64>,
    /// How far the kernel's own value may be off before it is rounded.
    pub bound: Vec<f64>,
}

impl Slabs {
    /// Bytes of all slabs.
    pub(super) fn bytes(&self) -> usize {
        self.want.len() / self.k * slab_stride(self.k, self.group)
    }

    /// Whether slabs hold what is wanted; answers how much of a bound was used.
    pub(super) fn compare(&self, output: usize, bytes: &[u8]) -> Result<f64, Mismatch> {
        let tokens = self.want.chunks(self.k).zip(self.bound.chunks(self.k));
        let mut worst = 0.0f64;
        for (token, ((want, bound), bytes)) in tokens.zip(bytes.chunks(slab_stride(self.k, self.group))).enumerate() {
            worst = worst.max(near(output, token * self.k, self.group, (want, bound), bytes)?);
        }
        Ok(worst)
    }
}

/// Whether a slab has these very codes, and these scales up to a unit in the last place.
pub(super) fn exact(output: usize, codes: &[i8], scales: &[f32], bytes: &[u8]) -> Result<(), Mismatch> {
    let group = codes.len() / scales.len();
    for (index, (&got, &want)) in bytes.iter().zip(codes).enumerate() {
        if got as i8 != want {
            return Err(Mismatch::Code { output, index, got: got as i8, want });
        }
    }
    let pairs = as_f32(&bytes[codes.len()..][..scales.len() * 8]);
    for (i, (pair, &s)) in pairs.chunks_exact(2).zip(scales).enumerate() {
        let sum: i32 = codes[i * group..][..group].iter().map(|&q| i32::from(q)).sum();
        // The sum is that of the kernel's own scale, which may itself be a unit off.
        for (what, got, want) in [("scale", pair[0], s), ("scale times sum", pair[1], pair[0] * sum as f32)] {
            if !within_one_ulp(got, want) {
                return Err(Mismatch::Scale { output, group: i, what, got, want });
            }
        }
    }
    padding(output, codes.len() + scales.len() * 8, bytes)
}

/// Padding is zero, as the contract says.
fn padding(output: usize, end: usize, bytes: &[u8]) -> Result<(), Mismatch> {
    match bytes[end..].iter().position(|&b| b != 0) {
        Some(at) => Err(Mismatch::Code { output, index: end + at, got: bytes[end + at] as i8, want: 0 }),
        None => Ok(()),
    }
}

/// Checks the slab of one token, whose first value is element `first` of the output: each code times its scale against the
/// reference, each scale against the largest reference of its group. Answers how much of a bound was used.
fn near(
    output: usize,
    first: usize,
    group: usize,
    (want, bound): (&[f64], &[f64]),
    bytes: &[u8],
) -> Result<f64, Mismatch> {
    let (k, groups) = (want.len(), want.len() / group);
    let pairs = as_f32(&bytes[k..][..groups * 8]);
    let mut worst = 0.0f64;
    for (g, pair) in pairs.chunks_exact(2).enumerate() {
        let range = g * group..(g + 1) * group;
        let scale = f64::from(pair[0]);
        let largest = want[range.clone()].iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let slack = bound[range.clone()].iter().fold(0.0f64, |m, &b| m.max(b));
        let index = first / group + g;
        // A few roundings of 32-bit floats, and what the values themselves may be off.
        let off = (scale * 127.0 - largest).abs();
        let near = off <= slack + largest * 1e-6 + 1e-37;
        if !near {
            let want = (largest / 127.0) as f32;
            return Err(Mismatch::Scale { output, group: index, what: "scale", got: pair[0], want });
        }
        let sum: i32 = bytes[range.clone()].iter().map(|&q| i32::from(q as i8)).sum();
        let product = pair[0] * sum as f32;
        if !within_one_ulp(pair[1], product) {
            let what = "scale times sum";
            return Err(Mismatch::Scale { output, group: index, what, got: pair[1], want: product });
        }
        for i in range {
            let code = bytes[i] as i8;
            let got = f64::from(code) * scale;
            // Half a step is the rounding to a code itself.
            let bound = bound[i] + scale * 0.5001 + 1e-37;
            let error = (got - want[i]).abs();
            let near = error <= bound && code != i8::MIN;
            if !near {
                return Err(Mismatch::Element { output, index: first + i, got, want: want[i], bound, poison: false });
            }
            worst = worst.max(error / bound);
        }
    }
    padding(output, k + groups * 8, bytes)?;
    Ok(worst)
}

fn within_one_ulp(got: f32, want: f32) -> bool {
    got == want || (got.is_sign_positive() == want.is_sign_positive() && got.to_bits().abs_diff(want.to_bits()) <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Expected, Want, compare};

    #[test]
    fn a_slab_may_differ_by_a_unit_in_a_scale_and_by_nothing_in_a_code() {
        let x: Vec<f32> = (0..64).map(|i| (i * 37 % 64) as f32 - 30.3).collect();
        let good = crate::op::activations::slabs(&x, 64, 32);
        let scales: Vec<f32> = as_f32(&good[64..80]).chunks(2).map(|p| p[0]).collect();
        let codes = good[..64].iter().map(|&q| q as i8).collect();
        let expected = Expected { outputs: vec![Want::Slab { codes, scales }] };
        assert!(compare(&expected, std::slice::from_ref(&good)).is_ok());
        for (at, flip, fails) in [(5, 1, true), (64, 1, false), (64, 4, true), (68, 8, true), (79, 64, true)] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            // The sum goes with the scale: where that moves, its product is that of the new scale.
            if at == 64 {
                let s = as_f32(&bytes[64..68])[0];
                let sum: i32 = bytes[..32].iter().map(|&q| i32::from(q as i8)).sum();
                bytes[68..72].copy_from_slice(&(s * sum as f32).to_le_bytes());
            }
            assert_eq!(compare(&expected, &[bytes]).is_err(), fails, "byte {at}");
        }
    }

    #[test]
    fn slabs_of_computed_values_may_round_to_the_code_beside_and_no_further() {
        let x: Vec<f32> = (0..96).map(|i| (i * 37 % 96) as f32 - 40.3).collect();
        let good = crate::op::activations::slabs(&x, 48, 16);
        let want = Slabs {
            k: 48,
            group: 16,
            want: x.iter().map(|&v| f64::from(v)).collect(),
            bound: x.iter().map(|&v| f64::from(v.abs()) * 1e-6).collect(),
        };
        let expected = Expected { outputs: vec![Want::Slabs(want)] };
        let check = |bytes: Vec<u8>| compare(&expected, &[bytes]);
        assert!(check(good.clone()).unwrap().worst_of_bound <= 1.0);
        for (at, flip) in [(3, 4), (80 + 5, 8), (49, 0xff), (80 + 48 + 2, 1), (80 + 48 + 6, 1), (159, 1)] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            assert!(check(bytes).is_err(), "byte {at}");
        }
        assert!(check(vec![0xff; good.len()]).is_err(), "poison");
    }
}
