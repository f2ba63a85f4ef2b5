//! Logits held against logits, at every step of some token sequences: a model on a device against its own weights decoded to
//! 32-bit floats, or prompts at once against the same tokens one by one.
//!
//! Here the whole distribution is known on both sides. Sequences are fed as they stand, whatever either side would choose.

use kernels::cpu::{KvType, Precision};
use kernels::cuda::CudaError;
use serde::Serialize;

use super::{ReferenceFile, log_sum_exp};
use crate::engine::Engine;
use crate::forward::{Scratch, Wanted, forward};
use crate::generate::{self, LoadOptions};
use crate::gguf::Gguf;
use crate::kv_cache::KvCache;
use crate::model::LoadError;
use crate::requantize::{Requantize, RequantizeError, requantize};
use crate::sampler::argmax;
use crate::synth::Scheme;

/// Tokens, and from which position on the logits behind them are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The first position that is compared.
    pub from: usize,
}

/// Why there are no logits of the decoded weights.
#[derive(Debug, thiserror::Error)]
pub enum DecodedError {
    /// The weights cannot be decoded.
    #[error(transparent)]
    Requantize(#[from] RequantizeError),
    /// The decoded model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// How far logits are from others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Steps compared.
    pub steps: usize,
    /// Share of steps at which both have the same most likely token, 0 to 1.
    pub top1_agreement: f64,
    /// Median of the difference of that token's log-probability, in nats; the token is that of the side that is right.
    pub median_logprob_diff: f64,
    /// 95th percentile of the same, by nearest rank.
    pub p95_logprob_diff: f64,
    /// Mean KL divergence over the whole vocabulary, in nats.
    pub mean_kl: f64,
    /// The largest gap between the first and the second choice of the right side among steps at which the tokens differ.
    pub largest_miss_gap: f64,
    /// The largest ‖got − want‖ / ‖want − mean of want‖ of a step.
    pub worst_relative_error: f64,
}

/// What a difference must stay within.
///
/// Agreement is counted in whole steps, of which a few are near ties: each type of weights draws others. It may be three standard
/// errors of a count of this many steps below its bound, as dozens of rows are judged at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// At least, but for three standard errors.
    pub top1_agreement: f64,
    /// At most.
    pub median_logprob_diff: f64,
    /// At most: over the whole vocabulary, and so much less a matter of chance than agreement.
    pub mean_kl: f64,
    /// Less than, where misses must be near ties.
    pub largest_miss_gap: Option<f64>,
}

impl Bounds {
    /// 32-bit activations, keys and values of at least 16 bits: the bounds of the processor's exact path.
    pub const EXACT: Bounds =
        Bounds { top1_agreement: 0.998, median_logprob_diff: 0.001, mean_kl: 1e-4, largest_miss_gap: Some(0.01) };
    /// Eight-bit activations, or eight-bit keys and values: the bounds of the processor's fast path.
    pub const FAST: Bounds =
        Bounds { top1_agreement: 0.97, median_logprob_diff: 0.08, mean_kl: 0.01, largest_miss_gap: None };

    /// Those of a precision and a type of keys and values.
    pub fn of(precision: Precision, kv: generate::KvType) -> Bounds {
        match (precision, kv) {
            (Precision::Exact, generate::KvType::F16 | generate::KvType::F32) => Bounds::EXACT,
            _ => Bounds::FAST,
        }
    }

    /// Whether a difference stays within them. A NaN anywhere does not.
    pub fn hold(&self, d: &Difference) -> bool {
        let error = (self.top1_agreement * (1.0 - self.top1_agreement) / d.steps as f64).sqrt();
        d.steps > 0
            && d.top1_agreement >= self.top1_agreement - 3.0 * error
            && d.median_logprob_diff <= self.median_logprob_diff
            && self.largest_miss_gap.is_none_or(|most| d.largest_miss_gap < most)
            && d.mean_kl <= self.mean_kl
            && d.worst_relative_error.is_finite()
    }
}

/// Steps compared so far.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    logprobs: Vec<f64>,
    misses: usize,
    kl: f64,
    gap: f64,
    worst: f64,
}

