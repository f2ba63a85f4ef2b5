//! What is done on the device's stream: prompts, tokens, and which of these are on their way.

use std::num::NonZeroUsize;

use harness_spec::{VariantId, Workload};
use kernels::cuda::CudaError;
use kernels::cuda::exec::{Exec, Overlap, Precision, Program, Step};

use super::slot::Slot;
use super::{Counters, Parts, bytes_of};
use crate::cuda::buffers::{Buffers, CHUNK};
use crate::cuda::prompt::{FEW, Prompt};
use crate::cuda::ring::Ring;
use crate::cuda::sampled::Sampled;
use crate::cuda::weights;
use crate::generate::KvType;
use crate::gguf::Gguf;
use crate::model::{Config, LoadError};
use crate::sampler::Sampler;
use crate::tables;

/// What runs. What [`super::CudaModel`] asks of it is described there.
#[derive(Debug)]
pub struct Work {
    // Before what they use: graphs go first.
    /// The slot that has its turn, of which is all that follows.
    pub slot: Slot,
    /// Those that have not.
    pub others: Vec<Slot>,
    pub prompt: Option<Prompt>,
    pub exec: Exec,
    pub precision: Precision,
    pub logits: Vec<f32>,
    pub counters: Counters,
}

impl Work {
    /// Weights on the device, kernels compiled, and the graphs of a token of each slot.
    pub fn new(
        gguf: &Gguf,
        config: &Config,
        exec: Exec,
        precision: Precision,
        (kv, context, slots): (KvType, usize, NonZeroUsize),
    ) -> Result<Work, LoadError> {
        let model = weights::load(gguf, config, &exec, precision, kv, context)?;
        let buffers = Buffers::new(exec.stream(), config)?;
        let ring = Ring::new(exec.device())?;
        let sampled = Sampled::new(&exec, precision, config.vocab, context)?;
        let parts = Parts { exec: &exec, model: &model, buffers: &buffers, precision };
        let prompt = match Prompt::takes(&model, precision) {
            true => Some(Prompt::new(&exec, &model)?),
            false => None,
        };
        exec.compile_for(|| {
            parts.programs(&ring)?;
            if sampled.has_kernel {
                sampled.first(&parts.builder(0))?;
            }
            prompt.as_ref().map_or(Ok(()), |prompt| prompt.plan(&exec, &model, &buffers))
        });
        let graphs = parts.graphs(&ring)?;
        exec.take_notes().iter().for_each(|note| tables::say_once(note));
        let slot = Slot::new(0, (model, buffers), (ring, sampled), graphs);
        let others = (1..slots.get()).map(|i| slot.beside(i, &exec, precision)).collect::<Result<_, _>>()?;
        let (logits, counters) = (vec![0.0; config.vocab], Counters::default());
        Ok(Work { slot, others, prompt, exec, precision, logits, counters })
    }

