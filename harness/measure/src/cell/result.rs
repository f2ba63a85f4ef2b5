//! From a trial to what a run says of it: statistics are computed when read, never stored with the samples.

use std::collections::BTreeMap;

use harness_spec::LaunchMode;
use harness_spec::record::{
    CellResult, CellRole, Finding, Measure, Outcome, Provenance, StopReason, Trial, TrialSample,
};

use super::bimodal::bimodal;
use super::physics::{Ceiling, Physics};
use super::settings::Settings;
use crate::describe::{estimate, median};

/// Below this a kernel is measured in a graph only, ns (§3).
const SHORT_NS: f64 = 20_000.0;

/// Whether a cell may win or be ranked: measured, and by nothing found to be no measurement.
pub fn competes(result: &CellResult) -> bool {
    let barred = [Finding::TooFewVerified, Finding::TooShortForEager];
    result.outcome.is_measured() && !result.findings.iter().any(|f| barred.contains(f))
}

/// What a trial says, held against the ceilings and the floor of this run.
pub fn cell_result(
    trial: &Trial,
    role: CellRole,
    from_cache: bool,
    ceiling: Ceiling,
    floor_ns: Option<f64>,
    settings: &Settings,
) -> CellResult {
    let kept: Vec<&TrialSample> = trial.samples.iter().filter(|s| s.dropped.is_none()).collect();
    let times: Vec<f64> = kept.iter().map(|s| s.ns).collect();
    let clocks: Vec<f64> = kept.iter().filter_map(|s| s.sm_clock_mhz).collect();
    let with_clock = !kept.is_empty() && clocks.len() == kept.len();
    // ns × MHz / 1000 are cycles.
    let cycles: Vec<f64> =
        if with_clock { times.iter().zip(&clocks).map(|(t, c)| t * c / 1e3).collect() } else { vec![] };
    let timed = matches!(trial.outcome, Outcome::Measured | Outcome::Implausible { .. } | Outcome::Unstable { .. });
    let time_ns = if timed { estimate(&times) } else { None };
    let median_ns = time_ns.as_ref().map(|e| e.median);

    let mut outcome = trial.outcome.clone();
    let mut findings = Vec::new();
    if let (Some(ns), Some(bytes), true) = (median_ns, trial.bytes, outcome.is_measured()) {
        match ceiling.judge(ns, bytes, trial.flops.unwrap_or(0)) {
            Physics::Possible => {}
            Physics::Finding(_) => findings.push(Finding::AboveCeiling),
            // A read that beats the ceiling shows that the ceiling was measured too low; a kernel that does shows a cheat.
            Physics::Implausible(_) if role == CellRole::Floor => findings.push(Finding::AboveCeiling),
            Physics::Implausible(reason) => outcome = Outcome::Implausible { reason },
        }
    }
    if bimodal(&times) {
        findings.push(Finding::Bimodal);
    }
    // Dropped samples were timed too.
    let launches: u64 = trial.samples.iter().map(|s| u64::from(s.launches)).sum();
    let verified: u64 = trial.samples.iter().filter(|s| s.verified).map(|s| u64::from(s.launches)).sum();
    let few = (verified as f64) < settings.verified * launches as f64;
    // What was eliminated or only looked at cannot win, and was not sampled until enough of it was verified.
    let ended_early = matches!(trial.stop, Some(StopReason::Eliminated | StopReason::Complete));
    if timed && launches > 0 && few && !ended_early {
        findings.push(Finding::TooFewVerified);
    }
    let on_gpu = !clocks.is_empty() || trial.cell.variant.backend == "cuda";
    if on_gpu && trial.cell.policy.launch == LaunchMode::Eager && median_ns.is_some_and(|m| m < SHORT_NS) {
        findings.push(Finding::TooShortForEager);
    }
    if trial.resources.as_ref().and_then(|r| r.spill_bytes).is_some_and(|b| b > 0) {
        findings.push(Finding::Spills);
    }

    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    for reason in trial.samples.iter().filter_map(|s| s.dropped) {
        let name = serde_json::to_value(reason).ok().and_then(|v| v.as_str().map(str::to_owned));
        *dropped.entry(name.unwrap_or_default()).or_default() += 1;
    }
    // A number is what its trial is: what a fake device times stays simulated however often it is divided.
    let of = |value: Option<f64>, why: &str| match value {
        Some(v) if trial.provenance == Provenance::Simulated => {
            Measure { value: Some(v), reason: None, provenance: Provenance::Simulated }
        }
        Some(v) => Measure::derived(v),
        None => Measure::missing(why),
    };
    let no_time = "the cell has no valid time";
    CellResult {
        cell: trial.cell.clone(),
        role,
        key: trial.key.clone(),
        outcome,
        from_cache,
        cycles: if timed { estimate(&cycles) } else { None },
        bytes: trial.bytes,
        flops: trial.flops,
        redundant: trial.redundant,
        gb_per_s: of(median_ns.zip(trial.bytes).map(|(ns, b)| b.0 as f64 / ns), no_time),
        of_floor: of(
            median_ns.zip(floor_ns).map(|(ns, floor)| floor / ns),
            if median_ns.is_none() { no_time } else { "no floor was measured for this workload" },
        ),
        of_ceiling: of(
            median_ns.zip(trial.bytes).and_then(|(ns, b)| ceiling.read_share(ns, b)),
            if median_ns.is_none() { no_time } else { "the read ceiling was not measured" },
        ),
        sm_clock_mhz: of(median(&clocks), "the device gives no SM clock"),
        stop: trial.stop,
        kept: kept.len() as u64,
        dropped,
        verified_launches: [verified, launches],
        check: trial.check.clone(),
        resources: trial.resources.clone(),
        findings,
        cost: trial.cost,
        time_ns,
    }
}
