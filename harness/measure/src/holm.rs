//! Many comparisons in one report: Holm's step-down at a family-wise 5 % (MEASURING.md §7).

/// The family-wise error rate.
pub const ALPHA: f64 = 0.05;

/// What Holm makes of one hypothesis of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjusted {
    /// The adjusted p: rejected at 5 % where it is below 0.05.
    pub p: f64,
    /// The confidence level that the hypothesis is tested at, 1 − α/(m − rank).
    pub level: f64,
}

/// Adjusts the p values of one family; the answer is in the order of the question.
/// Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6.
pub fn adjust(p: &[f64]) -> Vec<Adjusted> {
    let m = p.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut out = vec![Adjusted { p: 1.0, level: 1.0 - ALPHA }; m];
    let mut running = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        let left = (m - rank) as f64;
        // An adjusted p never falls below that of a smaller raw p: a step-down stops at the first that fails.
        running = running.max((p[i] * left).min(1.0));
        out[i] = Adjusted { p: running, level: 1.0 - ALPHA / left };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_textbook_family_is_adjusted_as_r_does() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02.
        let got: Vec<f64> = adjust(&[0.01, 0.04, 0.03, 0.005]).iter().map(|a| a.p).collect();
        for (g, w) in got.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((g - w).abs() < 1e-12, "{got:?}");
        }
    }

    #[test]
    fn the_smallest_p_asks_for_the_widest_interval() {
        let a = adjust(&[0.5, 0.001]);
        assert!((a[1].level - 0.975).abs() < 1e-12 && (a[0].level - 0.95).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn an_adjusted_p_is_no_smaller_than_the_raw_one_and_keeps_the_order(p in proptest::collection::vec(0.0f64..1.0, 1..20)) {
            let a = adjust(&p);
            for i in 0..p.len() {
                prop_assert!(a[i].p >= p[i] && a[i].p <= 1.0);
                for j in 0..p.len() {
                    prop_assert!(p[i] > p[j] || a[i].p <= a[j].p);
                }
            }
        }
    }
}
