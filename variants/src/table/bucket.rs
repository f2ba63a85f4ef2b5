//! Buckets: what runs at shapes that were not measured (R24).
//!
//! A variant that is best, on the whole, at the shapes of a range is only trusted between them if it would have been a good
//! choice at each of them had that one been left out.

use std::collections::BTreeMap;

use harness_spec::{Shape, VariantId};
use serde::{Deserialize, Serialize};

/// The regret at the 95th percentile up to which a bucket decides.
pub const MOST_REGRET: f64 = 0.05;
/// Shapes below which leaving one out says nothing.
pub const LEAST_SHAPES: usize = 5;

/// Median times at one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeTimes {
    /// The shape.
    pub shape: Shape,
    /// Median time of one launch of each variant that was timed, ns.
    pub median_ns: BTreeMap<VariantId, f64>,
}

impl ShapeTimes {
    fn best(&self) -> Option<f64> {
        self.median_ns.values().copied().min_by(f64::total_cmp)
    }

    /// How much slower a variant is than the best; infinite where it was not timed.
    fn regret(&self, variant: &VariantId) -> f64 {
        match (self.median_ns.get(variant), self.best()) {
            (Some(time), Some(best)) => time / best - 1.0,
            _ => f64::INFINITY,
        }
    }
}

/// What a choice made without a shape would cost at that shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Regret {
    /// For each shape: time of the variant chosen from the others ÷ best time − 1. Infinite where there is none.
    pub each: Vec<(Shape, f64)>,
    /// The 95th percentile, by nearest rank.
    pub p95: f64,
}

/// A range of shapes with the variant that runs there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The op.
    pub op: String,
    /// The variant.
    pub variant: VariantId,
    /// The 95th percentile of the regret with each shape left out once.
    pub regret_p95: f64,
    /// Shapes that it was judged by.
    pub shapes: usize,
    /// Least and largest product of all dimensions.
    pub size: [u64; 2],
    /// Least and largest of each dimension; M is 1 in a shape without it.
    pub dims: BTreeMap<String, [u64; 2]>,
}

impl Bucket {
    /// Whether a shape lies between those that the bucket was judged by.
    pub fn covers(&self, shape: &Shape) -> bool {
        let dims = with_tokens(shape);
        let within = |[lo, hi]: [u64; 2], value: u64| (lo..=hi).contains(&value);
        dims.len() == self.dims.len()
            && dims.iter().all(|(name, &value)| self.dims.get(name).is_some_and(|&range| within(range, value)))
            && within(self.size, size(shape))
    }
}

/// The dimensions with M, which is 1 where a shape leaves it out.
fn with_tokens(shape: &Shape) -> BTreeMap<String, u64> {
    let mut dims = shape.0.clone();
    dims.entry("M".to_owned()).or_insert(1);
    dims
}

fn size(shape: &Shape) -> u64 {
    shape.0.values().fold(1, |product: u64, &d| product.saturating_mul(d))
}

/// The variant that is best over all shapes: of those timed at each of them the one with the least mean of log regret.
fn best_overall<'a>(times: &[&'a ShapeTimes]) -> Option<&'a VariantId> {
    let (first, _) = times.split_first()?;
    let score = |v: &VariantId| times.iter().map(|t| t.regret(v).ln_1p()).sum::<f64>();
    // The first of equals in the order of ids, so that the answer does not depend on that of the shapes.
    let scored = first.median_ns.keys().map(|v| (v, score(v))).filter(|(_, s)| s.is_finite());
    scored.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(v, _)| v)
}

/// The regret of choosing one variant for all of these shapes, each left out in turn. `None` for fewer than two shapes.
pub fn leave_one_out(times: &[ShapeTimes]) -> Option<Regret> {
    if times.len() < 2 {
        return None;
    }
    let each: Vec<(Shape, f64)> = (0..times.len())
        .map(|out| {
            let others: Vec<&ShapeTimes> =
                times.iter().enumerate().filter(|(i, _)| *i != out).map(|(_, t)| t).collect();
            let regret = best_overall(&others).map_or(f64::INFINITY, |v| times[out].regret(v));
            (times[out].shape.clone(), regret)
        })
        .collect();
    let mut sorted: Vec<f64> = each.iter().map(|(_, r)| *r).collect();
    sorted.sort_by(f64::total_cmp);
    // Nearest rank, in whole numbers.
    let rank = (sorted.len() * 95).div_ceil(100);
    Some(Regret { p95: sorted[rank - 1], each })
}

/// The buckets of an op that its measured shapes bear out. Shapes of as many tokens are one range; a range whose regret is
/// too large is cut in half by size, and one of fewer than [`LEAST_SHAPES`] shapes gives none.
pub fn buckets(op: &str, times: &[ShapeTimes]) -> Vec<Bucket> {
    let mut by_tokens: BTreeMap<u64, Vec<ShapeTimes>> = BTreeMap::new();
    for t in times {
        by_tokens.entry(t.shape.get("M").unwrap_or(1)).or_default().push(t.clone());
    }
    let mut out = Vec::new();
    for (_, mut group) in by_tokens {
        group.sort_by(|a, b| (size(&a.shape), &a.shape).cmp(&(size(&b.shape), &b.shape)));
        split(op, &group, &mut out);
    }
    out
}

