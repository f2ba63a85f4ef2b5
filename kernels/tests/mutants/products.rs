//! Wrong products: codes, scales, sums and tails.

use half::f16;
use harness_spec::DType;
use kernels::op::{Problem, Tensor, activations};
use kernels::{quant, reference};
use variants::Activations::{self, A8, F32};

use super::{Kernel, Mutant, Output, mutant};

/// The parts of a product.
pub struct Parts<'a> {
    pub dtype: DType,
    pub n: usize,
    pub k: usize,
    pub rows: Vec<&'a [u8]>,
    pub x: &'a [f32],
}

pub fn parts(problem: &Problem) -> Parts<'_> {
    let (dtype, n, k, bytes) = problem.weights().unwrap();
    let Tensor::F32(x) = &problem.inputs[1] else { unreachable!() };
    Parts { dtype, n, k, rows: bytes.chunks_exact(bytes.len() / n).collect(), x }
}

/// The weights of a row as they should be.
pub fn decoded(p: &Parts<'_>, row: usize) -> Vec<f64> {
    reference::decode(p.dtype, 1, p.rows[row])
}

/// `y[m, n]` from the weights of each row, as the mutation decodes them.
pub fn product(p: &Parts<'_>, form: Activations, row: impl Fn(usize) -> Vec<f64>) -> Vec<f32> {
    let x = activations::seen(p.x, form).unwrap();
    let rows: Vec<Vec<f64>> = (0..p.n).map(row).collect();
    let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() as f32;
    x.chunks_exact(p.k).flat_map(|x| rows.iter().map(|w| dot(w, x)).collect::<Vec<_>>()).collect()
}

/// A kernel that decodes its blocks by `block`.
fn decoding(block: fn(&[u8]) -> Vec<f64>) -> Kernel {
    Box::new(move |problem, out| {
        let p = parts(problem);
        let blocks = |row: usize| p.rows[row].chunks_exact(p.dtype.block_bytes()).flat_map(block).collect();
        out[0].fill(&product(&p, F32, blocks));
    })
}