impl Differences {
    /// Adds a step: the logits that are right, and those that are held against them.
    ///
    /// # Panics
    /// Where one side has more tokens than the other.
    pub fn add(&mut self, want: &[f32], got: &[f32]) {
        assert_eq!(want.len(), got.len(), "logits of one vocabulary");
        let (want_sum, got_sum) = (log_sum_exp(want), log_sum_exp(got));
        let mean = want.iter().map(|&v| f64::from(v)).sum::<f64>() / want.len() as f64;
        let (mut kl, mut off, mut size) = (0.0, 0.0, 0.0);
        for (&w, &g) in want.iter().zip(got) {
            let (w, g) = (f64::from(w), f64::from(g));
            let p = w - want_sum;
            kl += p.exp() * (p - (g - got_sum));
            off += (g - w) * (g - w);
            size += (w - mean) * (w - mean);
        }
        let best = argmax(want);
        let logprob = |logits: &[f32], sum: f64| f64::from(logits[best as usize]) - sum;
        self.logprobs.push((logprob(got, got_sum) - logprob(want, want_sum)).abs());
        self.kl += kl;
        let error = (off / size).sqrt();
        // NaN is larger than all, and stays.
        if !(error <= self.worst || self.worst.is_nan()) {
            self.worst = error;
        }
        if argmax(got) != best {
            self.misses += 1;
            let others = want.iter().enumerate().filter(|(id, _)| *id != best as usize);
            let second = others.map(|(_, &v)| v).fold(f32::NEG_INFINITY, f32::max);
            self.gap = self.gap.max(f64::from(want[best as usize]) - f64::from(second));
        }
    }

    /// All steps together.
    pub fn summary(&self) -> Difference {
        let mut sorted = self.logprobs.clone();
        sorted.sort_by(f64::total_cmp);
        let steps = sorted.len();
        let rank = |p: f64| match steps {
            0 => f64::NAN,
            _ => sorted[((p * steps as f64).ceil() as usize).clamp(1, steps) - 1],
        };
        Difference {
            steps,
            top1_agreement: (steps - self.misses) as f64 / steps as f64,
            median_logprob_diff: rank(0.5),
            p95_logprob_diff: rank(0.95),
            mean_kl: self.kl / steps as f64,
            largest_miss_gap: self.gap,
            worst_relative_error: self.worst,
        }
    }
}

impl Sequence {
    /// The sequences of a reference file, about `steps` of them in all, the same share of each case. Tokens that a vocabulary
    /// lacks are taken around its end.
    pub fn of(reference: &ReferenceFile, steps: usize, vocab: usize) -> Vec<Sequence> {
        let share = steps.div_ceil(reference.cases.len().max(1)).max(1);
        let mut left = steps;
        let sequences = reference.cases.iter().filter(|case| !case.prompt_ids.is_empty()).map(|case| {
            // The logits behind the last token that is fed are those of the last step.
            let taken = case.steps.len().min(share).min(left);
            left -= taken;
            let continuation = case.steps.iter().take(taken.saturating_sub(1)).map(|step| step.id);
            let ids = case.prompt_ids.iter().copied().chain(continuation).map(|id| id % vocab as u32).collect();
            (taken, Sequence { ids, from: case.prompt_ids.len() - 1 })
        });
        sequences.filter(|(taken, _)| *taken > 0).map(|(_, sequence)| sequence).collect()
    }

    /// One sequence of `len` tokens of all of them, one behind the other.
    pub fn joined(sequences: &[Sequence], len: usize) -> Sequence {
        let ids = sequences.iter().flat_map(|s| &s.ids).copied().cycle().take(len).collect();
        Sequence { ids, from: len.saturating_sub(1) }
    }

    /// The lengths of prompts that are compared with their tokens one by one: every `apart` tokens, and all of it.
    pub fn cuts(&self, apart: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (apart..self.ids.len()).step_by(apart).collect();
        cuts.push(self.ids.len());
        cuts
    }
}

/// The logits of a file's weights decoded to 32-bit floats, by the exact path of the processor: for each sequence, rows of the
/// vocabulary from its first position on.
///
/// # Errors
/// [`DecodedError`].
pub fn of_decoded(gguf: &Gguf, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, DecodedError> {
    let decoded = requantize(gguf, Requantize { scheme: Scheme::F32, whole_blocks: false })?;
    let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0).max(2);
    let kv = Some(generate::KvType::F32);
    let options = LoadOptions { precision: Precision::Exact, kv, context: Some(longest), ..LoadOptions::default() };
    let engine = Engine::from_gguf(&decoded, &options)?;
    let (cpu, model) = engine.cpu().zip(engine.model()).expect("it was loaded on the processor");
    let mut scratch = Scratch::new(model);
    let rows = sequences.iter().map(|sequence| {
        let mut kv = KvCache::new(&model.config, KvType::F32, longest);
        let logits = forward(cpu, model, &mut kv, &sequence.ids, 0, &mut scratch, Wanted::All);
        logits[sequence.from * model.config.vocab..].to_vec()
    });
    Ok(rows.collect())
}

