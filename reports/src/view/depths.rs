//! Groups of runs that fill the context to a depth.

use harness_measure::compare::ALL;
use harness_spec::record::{Estimate, MetricComparison, MetricId, RatioEstimate, RunRecord, SideRole};

/// The depth that a group of runs stands for: that of its prompt, or of the only prompt of the record.
pub(crate) fn depth_of(record: &RunRecord, group: &str) -> Option<u64> {
    let prompts = &record.suite.prompts;
    if group == ALL {
        return match &prompts[..] {
            [only] => only.depth,
            _ => None,
        };
    }
    let (id, _) = group.rsplit_once('/')?;
    prompts.iter().find(|p| p.id == id)?.depth
}

/// Groups that are one prompt of a depth, in the order of the depths.
pub(crate) fn groups(record: &RunRecord) -> Vec<(u64, &str)> {
    let mut found: Vec<(u64, &str)> = record
        .metrics
        .iter()
        .filter(|m| m.id == MetricId::DecodeTokPerS)
        .filter_map(|m| Some((depth_of(record, &m.group)?, m.group.as_str())))
        .collect();
    found.sort_by_key(|&(depth, _)| depth);
    found
}

/// A metric of a group.
pub(crate) fn metric<'a>(record: &'a RunRecord, id: MetricId, group: &str) -> Option<&'a MetricComparison> {
    record.metrics.iter().find(|m| m.id == id && m.group == group)
}

/// A side's estimate of a metric in a group.
pub(crate) fn estimate<'a>(record: &'a RunRecord, role: SideRole, id: MetricId, group: &str) -> Option<&'a Estimate> {
    let m = metric(record, id, group)?;
    match role {
        SideRole::Engine => m.engine.estimate.as_ref(),
        SideRole::Peer => m.peer.as_ref()?.estimate.as_ref(),
    }
}

/// Engine against peer in a group.
pub(crate) fn ratio<'a>(record: &'a RunRecord, id: MetricId, group: &str) -> Option<&'a RatioEstimate> {
    metric(record, id, group)?.ratio.as_ref()
}