/// A kernel that changes its rows of weights once they are decoded.
fn on_rows(change: fn(&Parts<'_>, &mut Vec<f64>)) -> Kernel {
    Box::new(move |problem, out| {
        let p = parts(problem);
        let row = |r: usize| {
            let mut w = decoded(&p, r);
            change(&p, &mut w);
            w
        };
        out[0].fill(&product(&p, F32, row));
    })
}

/// Codes and scale of a group of 32 activations.
type Group = (Vec<i8>, f32);

/// A kernel that sums a row and one token's codes and scales of 32 by `sum`.
fn integers(sum: fn(&Parts<'_>, usize, &[Group]) -> f32) -> Kernel {
    Box::new(move |problem, out| {
        let p = parts(problem);
        let mut y = Vec::new();
        for x in p.x.chunks_exact(p.k) {
            let groups: Vec<_> = x.chunks_exact(32).map(reference::quantize_group).collect();
            y.extend((0..p.n).map(|row| sum(&p, row, &groups)));
        }
        out[0].fill(&y);
    })
}

fn half_at(b: &[u8], at: usize) -> f64 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f64()
}

/// The weights of a block of nibbles in file order: low nibbles, then high ones.
fn nibbles(b: &[u8]) -> impl Iterator<Item = u8> {
    let (low, high): (Vec<u8>, Vec<u8>) = b.iter().map(|q| (q & 15, q >> 4)).unzip();
    low.into_iter().chain(high)
}

/// Q4_K or Q6_K with parts of the decoder replaced.
fn q4_k(b: &[u8], scale_min: fn(usize, &[u8]) -> (u8, u8), min: f64) -> Vec<f64> {
    let weight = |i: usize| {
        let (scale, least) = scale_min(i / 32, &b[4..16]);
        let byte = b[16 + i / 64 * 32 + i % 32];
        let code = if (i / 32).is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        half_at(b, 0) * f64::from(scale) * f64::from(code) - min * half_at(b, 2) * f64::from(least)
    };
    (0..256).map(weight).collect()
}

fn right_scale_min(j: usize, p: &[u8]) -> (u8, u8) {
    if j < 4 {
        (p[j] & 63, p[j + 4] & 63)
    } else {
        ((p[j + 4] & 15) | (p[j - 4] >> 6) << 4, (p[j + 4] >> 4) | (p[j] >> 6) << 4)
    }
}

fn q6_k(b: &[u8], quarter_of_high: fn(usize) -> usize, offset: f64) -> Vec<f64> {
    let weight = |i: usize| {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = b[half * 64 + quarter % 2 * 32 + l];
        let low = if quarter < 2 { low & 15 } else { low >> 4 };
        let high = b[128 + half * 32 + l] >> (2 * quarter_of_high(quarter)) & 3;
        half_at(b, 208) * f64::from(b[192 + i / 16] as i8) * (f64::from(low | high << 4) - offset)
    };
    (0..256).map(weight).collect()
}

pub fn mutants() -> Vec<Mutant> {
    let q4 = |name, made_for_it, make| mutant(name, "gemv_q4_0", F32, made_for_it, make);
    let mut all = vec![
        q4("B1 nibble - 8 wraps in u32", "AD-01 code 7", || {
            decoding(|b| nibbles(&b[2..]).map(|q| half_at(b, 0) * f64::from(u32::from(q).wrapping_sub(8))).collect())
        }),
        q4("GB1 nibbles of Q4_0 taken as even and odd", "AD-02 one-hot", || {
            decoding(|b| {
                let pair = |q: &u8| [q & 15, q >> 4];
                b[2..].iter().flat_map(pair).map(|q| half_at(b, 0) * (f64::from(q) - 8.0)).collect()
            })
        }),
        mutant("GB1 nibbles of Q4_1 taken as even and odd", "gemv_q4_1", F32, "AD-02 one-hot", || {
            decoding(|b| {
                let pair = |q: &u8| [q & 15, q >> 4];
                b[4..].iter().flat_map(pair).map(|q| half_at(b, 0) * f64::from(q) + half_at(b, 2)).collect()
            })
        }),
        q4("low and high nibbles swapped", "AD-02 one-hot", || {
            decoding(|b| {
                let swapped: Vec<u8> = b[2..].iter().map(|q| q.rotate_left(4)).collect();
                nibbles(&swapped).map(|q| half_at(b, 0) * (f64::from(q) - 8.0)).collect()
            })
        }),
        q4("GB6 subnormal scale flushed to zero", "AD-09 d = smallest subnormal", || {
            decoding(|b| {
                let d = f16::from_le_bytes([b[0], b[1]]);
                let d = if d.is_normal() { d.to_f64() } else { 0.0 };
                nibbles(&b[2..]).map(|q| d * (f64::from(q) - 8.0)).collect()
            })
        }),
        q4("sign of the scale dropped", "AD-09 d = -1.5", || {
            decoding(|b| nibbles(&b[2..]).map(|q| half_at(b, 0).abs() * (f64::from(q) - 8.0)).collect())
        }),
        mutant("GB2 minimum of Q4_1 with the wrong sign", "gemv_q4_1", F32, "AD-01 code 0", || {
            decoding(|b| nibbles(&b[4..]).map(|q| half_at(b, 0) * f64::from(q) - half_at(b, 2)).collect())
        }),
        mutant("GB2 minimum of Q4_K forgotten", "gemv_q4_k", F32, "AD-10", || {
            decoding(|b| q4_k(b, right_scale_min, 0.0))
        }),
        mutant("GB3 scales of sub-blocks 4 to 7 without their upper bits", "gemv_q4_k", F32, "AD-10", || {
            decoding(|b| {
                let low_bits = |j: usize, p: &[u8]| match j {
                    0..4 => (p[j] & 63, p[j + 4] & 63),
                    _ => (p[j + 4] & 15, p[j + 4] >> 4),
                };
                q4_k(b, low_bits, 1.0)
            })
        }),
        mutant("GB4 upper bits of Q6_K in the wrong quarter", "gemv_q6_k", F32, "AD-02 one-hot", || {
            decoding(|b| q6_k(b, |quarter| [0, 2, 1, 3][quarter], 32.0))
        }),
        mutant("GB4 offset of Q6_K forgotten", "gemv_q6_k", F32, "AD-11", || decoding(|b| q6_k(b, |q| q, 0.0))),
        mutant("GB4 scales of Q6_K read unsigned", "gemv_q6_k", F32, "AD-11", || {
            decoding(|b| {
                let unsigned = |i: usize, w: f64| w / f64::from(b[192 + i / 16] as i8) * f64::from(b[192 + i / 16]);
                let whole = |(i, w): (usize, f64)| if w == 0.0 { 0.0 } else { unsigned(i, w) };
                q6_k(b, |q| q, 32.0).into_iter().enumerate().map(whole).collect()
            })
        }),
        mutant("GB5 bytes of Q8_0 read unsigned", "gemv_q8_0", F32, "AD-01 code 255", || {
            decoding(|b| b[2..].iter().map(|&q| half_at(b, 0) * f64::from(q)).collect())
        }),
        mutant("GB5 planes of TQ2_0 in byte order", "gemv_ternary", F32, "AD-02 one-hot", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let byte_order = |b: &[u8]| -> Vec<f64> {
                    (0..256).map(|i| half_at(b, 64) * (f64::from(b[i / 4] >> (2 * (i % 4)) & 3) - 1.0)).collect()
                };
                let row = |r: usize| match p.dtype {
                    DType::TQ2_0 => p.rows[r].chunks_exact(66).flat_map(byte_order).collect(),
                    _ => decoded(&p, r),
                };
                out[0].fill(&product(&p, F32, row));
            })
        }),
    ];
    all.extend(sums());
    all.extend(tails());
    all
}

