//! One cell on the scripted device: warm-up, stop rule, clocks, physics, order (R5–R13).

mod common;

use common::{WORKLOAD, floor_cell, go, plain, script, sweep, trial, winner};
use harness_measure::fake::{Fake, Rule};
use harness_spec::record::{Finding, Outcome, SampleDrop, StopReason};
use harness_spec::{CacheState, LaunchMode, Phase, Policy};

fn one(toml: &str) -> (harness_measure::tune::KernelOutcome, harness_spec::record::Trial, Fake) {
    let mut fake = Fake::new(script(toml));
    let (out, journal) = go(&mut fake, &sweep(plain(&["a"])));
    let t = trial(&journal, "a").clone();
    (out, t, fake)
}

#[test]
fn a_quiet_cell_converges_and_its_first_sample_is_dropped() {
    let (out, t, _) = one("[device]\nnoise = { kind = \"quiet\", sigma = 0.004 }");
    assert_eq!(t.stop, Some(StopReason::Converged));
    assert_eq!(t.samples[0].dropped, Some(SampleDrop::First));
    assert_eq!(t.samples.iter().filter(|s| s.dropped.is_some()).count(), 1);
    let cell = &out.cells[0];
    let time = cell.time_ns.as_ref().unwrap();
    assert!(time.n >= 10 && cell.kept == time.n);
    let [lo, hi] = time.ci95.unwrap();
    assert!((hi - lo) / 2.0 <= 0.01 * time.median);
    // Cycles are time × clock, and the rate is bytes ÷ time.
    assert!((cell.cycles.as_ref().unwrap().median / (time.median * 1.98) - 1.0).abs() < 1e-9);
    assert!((cell.gb_per_s.value.unwrap() - cell.bytes.unwrap().0 as f64 / time.median).abs() < 1e-9);
}

#[test]
fn each_scripted_noise_ends_for_the_reason_that_fits_it() {
    // Drift within the half second of a cell is noise that does not end; two equal levels never narrow.
    let cases = [
        ("{ kind = \"quiet\", sigma = 0.002 }", vec![StopReason::Converged]),
        ("{ kind = \"heavy_tailed\", sigma = 0.002, share = 0.05, most = 20.0 }", vec![StopReason::Converged]),
        ("{ kind = \"bimodal\", sigma = 0.002, share = 0.5, slowdown = 1.4 }", vec![StopReason::Plateau]),
        (
            "{ kind = \"drifting\", sigma = 0.002, amplitude = 0.2, period_ms = 3000.0 }",
            vec![StopReason::Budget, StopReason::Plateau, StopReason::Converged],
        ),
    ];
    for (noise, reasons) in cases {
        let (out, t, _) = one(&format!("[device]\nlaunches = 200\nnoise = {noise}"));
        assert!(reasons.contains(&t.stop.unwrap()), "{noise} ended by {:?} after {}", t.stop, t.samples.len());
        assert_eq!(out.cells[0].stop, t.stop, "the reason is stored");
        assert!(out.cells[0].time_ns.as_ref().unwrap().median.is_finite());
    }
}

#[test]
fn two_groups_under_one_median_are_flagged() {
    let (out, _, _) = one("[device]\nnoise = { kind = \"bimodal\", sigma = 0.002, share = 0.5, slowdown = 1.4 }");
    assert!(out.cells[0].findings.contains(&Finding::Bimodal));
    let (out, _, _) = one("");
    assert!(out.cells[0].findings.is_empty(), "{:?}", out.cells[0].findings);
}

#[test]
fn warm_up_ends_on_three_level_groups_of_twenty_milliseconds_or_at_its_limit() {
    let (_, t, _) = one("");
    let warm = t.warm_up.unwrap();
    assert!(warm.level && warm.group_medians_ns.len() == 3);
    assert!((60_000_000..70_000_000).contains(&warm.device.0), "{:?}", warm.device);
    // Waves of 40 % are never level: the limit ends it.
    let noise = "{ kind = \"drifting\", sigma = 0.0, amplitude = 0.4, period_ms = 190.0 }";
    let (_, t, _) = one(&format!("[device]\nnoise = {noise}"));
    let warm = t.warm_up.unwrap();
    assert!(!warm.level && (250_000_000..280_000_000).contains(&warm.device.0), "{warm:?}");
}

#[test]
fn a_device_without_throttling_drops_nothing_and_waits_for_nothing() {
    let (out, _, fake) = one("");
    assert!(fake.tally().rests.is_empty());
    assert_eq!(out.cells[0].dropped.get("throttled"), None);
    assert_eq!(out.cost.idle.0, 0);
}

