//! The choice of a token on the device.

use harness_spec::Shape;

use super::bind::Args;
use super::decode::KEY_MAX_LEN;
use super::{Exec, Precision, Span, Step};
use crate::cuda::CudaError;
use crate::op::{SAMPLE_DRAWS, sample_work};

/// Scratch memory of a launch.
const SCRATCH: usize = 16;

/// Operands of `sample`.
#[derive(Debug)]
pub struct SampleToken<'a> {
    /// f32 `[vocab]`.
    pub logits: &'a Span,
    /// The words of [`crate::op::SampleParams`].
    pub params: &'a Span,
    /// Uniform numbers by position, f64 `[1024]`.
    pub draws: &'a Span,
    /// Tokens by position, u32 `[len]`; the one that is chosen joins them.
    pub history: &'a Span,
    /// The position of the last token: u32 `[1]`.
    pub pos: &'a Span,
    /// The state of the token that follows: u32 `[4]`.
    pub next: &'a Span,
    /// Working memory of [`Exec::sample_work`] bytes.
    pub work: &'a Span,
    /// Scratch memory of [`Exec::sample_scratch`] bytes, zeroed once.
    pub scratch: &'a Span,
    /// The address of 1024 words of host memory that hear of the token, or 0.
    pub ring: u64,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Words of the history.
    pub len: usize,
}

fn key(vocab: usize) -> Shape {
    Shape::of([("N", vocab as u64), ("LEN", KEY_MAX_LEN as u64)])
}

impl Exec {
    /// Whether a kernel chooses among so many tokens.
    pub fn samples(&self, precision: Precision, vocab: usize) -> bool {
        self.choice(precision, "sample", &key(vocab)).is_ok()
    }

    /// Chooses a token from logits; `next` becomes {token, pos + 1, pos + 2, 0}.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn sample(&self, precision: Precision, o: &SampleToken<'_>) -> Result<Step, CudaError> {
        let shape = key(o.vocab);
        let args = Args::new()
            .span("logits", o.logits, 4 * o.vocab)
            .span("params", o.params, 32)
            .span("draws", o.draws, 8 * SAMPLE_DRAWS)
            .span("history", o.history, 4 * o.len)
            .span("pos", o.pos, 4)
            .span("next", o.next, 16)
            .span("history", o.history, 4 * o.len)
            .span("work", o.work, sample_work(o.vocab))
            .span("scratch", o.scratch, SCRATCH)
            .address(o.ring)
            .ints([o.vocab, o.len]);
        self.step(precision, "sample", &shape, None, args)
    }

    /// Bytes of working memory that [`Exec::sample`] takes.
    pub const fn sample_work(vocab: usize) -> usize {
        sample_work(vocab)
    }

    /// Bytes of scratch memory that [`Exec::sample`] takes, zeroed once.
    pub const fn sample_scratch() -> usize {
        SCRATCH
    }
}
