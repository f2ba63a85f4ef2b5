//! Weight blocks from explicit codes and scales: the inputs that an encoder would never produce.

use half::f16;
use harness_spec::DType;

use super::random::Rng;
use super::recipe::Weights;
use crate::quant::{self, pack_scale_min, scale_min};

/// Codes of a type; 0 for unblocked types.
pub(crate) const fn levels(dtype: DType) -> usize {
    match dtype {
        DType::Q4_0 | DType::Q4_1 | DType::Q4K => 16,
        DType::Q5_0 | DType::Q5K => 32,
        DType::Q6K => 64,
        DType::Q8_0 => 256,
        DType::TQ1_0 | DType::TQ2_0 => 3,
        DType::F32 | DType::F16 | DType::BF16 => 0,
    }
}

/// The code of the largest weight under a positive scale.
pub(crate) const fn top(dtype: DType) -> u8 {
    match dtype {
        DType::Q8_0 => 127,
        other => (levels(other) - 1) as u8,
    }
}

/// Where the f16 scale of a block is, and the f16 minimum.
pub(crate) const fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q6K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::F32 | DType::F16 | DType::BF16 => &[],
    }
}

fn put_scales(dtype: DType, block: &mut [u8], d: f16, m: f16) {
    for (&at, value) in scale_offsets(dtype).iter().zip([d, m]) {
        block[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
}

/// Sets every code of a block. A code of Q8_0 is the byte itself.
fn put_codes(dtype: DType, block: &mut [u8], mut code: impl FnMut(usize) -> u8) {
    let codes: Vec<u8> = (0..dtype.block_len()).map(&mut code).collect();
    let nibbles = |out: &mut [u8], half: usize| {
        for (pair, out) in codes.chunks_exact(2 * half).zip(out.chunks_exact_mut(half)) {
            for (j, byte) in out.iter_mut().enumerate() {
                *byte = (pair[j] & 15) | (pair[j + half] & 15) << 4;
            }
        }
    };
    match dtype {
        DType::Q4_0 => nibbles(&mut block[2..], 16),
        DType::Q4_1 => nibbles(&mut block[4..], 16),
        DType::Q5_0 => {
            nibbles(&mut block[6..], 16);
            let high = codes.iter().enumerate().fold(0u32, |h, (i, &c)| h | u32::from(c >> 4 & 1) << i);
            block[2..6].copy_from_slice(&high.to_le_bytes());
        }
        DType::Q8_0 => block[2..].copy_from_slice(&codes),
        DType::Q4K => nibbles(&mut block[16..], 32),
        DType::Q5K => {
            nibbles(&mut block[48..], 32);
            for j in 0..32 {
                block[16 + j] = (0..8).fold(0, |h, sub| h | (codes[sub * 32 + j] >> 4 & 1) << sub);
            }
        }
        DType::Q6K => {
            for (half, codes) in codes.chunks_exact(128).enumerate() {
                for l in 0..32 {
                    let [q1, q2, q3, q4] = [codes[l], codes[l + 32], codes[l + 64], codes[l + 96]];
                    block[half * 64 + l] = (q1 & 15) | (q3 & 15) << 4;
                    block[half * 64 + l + 32] = (q2 & 15) | (q4 & 15) << 4;
                    block[128 + half * 32 + l] = (q1 >> 4) | (q2 >> 4) << 2 | (q3 >> 4) << 4 | (q4 >> 4) << 6;
                }
            }
        }
        DType::TQ2_0 => {
            for (half, codes) in codes.chunks_exact(128).enumerate() {
                for m in 0..32 {
                    block[half * 32 + m] = codes[m] | codes[m + 32] << 2 | codes[m + 64] << 4 | codes[m + 96] << 6;
                }
            }
        }
        DType::TQ1_0 => {
            let decoded: Vec<f32> = codes.iter().map(|&c| f32::from(c) - 1.0).collect();
            let d = [block[52], block[53]];
            // The encoder alone knows the base-3 packing; a block without a 1 in magnitude has codes of 1 only.
            block.copy_from_slice(&quant::quantize(dtype, &decoded).expect("one whole block"));
            block[52..54].copy_from_slice(&d);
        }
        DType::F32 | DType::F16 | DType::BF16 => {}
    }
}

/// Sets the scales of sub-blocks, and their minima where the type has them. Scales of Q6_K are signed bytes.
fn put_sub_scales(dtype: DType, block: &mut [u8], mut each: impl FnMut(usize) -> (i8, u8)) {
    match dtype {
        DType::Q4K | DType::Q5K => {
            let (mut scales, mut mins) = ([0u8; 8], [0u8; 8]);
            for j in 0..8 {
                let (scale, min) = each(j);
                (scales[j], mins[j]) = (scale as u8 & 63, min & 63);
            }
            pack_scale_min(&scales, &mins, &mut block[4..16]);
        }
        DType::Q6K => block[192..208].iter_mut().enumerate().for_each(|(j, b)| *b = each(j).0 as u8),
        _ => {}
    }
}

/// `n` rows of `k` weights made by `recipe`. Where `group` is more than a block, that many weights share one scale.
pub(crate) fn weights(dtype: DType, n: usize, k: usize, group: usize, recipe: Weights, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = match (levels(dtype), recipe) {
        (0, _) => unblocked(dtype, n, k, recipe, rng),
        (_, Weights::Gaussian) => {
            let x: Vec<f32> = rng.many(n * k, |r| 0.02 * r.normal() * if r.below(200) == 0 { 8.0 } else { 1.0 });
            quant::quantize(dtype, &x).expect("whole blocks")
        }
        _ => {
            let mut bytes = vec![0u8; dtype.row_bytes(k).expect("whole blocks") * n];
            let blocks = k / dtype.block_len();
            for (i, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
                fill(dtype, block, recipe, (i / blocks, i % blocks, n), rng);
            }
            bytes
        }
    };
    if group > dtype.block_len() {
        share_scales(dtype, &mut bytes, group / dtype.block_len());
    }
    if recipe == Weights::SameRows {
        let row = bytes.len() / n;
        let (first, rest) = bytes.split_at_mut(row);
        rest.chunks_exact_mut(row).for_each(|r| r.copy_from_slice(first));
    }
    bytes
}

fn share_scales(dtype: DType, bytes: &mut [u8], blocks: usize) {
    let size = dtype.block_bytes();
    for group in bytes.chunks_exact_mut(size * blocks) {
        for &at in scale_offsets(dtype) {
            let scale = [group[at], group[at + 1]];
            group.chunks_exact_mut(size).for_each(|block| block[at..at + 2].copy_from_slice(&scale));
        }
    }
}

fn fill(dtype: DType, block: &mut [u8], recipe: Weights, (row, at, rows): (usize, usize, usize), rng: &mut Rng) {
    let count = levels(dtype);
    let one = f16::ONE;
    // A random code; of Q8_0 never -128, which encoders do not write.
    let any = |rng: &mut Rng| if dtype == DType::Q8_0 { rng.whole(-127, 127) as u8 } else { rng.below(count) as u8 };
    let plausible = |block: &mut [u8], rng: &mut Rng| {
        put_codes(dtype, block, |_| any(rng));
        put_sub_scales(dtype, block, |_| (rng.whole(-128, 127) as i8, rng.below(64) as u8));
        let [d, m] = [(); 2].map(|()| f16::from_f32(rng.uniform(1.0 / 64.0, 1.0)));
        put_scales(dtype, block, d, if dtype == DType::Q4_1 { -m * f16::from_f32(8.0) } else { m });
    };
    match recipe {
        Weights::Random | Weights::Gaussian | Weights::SameRows => plausible(block, rng),
        Weights::Integer => {
            let low = if dtype == DType::Q8_0 { -31 } else { 0 };
            let high = if dtype == DType::Q8_0 { 31 } else { count as i32 - 1 };
            put_codes(dtype, block, |_| rng.whole(low, high) as u8);
            // Few steps of a scale keep every sum below 2^24 of its unit.
            let signed = dtype == DType::Q6K;
            put_sub_scales(dtype, block, |_| {
                (rng.whole(if signed { -2 } else { 0 }, if signed { 1 } else { 3 }) as i8, rng.below(4) as u8)
            });
            let [d, m] = [(); 2].map(|()| f16::from_f32([0.25, 0.5][rng.below(2)]));
            put_scales(dtype, block, d, m);
        }
        Weights::Ramp => {
            let first = at * dtype.block_len();
            put_codes(dtype, block, |i| ramp(row, first + i, count) as u8);
            put_sub_scales(dtype, block, |j| (1 + (row + j) as i8 % 2, (j % 3) as u8));
            put_scales(dtype, block, one, one);
        }
        Weights::Code(code) => {
            put_codes(dtype, block, |_| code);
            put_sub_scales(dtype, block, |_| (1, 1));
            put_scales(dtype, block, one, -one);
        }
        Weights::Scale(bits) => {
            plausible(block, rng);
            put_scales(dtype, block, f16::from_bits(bits), f16::from_bits(bits));
        }
        Weights::ScaleSigns => {
            plausible(block, rng);
            let d = f16::from_f32(if (row + at).is_multiple_of(2) { -0.75 } else { 0.5 });
            put_scales(dtype, block, d, -d);
        }
        Weights::Zero => block.fill(0),
        Weights::Byte(byte) => {
            block.fill(byte);
            if dtype == DType::TQ1_0 {
                put_codes(dtype, block, |i| (i % 3) as u8);
            }
            put_scales(dtype, block, one, one);
        }
        Weights::SubBlockFive => {
            put_codes(dtype, block, |i| if i / 32 == 5 { (i % count) as u8 } else { 0 });
            put_sub_scales(dtype, block, |_| (63, 63));
            put_scales(dtype, block, f16::from_f32(0.01), f16::from_f32(8.0));
        }
        Weights::SignedScales { low } => {
            put_codes(dtype, block, |_| if low { 0 } else { top(dtype) });
            put_sub_scales(dtype, block, |j| ([-128, 127, -1, 0][(j + row) % 4], 63));
            put_scales(dtype, block, f16::from_f32(0.25), one);
        }
        Weights::Alternating => {
            put_codes(dtype, block, |i| if (i + row).is_multiple_of(2) { 0 } else { top(dtype) });
            put_sub_scales(dtype, block, |_| (1, 0));
            put_scales(dtype, block, one, one);
        }
        Weights::NanRows { all } => {
            plausible(block, rng);
            if all || row == rows / 2 {
                put_scales(dtype, block, f16::NAN, f16::NAN);
            }
        }
        Weights::Negative => {
            plausible(block, rng);
            // Below the middle code; of types with a minimum, which is then the largest of all, every weight is.
            let below = |rng: &mut Rng| match dtype {
                DType::Q8_0 => rng.whole(-127, -1) as u8,
                DType::TQ1_0 | DType::TQ2_0 => 0,
                _ => rng.below(count / 2) as u8,
            };
            put_codes(dtype, block, |_| below(rng));
            put_sub_scales(dtype, block, |_| (rng.whole(1, 3) as i8, 63));
        }
        Weights::MinusInfinity => {
            put_codes(dtype, block, |_| if dtype == DType::Q8_0 { -1i8 as u8 } else { 0 });
            put_sub_scales(dtype, block, |_| (1, 0));
            put_scales(dtype, block, f16::INFINITY, f16::ZERO);
        }
        Weights::LastRowWins => {
            plausible(block, rng);
            if row + 1 == rows {
                put_codes(dtype, block, |_| top(dtype));
                put_sub_scales(dtype, block, |_| (63, 0));
                put_scales(dtype, block, f16::from_f32(2.0), f16::ZERO);
            }
        }
    }
}

/// The code of a column in a row: over `count` rows every column takes every code, and the next so many rows have another
/// order, so that no two columns are alike.
fn ramp(row: usize, column: usize, count: usize) -> usize {
    (row + Rng::new(column as u64, (row / count) as u64).below(count)) % count
}

fn unblocked(dtype: DType, n: usize, k: usize, recipe: Weights, rng: &mut Rng) -> Vec<u8> {
    let mut one: Box<dyn FnMut(usize) -> f32> = match recipe {
        Weights::Gaussian => Box::new(|_| 0.02 * rng.normal()),
        Weights::Integer => Box::new(|_| rng.whole(-8, 7) as f32),
        Weights::Ramp => Box::new(move |i| ramp(i / k, i % k, 16) as f32 - 8.0),
        Weights::Code(code) => Box::new(move |_| f32::from(code) - 8.0),
        // The scale stands for the weight itself, with either sign.
        Weights::Scale(bits) => Box::new(move |i| f16::from_bits(bits).to_f32() * if i % 3 == 0 { -1.0 } else { 1.0 }),
        Weights::Zero => Box::new(|_| 0.0),
        Weights::NanRows { all } => Box::new(move |i| if all || i / k == n / 2 { f32::NAN } else { 0.5 }),
        Weights::Negative => Box::new(|_| rng.uniform(-1.0, -0.01)),
        Weights::MinusInfinity => Box::new(|_| f32::NEG_INFINITY),
        Weights::LastRowWins => Box::new(|i| if i / k + 1 == n { 4.0 } else { rng.uniform(-1.0, 1.0) }),
        _ => Box::new(|_| rng.uniform(-1.0, 1.0)),
    };
    let x: Vec<f32> = (0..n * k).map(&mut one).collect();
    drop(one);
    quant::quantize(dtype, &x).expect("unblocked types take any length")
}

/// What is added to every weight of a row apart from its code: -8 scales of Q4_0, the minimum of Q4_1 and so on. Kernels
/// may sum it by itself, so its magnitude enters the bound of the rounding.
pub(crate) fn offsets(dtype: DType, row: &[u8], out: &mut [f32]) {
    let f16_at = |b: &[u8], at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    for (b, out) in row.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_len())) {
        match dtype {
            DType::Q4_0 => out.fill(-8.0 * f16_at(b, 0)),
            DType::Q5_0 => out.fill(-16.0 * f16_at(b, 0)),
            DType::Q4_1 => out.fill(f16_at(b, 2)),
            DType::Q4K | DType::Q5K => {
                for (j, out) in out.chunks_exact_mut(32).enumerate() {
                    out.fill(-f16_at(b, 2) * f32::from(scale_min(j, &b[4..16]).1));
                }
            }
            DType::Q6K => {
                for (j, out) in out.chunks_exact_mut(16).enumerate() {
                    out.fill(-32.0 * f16_at(b, 208) * f32::from(b[192 + j] as i8));
                }
            }
            DType::TQ1_0 => out.fill(-f16_at(b, 52)),
            DType::TQ2_0 => out.fill(-f16_at(b, 64)),
            DType::Q8_0 | DType::F32 | DType::F16 | DType::BF16 => out.fill(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_decoded_where_they_were_put() {
        for dtype in DType::ALL.into_iter().filter(|&d| levels(d) > 0) {
            let w = weights(dtype, 3, 512, 1, Weights::Ramp, &mut Rng::new(1, 1));
            quant::validate(dtype, 3, 512, &w).unwrap();
            let mut row = vec![0.0; 512];
            let mut offset = vec![0.0; 512];
            for (r, bytes) in w.chunks_exact(w.len() / 3).enumerate() {
                quant::dequantize_row(dtype, bytes, &mut row);
                offsets(dtype, bytes, &mut offset);
                for i in 0..512 {
                    let code = ramp(r, i, levels(dtype)) as f32;
                    let scale = match dtype {
                        DType::Q4K | DType::Q5K => 1.0 + ((r + i % 256 / 32) % 2) as f32,
                        DType::Q6K => 1.0 + ((r + i % 256 / 16) % 2) as f32,
                        _ => 1.0,
                    };
                    let want =
                        if dtype == DType::Q8_0 { f32::from(code as u8 as i8) } else { scale * code + offset[i] };
                    assert_eq!(row[i], want, "{dtype} row {r} column {i}");
                }
            }
        }
    }

    #[test]
    fn every_recipe_makes_legal_blocks_of_every_type() {
        let recipes = [Weights::Random, Weights::Gaussian, Weights::Integer, Weights::Scale(1), Weights::ScaleSigns];
        for dtype in DType::ALL {
            for recipe in recipes.into_iter().chain([Weights::Zero, Weights::Alternating, Weights::LastRowWins]) {
                let w = weights(dtype, 2, 512, 1, recipe, &mut Rng::new(3, 1));
                quant::validate(dtype, 2, 512, &w).unwrap();
                let mut row = vec![f32::NAN; 512];
                quant::dequantize_row(dtype, &w[..w.len() / 2], &mut row);
                assert!(row.iter().all(|v| v.is_finite()), "{dtype} {recipe:?}");
            }
        }
    }
}
