//! Which runs count: hygiene of a run, then of its pair (MEASURING.md §8).

use std::collections::BTreeMap;

use harness_spec::record::{DropReason, Hygiene, Sample, SampleStatus, SideRole};

/// Share of dropped pairs above which nothing is concluded.
pub const MOST_DROPPED: f64 = 0.05;

/// Share of failed requests above which there is no headline.
pub const MOST_FAILED: f64 = 0.02;

/// A pair that counts.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Our run.
    pub engine: &'a Sample,
    /// The peer's run of the same prompt, length and nonce.
    pub peer: &'a Sample,
}

/// What disqualifies a run by itself.
pub fn fault(sample: &Sample) -> Option<DropReason> {
    if sample.dropped == Some(DropReason::Warmup) {
        return Some(DropReason::Warmup);
    }
    match sample.status {
        SampleStatus::Failed { .. } => return Some(DropReason::Failed),
        // A request that Ctrl-C cut is no failure of the server; its pair is lost all the same.
        SampleStatus::Interrupted => return Some(DropReason::PartnerLost),
        SampleStatus::Length | SampleStatus::Stop => {}
    }
    if let Some(server) = &sample.server {
        let cached = server.cached_tokens.unwrap_or(0);
        if cached > 0 {
            return Some(DropReason::CachedPrompt);
        }
        if server.prompt_tokens.is_some_and(|n| n != sample.prompt_tokens) {
            return Some(DropReason::UnequalPromptTokens);
        }
    }
    let carried = sample.token_ns.len() as u64;
    let too_many_chunks = carried > sample.generated_tokens;
    let unmerged_differs = sample.one_token_per_chunk && carried != sample.generated_tokens;
    let wrong_length = sample.status == SampleStatus::Length && sample.generated_tokens != sample.asked_tokens;
    if too_many_chunks || unmerged_differs || wrong_length || carried == 0 {
        return Some(DropReason::WrongCount);
    }
    sample.dropped
}

/// Why each run is left out, in the order of `samples`; `None` for those that count.
///
/// A run counts only together with its partner. Runs of a one-sided record have none and are judged alone.
pub fn judge(samples: &[Sample]) -> Vec<Option<DropReason>> {
    let two_sided = [SideRole::Engine, SideRole::Peer].iter().all(|side| samples.iter().any(|s| s.side == *side));
    let mut out: Vec<Option<DropReason>> = samples.iter().map(fault).collect();
    if !two_sided {
        return out;
    }
    for (engine, peer) in partners(samples, &out) {
        match (engine, peer) {
            (Some(e), Some(p)) => match (out[e], out[p]) {
                (None, None) if samples[e].generated_tokens != samples[p].generated_tokens => {
                    out[e] = Some(DropReason::UnequalTokens);
                    out[p] = Some(DropReason::UnequalTokens);
                }
                (None, None) if samples[e].prompt_tokens != samples[p].prompt_tokens => {
                    out[e] = Some(DropReason::UnequalPromptTokens);
                    out[p] = Some(DropReason::UnequalPromptTokens);
                }
                (None, Some(_)) => out[e] = Some(DropReason::PartnerLost),
                (Some(_), None) => out[p] = Some(DropReason::PartnerLost),
                _ => {}
            },
            (Some(i), None) | (None, Some(i)) => out[i] = out[i].or(Some(DropReason::PartnerLost)),
            (None, None) => {}
        }
    }
    out
}

/// The positions of both members of each pair, warm-up left out, by pair number.
fn partners(samples: &[Sample], reasons: &[Option<DropReason>]) -> Vec<(Option<usize>, Option<usize>)> {
    let mut by_pair: BTreeMap<u64, (Option<usize>, Option<usize>)> = BTreeMap::new();
    for (i, s) in samples.iter().enumerate() {
        if reasons[i] == Some(DropReason::Warmup) {
            continue;
        }
        let slot = by_pair.entry(s.pair).or_default();
        match s.side {
            SideRole::Engine => slot.0 = Some(i),
            SideRole::Peer => slot.1 = Some(i),
        }
    }
    by_pair.into_values().collect()
}

/// The pairs that count, by pair number.
pub fn kept<'a>(samples: &'a [Sample], reasons: &[Option<DropReason>]) -> Vec<Pair<'a>> {
    partners(samples, reasons)
        .into_iter()
        .filter_map(|(e, p)| {
            let (e, p) = (e?, p?);
            (reasons[e].is_none() && reasons[p].is_none()).then(|| Pair { engine: &samples[e], peer: &samples[p] })
        })
        .collect()
}

/// Counts what was kept and what was not, warm-up left out.
pub fn hygiene(samples: &[Sample], reasons: &[Option<DropReason>], planned: u64, interrupted: bool) -> Hygiene {
    let one_sided = {
        let first = samples.first().map(|s| s.side);
        samples.iter().all(|s| Some(s.side) == first)
    };
    let pairs_kept =
        if one_sided { reasons.iter().filter(|r| r.is_none()).count() } else { kept(samples, reasons).len() };
    let mut out = Hygiene { pairs_planned: planned, pairs_kept: pairs_kept as u64, interrupted, ..Hygiene::default() };
    for (sample, reason) in samples.iter().zip(reasons) {
        if *reason == Some(DropReason::Failed) && matches!(sample.status, SampleStatus::Failed { .. }) {
            out.failed_requests += 1;
        }
        match reason {
            None | Some(DropReason::Warmup) => {}
            Some(r) => out.count(*r),
        }
    }
    out
}

