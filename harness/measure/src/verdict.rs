//! From evidence to a verdict, in the order of the law (MEASURING.md §7).

use harness_spec::record::{RatioEstimate, Verdict};

/// Fewest pairs that any verdict but `unstable` is given on.
pub const LEAST_PAIRS: u64 = 10;

/// The verdict on a ratio that is turned so that above 1 is better for the engine.
pub fn decide(r: &RatioEstimate) -> Verdict {
    let finite = [r.ratio, r.ci[0], r.ci[1], r.p_holm].iter().all(|v| v.is_finite());
    if r.n_pairs < LEAST_PAIRS || !finite {
        return Verdict::Unstable;
    }
    if r.ci[0] >= 1.0 - r.tau && r.ci[1] <= 1.0 + r.tau {
        return Verdict::Tie;
    }
    if r.p_holm < crate::holm::ALPHA {
        if r.ci[0] > 1.0 && r.ratio > 1.0 + r.tau {
            return Verdict::Faster;
        }
        if r.ci[1] < 1.0 && r.ratio < 1.0 - r.tau {
            return Verdict::Slower;
        }
    }
    Verdict::Inconclusive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(ratio: f64, ci: [f64; 2], p_holm: f64, n_pairs: u64) -> RatioEstimate {
        RatioEstimate { ratio, ci, level: 0.95, n_pairs, p: p_holm, p_holm, tau: 0.01 }
    }

    #[test]
    fn every_branch_of_the_table() {
        for (ratio, ci, p, n, want) in [
            (1.10, [1.08, 1.12], 0.001, 100, Verdict::Faster),
            (0.90, [0.88, 0.92], 0.001, 100, Verdict::Slower),
            (1.002, [0.995, 1.008], 0.3, 100, Verdict::Tie),
            // Significant, yet inside the threshold: a tie.
            (1.005, [1.002, 1.008], 0.001, 100, Verdict::Tie),
            // Beyond the threshold, yet the interval holds 1.
            (1.02, [0.99, 1.05], 0.2, 100, Verdict::Inconclusive),
            // The interval excludes 1, the estimate does not pass the threshold, the interval does not fit inside it.
            (1.008, [1.001, 1.015], 0.001, 100, Verdict::Inconclusive),
            // The adjusted test does not agree.
            (1.05, [1.01, 1.09], 0.06, 100, Verdict::Inconclusive),
            (1.10, [1.08, 1.12], 0.001, 9, Verdict::Unstable),
            (f64::NAN, [1.08, 1.12], 0.001, 100, Verdict::Unstable),
            (1.10, [f64::NAN, 1.12], 0.001, 100, Verdict::Unstable),
        ] {
            assert_eq!(decide(&evidence(ratio, ci, p, n)), want, "ratio {ratio} ci {ci:?} p {p} n {n}");
        }
    }
}
