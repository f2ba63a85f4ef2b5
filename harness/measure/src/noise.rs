//! The noise floor: how far two halves of the same side lie apart when nothing differs (MEASURING.md §7, τ).

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::describe::median_in_place;

/// The least practical threshold: a difference of one percent.
pub const LEAST_TAU: f64 = 0.01;

/// Fewest runs of a side that a floor is taken from.
const LEAST_RUNS: usize = 20;

/// Random splits that the 95th percentile is taken over.
const SPLITS: usize = 1000;

/// The 95th percentile of |ratio − 1| between two halves of one side's own runs, at the size of the whole.
///
/// A session has no A/A runs of its own. Neighbouring runs of a side within a block stand in for them: of each two, chance
/// sends one to A and the other to A′, so that both halves see the same drift, as the sides of an ABBA comparison do.
/// Halves have n/2 values and their ratio varies √2 times as much as that of n, which is divided out. `values` are in the
/// order of the runs with the number of their block; differences between workloads must have been taken out before.
/// `None` below 20 runs.
pub fn same_side_floor(values: &[(u64, f64)], rng: &mut ChaCha8Rng) -> Option<f64> {
    let mut neighbours = Vec::new();
    let mut i = 0;
    while i + 1 < values.len() {
        if values[i].0 == values[i + 1].0 {
            neighbours.push((values[i].1, values[i + 1].1));
            i += 2;
        } else {
            i += 1;
        }
    }
    if neighbours.len() * 2 < LEAST_RUNS {
        return None;
    }
    let (mut a, mut b) = (vec![0.0; neighbours.len()], vec![0.0; neighbours.len()]);
    let mut off: Vec<f64> = (0..SPLITS)
        .map(|_| {
            for (k, &(x, y)) in neighbours.iter().enumerate() {
                (a[k], b[k]) = if rng.random_bool(0.5) { (x, y) } else { (y, x) };
            }
            (median_in_place(&mut a) / median_in_place(&mut b) - 1.0).abs() / std::f64::consts::SQRT_2
        })
        .collect();
    off.sort_by(f64::total_cmp);
    Some(off[SPLITS * 95 / 100 - 1])
}

/// τ from the floors of both sides: the larger of them, and at least `least`, which is [`LEAST_TAU`] for whole engines
/// and for kernels timed alone.
pub fn tau(floors: [Option<f64>; 2], least: f64) -> f64 {
    floors.into_iter().flatten().fold(least, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_side_without_noise_has_a_floor_of_zero_and_tau_stays_one_percent() {
        let v: Vec<(u64, f64)> = (0..40).map(|i| (i / 10, 100.0)).collect();
        let floor = same_side_floor(&v, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(floor, Some(0.0));
        assert_eq!(tau([floor, None], LEAST_TAU), LEAST_TAU);
    }

    #[test]
    fn a_noisy_side_raises_tau_above_one_percent() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let v: Vec<(u64, f64)> = (0..100).map(|i| (i / 10, rng.random_range(80.0..120.0))).collect();
        let floor = same_side_floor(&v, &mut rng).unwrap();
        assert!((0.02..0.2).contains(&floor), "{floor}");
        assert_eq!(tau([Some(0.0), Some(floor)], LEAST_TAU), floor);
    }

    #[test]
    fn drift_between_blocks_does_not_count_as_noise() {
        let v: Vec<(u64, f64)> = (0..100).map(|i| (i / 10, 100.0 + 5.0 * (i / 10) as f64)).collect();
        let floor = same_side_floor(&v, &mut ChaCha8Rng::seed_from_u64(3)).unwrap();
        assert!(floor < 1e-9, "{floor}");
    }

    #[test]
    fn nineteen_runs_have_no_floor() {
        let v: Vec<(u64, f64)> = (0..19).map(|i| (0, f64::from(i))).collect();
        assert_eq!(same_side_floor(&v, &mut ChaCha8Rng::seed_from_u64(3)), None);
    }
}
