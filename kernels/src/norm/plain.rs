//! norm / plain: RMS norm, a8/32 and SwiGLU in portable Rust.

use crate::cpu::act::{GROUP, QuantRow, SMALLEST_AMAX};

pub(super) fn rmsnorm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let sum: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let scale = (1.0 / (sum / x.len() as f64 + f64::from(eps)).sqrt()) as f32;
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(w) {
        *o = x * scale * w;
    }
}

pub(super) fn quantize(x: &[f32], row: &mut QuantRow<'_>) {
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        // Comparing bit patterns keeps a NaN, which `f32::max` would drop: it is above every number.
        let amax = f32::from_bits(x.iter().map(|v| v.abs().to_bits()).max().unwrap_or(0));
        let (s, id) = scale_of(amax);
        let q = &mut row.q[group * GROUP..][..GROUP];
        for (q, &v) in q.iter_mut().zip(x) {
            *q = (v * id).round() as i8;
        }
        let half = |part: &[i8]| part.iter().map(|&q| i32::from(q)).sum::<i32>();
        let halves = [half(&q[..16]), half(&q[16..])];
        row.set_group(group, s, halves);
    }
}

/// The scale of a group and the factor that maps it to codes. A group that is not finite gets a NaN scale, so that
/// every product with it is NaN.
#[inline(always)]
pub(crate) fn scale_of(amax: f32) -> (f32, f32) {
    if !amax.is_finite() {
        (f32::NAN, 0.0)
    } else if amax < SMALLEST_AMAX {
        (0.0, 0.0)
    } else {
        (amax / 127.0, 127.0 / amax)
    }
}

pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (g, &u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + (-*g).exp()) * u;
    }
}
