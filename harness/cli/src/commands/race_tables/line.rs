//! What the process of the engine says, a line of JSON each.

use std::collections::BTreeSet;

use engine::launched::{Launch, Launched};
use harness_spec::Nanos;
use serde::{Deserialize, Serialize};

use super::turns::FIRST;

/// Logits nearer to each other than this share of the distance between the greatest and the mean are level: another order
/// of the same sums decides between them, and neither answer is wrong.
const LEVEL: f64 = 0.02;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// That of before.
    Old,
    /// The one to be tried.
    New,
}

/// What is said in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// Both engines are loaded, and have answered once at each length.
    Loaded {
        /// Hash of what the old table decides.
        old: String,
        /// Of what the new one decides.
        new: String,
        /// Lengths of prompts that there is room for, and what differs there.
        lengths: Vec<Length>,
        /// Everything that the model launches at these lengths with the new table.
        launched: BTreeSet<Launch>,
    },
    /// A request is over.
    Request(Request),
    /// Where the answers of a pair first differ.
    Difference(Difference),
    /// It cannot go on.
    Failed {
        /// Why, with the fix.
        why: String,
    },
}

/// A length of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Tokens of each prompt.
    pub prompt: u64,
    /// Pairs of requests, those of all loadings together.
    pub pairs: u64,
    /// Whether both tables launch the very same kernels for the prompt.
    pub same_prefill: bool,
    /// Whether they do so for a token behind it.
    pub same_decode: bool,
}

impl Length {
    /// What both tables make of a length.
    pub fn of(prompt: u64, pairs: u64, old: &Launched, new: &Launched) -> Length {
        Length { prompt, pairs, same_prefill: old.prompt == new.prompt, same_decode: old.token == new.token }
    }

    /// Pairs of one loading.
    pub fn pairs_of_loading(&self) -> u64 {
        self.pairs.div_ceil(FIRST.len() as u64)
    }

    /// Whether nothing can differ here.
    pub fn is_same(&self) -> bool {
        self.same_prefill && self.same_decode
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// By which table.
    pub side: Side,
    /// Number of the loading.
    pub loading: u8,
    /// Number of the pair, of which no two of a length are the same; `null` of a request that only warms.
    pub pair: Option<u64>,
    /// Number of its pair of blocks.
    pub block: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// When each token was there, since the request was made.
    pub token_ns: Vec<Nanos>,
}

/// Where two greedy answers to one prompt part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Number of the pair.
    pub pair: u64,
    /// The first token that differs.
    pub token: u64,
    /// The old table's.
    pub old: u32,
    /// The new table's.
    pub new: u32,
    /// How far the logit of the new table's token lies under the greatest, as a share of the greatest's distance from the
    /// mean, by the old table's kernels on the very same tokens.
    pub under: f64,
}

impl Difference {
    /// Whether both tokens are as likely as can be told.
    pub fn is_level(&self) -> bool {
        self.under <= LEVEL
    }
}

/// How far a logit lies under the greatest, as a share of the greatest's distance from the mean. Infinite where that is no
/// number.
pub fn under(logits: &[f32], id: usize) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mean = logits.iter().map(|&l| f64::from(l)).sum::<f64>() / logits.len() as f64;
    let own = logits.get(id).copied().unwrap_or(f32::NAN);
    let share = f64::from(greatest - own) / (f64::from(greatest) - mean);
    if share.is_finite() { share } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_between_tokens_that_are_level_is_told_from_one_that_is_wrong() {
        let logits = [1.0, 9.0, 8.95, 2.0];
        let of = |id| Difference {
            prompt_tokens: 9,
            pair: 0,
            token: 0,
            old: 1,
            new: id,
            under: under(&logits, id as usize),
        };
        assert!(of(2).is_level(), "{:?}", of(2));
        assert!(!of(3).is_level() && of(3).under > 0.5, "{:?}", of(3));
        assert!(!of(7).is_level(), "an id beyond the vocabulary");
        assert_eq!(under(&[f32::NAN, 1.0], 0), f64::INFINITY);
    }

    #[test]
    fn lines_are_read_back_as_they_were() {
        let token_ns = vec![Nanos(5), Nanos(7)];
        let request = Request { side: Side::New, loading: 1, pair: None, block: 3, prompt_tokens: 9, token_ns };
        let lengths = vec![Length { prompt: 9, pairs: 40, same_prefill: true, same_decode: false }];
        let launched = [("gemv_q4_0 N=64 K=64".parse().unwrap(), "fast@cuda".to_owned())].into();
        let loaded = Line::Loaded { old: "a".into(), new: "b".into(), lengths, launched };
        for line in [Line::Request(request), loaded, Line::Failed { why: "a\nb".into() }] {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
