//! What is counted while a model runs.

/// What was done since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Tokens decoded one at a time.
    pub tokens: u64,
    /// Launches of a token's graph.
    pub graph_launches: u64,
    /// Kernels launched outside graphs: for prompts, and for the first drawn token of a request.
    pub kernel_launches: u64,
    /// Times that the host waited for the device.
    pub syncs: u64,
    /// Bytes sent to the device.
    pub h2d_bytes: u64,
    /// Bytes that came back.
    pub d2h_bytes: u64,
}

impl Counters {
    /// A token is the launch of one graph.
    pub(super) fn count_token(&mut self) {
        self.graph_launches += 1;
        self.tokens += 1;
    }
}
