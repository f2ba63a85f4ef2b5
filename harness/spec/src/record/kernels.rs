//! Records of kernels: `run.json` of `verify`, `sweep` and `tune` ([`KernelRun`]), and `trials.jsonl` (a [`Trial`] a line).
//!
//! Trials are the raw data and the journal that a tuner resumes from: append-only, one line for each finished cell. What a
//! [`KernelRun`] says of a cell is computed from them. A time exists only beside a passed check.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment::{Environment, ToolFacts};
use super::metric::{Estimate, Measure, Provenance, RatioEstimate, Verdict};
use crate::policy::Policy;
use crate::target::{Canary, Cell, CellFailure, CheckReport, DeviceKey, Resources, Stage};
use crate::units::{Bytes, Nanos};
use crate::variant::VariantId;
use crate::workload::Workload;

/// Version of the format of [`KernelRun`] and [`Trial`], in both.
pub const KERNEL_SCHEMA_VERSION: u32 = 1;

/// What a record of kernels is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KernelRunKind {
    /// Correctness only: no cell has a time.
    Verify,
    /// Every admitted variant, checked and timed.
    Sweep,
    /// A search that ends in a table.
    Tune,
}

/// Why sampling of a cell ended (MEASURING.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Half-width of the 95 % interval of the median is at most 1 %.
    Converged,
    /// Noise no longer falls with more samples.
    Plateau,
    /// Its minimum lies beyond 1.5 times the best minimum.
    Eliminated,
    /// Device time of the candidate, or the limit of the sweep.
    Budget,
    /// Waiting for the clock used up, or no finite estimate.
    Unstable,
    /// The fixed number of samples that the plan asked for.
    Complete,
    /// The run was stopped.
    Interrupted,
}

/// What became of a cell. Failure is data (R6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Checked and timed.
    Measured,
    /// Checked, and not timed because the run was a `verify`.
    Verified,
    /// This shape or device cannot use the variant: not an error.
    Skipped {
        /// Which constraint.
        reason: String,
    },
    /// It should have worked.
    Failed {
        /// Where.
        stage: Stage,
        /// What, in words for a person.
        message: String,
    },
    /// Faster than the device can be (R5): it keeps its samples and cannot win.
    Implausible {
        /// Its rate and the ceiling.
        reason: String,
    },
    /// Too few valid samples (§5): it keeps them and has no verdict.
    Unstable {
        /// What was missing.
        reason: String,
    },
    /// The run ended before its turn; never in a journal.
    NotReached,
}

impl Outcome {
    /// The outcome that a failure of the target amounts to: a constraint is no error, and impossible speed has its own
    /// name.
    pub fn of_failure(failure: CellFailure) -> Outcome {
        match failure.stage {
            Stage::Constraint => Outcome::Skipped { reason: failure.message },
            Stage::Implausible => Outcome::Implausible { reason: failure.message },
            stage => Outcome::Failed { stage, message: failure.message },
        }
    }

    /// Whether its time may enter a ranking.
    pub fn is_measured(&self) -> bool {
        matches!(self, Outcome::Measured)
    }
}

/// Why a sample is kept out of the statistics. It stays in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SampleDrop {
    /// The first of the cell, once three others exist: it still pays for the ramp.
    First,
    /// SM clock under 75 % of the reference.
    Throttled,
    /// The other side of its pair ran at another clock, and the pair was run again.
    ClockMismatch,
    /// The interval is not a finite, positive time.
    NotFinite,
}

/// One timed interval as the target gave it, with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialSample {
    /// Time of one launch, ns.
    pub ns: f64,
    /// Launches in the interval.
    pub launches: u32,
    /// Mean SM clock over the interval, MHz; `null` where the device has none.
    pub sm_clock_mhz: Option<f64>,
    /// Memory clock, MHz.
    pub mem_clock_mhz: Option<f64>,
    /// Whether the outputs of this interval were compared with the reference.
    pub verified: bool,
    /// Round of the round-robin, or number of the pair in a run-off.
    pub round: u32,
    /// Why it is not in the statistics; `null` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<SampleDrop>,
}

/// What a trial was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialPurpose {
    /// A candidate of the search or a cell of the sweep.
    Candidate,
    /// A read of the same bytes, which bounds what any candidate can reach.
    Floor,
    /// A kernel of a vendor's library, which candidates are held against.
    Library,
    /// One side of a paired run-off.
    RunOff,
}

/// Time that a cell took, by what it was spent on. The parts do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialCost {
    /// Compiling, on the clock of the compiler: overlaps other trials.
    pub compile: Nanos,
    /// The correctness gate.
    pub verify: Nanos,
    /// Warm-up and sampling.
    pub time: Nanos,
    /// Waiting for a clock to recover.
    pub idle: Nanos,
}

