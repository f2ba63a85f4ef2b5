//! A random sample without repetition: what every other strategy has to beat.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Ask, Seen, Strategy};

const BATCH: usize = 16;

/// Draws an order once and follows it.
pub struct Random {
    rng: ChaCha8Rng,
    order: Option<Vec<usize>>,
}

impl Random {
    /// With this seed.
    pub fn new(seed: u64) -> Random {
        Random { rng: ChaCha8Rng::seed_from_u64(seed), order: None }
    }
}

impl Strategy for Random {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        let rng = &mut self.rng;
        let order = self.order.get_or_insert_with(|| {
            let mut order: Vec<usize> = (0..seen.candidates.len()).collect();
            order.shuffle(rng);
            order
        });
        let mut next = order.iter().copied().filter(|&i| seen.known[i].is_none());
        let batch = next.by_ref().take(BATCH.min(seen.left)).collect();
        Ask { batch, look: None, soon: next.take(BATCH).collect() }
    }
}