    /// What the graphs of the present slot are made of.
    pub fn parts(&self) -> Parts<'_> {
        self.slot.parts(&self.exec, self.precision)
    }

    /// Bytes of weights, and of the keys and values of every slot.
    pub fn bytes(&self) -> u64 {
        self.slots().map(|slot| slot.model.bytes).sum()
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.slot).chain(&self.others)
    }

    /// Gives a slot its turn.
    pub fn turn_to(&mut self, index: usize) {
        if self.slot.index == index {
            return;
        }
        let slot = self.others.iter_mut().find(|slot| slot.index == index);
        std::mem::swap(&mut self.slot, slot.expect("the caller knows how many slots there are"));
    }

    pub fn try_variant(&mut self, workload: &Workload, variant: Option<&VariantId>) -> Result<(), CudaError> {
        self.forget_queued()?;
        self.others.iter_mut().for_each(Slot::forget_queued);
        let is_of = |step: &&Step| step.op() == workload.op && *step.key() == workload.shape;
        let steps = self.slot.graphs.programs().flat_map(Program::steps);
        let before = steps.into_iter().find(is_of).map(|step| step.variant().clone());
        self.exec.try_variant(&workload.op, &workload.shape, variant)?;
        let of = |slot: &Slot| slot.parts(&self.exec, self.precision).graphs(&slot.ring);
        // In no slot anything is replaced unless all of them can run it.
        let graphs = self.slots().map(of).collect::<Result<Vec<_>, _>>();
        if graphs.is_err() {
            self.exec.try_variant(&workload.op, &workload.shape, before.as_ref())?;
        }
        let slots = std::iter::once(&mut self.slot).chain(&mut self.others);
        slots.zip(graphs?).for_each(|(slot, graphs)| slot.replace_graphs(graphs));
        Ok(())
    }

    /// Tokens in chunks or one by one; with `head` the logits behind the last and its token.
    pub fn process(&mut self, ids: &[u32], pos0: usize, head: bool) -> Result<(), CudaError> {
        let context = self.parts().context();
        assert!(!ids.is_empty() && pos0 + ids.len() <= context, "positions {pos0}..{} of {context}", pos0 + ids.len());
        self.exec.device().bind()?;
        self.forget_queued()?;
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let pos = pos0 + i * CHUNK;
            let last = pos + chunk.len() == pos0 + ids.len();
            match &self.prompt {
                Some(_) if chunk.len() > FEW => self.chunk(chunk, pos, head && last)?,
                _ => self.one_by_one(chunk, pos, head && last)?,
            }
        }
        let last = pos0 + ids.len() - 1;
        self.slot.last = last;
        self.slot.untaken = if head { last } else { last + 1 };
        Ok(())
    }

    /// Many tokens at once.
    fn chunk(&mut self, ids: &[u32], pos: usize, head: bool) -> Result<(), CudaError> {
        let parts = self.slot.parts(&self.exec, self.precision);
        let Parts { exec, model, buffers: b, .. } = parts;
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
            parts.builder(self.slot.ring.address()).head(&last, &b.positions.part(4, 4), &mut program)?;
            program.run(stream, Overlap::NONE)?;
            self.counters.kernel_launches += program.steps().len() as u64;
        }
        Ok(())
    }

    /// Each token through the graph. The words of the ring that are not asked for are taken away: all but that of the last
    /// token, where it is `wanted`.
    fn one_by_one(&mut self, ids: &[u32], pos: usize, wanted: bool) -> Result<(), CudaError> {
        for (i, &id) in ids.iter().enumerate() {
            self.parts().set_state(id, pos + i)?;
            self.counters.h2d_bytes += 16;
            self.launch(pos + i)?;
            if !wanted || i + 1 < ids.len() {
                self.slot.await_token(&self.exec, pos + i)?;
            }
        }
        Ok(())
    }

    /// The token whose position is in the device's memory, which is `pos`.
    fn launch(&mut self, pos: usize) -> Result<(), CudaError> {
        self.assert_in_context(pos);
        self.slot.launch(&self.exec, pos, &mut self.counters)
    }

    /// A step appends keys and values at its position: one behind the context would write over what is not its own.
    pub fn assert_in_context(&self, pos: usize) {
        let context = self.parts().context();
        assert!(pos < context, "position {pos} of {context}");
    }

    /// The position whose token is asked for now.
    fn awaited(&self) -> Result<usize, CudaError> {
        let Slot { last, untaken, .. } = self.slot;
        if untaken <= last {
            return Ok(last);
        }
        let (position, context) = (last, self.parts().context());
        let reason = match position + 1 < context {
            true => "its token was taken, or none was fed, and no step was queued behind it: feed one".to_owned(),
            false => format!("the context of {context} positions is full: load the model with a larger one (--ctx)"),
        };
        Err(CudaError::NoToken { position, reason })
    }

    /// Waits for all that is on the stream.
    pub fn wait(&mut self, doing: &str) -> Result<(), CudaError> {
        self.counters.syncs += 1;
        self.exec.stream().wait(|| doing.to_owned())
    }

    /// Waits for steps that were queued and not asked for, and takes their tokens out of the ring.
    pub fn forget_queued(&mut self) -> Result<(), CudaError> {
        self.wait("waiting for the last request")?;
        self.slot.forget_queued();
        Ok(())
    }

    pub fn next_greedy(&mut self, more: bool) -> Result<u32, CudaError> {
        let pos = self.awaited()?;
        if more && pos + 1 < self.parts().context() {
            self.launch(pos + 1)?;
            self.slot.last += 1;
        }
        let id = self.slot.await_token(&self.exec, pos)?;
        self.slot.untaken = pos + 1;
        self.counters.d2h_bytes += 4;
        Ok(id)
    }

    pub fn next_sampled(&mut self, sampler: &mut Sampler, history: &[u32], more: bool) -> Result<u32, CudaError> {
        let is_first = !self.slot.sampled.is_under_way();
        // The logits of a first choice are there, whoever computed them and took the most likely token.
        let pos = if is_first { self.slot.last } else { self.awaited()? };
        let Work { slot, exec, precision, counters, .. } = self;
        let (stream, context) = (exec.stream(), slot.parts(exec, *precision).context());
        if is_first {
            slot.sampled.begin(stream, sampler, history, pos, counters)?;
            slot.sampled.first(&slot.parts(exec, *precision).builder(0))?.launch(stream, false)?;
            counters.kernel_launches += 1;
        }
        if more && pos + 1 < context {
            if slot.sampled.graphs.is_none() {
                slot.sampled.graphs = Some(slot.parts(exec, *precision).sampled_graphs(&slot.sampled)?);
            }
            slot.sampled.draw_for(stream, sampler, pos + 1, counters)?;
            let graphs = slot.sampled.graphs.as_ref().expect("they have just been captured");
            graphs.graph(pos + 1).launch(stream)?;
            counters.count_token();
            slot.last += 1;
        }
        let id = slot.sampled.ring.wait_for(stream, pos, "sample")?;
        if is_first {
            // What the head said of those logits is for nobody; it came before what was drawn from them.
            slot.ring.forget(pos);
        }
        slot.untaken = pos + 1;
        counters.d2h_bytes += 4;
        Ok(id)
    }

    pub fn logits(&mut self) -> Result<&[f32], CudaError> {
        let (exec, buffers) = (&self.exec, &self.slot.buffers);
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
        let _ = self.exec.stream().wait(|| "unloading a model".to_owned());
    }
}
