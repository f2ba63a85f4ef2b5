//! What is done on the device's stream: prompts, tokens, and which of these are on their way.

use harness_spec::{VariantId, Workload};
use kernels::cuda::CudaError;
use kernels::cuda::exec::{Exec, Overlap, Precision, Program, Step};

use super::{Counters, Parts, bytes_of};
use crate::cuda::buffers::{Buffers, CHUNK};
use crate::cuda::graphs::Graphs;
use crate::cuda::prompt::{FEW, Prompt};
use crate::cuda::ring::Ring;
use crate::cuda::sampled::Sampled;
use crate::cuda::weights;
use crate::generate::KvType;
use crate::gguf::Gguf;
use crate::model::{Config, LoadError};
use crate::sampler::Sampler;
use crate::tables;

/// `last` and `untaken` of a model that has seen no token.
const NOTHING_QUEUED: (usize, usize) = (0, 1);

/// What runs. What [`super::CudaModel`] asks of it is described there.
#[derive(Debug)]
pub struct Work {
    // Before what they use: graphs go first.
    pub graphs: Graphs,
    pub sampled: Sampled,
    pub prompt: Option<Prompt>,
    pub parts: Parts,
    pub ring: Ring,
    pub logits: Vec<f32>,
    pub counters: Counters,
    /// The last position that was fed or queued.
    last: usize,
    /// Positions whose words the device may still write or has written, from here to `last`: none where this is behind it.
    untaken: usize,
}

impl Work {
    /// Weights on the device, kernels compiled, and the graphs of a token.
    pub fn new(
        gguf: &Gguf,
        config: &Config,
        exec: Exec,
        precision: Precision,
        kv: KvType,
        context: usize,
    ) -> Result<Work, LoadError> {
        let model = weights::load(gguf, config, &exec, precision, kv, context)?;
        let buffers = Buffers::new(exec.stream(), config)?;
        let ring = Ring::new(exec.device())?;
        let sampled = Sampled::new(&exec, precision, config.vocab, context)?;
        let parts = Parts { exec, model, buffers, precision };
        let prompt = match Prompt::takes(&parts.model, precision) {
            true => Some(Prompt::new(&parts.exec, &parts.model)?),
            false => None,
        };
        parts.exec.compile_for(|| {
            parts.programs(&ring)?;
            if sampled.has_kernel {
                sampled.first(&parts.builder(0))?;
            }
            prompt.as_ref().map_or(Ok(()), |prompt| prompt.plan(&parts.exec, &parts.model, &parts.buffers))
        });
        let graphs = parts.graphs(&ring)?;
        parts.exec.take_notes().iter().for_each(|note| tables::say_once(note));
        let logits = vec![0.0; config.vocab];
        let (last, untaken) = NOTHING_QUEUED;
        Ok(Work { graphs, sampled, prompt, parts, ring, logits, counters: Counters::default(), last, untaken })
    }

    pub fn try_variant(&mut self, workload: &Workload, variant: Option<&VariantId>) -> Result<(), CudaError> {
        self.forget_queued()?;
        let is_of = |step: &&Step| step.op() == workload.op && *step.key() == workload.shape;
        let before = self.graphs.programs().flat_map(Program::steps).find(is_of).map(|step| step.variant().clone());
        self.parts.exec.try_variant(&workload.op, &workload.shape, variant)?;
        let rebuilt = self.rebuild();
        if rebuilt.is_err() {
            self.parts.exec.try_variant(&workload.op, &workload.shape, before.as_ref())?;
        }
        rebuilt
    }

    fn rebuild(&mut self) -> Result<(), CudaError> {
        self.graphs = self.parts.graphs(&self.ring)?;
        self.sampled.graphs = None;
        (self.last, self.untaken) = NOTHING_QUEUED;
        Ok(())
    }

