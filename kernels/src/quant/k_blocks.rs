//! Super-blocks of 256 weights: Q4_K, Q5_K, Q6_K.
//!
//! ```text
//! Q4_K  144 bytes  d f16, dmin f16, scales[12], qs[128]            w = d sc q - dmin mn, per 32 (GB2)
//! Q5_K  176 bytes  d f16, dmin f16, scales[12], qh[32], qs[128]    as Q4_K with a fifth bit
//! Q6_K  210 bytes  ql[128], qh[64], scales[16] signed, d f16       w = d sc (q - 32), per 16 (GB4)
//! ```

use super::{f16_at, put_f16};

const SUPER: usize = 256;

/// The 6-bit scale and minimum of sub-block `j` of 8. Those of the last four are split between two bytes (GB3).
#[inline]
pub(crate) fn scale_min(j: usize, packed: &[u8]) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4)
    }
}

pub(crate) fn pack_scale_min(scales: &[u8; 8], mins: &[u8; 8], packed: &mut [u8]) {
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        packed[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] & 15) << 4;
    }
}

#[inline(always)]
pub(super) fn decode_q4_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(144).zip(out.chunks_exact_mut(SUPER)) {
        let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
        for (pair, o) in o.chunks_exact_mut(64).enumerate() {
            let qs = &b[16 + pair * 32..][..32];
            let (sc, mn) = scale_min(2 * pair, &b[4..16]);
            let (d0, m0) = (d * f32::from(sc), dmin * f32::from(mn));
            let (sc, mn) = scale_min(2 * pair + 1, &b[4..16]);
            let (d1, m1) = (d * f32::from(sc), dmin * f32::from(mn));
            let (low, high) = o.split_at_mut(32);
            for ((low, high), &q) in low.iter_mut().zip(high).zip(qs) {
                *low = d0 * f32::from(q & 15) - m0;
                *high = d1 * f32::from(q >> 4) - m1;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q5_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(176).zip(out.chunks_exact_mut(SUPER)) {
        let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
        let qh = &b[16..48];
        for (pair, o) in o.chunks_exact_mut(64).enumerate() {
            let qs = &b[48 + pair * 32..][..32];
            let (sc, mn) = scale_min(2 * pair, &b[4..16]);
            let (d0, m0) = (d * f32::from(sc), dmin * f32::from(mn));
            let (sc, mn) = scale_min(2 * pair + 1, &b[4..16]);
            let (d1, m1) = (d * f32::from(sc), dmin * f32::from(mn));
            let (low, high) = o.split_at_mut(32);
            for (((low, high), &q), &h) in low.iter_mut().zip(high).zip(qs).zip(qh) {
                *low = d0 * f32::from((q & 15) | (h >> (2 * pair) & 1) << 4) - m0;
                *high = d1 * f32::from((q >> 4) | (h >> (2 * pair + 1) & 1) << 4) - m1;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q6_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.chunks_exact(210).zip(out.chunks_exact_mut(SUPER)) {
        let d = f16_at(b, 208);
        for (half, o) in o.chunks_exact_mut(128).enumerate() {
            let ql = &b[half * 64..][..64];
            let qh = &b[128 + half * 32..][..32];
            let sc = &b[192 + half * 8..][..8];
            for l in 0..32 {
                let codes = [
                    (ql[l] & 15) | (qh[l] & 3) << 4,
                    (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4,
                    (ql[l] >> 4) | (qh[l] >> 4 & 3) << 4,
                    (ql[l + 32] >> 4) | (qh[l] >> 6) << 4,
                ];
                for (quarter, code) in codes.into_iter().enumerate() {
                    let scale = d * f32::from(sc[quarter * 2 + l / 16] as i8);
                    o[quarter * 32 + l] = scale * (i32::from(code) - 32) as f32;
                }
            }
        }
    }
}

/// The scales, minima and codes of a super-block whose sub-blocks of 32 hold codes up to `top`.
struct ScaledCodes {
    d: f32,
    dmin: f32,
    scales: [u8; 8],
    mins: [u8; 8],
    codes: [u8; SUPER],
}

fn scaled_codes(x: &[f32], top: f32) -> ScaledCodes {
    let mut step = [0.0f32; 8];
    let mut offset = [0.0f32; 8];
    for (j, sub) in x.chunks_exact(32).enumerate() {
        let min = sub.iter().copied().fold(0.0f32, f32::min);
        let max = sub.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        step[j] = (max - min).max(0.0) / top;
        offset[j] = -min;
    }
    let quotient = |v: f32, largest: f32| if largest > 0.0 { (63.0 * v / largest).round() as u8 } else { 0 };
    let largest_step = step.iter().copied().fold(0.0, f32::max);
    let largest_offset = offset.iter().copied().fold(0.0, f32::max);
    let mut made = ScaledCodes {
        d: half::f16::from_f32(largest_step / 63.0).to_f32(),
        dmin: half::f16::from_f32(largest_offset / 63.0).to_f32(),
        scales: step.map(|s| quotient(s, largest_step)),
        mins: offset.map(|m| quotient(m, largest_offset)),
        codes: [0; SUPER],
    };
    for (i, &v) in x.iter().enumerate() {
        let d = made.d * f32::from(made.scales[i / 32]);
        let m = made.dmin * f32::from(made.mins[i / 32]);
        made.codes[i] = if d > 0.0 { ((v + m) / d).round().clamp(0.0, top) as u8 } else { 0 };
    }
    made
}

pub(super) fn encode_q4_k(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(SUPER).zip(bytes.chunks_exact_mut(144)) {
        let made = scaled_codes(x, 15.0);
        put_f16(b, 0, made.d);
        put_f16(b, 2, made.dmin);
        pack_scale_min(&made.scales, &made.mins, &mut b[4..16]);
        for (codes, qs) in made.codes.chunks_exact(64).zip(b[16..].chunks_exact_mut(32)) {
            for (j, q) in qs.iter_mut().enumerate() {
                *q = codes[j] | codes[j + 32] << 4;
            }
        }
    }
}

pub(super) fn encode_q5_k(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(SUPER).zip(bytes.chunks_exact_mut(176)) {
        let made = scaled_codes(x, 31.0);
        put_f16(b, 0, made.d);
        put_f16(b, 2, made.dmin);
        pack_scale_min(&made.scales, &made.mins, &mut b[4..16]);
        b[16..48].fill(0);
        for (pair, codes) in made.codes.chunks_exact(64).enumerate() {
            for j in 0..32 {
                b[48 + pair * 32 + j] = (codes[j] & 15) | (codes[j + 32] & 15) << 4;
                b[16 + j] |= (codes[j] >> 4) << (2 * pair) | (codes[j + 32] >> 4) << (2 * pair + 1);
            }
        }
    }
}

pub(super) fn encode_q6_k(x: &[f32], bytes: &mut [u8]) {
    for (x, b) in x.chunks_exact(SUPER).zip(bytes.chunks_exact_mut(210)) {
        b.fill(0);
        let mut scales = [0.0f32; 16];
        for (scale, sub) in scales.iter_mut().zip(x.chunks_exact(16)) {
            let extreme = sub.iter().fold(0.0f32, |best, &v| if v.abs() > best.abs() { v } else { best });
            *scale = extreme / -32.0;
        }
        let largest = scales.iter().fold(0.0f32, |best, &v| if v.abs() > best.abs() { v } else { best });
        if largest == 0.0 {
            continue;
        }
        // The sub-block of the largest scale gets -128, which an int8 holds and 128 does not.
        put_f16(b, 208, largest / -128.0);
        let d = f16_at(b, 208);
        let mut codes = [32u8; SUPER];
        for (j, &scale) in scales.iter().enumerate() {
            let sc = (-128.0 * scale / largest).round().clamp(-128.0, 127.0) as i8;
            b[192 + j] = sc as u8;
            let step = d * f32::from(sc);
            if step != 0.0 {
                for (code, &v) in codes[j * 16..].iter_mut().zip(&x[j * 16..][..16]) {
                    *code = ((v / step).round().clamp(-32.0, 31.0) + 32.0) as u8;
                }
            }
        }
        for (half, codes) in codes.chunks_exact(128).enumerate() {
            for l in 0..32 {
                let [q1, q2, q3, q4] = [codes[l], codes[l + 32], codes[l + 64], codes[l + 96]];
                b[half * 64 + l] = (q1 & 15) | (q3 & 15) << 4;
                b[half * 64 + l + 32] = (q2 & 15) | (q4 & 15) << 4;
                b[128 + half * 32 + l] = (q1 >> 4) | (q2 >> 4) << 2 | (q3 >> 4) << 4 | (q4 >> 4) << 6;
            }
        }
    }
}
