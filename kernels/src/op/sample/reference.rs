//! Which tokens are right, in f64.

use std::cmp::Ordering;

use super::SampleParams;

/// How far a sum of probabilities may be off, of all: weights are 32-bit floats of some roundings each.
const ROUNDINGS: f64 = 1e-6;
/// Ids from the best down, equal ones by id.
pub(super) fn ranked(logits: &[f32]) -> Vec<u32> {
    let of = |id: u32| if logits[id as usize].is_nan() { f32::NEG_INFINITY } else { logits[id as usize] };
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_unstable_by(|&a, &b| of(b).partial_cmp(&of(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b)));
    ids
}

/// Every token that is right: one, or the few between which the rounding of sums decides.
pub(super) fn acceptable(mut logits: Vec<f32>, p: &SampleParams, recent: &[i32], uniform: f64) -> Vec<u32> {
    let mut seen = recent.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for &id in seen.iter().filter(|_| p.penalty != 1.0) {
        let l = &mut logits[id as usize];
        *l = if *l > 0.0 { *l / p.penalty } else { *l * p.penalty };
    }
    logits.iter_mut().filter(|l| l.is_nan()).for_each(|l| *l = f32::NEG_INFINITY);
    let n = logits.len();
    let mut ids = ranked(&logits);
    let top_k = if p.temperature == 0.0 { 1 } else { p.top_k as usize };
    if top_k == 1 {
        return vec![ids[0]];
    }
    let max = logits[ids[0] as usize];
    let weight = |id: u32| {
        let l = logits[id as usize];
        if l == max { 1.0 } else { (f64::from(l - max) / f64::from(p.temperature)).exp() }
    };
    let by_id = (top_k == 0 || top_k >= n) && p.top_p >= 1.0;
    if top_k > 0 {
        ids.truncate(top_k);
    }
    let sums = |ids: &[u32], least: f64| -> Vec<f64> {
        let sum = |sum: &mut f64, &id: &u32| {
            let w = weight(id);
            *sum += if w >= least { w } else { 0.0 };
            Some(*sum)
        };
        ids.iter().scan(0.0, sum).collect()
    };
    // The shortest and the longest prefix that rounding may leave.
    let mut lengths = vec![ids.len()];
    if p.top_p < 1.0 {
        let sums = sums(&ids, 0.0);
        let total = sums[sums.len() - 1];
        let length = |off: f64| {
            let goal = (f64::from(p.top_p) + off) * total;
            sums.iter().position(|&sum| sum >= goal).map_or(ids.len(), |i| i + 1)
        };
        lengths = vec![length(-ROUNDINGS), length(ROUNDINGS)];
    }
    let min_p = f64::from(p.min_p);
    let mut right = Vec::new();
    // Places of what is right in the order of logits.
    let (mut best, mut worst) = (ids.len(), 0);
    for (&length, min_p) in
        lengths.iter().flat_map(|l| [(l, min_p * (1.0 - ROUNDINGS)), (l, min_p * (1.0 + ROUNDINGS))])
    {
        let mut kept = ids[..length].to_vec();
        if by_id {
            kept.sort_unstable();
        }
        let sums = sums(&kept, min_p.min(1.0));
        let total = sums[sums.len() - 1];
        let first = sums.partition_point(|&sum| sum <= (uniform - ROUNDINGS) * total);
        let last = sums.partition_point(|&sum| sum <= (uniform + ROUNDINGS) * total).min(kept.len() - 1);
        let before = |i: usize| if i == 0 { 0.0 } else { sums[i - 1] };
        (best, worst) = (best.min(first.min(last)), worst.max(last));
        right.extend((first.min(last)..=last).filter(|&i| sums[i] > before(i)).map(|i| kept[i]));
        // Beyond the last token that has any weight there is none.
        let end = sums.partition_point(|&sum| sum < total);
        if last > end {
            right.push(kept[end]);
        }
    }
    if !by_id && best <= worst {
        // Prefixes of a length between those draw what lies between.
        right.extend(ids[best..=worst].iter().filter(|id| weight(**id) > 0.0));
    }
    right.sort_unstable();
    right.dedup();
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::sample::ALMOST_ONE;

    fn of(logits: &[f32], p: SampleParams, uniform: f64) -> Vec<u32> {
        acceptable(logits.to_vec(), &p, &[], uniform)
    }

    #[test]
    fn the_reference_draws_by_probability_where_it_cuts_and_by_index_where_it_does_not() {
        // Probabilities of 0.1, 0.3, 0.6.
        let logits: Vec<f32> = [0.1f32, 0.3, 0.6].map(f32::ln).to_vec();
        let all = SampleParams::ALL;
        assert_eq!([0.05, 0.2, 0.5].map(|u| of(&logits, all, u)), [vec![0], vec![1], vec![2]]);
        let cut = SampleParams { top_p: 0.95, ..all };
        assert_eq!([0.05, 0.65, 0.95].map(|u| of(&logits, cut, u)), [vec![2], vec![1], vec![0]]);
        let two = SampleParams { top_k: 2, ..all };
        assert_eq!([0.6, 0.7, ALMOST_ONE].map(|u| of(&logits, two, u)), [vec![2], vec![1], vec![1]]);
        assert_eq!(of(&logits, SampleParams { min_p: 0.4, ..all }, 0.0), [1]);
        assert_eq!(of(&logits, SampleParams { temperature: 0.0, ..all }, 0.9), [2]);
        assert_eq!(acceptable(logits.clone(), &SampleParams { penalty: 9.0, ..two }, &[2, 2], 0.0), [1]);
    }

    #[test]
    fn a_draw_at_the_edge_of_two_tokens_may_be_either_and_none_else() {
        assert_eq!(of(&[0.0; 4], SampleParams::ALL, 0.5), [1, 2]);
        assert_eq!(of(&[0.0; 4], SampleParams::ALL, 0.4), [1]);
        // Rounding may cut a token more or less, and so move the draw.
        assert_eq!(of(&[0.0; 4], SampleParams { top_p: 0.5, ..SampleParams::ALL }, 0.6), [1]);
        // Where the shortest and the longest prefix are far from each other, the ends of those between are right as well.
        let mut tail = vec![-15.5; 40];
        tail[0] = 0.0;
        let cut = SampleParams { top_p: 1.0 - 4e-6, ..SampleParams::ALL };
        let ends = of(&tail, cut, ALMOST_ONE);
        assert!(ends.len() >= 10 && ends.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ends:?}");
    }
}