/// How a cell was warmed before its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WarmUp {
    /// Median time of one launch in each group, ns, in order.
    pub group_medians_ns: Vec<f64>,
    /// Device time spent.
    pub device: Nanos,
    /// Whether the last three groups were level; otherwise the limit ended it.
    pub level: bool,
}

/// A finished cell: one line of `trials.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// [`KERNEL_SCHEMA_VERSION`].
    pub schema: u32,
    /// `measured` or `simulated`.
    pub provenance: Provenance,
    /// What it was for.
    pub purpose: TrialPurpose,
    /// Variant, workload and policy.
    pub cell: Cell,
    /// Hash of everything that could change the answer (MEASURING.md §10). A trial with this key is never measured twice.
    pub key: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How it was warmed; `null` if it was not.
    pub warm_up: Option<WarmUp>,
    /// Every raw sample, dropped ones too, in the order they were taken.
    pub samples: Vec<TrialSample>,
    /// Why sampling ended; `null` if it never began.
    pub stop: Option<StopReason>,
    /// What the correctness gate said; `null` if it was not reached or failed.
    pub check: Option<CheckReport>,
    /// The compiler's report; `null` if it was not built.
    pub resources: Option<Resources>,
    /// Bytes that one launch must move; `null` if it was not built.
    pub bytes: Option<Bytes>,
    /// Operations of one launch; `null` if it was not built.
    pub flops: Option<u64>,
    /// How often a launch does work that once would be enough for, such as the norm that every block of a product does for
    /// itself; absent where the space names no such work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redundant: Option<u64>,
    /// Time it took.
    pub cost: TrialCost,
    /// When it was finished, ns since the start of its run.
    pub at_ns: Nanos,
}

/// Wall time of a run by what it was spent on (R22). Everything but `wall` is a part of it and they do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostReport {
    /// From start to end.
    pub wall: Nanos,
    /// Waiting for the compiler. What it did while the device was busy is not in here.
    pub compile: Nanos,
    /// Moving data to and from the device.
    pub transfer: Nanos,
    /// The correctness gate.
    pub verify: Nanos,
    /// Warm-up, samples, run-offs and canaries.
    pub time: Nanos,
    /// The tuner's own thinking, statistics and journal.
    pub search: Nanos,
    /// Waiting for a clock to recover.
    pub idle: Nanos,
}

impl CostReport {
    /// Share of the wall time that the parts explain; at least 0.99 in a good report. 1 of no time at all.
    pub fn explained(&self) -> f64 {
        let parts = [self.compile, self.transfer, self.verify, self.time, self.search, self.idle];
        if self.wall.0 == 0 { 1.0 } else { parts.iter().map(|p| p.0).sum::<u64>() as f64 / self.wall.0 as f64 }
    }
}

/// What became of the search space of one workload (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpaceAccount {
    /// The workload.
    pub workload: Workload,
    /// The policy.
    pub policy: Policy,
    /// Configurations of the space, before any constraint.
    pub enumerated: u64,
    /// Excluded by a constraint.
    pub pruned: u64,
    /// Refused by the compiler, or too large for a block.
    pub compile_failed: u64,
    /// Built, but wrong, faulting, hanging or impossibly fast.
    pub invalid: u64,
    /// Timed, unstable ones included; in a `verify`, checked.
    pub timed: u64,
    /// The search did not ask for them, or the run ended first.
    pub not_reached: u64,
}

impl SpaceAccount {
    /// Whether every configuration is accounted for.
    pub fn balances(&self) -> bool {
        self.enumerated == self.pruned + self.compile_failed + self.invalid + self.timed + self.not_reached
    }
}

/// The part that a variant has in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellRole {
    /// The row of the table before this run.
    Incumbent,
    /// What the engine takes without a table.
    Default,
    /// The plain, correct one.
    Baseline,
    /// A pure read of the same bytes; does not compete.
    Floor,
    /// A kernel of a vendor's library, the practical ceiling; does not compete.
    Library,
    /// Everything else.
    Candidate,
}

/// Something a reader must know about a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Samples fall into two groups, so that the median describes neither.
    Bimodal,
    /// Between 100 and 105 % of a measured ceiling: an error of the byte model or of the ceiling.
    AboveCeiling,
    /// Under 20 µs and launched one by one on a GPU: measure it in a graph.
    TooShortForEager,
    /// Fewer than 5 % of its timed launches were compared with the reference.
    TooFewVerified,
    /// The compiler spilled registers.
    Spills,
}

