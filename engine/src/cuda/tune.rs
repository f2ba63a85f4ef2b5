//! Which variants make a token fastest, measured in the engine itself: the policy `in_engine`.
//!
//! One workload of a token after the other, the one that takes most time first: variants drawn at random, then the
//! neighbours of the best for as long as one of them is better. What is timed is the whole token at a given depth, launched as
//! in use, so that what a variant costs or spares the kernels around it counts. A change is kept only where it is
//! faster again, in turns with what ran before.
//!
//! Attention is chosen by length, every other op once for all: a search at another depth tunes attention alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness_spec::{VariantId, Workload};
use kernels::cuda::CudaError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::CudaModel;

/// How a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Tokens of context before those that are timed.
    pub depth: usize,
    /// The op whose workloads are tuned; those of all where there is none.
    pub only: Option<&'static str>,
    /// Tokens of one timing.
    pub tokens: usize,
    /// Variants drawn for each workload.
    pub draws: usize,
    /// Rounds of neighbours for each workload.
    pub rounds: usize,
    /// The same seed draws the same variants.
    pub seed: u64,
    /// Time after which no further variant is tried.
    pub budget: Duration,
}

/// What was found for a workload.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The workload.
    pub workload: Workload,
    /// What ran before.
    pub before: VariantId,
    /// What runs now.
    pub after: VariantId,
    /// Variants that were timed.
    pub timed: usize,
    /// Variants that cannot run.
    pub failed: usize,
    /// Seconds of a token before and after, in turns; the same where nothing was faster.
    pub token: (f64, f64),
}

/// Proportion by which a token must be faster for a change to be kept.
const LEAST_GAIN: f64 = 0.002;

/// The tokens of the context.
fn context(search: &Search) -> Vec<u32> {
    (0..search.depth.max(1)).map(|i| (i * 7919 % 30_000) as u32).collect()
}

/// The least time of a token over some repetitions, seconds: interference only ever adds. The cache holds the context.
fn token_time(model: &mut CudaModel, search: &Search, repeats: usize) -> Result<f64, CudaError> {
    let ids = context(search);
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        model.feed(&ids[ids.len() - 1..], ids.len() - 1)?;
        model.next_greedy(true)?;
        let start = Instant::now();
        for i in 0..search.tokens {
            model.next_greedy(i + 1 < search.tokens)?;
        }
        best = best.min(start.elapsed().as_secs_f64() / search.tokens as f64);
    }
    Ok(best)
}

/// Variants that differ from one in a single tunable, by one step among those values that occur.
fn neighbours(of: &VariantId, all: &[VariantId]) -> Vec<VariantId> {
    let differing = |v: &VariantId| {
        let different: Vec<_> =
            of.tunables.iter().filter(|(name, value)| v.tunables.get(*name) != Some(value)).collect();
        match different[..] {
            [(name, value)] => Some((name.clone(), *value)),
            _ => None,
        }
    };
    let next_to = |v: &VariantId, name: &str, value: i64| {
        let values: BTreeSet<i64> = all.iter().filter_map(|v| v.tunables.get(name).copied()).collect();
        let theirs = v.tunables.get(name).copied().unwrap_or(value);
        let (low, high) = (value.min(theirs), value.max(theirs));
        values.range(low..=high).count() == 2
    };
    all.iter()
        .filter(|v| v.kernel == of.kernel && differing(v).is_some_and(|(name, value)| next_to(v, &name, value)))
        .cloned()
        .collect()
}

/// Variants drawn at random; one may come twice.
fn draw(draws: &mut ChaCha8Rng, all: &[VariantId], count: usize) -> Vec<VariantId> {
    (0..count).map(|_| all[draws.random_range(0..all.len())].clone()).collect()
}

