//! Everything that a run leaves: `run.json` ([`RunRecord`]) and `samples.jsonl` (a [`Sample`] a line).
//!
//! A record is complete: every table, chart and page is rebuilt from these two files alone.

mod environment;
mod metric;
mod run;
mod sample;

pub use environment::{BlockTelemetry, CpuFacts, Environment, NoiseSource, ToolFacts};
pub use metric::{Estimate, Measure, MetricComparison, MetricId, Provenance, RatioEstimate, SideSummary, Verdict};
pub use run::{
    Ceiling, Headline, Hygiene, ManifestField, ManifestStatus, ModelFacts, Plan, PromptFacts, RunKind, RunRecord,
    ServerReported, SideFacts, SideRole, SuiteFacts, TensorGroup,
};
pub use sample::{DropReason, Sample, SampleStatus, ServerTimings};

/// Version of the record format, in every `run.json`. A change has its own heading in CHANGELOG.md.
pub const SCHEMA_VERSION: u32 = 1;
