//! The default: a spread over all kernels, then the surrogate's choice, the neighbours of the best, and each kernel that
//! is still in reach in its turn.
//!
//! Kernels differ by factors and tunables by tens of percent, so the first third of the evaluations is spread: some points
//! of every kernel, far from each other. What they say is then used in three ways, a third of each question for each:
//!
//! - The surrogate (see [`Surrogate`]) picks the points with the largest expected improvement over the best of all.
//! - The neighbours of every contender's best point are taken whatever it says, since a surface with cliffs fools any
//!   smooth model.
//! - Contenders in turn get the point with the largest expected improvement over their own best. Without this the search
//!   stays in the kernel that has many good points, and misses a kernel that has one excellent point among poor ones.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lattice::Lattice;
use super::outlook::Outlook;
use super::surrogate::Surrogate;
use super::{Ask, Known, Seen, Strategy};
use crate::tune::plan::Candidate;

/// Candidates of a question after the spread: few, so that each question knows the answers to the last.
const BATCH: usize = 6;
/// Of these, neighbours of the best points of the contenders.
const NEIGHBOURS: usize = 2;
/// Of these, what would improve one contender most over its own best, contenders in turn.
const IN_TURN: usize = 2;
/// A kernel contends while its own best is within this factor of the best of all: tunables that a few points did not meet
/// are worth tens of percent, and seldom more. The figure is not sharp: from 1.25 to 2.5 the recorded optimum is found on
/// 90 to 97 % of the seeds.
const REACH: f64 = 1.4;
/// Points of a contender whose neighbours are looked at.
const RANKS: usize = 5;
/// Share of the evaluations that the spread takes.
const SPREAD: f64 = 0.3;
/// Points of a kernel in the spread, at least, where the limit allows.
const LEAST_A_KERNEL: usize = 3;

/// Where the search stands.
pub struct Guided {
    rng: ChaCha8Rng,
    model: Option<(Lattice, Surrogate)>,
    /// Place among the contenders of the one whose turn is next.
    turn: usize,
}

impl Guided {
    /// With this seed.
    pub fn new(seed: u64) -> Guided {
        Guided { rng: ChaCha8Rng::seed_from_u64(seed), model: None, turn: 0 }
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

    /// The kernels that may yet hold the optimum, each with the time of its best point, the fastest first.
    fn contenders(seen: &Seen<'_>) -> Vec<(usize, f64)> {
        let mut fastest: BTreeMap<usize, f64> = BTreeMap::new();
        for (candidate, known) in seen.candidates.iter().zip(seen.known) {
            let Some(time) = known.and_then(Known::time) else { continue };
            let best = fastest.entry(candidate.group).or_insert(time);
            *best = best.min(time);
        }
        let open: BTreeSet<usize> = seen.unknown().map(|i| seen.candidates[i].group).collect();
        let within = seen.best().map_or(0.0, |(_, best)| best * REACH);
        let mut out: Vec<(usize, f64)> =
            fastest.into_iter().filter(|(group, time)| *time <= within && open.contains(group)).collect();
        out.sort_by(|a, b| a.1.total_cmp(&b.1));
        out
    }

    /// Unknown neighbours of each contender's best point, the fastest contender's first, then of their second best points,
    /// and so on. So no kernel's descent waits until the points around another kernel's many good ones are used up.
    fn descents(lattice: &Lattice, seen: &Seen<'_>, contenders: &[(usize, f64)]) -> Vec<Vec<usize>> {
        let ranked = contenders.iter().map(|(group, _)| {
            let times = seen.known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?.time()?)));
            let mut points: Vec<(usize, f64)> = times.filter(|(i, _)| seen.candidates[*i].group == *group).collect();
            points.sort_by(|a, b| a.1.total_cmp(&b.1));
            points
        });
        let ranked: Vec<Vec<(usize, f64)>> = ranked.collect();
        let mut taken = BTreeSet::new();
        let mut out = Vec::new();
        for rank in 0..RANKS {
            for &(point, _) in ranked.iter().filter_map(|points| points.get(rank)) {
                let mut around = lattice.neighbours(seen.candidates, point);
                around.retain(|&n| seen.known[n].is_none() && taken.insert(n));
                out.push(around);
            }
        }
        out.retain(|around| !around.is_empty());
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
        let outlook = Outlook::of(surrogate, seen);
        let many = BATCH.min(seen.left);
        let best = seen.best().map_or(f64::INFINITY, |(_, time)| time);
        let contenders = Guided::contenders(seen);
        let mut batch = Vec::new();
        // The model ranks the neighbours too, so the likeliest of them are taken.
        for around in Guided::descents(lattice, seen, &contenders) {
            let room = NEIGHBOURS.min(many) - batch.len();
            if room == 0 {
                break;
            }
            batch.extend(outlook.choose(&around, room, best));
        }
        for &(group, goal) in contenders.iter().cycle().skip(self.turn).take(IN_TURN.min(many - batch.len())) {
            let own = |i: &usize| seen.candidates[*i].group == group && !batch.contains(i);
            let own: Vec<usize> = pool.iter().copied().filter(own).collect();
            batch.extend(outlook.choose(&own, 1, goal));
        }
        self.turn = (self.turn + IN_TURN) % contenders.len().max(1);
        let others: Vec<usize> = pool.into_iter().filter(|i| !batch.contains(i)).collect();
        let wanted = outlook.choose(&others, many - batch.len() + BATCH, best);
        let (now, soon) = wanted.split_at((many - batch.len()).min(wanted.len()));
        batch.extend_from_slice(now);
        Ask { batch, look: None, soon: soon.to_vec() }
    }
}
