//! Wrong norms, wrong rounding of activations, wrong choices of a token.

use kernels::op::{Problem, Tensor};
use kernels::reference;
use variants::Activations::F32;

use super::products::{decoded, parts, product};
use super::{Kernel, Mutant, mutant};

fn rows(problem: &Problem) -> &[f32] {
    let Tensor::F32(x) = &problem.inputs[0] else { unreachable!() };
    x
}

/// Codes, scale, and scale times sum of a group.
type Group = (Vec<i8>, f32, f32);

/// A slab of one token from the codes, scale and sum of each group.
fn slab(group: fn(usize, &[f32]) -> Group) -> Kernel {
    Box::new(move |problem, out| {
        let x = rows(problem);
        let (mut codes, mut pairs) = (Vec::new(), Vec::new());
        for (i, x) in x.chunks_exact(32).enumerate() {
            let (q, s, t) = group(i, x);
            codes.extend(q.into_iter().map(|q| q as u8));
            pairs.extend([s, t].map(f32::to_le_bytes).concat());
        }
        codes.extend(pairs);
        codes.resize(problem.outputs[0].len, 0);
        out[0].bytes(&codes);
    })
}

fn total(q: &[i8]) -> f32 {
    q.iter().map(|&q| i32::from(q)).sum::<i32>() as f32
}

/// Codes at a scale, by a rounding and a conversion.
fn at_scale(x: &[f32], amax: f32, code: fn(f32) -> i8) -> Group {
    let inverse = if amax == 0.0 { 0.0 } else { 127.0 / amax };
    let q: Vec<i8> = x.iter().map(|v| code(v * inverse)).collect();
    let s = amax / 127.0;
    let t = s * total(&q);
    (q, s, t)
}

fn amax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |a: f32, v| a.max(v.abs()))
}

/// The mean of squares of a row, as the mutation takes it, and then the norm.
fn norm(scale: fn(&[f64], f64) -> f64) -> Kernel {
    Box::new(move |problem, out| {
        let [Tensor::F32(x), Tensor::F32(w)] = &problem.inputs[..] else { unreachable!() };
        let eps = f64::from(problem.scalars[0]);
        let mut y = Vec::new();
        for x in x.chunks_exact(w.len()) {
            let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let scale = scale(&wide, eps);
            y.extend(wide.iter().zip(w).map(|(x, &w)| (x * scale * f64::from(w)) as f32));
        }
        out[0].fill(&y);
    })
}

fn mean(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64
}

/// A product with a choice of its own.
fn choice(choose: fn(&[f32]) -> u32) -> Kernel {
    Box::new(move |problem, out| {
        let p = parts(problem);
        let y = product(&p, F32, |r| decoded(&p, r));
        out[1].word(choose(&y));
        out[0].fill(&y);
    })
}

/// The index that is best by `better`, from an initial value on.
fn best(y: &[f32], start: f32, better: fn(f32, f32) -> bool) -> u32 {
    let (mut index, mut top) = (0, start);
    for (i, &v) in y.iter().enumerate() {
        if better(v, top) {
            (index, top) = (i as u32, v);
        }
    }
    index
}

