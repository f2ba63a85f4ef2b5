//! A scripted engine and peer: every number is known beforehand (R28, R29, R33).

use harness_measure::compare::ALL;
use harness_measure::fake::{SideScript, play_sides as play};
use harness_measure::{AnalysisOptions, Schedule, ScheduleSpec, analyse, describe_one_side};
use harness_spec::record::{MetricComparison, MetricId, Sample, SampleStatus, SideRole, Verdict};
use harness_spec::units::Nanos;

fn schedule(runs: u64, lengths: &[u64], seed: u64) -> Schedule {
    Schedule::paired(&ScheduleSpec { runs, block_len: 10, prompts: 4, lengths, warmup: 0, seed }).unwrap()
}

/// So many prompts that none has the thousand latencies a p99 needs: its bootstrap would be most of the time of a test
/// that is about another metric.
fn many_prompts(runs: u64, lengths: &[u64], seed: u64) -> Schedule {
    Schedule::paired(&ScheduleSpec { runs, block_len: 10, prompts: 20, lengths, warmup: 0, seed }).unwrap()
}

fn quiet(speed: f64) -> SideScript {
    SideScript::quiet(speed)
}

fn noisy(speed: f64) -> SideScript {
    SideScript::noisy(speed)
}

fn find<'a>(metrics: &'a [MetricComparison], id: MetricId, group: &str) -> &'a MetricComparison {
    metrics.iter().find(|m| m.id == id && m.group == group).unwrap_or_else(|| panic!("no {id:?} of {group}"))
}

#[test]
fn a_scripted_engine_gets_every_metric_back_within_a_tenth_of_a_percent() {
    // Without drift and noise the tokens lie 4 ms apart at 50 tokens and 4.12 ms at 200.
    let mut samples = play(&schedule(80, &[50], 1), &quiet(1.0), &quiet(0.8), 1);
    for s in &mut samples {
        let k = if s.side == SideRole::Engine { 1.0 } else { 1.25 };
        for (i, t) in s.token_ns.iter_mut().enumerate() {
            *t = Nanos(s.submit_ns.0 + (k * (20.0 + 4.0 * i as f64) * 1e6) as u64);
        }
    }
    let a = analyse(&samples, &AnalysisOptions::new(1, 80));
    for (id, engine, ratio) in [
        (MetricId::DecodeTokPerS, 250.0, 1.25),
        (MetricId::PromptTokPerSThroughTtft, 2000.0, 1.25),
        (MetricId::TtftMs, 20.0, 1.25),
        (MetricId::ItlP50Ms, 4.0, 1.25),
        (MetricId::TotalMs, 216.0, 1.25),
    ] {
        let m = find(&a.metrics, id, ALL);
        let e = m.engine.estimate.as_ref().unwrap();
        assert!((e.median / engine - 1.0).abs() < 1e-3, "{id:?}: {} instead of {engine}", e.median);
        assert_eq!(e.n, 80);
        let r = m.ratio.as_ref().unwrap();
        assert!((r.ratio / ratio - 1.0).abs() < 1e-3, "{id:?}: ratio {}", r.ratio);
    }
    assert_eq!(a.verdict, Some(Verdict::Faster));
    for r in &a.server_reported {
        let want = if r.side == SideRole::Engine { 250.0 } else { 200.0 };
        assert!((r.decode_tok_per_s.value.unwrap() / want - 1.0).abs() < 1e-3);
    }
}

#[test]
fn right_verdicts_at_least_95_times_of_100_at_1_00_and_1_02_and_1_10() {
    for (speed, want) in [(1.00, Verdict::Tie), (1.02, Verdict::Faster), (1.10, Verdict::Faster)] {
        let mut right = 0;
        let mut others = Vec::new();
        for seed in 0..100 {
            let samples = play(&many_prompts(100, &[50], seed), &noisy(speed), &noisy(1.0), 1000 + seed);
            let options = AnalysisOptions { resamples: 500, ..AnalysisOptions::new(seed, 100) };
            let a = analyse(&samples, &options);
            if a.verdict == Some(want) {
                right += 1;
            } else {
                others.push((seed, a.verdict, find(&a.metrics, MetricId::DecodeTokPerS, ALL).ratio.clone()));
            }
        }
        assert!(right >= 95, "at {speed}: {right} of 100 right; wrong: {others:#?}");
    }
}

#[test]
fn a_mixture_of_lengths_does_not_blur_a_difference_of_two_percent() {
    let mut right = 0;
    for seed in 0..20 {
        let samples = play(&many_prompts(100, &[50, 200], seed), &noisy(1.0), &noisy(1.02), 2000 + seed);
        let a = analyse(&samples, &AnalysisOptions { resamples: 500, ..AnalysisOptions::new(seed, 100) });
        right += u32::from(a.verdict == Some(Verdict::Slower));
    }
    assert!(right >= 19, "{right} of 20 right");
}

