use proptest::prelude::*;

use super::*;

fn all() -> SamplingParams {
    SamplingParams { temperature: 1.0, seed: Some(7), ..SamplingParams::greedy() }
}

fn sampler(params: &SamplingParams, vocab: usize) -> Sampler {
    let mut sampler = Sampler::new(vocab);
    sampler.start(params);
    sampler
}

fn kept(params: &SamplingParams, logits: &[f32]) -> (Vec<u32>, Vec<f64>) {
    let mut sampler = sampler(params, logits.len());
    sampler.logits.extend_from_slice(logits);
    sampler.truncate();
    (sampler.ids, sampler.weights)
}

/// Probabilities after temperature, straight from the definition.
fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let e: Vec<f64> = logits.iter().map(|&x| (f64::from(x - max) / f64::from(temperature)).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|x| x / sum).collect()
}

/// Ids by logit, equal ones by id.
fn order(logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids
}

fn wavy(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 2654435761) % 1000) as f32 / 100.0 - 5.0).collect()
}

#[test]
fn b13_top_k_keeps_exactly_k_whatever_the_logits() {
    let equal = vec![0.5f32; 1000];
    let mut spread = wavy(1000);
    spread[3] = f32::NEG_INFINITY;
    spread[4] = f32::NAN;
    spread[5] = -3.0e38;
    spread[6] = 3.0e38;
    for logits in [equal, spread, wavy(1000)] {
        for k in [2, 3, 40, 500, 999, 1000, 2000] {
            let (ids, _) = kept(&SamplingParams { top_k: k, ..all() }, &logits);
            assert_eq!(ids.len(), k.min(1000), "k = {k}");
        }
    }
}

#[test]
fn b13_ties_at_the_edge_of_top_k_go_to_the_lower_id() {
    let logits = [1.0, 2.0, 1.0, 3.0, 1.0, 2.0];
    let (mut ids, _) = kept(&SamplingParams { top_k: 4, ..all() }, &logits);
    assert_eq!(ids, [3, 1, 5, 0]);
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 3, 5]);
}

#[test]
fn b13_top_p_takes_tokens_by_probability_and_not_by_id() {
    // The most likely token has the highest id: in order of ids the first five would reach 0.5.
    let logits: Vec<f32> = [0.1f32, 0.1, 0.1, 0.1, 0.1, 0.5].iter().map(|p| p.ln()).collect();
    let (ids, _) = kept(&SamplingParams { top_p: 0.49, ..all() }, &logits);
    assert_eq!(ids, [5]);
    let (ids, _) = kept(&SamplingParams { top_p: 0.55, ..all() }, &logits);
    assert_eq!(ids, [5, 0]);
}

#[test]
fn b14_a_certain_token_is_always_drawn() {
    // A softmax of probabilities would give every other token 1/e of the certain one's weight.
    let mut logits = vec![0.0f32; 5000];
    logits[4321] = 60.0;
    for params in [all(), SamplingParams { top_k: 40, top_p: 0.9, ..all() }, SamplingParams { top_p: 0.95, ..all() }] {
        let mut s = sampler(&params, 5000);
        assert!((0..2000).all(|_| s.sample(&logits, &[]) == 4321));
    }
}

#[test]
fn b14_the_penalty_window_reaches_as_far_as_it_says() {
    let history: Vec<u32> = (0..200).collect();
    let mut s = sampler(&SamplingParams { repeat_penalty: 2.0, repeat_last_n: 150, ..all() }, 300);
    let mut logits = vec![1.0f32; 300];
    logits[100] = -1.0;
    s.logits = logits;
    s.penalise(&history);
    let logits = &s.logits;
    assert_eq!(logits[49], 1.0);
    assert_eq!(logits[50], 0.5);
    assert_eq!(logits[100], -2.0, "a negative logit is multiplied, so that it falls too");
    assert_eq!(logits[199], 0.5);
    assert_eq!(logits[200], 1.0);
}

#[test]
fn a_token_that_occurred_often_is_penalised_once() {
    let mut s = sampler(&SamplingParams { repeat_penalty: 2.0, ..all() }, 10);
    for _ in 0..2 {
        s.logits = vec![8.0f32; 10];
        s.penalise(&[3, 3, 3, 3]);
        assert_eq!(s.logits[3], 4.0);
    }
}