/// What an engine says at every step of some sequences, token by token, against the logits of [`of_decoded`]; and prompts fed
/// at once against their tokens one by one, `apart` tokens longer each time. Sequences without logits of the decoded weights
/// are prompts alone.
///
/// # Errors
/// What failed on the device.
pub fn compare(
    engine: &mut Engine,
    sequences: &[Sequence],
    decoded: &[Vec<f32>],
    apart: usize,
) -> Result<(Difference, Difference), CudaError> {
    let vocab = engine.config().vocab;
    let (mut steps, mut prompts) = (Differences::default(), Differences::default());
    for (i, sequence) in sequences.iter().enumerate() {
        let cuts = sequence.cuts(apart);
        let mut one_by_one = Vec::with_capacity(cuts.len());
        for (pos, &id) in sequence.ids.iter().enumerate() {
            let got = engine.feed(&[id], pos)?;
            if let (Some(want), Some(row)) = (decoded.get(i), pos.checked_sub(sequence.from)) {
                steps.add(&want[row * vocab..][..vocab], got);
            }
            if cuts.contains(&(pos + 1)) {
                one_by_one.push(got.to_vec());
            }
        }
        for (&cut, want) in cuts.iter().zip(&one_by_one) {
            prompts.add(want, engine.feed(&sequence.ids[..cut], 0)?);
        }
    }
    Ok((steps.summary(), prompts.summary()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{ReferenceCase, ReferenceStep};

    #[test]
    fn equal_logits_differ_in_nothing_and_a_shift_of_all_changes_no_probability() {
        let want = [1.0f32, 3.0, -2.0, 0.5];
        let mut same = Differences::default();
        same.add(&want, &want);
        let shifted = want.map(|v| v + 2.0);
        same.add(&want, &shifted);
        let d = same.summary();
        assert_eq!((d.steps, d.top1_agreement, d.largest_miss_gap), (2, 1.0, 0.0));
        assert!(d.p95_logprob_diff < 1e-12 && d.mean_kl.abs() < 1e-12, "{d:?}");
        assert!(d.worst_relative_error > 0.5);
    }

    #[test]
    fn a_miss_tells_how_far_the_second_choice_was_behind() {
        let mut differences = Differences::default();
        differences.add(&[1.0, 3.0, 2.75], &[1.0, 2.5, 2.75]);
        let d = differences.summary();
        assert_eq!((d.top1_agreement, d.largest_miss_gap), (0.0, 0.25));
        assert!(d.mean_kl > 0.0 && !Bounds::FAST.hold(&d));
    }

    #[test]
    fn bounds_refuse_nan_wherever_it_is_and_a_comparison_of_nothing() {
        let mut differences = Differences::default();
        assert!(!Bounds::FAST.hold(&differences.summary()), "of nothing");
        (0..100).for_each(|_| differences.add(&[0.0, 1.0], &[0.0, 1.0]));
        assert!(Bounds::EXACT.hold(&differences.summary()));
        differences.add(&[0.0, 1.0], &[f32::NAN, 1.0]);
        assert!(!Bounds::FAST.hold(&differences.summary()));
    }

    #[test]
    fn sequences_share_the_steps_and_end_before_the_last_token() {
        let step = |id| ReferenceStep { id, logprob: 0.0, top: vec![(id, 0.0), (0, -1.0)] };
        let case = |prompt: &[u32], steps: &[u32]| ReferenceCase {
            prompt_ids: prompt.to_vec(),
            steps: steps.iter().map(|&id| step(id)).collect(),
            text: None,
        };
        let reference = ReferenceFile { sha256: None, cases: vec![case(&[1, 2], &[3, 4, 15]), case(&[5], &[6, 7, 8])] };
        let all = Sequence::of(&reference, 6, 10);
        assert_eq!(all[0], Sequence { ids: vec![1, 2, 3, 4], from: 1 });
        assert_eq!(all[1], Sequence { ids: vec![5, 6, 7], from: 0 });
        assert_eq!(Sequence::of(&reference, 3, 10).iter().map(|s| s.ids.len() - s.from).sum::<usize>(), 3);
        assert_eq!(Sequence::joined(&all, 9).ids, [1, 2, 3, 4, 5, 6, 7, 1, 2]);
        assert_eq!(all[0].cuts(2), [2, 4]);
        assert_eq!(all[1].cuts(2), [2, 3]);
    }
}
