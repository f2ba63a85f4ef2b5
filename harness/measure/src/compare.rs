//! From raw samples to the metrics, ratios and verdicts of a record. A pure function: any reader of a record can call it
//! again and gets the same numbers.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::record::{
    DropReason, Estimate, Hygiene, MetricComparison, MetricId, RatioEstimate, Sample, ServerReported, SideRole,
    SideSummary, Verdict,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::RESAMPLES;
use crate::describe::estimate;
use crate::evidence::{self, Evidence};
use crate::metrics::{Missing, itl_ms, value};
use crate::pairs::{self, Pair};
use crate::percentile::{least_n, percentile};
use crate::verdict::decide;
use crate::{holm, jitter, server};

/// Every metric, in the order of tables.
pub const METRICS: [MetricId; 7] = [
    MetricId::DecodeTokPerS,
    MetricId::PromptTokPerSThroughTtft,
    MetricId::TtftMs,
    MetricId::ItlP50Ms,
    MetricId::ItlP99Ms,
    MetricId::ItlJitterMs,
    MetricId::TotalMs,
];

/// The group of all runs.
pub const ALL: &str = "all";
/// The note of every metric of a verdict that is withheld. The reason may be long, and stands beside the headline once.
const WITHHELD: &str = "the verdict is withheld, see the headline";

/// What an analysis needs beside the samples.
#[derive(Clone, Debug)]
pub struct AnalysisOptions {
    /// Seed of the bootstrap and the noise floor; the plan's.
    pub seed: u64,
    /// Bootstrap resamples; [`RESAMPLES`] in every published record.
    pub resamples: usize,
    /// Why no verdict may be given, such as a mismatched manifest.
    pub withhold: Option<String>,
    /// Pairs that were planned.
    pub pairs_planned: u64,
    /// Whether the run was cut short.
    pub interrupted: bool,
}

impl AnalysisOptions {
    /// Options of a published record.
    pub fn new(seed: u64, pairs_planned: u64) -> Self {
        AnalysisOptions { seed, resamples: RESAMPLES, withhold: None, pairs_planned, interrupted: false }
    }
}

/// What the samples come to.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// Metrics, over all runs first.
    pub metrics: Vec<MetricComparison>,
    /// Server-side figures.
    pub server_reported: Vec<ServerReported>,
    /// What was kept.
    pub hygiene: Hygiene,
    /// Why each sample is left out, in the order of the samples.
    pub reasons: Vec<Option<DropReason>>,
    /// Verdict on decode tok/s over all runs.
    pub verdict: Option<Verdict>,
    /// Why there is no headline.
    pub blocked: Option<String>,
    /// How thresholds and intervals came about.
    pub notes: Vec<String>,
}

/// A row under construction: Holm needs the whole family before any verdict.
struct Row {
    out: MetricComparison,
    evidence: Option<Evidence>,
    /// Whether the row belongs to the family of verdicts; the others describe.
    in_family: bool,
}

/// Compares the engine with the peer.
pub fn analyse(samples: &[Sample], options: &AnalysisOptions) -> Analysis {
    let reasons = pairs::judge(samples);
    let kept = pairs::kept(samples, &reasons);
    let hygiene = pairs::hygiene(samples, &reasons, options.pairs_planned, options.interrupted);
    let dirty = pairs::inconclusive_because(samples, &reasons);
    let blocked = options.withhold.clone().or_else(|| pairs::no_headline_because(samples, &reasons));

    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut rows = Vec::new();
    for (group, members, is_cell) in groups(&kept) {
        for id in METRICS {
            rows.push(row(id, &group, &members, is_cell, options, &mut rng));
        }
    }
    conclude(&mut rows, dirty.as_deref(), options.withhold.is_some());

    let mut notes = Vec::new();
    if let Some(e) = rows.iter().find(|r| r.out.id == MetricId::DecodeTokPerS).and_then(|r| r.evidence.as_ref()) {
        notes.push(if e.tau > crate::noise::LEAST_TAU {
            format!(
                "threshold on decode tok/s: {:.2} %, the noise floor of neighbouring runs of one side in this session (no A/A run exists)",
                e.tau * 100.0
            )
        } else {
            "threshold on decode tok/s: 1 %, the least; the noise floor of neighbouring runs of one side lies below it".to_owned()
        });
    }
    if let Some(why) = &dirty {
        notes.push(format!("nothing is concluded: {why}"));
    }
    let verdict = rows
        .iter()
        .find(|r| r.out.id == MetricId::DecodeTokPerS && r.out.group == ALL)
        .and_then(|r| r.out.verdict)
        .or(Some(if options.withhold.is_some() { Verdict::Withheld } else { Verdict::Unstable }));
    Analysis {
        metrics: rows.into_iter().map(|r| r.out).collect(),
        server_reported: vec![
            server::reported(SideRole::Engine, kept.iter().map(|p| p.engine)),
            server::reported(SideRole::Peer, kept.iter().map(|p| p.peer)),
        ],
        hygiene,
        reasons,
        verdict,
        blocked,
        notes,
    }
}