#[test]
fn greedy_takes_the_lowest_id_of_the_largest_logit_and_never_nan() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN]), 1);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 40]), 0);
    let mut long = wavy(100);
    long[98] = 50.0;
    assert_eq!(argmax(&long), 98);
    long[17] = 50.0;
    assert_eq!(argmax(&long), 17);
    let mut s = sampler(&SamplingParams::greedy(), 4);
    assert_eq!(s.sample(&[f32::NAN, -5.0, -4.0, f32::NEG_INFINITY], &[]), 2);
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let params = SamplingParams { temperature: 1.5, seed: Some(42), ..SamplingParams::default() };
    let draw = || -> Vec<u32> {
        let mut s = sampler(&params, 1000);
        (0..100).map(|_| s.sample(&wavy(1000), &[1, 2, 3])).collect()
    };
    let first = draw();
    assert_eq!(first, draw());
    assert!(first.iter().any(|&id| id != first[0]));
}

#[test]
fn logits_that_are_all_minus_infinity_or_infinite_still_give_a_token() {
    for logits in [vec![f32::NEG_INFINITY; 50], vec![f32::NAN; 50], vec![f32::INFINITY; 50]] {
        let mut s = sampler(&SamplingParams { top_p: 0.9, min_p: 0.1, ..all() }, 50);
        assert!(s.sample(&logits, &[]) < 50);
    }
    let mut one = vec![0.0f32; 50];
    one[9] = f32::INFINITY;
    assert_eq!(sampler(&all(), 50).sample(&one, &[]), 9);
}

/// Draws often and compares with the exact distribution. The bound is the 99.9 % quantile of χ², by the approximation
/// of Wilson and Hilferty (1931); the seed is fixed, so a pass stays a pass.
fn chi_square(params: &SamplingParams, logits: &[f32], want: &[f64]) {
    const DRAWS: usize = 200_000;
    let mut s = sampler(params, logits.len());
    let mut counts = vec![0usize; logits.len()];
    for _ in 0..DRAWS {
        counts[s.sample(logits, &[]) as usize] += 1;
    }
    let mut statistic = 0.0;
    let mut cells = 0;
    for (&count, &p) in counts.iter().zip(want) {
        let expected = p * DRAWS as f64;
        if expected == 0.0 {
            assert_eq!(count, 0, "a token that was cut off was drawn");
            continue;
        }
        assert!(expected >= 5.0, "the approximation needs five expected draws in each cell");
        statistic += (count as f64 - expected).powi(2) / expected;
        cells += 1;
    }
    let dof = f64::from(cells - 1);
    let bound = dof * (1.0 - 2.0 / (9.0 * dof) + 3.09 * (2.0 / (9.0 * dof)).sqrt()).powi(3);
    assert!(statistic <= bound, "χ² = {statistic:.1} with {dof} degrees of freedom, bound {bound:.1}");
}

/// The distribution that the parameters define, computed without any of the sampler's shortcuts.
fn exact(params: &SamplingParams, logits: &[f32]) -> Vec<f64> {
    let mut ids = order(logits);
    if params.top_k > 0 {
        ids.truncate(params.top_k);
    }
    let p = softmax(logits, params.temperature);
    let total: f64 = ids.iter().map(|&id| p[id as usize]).sum();
    let mut sum = 0.0;
    let needed = ids.iter().position(|&id| {
        sum += p[id as usize] / total;
        sum >= f64::from(params.top_p)
    });
    if params.top_p < 1.0 {
        ids.truncate(needed.map_or(ids.len(), |n| n + 1));
    }
    let best = p[ids[0] as usize];
    ids.retain(|&id| p[id as usize] >= f64::from(params.min_p) * best);
    let total: f64 = ids.iter().map(|&id| p[id as usize]).sum();
    let mut want = vec![0.0; logits.len()];
    for id in ids {
        want[id as usize] = p[id as usize] / total;
    }
    want
}

