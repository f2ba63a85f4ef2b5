//! Holds a fast way of computing a model, and what was said with it, against an exact one.
//!
//! Servers send text and no tokens. An answer is read as tokens by the reference itself: of all tokens that the rest
//! of the text can begin with, the longest that is level with its choice, else the most likely one. So texts that
//! begin alike are read alike, and what was said is not taken for something less likely.

use anyhow::{Context, anyhow};
use engine::Engine;
use engine::eval::logits::Differences;
use harness_spec::record::{AnswerAgreement, AnswerQuality, TextQuality};

use super::{Asked, Judgement, Questions};

/// One way of computing a model. A scripted one stands in for the engine in tests.
pub trait Way {
    /// The tokens of a raw prompt.
    fn prompt_ids(&self, text: &str) -> Vec<u32>;
    /// The text of a token; empty for one that is never shown, such as an end token.
    fn piece(&self, id: u32) -> &[u8];
    /// Positions that there are.
    fn room(&self) -> usize;
    /// The logits behind tokens at positions from `pos0` on, `[vocab]`. What was fed to later positions before is
    /// forgotten.
    ///
    /// # Errors
    /// The device failed.
    fn feed(&mut self, ids: &[u32], pos0: usize) -> anyhow::Result<&[f32]>;
}

impl Way for Engine {
    fn prompt_ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer().encode_prompt(text)
    }

    fn piece(&self, id: u32) -> &[u8] {
        self.tokenizer().piece(id)
    }

    fn room(&self) -> usize {
        self.context()
    }

    fn feed(&mut self, ids: &[u32], pos0: usize) -> anyhow::Result<&[f32]> {
        Ok(Engine::feed(self, ids, pos0)?)
    }
}

/// Answers the questions. The exact way is gone before the fast one is loaded: both need the memory of the model.
///
/// # Errors
/// A way cannot be loaded or fails, or its logits are no numbers.
pub fn judge<W: Way>(
    questions: &Questions,
    reference: &str,
    exact: impl FnOnce() -> anyhow::Result<W>,
    fast: impl FnOnce() -> anyhow::Result<W>,
) -> anyhow::Result<Judgement> {
    let mut exact = exact().with_context(|| format!("loading the {reference}"))?;
    let mut ids = exact.prompt_ids(&questions.text);
    ids.truncate(questions.text_tokens.min(exact.room()));
    if ids.len() < 2 {
        return Err(anyhow!("the fixed text has no two tokens"));
    }
    let right = along(&mut exact, &ids)?;
    let (mut answers, mut agreements) = (Vec::new(), Vec::new());
    for asked in &questions.asked {
        let read = read_all(&mut exact, asked, questions)?;
        answers.extend(read.iter().zip(&asked.answers).map(|(read, (side, _))| AnswerQuality {
            pair: asked.pair,
            prompt: asked.prompt.clone(),
            side: *side,
            tokens: read.ids.len() as u64,
            others: read.under.iter().filter(|u| **u > 0.0).count() as u64,
            beyond: read.under.iter().filter(|u| **u > questions.level).count() as u64,
            farthest: read.under.iter().copied().fold(0.0, f64::max),
        }));
        if let [ours, theirs] = read.as_slice() {
            agreements.push(agreement(asked, ours, theirs));
        }
    }
    drop(exact);
    let mut fast = fast().context("loading the path that was timed")?;
    let text = compare(&right, &along(&mut fast, &ids)?, &ids)?;
    Ok(Judgement { reference: reference.to_owned(), text, answers, agreements })
}

/// The logits behind each token of a text but the last, fed one by one as in decoding.
fn along(way: &mut impl Way, ids: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
    let (_, fed) = ids.split_last().expect("a text has tokens");
    fed.iter().enumerate().map(|(pos, &id)| Ok(way.feed(&[id], pos)?.to_vec())).collect()
}

/// `right[i]` and `got[i]` are logits behind `ids[i]`, which is followed by `ids[i + 1]`.
fn compare(right: &[Vec<f32>], got: &[Vec<f32>], ids: &[u32]) -> anyhow::Result<TextQuality> {
    let mut differences = Differences::default();
    let (mut of_right, mut of_got) = (0.0, 0.0);
    for (i, (right, got)) in right.iter().zip(got).enumerate() {
        differences.add(0, i + 1, right, got);
        of_right += surprise(right, ids[i + 1]);
        of_got += surprise(got, ids[i + 1]);
    }
    let (found, tokens) = (differences.summary(), right.len());
    let text = TextQuality {
        tokens: tokens as u64,
        perplexity: (of_got / tokens as f64).exp(),
        reference_perplexity: (of_right / tokens as f64).exp(),
        mean_kl: found.mean_kl,
        top1_agreement: found.top1_agreement,
    };
    let figures = [text.perplexity, text.reference_perplexity, text.mean_kl, found.worst_relative_error];
    if figures.iter().all(|f| f.is_finite()) {
        Ok(text)
    } else {
        Err(anyhow!("logits on the fixed text are no numbers"))
    }
}

