//! Two groups of samples under one median (R13).

use crate::describe::sorted;

/// Fewest samples that two groups are looked for in.
const LEAST: usize = 16;
/// Least share of the smaller group.
const LEAST_SHARE: f64 = 0.15;
/// Groups lie this many inner standard deviations apart; halves of a normal sample lie 2.7 apart, of a uniform one 3.5.
const APART: f64 = 5.0;
/// Groups closer than this share of the median do not mislead anyone.
const LEAST_DISTANCE: f64 = 0.03;

/// Whether the samples fall into two groups, so that their median describes neither.
///
/// The ascending samples are cut where the squares inside both parts are least (Otsu's cut); two groups are told from one
/// wide group by the distance of their means in inner standard deviations.
/// Source: Otsu (1979), "A Threshold Selection Method from Gray-Level Histograms", IEEE SMC 9; Ashman et al. (1994) for
/// the distance.
pub fn bimodal(samples: &[f64]) -> bool {
    let n = samples.len();
    if n < LEAST || samples.iter().any(|v| !v.is_finite()) {
        return false;
    }
    let v = sorted(samples);
    let centre = v[n / 2];
    // Sums of deviations from the centre, which keeps the squares small.
    let mut prefix = vec![(0.0, 0.0)];
    for x in &v {
        let (s, q) = prefix[prefix.len() - 1];
        prefix.push((s + (x - centre), q + (x - centre).powi(2)));
    }
    let part = |from: usize, to: usize| {
        let count = (to - from) as f64;
        let mean = (prefix[to].0 - prefix[from].0) / count;
        (mean, (prefix[to].1 - prefix[from].1 - count * mean * mean).max(0.0))
    };
    let least = ((LEAST_SHARE * n as f64).ceil() as usize).max(2);
    let cut = (least..=n - least)
        .min_by(|&a, &b| (part(0, a).1 + part(a, n).1).total_cmp(&(part(0, b).1 + part(b, n).1)))
        .expect("sixteen samples leave a range of cuts");
    let ((low, low_squares), (high, high_squares)) = (part(0, cut), part(cut, n));
    let inner = ((low_squares + high_squares) / (n - 2) as f64).sqrt();
    let distance = high - low;
    distance > LEAST_DISTANCE * centre && distance > APART * inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use statrs::distribution::{ContinuousCDF, Normal};

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        Normal::standard().inverse_cdf(rng.random_range(1e-9..1.0))
    }

    #[test]
    fn one_wide_group_is_not_two() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut flagged = 0;
        for _ in 0..200 {
            let v: Vec<f64> = (0..20).map(|_| 100.0 * (1.0 + 0.05 * normal(&mut rng))).collect();
            flagged += usize::from(bimodal(&v));
            let u: Vec<f64> = (0..20).map(|_| rng.random_range(80.0..120.0)).collect();
            flagged += usize::from(bimodal(&u));
        }
        assert!(flagged <= 8, "{flagged} of 400 single groups were flagged");
    }

    #[test]
    fn a_quarter_of_the_samples_a_tenth_slower_is_flagged() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..50 {
            let v: Vec<f64> =
                (0..40).map(|i| if i % 4 == 0 { 110.0 } else { 100.0 } * (1.0 + 0.005 * normal(&mut rng))).collect();
            assert!(bimodal(&v), "{v:?}");
        }
    }

    #[test]
    fn a_lone_outlier_and_two_groups_a_percent_apart_are_not_flagged() {
        let mut v = vec![100.0; 30];
        v[7] = 500.0;
        assert!(!bimodal(&v));
        let close: Vec<f64> = (0..30).map(|i| if i % 2 == 0 { 100.0 } else { 101.0 }).collect();
        assert!(!bimodal(&close));
        assert!(!bimodal(&[1.0, 2.0, 1.0, 2.0]));
    }
}
