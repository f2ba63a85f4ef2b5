//! Where the time of a decoded token goes, step by step, and what it was held against.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run::DeviceCounters;
use crate::variant::VariantId;
use crate::workload::Shape;

/// The steps of one decoded token on a device, each by the difference between two prefixes of the token's graph: the
/// differences add up to the time of the whole graph, with its steps overlapping as in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Breakdown {
    /// Tokens of context at which decoding begins.
    pub depth: u64,
    /// Position of the token whose steps were timed: the middle of the positions that were decoded.
    pub position: u64,
    /// Times that every prefix was run, in an order that changes from round to round.
    pub rounds: u64,
    /// The steps in their order.
    pub steps: Vec<BreakdownStep>,
    /// Edges of the graph by which a step may start before the one ahead has ended, where the driver tells.
    pub programmatic_edges: Option<u64>,
    /// Time of the whole graph, which is the sum over the steps, ns.
    pub sum_ns: f64,
    /// Greedy decoding in the same process, each token launched ahead as in use.
    pub decode: DecodeTimes,
}

/// One step of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakdownStep {
    /// The op, such as `gate_up_q4_0`.
    pub op: String,
    /// The shape by which its kernel was chosen.
    pub shape: Shape,
    /// The kernel that ran.
    pub variant: VariantId,
    /// Median time of the graph that ends with this step, ns.
    pub prefix_ns: f64,
    /// What the step adds to the graph before it, ns. It may be below 0, where a step makes the one ahead end sooner, or
    /// by noise; the first step has the start of the graph in it.
    pub cost_ns: f64,
    /// Bytes that the op must move: weights as stored, keys and values, activations. `null` for an op without a byte model.
    pub bytes: Option<u64>,
}

/// Greedy decoding inside the engine's own process: windows of tokens, each starting again at the same depth, so that a
/// growing context is not taken for jitter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecodeTimes {
    /// Tokens of a window.
    pub window: u64,
    /// Windows.
    pub windows: u64,
    /// Wall time of a token: the median over windows of a window's time ÷ its tokens, ns.
    pub wall_ns: f64,
    /// Median time from one token to the next over all windows, ns.
    pub itl_p50_ns: f64,
    /// 99th percentile of the same, ns; `null` below the 1000 values that it needs.
    pub itl_p99_ns: Option<f64>,
    /// Longest, ns.
    pub itl_max_ns: f64,
    /// What the engine counted over the tokens of all windows alone: no prompt is in it.
    pub counters: DeviceCounters,
}

impl DecodeTimes {
    /// Times from one token to the next.
    pub fn tokens(&self) -> u64 {
        self.window * self.windows
    }
}

/// What [`Breakdown`] is computed from: a line of `breakdown.jsonl`, one a depth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RawBreakdown {
    /// Tokens of context at which decoding begins.
    pub depth: u64,
    /// Position of the token whose steps were timed.
    pub position: u64,
    /// Tokens of a window.
    pub window: u64,
    /// Edges of the graph by which a step may start before the one ahead has ended, where the driver tells.
    pub programmatic_edges: Option<u64>,
    /// The steps in their order.
    pub steps: Vec<RawStep>,
    /// Times from one greedy token to the next, ns, a list for each window.
    pub gaps_ns: Vec<Vec<u64>>,
    /// What the engine counted over the tokens of all windows alone.
    pub counters: DeviceCounters,
}

/// One step of a token with the raw times of its prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RawStep {
    /// The op.
    pub op: String,
    /// The shape by which its kernel was chosen.
    pub shape: Shape,
    /// The kernel that ran.
    pub variant: VariantId,
    /// Bytes that the op must move.
    pub bytes: Option<u64>,
    /// Times of the graph that ends with this step, ns, one a round.
    pub prefix_ns: Vec<f64>,
}

/// Something that must hold of a run, and whether it does. One that fails stays in the record and is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What must hold.
    pub name: String,
    /// Whether it does; `null` where too little was measured to tell, which is no failure.
    pub passed: Option<bool>,
    /// The figures.
    pub found: String,
}

impl Check {
    /// Whether it is known not to hold.
    pub fn failed(&self) -> bool {
        self.passed == Some(false)
    }
}