/// What a run says of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellResult {
    /// Variant, workload and policy.
    pub cell: Cell,
    /// Its part in the workload.
    pub role: CellRole,
    /// Key of its trial.
    pub key: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether its trial came from a journal instead of the device.
    pub from_cache: bool,
    /// Time of one launch, ns, of the kept samples; `null` unless the outcome is `measured`, `implausible` or `unstable`.
    pub time_ns: Option<Estimate>,
    /// Time × SM clock, cycles; `null` where the device gives no clock.
    pub cycles: Option<Estimate>,
    /// Bytes that one launch must move.
    pub bytes: Option<Bytes>,
    /// Operations of one launch.
    pub flops: Option<u64>,
    /// How often a launch does work that once would be enough for, such as the norm that every block of a product does for
    /// itself; absent where the space names no such work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redundant: Option<u64>,
    /// Bytes ÷ median time, GB/s.
    pub gb_per_s: Measure,
    /// Median of the floor's best variant ÷ its own median: 1 is as fast as a pure read of the same bytes.
    pub of_floor: Measure,
    /// GB/s ÷ the measured read ceiling at this working set. Above 1 is shown as it is.
    pub of_ceiling: Measure,
    /// Median SM clock of the kept samples, MHz.
    pub sm_clock_mhz: Measure,
    /// Why sampling ended.
    pub stop: Option<StopReason>,
    /// Samples in the statistics.
    pub kept: u64,
    /// Samples out of them, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Timed launches that were compared with the reference, and all timed launches.
    pub verified_launches: [u64; 2],
    /// What the correctness gate said.
    pub check: Option<CheckReport>,
    /// The compiler's report.
    pub resources: Option<Resources>,
    /// Anything a reader must know.
    pub findings: Vec<Finding>,
    /// Time it took.
    pub cost: TrialCost,
}

/// Two finalists, paired and interleaved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Duel {
    /// The one that would have to be faster.
    pub challenger: VariantId,
    /// The one that stays in a tie.
    pub defender: VariantId,
    /// Order of the blocks, such as `ABBA`, `A` being the challenger.
    pub order: String,
    /// Pairs planned, fixed beforehand.
    pub pairs_planned: u64,
    /// Pairs that were run again because the clocks of their members differed or one of them was throttled.
    pub pairs_rerun: u64,
    /// Time of the defender ÷ time of the challenger: above 1 the challenger is faster. `null` without enough pairs.
    pub time: Option<RatioEstimate>,
    /// The same in cycles; `null` where the device gives no clock.
    pub cycles: Option<RatioEstimate>,
    /// What it came to for the challenger.
    pub verdict: Verdict,
}

/// The paired final of a workload (R14).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunOff {
    /// Who took part, the fastest of the search first.
    pub finalists: Vec<VariantId>,
    /// Seed of the order and of the bootstrap.
    pub seed: u64,
    /// Each duel, in order. The family of Holm's adjustment is all of them.
    pub duels: Vec<Duel>,
    /// Who won.
    pub winner: VariantId,
    /// Why, in a sentence.
    pub reason: String,
}

/// One line of the ranking of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RankRow {
    /// The variant.
    pub variant: VariantId,
    /// Median time of one launch, ns.
    pub median_ns: f64,
    /// 95 % interval of the median, ns; `null` where there are too few samples.
    pub ci_ns: Option<[f64; 2]>,
    /// Its part in the workload.
    pub role: CellRole,
    /// Why its sampling ended.
    pub stop: Option<StopReason>,
}

/// The floor of a workload: the fastest pure read of the same bytes under the same policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Floor {
    /// Which read kernel.
    pub variant: VariantId,
    /// Bytes it reads.
    pub bytes: Bytes,
    /// Its median, ns.
    pub median_ns: f64,
}

/// How a search went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchReport {
    /// Name of the strategy.
    pub strategy: String,
    /// Its seed.
    pub seed: u64,
    /// Configurations that it may choose from.
    pub space: u64,
    /// Configurations that it asked for, failed ones included.
    pub evaluations: u64,
    /// Of these, taken from a journal.
    pub from_cache: u64,
    /// Best median so far after each evaluation that improved it: (evaluations, ns).
    pub trace: Vec<(u64, f64)>,
}

/// What a run says of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadResult {
    /// The workload.
    pub workload: Workload,
    /// The policy.
    pub policy: Policy,
    /// The floor; `null` if none was measured.
    pub floor: Option<Floor>,
    /// The plain variant.
    pub baseline: Option<VariantId>,
    /// What the engine takes without a table.
    pub default: Option<VariantId>,
    /// The table's row before this run.
    pub incumbent: Option<VariantId>,
    /// The winner; `null` if nothing valid was timed.
    pub winner: Option<VariantId>,
    /// Why it is the winner, or why there is none, in a sentence.
    pub reason: String,
    /// The next best.
    pub runner_up: Option<VariantId>,
    /// Median of the runner-up ÷ median of the winner − 1.
    pub gap: Measure,
    /// Variants that the run-off could not tell from the winner.
    pub ties: Vec<VariantId>,
    /// The paired final; `null` where fewer than two candidates were left, or the run was stopped before it.
    pub run_off: Option<RunOff>,
    /// Every variant with a valid time, fastest first.
    pub ranking: Vec<RankRow>,
    /// How the search went; `null` in a sweep.
    pub search: Option<SearchReport>,
    /// Why this is not the whole answer; `null` if it is.
    pub incomplete: Option<String>,
}

