//! The values that charts and percentile tables draw from the samples, by the definitions of `harness-measure`.

use harness_measure::percentile::nearest_rank;
use harness_measure::{metrics, pairs};
use harness_spec::record::{DropReason, MetricId, RunRecord, Sample, SideRole};

/// The samples of a record with the judgement on each: the same one that the metrics rest on.
pub(crate) struct Runs<'a> {
    samples: &'a [Sample],
    reasons: Vec<Option<DropReason>>,
}

impl<'a> Runs<'a> {
    /// Judges the samples. A line of `samples.jsonl` was written before its partner ran, so its own field is not enough.
    pub fn new(samples: &'a [Sample]) -> Runs<'a> {
        Runs { samples, reasons: pairs::judge(samples) }
    }

    /// All samples in file order.
    pub fn all(&self) -> &'a [Sample] {
        self.samples
    }

    /// The samples in the statistics.
    pub fn kept(&self) -> impl Iterator<Item = &'a Sample> + '_ {
        self.samples.iter().zip(&self.reasons).filter(|(_, reason)| reason.is_none()).map(|(s, _)| s)
    }

    /// The samples outside the statistics with the reason; declared warm-up is no loss and not among them.
    pub fn lost(&self) -> impl Iterator<Item = (&'a Sample, DropReason)> + '_ {
        let judged = self.samples.iter().zip(&self.reasons);
        judged.filter_map(|(s, reason)| reason.map(|r| (s, r))).filter(|(_, r)| *r != DropReason::Warmup)
    }

    /// The groups of the suite in its order, then groups that only the samples know, each once.
    pub fn groups(&self, record: &RunRecord) -> Vec<String> {
        let suite = &record.suite;
        let planned = suite.prompts.iter().flat_map(|p| suite.lengths.iter().map(|n| format!("{}/{n}", p.id)));
        let mut groups: Vec<String> = Vec::new();
        for group in planned.chain(self.samples.iter().map(group_of)) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// Kept values of one side, ascending. A run for which the metric is not defined has none.
    pub fn values(&self, side: SideRole, id: MetricId) -> Vec<f64> {
        values_of(self.kept(), side, id)
    }

    /// Inter-token latencies of all kept runs of one side, ms, ascending.
    pub fn itl_ms(&self, side: SideRole) -> Vec<f64> {
        ascending(self.kept().filter(|s| s.side == side).filter_map(|s| metrics::itl_ms(s).ok()).flatten())
    }
}

/// Prompt and length of a sample, as groups are named: `relativity/50`.
pub(crate) fn group_of(sample: &Sample) -> String {
    format!("{}/{}", sample.prompt, sample.asked_tokens)
}

/// Values of one side among `samples`, ascending.
pub(crate) fn values_of<'a>(samples: impl Iterator<Item = &'a Sample>, side: SideRole, id: MetricId) -> Vec<f64> {
    ascending(samples.filter(|s| s.side == side).filter_map(|s| metrics::value(s, id).ok()))
}

/// The nearest-rank quantile of ascending values, for drawing: unlike a printed percentile it has no least n.
///
/// # Panics
/// On an empty slice.
pub(crate) fn drawn_quantile(ascending: &[f64], percent: f64) -> f64 {
    ascending[nearest_rank(ascending.len(), percent).clamp(1, ascending.len()) - 1]
}

/// Finite values in ascending order.
fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}
