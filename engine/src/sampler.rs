//! The next token from the logits: greedy, or drawn from a truncated distribution.
//!
//! In this order, which is Ollama's: repeat penalty, top-k, temperature and softmax over what is left, top-p, min-p,
//! one draw. Candidates are ordered by logit, and equal logits by id, so that every cut is exact: top-k keeps k tokens
//! and no more, top-p the smallest prefix that reaches p. NaN counts as −∞. Nothing is allocated for a token.

use std::cmp::Ordering;

use kernels::op::SampleParams;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::generate::SamplingParams;

/// Scratch for one vocabulary, and the state of the current request.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// The logits, where they are changed before the choice.
    logits: Vec<f32>,
    /// The candidates, best first.
    ids: Vec<u32>,
    /// Their unnormalised probabilities; that of the best is 1.
    weights: Vec<f64>,
    /// The round in which a token was last penalised: a token counts once however often it occurred.
    penalised: Vec<u32>,
    round: u32,
}

impl Sampler {
    /// A sampler for logits of this length.
    pub fn new(vocab: usize) -> Sampler {
        Sampler {
            params: SamplingParams::greedy(),
            rng: ChaCha8Rng::seed_from_u64(0),
            logits: Vec::with_capacity(vocab),
            ids: Vec::with_capacity(vocab),
            weights: Vec::with_capacity(vocab),
            penalised: vec![0; vocab],
            round: 0,
        }
    }

    /// Begins a request. The same parameters with the same seed draw the same tokens from the same logits.
    pub fn start(&mut self, params: &SamplingParams) {
        self.params.clone_from(params);
        self.rng = ChaCha8Rng::seed_from_u64(params.seed.unwrap_or_else(|| rand::rng().random()));
    }

    /// Whether every choice of this request is the largest logit as it is.
    pub fn is_argmax(&self) -> bool {
        // Of k = 1 and of a temperature of 0 the best token is all that is left.
        (self.params.temperature == 0.0 || self.params.top_k == 1) && self.params.repeat_penalty == 1.0
    }

    /// What a device that chooses by itself is told: the same choice, up to the rounding of sums of probabilities.
    pub fn on_device(&self) -> SampleParams {
        let SamplingParams { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, .. } = self.params;
        let word = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (top_k, recent) = (word(top_k), word(repeat_last_n));
        SampleParams { temperature, top_k, top_p, min_p, penalty: repeat_penalty, recent }
    }

    /// The uniform number of the next draw, in [0, 1). A token takes one, wherever it is chosen.
    pub fn uniform(&mut self) -> f64 {
        self.rng.random()
    }

    /// Chooses a token. `history` is the prompt and what was generated.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        if self.is_argmax() {
            return argmax(logits);
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalise(history);
        if self.params.temperature == 0.0 || self.params.top_k == 1 {
            return argmax(&self.logits);
        }
        self.truncate();
        self.draw()
    }

    fn penalise(&mut self, history: &[u32]) {
        let penalty = self.params.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        self.round = self.round.wrapping_add(1);
        let recent = &history[history.len().saturating_sub(self.params.repeat_last_n)..];
        for &id in recent {
            let seen = &mut self.penalised[id as usize];
            if *seen != self.round {
                *seen = self.round;
                let logit = &mut self.logits[id as usize];
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Leaves the candidates and their weights.
    fn truncate(&mut self) {
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = self.params;
        for logit in self.logits.iter_mut().filter(|logit| logit.is_nan()) {
            *logit = f32::NEG_INFINITY;
        }
        let logits = &self.logits[..];
        let best_first = |&a: &u32, &b: &u32| {
            let order = logits[b as usize].partial_cmp(&logits[a as usize]);
            order.unwrap_or(Ordering::Equal).then(a.cmp(&b))
        };
        let max = logits[argmax(logits) as usize];
        let weight = |id: u32| {
            let logit = logits[id as usize];
            // Where the maximum is infinite the difference would be NaN.
            if logit == max { 1.0 } else { (f64::from(logit - max) / f64::from(temperature)).exp() }
        };

        let mut sorted;
        if top_k > 0 && top_k < logits.len() {
            take_top_k(logits, top_k, &mut self.ids, best_first);
            sorted = self.ids.len();
        } else {
            self.ids.clear();
            self.ids.extend(0..logits.len() as u32);
            sorted = 0;
        }
        self.weights.clear();
        if top_p < 1.0 {
            let total: f64 = self.ids.iter().map(|&id| weight(id)).sum();
            let goal = f64::from(top_p) * total;
            let mut sum = 0.0;
            loop {
                for &id in &self.ids[self.weights.len()..sorted] {
                    let w = weight(id);
                    self.weights.push(w);
                    sum += w;
                    if sum >= goal {
                        break;
                    }
                }
                if !self.weights.is_empty() && (sum >= goal || self.weights.len() == self.ids.len()) {
                    break;
                }
                // Most prefixes are short, so that sorting the whole vocabulary would be for nothing.
                let more = (3 * sorted).max(256).min(self.ids.len() - sorted);
                let rest = &mut self.ids[sorted..];
                if more < rest.len() {
                    rest.select_nth_unstable_by(more - 1, best_first);
                }
                rest[..more].sort_unstable_by(best_first);
                sorted += more;
            }
            self.ids.truncate(self.weights.len());
        } else {
            self.weights.extend(self.ids.iter().map(|&id| weight(id)));
        }
        if min_p > 0.0 {
            let mut kept = 0;
            for i in 0..self.ids.len() {
                if self.weights[i] >= f64::from(min_p) {
                    self.ids[kept] = self.ids[i];
                    self.weights[kept] = self.weights[i];
                    kept += 1;
                }
            }
            self.ids.truncate(kept);
            self.weights.truncate(kept);
        }
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.weights.iter().sum();
        let mut left = self.uniform() * total;
        for (&id, &weight) in self.ids.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return id;
            }
        }
        // Rounding may leave a crumb behind the last candidate that has any weight.
        let last = self.weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
        self.ids[last]
    }
}

/// The `k` best ids, best first, in one pass: most logits lose against the worst of the best and are not looked at twice.
fn take_top_k(logits: &[f32], k: usize, ids: &mut Vec<u32>, best_first: impl Fn(&u32, &u32) -> Ordering) {
    ids.clear();
    let mut bar = f32::NEG_INFINITY;
    let room = (2 * k).min(logits.len());
    for (id, &logit) in (0u32..).zip(logits) {
        // A later id loses a tie, so once there are k candidates only a larger logit gets in.
        if logit > bar || ids.len() < k {
            ids.push(id);
            if ids.len() == room && room > k {
                ids.select_nth_unstable_by(k - 1, &best_first);
                ids.truncate(k);
                bar = logits[ids[k - 1] as usize];
            }
        }
    }
    if ids.len() > k {
        ids.select_nth_unstable_by(k - 1, &best_first);
        ids.truncate(k);
    }
    ids.sort_unstable_by(best_first);
}

/// The lowest id of the largest logit. NaN never wins; where nothing is above −∞ the answer is 0.
pub fn argmax(logits: &[f32]) -> u32 {
    // Sixteen running maxima, so that the compiler can use vectors; a comparison with NaN keeps the old value.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
    let found = if max == f32::NEG_INFINITY { None } else { logits.iter().position(|&x| x == max) };
    found.unwrap_or(0) as u32
}

#[cfg(test)]
mod tests;
