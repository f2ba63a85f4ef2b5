//! What is counted while a model runs.

/// What was done since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Tokens decoded one at a time.
    pub tokens: u64,
    /// Launches of a token's graph.
    pub graph_launches: u64,
    /// Kernels launched outside graphs: for prompts, for the first drawn token of a request, and for tokens whose steps are
    /// launched one by one.
    pub kernel_launches: u64,
    /// Times that the host waited for the device.
    pub syncs: u64,
    /// Bytes sent to the device.
    pub h2d_bytes: u64,
    /// Bytes that came back.
    pub d2h_bytes: u64,
}

impl Counters {
    /// What came on top of an earlier state.
    pub(crate) fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            tokens: self.tokens - earlier.tokens,
            graph_launches: self.graph_launches - earlier.graph_launches,
            kernel_launches: self.kernel_launches - earlier.kernel_launches,
            syncs: self.syncs - earlier.syncs,
            h2d_bytes: self.h2d_bytes - earlier.h2d_bytes,
            d2h_bytes: self.d2h_bytes - earlier.d2h_bytes,
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add(&mut self, other: &Counters) {
        self.tokens += other.tokens;
        self.graph_launches += other.graph_launches;
        self.kernel_launches += other.kernel_launches;
        self.syncs += other.syncs;
        self.h2d_bytes += other.h2d_bytes;
        self.d2h_bytes += other.d2h_bytes;
    }

    /// A token is the launch of one graph.
    pub(super) fn count_token(&mut self) {
        self.graph_launches += 1;
        self.tokens += 1;
    }
}
