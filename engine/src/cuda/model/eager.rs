//! A token's steps launched one by one instead of as its graph (SPEC.md E9, V110): what a graph saves, and that it changes
//! no token.

use std::time::Instant;

use kernels::cuda::CudaError;
use kernels::cuda::exec::Overlap;

use super::work::Work;
use super::{Counters, CudaModel};

/// How the steps of a token get to the device. They are the very same in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launching {
    /// As the graph that a token is anywhere else.
    Graph,
    /// One launch after the other, with the same early starts as in the graph.
    Eager,
    /// One launch after the other, each when the one ahead has ended.
    EagerInOrder,
}

impl Launching {
    /// Every way.
    pub const ALL: [Launching; 3] = [Launching::Graph, Launching::Eager, Launching::EagerInOrder];
}

/// Greedy tokens behind a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedBy {
    /// The token that the prompt chose, and those that were decoded.
    pub ids: Vec<u32>,
    /// Nanoseconds from each token to the next: one fewer than there are tokens.
    pub nanos: Vec<u64>,
    /// What was counted over the decoded tokens alone.
    pub counted: Counters,
}

impl CudaModel {
    /// Processes a prompt and decodes `tokens` greedy tokens behind it, each queued before the one ahead of it is read, as
    /// [`CudaModel::next_greedy`] does.
    ///
    /// # Errors
    /// The driver's error.
    ///
    /// # Panics
    /// Where there is no prompt, or it and the tokens do not fit the context.
    pub fn decode_by(&mut self, way: Launching, prompt: &[u32], tokens: usize) -> Result<DecodedBy, CudaError> {
        self.work().decode_by(way, prompt, tokens)
    }
}

impl Work {
    fn decode_by(&mut self, way: Launching, prompt: &[u32], tokens: usize) -> Result<DecodedBy, CudaError> {
        self.process(prompt, 0, true)?;
        self.wait("computing a prompt")?;
        let before = self.counters;
        let mut out =
            DecodedBy { ids: Vec::with_capacity(tokens + 1), nanos: Vec::with_capacity(tokens), counted: before };
        let mut then = Instant::now();
        for i in 0..=tokens {
            let pos = prompt.len() - 1 + i;
            if i < tokens {
                self.queue(way, pos + 1)?;
            }
            out.ids.push(self.slot.await_token(&self.exec, pos)?);
            self.slot.untaken = pos + 1;
            self.counters.d2h_bytes += 4;
            let now = Instant::now();
            if i > 0 {
                out.nanos.push(u64::try_from((now - then).as_nanos()).unwrap_or(u64::MAX));
            }
            then = now;
        }
        out.counted = self.counters.since(&before);
        // That of the prompt's own token came back here, too.
        out.counted.d2h_bytes -= 4;
        Ok(out)
    }

    /// Queues the token at a position, whose id the step ahead leaves on the device.
    fn queue(&mut self, way: Launching, pos: usize) -> Result<(), CudaError> {
        self.assert_in_context(pos);
        let overlap = match way {
            Launching::Graph => None,
            Launching::Eager => Some(self.exec.overlap()),
            Launching::EagerInOrder => Some(Overlap::NONE),
        };
        match overlap {
            None => self.slot.launch(&self.exec, pos, &mut self.counters)?,
            Some(overlap) => {
                let program = self.slot.graphs.program(pos);
                program.run(self.exec.stream(), overlap)?;
                self.counters.tokens += 1;
                self.counters.kernel_launches += program.steps().len() as u64;
            }
        }
        self.slot.last = pos;
        Ok(())
    }
}