/// −ln of a token's probability, nats. Infinite for an id beyond the vocabulary.
fn surprise(logits: &[f32], id: u32) -> f64 {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - greatest).exp()).sum();
    logits.get(id as usize).map_or(f64::INFINITY, |&own| greatest + sum.ln() - f64::from(own))
}

/// An answer as tokens, each with how far it lies under the reference's choice.
struct Read {
    ids: Vec<u32>,
    under: Vec<f64>,
}

fn read_all(way: &mut impl Way, asked: &Asked, questions: &Questions) -> anyhow::Result<Vec<Read>> {
    let prompt = way.prompt_ids(&asked.rendered);
    if prompt.is_empty() || prompt.len() > way.room() {
        return Err(anyhow!("a prompt of {} tokens does not fit the context of {}", prompt.len(), way.room()));
    }
    // Both answers go on from the same prompt, which takes longest.
    let first = way.feed(&prompt, 0)?.to_vec();
    let most = questions.answer_tokens.min(way.room() - prompt.len());
    asked.answers.iter().map(|(_, text)| read(way, &first, prompt.len(), text, most, questions.level)).collect()
}

/// Reads at most `most` tokens of a text that goes on behind `pos0` positions, where the logits are `first`. It ends
/// where the text is not what the model said, byte for byte: at a replacement character, or where a token that is
/// never shown is the choice or level with it, as an end token that the side went on past.
fn read(way: &mut impl Way, first: &[f32], pos0: usize, text: &str, most: usize, level: f64) -> anyhow::Result<Read> {
    let mut rest = text.split('\u{fffd}').next().unwrap_or_default().as_bytes();
    let mut logits = first.to_vec();
    let mut read = Read { ids: Vec::new(), under: Vec::new() };
    while !rest.is_empty() && read.ids.len() < most {
        let under = share_under(&logits)?;
        let (mut unseen, mut best) = (f32::NEG_INFINITY, None::<(u32, usize, f64)>);
        for (id, &logit) in (0u32..).zip(&logits) {
            let piece = way.piece(id);
            if piece.is_empty() {
                unseen = unseen.max(logit);
            // The last token may have more bytes than were sent: half a character is held back.
            } else if rest.starts_with(piece) || piece.starts_with(rest) {
                let share = under(logit);
                // Where ` the` and ` then` are level, ` then` was said and not ` the` with an unlikely `n` behind it.
                let length = if share <= level { piece.len().min(rest.len()) } else { 0 };
                if best.is_none_or(|(_, l, s)| (length, -share) > (l, -s)) {
                    best = Some((id, length, share));
                }
            }
        }
        let Some((id, _, share)) = best.filter(|_| under(unseen) > level) else { break };
        read.ids.push(id);
        read.under.push(share);
        rest = rest.get(way.piece(id).len()..).unwrap_or_default();
        logits = way.feed(&[id], pos0 + read.ids.len() - 1)?.to_vec();
    }
    Ok(read)
}

/// How far a logit lies under the greatest, as a share of the greatest's distance from the mean.
fn share_under(logits: &[f32]) -> anyhow::Result<impl Fn(f32) -> f64 + use<>> {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let distance = greatest - logits.iter().map(|&l| f64::from(l)).sum::<f64>() / logits.len() as f64;
    // Of logits that are all equal, too, there is no choice.
    if !(distance.is_finite() && distance > 0.0) {
        return Err(anyhow!("logits behind an answer are no numbers, or all the same"));
    }
    Ok(move |logit: f32| (greatest - f64::from(logit)) / distance)
}

fn agreement(asked: &Asked, ours: &Read, theirs: &Read) -> AnswerAgreement {
    let same = ours.ids.iter().zip(&theirs.ids).take_while(|(a, b)| a == b).count();
    // Both tokens follow the same ones, so that both shares are of the same logits.
    let apart = ours.under.get(same).zip(theirs.under.get(same)).map(|(a, b)| (a - b).abs());
    let tokens = ours.ids.len().max(theirs.ids.len());
    AnswerAgreement { pair: asked.pair, prompt: asked.prompt.clone(), same: same as u64, tokens: tokens as u64, apart }
}