/// Wrong scales of activations and wrong sums.
fn sums() -> Vec<Mutant> {
    let q4 = |name, made_for_it, make| mutant(name, "gemv_q4_0", A8, made_for_it, make);
    /// The dot of a block of Q4_0 with 32 codes, and the scale of its weights.
    fn dot(row: &[u8], block: usize, q: &[i8]) -> (i32, f32) {
        let b = &row[block * 18..][..18];
        let dot = nibbles(&b[2..]).zip(q).map(|(w, &q)| i32::from(w) * i32::from(q)).sum();
        (dot, half_at(b, 0) as f32)
    }
    fn total(q: &[i8]) -> i32 {
        q.iter().map(|&q| i32::from(q)).sum()
    }
    vec![
        q4("AD-03 scale times sum kept in f16", "AD-03 all 3000", || {
            integers(|p, row, groups| {
                let block = |(i, (q, s)): (usize, &Group)| {
                    let (dot, d) = dot(p.rows[row], i, q);
                    let t = f16::from_f32(s * total(q) as f32).to_f64();
                    f64::from(d) * (f64::from(*s) * f64::from(dot) - 8.0 * t)
                };
                groups.iter().enumerate().map(block).sum::<f64>() as f32
            })
        }),
        q4("AD-04 scale of activations kept in f16", "AD-04 amax 1e-9", || {
            integers(|p, row, groups| {
                let block = |(i, (q, s)): (usize, &Group)| {
                    let (dot, d) = dot(p.rows[row], i, q);
                    f64::from(d) * f16::from_f32(*s).to_f64() * f64::from(dot - 8 * total(q))
                };
                groups.iter().enumerate().map(block).sum::<f64>() as f32
            })
        }),
        q4("B24 activations at a fixed scale of 127", "AD-03 all 3000", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let x: Vec<f32> = p.x.iter().map(|v| (v * 127.0).round().clamp(-127.0, 127.0) / 127.0).collect();
                out[0].fill(&product(&Parts { x: &x, ..parts(problem) }, F32, |r| decoded(&p, r)));
            })
        }),
        q4("one scale of activations for the whole row", "AD-06", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let x: Vec<f32> =
                    p.x.chunks_exact(p.k)
                        .flat_map(|x| {
                            let (q, s) = reference::quantize_group(x);
                            q.into_iter().map(move |q| f32::from(q) * s).collect::<Vec<_>>()
                        })
                        .collect();
                out[0].fill(&product(&Parts { x: &x, ..parts(problem) }, F32, |r| decoded(&p, r)));
            })
        }),
        q4("scale of activations one group off", "random seed 0", || {
            integers(|p, row, groups| {
                let block = |(i, (q, _)): (usize, &Group)| {
                    let (dot, d) = dot(p.rows[row], i, q);
                    let s = groups[(i + 1).min(groups.len() - 1)].1;
                    f64::from(d) * f64::from(s) * f64::from(dot - 8 * total(q))
                };
                groups.iter().enumerate().map(block).sum::<f64>() as f32
            })
        }),
        q4("sums in f16", "random seed 0", || {
            integers(|p, row, groups| {
                let mut sum = f16::ZERO;
                for (i, (q, s)) in groups.iter().enumerate() {
                    let (dot, d) = dot(p.rows[row], i, q);
                    sum += f16::from_f32(d * s * (dot - 8 * total(q)) as f32);
                }
                sum.to_f32()
            })
        }),
        mutant("AD-12 ternary sums in 16 bits", "gemv_ternary", A8, "AD-12 bytes 0xaa, x = 127", || {
            integers(|p, row, groups| {
                let w: Vec<f64> = decoded(p, row);
                let d = w.iter().fold(0.0f64, |a, v| a.max(v.abs()));
                // Sixteen lanes of pairs, widened only at the end of the row: right for short rows of one scale.
                if d == 0.0 || !w.iter().all(|v| [0.0, d, -d].contains(v)) {
                    return product(&Parts { rows: vec![p.rows[row]], n: 1, x: &seen(groups), ..*p }, F32, |_| {
                        w.clone()
                    })[0];
                }
                let mut lanes = [0i16; 16];
                for (i, q) in groups.iter().flat_map(|(q, _)| q).enumerate() {
                    let code = (w[i] / d + 1.0) as i16;
                    lanes[i / 2 % 16] = lanes[i / 2 % 16].wrapping_add(code * i16::from(*q));
                }
                let sum: i32 = lanes.iter().map(|&l| i32::from(l)).sum();
                let rest: i32 = groups.iter().map(|(q, _)| total(q)).sum();
                if groups.iter().any(|(_, s)| *s != groups[0].1) {
                    return product(&Parts { rows: vec![p.rows[row]], n: 1, x: &seen(groups), ..*p }, F32, |_| {
                        w.clone()
                    })[0];
                }
                (d * f64::from(groups[0].1) * f64::from(sum - rest)) as f32
            })
        }),
        mutant("AD-13 pairs of products saturate in 16 bits", "gemv_q8_0", A8, "AD-12 bytes 0x7f, x = 127", || {
            integers(|p, row, groups| {
                let mut sum = 0.0;
                for (b, (q, s)) in p.rows[row].chunks_exact(34).zip(groups) {
                    // Weights plus 128 are unsigned bytes; two products of such may reach 64770.
                    let pair = |(w, q): (&[u8], &[i8])| {
                        let product = |i: usize| (i32::from(w[i] as i8) + 128) * i32::from(q[i]);
                        (product(0) + product(1)).clamp(-32768, 32767)
                    };
                    let dot: i32 = b[2..].chunks_exact(2).zip(q.chunks_exact(2)).map(pair).sum();
                    sum += half_at(b, 0) * f64::from(*s) * f64::from(dot - 128 * total(q));
                }
                sum as f32
            })
        }),
        mutant("B12 table look-up without the offset of its lane", "gemv_ternary", F32, "AD-27", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                // Eight groups of four columns each look up the table of the first.
                let x: Vec<f32> = (0..p.x.len()).map(|i| p.x[i / 32 * 32 + i % 4]).collect();
                out[0].fill(&product(&Parts { x: &x, ..parts(problem) }, F32, |r| decoded(&p, r)));
            })
        }),
        mutant("every token multiplied with the first one's activations", "gemv_q4_0", F32, "random seed 0", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let x: Vec<f32> = (0..p.x.len()).map(|i| p.x[i % p.k]).collect();
                out[0].fill(&product(&Parts { x: &x, ..parts(problem) }, F32, |r| decoded(&p, r)));
            })
        }),
    ]
}