    /// Tokens in chunks or one by one; with `head` the logits behind the last and its token.
    pub fn process(&mut self, ids: &[u32], pos0: usize, head: bool) -> Result<(), CudaError> {
        let context = self.parts.context();
        assert!(!ids.is_empty() && pos0 + ids.len() <= context, "positions {pos0}..{} of {context}", pos0 + ids.len());
        self.parts.exec.device().bind()?;
        self.forget_queued()?;
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let pos = pos0 + i * CHUNK;
            let last = pos + chunk.len() == pos0 + ids.len();
            match &self.prompt {
                Some(_) if chunk.len() > FEW => self.chunk(chunk, pos, head && last)?,
                _ => self.one_by_one(chunk, pos, head && last)?,
            }
        }
        self.last = pos0 + ids.len() - 1;
        self.untaken = if head { self.last } else { self.last + 1 };
        Ok(())
    }

    /// Many tokens at once.
    fn chunk(&mut self, ids: &[u32], pos: usize, head: bool) -> Result<(), CudaError> {
        let Parts { exec, model, buffers: b, .. } = &self.parts;
        let (stream, m) = (exec.stream(), ids.len());
        let prompt = self.prompt.as_ref().expect("the caller has seen it");
        b.ids.upload(stream, &bytes_of(ids))?;
        b.positions.upload(stream, &bytes_of(&[pos as u32, (pos + m - 1) as u32]))?;
        self.counters.h2d_bytes += 4 * m as u64 + 8;
        self.counters.kernel_launches += prompt.run(exec, model, b, m)?;
        if head {
            let hidden = 4 * model.config.hidden;
            let mut program = Program::new();
            let last = b.x.part((m - 1) * hidden, hidden);
            self.parts.builder(self.ring.address()).head(&last, &b.positions.part(4, 4), &mut program)?;
            program.run(stream, Overlap::NONE)?;
            self.counters.kernel_launches += program.steps().len() as u64;
        }
        Ok(())
    }

    /// Each token through the graph. The words of the ring that are not asked for are taken away: all but that of the last
    /// token, where it is `wanted`.
    fn one_by_one(&mut self, ids: &[u32], pos: usize, wanted: bool) -> Result<(), CudaError> {
        for (i, &id) in ids.iter().enumerate() {
            self.parts.set_state(id, pos + i)?;
            self.counters.h2d_bytes += 16;
            self.launch(pos + i)?;
            if !wanted || i + 1 < ids.len() {
                self.await_token(pos + i)?;
            }
        }
        Ok(())
    }

    /// The token whose position is in the device's memory, which is `pos`.
    fn launch(&mut self, pos: usize) -> Result<(), CudaError> {
        self.assert_in_context(pos);
        self.counters.count_token();
        self.graphs.graph(pos).launch(self.parts.exec.stream())
    }

    /// A step appends keys and values at its position: one behind the context would write over what is not its own.
    pub fn assert_in_context(&self, pos: usize) {
        let context = self.parts.context();
        assert!(pos < context, "position {pos} of {context}");
    }

    /// The position whose token is asked for now.
    fn awaited(&self) -> Result<usize, CudaError> {
        if self.untaken <= self.last {
            return Ok(self.last);
        }
        let (position, context) = (self.last, self.parts.context());
        let reason = match position + 1 < context {
            true => "its token was taken, or none was fed, and no step was queued behind it: feed one".to_owned(),
            false => format!("the context of {context} positions is full: load the model with a larger one (--ctx)"),
        };
        Err(CudaError::NoToken { position, reason })
    }

    /// Waits for all that is on the stream.
    pub fn wait(&mut self, doing: &str) -> Result<(), CudaError> {
        self.counters.syncs += 1;
        self.parts.exec.stream().wait(|| doing.to_owned())
    }

    /// Waits for steps that were queued and not asked for, and takes their tokens out of the ring.
    pub fn forget_queued(&mut self) -> Result<(), CudaError> {
        self.wait("waiting for the last request")?;
        (self.untaken..=self.last).for_each(|pos| self.ring.forget(pos));
        self.sampled.end(self.untaken..=self.last);
        self.untaken = self.last + 1;
        Ok(())
    }

    pub fn next_greedy(&mut self, more: bool) -> Result<u32, CudaError> {
        let pos = self.awaited()?;
        if more && pos + 1 < self.parts.context() {
            self.launch(pos + 1)?;
            self.last += 1;
        }
        let id = self.await_token(pos)?;
        self.untaken = pos + 1;
        self.counters.d2h_bytes += 4;
        Ok(id)
    }

    pub fn next_sampled(&mut self, sampler: &mut Sampler, history: &[u32], more: bool) -> Result<u32, CudaError> {
        let is_first = !self.sampled.is_under_way();
        // The logits of a first choice are there, whoever computed them and took the most likely token.
        let pos = if is_first { self.last } else { self.awaited()? };
        let stream = self.parts.exec.stream();
        if is_first {
            self.sampled.begin(stream, sampler, history, pos, &mut self.counters)?;
            self.sampled.first(&self.parts.builder(0))?.launch(stream, false)?;
            self.counters.kernel_launches += 1;
        }
        if more && pos + 1 < self.parts.context() {
            if self.sampled.graphs.is_none() {
                self.sampled.graphs = Some(self.parts.sampled_graphs(&self.sampled)?);
            }
            self.sampled.draw_for(stream, sampler, pos + 1, &mut self.counters)?;
            let graphs = self.sampled.graphs.as_ref().expect("they have just been captured");
            graphs.graph(pos + 1).launch(stream)?;
            self.counters.count_token();
            self.last += 1;
        }
        let id = self.sampled.ring.wait_for(stream, pos, "sample")?;
        if is_first {
            // What the head said of those logits is for nobody; it came before what was drawn from them.
            self.ring.forget(pos);
        }
        self.untaken = pos + 1;
        self.counters.d2h_bytes += 4;
        Ok(id)
    }

    fn await_token(&mut self, pos: usize) -> Result<u32, CudaError> {
        self.ring.wait_for(self.parts.exec.stream(), pos, "norm_logits")
    }

    pub fn logits(&mut self) -> Result<&[f32], CudaError> {
        let Parts { exec, buffers, .. } = &self.parts;
        let bytes = buffers.logits.download(exec.stream(), 4 * self.logits.len(), || "computing logits".to_owned())?;
        self.counters.syncs += 1;
        self.counters.d2h_bytes += bytes.len() as u64;
        for (out, bytes) in self.logits.iter_mut().zip(bytes.chunks_exact(4)) {
            *out = f32::from_le_bytes(bytes.try_into().expect("chunks of four"));
        }
        Ok(&self.logits)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nothing that a launch uses is freed before the launch has ended. After a fault the wait fails at once.
        let _ = self.parts.exec.stream().wait(|| "unloading a model".to_owned());
    }
}
