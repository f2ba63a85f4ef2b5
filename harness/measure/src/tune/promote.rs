//! Whether a new table may replace the old one: decided in the whole engine, not by kernels (R27).

use std::fmt;

use harness_spec::record::RatioEstimate;
use harness_spec::{VariantId, Workload};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::{RESAMPLES, RatioOfMedians, Units, bootstrap};
use crate::verdict::LEAST_PAIRS;
use crate::wilcoxon::signed_rank_p;

/// A stage may lose this much at the lower end of its interval.
const MOST_LOST: f64 = 0.005;

/// A stage of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Prompt tokens.
    Prefill,
    /// Generated tokens.
    Decode,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Prefill => "prefill",
            Stage::Decode => "decode",
        })
    }
}

/// Paired rates of the engine with both tables, interleaved: position i of both is pair i.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineEvidence {
    /// Which stage.
    pub stage: Stage,
    /// tok/s with the old table.
    pub old: Vec<f64>,
    /// tok/s with the new table.
    pub new: Vec<f64>,
    /// Block of each pair.
    pub blocks: Vec<u64>,
}

/// A row that the new table changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Which workload.
    pub workload: Workload,
    /// The old variant; `None` where the default was used.
    pub from: Option<VariantId>,
    /// The new variant.
    pub to: VariantId,
}

impl fmt::Display for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or("the default".to_owned(), VariantId::short);
        write!(f, "{}: {from} -> {}", self.workload, self.to.short())
    }
}

/// What became of a new table.
#[derive(Clone, Debug, PartialEq)]
pub struct Promotion {
    /// Whether it may replace the old one.
    pub promoted: bool,
    /// New rate ÷ old rate of each stage that has enough pairs.
    pub ratios: Vec<(Stage, RatioEstimate)>,
    /// Every condition that is not met; empty if promoted.
    pub reasons: Vec<String>,
    /// The rows that are refused; empty if promoted.
    pub rows: Vec<String>,
}

/// Judges a new table by the engine: the lower bounds of prefill and decode at most half a percent down, one of them
/// proven up, and the same greedy tokens. `parity` is where the tokens first differ, if they do.
pub fn promote(evidence: &[EngineEvidence], parity: Result<(), String>, rows: &[RowChange], seed: u64) -> Promotion {
    let mut reasons = Vec::new();
    let mut ratios = Vec::new();
    for stage in [Stage::Prefill, Stage::Decode] {
        let Some(e) = evidence.iter().find(|e| e.stage == stage) else {
            reasons.push(format!("{stage} was not measured"));
            continue;
        };
        match ratio(e, seed) {
            None => reasons.push(format!("{stage} has {} valid pairs, {LEAST_PAIRS} are needed", valid(e).0.len())),
            Some(r) => {
                if r.ci[0].is_nan() || r.ci[0] < 1.0 - MOST_LOST {
                    reasons.push(format!(
                        "{stage} may be slower: {:+.2} %, interval {:+.2} % to {:+.2} %",
                        (r.ratio - 1.0) * 100.0,
                        (r.ci[0] - 1.0) * 100.0,
                        (r.ci[1] - 1.0) * 100.0
                    ));
                }
                ratios.push((stage, r));
            }
        }
    }
    if !ratios.is_empty() && !ratios.iter().any(|(_, r)| r.ci[0] > 1.0) {
        reasons.push("neither prefill nor decode is proven faster".to_owned());
    }
    if let Err(difference) = parity {
        reasons.push(format!("greedy tokens differ: {difference}"));
    }
    let promoted = reasons.is_empty();
    let rows = if promoted { Vec::new() } else { rows.iter().map(ToString::to_string).collect() };
    Promotion { promoted, ratios, reasons, rows }
}