/// Describes one side alone: the same metrics and groups, no ratio and no verdict.
pub fn describe_one_side(samples: &[Sample], side: SideRole, options: &AnalysisOptions) -> Analysis {
    let reasons = pairs::judge(samples);
    let hygiene = pairs::hygiene(samples, &reasons, options.pairs_planned, options.interrupted);
    let kept: Vec<&Sample> = samples.iter().zip(&reasons).filter(|(_, r)| r.is_none()).map(|(s, _)| s).collect();
    let mut metrics = Vec::new();
    for (group, members, _) in group_by(&kept, |s| s) {
        for id in METRICS {
            let summary = summarise(id, &members);
            let absent = || SideSummary { estimate: None, reason: Some("this side was not run".into()) };
            let (engine, peer) = match side {
                SideRole::Engine => (summary, None),
                SideRole::Peer => (absent(), Some(summary)),
            };
            metrics.push(MetricComparison {
                id,
                group: group.clone(),
                engine,
                peer,
                ratio: None,
                verdict: None,
                note: None,
            });
        }
    }
    Analysis {
        metrics,
        server_reported: vec![server::reported(side, kept.iter().copied())],
        hygiene,
        blocked: options.withhold.clone().or_else(|| pairs::no_headline_because(samples, &reasons)),
        reasons,
        verdict: None,
        notes: Vec::new(),
    }
}

/// All runs, then those of each length where there are several, then each prompt and length. The flag marks the last.
fn groups<'a>(kept: &[Pair<'a>]) -> Vec<(String, Vec<Pair<'a>>, bool)> {
    group_by(kept, |p| p.engine)
}

fn group_by<T: Copy>(items: &[T], sample: impl Fn(&T) -> &Sample) -> Vec<(String, Vec<T>, bool)> {
    let mut by_length: BTreeMap<u64, Vec<T>> = BTreeMap::new();
    let mut cells: BTreeMap<(&str, u64), Vec<T>> = BTreeMap::new();
    let mut cell_order = Vec::new();
    for item in items {
        let s = sample(item);
        by_length.entry(s.asked_tokens).or_default().push(*item);
        let key = (s.prompt.as_str(), s.asked_tokens);
        if !cells.contains_key(&key) {
            cell_order.push(key);
        }
        cells.entry(key).or_default().push(*item);
    }
    let mut out = vec![(ALL.to_owned(), items.to_vec(), false)];
    if by_length.len() > 1 {
        out.extend(by_length.into_iter().map(|(length, v)| (format!("{ALL}/{length}"), v, false)));
    }
    if cell_order.len() > 1 {
        for key in cell_order {
            let members = cells.remove(&key).expect("every key of the order was entered");
            out.push((format!("{}/{}", key.0, key.1), members, true));
        }
    }
    out
}

fn row(
    id: MetricId,
    group: &str,
    members: &[Pair<'_>],
    is_cell: bool,
    options: &AnalysisOptions,
    rng: &mut ChaCha8Rng,
) -> Row {
    let engine: Vec<&Sample> = members.iter().map(|p| p.engine).collect();
    let peer: Vec<&Sample> = members.iter().map(|p| p.peer).collect();
    let (engine, peer) = (summarise(id, &engine), summarise(id, &peer));
    let mut note = engine.reason.clone().or_else(|| peer.reason.clone());
    let both = engine.estimate.is_some() && peer.estimate.is_some();
    let evidence = if !both {
        None
    } else if id == MetricId::ItlP99Ms {
        evidence::of_pools(members, options.resamples, rng)
    } else {
        evidence::of_runs(id, members, options.resamples, rng)
    };
    // Each metric is judged once: over all runs, except those that mixed lengths have no value of.
    let in_family = evidence.is_some() && id != MetricId::TotalMs && !is_cell && {
        let by_length = matches!(id, MetricId::ItlP99Ms | MetricId::ItlJitterMs);
        group == ALL || by_length
    };
    if note.is_none() && evidence.is_some() && !in_family {
        note = Some("descriptive: outside the family of verdicts, interval at 95 %".into());
    }
    if let Some(e) = &evidence
        && e.blocks
    {
        append(&mut note, "whole blocks were resampled, since blocks differ by more than their inner spread");
    }
    if id == MetricId::ItlP99Ms && both {
        append(&mut note, "the medians shown are the 99th percentile of the pooled latencies");
    }
    Row {
        out: MetricComparison {
            id,
            group: group.to_owned(),
            engine,
            peer: Some(peer),
            ratio: None,
            verdict: None,
            note,
        },
        evidence,
        in_family,
    }
}

fn append(note: &mut Option<String>, more: &str) {
    *note = Some(match note.take() {
        Some(n) => format!("{n}; {more}"),
        None => more.to_owned(),
    });
}

/// One side's values of a metric over a group of runs.
fn summarise(id: MetricId, runs: &[&Sample]) -> SideSummary {
    let result = match id {
        MetricId::ItlP99Ms => pooled_p99(runs),
        MetricId::ItlJitterMs => jitter::one_length(runs).and_then(|_| over_runs(id, runs)),
        _ => over_runs(id, runs),
    };
    match result {
        Ok(e) => SideSummary { estimate: Some(e), reason: None },
        Err(why) => SideSummary { estimate: None, reason: Some(why.to_string()) },
    }
}

/// One value a run; runs without one are left out, and if none has one the first reason stands.
fn over_runs(id: MetricId, runs: &[&Sample]) -> Result<Estimate, Missing> {
    let mut first_reason = Missing::NoRuns;
    let mut values = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        match value(run, id) {
            Ok(v) => values.push(v),
            Err(why) if values.is_empty() && i == 0 => first_reason = why,
            Err(_) => {}
        }
    }
    estimate(&values).ok_or(first_reason)
}

