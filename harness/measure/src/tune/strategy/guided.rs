//! The default: a spread over all kernels, then the surrogate's choice together with the neighbours of the best.
//!
//! Kernels differ by factors and tunables by tens of percent, so the first third of the evaluations is spread: some points
//! of every kernel, far from each other. What they say is then used in two ways. The surrogate (see [`Surrogate`]) picks
//! the points with the largest expected improvement; and the neighbours of the best points are taken whatever it says,
//! since a surface with cliffs fools any smooth model.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lattice::Lattice;
use super::surrogate::Surrogate;
use super::{Ask, Seen, Strategy};
use crate::tune::plan::Candidate;

/// Candidates of a question after the spread: few, so that each question knows the answers to the last.
const BATCH: usize = 6;
/// Of these, neighbours of the best.
const NEIGHBOURS: usize = 3;
/// Share of the evaluations that the spread takes.
const SPREAD: f64 = 0.3;
/// Points of a kernel in the spread, at least, where the limit allows.
const LEAST_A_KERNEL: usize = 3;

/// Where the search stands.
pub struct Guided {
    rng: ChaCha8Rng,
    model: Option<(Lattice, Surrogate)>,
}

impl Guided {
    /// With this seed.
    pub fn new(seed: u64) -> Guided {
        Guided { rng: ChaCha8Rng::seed_from_u64(seed), model: None }
    }

    /// The first question: points of every kernel, the farthest from each other, kernels with more points getting more.
    fn spread(&mut self, seen: &Seen<'_>) -> Vec<usize> {
        let groups = seen.candidates.iter().map(|c| c.group + 1).max().unwrap_or(0);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups];
        for (i, c) in seen.candidates.iter().enumerate() {
            members[c.group].push(i);
        }
        let half = (seen.left / 2).max(1);
        let total = ((seen.left as f64 * SPREAD) as usize).max(LEAST_A_KERNEL * groups).min(half);
        // In turns, so that a limit below a point a kernel leaves out kernels by chance and not by their place.
        let mut turns: Vec<usize> = (0..groups).filter(|&g| !members[g].is_empty()).collect();
        turns.shuffle(&mut self.rng);
        let mut taken: Vec<Vec<usize>> =
            members.iter().map(|m| m.iter().copied().filter(|&i| seen.known[i].is_some()).collect()).collect();
        let mut chosen = Vec::new();
        // Least points first, then in proportion to the square root of the size.
        let share = |g: usize, have: usize| (have as f64 + 1.0) / (members[g].len() as f64).sqrt();
        while chosen.len() < total {
            let open = turns.iter().copied().filter(|&g| taken[g].len() < members[g].len());
            let next = open.min_by(|&a, &b| {
                let short = |g: usize| taken[g].len() >= LEAST_A_KERNEL;
                let by_share = share(a, taken[a].len()).total_cmp(&share(b, taken[b].len()));
                short(a).cmp(&short(b)).then(by_share)
            });
            let Some(group) = next else { break };
            let point = self.farthest(seen.candidates, &members[group], &taken[group]);
            taken[group].push(point);
            chosen.push(point);
        }
        chosen
    }

    /// The member farthest from those taken; chance decides among equals, and alone where nothing is taken.
    fn farthest(&mut self, candidates: &[Candidate], members: &[usize], taken: &[usize]) -> usize {
        let distance = |a: usize, b: usize| -> f64 {
            let pairs = candidates[a].coordinates.iter().zip(&candidates[b].coordinates);
            pairs.map(|(&x, &y)| (x as f64 - y as f64).powi(2)).sum()
        };
        let free = members.iter().copied().filter(|i| !taken.contains(i));
        let scored = free.map(|i| {
            let near = taken.iter().map(|&t| distance(i, t)).fold(f64::INFINITY, f64::min);
            // Up to one step of noise keeps corners from being all that is looked at.
            let jitter: f64 = self.rng.random_range(0.0..1.0);
            (i, if near.is_finite() { near.sqrt() + jitter } else { jitter })
        });
        scored.max_by(|a, b| a.1.total_cmp(&b.1)).expect("the caller asks only where a member is free").0
    }

    /// Neighbours of the best points that nothing is known of, those of the very best first.
    fn around_the_best(lattice: &Lattice, seen: &Seen<'_>, many: usize) -> Vec<usize> {
        let mut ranked: Vec<(usize, f64)> =
            seen.known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?.time()?))).collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let mut out: Vec<usize> = Vec::new();
        for (i, _) in ranked.into_iter().take(5) {
            for n in lattice.neighbours(seen.candidates, i) {
                if seen.known[n].is_none() && !out.contains(&n) {
                    out.push(n);
                }
            }
        }
        out.truncate(many);
        out
    }
}

impl Strategy for Guided {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        if seen.left == 0 {
            return Ask::default();
        }
        let pool: Vec<usize> = seen.unknown().collect();
        if pool.len() <= seen.left {
            // The limit covers the space: there is nothing to choose.
            let rest = pool.len().min(16);
            return Ask {
                soon: pool[rest..].iter().copied().take(16).collect(),
                batch: pool[..rest].to_vec(),
                look: None,
            };
        }
        let Some((lattice, surrogate)) = &mut self.model else {
            self.model = Some((Lattice::of(seen.candidates), Surrogate::new(seen.candidates)));
            return Ask { batch: self.spread(seen), ..Ask::default() };
        };
        surrogate.fit(seen);
        let many = BATCH.min(seen.left);
        // The model ranks the neighbours too, so the likeliest of them are taken.
        let around = Guided::around_the_best(lattice, seen, 24);
        let mut batch = surrogate.choose(seen, &around, NEIGHBOURS.min(many));
        let others: Vec<usize> = pool.into_iter().filter(|i| !batch.contains(i)).collect();
        let wanted = surrogate.choose(seen, &others, many - batch.len() + BATCH);
        let (now, soon) = wanted.split_at((many - batch.len()).min(wanted.len()));
        batch.extend_from_slice(now);
        Ask { batch, look: None, soon: soon.to_vec() }
    }
}
