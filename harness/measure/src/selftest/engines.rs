//! Comparisons of scripted engines: two that are the same, and one that is slower.

use harness_spec::record::{MetricId, Provenance, SelftestFigure, Verdict};

use super::figures::Count;
use super::{Effort, INJECTED, LEAST_FOUND, MOST_FALSE};
use crate::compare::{ALL, AnalysisOptions, analyse};
use crate::fake::{SideScript, play_sides};
use crate::schedule::{LONGEST_BLOCK, Schedule, ScheduleSpec};

/// Tokens of a run: too few for a 99th percentile, whose bootstrap would take most of the time.
const TOKENS: u64 = 8;

pub(super) fn figures(seed: u64, effort: &Effort, go_on: &mut dyn FnMut() -> bool) -> Option<Vec<SelftestFigure>> {
    let (mut false_verdicts, mut found) = (Count::default(), Count::default());
    for comparison in 0..effort.comparisons {
        for slowed in [0.0, INJECTED] {
            if !go_on() {
                return None;
            }
            let seed = seed.wrapping_mul(1_000_003).wrapping_add(2 * comparison + u64::from(slowed > 0.0));
            let spec = ScheduleSpec {
                runs: effort.runs,
                block_len: LONGEST_BLOCK,
                prompts: 1,
                lengths: &[TOKENS],
                warmup: 0,
                seed,
            };
            let schedule = Schedule::paired(&spec).expect("the specification has runs, a prompt and a length");
            let engine = SideScript::noisy(1.0 / (1.0 + slowed));
            let samples = play_sides(&schedule, &engine, &SideScript::noisy(1.0), seed);
            let options = AnalysisOptions { resamples: effort.resamples, ..AnalysisOptions::new(seed, effort.runs) };
            let analysis = analyse(&samples, &options);
            let verdict = |m: &harness_spec::record::MetricComparison| m.verdict;
            if slowed > 0.0 {
                let decode = analysis
                    .metrics
                    .iter()
                    .find(|m| m.id == MetricId::DecodeTokPerS && m.group == ALL)
                    .and_then(verdict);
                found.add(decode == Some(Verdict::Slower));
            } else {
                false_verdicts.add(analysis.metrics.iter().filter_map(verdict).any(Verdict::is_difference));
            }
        }
    }
    let over = |what: &str| format!("comparisons of {} runs a side, {what}", effort.runs);
    Some(vec![
        false_verdicts.figure(
            "comparison: equal engines with a false verdict",
            over("both sides the same, every metric of the family"),
            Provenance::Simulated,
            [None, Some(MOST_FALSE)],
        ),
        found.figure(
            "comparison: the slowdown is found",
            over(&format!("ours slowed by {:.0} %", INJECTED * 100.0)),
            Provenance::Simulated,
            [Some(LEAST_FOUND), None],
        ),
    ])
}