/// The 99th percentile of the latencies of each prompt and length, pooled over its runs; over several of them, the centre
/// of their percentiles. Prompts and lengths with too few latencies are left out.
fn pooled_p99(runs: &[&Sample]) -> Result<Estimate, Missing> {
    jitter::one_length(runs)?;
    let mut pools: BTreeMap<(&str, u64), Vec<f64>> = BTreeMap::new();
    for run in runs {
        if let Ok(itl) = itl_ms(run) {
            pools.entry((run.prompt.as_str(), run.asked_tokens)).or_default().extend(itl);
        }
    }
    let largest = pools.values().map(Vec::len).max().ok_or(Missing::MergedChunks)?;
    let deep: Vec<&Vec<f64>> = pools.values().filter(|p| p.len() >= least_n(99.0)).collect();
    match deep.as_slice() {
        [] => Err(Missing::TooFewOfOnePrompt { percent: 99.0, n: largest, need: least_n(99.0) }),
        [one] => {
            let p99 = percentile(one, 99.0)?;
            let base = estimate(one).ok_or(Missing::NoRuns)?;
            Ok(Estimate { median: p99.value, ci95: p99.ci95, ..base })
        }
        many => {
            let each: Vec<f64> = many.iter().filter_map(|p| percentile(p, 99.0).ok()).map(|p| p.value).collect();
            estimate(&each).ok_or(Missing::NoRuns)
        }
    }
}

/// Adjusts the family, sets intervals at the levels Holm asks for, and decides.
fn conclude(rows: &mut [Row], dirty: Option<&str>, withhold: bool) {
    let family: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].in_family).collect();
    let p: Vec<f64> = family.iter().filter_map(|&i| rows[i].evidence.as_ref()).map(|e| e.p).collect();
    let adjusted: BTreeMap<usize, holm::Adjusted> = family.into_iter().zip(holm::adjust(&p)).collect();
    for (i, row) in rows.iter_mut().enumerate() {
        let Some(e) = &row.evidence else { continue };
        let level = adjusted.get(&i).map_or(1.0 - holm::ALPHA, |a| a.level);
        let ratio = RatioEstimate {
            ratio: e.draws.estimate,
            ci: e.draws.bca(level),
            level,
            n_pairs: e.pairs,
            p: e.p,
            p_holm: adjusted.get(&i).map_or(e.p, |a| a.p),
            tau: e.tau,
        };
        if row.in_family {
            row.out.verdict = Some(if withhold {
                append(&mut row.out.note, WITHHELD);
                Verdict::Withheld
            } else {
                match decide(&ratio) {
                    Verdict::Unstable => Verdict::Unstable,
                    _ if dirty.is_some() => Verdict::Inconclusive,
                    v => v,
                }
            });
            if let (false, Some(why)) = (withhold, dirty) {
                append(&mut row.out.note, why);
            }
        }
        row.out.ratio = Some(ratio);
    }
}

/// The prompts and lengths that the kept runs are of, for a reader who wants to know how far `all` reaches.
pub fn workloads(samples: &[Sample], reasons: &[Option<DropReason>]) -> BTreeSet<(String, u64)> {
    samples.iter().zip(reasons).filter(|(_, r)| r.is_none()).map(|(s, _)| (s.prompt.clone(), s.asked_tokens)).collect()
}
