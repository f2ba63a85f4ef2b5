//! What the graphs of a token are made of.

use harness_spec::{VariantId, Workload};
use kernels::cuda::CudaError;
use kernels::cuda::exec::{Exec, LengthClass, Overlap, Precision, Program, Step};

use crate::cuda::buffers::Buffers;
use crate::cuda::decode::Builder;
use crate::cuda::graphs::Graphs;
use crate::cuda::ring::Ring;
use crate::cuda::sampled::Sampled;
use crate::cuda::weights::DeviceModel;

/// A slot's weights, cache and activations, and what chooses the kernels for them.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub exec: &'a Exec,
    pub model: &'a DeviceModel,
    pub buffers: &'a Buffers,
    pub precision: Precision,
}

impl<'a> Parts<'a> {
    /// The steps of a token of the shortest class of lengths, which tell `ring` of it.
    pub fn builder(self, ring: u64) -> Builder<'a> {
        let Parts { exec, model, buffers, precision } = self;
        let (next, class) = (&buffers.state, LengthClass::of(1));
        Builder { exec, model, buffers, precision, next, ring, class }
    }

    /// Positions that the cache has room for.
    pub fn context(self) -> usize {
        self.model.layers.first().map_or(0, |l| l.cache.max_len)
    }

    /// The steps of a token at every length of the context.
    pub fn programs(self, ring: &Ring) -> Result<Vec<Program>, CudaError> {
        let of = |class| Builder { class, ..self.builder(ring.address()) }.token();
        LengthClass::up_to(self.context()).map(of).collect()
    }

    /// The steps of a token at every length and their graphs.
    pub fn graphs(self, ring: &Ring) -> Result<Graphs, CudaError> {
        let stream = self.exec.stream();
        Graphs::new(self.programs(ring)?, |program| {
            // The first launch of a function loads it, which a capture forbids. Position 0 is written again by any prompt.
            self.set_state(0, 0)?;
            let ran = program.run(stream, Overlap::NONE);
            let waited = stream.wait(|| "running the steps of a token for the first time".to_owned());
            // Whatever failed: what is left there would be taken for the token of a position.
            ring.forget(0);
            ran.and(waited)?;
            program.capture(stream, self.exec.overlap())
        })
    }

    /// The graphs of a token behind which one is drawn. Every function in them has been launched: the head and what is before
    /// it when the model was loaded, the choice for the request's first token.
    pub fn sampled_graphs(self, sampled: &Sampled) -> Result<Graphs, CudaError> {
        let of = |class| sampled.token(Builder { class, ..self.builder(0) });
        let programs = LengthClass::up_to(self.context()).map(of).collect::<Result<_, _>>()?;
        Graphs::new(programs, |program| program.capture(self.exec.stream(), self.exec.overlap()))
    }

    /// The token that the next graph takes, and its position.
    pub fn set_state(self, id: u32, pos: usize) -> Result<(), CudaError> {
        let words = [id, pos as u32, pos as u32 + 1, 0];
        self.buffers.state.upload(self.exec.stream(), &bytes_of(&words))
    }
}

/// What a step computes, and what runs it.
pub fn named(step: &Step) -> (Workload, VariantId) {
    (Workload { op: step.op().to_owned(), shape: step.key().clone() }, step.variant().clone())
}

/// Words as the device reads them.
pub fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|v| v.to_le_bytes()).collect()
}
