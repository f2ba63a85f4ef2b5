//! Tokens that are drawn on the device: logits stay there, and what a request asks for lies beside them, so that the graph of
//! a drawn token never changes either.

use kernels::cuda::CudaError;
use kernels::cuda::driver::Stream;
use kernels::cuda::exec::{Exec, Precision, Program, SampleToken, Span, Step};
use kernels::op::SAMPLE_DRAWS;

use super::Counters;
use super::decode::Builder;
use super::graphs::Graphs;
use super::model::bytes_of;
use super::ring::Ring;
use super::vram::aligned;
use crate::sampler::Sampler;

/// Draws that are sent at once: few enough to be made in microseconds, and so many that sending them does not count.
const AHEAD: usize = 256;

/// What the choice of tokens on the device needs.
#[derive(Debug)]
pub struct Sampled {
    /// Whether a kernel draws from this vocabulary. Where none does, logits go to the host.
    pub has_kernel: bool,
    /// Captured by the first request that draws. Before what they use: graphs go first.
    pub graphs: Option<Graphs>,
    /// Host memory that hears of every token that is drawn.
    pub ring: Ring,
    /// The words of the parameters, and behind them the position of a request's first choice.
    params: Span,
    /// Uniform numbers by position, f64 `[SAMPLE_DRAWS]`.
    draws: Span,
    /// Tokens by position, u32 `[context]`.
    history: Span,
    /// What the head says of the most likely token, for nobody to read.
    unread: Span,
    work: Span,
    scratch: Span,
    context: usize,
    /// In a request that draws, the first position that has no uniform number yet.
    drawn: Option<usize>,
}

/// Bytes of each buffer of [`Sampled`], in the order of its fields, for a vocabulary and so many positions.
fn sizes(vocab: usize, context: usize) -> [usize; 6] {
    [36, 8 * SAMPLE_DRAWS, 4 * context, 16, Exec::sample_work(vocab), Exec::sample_scratch()]
}

/// Bytes that the choice of tokens takes.
pub fn bytes(vocab: usize, context: usize) -> u64 {
    sizes(vocab, context).into_iter().map(aligned).sum()
}

impl Sampled {
    /// For a vocabulary and so many positions.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(exec: &Exec, precision: Precision, vocab: usize, context: usize) -> Result<Sampled, CudaError> {
        let zeroed = |bytes: usize| Span::zeroed(exec.stream(), bytes, "the choice of tokens");
        let [params, draws, history, unread, work, scratch] = sizes(vocab, context);
        Ok(Sampled {
            has_kernel: exec.samples(precision, vocab),
            graphs: None,
            ring: Ring::new(exec.device())?,
            params: zeroed(params)?,
            draws: zeroed(draws)?,
            history: zeroed(history)?,
            unread: zeroed(unread)?,
            work: zeroed(work)?,
            scratch: zeroed(scratch)?,
            context,
            drawn: None,
        })
    }

    /// The choice of a request's first token, from logits that are there already.
    ///
    /// # Errors
    /// No kernel, or the driver's error.
    pub fn first(&self, builder: &Builder<'_>) -> Result<Step, CudaError> {
        self.choice(builder, &self.params.part(32, 4))
    }

    /// The steps of a token behind which one is drawn.
    ///
    /// # Errors
    /// As above.
    pub fn token(&self, builder: Builder<'_>) -> Result<Program, CudaError> {
        let builder = Builder { next: &self.unread, ring: 0, ..builder };
        let mut program = builder.token()?;
        program.push(self.choice(&builder, &builder.buffers.state.part(4, 4))?);
        Ok(program)
    }

    fn choice(&self, builder: &Builder<'_>, pos: &Span) -> Result<Step, CudaError> {
        builder.exec.sample(
            builder.precision,
            &SampleToken {
                logits: &builder.buffers.logits,
                params: &self.params,
                draws: &self.draws,
                history: &self.history,
                pos,
                next: &builder.buffers.state,
                work: &self.work,
                scratch: &self.scratch,
                ring: self.ring.address(),
                vocab: builder.model.config.vocab,
                len: self.context,
            },
        )
    }

    /// Whether a request draws at present.
    pub fn is_under_way(&self) -> bool {
        self.drawn.is_some()
    }

    /// Begins to draw behind a position, whose tokens and those before it are `history`.
    ///
    /// # Errors
    /// The driver's error.
    ///
    /// # Panics
    /// Where the history is that of another position.
    pub fn begin(
        &mut self,
        stream: &Stream,
        sampler: &mut Sampler,
        history: &[u32],
        pos: usize,
        counters: &mut Counters,
    ) -> Result<(), CudaError> {
        assert_eq!(history.len(), pos + 1, "every position has a token");
        let params = sampler.on_device();
        let mut words = params.words().to_vec();
        words.push(pos as u32);
        self.params.upload(stream, &bytes_of(&words))?;
        let recent = if params.penalty == 1.0 { 0 } else { history.len().min(params.recent as usize) };
        let (first, recent) = (history.len() - recent, &history[history.len() - recent..]);
        if !recent.is_empty() {
            self.history.part(4 * first, 4 * recent.len()).upload(stream, &bytes_of(recent))?;
        }
        counters.h2d_bytes += 4 * (words.len() + recent.len()) as u64;
        self.drawn = Some(pos);
        self.draw_for(stream, sampler, pos, counters)
    }

    /// Sees to it that the choice behind a position finds its uniform number.
    ///
    /// # Errors
    /// The driver's error.
    pub fn draw_for(
        &mut self,
        stream: &Stream,
        sampler: &mut Sampler,
        pos: usize,
        counters: &mut Counters,
    ) -> Result<(), CudaError> {
        while let Some(from) = self.drawn.filter(|&from| from <= pos) {
            // What is replaced was read by launches that are ahead on the stream.
            let place = from % SAMPLE_DRAWS;
            let count = AHEAD.min(SAMPLE_DRAWS - place);
            let bytes: Vec<u8> = (0..count).flat_map(|_| sampler.uniform().to_le_bytes()).collect();
            self.draws.part(8 * place, bytes.len()).upload(stream, &bytes)?;
            counters.h2d_bytes += bytes.len() as u64;
            self.drawn = Some(from + count);
        }
        Ok(())
    }

    /// The request is over and the device is done with it: words of the ring that nobody took are taken away.
    pub fn end(&mut self, positions: impl Iterator<Item = usize>) {
        if self.drawn.take().is_some() {
            positions.for_each(|pos| self.ring.forget(pos));
        }
    }
}
