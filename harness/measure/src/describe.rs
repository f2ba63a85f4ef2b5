//! Centre and spread, with distribution-free intervals (MEASURING.md §7).

use harness_spec::record::Estimate;

use crate::percentile::rank_interval;

/// Scales a median absolute deviation to the σ of a normal sample.
/// Source: Rousseeuw and Croux (1993), "Alternatives to the Median Absolute Deviation", JASA 88.
pub const MAD_TO_SIGMA: f64 = 1.4826;

/// The values in ascending order. NaN sorts last, where it shows up as the maximum instead of vanishing.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v
}

/// Median of ascending values: the mean of the middle two where their number is even; `None` of nothing.
pub fn median_sorted(ascending: &[f64]) -> Option<f64> {
    let n = ascending.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(ascending[n / 2]),
        _ => Some((ascending[n / 2 - 1] + ascending[n / 2]) / 2.0),
    }
}

/// Median of values in any order; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    median_sorted(&sorted(values))
}

/// Median of `values`, which it reorders: linear time, for the inner loop of the bootstrap.
///
/// # Panics
/// On an empty slice.
pub fn median_in_place(values: &mut [f64]) -> f64 {
    let n = values.len();
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).expect("an even count above zero has a lower half");
    (lower + upper) / 2.0
}

/// Quantile by linear interpolation between order statistics (the default of R and NumPy); only for the quartiles of
/// [`Estimate::iqr`]. Percentiles that are reported as such go through [`crate::percentile`].
fn quantile_sorted(ascending: &[f64], q: f64) -> f64 {
    let at = (ascending.len() - 1) as f64 * q;
    let (lo, hi) = (at.floor() as usize, at.ceil() as usize);
    ascending[lo] + (ascending[hi] - ascending[lo]) * (at - lo as f64)
}

/// Median absolute deviation of `values` from their median, scaled to the σ of a normal sample; `None` of nothing.
pub fn mad_sigma(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|v| (v - centre).abs()).collect();
    median(&deviations).map(|m| m * MAD_TO_SIGMA)
}

/// Sample standard deviation (n − 1); `None` below two values, since one number shows no spread.
pub fn stdev(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let ss: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((ss / (values.len() - 1) as f64).sqrt())
}

/// Centre, spread and a 95 % order-statistic interval of the median; `None` of nothing. Nothing is trimmed.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let v = sorted(values);
    let median = median_sorted(&v)?;
    Some(Estimate {
        n: v.len() as u64,
        median,
        ci95: rank_interval(v.len(), 0.5, 0.95).map(|(lo, hi)| [v[lo - 1], v[hi - 1]]),
        mad_sigma: mad_sigma(&v)?,
        iqr: quantile_sorted(&v, 0.75) - quantile_sorted(&v, 0.25),
        min: v[0],
        max: v[v.len() - 1],
        mean: v.iter().sum::<f64>() / v.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn an_estimate_of_one_to_nine_has_the_textbook_values() {
        let e = estimate(&[9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]).unwrap();
        assert_eq!((e.n, e.median, e.iqr, e.min, e.max, e.mean), (9, 5.0, 4.0, 1.0, 9.0, 5.0));
        assert!((e.mad_sigma - 2.0 * MAD_TO_SIGMA).abs() < 1e-12);
        // n = 9: ranks 2 and 8 cover the median with 96.1 %.
        assert_eq!(e.ci95, Some([2.0, 8.0]));
    }

    #[test]
    fn five_values_have_no_95_percent_interval() {
        assert_eq!(estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().ci95, None);
        assert_eq!(estimate(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap().ci95, Some([1.0, 6.0]));
    }

    #[test]
    fn outliers_short_of_half_leave_the_mad_bounded() {
        let mut v = vec![10.0; 60];
        v.extend([1e9; 40]);
        assert_eq!(mad_sigma(&v), Some(0.0));
    }

    #[test]
    fn the_standard_deviation_divides_by_n_minus_one() {
        assert!((stdev(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(stdev(&[1.0]), None);
    }

    proptest! {
        #[test]
        fn the_quick_median_equals_the_sorted_one(mut v in proptest::collection::vec(-1e6f64..1e6, 1..80)) {
            let want = median(&v).unwrap();
            prop_assert_eq!(median_in_place(&mut v), want);
        }

        #[test]
        fn order_does_not_matter_and_scale_passes_through(v in proptest::collection::vec(1e-3f64..1e3, 6..60), k in 0.5f64..20.0) {
            let mut reversed = v.clone();
            reversed.reverse();
            let (a, b) = (estimate(&v).unwrap(), estimate(&reversed).unwrap());
            prop_assert_eq!((a.median, a.ci95, a.mad_sigma, a.iqr), (b.median, b.ci95, b.mad_sigma, b.iqr));
            let scaled: Vec<f64> = v.iter().map(|x| x * k).collect();
            let c = estimate(&scaled).unwrap();
            prop_assert!((c.median - a.median * k).abs() <= 1e-9 * c.median);
            prop_assert!(a.min <= a.ci95.unwrap()[0] && a.ci95.unwrap()[0] <= a.median);
            prop_assert!(a.median <= a.ci95.unwrap()[1] && a.ci95.unwrap()[1] <= a.max);
        }
    }
}
