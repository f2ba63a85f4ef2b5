//! Successive halving: cheap looks at many, then longer ones at the better half, and a full measurement of the last.
//!
//! Source: Jamieson and Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization".

use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;

use super::{Ask, Known, Seen, Strategy};

/// Kept samples of a first look.
const LOOK: u32 = 3;
/// Candidates that get a full measurement in the end, at least.
const LAST: usize = 8;

/// Which rung is next.
pub struct Halving {
    rng: ChaCha8Rng,
    look: u32,
    alive: Option<Vec<usize>>,
}

impl Halving {
    /// With this seed.
    pub fn new(seed: u64) -> Halving {
        Halving { rng: ChaCha8Rng::seed_from_u64(seed), look: LOOK, alive: None }
    }
}

impl Strategy for Halving {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        let Some(alive) = &mut self.alive else {
            // Full measurements of the last come on top of the looks, and looks at one candidate count once.
            let mut start = seen.unknown().choose_multiple(&mut self.rng, seen.left);
            start.sort_unstable();
            self.alive = Some(start.clone());
            return Ask { batch: start, look: Some(LOOK), soon: Vec::new() };
        };
        let mut standing: Vec<(usize, f64)> = alive
            .iter()
            .filter_map(|&i| match seen.known[i] {
                Some(Known::Glimpse(ns)) => Some((i, ns)),
                Some(Known::Time(_) | Known::Invalid) | None => None,
            })
            .collect();
        standing.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let half = standing.len().div_ceil(2).max(LAST.min(standing.len()));
        let mut batch: Vec<usize> = standing.iter().take(half).map(|(i, _)| *i).collect();
        let last = batch.len() <= LAST;
        self.look *= 2;
        batch.sort_unstable();
        *alive = if last { Vec::new() } else { batch.clone() };
        Ask { batch, look: (!last).then_some(self.look), soon: Vec::new() }
    }
}