fn split(op: &str, times: &[ShapeTimes], out: &mut Vec<Bucket>) {
    if times.len() < LEAST_SHAPES {
        return;
    }
    match (leave_one_out(times), best_overall(&times.iter().collect::<Vec<_>>())) {
        (Some(regret), Some(variant)) if regret.p95 <= MOST_REGRET => out.push(bucket(op, times, variant, regret.p95)),
        _ => {
            let (small, large) = times.split_at(times.len() / 2);
            split(op, small, out);
            split(op, large, out);
        }
    }
}

fn bucket(op: &str, times: &[ShapeTimes], variant: &VariantId, regret_p95: f64) -> Bucket {
    let mut dims: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    let mut sizes = [u64::MAX, 0];
    let widen = |range: &mut [u64; 2], value: u64| *range = [range[0].min(value), range[1].max(value)];
    for t in times {
        widen(&mut sizes, size(&t.shape));
        for (name, value) in with_tokens(&t.shape) {
            widen(dims.entry(name).or_insert([value, value]), value);
        }
    }
    Bucket { op: op.to_owned(), variant: variant.clone(), regret_p95, shapes: times.len(), size: sizes, dims }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> VariantId {
        format!("gemv_q4_0/{name}@cuda").parse().unwrap()
    }

    /// Times of `a` and `b` at N = K = 64 · n.
    fn times(n: u64, a: f64, b: f64) -> ShapeTimes {
        let shape = Shape::of([("N", 64 * n), ("K", 64 * n)]);
        ShapeTimes { shape, median_ns: BTreeMap::from([(id("a"), a), (id("b"), b)]) }
    }

    #[test]
    fn one_good_variant_everywhere_makes_one_bucket_with_its_regret() {
        let measured: Vec<_> = (1..=6).map(|n| times(n, 100.0 * n as f64, 130.0 * n as f64)).collect();
        let got = buckets("gemv_q4_0", &measured);
        assert_eq!(got.len(), 1);
        assert_eq!((&got[0].variant, got[0].regret_p95, got[0].shapes), (&id("a"), 0.0, 6));
        let shape = |n: u64, k: u64| Shape::of([("N", n), ("K", k)]);
        assert!(got[0].covers(&shape(96, 200)) && got[0].covers(&shape(384, 384)));
        assert!(!got[0].covers(&shape(32, 200)), "N is smaller than any that was measured");
        assert!(!got[0].covers(&shape(385, 64)), "N is larger than any that was measured");
        assert!(!got[0].covers(&Shape::of([("N", 96), ("K", 96), ("M", 2)])), "only one token was measured");
        assert!(!got[0].covers(&Shape::of([("BYTES", 96)])));
    }

    #[test]
    fn the_regret_of_a_shape_is_that_of_a_choice_made_without_it() {
        // Without the last shape `a` is chosen, which is twice as slow there; without any other `a` still wins.
        let mut measured: Vec<_> = (1..=5).map(|n| times(n, 100.0, 104.0)).collect();
        measured.push(times(6, 200.0, 100.0));
        let regret = leave_one_out(&measured).unwrap();
        assert_eq!(regret.each[5].1, 1.0);
        assert_eq!(regret.p95, 1.0, "nearest rank of six is the worst");
        assert!(buckets("gemv_q4_0", &measured).is_empty());
    }

    #[test]
    fn where_small_and_large_shapes_differ_each_half_has_its_bucket() {
        let mut measured: Vec<_> = (1..=6).map(|n| times(n, 100.0, 200.0)).collect();
        measured.extend((7..=12).map(|n| times(n, 200.0, 100.0)));
        let got = buckets("gemv_q4_0", &measured);
        assert_eq!(got.iter().map(|b| b.variant.clone()).collect::<Vec<_>>(), [id("a"), id("b")]);
        assert_eq!(got[0].dims["N"], [64, 384]);
    }

    #[test]
    fn shapes_of_different_tokens_share_no_bucket() {
        let mut measured: Vec<_> = (1..=6).map(|n| times(n, 100.0, 130.0)).collect();
        for t in &mut measured[3..] {
            t.shape.0.insert("M".to_owned(), 8);
        }
        assert!(buckets("gemv_q4_0", &measured).is_empty(), "three shapes of each are too few");
    }

    #[test]
    fn a_variant_that_is_not_valid_at_a_shape_is_not_chosen_from_it() {
        let mut measured: Vec<_> = (1..=6).map(|n| times(n, 100.0, 102.0)).collect();
        measured[2].median_ns.remove(&id("a"));
        let got = buckets("gemv_q4_0", &measured);
        // Leaving out the third, `a` is chosen and cannot run there: the regret is infinite.
        assert_eq!(leave_one_out(&measured).unwrap().p95, f64::INFINITY);
        assert!(got.is_empty());
        assert_eq!(leave_one_out(&measured[..1]), None);
    }
}