#[test]
fn thirty_percent_of_throttled_samples_are_dropped_counted_and_do_not_move_the_median() {
    let (clean, ..) = one("");
    let (out, t, fake) = one("[device.clocks]\nthrottled = 0.3");
    let dropped = t.samples.iter().filter(|s| s.dropped == Some(SampleDrop::Throttled)).count() as u64;
    assert!(dropped > 0 && out.cells[0].dropped["throttled"] == dropped);
    assert!(
        t.samples
            .iter()
            .all(|s| (s.sm_clock_mhz.unwrap() < 0.75 * 1980.0) == (s.dropped == Some(SampleDrop::Throttled)))
    );
    assert!(out.cells[0].kept >= 10 && out.cells[0].outcome == Outcome::Measured);
    let median = |o: &harness_measure::tune::KernelOutcome| o.cells[0].time_ns.as_ref().unwrap().median;
    assert!((median(&out) / median(&clean) - 1.0).abs() < 0.01);
    assert!(!fake.tally().rests.is_empty() && fake.tally().rests.iter().all(|r| r.0 >= 50_000_000));
    let rests: u64 = fake.tally().rests.iter().map(|r| r.0).sum();
    // Reading the clock takes a moment itself.
    assert!((rests..rests + 1_000_000).contains(&out.cost.idle.0));
}

#[test]
fn a_device_that_only_throttles_is_unstable_keeps_its_data_and_waits_a_minute_at_most() {
    let (out, t, fake) = one("[device.clocks]\nthrottled = 1.0");
    assert!(matches!(&t.outcome, Outcome::Unstable { reason } if reason.contains("0 of")), "{:?}", t.outcome);
    assert_eq!(t.stop, Some(StopReason::Unstable));
    assert!(!t.samples.is_empty() && t.samples.iter().all(|s| s.ns.is_finite()));
    let waited: u64 = fake.tally().rests.iter().map(|r| r.0).sum();
    assert!((59_000_000_000..=60_000_000_000).contains(&waited), "{waited}");
    assert!(out.results[0].winner.is_none() && out.cells[0].time_ns.is_none());
}

#[test]
fn what_is_too_slow_for_ten_samples_says_so_and_what_gives_it_more() {
    let mut s = script("[device]\nlaunches = 200");
    s.rules.push(Rule { time_ns: Some(400_000.0), ..Rule::of("gemv_q4_0/a@cuda") });
    let (out, journal) = go(&mut Fake::new(s), &sweep(plain(&["a"])));
    let t = trial(&journal, "a");
    assert_eq!(t.stop, Some(StopReason::Budget));
    assert!(
        matches!(&t.outcome, Outcome::Unstable { reason } if reason.contains("are needed; its device time was used up, --cell-budget")),
        "{:?}",
        t.outcome
    );
    assert!(out.results[0].winner.is_none());
}

#[test]
fn what_is_faster_than_the_device_cannot_win_and_eliminates_nobody() {
    let mut s = script("");
    s.rules.push(Rule { cheat: Some(harness_measure::fake::Cheat::Memoises), ..Rule::of("gemv_q4_0/cheat@cuda") });
    s.rules.push(Rule { efficiency: Some(0.9), ..Rule::of("gemv_q4_0/b@cuda") });
    s.rules.push(Rule { efficiency: Some(0.6), ..Rule::of("gemv_q4_0/a@cuda") });
    let (out, journal) = go(&mut Fake::new(s), &sweep(plain(&["a", "b", "cheat"])));
    assert_eq!(winner(&out), "b@cuda");
    let cheat = out.cells.iter().find(|c| c.cell.variant.kernel == "cheat").unwrap();
    assert!(
        matches!(&cheat.outcome, Outcome::Implausible { reason } if reason.contains("GB/s")),
        "{:?}",
        cheat.outcome
    );
    assert!(cheat.of_ceiling.value.unwrap() > 10.0, "shown as it is");
    assert!(out.results[0].ranking.iter().all(|r| r.variant.kernel != "cheat"));
    assert_eq!(trial(&journal, "b").stop, Some(StopReason::Converged));
    assert_eq!(out.accounts[0].invalid, 1);
}

