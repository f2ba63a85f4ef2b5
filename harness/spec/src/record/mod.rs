//! Everything that a run leaves: `run.json` ([`RunRecord`]) and `samples.jsonl` (a [`Sample`] a line).
//!
//! A record is complete: every table, chart and page is rebuilt from these two files alone.

mod breakdown;
mod environment;
mod kernels;
mod metric;
mod quality;
mod run;
mod sample;
mod selftest;

pub use breakdown::{Breakdown, BreakdownStep, Check, DecodeTimes, RawBreakdown, RawStep};
pub use environment::{BlockTelemetry, CpuFacts, Environment, GpuTelemetry, NoiseSource, ToolFacts};
pub use kernels::{
    CanaryReading, CellResult, CellRole, CostReport, Duel, Finding, Floor, KERNEL_SCHEMA_VERSION, KernelPlan,
    KernelRun, KernelRunKind, Outcome, RankRow, RunOff, SampleDrop, SearchReport, SpaceAccount, StopReason, Trial,
    TrialCost, TrialPurpose, TrialSample, WarmUp, WorkloadResult,
};
pub use metric::{Estimate, Measure, MetricComparison, MetricId, Provenance, RatioEstimate, SideSummary, Verdict};
pub use quality::{AnswerAgreement, AnswerQuality, Quality, QualityBounds, TextQuality};
pub use run::{
    Ceiling, DeviceCounters, Headline, Hygiene, ManifestField, ManifestStatus, ModelFacts, Plan, PromptFacts,
    ReadAround, RunKind, RunRecord, ServerReported, SideFacts, SideGpu, SideRole, SuiteFacts, TensorGroup,
};
pub use sample::{DropReason, Sample, SampleStatus, ServerTimings};
pub use selftest::{SELFTEST_SCHEMA_VERSION, SelftestFigure, SelftestKind, SelftestPlan, SelftestRun};

/// Version of the record format, in every `run.json`. A change has its own heading in CHANGELOG.md.
pub const SCHEMA_VERSION: u32 = 1;