/// A canary with its moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CanaryReading {
    /// `before` or `after`.
    pub when: String,
    /// When, ns since the start of the run.
    pub at_ns: Nanos,
    /// What it found; `null` if the device failed.
    pub canary: Option<Canary>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was asked for; fixed before the first sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelPlan {
    /// Name of the suite or model.
    pub suite: String,
    /// Strategy of a `tune`; `exhaustive` in a sweep.
    pub strategy: String,
    /// Seed of the search, the checks, the orders and the bootstrap.
    pub seed: u64,
    /// Wall time that may be used; `null` is without limit.
    pub time_budget: Option<Nanos>,
    /// Least pairs of a run-off.
    pub run_off_pairs: u64,
    /// The workloads with their policies, as text.
    pub workloads: Vec<String>,
}

/// `run.json` of `verify`, `sweep` and `tune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelRun {
    /// [`KERNEL_SCHEMA_VERSION`].
    pub schema: u32,
    /// What it is a record of.
    pub kind: KernelRunKind,
    /// `measured`, or `simulated` on a scripted device, which no report accepts outside tests.
    pub provenance: Provenance,
    /// Id of the run, also in its folder's name.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Wall time.
    pub wall_ns: Nanos,
    /// The command line.
    pub command: Vec<String>,
    /// The program.
    pub tool: ToolFacts,
    /// The machine.
    pub environment: Environment,
    /// What keys the results.
    pub device: DeviceKey,
    /// Recorded and not keyed: temperature, power, uuid (redacted where asked), worker restarts.
    pub device_facts: BTreeMap<String, String>,
    /// Ceilings before and after.
    pub canaries: Vec<CanaryReading>,
    /// Why the suite is suspect, such as a canary that moved by more than 5 %; `null` if it is not.
    pub suspect: Option<String>,
    /// What was asked for.
    pub plan: KernelPlan,
    /// Where the time went.
    pub cost: CostReport,
    /// What became of each search space.
    pub accounts: Vec<SpaceAccount>,
    /// Every cell that was reached.
    pub cells: Vec<CellResult>,
    /// Every workload.
    pub results: Vec<WorkloadResult>,
    /// Why this is not the whole answer; `null` if it is.
    pub incomplete: Option<String>,
    /// Anything a reader must know.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_one_line_of_json_and_read_back_as_it_was() {
        let trial = Trial {
            schema: KERNEL_SCHEMA_VERSION,
            provenance: Provenance::Simulated,
            purpose: TrialPurpose::Candidate,
            cell: Cell {
                variant: "gemv_q4_0/planes[ROWS=2]@cuda".parse().unwrap(),
                workload: "gemv_q4_0 N=64 K=64".parse().unwrap(),
                policy: Policy::COLD_GRAPH,
            },
            key: "k".into(),
            outcome: Outcome::Failed { stage: Stage::Compile, message: "line 1:\nerror".into() },
            warm_up: None,
            samples: vec![TrialSample {
                ns: 1.5,
                launches: 10,
                sm_clock_mhz: Some(1980.0),
                mem_clock_mhz: None,
                verified: true,
                round: 0,
                dropped: Some(SampleDrop::Throttled),
            }],
            stop: None,
            check: None,
            resources: None,
            bytes: Some(Bytes(10)),
            flops: None,
            redundant: None,
            cost: TrialCost::default(),
            at_ns: Nanos(3),
        };
        let line = serde_json::to_string(&trial).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains("\"outcome\":\"failed\"") && line.contains("\"stage\":\"compile\""), "{line}");
        assert_eq!(serde_json::from_str::<Trial>(&line).unwrap(), trial);
    }

    #[test]
    fn a_failure_at_a_constraint_is_a_skip() {
        let outcome = |stage| Outcome::of_failure(CellFailure::new(stage, "m"));
        assert_eq!(outcome(Stage::Constraint), Outcome::Skipped { reason: "m".into() });
        assert_eq!(outcome(Stage::Hang), Outcome::Failed { stage: Stage::Hang, message: "m".into() });
        assert_eq!(outcome(Stage::Implausible), Outcome::Implausible { reason: "m".into() });
    }

    #[test]
    fn a_cost_report_knows_the_share_it_explains() {
        let cost = CostReport { wall: Nanos(200), compile: Nanos(50), time: Nanos(149), ..Default::default() };
        assert!((cost.explained() - 0.995).abs() < 1e-12);
    }
}