fn seen(groups: &[Group]) -> Vec<f32> {
    groups.iter().flat_map(|(q, s)| q.iter().map(move |&q| f32::from(q) * s)).collect()
}

/// Dropped ends and wrong groups.
fn tails() -> Vec<Mutant> {
    let q4 = |name, made_for_it, make| mutant(name, "gemv_q4_0", F32, made_for_it, make);
    vec![
        q4("GB10 tail of K dropped", "random seed 0 at K=576", || on_rows(|p, w| w[p.k / 256 * 256..].fill(0.0))),
        q4("GB10 last block of an odd number dropped", "random seed 0 at K=32", || {
            on_rows(|p, w| w[p.k / 64 * 64..].fill(0.0))
        }),
        q4("GB10 scale of the next group", "exact integers", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let row = |r: usize| {
                    let mut bytes = p.rows[r].to_vec();
                    for block in 0..bytes.len() / 18 - 1 {
                        bytes.copy_within((block + 1) * 18..(block + 1) * 18 + 2, block * 18);
                    }
                    reference::decode(p.dtype, 1, &bytes)
                };
                out[0].fill(&product(&p, F32, row));
            })
        }),
        q4("GB10 last row of an odd number skipped", "random seed 0 at K=32 N=1", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                let rows = p.n / 2 * 2;
                let write = |(i, v): (usize, &f32), out: &mut Output| {
                    if i % p.n < rows {
                        out.put(i as isize, *v);
                    }
                };
                y.iter().enumerate().for_each(|item| write(item, &mut out[0]));
            })
        }),
        q4("rows beyond the grid never written", "random seed 0 at K=576 N=1152", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                y.iter().enumerate().filter(|(i, _)| i % p.n < 1024).for_each(|(i, v)| out[0].put(i as isize, *v));
            })
        }),
        q4("cross-warp shuffle: half of a row's sum goes to its neighbour", "random seed 0", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                // The upper half of K is summed by another warp, whose sum is broadcast to the wrong row.
                let row = |r: usize| {
                    let (own, other) = (decoded(&p, r), decoded(&p, (r + 1) % p.n));
                    [&own[..p.k / 2], &other[p.k / 2..]].concat()
                };
                out[0].fill(&product(&p, F32, row));
            })
        }),
        mutant("rows of F16 decoded as BF16", "gemv_f16", F32, "random seed 0", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let row = |r: usize| {
                    let mut w = vec![0.0f32; p.k];
                    quant::dequantize_row(DType::BF16, p.rows[r], &mut w);
                    w.into_iter().map(f64::from).collect()
                };
                out[0].fill(&product(&p, F32, row));
            })
        }),
    ]
}
