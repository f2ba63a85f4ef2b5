//! Metrics with their uncertainty.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a number comes from. Only the first two enter a verdict, chart or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Provenance {
    Measured,
    Derived,
    Imported,
    Estimated,
    Simulated,
}

/// A value, or the reason why there is none. Unmeasured is never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measure {
    /// The value in the unit that the field's name gives; `null` if it could not be measured.
    pub value: Option<f64>,
    /// Why `value` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the number comes from.
    pub provenance: Provenance,
}

impl Measure {
    /// A measured value.
    pub fn measured(value: f64) -> Measure {
        Measure { value: Some(value), reason: None, provenance: Provenance::Measured }
    }

    /// A value computed from measured ones.
    pub fn derived(value: f64) -> Measure {
        Measure { value: Some(value), reason: None, provenance: Provenance::Derived }
    }

    /// No value, and why.
    pub fn missing(reason: impl Into<String>) -> Measure {
        Measure { value: None, reason: Some(reason.into()), provenance: Provenance::Measured }
    }
}

/// A metric that both sides of a comparison have. Definitions: MEASURING.md §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricId {
    /// (n − 1)/(tₙ − t₁) of one request, tok/s.
    DecodeTokPerS,
    /// Prompt tokens ÷ TTFT, tok/s: what a client can see of prefill.
    PromptTokPerSThroughTtft,
    /// First token − submit, ms.
    TtftMs,
    /// Median inter-token latency of a run, ms.
    ItlP50Ms,
    /// 99th percentile of inter-token latencies, ms.
    ItlP99Ms,
    /// Standard deviation of inter-token latencies within a run, ms.
    ItlJitterMs,
    /// tₙ − submit, ms.
    TotalMs,
}

impl MetricId {
    /// Whether a larger value is the better one.
    pub fn higher_is_better(self) -> bool {
        matches!(self, MetricId::DecodeTokPerS | MetricId::PromptTokPerSThroughTtft)
    }

    /// The heading of the metric in tables and charts, with its unit.
    pub fn title(self) -> &'static str {
        match self {
            MetricId::DecodeTokPerS => "decode tok/s at batch 1",
            MetricId::PromptTokPerSThroughTtft => "prompt tok/s through TTFT",
            MetricId::TtftMs => "TTFT, ms",
            MetricId::ItlP50Ms => "ITL p50, ms",
            MetricId::ItlP99Ms => "ITL p99, ms",
            MetricId::ItlJitterMs => "ITL jitter (stdev), ms",
            MetricId::TotalMs => "total time, ms",
        }
    }
}

/// A centre with its spread and a 95 % confidence interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// Number of values.
    pub n: u64,
    /// Median.
    pub median: f64,
    /// Distribution-free interval of the median; `null` when n is too small for one.
    pub ci95: Option<[f64; 2]>,
    /// Median absolute deviation × 1.4826.
    pub mad_sigma: f64,
    /// Interquartile range.
    pub iqr: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Mean, only ever shown beside the median.
    pub mean: f64,
}

/// One side's value of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SideSummary {
    /// `null` where the side has no value, with `reason`.
    pub estimate: Option<Estimate>,
    /// Why there is no estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A ratio of medians, engine ÷ peer, with its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RatioEstimate {
    /// Engine ÷ peer, turned so that above 1 is better for the engine.
    pub ratio: f64,
    /// Confidence interval of `ratio` by BCa bootstrap over pairs, at `level`.
    pub ci: [f64; 2],
    /// Confidence level of `ci`: the one Holm asks for.
    pub level: f64,
    /// Number of pairs.
    pub n_pairs: u64,
    /// Wilcoxon signed-rank p on log ratios, before adjustment.
    pub p: f64,
    /// p after Holm over the family of this report.
    pub p_holm: f64,
    /// Practical threshold τ: max(1 %, noise floor).
    pub tau: f64,
}

/// What a comparison of one metric came to, from the engine's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval excludes 1 on the engine's better side, beyond τ.
    Faster,
    /// The interval excludes 1 on the engine's worse side, beyond τ.
    Slower,
    /// The interval lies inside 1 ± τ.
    Tie,
    /// None of the others.
    Inconclusive,
    /// Too few valid samples.
    Unstable,
    /// A rule forbids a verdict (mismatched manifest, hygiene): the reason is beside it.
    Withheld,
}

impl Verdict {
    /// Whether the sides were told apart.
    pub const fn is_difference(self) -> bool {
        matches!(self, Verdict::Faster | Verdict::Slower)
    }
}

/// One metric of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricComparison {
    /// Which metric.
    pub id: MetricId,
    /// The group of runs it is about, such as `all`, or `relativity/50` (prompt and length).
    pub group: String,
    /// The engine's values.
    pub engine: SideSummary,
    /// The peer's values; absent in a one-sided run.
    pub peer: Option<SideSummary>,
    /// Engine against peer; `null` in a one-sided run or when a side has no values.
    pub ratio: Option<RatioEstimate>,
    /// What it came to; `null` in a one-sided run.
    pub verdict: Option<Verdict>,
    /// Why a verdict was withheld or a value is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
