//! In the order of the roofline model.

use super::{Ask, Seen, Strategy};

const BATCH: usize = 16;

/// Those with the least predicted time first; without a prediction last, the simpler first.
pub struct Roofline;

impl Strategy for Roofline {
    fn ask(&mut self, seen: &Seen<'_>) -> Ask {
        let mut order: Vec<usize> = seen.unknown().collect();
        let predicted = |i: usize| seen.candidates[i].predicted_ns.unwrap_or(f64::INFINITY);
        order.sort_by(|&a, &b| {
            let simpler = seen.candidates[a].simplicity.cmp(&seen.candidates[b].simplicity);
            predicted(a).total_cmp(&predicted(b)).then(simpler).then(a.cmp(&b))
        });
        let mut next = order.into_iter();
        let batch = next.by_ref().take(BATCH.min(seen.left)).collect();
        Ask { batch, look: None, soon: next.take(BATCH).collect() }
    }
}
