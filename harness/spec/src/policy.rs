//! How a kernel is launched and where its weights are when it is timed (MEASURING.md §3).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheState {
    /// Not resident: distinct copies rotate over a footprint of at least three times the last-level cache.
    Cold,
    /// One copy, launched again and again.
    Hot,
}

/// How the kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaunchMode {
    /// One launch a sample on a GPU, behind a blocking kernel; a loop of calls on a CPU.
    Eager,
    /// Many launches over distinct buffers in one captured graph; time divided by launches.
    Graph,
    /// As `Graph`, with programmatic dependent launch edges (compute capability 9.0 and up).
    GraphPdl,
    /// Inside the full decode loop.
    InEngine,
}

/// A policy: part of every key, record and caption. Written `cold+graph`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// Where the weights are.
    pub cache: CacheState,
    /// How the kernel is launched.
    pub launch: LaunchMode,
}

impl Policy {
    /// How the CUDA engine launches: the default for kernels on a GPU.
    pub const COLD_GRAPH: Policy = Policy { cache: CacheState::Cold, launch: LaunchMode::Graph };
    /// The default for kernels on a CPU.
    pub const COLD_EAGER: Policy = Policy { cache: CacheState::Cold, launch: LaunchMode::Eager };
    /// In the decode loop of the engine, where the time is that of a whole token.
    pub const COLD_IN_ENGINE: Policy = Policy { cache: CacheState::Cold, launch: LaunchMode::InEngine };

    /// Whether times are those of a token of a model, and not of one launch.
    pub fn is_in_engine(self) -> bool {
        self.launch == LaunchMode::InEngine
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = match self.cache {
            CacheState::Cold => "cold",
            CacheState::Hot => "hot",
        };
        let launch = match self.launch {
            LaunchMode::Eager => "eager",
            LaunchMode::Graph => "graph",
            LaunchMode::GraphPdl => "graph_pdl",
            LaunchMode::InEngine => "in_engine",
        };
        write!(f, "{cache}+{launch}")
    }
}

/// Text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}: write cold or hot, a plus, and eager, graph, graph_pdl or in_engine")]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Policy, UnknownPolicy> {
        let bad = || UnknownPolicy(text.to_owned());
        let (cache, launch) = text.split_once('+').ok_or_else(bad)?;
        let cache = match cache {
            "cold" => CacheState::Cold,
            "hot" => CacheState::Hot,
            _ => return Err(bad()),
        };
        let launch = match launch {
            "eager" => LaunchMode::Eager,
            "graph" => LaunchMode::Graph,
            "graph_pdl" => LaunchMode::GraphPdl,
            "in_engine" => LaunchMode::InEngine,
            _ => return Err(bad()),
        };
        Ok(Policy { cache, launch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_back_from_its_text() {
        for text in ["cold+eager", "hot+eager", "cold+graph", "cold+graph_pdl", "cold+in_engine"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert!("warm+graph".parse::<Policy>().is_err());
    }
}