/// Finite, positive pairs.
fn valid(e: &EngineEvidence) -> (Vec<f64>, Vec<f64>, Vec<u64>) {
    let mut out = (Vec::new(), Vec::new(), Vec::new());
    for ((&new, &old), &block) in e.new.iter().zip(&e.old).zip(&e.blocks) {
        if new.is_finite() && old.is_finite() && new > 0.0 && old > 0.0 {
            out.0.push(new);
            out.1.push(old);
            out.2.push(block);
        }
    }
    out
}

fn ratio(e: &EngineEvidence, seed: u64) -> Option<RatioEstimate> {
    let (new, old, blocks) = valid(e);
    if (new.len() as u64) < LEAST_PAIRS {
        return None;
    }
    let logs: Vec<f64> = new.iter().zip(&old).map(|(n, o)| (n / o).ln()).collect();
    let units = Units::choose(&logs, &blocks);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draws = bootstrap(units.members.len(), RESAMPLES, &mut RatioOfMedians::new(&new, &old, &units), &mut rng);
    let p = signed_rank_p(&logs);
    let ci = draws.bca(0.95);
    Some(RatioEstimate {
        ratio: draws.estimate,
        ci,
        level: 0.95,
        n_pairs: new.len() as u64,
        p,
        p_holm: p,
        tau: MOST_LOST,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    fn stage(stage: Stage, ratio: f64, seed: u64) -> EngineEvidence {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let old: Vec<f64> = (0..60).map(|_| 100.0 * rng.random_range(0.995..1.005)).collect();
        let new = (0..60).map(|_| 100.0 * ratio * rng.random_range(0.995..1.005)).collect();
        EngineEvidence { stage, old, new, blocks: (0..60).map(|i| i / 10).collect() }
    }

    fn rows() -> Vec<RowChange> {
        vec![RowChange {
            workload: "gemv_q4_0 N=64 K=64".parse().unwrap(),
            from: None,
            to: "gemv_q4_0/fast[R=2]@cuda".parse().unwrap(),
        }]
    }

    #[test]
    fn a_table_that_speeds_decode_and_leaves_prefill_is_promoted() {
        let e = [stage(Stage::Prefill, 1.0, 1), stage(Stage::Decode, 1.05, 2)];
        let p = promote(&e, Ok(()), &rows(), 1);
        assert!(p.promoted && p.rows.is_empty() && p.reasons.is_empty(), "{p:?}");
        assert_eq!(p.ratios.len(), 2);
    }

    #[test]
    fn faster_kernels_in_a_slower_engine_are_refused_and_their_rows_named() {
        let e = [stage(Stage::Prefill, 1.2, 1), stage(Stage::Decode, 0.98, 2)];
        let p = promote(&e, Ok(()), &rows(), 1);
        assert!(!p.promoted);
        assert_eq!(p.rows, ["gemv_q4_0 K=64 N=64: the default -> fast[R=2]@cuda"]);
        assert!(p.reasons.len() == 1 && p.reasons[0].starts_with("decode may be slower: -"), "{:?}", p.reasons);
    }

    #[test]
    fn no_gain_other_tokens_and_a_missing_stage_each_refuse() {
        let same = [stage(Stage::Prefill, 1.0, 1), stage(Stage::Decode, 1.0, 2)];
        let p = promote(&same, Ok(()), &rows(), 1);
        assert_eq!(p.reasons, ["neither prefill nor decode is proven faster"]);
        let good = [stage(Stage::Prefill, 1.0, 1), stage(Stage::Decode, 1.05, 2)];
        let p = promote(&good, Err("token 7 is 3 instead of 4".into()), &rows(), 1);
        assert_eq!(p.reasons, ["greedy tokens differ: token 7 is 3 instead of 4"]);
        let p = promote(&good[1..], Ok(()), &rows(), 1);
        assert_eq!(p.reasons, ["prefill was not measured"]);
        let mut few = good.clone();
        few[1].new[..55].fill(f64::NAN);
        let p = promote(&few, Ok(()), &rows(), 1);
        assert!(p.reasons[0].contains("decode has 5 valid pairs"), "{:?}", p.reasons);
    }
}