#[test]
fn three_percent_above_the_ceiling_is_a_finding_and_may_win() {
    let mut s = script("[device]\noverhead_ns = 0.0");
    s.rules.push(Rule { efficiency: Some(1.03), ..Rule::of("*/b@cuda") });
    s.rules.push(Rule { efficiency: Some(0.8), ..Rule::of("*/a@cuda") });
    let (out, _) = go(&mut Fake::new(s), &sweep(plain(&["a", "b"])));
    assert_eq!(winner(&out), "b@cuda");
    let b = out.cells.iter().find(|c| c.cell.variant.kernel == "b").unwrap();
    assert!(b.findings.contains(&Finding::AboveCeiling) && b.of_ceiling.value.unwrap() > 1.02);
}

#[test]
fn wrong_in_a_timed_launch_is_a_failed_cell() {
    let mut s = script("");
    s.rules.push(Rule { cheat: Some(harness_measure::fake::Cheat::SkipsWhenTimed), ..Rule::of("*/b@cuda") });
    let (out, journal) = go(&mut Fake::new(s), &sweep(plain(&["a", "b"])));
    assert_eq!(winner(&out), "a@cuda");
    let outcome = &trial(&journal, "b").outcome;
    assert!(matches!(outcome, Outcome::Failed { stage: harness_spec::Stage::Cheat, .. }), "{outcome:?}");
}

#[test]
fn a_cell_whose_timed_launches_are_not_verified_cannot_win() {
    let (out, ..) = one("[device]\nverify_every = 0");
    assert!(out.results[0].winner.is_none());
    assert!(out.cells[0].findings.contains(&Finding::TooFewVerified));
    let (out, ..) = one("[device]\nverify_every = 17");
    assert!(out.results[0].winner.is_some(), "one of seventeen is above five percent");
}

#[test]
fn a_kernel_under_twenty_microseconds_is_not_believed_when_launched_one_by_one() {
    let mut w = plain(&["a"]);
    w.policy = Policy { cache: CacheState::Cold, launch: LaunchMode::Eager };
    let mut fake = Fake::new(script("[[rules]]\ntime_ns = 5000.0"));
    let (out, _) = go(&mut fake, &sweep(w));
    assert!(out.cells[0].findings.contains(&Finding::TooShortForEager) && out.results[0].winner.is_none());
    let mut fake = Fake::new(script("[[rules]]\ntime_ns = 5000.0"));
    let (out, _) = go(&mut fake, &sweep(plain(&["a"])));
    let median = out.cells[0].time_ns.as_ref().unwrap().median;
    assert!((median / 5000.0 - 1.0).abs() < 0.02 && out.results[0].winner.is_some());
}

#[test]
fn the_floor_is_measured_first_and_every_cell_is_held_against_it() {
    let mut w = plain(&["a"]);
    w.floor = vec![floor_cell(9_470_000)];
    let mut fake = Fake::new(script("[[rules]]\nvariant = \"gemv*\"\nefficiency = 0.8"));
    let (out, _) = go(&mut fake, &sweep(w));
    assert_eq!(fake.tally().order[0].variant.op, "stream_read");
    let floor = out.results[0].floor.as_ref().unwrap();
    let a = out.cells.iter().find(|c| c.cell.variant.kernel == "a").unwrap();
    let want = floor.median_ns / a.time_ns.as_ref().unwrap().median;
    assert!((a.of_floor.value.unwrap() - want).abs() < 1e-12 && want < 1.0);
}

#[test]
fn default_incumbent_and_baseline_are_sampled_before_all_others() {
    let mut w = plain(&["x", "y", "base", "z", "inc", "def"]);
    (w.default, w.incumbent, w.baseline) = (Some(5), Some(4), Some(2));
    let mut fake = Fake::new(script(""));
    let (out, journal) = go(&mut fake, &sweep(w));
    let first: Vec<&str> = journal.trials()[..3].iter().map(|t| t.cell.variant.kernel.as_str()).collect();
    for k in ["inc", "def", "base"] {
        assert!(first.contains(&k), "{first:?}");
    }
    assert_eq!(fake.tally().order[0].variant.kernel, "inc");
    assert_eq!(out.results[0].incumbent.as_ref().unwrap().kernel, "inc");
}