/// Why nothing may be concluded from these runs; `None` where they are clean enough.
///
/// Shares are of the pairs that were tried, so that a run cut short is not taken for a dirty one.
pub fn inconclusive_because(samples: &[Sample], reasons: &[Option<DropReason>]) -> Option<String> {
    let complete: Vec<_> = partners(samples, reasons).into_iter().filter_map(|(e, p)| Some((e?, p?))).collect();
    let dropped = complete.iter().filter(|(e, p)| reasons[*e].is_some() || reasons[*p].is_some()).count();
    if complete.is_empty() || dropped as f64 <= MOST_DROPPED * complete.len() as f64 {
        return None;
    }
    Some(format!("{dropped} of {} pairs were dropped, more than 5 %", complete.len()))
}

/// Why there may be no headline; `None` where few enough requests failed.
pub fn no_headline_because(samples: &[Sample], reasons: &[Option<DropReason>]) -> Option<String> {
    let tried = reasons.iter().filter(|r| **r != Some(DropReason::Warmup)).count();
    let failed = samples
        .iter()
        .zip(reasons)
        .filter(|(s, r)| **r != Some(DropReason::Warmup) && matches!(s.status, SampleStatus::Failed { .. }))
        .count();
    if failed as f64 <= MOST_FAILED * tried as f64 {
        return None;
    }
    Some(format!("{failed} of {tried} requests failed, more than 2 %"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use SideRole::{Engine, Peer};
    use harness_spec::record::ServerTimings;

    fn clean(pair: u64) -> [Sample; 2] {
        [run(Engine, pair, 5000, &[1000; 49]), run(Peer, pair, 5000, &[1100; 49])]
    }

    #[test]
    fn a_clean_pair_counts() {
        let s = clean(0);
        assert_eq!(judge(&s), [None, None]);
        assert_eq!(kept(&s, &judge(&s)).len(), 1);
    }

    #[test]
    fn each_broken_rule_drops_the_run_for_its_own_reason_and_the_partner_with_it() {
        type Broken = (&'static str, fn(&mut Sample), DropReason);
        let broken: [Broken; 6] = [
            (
                "cached",
                |s| s.server = Some(ServerTimings { cached_tokens: Some(12), ..Default::default() }),
                DropReason::CachedPrompt,
            ),
            (
                "prompt count",
                |s| s.server = Some(ServerTimings { prompt_tokens: Some(41), ..Default::default() }),
                DropReason::UnequalPromptTokens,
            ),
            ("count", |s| s.generated_tokens = 51, DropReason::WrongCount),
            ("asked more", |s| s.asked_tokens = 60, DropReason::WrongCount),
            ("failed", |s| s.status = SampleStatus::Failed { error: "cut".into() }, DropReason::Failed),
            ("throttled", |s| s.dropped = Some(DropReason::Throttled), DropReason::Throttled),
        ];
        for (name, spoil, reason) in broken {
            let mut s = clean(0);
            spoil(&mut s[1]);
            assert_eq!(judge(&s), [Some(DropReason::PartnerLost), Some(reason)], "{name}");
        }
    }

    #[test]
    fn an_early_stop_counts_only_when_both_sides_made_the_same_number() {
        let mut s = clean(0);
        for x in &mut s {
            x.status = SampleStatus::Stop;
            x.asked_tokens = 200;
        }
        assert_eq!(judge(&s), [None, None]);
        s[1].token_ns.pop();
        s[1].generated_tokens -= 1;
        assert_eq!(judge(&s), [Some(DropReason::UnequalTokens); 2]);
    }

    #[test]
    fn a_run_without_its_partner_is_lost() {
        let s = [clean(0)[0].clone(), clean(1)[0].clone(), clean(1)[1].clone()];
        assert_eq!(judge(&s), [Some(DropReason::PartnerLost), None, None]);
    }

    #[test]
    fn one_sided_runs_need_no_partner() {
        let s = [clean(0)[0].clone(), clean(1)[0].clone()];
        let reasons = judge(&s);
        assert_eq!(reasons, [None, None]);
        assert_eq!(hygiene(&s, &reasons, 2, false).pairs_kept, 2);
    }

    #[test]
    fn more_than_five_percent_of_dropped_pairs_is_inconclusive() {
        let mut s: Vec<Sample> = (0..100).flat_map(clean).collect();
        for pair in 0..5 {
            s[2 * pair].generated_tokens = 51;
        }
        assert_eq!(inconclusive_because(&s, &judge(&s)), None);
        s[10].generated_tokens = 51;
        assert!(inconclusive_because(&s, &judge(&s)).unwrap().starts_with("6 of 100"));
        let h = hygiene(&s, &judge(&s), 100, false);
        assert_eq!((h.pairs_kept, h.dropped["wrong_count"], h.dropped["partner_lost"]), (94, 6, 6));
    }

    #[test]
    fn more_than_two_percent_of_failed_requests_is_no_headline() {
        let mut s: Vec<Sample> = (0..50).flat_map(clean).collect();
        s[0].status = SampleStatus::Failed { error: "500".into() };
        s[1].status = SampleStatus::Failed { error: "500".into() };
        assert_eq!(no_headline_because(&s, &judge(&s)), None);
        s[2].status = SampleStatus::Failed { error: "500".into() };
        assert!(no_headline_because(&s, &judge(&s)).unwrap().starts_with("3 of 100"));
    }

    #[test]
    fn warm_up_is_neither_kept_nor_counted_as_dropped() {
        let mut s = clean(0).to_vec();
        s.extend(clean(1));
        s[0].dropped = Some(DropReason::Warmup);
        s[1].dropped = Some(DropReason::Warmup);
        let reasons = judge(&s);
        let h = hygiene(&s, &reasons, 1, false);
        assert_eq!((h.pairs_kept, h.dropped.len()), (1, 0));
    }
}
