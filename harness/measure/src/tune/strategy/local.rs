//! Greedy descent over neighbours, with restarts from random points (iterated local search).

use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lattice::Lattice;
use super::{Ask, Seen, Strategy};

/// Random points that a restart looks at before it descends from the best of them.
const RESTART: usize = 4;

/// Where a descent stands.
pub struct Local {
    rng: ChaCha8Rng,
    lattice: Option<Lattice>,
    /// The point whose neighbours were asked for; `None` at a restart.
    centre: Option<usize>,
    /// The points of the last question.
    asked: Vec<usize>,
}

impl Local {
    /// With this seed.
    pub fn new(seed: u64) -> Local {
        Local { rng: ChaCha8Rng::seed_from_u64(seed), lattice: None, centre: None, asked: Vec::new() }
    }
}

impl Strategy for Local {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        let lattice = self.lattice.get_or_insert_with(|| Lattice::of(seen.candidates));
        let time = |i: usize| seen.known[i].and_then(super::Known::time);
        // Descend from the best of the last question where it beats the centre; the start is whatever is known.
        let start: Vec<usize> = (0..seen.known.len()).filter(|&i| time(i).is_some()).collect();
        let pool = if self.asked.is_empty() && self.centre.is_none() { &start } else { &self.asked };
        let best = pool.iter().copied().filter_map(|i| Some((i, time(i)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let here = self.centre.and_then(|c| Some((c, time(c)?)));
        let next = match (best, here) {
            (Some((i, t)), Some((_, h))) => (t < h).then_some(i),
            (Some((i, _)), None) => Some(i),
            (None, _) => None,
        };
        if let Some(centre) = next {
            let mut around = lattice.neighbours(seen.candidates, centre);
            around.retain(|&i| seen.known[i].is_none());
            if !around.is_empty() {
                around.truncate(seen.left);
                self.centre = Some(centre);
                self.asked = around.clone();
                return Ask { batch: around, ..Ask::default() };
            }
        }
        // Nothing better around: half of the restarts stay in the kernel of the best, where the optimum probably is.
        let home = seen.best().filter(|_| self.rng.random_bool(0.5)).map(|(i, _)| seen.candidates[i].group);
        let within = |i: &usize| home.is_none_or(|g| seen.candidates[*i].group == g);
        let many = RESTART.min(seen.left);
        let mut fresh = seen.unknown().filter(within).choose_multiple(&mut self.rng, many);
        if fresh.is_empty() {
            fresh = seen.unknown().choose_multiple(&mut self.rng, many);
        }
        fresh.sort_unstable();
        self.centre = None;
        self.asked = fresh.clone();
        Ask { batch: fresh, ..Ask::default() }
    }
}
