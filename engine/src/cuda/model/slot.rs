//! Slots: each has what an answer leaves on the device from one turn to its next. Weights, activations and the stream are
//! shared, so that whatever slots queue runs in the order of their turns.

use kernels::cuda::CudaError;
use kernels::cuda::exec::{Cache, Exec, Precision, Span};

use super::{Counters, Parts};
use crate::cuda::buffers::Buffers;
use crate::cuda::graphs::Graphs;
use crate::cuda::ring::Ring;
use crate::cuda::sampled::Sampled;
use crate::cuda::weights::DeviceModel;

/// `last` and `untaken` of a slot that has seen no token.
const NOTHING_QUEUED: (usize, usize) = (0, 1);

/// A slot.
#[derive(Debug)]
pub struct Slot {
    /// Its number.
    pub index: usize,
    // Before what they use: graphs go first.
    pub graphs: Graphs,
    pub sampled: Sampled,
    /// The model, of which keys and values are the slot's own.
    pub model: DeviceModel,
    /// The buffers, of which the present token is the slot's own.
    pub buffers: Buffers,
    pub ring: Ring,
    /// The last position that was fed or queued.
    pub last: usize,
    /// Positions whose words the device may still write or has written, from here to `last`: none where this is behind it.
    pub untaken: usize,
}

impl Slot {
    /// A slot that has seen no token, of what is its own.
    pub fn new(
        index: usize,
        (model, buffers): (DeviceModel, Buffers),
        (ring, sampled): (Ring, Sampled),
        graphs: Graphs,
    ) -> Slot {
        let (last, untaken) = NOTHING_QUEUED;
        Slot { index, graphs, sampled, model, buffers, ring, last, untaken }
    }

    /// A slot beside this one, with graphs of its own, which hold the addresses of what is its own.
    ///
    /// # Errors
    /// No room on the device, or the driver's error.
    pub fn beside(&self, index: usize, exec: &Exec, precision: Precision) -> Result<Slot, CudaError> {
        let model = with_own_cache(&self.model, exec)?;
        let buffers = self.buffers.beside(exec.stream())?;
        let parts = Parts { exec, precision, model: &model, buffers: &buffers };
        let ring = Ring::new(exec.device())?;
        let sampled = Sampled::new(exec, precision, model.config.vocab, parts.context())?;
        let graphs = parts.graphs(&ring)?;
        Ok(Slot::new(index, (model, buffers), (ring, sampled), graphs))
    }

    /// What its graphs are made of.
    pub fn parts<'a>(&'a self, exec: &'a Exec, precision: Precision) -> Parts<'a> {
        Parts { exec, precision, model: &self.model, buffers: &self.buffers }
    }

    /// Tokens run by other graphs from now on. What was fed is forgotten, as its last position was written again.
    pub fn replace_graphs(&mut self, graphs: Graphs) {
        self.graphs = graphs;
        self.sampled.graphs = None;
        (self.last, self.untaken) = NOTHING_QUEUED;
    }

    /// Where the device is done with all that was queued: takes the tokens that nobody asked for out of the ring.
    pub fn forget_queued(&mut self) {
        (self.untaken..=self.last).for_each(|pos| self.ring.forget(pos));
        self.sampled.end(self.untaken..=self.last);
        self.untaken = self.last + 1;
    }

    /// The token of a position, once it is there.
    ///
    /// # Errors
    /// As of [`Ring::wait_for`].
    pub fn await_token(&self, exec: &Exec, pos: usize) -> Result<u32, CudaError> {
        self.ring.wait_for(exec.stream(), pos, "norm_logits")
    }

    /// Launches the token whose position is in the device's memory, which is `pos`.
    ///
    /// # Errors
    /// The driver's error.
    pub fn launch(&self, exec: &Exec, pos: usize, counters: &mut Counters) -> Result<(), CudaError> {
        counters.count_token();
        self.graphs.graph(pos).launch(exec.stream())
    }
}

/// The same model with keys and values of its own. Its bytes are theirs: what is shared has been counted.
fn with_own_cache(model: &DeviceModel, exec: &Exec) -> Result<DeviceModel, CudaError> {
    let mut bytes = 0;
    let mut own = |span: &Span| {
        bytes += span.len() as u64;
        Span::zeroed(exec.stream(), span.len(), "keys and values")
    };
    let mut out = model.clone();
    for layer in &mut out.layers {
        let Cache { k, v, scales, max_len } = &layer.cache;
        let scales = match scales {
            Some((k, v)) => Some((own(k)?, own(v)?)),
            None => None,
        };
        layer.cache = Cache { k: own(k)?, v: own(v)?, scales, max_len: *max_len };
    }
    out.bytes = bytes;
    Ok(out)
}
