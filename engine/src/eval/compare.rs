//! Logits held against logits, at every step of some token sequences: a model on a device against its own weights decoded to
//! 32-bit floats, and prompts at once against the same tokens one by one.
//!
//! Sequences are fed as they stand, whatever either side would choose. No two prompts that are compared are the same tokens: a
//! near tie behind a beginning that many sequences share, such as that of a chat template, would count once for each of
//! them.

use kernels::cpu::{KvType, Precision};
use kernels::cuda::CudaError;
use serde::Serialize;

use super::ReferenceFile;
use super::logits::{Difference, Differences};
use crate::cuda::single_tokens;
use crate::engine::Engine;
use crate::forward::{Scratch, Wanted, forward};
use crate::generate::LoadOptions;
use crate::gguf::Gguf;
use crate::kv_cache::KvCache;
use crate::model::LoadError;
use crate::requantize::{Requantize, RequantizeError, requantize};
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

/// What [`compare`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Tokens one by one, against the decoded weights.
    pub tokens_against_decoded: Difference,
    /// Prompts at once, against the same tokens one by one.
    pub prompts_against_tokens: Difference,
    /// Prompts at once, against the decoded weights: of the two, which side is off. Fewer than the above, as there are
    /// logits of the decoded weights for the continuations alone.
    pub prompts_against_decoded: Difference,
}

impl Sequence {
    /// The sequences of a reference file, `steps` of them in all where it has so many, the same share of each case as far as
    /// cases go. Tokens that a vocabulary lacks are taken around its end.
    pub fn of(reference: &ReferenceFile, steps: usize, vocab: usize) -> Vec<Sequence> {
        let cases = || reference.cases.iter().filter(|case| !case.prompt_ids.is_empty());
        let longest = cases().map(|case| case.steps.len()).max().unwrap_or(0);
        let taken = |share: usize| cases().map(|case| case.steps.len().min(share)).sum::<usize>();
        let share = (0..longest).find(|&share| taken(share) >= steps).unwrap_or(longest);
        let mut left = steps;
        let sequences = cases().map(|case| {
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

    /// The lengths of prompts of `all[i]` that are compared: every `apart` tokens, and all of it, but none at which an
    /// earlier sequence has the same tokens.
    pub fn cuts(all: &[Sequence], i: usize, apart: usize) -> Vec<usize> {
        let ids = &all[i].ids;
        let common = |other: &Sequence| ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count();
        let shared = all[..i].iter().map(common).max().unwrap_or(0);
        let mut cuts: Vec<usize> = (apart..ids.len()).step_by(apart).collect();
        cuts.push(ids.len());
        cuts.retain(|&cut| cut > shared);
        cuts
    }
}

/// The logits of a file's weights decoded to 32-bit floats, by the exact path of the processor: for each sequence, rows of the
/// vocabulary from its first position on. Keys and values are rounded as `kv` says, f16 or f32: what that costs is no fault of
/// weights. `threads` are those of [`LoadOptions`].
///
/// # Errors
/// [`DecodedError`].
pub fn of_decoded(
    gguf: &Gguf,
    sequences: &[Sequence],
    kv: KvType,
    threads: Option<usize>,
) -> Result<Vec<Vec<f32>>, DecodedError> {
    let decoded = requantize(gguf, Requantize { scheme: Scheme::F32, whole_blocks: false })?;
    let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0).max(2);
    let context = Some(longest);
    let options = LoadOptions { precision: Precision::Exact, context, threads, ..LoadOptions::default() };
    let engine = Engine::from_gguf(&decoded, &options)?;
    let (cpu, model) = engine.cpu().zip(engine.model()).expect("it was loaded on the processor");
    let mut scratch = Scratch::new(model);
    let rows = sequences.iter().map(|sequence| {
        let mut cache = KvCache::new(&model.config, kv, longest);
        let logits = forward(cpu, model, &mut cache, &sequence.ids, 0, &mut scratch, Wanted::All);
        logits[sequence.from * model.config.vocab..].to_vec()
    });
    Ok(rows.collect())
}

/// What an engine says at every step of some sequences, token by token, against the logits of [`of_decoded`]; and prompts fed
/// at once against both, `apart` tokens longer each time. Sequences without logits of the decoded weights are prompts alone.
///
/// `apart` is `None` for an engine that takes prompts token by token: one of them is enough to show that it does.
///
/// # Errors
/// What failed on the device.
pub fn compare(
    engine: &mut Engine,
    sequences: &[Sequence],
    decoded: &[Vec<f32>],
    apart: Option<usize>,
) -> Result<Comparison, CudaError> {
    let vocab = engine.config().vocab;
    let on_cuda = engine.cuda().is_some();
    // A prompt so short that it goes through the graph of a token would be compared with itself.
    let at_once = |cut: &usize| !on_cuda || single_tokens(*cut as u64) < *cut as u64;
    let [mut tokens, mut prompts, mut right] = std::array::from_fn(|_| Differences::default());
    for (i, sequence) in sequences.iter().enumerate() {
        let ids = &sequence.ids;
        let cuts = match apart {
            Some(apart) => Sequence::cuts(sequences, i, apart).into_iter().filter(at_once).collect(),
            None if i == 0 => vec![ids.len()],
            None => Vec::new(),
        };
        let want_at = |pos: usize| {
            let (rows, row) = decoded.get(i).zip(pos.checked_sub(sequence.from))?;
            Some(&rows[row * vocab..][..vocab])
        };
        if cuts.is_empty() && decoded.get(i).is_none() {
            continue;
        }
        let mut one_by_one = Vec::with_capacity(cuts.len());
        for (pos, &id) in ids.iter().enumerate() {
            let got = engine.feed(&[id], pos)?;
            if let Some(want) = want_at(pos) {
                tokens.add(i, pos + 1, want, got);
            }
            if cuts.contains(&(pos + 1)) {
                one_by_one.push(got.to_vec());
            }
        }
        for (&cut, alone) in cuts.iter().zip(&one_by_one) {
            let got = engine.feed(&ids[..cut], 0)?;
            prompts.add(i, cut, alone, got);
            if let Some(want) = want_at(cut - 1) {
                right.add(i, cut, want, got);
            }
        }
    }
    Ok(Comparison {
        tokens_against_decoded: tokens.summary(),
        prompts_against_tokens: prompts.summary(),
        prompts_against_decoded: right.summary(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{ReferenceCase, ReferenceStep};

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
        let uneven = ReferenceFile { cases: vec![case(&[1], &[2]), case(&[5], &[6, 7, 8])], sha256: None };
        assert_eq!(Sequence::of(&uneven, 4, 10).iter().map(|s| s.ids.len() - s.from).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(Sequence::joined(&all, 9).ids, [1, 2, 3, 4, 5, 6, 7, 1, 2]);
    }

    #[test]
    fn prompts_grow_by_some_tokens_and_none_is_compared_twice() {
        let of = |ids: &[u32]| Sequence { ids: ids.to_vec(), from: 0 };
        let all = [of(&[1, 2, 3, 4]), of(&[5, 6, 7]), of(&[1, 2, 3, 9, 9, 9]), of(&[5, 6, 7])];
        let cuts = |i: usize| Sequence::cuts(&all, i, 2);
        assert_eq!((cuts(0), cuts(1), cuts(2)), (vec![2, 4], vec![2, 3], vec![4, 6]));
        assert!(cuts(3).is_empty());
    }
}
