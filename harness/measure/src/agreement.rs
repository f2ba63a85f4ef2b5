//! How far the greedy answers of both sides go together, over all pairs: a description beside the gate of
//! [`quality`](crate::quality), which judges a few of them.

use harness_spec::record::{DropReason, Sample};

use crate::describe::median;
use crate::pairs::kept;

/// What the texts of the kept pairs have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Pairs in which a side said anything.
    pub pairs: usize,
    /// Of these, pairs with the same text to its end.
    pub same: usize,
    /// Median over pairs of the share of the longer text that both begin with, in characters.
    pub prefix: f64,
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "greedy answers of both sides: {} of {} pairs are the same text, the median pair begins with the same {:.0} %",
            self.same,
            self.pairs,
            self.prefix * 100.0
        )
    }
}

/// Of runs whose sampler is greedy on both sides, as that of every comparison is. It describes and judges nothing: where
/// two logits are level, as in a model of random weights, engines that are both right part early. `None` without a pair.
pub fn greedy_agreement(samples: &[Sample], reasons: &[Option<DropReason>]) -> Option<Agreement> {
    let pairs = kept(samples, reasons);
    let texts = pairs.iter().map(|p| (p.engine.text.as_str(), p.peer.text.as_str()));
    let shares: Vec<f64> = texts.filter(|(a, b)| !(a.is_empty() && b.is_empty())).map(|(a, b)| shared(a, b)).collect();
    Some(Agreement {
        pairs: shares.len(),
        same: shares.iter().filter(|share| **share == 1.0).count(),
        prefix: median(&shares)?,
    })
}

/// The share of the longer text that both begin with.
fn shared(a: &str, b: &str) -> f64 {
    let longer = a.chars().count().max(b.chars().count());
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    same as f64 / longer as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use harness_spec::record::SideRole::{Engine, Peer};

    #[test]
    fn pairs_agree_as_far_as_their_texts_begin_alike() {
        let texts = [("the sky", "the sky"), ("the sky is", "the sea"), ("ähnlich", "äh"), ("", "x"), ("", "")];
        let mut samples = Vec::new();
        for (pair, (ours, theirs)) in texts.into_iter().enumerate() {
            for (side, text) in [(Engine, ours), (Peer, theirs)] {
                let mut sample = run(side, pair as u64, 5000, &[1000; 49]);
                sample.text = text.to_owned();
                samples.push(sample);
            }
        }
        let found = greedy_agreement(&samples, &vec![None; samples.len()]).unwrap();
        // 1, 5 of 10, 2 of 7 and nothing; two empty texts say nothing.
        assert_eq!((found.pairs, found.same), (4, 1));
        assert!((found.prefix - (0.5 + 2.0 / 7.0) / 2.0).abs() < 1e-12);
        assert!(found.to_string().contains("1 of 4 pairs are the same text"), "{found}");
        // A pair that was dropped is none.
        let dropped = vec![Some(DropReason::Failed); samples.len()];
        assert_eq!(greedy_agreement(&samples, &dropped), None);
    }
}
