//! Wilcoxon's signed-rank test, for pairs.

use statrs::distribution::{ContinuousCDF, Normal};

/// Up to this many non-zero differences the null distribution is counted out; beyond, it is normal to four digits.
const EXACT_UP_TO: usize = 60;

/// Two-sided p of the hypothesis that the differences are symmetric about zero.
///
/// Zero differences are left out, as in the original test; equal magnitudes share their mean rank. Without a non-zero
/// difference p is 1.
/// Source: Wilcoxon (1945), "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1.
pub fn signed_rank_p(differences: &[f64]) -> f64 {
    let mut d: Vec<f64> = differences.iter().copied().filter(|x| *x != 0.0).collect();
    if d.is_empty() || d.iter().any(|x| x.is_nan()) {
        return 1.0;
    }
    d.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranks = doubled_mid_ranks(&d);
    let positive: u64 = d.iter().zip(&ranks).filter(|(x, _)| **x > 0.0).map(|(_, r)| *r).sum();
    if d.len() <= EXACT_UP_TO { exact_p(&ranks, positive) } else { normal_p(&ranks, positive) }
}

/// Twice the mean rank of each value, so that shared ranks stay integers.
fn doubled_mid_ranks(ascending_abs: &[f64]) -> Vec<u64> {
    let n = ascending_abs.len();
    let mut ranks = vec![0; n];
    let mut start = 0;
    while start < n {
        let mut end = start + 1;
        while end < n && ascending_abs[end].abs() == ascending_abs[start].abs() {
            end += 1;
        }
        // Ranks start + 1 ..= end have the mean (start + 1 + end) / 2.
        ranks[start..end].fill((start + 1 + end) as u64);
        start = end;
    }
    ranks
}

/// Counts out the sums that 2ⁿ equally likely sign patterns give, shared ranks included.
fn exact_p(doubled: &[u64], positive: u64) -> f64 {
    let total: u64 = doubled.iter().sum();
    let mut chance = vec![0.0f64; total as usize + 1];
    chance[0] = 1.0;
    let mut reach = 0;
    for &r in doubled {
        reach += r as usize;
        for s in (0..=reach).rev() {
            let with = if s >= r as usize { chance[s - r as usize] } else { 0.0 };
            chance[s] = 0.5 * (chance[s] + with);
        }
    }
    let small = positive.min(total - positive) as usize;
    let tail: f64 = chance[..=small].iter().sum();
    (2.0 * tail).min(1.0)
}

/// Normal approximation; the variance from the ranks themselves is corrected for ties.
fn normal_p(doubled: &[u64], positive: u64) -> f64 {
    let total: u64 = doubled.iter().sum();
    let variance: f64 = doubled.iter().map(|&r| (r as f64 / 2.0).powi(2)).sum::<f64>() / 4.0;
    let off = (positive as f64 / 2.0 - total as f64 / 4.0).abs();
    let z = (off - 0.5).max(0.0) / variance.sqrt();
    let standard = Normal::standard();
    (2.0 * standard.sf(z)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exact_values_agree_with_the_tables() {
        // All of one sign: 2 / 2^n.
        let all: Vec<f64> = (1..=5).map(f64::from).collect();
        assert!((signed_rank_p(&all) - 2.0 / 32.0).abs() < 1e-12);
        // n = 10, W = 8: the tabulated two-sided 5 % point; R gives 0.04882812.
        let d = [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0, 8.0, 9.0, 10.0];
        assert!((signed_rank_p(&d) - 0.048_828_125).abs() < 1e-12);
    }

    #[test]
    fn zeros_are_left_out_and_nothing_gives_one() {
        assert_eq!(signed_rank_p(&[0.0, 0.0]), 1.0);
        assert_eq!(signed_rank_p(&[]), 1.0);
        assert!((signed_rank_p(&[0.0, 1.0, 2.0, 3.0]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn ties_are_counted_out_exactly() {
        // Three equal magnitudes, one against: sums of two-each ranks; P(W <= 2) = 4/8 for one negative of three.
        assert!((signed_rank_p(&[1.0, 1.0, -1.0]) - 1.0).abs() < 1e-12);
        assert!((signed_rank_p(&[1.0, 1.0, 1.0]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn the_approximation_meets_the_exact_value_at_the_border() {
        let d: Vec<f64> = (1..=60).map(|i| if i % 3 == 0 { -f64::from(i) } else { f64::from(i) }).collect();
        let mut a = d.clone();
        a.sort_by(|x, y| x.abs().total_cmp(&y.abs()));
        let ranks = doubled_mid_ranks(&a);
        let positive: u64 = a.iter().zip(&ranks).filter(|(x, _)| **x > 0.0).map(|(_, r)| *r).sum();
        assert!((exact_p(&ranks, positive) - normal_p(&ranks, positive)).abs() < 2e-3);
    }

    proptest! {
        #[test]
        fn the_sign_of_all_differences_does_not_matter(d in proptest::collection::vec(-10.0f64..10.0, 1..90)) {
            let flipped: Vec<f64> = d.iter().map(|x| -x).collect();
            let (p, q) = (signed_rank_p(&d), signed_rank_p(&flipped));
            prop_assert!((p - q).abs() < 1e-9);
            prop_assert!((0.0..=1.0).contains(&p));
        }
    }
}