#[test]
fn draws_follow_the_exact_distribution_under_every_truncation() {
    let logits: Vec<f32> = (0..24).map(|i| ((i * 7) % 24) as f32 * 0.2).collect();
    for params in [
        all(),
        SamplingParams { temperature: 0.7, ..all() },
        SamplingParams { temperature: 2.0, ..all() },
        SamplingParams { top_k: 5, ..all() },
        SamplingParams { top_p: 0.6, ..all() },
        SamplingParams { top_k: 12, top_p: 0.8, temperature: 1.3, ..all() },
        SamplingParams { min_p: 0.3, ..all() },
        SamplingParams { top_k: 20, top_p: 0.9, min_p: 0.2, temperature: 0.9, ..all() },
    ] {
        chi_square(&params, &logits, &exact(&params, &logits));
    }
}

/// What a device is checked against is what this sampler does: the same cuts, the same order of a draw.
#[test]
fn the_sampler_keeps_the_contract_of_a_device_that_draws() {
    use harness_spec::Shape;
    use kernels::check::compare;
    use kernels::op::{Depth, Recipe, SAMPLE_DRAWS, Tensor, op};
    use variants::Activations;

    let (sample, shape) = (op("sample").unwrap(), Shape::of([("N", 1200), ("LEN", 40)]));
    for seed in 0..4 {
        let cases = sample.cases(&shape, seed, Depth::Quick).into_iter();
        for case in cases.chain(sample.adversarial(&shape, seed, Depth::Quick)) {
            let Recipe::Sample(asked) = case.recipe else { panic!("{:?}", case.recipe) };
            let p = asked.params;
            let params = SamplingParams {
                temperature: p.temperature,
                top_k: p.top_k as usize,
                top_p: p.top_p,
                min_p: p.min_p,
                repeat_penalty: p.penalty,
                repeat_last_n: p.recent as usize,
                seed: Some(seed + 100),
            };
            let mut problem = sample.problem(&shape, &case);
            let [Tensor::F32(logits), _, Tensor::I32(history), Tensor::I32(pos)] = &problem.inputs[..] else {
                panic!("{} has other inputs", case.name)
            };
            let (logits, pos) = (logits.clone(), pos[0] as usize);
            let history: Vec<u32> = history[..=pos].iter().map(|&id| id as u32).collect();
            let mut draws = vec![0.0; SAMPLE_DRAWS];
            draws[pos] = sampler(&params, 1200).uniform();
            problem.inputs[1] = Tensor::Bytes(draws.iter().flat_map(|v: &f64| v.to_le_bytes()).collect());
            let expected = sample.expected(&problem, Activations::F32).unwrap();

            let mut chooser = sampler(&params, 1200);
            assert_eq!(chooser.on_device().words(), p.words(), "{}", case.name);
            let id = chooser.sample(&logits, &history);
            let mut log = vec![u32::MAX; 40];
            if let Some(word) = log.get_mut(pos + 1) {
                *word = id;
            }
            let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
            let outputs = [bytes(&[id, pos as u32 + 1, pos as u32 + 2, 0]), bytes(&log)];
            compare(&expected, &outputs).unwrap_or_else(|e| panic!("{}, seed {seed}: {e}", case.name));
        }
    }
}

proptest! {
    #[test]
    fn the_kept_tokens_are_the_smallest_sorted_prefix(
        logits in prop::collection::vec(-6.0f32..6.0, 2..700),
        top_k in 0usize..60,
        top_p in 0.01f32..1.0,
    ) {
        let params = SamplingParams { top_k, top_p, ..all() };
        prop_assume!(top_k != 1);
        let (ids, weights) = kept(&params, &logits);
        let sorted = order(&logits);
        prop_assert_eq!(&ids[..], &sorted[..ids.len()]);
        let of = if top_k == 0 { logits.len() } else { top_k.min(logits.len()) };
        let p = softmax(&logits, 1.0);
        let total: f64 = sorted[..of].iter().map(|&id| p[id as usize]).sum();
        let sum = |n: usize| sorted[..n].iter().map(|&id| p[id as usize]).sum::<f64>() / total;
        // The two computations round differently, so the edge may fall on either side of equality.
        prop_assert!(sum(ids.len()) >= f64::from(top_p) - 1e-9);
        prop_assert!(sum(ids.len() - 1) < f64::from(top_p) + 1e-9);
        prop_assert_eq!(ids.len(), weights.len());
    }
}