/// Tunes the workloads of a token. `said` hears of each when it is done. The model runs the winners afterwards.
///
/// # Errors
/// The driver's error. A variant that cannot run is none.
pub fn tune(model: &mut CudaModel, search: &Search, said: &mut dyn FnMut(&Tuned)) -> Result<Vec<Tuned>, CudaError> {
    let started = Instant::now();
    let mut workloads: Vec<(Workload, VariantId, f64)> = Vec::new();
    let profile = model.profile(search.depth.max(1), 5)?;
    for step in profile.into_iter().filter(|step| search.only.is_none_or(|op| step.op == op)) {
        let workload = Workload { op: step.op, shape: step.key };
        match workloads.iter_mut().find(|(w, ..)| *w == workload) {
            Some((.., nanos)) => *nanos += step.nanos,
            None => workloads.push((workload, step.variant, step.nanos)),
        }
    }
    workloads.sort_by(|a, b| b.2.total_cmp(&a.2));
    // Once: what is tried writes behind the context, and the first token again.
    model.feed(&context(search), 0)?;
    let mut draws = ChaCha8Rng::seed_from_u64(search.seed);
    let mut results = Vec::new();
    for (workload, before, _) in workloads {
        let all = model.variants(&workload)?;
        if all.len() < 2 || started.elapsed() > search.budget {
            continue;
        }
        let result = tune_one(model, search, &mut draws, started, workload, before, &all)?;
        said(&result);
        results.push(result);
    }
    Ok(results)
}

fn tune_one(
    model: &mut CudaModel,
    search: &Search,
    draws: &mut ChaCha8Rng,
    started: Instant,
    workload: Workload,
    before: VariantId,
    all: &[VariantId],
) -> Result<Tuned, CudaError> {
    let mut best = (before.clone(), token_time(model, search, 2)?);
    let (mut timed, mut failed) = (0, 0);
    let mut seen = BTreeSet::from([before.clone()]);
    let mut batch = draw(draws, all, search.draws);
    batch.push(all[0].clone());
    for _ in 0..=search.rounds {
        batch.retain(|v| seen.insert(v.clone()));
        model.compile_ahead(&workload.op, &batch);
        let at_first = best.0.clone();
        for variant in &batch {
            if started.elapsed() > search.budget {
                break;
            }
            match model.try_variant(&workload, Some(variant)) {
                Ok(()) => {}
                Err(e) if e.is_fatal() => return Err(e),
                Err(_) => {
                    failed += 1;
                    continue;
                }
            }
            timed += 1;
            let time = token_time(model, search, 1)?;
            if time < best.1 {
                best = (variant.clone(), time);
            }
        }
        if best.0 == at_first && at_first != before || started.elapsed() > search.budget {
            break;
        }
        batch = neighbours(&best.0, all);
    }
    // In turns, so that a drift of the clock falls on both.
    let (mut old, mut new) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        model.try_variant(&workload, Some(&before))?;
        old = old.min(token_time(model, search, 2)?);
        model.try_variant(&workload, Some(&best.0))?;
        new = new.min(token_time(model, search, 2)?);
    }
    let after = if new < old * (1.0 - LEAST_GAIN) { best.0 } else { before.clone() };
    model.try_variant(&workload, Some(&after))?;
    let token = if after == before { (old, old) } else { (old, new) };
    Ok(Tuned { workload, before, after, timed, failed, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_in_one_tunable_by_one_step() {
        let variant = |a: i64, b: i64| -> VariantId { format!("op/k[A={a},B={b}]@cuda").parse().unwrap() };
        let all: Vec<VariantId> = [1, 2, 4].iter().flat_map(|&a| [0, 1].map(|b| variant(a, b))).collect();
        let near = neighbours(&variant(2, 0), &all);
        assert_eq!(near, [variant(1, 0), variant(2, 1), variant(4, 0)]);
        assert_eq!(neighbours(&variant(1, 1), &all), [variant(1, 0), variant(2, 1)]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let all: Vec<VariantId> = (0..100).map(|a| format!("op/k[A={a}]@cuda").parse().unwrap()).collect();
        let drawn = |seed| draw(&mut ChaCha8Rng::seed_from_u64(seed), &all, 8);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
