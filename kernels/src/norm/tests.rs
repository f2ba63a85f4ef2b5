use proptest::prelude::*;
use variants::Isa;

use super::*;
use crate::cpu::act::Act;
use crate::reference;

/// A row as it was quantised.
struct Quantized {
    q: Vec<i8>,
    s: Vec<f32>,
    t: Vec<f32>,
    neg8: Vec<i32>,
    neg128: Vec<i32>,
    neg32: Vec<i32>,
}

fn quantized(isa: Isa, x: &[f32]) -> Quantized {
    let mut act = Act::new(1, x.len());
    let rows = act.rows(1, x.len());
    // SAFETY: row 0 of one, taken once.
    let (_, quant) = unsafe { rows.row(0) };
    let mut row = quant.unwrap();
    NormKernels::of(isa).quantize(x, &mut row);
    Quantized {
        q: row.q.to_vec(),
        s: row.s.to_vec(),
        t: row.t.to_vec(),
        neg8: row.neg8.to_vec(),
        neg128: row.neg128.to_vec(),
        neg32: row.neg32.to_vec(),
    }
}

fn codes_equal_the_reference(x: &[f32]) {
    for isa in Isa::available() {
        let Quantized { q, s, t, neg8, neg128, neg32 } = quantized(isa, x);
        for (group, x) in x.chunks_exact(32).enumerate() {
            let (want, scale) = reference::quantize_group(x);
            let got = &q[group * 32..][..32];
            assert_eq!(got, want, "{isa} group {group}");
            assert_eq!(s[group], scale, "{isa} group {group}");
            assert!(got.iter().all(|&q| q != -128));
            let half = |part: &[i8]| part.iter().map(|&q| i32::from(q)).sum::<i32>();
            let (a, b) = (half(&got[..16]), half(&got[16..]));
            assert_eq!(t[group], scale * (a + b) as f32);
            assert_eq!((neg8[group], neg128[group]), (-8 * (a + b), -128 * (a + b)));
            assert_eq!(neg32[2 * group..][..2], [-32 * a, -32 * b]);
        }
    }
}

proptest! {
    #[test]
    fn every_level_rounds_as_the_reference_does(x in prop::collection::vec(-100.0f32..100.0, 96)) {
        codes_equal_the_reference(&x);
    }

    #[test]
    fn the_norm_is_that_of_f64(x in prop::collection::vec(-3.0f32..3.0, 1..200), scale in -20i32..20, eps in 1e-6f32..1e-5) {
        let x: Vec<f32> = x.iter().map(|v| v * 10f32.powi(scale / 2)).collect();
        let w: Vec<f32> = (0..x.len()).map(|i| 0.5 + i as f32 / 64.0).collect();
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let want = reference::rmsnorm(&wide(&x), &wide(&w), f64::from(eps));
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; x.len()];
            NormKernels::of(isa).rmsnorm(&x, &w, eps, &mut out);
            for (got, want) in out.iter().zip(&want) {
                prop_assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs(), "{} {} {}", isa, got, want);
            }
        }
    }
}

#[test]
fn exact_halves_are_rounded_away_from_zero() {
    // A maximum of 127 makes the scale one, so x.5 lies exactly between two codes.
    let mut x: Vec<f32> = (0..32).map(|i| i as f32 * 3.5 - 54.5).collect();
    x[31] = 127.0;
    codes_equal_the_reference(&x);
    // The largest float below one half must not reach one.
    x.fill(0.499_999_97);
    x[0] = -127.0;
    codes_equal_the_reference(&x);
}

#[test]
fn tiny_huge_and_zero_groups_keep_their_scale() {
    for amax in [1e-6f32, 1e-9, 1e-30, 3000.0, 7e4, 1e30] {
        let x: Vec<f32> = (0..64).map(|i| amax * (i as f32 - 31.5) / 32.0).collect();
        codes_equal_the_reference(&x);
    }
    codes_equal_the_reference(&[0.0; 64]);
    // One large value coarsens its own group alone.
    let mut x = [0.01f32; 96];
    x[40] = 1e4;
    codes_equal_the_reference(&x);
}

#[test]
fn a_group_that_is_not_finite_makes_its_products_nan() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 17, 31] {
            let mut x = [1.0f32; 64];
            x[at] = bad;
            for isa in Isa::available() {
                let Quantized { s, t, .. } = quantized(isa, &x);
                assert!(s[0].is_nan() && t[0].is_nan(), "{isa} {bad} {at}");
                assert!(s[1].is_finite());
            }
        }
    }
}

#[test]
fn swiglu_is_that_of_f64_and_saturates_without_nan() {
    let gate: Vec<f32> =
        (-1100..=1100).map(|i| i as f32 / 10.0).chain([0.0, -0.0, 1e30, -1e30, 1e-30, -1e-30]).collect();
    let up: Vec<f32> = (0..gate.len()).map(|i| 1.0 + (i % 7) as f32).collect();
    for isa in Isa::available() {
        let mut got = gate.clone();
        NormKernels::of(isa).silu_mul(&mut got, &up);
        for ((got, &g), &u) in got.iter().zip(&gate).zip(&up) {
            let want = reference::swiglu(&[f64::from(g)], &[f64::from(u)])[0];
            // Below -87 silu leaves the range of normal floats, and may be flushed to zero.
            assert!((f64::from(*got) - want).abs() <= 4e-7 * want.abs() + 1e-34, "{isa} silu({g}) * {u}: {got} {want}");
        }
    }
}
