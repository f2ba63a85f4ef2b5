//! Everything, in order.

use super::{Ask, Seen, Strategy};

/// Candidates that are sampled round-robin together.
const BATCH: usize = 16;

/// Takes what is left, in the order of the space.
pub struct Exhaustive;

impl Strategy for Exhaustive {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        let mut next = seen.unknown();
        let batch = next.by_ref().take(BATCH.min(seen.left)).collect();
        Ask { batch, look: None, soon: next.take(BATCH).collect() }
    }
}