pub fn mutants() -> Vec<Mutant> {
    let rounding = |name, made_for_it, make| mutant(name, "quantize_a8", F32, made_for_it, make);
    let norms = |name, made_for_it, make| mutant(name, "rmsnorm", F32, made_for_it, make);
    let logits = |name, made_for_it, make| mutant(name, "logits_q8_0", F32, made_for_it, make);
    vec![
        rounding("B5 maximum from one part, int8 wraps", "AD-19", || {
            slab(|_, x| at_scale(x, amax(&x[..8]), |v| (v.round() as i32) as i8))
        }),
        rounding("B24 fixed scale of 127", "magnitudes of 50", || {
            slab(|_, x| at_scale(x, 1.0, |v| v.round().clamp(-127.0, 127.0) as i8))
        }),
        rounding("halves rounded to even", "AD-28", || {
            slab(|_, x| at_scale(x, amax(x), |v| v.round_ties_even() as i8))
        }),
        rounding("codes truncated", "random seed 0", || slab(|_, x| at_scale(x, amax(x), |v| v as i8))),
        rounding("scale of 128, codes down to -128", "AD-13", || {
            slab(|_, x| {
                let s = amax(x) / 128.0;
                let inverse = if s == 0.0 { 0.0 } else { 1.0 / s };
                let q: Vec<i8> = x.iter().map(|v| (v * inverse).round().clamp(-128.0, 127.0) as i8).collect();
                let t = s * total(&q);
                (q, s, t)
            })
        }),
        rounding("0 / 0 in a zero group", "AD-05 zero group", || {
            slab(|_, x| {
                let (q, s, t) = at_scale(x, amax(x), |v| v.round() as i8);
                if s == 0.0 { (q, f32::NAN, f32::NAN) } else { (q, s, t) }
            })
        }),
        rounding("sum without its scale", "random seed 0", || {
            slab(|_, x| {
                let (q, s, _) = at_scale(x, amax(x), |v| v.round() as i8);
                let t = total(&q);
                (q, s, t)
            })
        }),
        rounding("scale kept in f16", "AD-04 amax 1e-9", || {
            slab(|_, x| {
                let (q, s, t) = at_scale(x, amax(x), |v| v.round() as i8);
                (q, half::f16::from_f32(s).to_f32(), t)
            })
        }),
        norms("epsilon forgotten", "AD-05 zero vector", || norm(|x, _| 1.0 / mean(x).sqrt())),
        norms("epsilon outside of the root", "AD-04 amax 1e-6", || norm(|x, eps| 1.0 / (mean(x).sqrt() + eps))),
        norms("sum of squares of the first warp", "AD-19", || norm(|x, eps| 1.0 / (mean(&x[..32]) + eps).sqrt())),
        norms("sum of squares in f16", "AD-03 all 3000", || {
            norm(|x, eps| {
                let sum = x.iter().fold(half::f16::ZERO, |s, v| s + half::f16::from_f64(v * v));
                1.0 / (sum.to_f64() / x.len() as f64 + eps).sqrt()
            })
        }),
        norms("B6 row longer than the buffer", "random seed 0 at K=1536", || {
            norm(|x, eps| {
                let buffer = &x[..x.len().min(1024)];
                1.0 / (buffer.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + eps).sqrt()
            })
        }),
        norms("every row by the mean of the first", "random seed 0 at K=576 M=3", || {
            Box::new(|problem, out| {
                let [Tensor::F32(x), Tensor::F32(w)] = &problem.inputs[..] else { unreachable!() };
                let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
                let eps = f64::from(problem.scalars[0]);
                let scale = 1.0 / (mean(&wide(&x[..w.len()])) + eps).sqrt();
                let y = reference::rmsnorm(&wide(&x[..w.len()]), &wide(w), eps);
                let mut all: Vec<f32> = y.into_iter().map(|v| v as f32).collect();
                for x in x.chunks_exact(w.len()).skip(1) {
                    all.extend(x.iter().zip(w).map(|(x, w)| (f64::from(*x) * scale * f64::from(*w)) as f32));
                }
                out[0].fill(&all);
            })
        }),
        logits("ties go to the highest index", "AD-17 every logit ties", || {
            choice(|y| best(y, f32::NEG_INFINITY, |v, top| v >= top))
        }),
        logits("NaN wins", "AD-17 one NaN logit", || {
            choice(|y| best(y, f32::NEG_INFINITY, |v, top| v > top || v.is_nan()))
        }),
        logits("NaN at the start stays", "AD-17 one NaN logit", || {
            // The row of NaN is where this one starts.
            choice(|y| {
                let middle = y.len() / 2;
                let from = best(&y[middle..], y[middle], |v, top| v > top) + middle as u32;
                let before = best(&y[..middle], f32::NEG_INFINITY, |v, top| v > top);
                if y[from as usize] < y[before as usize] { before } else { from }
            })
        }),
        logits("search starts from zero", "AD-17 every logit negative", || choice(|y| best(y, 0.0, |v, top| v > top))),
        logits("last index left out", "AD-17 maximum at the last index", || {
            choice(|y| best(&y[..y.len().max(2) - 1], f32::NEG_INFINITY, |v, top| v > top))
        }),
        logits("largest magnitude instead of largest value", "AD-17 every logit negative", || {
            choice(|y| best(y, 0.0, |v, top| v.abs() > top.abs()))
        }),
        logits("index of no block written", "AD-17 every logit NaN", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                // A block whose values are all NaN never updates the index.
                if y.iter().any(|v| !v.is_nan()) {
                    out[1].word(best(&y, f32::NEG_INFINITY, |v, top| v > top));
                }
                out[0].fill(&y);
            })
        }),
    ]
}
