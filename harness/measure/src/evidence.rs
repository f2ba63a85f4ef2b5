//! What the pairs say of one metric: a bootstrap distribution of the ratio, a p, and the threshold to hold them against.

use std::collections::BTreeMap;

use harness_spec::record::MetricId;
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::{Draws, PairTokens, RatioOfMedians, RatioOfPercentiles, Units, bootstrap};
use crate::describe::{median, sorted};
use crate::metrics::{itl_ms, value};
use crate::noise::{LEAST_TAU, same_side_floor, tau};
use crate::pairs::Pair;
use crate::percentile::least_n;
use crate::wilcoxon::signed_rank_p;

/// What is known of a ratio before the family is adjusted.
pub(crate) struct Evidence {
    /// Its bootstrap distribution.
    pub draws: Draws,
    /// p before adjustment.
    pub p: f64,
    /// Practical threshold.
    pub tau: f64,
    /// Pairs.
    pub pairs: u64,
    /// Whether whole blocks were resampled.
    pub blocks: bool,
}

/// Values of both sides for the pairs in which both have one, with the block of the engine's run.
struct Paired {
    engine: Vec<f64>,
    peer: Vec<f64>,
    blocks: Vec<[u64; 2]>,
}

/// Takes the workload out of paired values: both sides' values of a prompt and length are divided by the same centre.
///
/// Pairs of different lengths have different speeds on both sides. The median of such a mixture falls into the gap between
/// its modes, where it is decided by the extremes of each; divided by a centre common to both sides, the ratio is left as
/// it is and only differences between workloads go.
fn paired_values(id: MetricId, members: &[Pair<'_>]) -> Paired {
    let mut rows = Vec::new();
    let mut cells: BTreeMap<(&str, u64), Vec<f64>> = BTreeMap::new();
    for p in members {
        if let (Ok(e), Ok(q)) = (value(p.engine, id), value(p.peer, id)) {
            let key = (p.engine.prompt.as_str(), p.engine.asked_tokens);
            cells.entry(key).or_default().push((e.ln() + q.ln()) / 2.0);
            rows.push((key, e, q, [p.engine.block, p.peer.block]));
        }
    }
    let one_cell = cells.len() <= 1;
    let centres: BTreeMap<_, f64> =
        cells.into_iter().map(|(k, logs)| (k, median(&logs).map_or(1.0, f64::exp))).collect();
    let mut out = Paired { engine: Vec::new(), peer: Vec::new(), blocks: Vec::new() };
    for (key, e, q, blocks) in rows {
        let centre = if one_cell { 1.0 } else { centres[&key] };
        // A jitter of exactly zero has no logarithm to centre by.
        let centre = if centre.is_finite() && centre > 0.0 { centre } else { 1.0 };
        out.engine.push(e / centre);
        out.peer.push(q / centre);
        out.blocks.push(blocks);
    }
    out
}

/// Evidence on a metric that each run has a value of.
pub(crate) fn of_runs(id: MetricId, members: &[Pair<'_>], resamples: usize, rng: &mut ChaCha8Rng) -> Option<Evidence> {
    let v = paired_values(id, members);
    if v.engine.is_empty() || v.engine.iter().chain(&v.peer).any(|x| !x.is_finite() || *x <= 0.0) {
        return None;
    }
    let (better, worse) = if id.higher_is_better() { (&v.engine, &v.peer) } else { (&v.peer, &v.engine) };
    let logs: Vec<f64> = better.iter().zip(worse).map(|(b, w)| (b / w).ln()).collect();
    let block_pairs: Vec<u64> = v.blocks.iter().map(|b| b[0].min(b[1])).collect();
    let units = Units::choose(&logs, &block_pairs);
    let mut statistic = RatioOfMedians::new(better, worse, &units);
    let draws = bootstrap(units.members.len(), resamples, &mut statistic, rng);
    let floor = |side: &[f64], which: usize, rng: &mut ChaCha8Rng| {
        let ordered: Vec<(u64, f64)> = v.blocks.iter().map(|b| b[which]).zip(side.iter().copied()).collect();
        same_side_floor(&ordered, rng)
    };
    let floors = [floor(&v.engine, 0, rng), floor(&v.peer, 1, rng)];
    Some(Evidence {
        draws,
        p: signed_rank_p(&logs),
        tau: tau(floors, LEAST_TAU),
        pairs: logs.len() as u64,
        blocks: units.blocks,
    })
}

/// Inter-token latencies of a pair: the engine's and the peer's.
type BothItl = (Vec<f64>, Vec<f64>);

/// Evidence on pooled percentiles. They have no value a pair, so p comes from the bootstrap itself, and neighbouring runs
/// show no noise floor, so τ is the least.
pub(crate) fn of_pools(members: &[Pair<'_>], resamples: usize, rng: &mut ChaCha8Rng) -> Option<Evidence> {
    let mut cells: BTreeMap<(&str, u64), Vec<BothItl>> = BTreeMap::new();
    for p in members {
        if let (Ok(e), Ok(q)) = (itl_ms(p.engine), itl_ms(p.peer)) {
            cells.entry((p.engine.prompt.as_str(), p.engine.asked_tokens)).or_default().push((e, q));
        }
    }
    let deep = |side: fn(&BothItl) -> usize, v: &Vec<BothItl>| v.iter().map(side).sum::<usize>() >= least_n(99.0);
    let pairs: Vec<PairTokens> = cells
        .into_values()
        .filter(|v| deep(|x| x.0.len(), v) && deep(|x| x.1.len(), v))
        .enumerate()
        .flat_map(|(cell, v)| {
            // Latencies are times: the peer's over the engine's is above 1 where the engine is better.
            v.into_iter().map(move |(engine, peer)| PairTokens { cell, numerator: peer, denominator: engine })
        })
        .collect();
    if pairs.is_empty() || pairs.iter().any(|p| sorted(&p.denominator).last() <= Some(&0.0)) {
        return None;
    }
    let mut statistic = RatioOfPercentiles::new(&pairs, 99.0);
    let draws = bootstrap(pairs.len(), resamples, &mut statistic, rng);
    let p = draws.p_of_one();
    Some(Evidence { draws, p, tau: LEAST_TAU, pairs: pairs.len() as u64, blocks: false })
}