#[test]
fn jitter_and_p99_over_mixed_lengths_are_refused_with_the_reason_and_judged_by_length() {
    let samples = play(&schedule(100, &[50, 200], 3), &noisy(1.1), &noisy(1.0), 3);
    let a = analyse(&samples, &AnalysisOptions { resamples: 200, ..AnalysisOptions::new(3, 100) });
    for id in [MetricId::ItlJitterMs, MetricId::ItlP99Ms] {
        let m = find(&a.metrics, id, ALL);
        assert!(m.engine.estimate.is_none() && m.verdict.is_none() && m.ratio.is_none());
        assert!(m.note.as_ref().unwrap().contains("mixed output lengths"), "{:?}", m.note);
    }
    assert_eq!(find(&a.metrics, MetricId::ItlJitterMs, "all/200").verdict, Some(Verdict::Faster));
    // 12 or 13 runs of 199 latencies reach a p99, as many of 49 do not.
    assert_eq!(find(&a.metrics, MetricId::ItlP99Ms, "all/200").verdict, Some(Verdict::Faster));
    let short = find(&a.metrics, MetricId::ItlP99Ms, "all/50");
    assert!(short.engine.estimate.is_none() && short.note.as_ref().unwrap().contains("needs 1000"), "{:?}", short.note);
}

#[test]
fn three_runs_are_unstable_and_never_a_win() {
    let samples = play(&schedule(3, &[50], 3), &noisy(2.0), &noisy(1.0), 3);
    let a = analyse(&samples, &AnalysisOptions { resamples: 500, ..AnalysisOptions::new(3, 3) });
    assert_eq!(a.verdict, Some(Verdict::Unstable));
}

#[test]
fn a_withheld_verdict_keeps_the_numbers() {
    let samples = play(&schedule(20, &[50], 3), &noisy(2.0), &noisy(1.0), 3);
    let options =
        AnalysisOptions { withhold: Some("weights differ".into()), resamples: 500, ..AnalysisOptions::new(3, 20) };
    let a = analyse(&samples, &options);
    assert_eq!(a.verdict, Some(Verdict::Withheld));
    assert_eq!(a.blocked.as_deref(), Some("weights differ"));
    assert!(a.metrics.iter().all(|m| m.verdict.is_none_or(|v| v == Verdict::Withheld)));
    assert!(find(&a.metrics, MetricId::DecodeTokPerS, ALL).ratio.is_some());
}

#[test]
fn more_than_five_percent_of_dropped_pairs_turns_every_verdict_inconclusive() {
    let mut samples = play(&schedule(100, &[50], 3), &noisy(2.0), &noisy(1.0), 3);
    for s in samples.iter_mut().filter(|s| s.pair < 6 && s.side == SideRole::Peer) {
        s.status = SampleStatus::Stop;
        s.token_ns.truncate(30);
        s.generated_tokens = 30;
    }
    let a = analyse(&samples, &AnalysisOptions { resamples: 200, ..AnalysisOptions::new(3, 100) });
    assert_eq!(a.verdict, Some(Verdict::Inconclusive));
    assert_eq!((a.hygiene.pairs_kept, a.hygiene.dropped["unequal_tokens"]), (94, 12));
}

#[test]
fn nothing_kept_is_unstable_and_every_value_has_a_reason() {
    let a = analyse(&[], &AnalysisOptions::new(1, 10));
    assert_eq!(a.verdict, Some(Verdict::Unstable));
    assert!(a.metrics.iter().all(|m| m.engine.estimate.is_none() && m.engine.reason.is_some()));
}

#[test]
fn one_side_alone_has_the_same_metrics_and_no_verdict() {
    let samples: Vec<Sample> = play(&schedule(20, &[50], 3), &quiet(1.0), &quiet(1.0), 3)
        .into_iter()
        .filter(|s| s.side == SideRole::Peer)
        .collect();
    let a = describe_one_side(&samples, SideRole::Peer, &AnalysisOptions::new(3, 20));
    let m = find(&a.metrics, MetricId::DecodeTokPerS, ALL);
    assert!(m.engine.estimate.is_none() && m.engine.reason.is_some() && m.verdict.is_none() && m.ratio.is_none());
    assert_eq!(m.peer.as_ref().unwrap().estimate.as_ref().unwrap().n, 20);
}

#[test]
fn the_same_samples_give_the_same_record_twice() {
    let samples = play(&schedule(40, &[50, 200], 9), &noisy(1.02), &noisy(1.0), 9);
    let options = AnalysisOptions { resamples: 500, ..AnalysisOptions::new(9, 40) };
    assert_eq!(analyse(&samples, &options).metrics, analyse(&samples, &options).metrics);
}
