//! Answers under way, moved on a turn at a time, so that several of them can share a model.
//!
//! A turn is one batch of the prompt or one token. The first token is chosen in the turn of the last batch, and a token that
//! was chosen is fed in the turn that chooses the one behind it: logits may be the only ones that there are, and whoever has
//! the next turn writes over them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use kernels::cuda::CudaError;

use crate::backend::Backend;
use crate::generate::{Event, Finish, FinishReason, GenerateRequest};
use crate::sampler::Sampler;
use crate::stop::StopMatcher;
use crate::tokenizer::{TextStream, Tokenizer};

/// A place for one answer after the other. What it needs for a token is allocated once, or when an answer begins.
#[derive(Debug)]
pub(crate) struct Slot {
    sampler: Sampler,
    /// Prompt and generated tokens of the present answer.
    history: Vec<u32>,
    answer: Option<Answer>,
}

/// Where an answer stands.
#[derive(Debug)]
struct Answer {
    text: TextStream,
    stops: StopMatcher,
    ignore_eos: bool,
    started: Instant,
    prompt_tokens: usize,
    /// Tokens of the prompt that are in the cache.
    filled: usize,
    /// How long the prompt took, and when its last token was there.
    prefilled: Option<(Duration, Instant)>,
    /// The most tokens that may be generated.
    most: usize,
    generated: usize,
    /// Whether the last token of the history has still to be fed.
    is_unfed: bool,
}

impl Slot {
    /// For a vocabulary and so many positions.
    pub fn new(vocab: usize, context: usize) -> Slot {
        Slot { sampler: Sampler::new(vocab), history: Vec::with_capacity(context), answer: None }
    }

    /// Begins an answer of at most `most` tokens. One that was under way here is forgotten.
    pub fn begin(&mut self, request: &GenerateRequest, most: usize, tokenizer: &Tokenizer) {
        self.sampler.start(&request.sampling);
        self.history.clear();
        self.history.extend_from_slice(&request.prompt);
        let text = TextStream::new(tokenizer);
        let stops = StopMatcher::new(&request.stop, text.capacity());
        self.answer = Some(Answer {
            text,
            stops,
            ignore_eos: request.ignore_eos,
            started: Instant::now(),
            prompt_tokens: request.prompt.len(),
            filled: 0,
            prefilled: None,
            most,
            generated: 0,
            is_unfed: false,
        });
    }

    /// The next batch or token of the answer, on a backend that has been turned to this slot. Its end is told when it came.
    ///
    /// # Errors
    /// What failed on the device: the answer is over.
    ///
    /// # Panics
    /// Where no answer is under way.
    pub fn turn(
        &mut self,
        backend: &mut Backend,
        tokenizer: &Tokenizer,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, CudaError> {
        let answer = self.answer.as_mut().expect("an answer was begun and has not ended");
        match answer.turn(&mut self.sampler, &mut self.history, backend, tokenizer, on_event) {
            Ok(None) => Ok(None),
            Ok(Some(reason)) => {
                let finish = self.end(reason);
                // The request is over either way, so there is nothing left to break off.
                let _ = on_event(Event::Finished(finish));
                Ok(Some(finish))
            }
            Err(error) => {
                self.answer = None;
                Err(error)
            }
        }
    }

    /// Ends the answer before its next turn. The slot is free again.
    ///
    /// # Panics
    /// Where no answer is under way.
    pub fn cancel(&mut self) -> Finish {
        self.end(FinishReason::Cancelled)
    }

    fn end(&mut self, reason: FinishReason) -> Finish {
        let answer = self.answer.take().expect("an answer was begun and has not ended");
        let (prompt_time, decode_time) = match answer.prefilled {
            Some((took, since)) if answer.generated > 0 => (took, since.elapsed()),
            Some((took, _)) => (took, Duration::ZERO),
            None => (answer.started.elapsed(), Duration::ZERO),
        };
        let (prompt_tokens, generated) = (answer.prompt_tokens, answer.generated);
        Finish { reason, prompt_tokens, prompt_time, generated, decode_time }
    }
}

impl Answer {
    /// Why the answer ends with this turn, if it does.
    fn turn(
        &mut self,
        sampler: &mut Sampler,
        history: &mut Vec<u32>,
        backend: &mut Backend,
        tokenizer: &Tokenizer,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, CudaError> {
        if self.prefilled.is_none() {
            let rest = &history[self.filled..self.prompt_tokens];
            // All batches but the last only fill the cache.
            if rest.len() > backend.batch() {
                let batch = &rest[..backend.batch()];
                backend.fill(batch, self.filled)?;
                self.filled += batch.len();
                return Ok(None);
            }
            backend.feed(rest, self.filled)?;
            // A device has only queued it so far.
            backend.settle()?;
            self.filled = self.prompt_tokens;
            let elapsed = self.started.elapsed();
            let prefilled = Event::Prefilled { prompt_tokens: self.prompt_tokens, cached_tokens: 0, elapsed };
            let is_broken_off = on_event(prefilled).is_break();
            self.prefilled = Some((elapsed, Instant::now()));
            if is_broken_off {
                return Ok(Some(FinishReason::Cancelled));
            }
            if self.most == 0 {
                return Ok(Some(FinishReason::Length));
            }
        }
        self.token(sampler, history, backend, tokenizer, on_event)
    }

    fn token(
        &mut self,
        sampler: &mut Sampler,
        history: &mut Vec<u32>,
        backend: &mut Backend,
        tokenizer: &Tokenizer,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, CudaError> {
        if self.is_unfed {
            let last = history.len() - 1;
            backend.feed(&history[last..], last)?;
        }
        let step = backend.next(sampler, history, self.generated + 1 < self.most)?;
        let id = step.id;
        self.is_unfed = !step.fed;
        self.generated += 1;
        history.push(id);
        let ends = !self.ignore_eos && tokenizer.stop_ids().binary_search(&id).is_ok();
        let last = ends || self.generated == self.most;
        // The last token brings all text that was held back.
        let (shown, stopped) = match last {
            false => self.stops.push(self.text.push(tokenizer, id)),
            true => self.stops.finish(self.text.push_last(tokenizer, id)),
        };
        if on_event(Event::Token { id, text: shown }).is_break() {
            return Ok(Some(FinishReason::Cancelled));
        }
        Ok(match (ends || stopped, last) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        })
    }
}
