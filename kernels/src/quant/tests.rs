use harness_spec::DType;
use proptest::prelude::*;

use super::*;

fn decode(dtype: DType, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    dequantize_row(dtype, bytes, &mut out);
    out
}

/// The largest error of rounding to nearest in units of the largest magnitude of a block.
fn step(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => 1e-3,
        DType::BF16 => 1e-2,
        // The most positive weight may lie one step beyond the top code, so a whole step is allowed.
        DType::Q4_0 => 1.0 / 8.0 + 1e-3,
        DType::Q4_1 => 1.0 / 15.0 + 1e-2,
        DType::Q5_0 => 1.0 / 16.0 + 1e-3,
        DType::Q8_0 => 0.5 / 127.0 + 1e-3,
        DType::Q4K => 2.0 / 15.0,
        DType::Q5K => 2.0 / 31.0,
        DType::Q6K => 1.0 / 31.0 + 1e-2,
        DType::TQ1_0 | DType::TQ2_0 => 0.5 + 1e-3,
    }
}

#[test]
fn every_f16_is_the_float_of_the_half_crate() {
    for bits in 0..=u16::MAX {
        let (got, want) = (f16_at(&bits.to_le_bytes(), 0), half::f16::from_bits(bits).to_f32());
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#06x}: {got} {want}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_within_a_step(
        dtype in prop::sample::select(DType::ALL.to_vec()),
        x in prop::collection::vec(-4.0f32..4.0, 512),
    ) {
        let bytes = quantize(dtype, &x).unwrap();
        prop_assert!(validate(dtype, 2, 256, &bytes).is_ok());
        let amax = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        for (got, want) in decode(dtype, &bytes, 512).iter().zip(&x) {
            prop_assert!((got - want).abs() <= step(dtype) * amax, "{} {} {}", dtype, got, want);
        }
    }

    #[test]
    fn encoding_what_was_decoded_changes_nothing_of_a_ternary_row(codes in prop::collection::vec(-1i8..=1, 256)) {
        prop_assume!(codes.iter().any(|&c| c != 0));
        let x: Vec<f32> = codes.iter().map(|&c| 0.25 * f32::from(c)).collect();
        for dtype in [DType::TQ1_0, DType::TQ2_0] {
            prop_assert_eq!(&decode(dtype, &quantize(dtype, &x).unwrap(), 256), &x);
        }
    }
}

#[test]
fn nibbles_are_low_first_half_and_high_second_half() {
    let mut bytes = half::f16::ONE.to_le_bytes().to_vec();
    bytes.extend((0..16).map(|i| i | (15 - i) << 4));
    let w = decode(DType::Q4_0, &bytes, 32);
    for i in 0..16 {
        assert_eq!(w[i], i as f32 - 8.0);
        assert_eq!(w[i + 16], 7.0 - i as f32);
    }
}

#[test]
fn the_minimum_of_q4_1_is_added_and_that_of_q4_k_subtracted() {
    let mut bytes = half::f16::from_f32(2.0).to_le_bytes().to_vec();
    bytes.extend(half::f16::from_f32(-3.0).to_le_bytes());
    bytes.extend([0x21; 16]);
    let w = decode(DType::Q4_1, &bytes, 32);
    assert_eq!((w[0], w[16]), (-1.0, 1.0));

    let mut block = vec![0u8; 144];
    block[..2].copy_from_slice(&half::f16::ONE.to_le_bytes());
    block[2..4].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
    block[4..16].fill(0xff); // Every scale and minimum is 63.
    block[16..].fill(0x10);
    let w = decode(DType::Q4K, &block, 256);
    assert_eq!((w[0], w[32]), (-31.5, 63.0 - 31.5));
}

#[test]
fn scales_and_minima_of_every_sub_block_are_unpacked_from_their_own_bits() {
    // Sub-block 5 alone has a scale, 42 = 0b101010, and a minimum, 21 = 0b010101.
    let mut packed = [0u8; 12];
    packed[9] = 0b1010 | 0b0101 << 4;
    packed[1] = 0b10 << 6;
    packed[5] = 0b01 << 6;
    for j in 0..8 {
        assert_eq!(k_blocks::scale_min(j, &packed), if j == 5 { (42, 21) } else { (0, 0) });
    }
}

#[test]
fn q6_k_weights_run_from_minus_32_to_31_times_a_signed_scale() {
    let mut block = vec![0u8; 210];
    block[192] = -128i8 as u8;
    block[193] = 127;
    block[208..].copy_from_slice(&half::f16::ONE.to_le_bytes());
    block[16] = 0x0f;
    block[128 + 16] = 3;
    let w = decode(DType::Q6K, &block, 256);
    assert_eq!((w[0], w[16], w[17], w[32]), (4096.0, 127.0 * 31.0, 127.0 * -32.0, 0.0));
}

#[test]
fn a_subnormal_scale_is_kept() {
    let tiny = half::f16::from_bits(1);
    let mut bytes = tiny.to_le_bytes().to_vec();
    bytes.extend([0u8; 16]);
    assert_eq!(decode(DType::Q4_0, &bytes, 32)[0], -8.0 * tiny.to_f32());
    assert!(tiny.to_f32() > 0.0);
}

#[test]
fn the_ternary_code_3_is_refused_wherever_it_stands() {
    let clean = quantize(DType::TQ2_0, &[1.0; 512]).unwrap();
    assert_eq!(validate(DType::TQ2_0, 1, 512, &clean), Ok(()));
    for byte in [0, 31, 63] {
        for shift in [0, 2, 4, 6] {
            let mut bad = clean.clone();
            bad[66 + byte] |= 3 << shift;
            assert_eq!(validate(DType::TQ2_0, 1, 512, &bad), Err(QuantError::TernaryCode { block: 1 }));
        }
    }
}

#[test]
fn rows_that_split_a_block_or_miss_bytes_are_refused() {
    assert!(matches!(validate(DType::Q4K, 1, 576, &[]), Err(QuantError::Block { .. })));
    assert!(matches!(validate(DType::Q8_0, 2, 32, &[0; 67]), Err(QuantError::Size { want: 68, .. })));
    assert!(matches!(quantize(DType::Q4_0, &[0.0; 33]), Err(QuantError::Block { .. })));
}