#[test]
fn candidates_take_turns_and_the_far_slower_ones_are_eliminated() {
    let mut s = script("[device]\nnoise = { kind = \"quiet\", sigma = 0.05 }");
    for (k, e) in [("a", 0.8), ("b", 0.82), ("c", 0.3)] {
        s.rules.push(Rule { efficiency: Some(e), ..Rule::of(&format!("*/{k}@cuda")) });
    }
    let mut w = plain(&["a", "b", "c"]);
    w.default = None;
    let mut fake = Fake::new(s);
    let (_, journal) = go(&mut fake, &sweep(w));
    assert_eq!(trial(&journal, "c").stop, Some(StopReason::Eliminated));
    assert_eq!(trial(&journal, "c").samples.len(), 15, "ten kept, by turns of five, and the dropped first");
    assert!(trial(&journal, "a").samples.len() > 20);
    // a b c a b c …: nobody takes all of its samples before the next begins.
    let order: Vec<&str> = fake.tally().order.iter().map(|c| c.variant.kernel.as_str()).collect();
    let alternating = order.windows(4).any(|w| w == ["a", "b", "c", "a"]);
    assert!(alternating, "{order:?}");
}

#[test]
fn twenty_orders_of_the_candidates_give_the_same_winner() {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;
    let kernels = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut same = 0;
    for seed in 0..20 {
        let mut order = kernels.to_vec();
        order.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let mut s = script(
            "seed = 3\n[device]\nnoise = { kind = \"drifting\", sigma = 0.01, amplitude = 0.03, period_ms = 900.0 }",
        );
        for (i, k) in kernels.iter().enumerate() {
            s.rules.push(Rule { efficiency: Some(0.95 - 0.05 * i as f64), ..Rule::of(&format!("*/{k}@cuda")) });
        }
        let mut w = plain(&order);
        w.default = w.candidates.iter().position(|c| c.variant.kernel == "h");
        let (out, _) = go(&mut Fake::new(s), &sweep(w));
        let in_ties = out.results[0].ties.iter().any(|t| t.kernel == "a");
        same += usize::from(winner(&out) == "a@cuda" || in_ties);
    }
    assert!(same >= 19, "{same} of 20");
}

#[test]
fn a_permuted_order_moves_a_median_by_less_than_a_percent() {
    let median = |order: &[&str]| {
        let mut s = script("");
        for k in ["a", "b", "c"] {
            s.rules.push(Rule { efficiency: Some(0.8), ..Rule::of(&format!("*/{k}@cuda")) });
        }
        let mut w = plain(order);
        w.default = None;
        let (out, _) = go(&mut Fake::new(s), &sweep(w));
        out.cells.iter().find(|c| c.cell.variant.kernel == "b").unwrap().time_ns.as_ref().unwrap().median
    };
    assert!((median(&["a", "b", "c"]) / median(&["c", "b", "a"]) - 1.0).abs() < 0.01);
}

#[test]
fn hot_and_cold_are_other_cells_with_other_keys_and_ceilings() {
    let mut hot = plain(&["a"]);
    hot.policy.cache = CacheState::Hot;
    let p = common::plan(harness_spec::record::KernelRunKind::Sweep, vec![plain(&["a"]), hot]);
    let mut fake = Fake::new(script("[[rules]]\nefficiency = 0.9"));
    let (out, journal) = go(&mut fake, &p);
    let [cold, hot] = [&out.cells[0], &out.cells[1]];
    assert_ne!(cold.key, hot.key);
    let median = |c: &harness_spec::record::CellResult| c.time_ns.as_ref().unwrap().median;
    assert!(median(cold) >= 1.3 * median(hot));
    // Each is held against the ceiling of its own residency.
    assert!(cold.of_ceiling.value.unwrap() < 1.0 && hot.of_ceiling.value.unwrap() < 1.0);
    assert_eq!(journal.trials().len(), 2);
}

#[test]
fn a_canary_that_moves_makes_the_run_suspect() {
    let (out, ..) = one("[device]\ncanary_after = 0.9");
    assert!(out.suspect.as_ref().unwrap().contains("read rate moved from 4000 to 3600"), "{:?}", out.suspect);
    assert_eq!(out.canaries.len(), 2);
    let (out, ..) = one("");
    assert_eq!(out.suspect, None);
}

#[test]
fn warming_and_sampling_are_announced_and_the_device_burns_in_once() {
    let mut fake = Fake::new(script(""));
    let (_, journal) = go(&mut fake, &sweep(plain(&["a", "b"])));
    let warm = |k: &str| {
        let of = |(c, p): &(harness_spec::Cell, Phase)| c.variant.kernel == k && *p == Phase::WarmUp;
        fake.tally().samples.iter().filter(|(key, _)| of(key)).map(|(_, n)| *n).sum::<u64>()
    };
    // Burn-in and warm-up take about the same; only the first cell has both.
    assert!(warm("a") > warm("b") && warm("b") > 0);
    assert!(trial(&journal, "a").cell.workload.to_string() == WORKLOAD);
}
