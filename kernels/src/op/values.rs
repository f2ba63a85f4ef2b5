//! Activations of every kind.

use super::random::Rng;
use super::recipe::Values;

/// `m` rows of `k` activations.
pub(crate) fn rows(m: usize, k: usize, recipe: Values, rng: &mut Rng) -> Vec<f32> {
    (0..m).flat_map(|token| row(token, k, recipe, rng)).collect()
}

fn row(token: usize, k: usize, recipe: Values, rng: &mut Rng) -> Vec<f32> {
    let by = |each: &mut dyn FnMut(usize) -> f32| (0..k).map(each).collect();
    match recipe {
        Values::Random => rng.many(k, |r| r.uniform(-1.0, 1.0)),
        Values::Outliers => rng.many(k, |r| r.normal() * if r.below(100) == 0 { 30.0 } else { 1.0 }),
        Values::Integer => {
            // Sums stay below 2^24 of their unit at any K in use: the larger K, the smaller the integers.
            let most = if k <= 16_384 { 7 } else { 3 };
            by(&mut |i| if i % 16 == (i / 16 + token) % 16 { 127.0 } else { rng.whole(-most, most) as f32 })
        }
        Values::Constant(v) => vec![v; k],
        Values::Alternate(v) => by(&mut |i| if (i + token).is_multiple_of(2) { v } else { -v }),
        Values::OneHot(at) => by(&mut |i| if i == (at + token) % k { 127.0 } else { 0.0 }),
        Values::Diagonal => by(&mut |i| if i % 32 == (i / 32 + token) % 32 { 127.0 } else { 0.0 }),
        Values::Times(factor) => rng.many(k, |r| r.uniform(-1.0, 1.0) * factor),
        Values::ZeroGroup => by(&mut |i| if i / 32 == token % k.div_ceil(32) { 0.0 } else { 1.0 }),
        Values::OneLarge => {
            let at = rng.below(k);
            by(&mut |i| if i == at { 1e4 } else { 1e-2 })
        }
        Values::Fours => by(&mut |i| (((i / 4 + token) * 2_654_435_761 % (1 << 32)) % 201) as f32 - 100.0),
        Values::Halves => by(&mut |i| if i.is_multiple_of(16) { 127.0 } else { (i % 64) as f32 - 31.5 }),
        Values::LastLargest => {
            by(&mut |i| (i + 1 + token) as f32 / k as f32 * if i.is_multiple_of(2) { 1.0 } else { -1.0 })
        }
    }
}