#[cfg(test)]
mod tests {
    use harness_spec::record::SideRole::{Engine as Ours, Peer};

    use super::*;

    const PIECES: [&str; 7] = ["", " a", " b", " ab", "é", " c", "\n"];

    /// Says " a", " b", " c" and ends; " ab" is level with " a" at the start. `noise` is added to the logit of " c".
    struct Script {
        prompt: usize,
        noise: f32,
    }

    impl Way for Script {
        fn prompt_ids(&self, text: &str) -> Vec<u32> {
            vec![6; text.split(' ').count()]
        }

        fn piece(&self, id: u32) -> &[u8] {
            PIECES[id as usize].as_bytes()
        }

        fn room(&self) -> usize {
            32
        }

        fn feed(&mut self, ids: &[u32], pos0: usize) -> anyhow::Result<&[f32]> {
            if pos0 == 0 {
                self.prompt = ids.len();
            }
            let mut logits = vec![0.0f32; PIECES.len()];
            match pos0 + ids.len() - self.prompt {
                0 => (logits[1], logits[3]) = (10.0, 9.95),
                1 => logits[2] = 10.0,
                2 => logits[5] = 10.0,
                _ => logits[0] = 10.0,
            }
            logits[5] += self.noise;
            Ok(logits.leak())
        }
    }

    fn judged(answers: [&str; 2], noise: f32) -> anyhow::Result<Judgement> {
        let asked = Asked {
            pair: 3,
            prompt: "p".into(),
            rendered: "x y z".into(),
            answers: [Ours, Peer].into_iter().zip(answers.map(str::to_owned)).collect(),
        };
        let questions = Questions {
            text: "one two three four".into(),
            text_tokens: 9,
            answer_tokens: 9,
            level: 0.02,
            asked: vec![asked],
        };
        let way = |noise| move || Ok(Script { prompt: 0, noise });
        judge(&questions, "exact path", way(0.0), way(noise))
    }

    #[test]
    fn a_right_answer_is_the_choice_at_every_token_and_what_follows_an_end_is_not_judged() {
        let found = judged([" a b c", " a b c whatever comes then"], 0.0).unwrap();
        for answer in &found.answers {
            assert_eq!((answer.tokens, answer.others, answer.beyond, answer.farthest), (3, 0, 0, 0.0));
        }
        let agreement = &found.agreements[0];
        assert_eq!((agreement.same, agreement.tokens, agreement.apart), (3, 3, None));
        assert_eq!((found.text.tokens, found.text.mean_kl, found.text.top1_agreement), (3, 0.0, 1.0));
        assert_eq!(found.text.perplexity, found.text.reference_perplexity);
    }

    #[test]
    fn tokens_that_are_level_are_told_from_junk() {
        // " ab" is nearer to the choice than 2 % of its distance from the mean; " c" is not.
        let found = judged([" ab b c", " c b c"], 0.0).unwrap();
        let [level, junk] = found.answers.as_slice() else { panic!("{found:?}") };
        assert_eq!((level.others, level.beyond), (1, 0));
        assert!(level.farthest > 0.0 && level.farthest < 0.02, "{level:?}");
        assert_eq!((junk.tokens, junk.beyond), (3, 1));
        assert!(junk.farthest > 1.0);
        assert!(found.agreements[0].same == 0 && found.agreements[0].apart.unwrap() > 1.0);
    }

    #[test]
    fn a_character_that_was_cut_ends_the_reading_and_half_a_token_at_the_end_is_its_whole() {
        let found = judged([" a\u{fffd} b", " a "], 0.0).unwrap();
        assert_eq!((found.answers[0].tokens, found.answers[0].beyond), (1, 0));
        assert_eq!((found.answers[1].tokens, found.answers[1].beyond), (2, 0));
    }

    #[test]
    fn a_fast_path_that_is_off_shows_on_the_text_and_one_without_numbers_is_an_error() {
        let found = judged([" a", " a"], 4.0).unwrap();
        assert!(found.text.mean_kl > 0.001 && found.text.perplexity != found.text.reference_perplexity, "{found:?}");
        let error = judged([" a", " a"], f32::NAN).unwrap_err();
        assert!(error.to_string().contains("no numbers"), "{error}");
    }
}
