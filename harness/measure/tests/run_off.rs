//! The paired final and what it may change (R14), and promotion's sister rules.

mod common;

use common::{go, plain, script, sweep, winner};
use harness_measure::fake::{Fake, Rule, Script};
use harness_spec::record::{TrialPurpose, Verdict};

/// Kernels with these efficiencies, named a, b, c, …; the first is the default.
fn rates(noise: &str, rates: &[f64]) -> (Script, Vec<String>) {
    let mut s = script(noise);
    let names: Vec<String> = (0..rates.len()).map(|i| char::from(b'a' + i as u8).to_string()).collect();
    for (name, rate) in names.iter().zip(rates) {
        s.rules.push(Rule { efficiency: Some(*rate), ..Rule::of(&format!("*/{name}@cuda")) });
    }
    (s, names)
}

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn a_clear_winner_is_proven_in_thirty_abba_pairs_in_time_and_in_cycles() {
    let (s, n) = rates("", &[0.7, 0.9]);
    let (out, journal) = go(&mut Fake::new(s), &sweep(plain(&names(&n))));
    assert_eq!(winner(&out), "b@cuda");
    let r = out.results[0].run_off.as_ref().unwrap();
    let d = &r.duels[0];
    assert_eq!((d.verdict, d.order.as_str(), d.pairs_planned, d.pairs_rerun), (Verdict::Faster, "ABBA", 30, 0));
    let (time, cycles) = (d.time.as_ref().unwrap(), d.cycles.as_ref().unwrap());
    assert!(time.n_pairs == 30 && time.ci[0] > 1.15 && time.p_holm < 1e-3);
    assert!((cycles.ratio / time.ratio - 1.0).abs() < 1e-9);
    assert!(r.reason.contains("proven faster than a@cuda"), "{}", r.reason);
    // Its raw samples are kept as well.
    let raw = journal.trials().iter().filter(|t| t.purpose == TrialPurpose::RunOff);
    assert!(raw.clone().count() == 2 && raw.clone().all(|t| t.samples.len() == 30));
    assert!(out.results[0].gap.value.unwrap() > 0.15);
}

#[test]
fn in_a_hundred_races_of_equals_the_incumbent_is_replaced_at_most_five_times() {
    let mut replaced = 0;
    for seed in 0..100 {
        let noise = format!(
            "seed = {seed}\n[device]\nnoise = {{ kind = \"heavy_tailed\", sigma = 0.01, share = 0.03, most = 5.0 }}"
        );
        let (s, n) = rates(&noise, &[0.8; 6]);
        let mut w = plain(&names(&n));
        w.incumbent = Some(3);
        let (out, _) = go(&mut Fake::new(s), &sweep(w));
        replaced += usize::from(winner(&out) != "d@cuda");
    }
    assert!(replaced <= 5, "{replaced} of 100 replaced");
}

#[test]
fn three_percent_are_found_and_half_a_percent_is_a_tie_that_changes_nothing() {
    let mut found = 0;
    let mut changed = 0;
    for seed in 0..30 {
        let noise =
            format!("seed = {seed}\n[device]\noverhead_ns = 0.0\nnoise = {{ kind = \"quiet\", sigma = 0.008 }}");
        let (s, n) = rates(&noise, &[0.80, 0.824]);
        found += usize::from(winner(&go(&mut Fake::new(s), &sweep(plain(&names(&n)))).0) == "b@cuda");
        let (s, n) = rates(&noise, &[0.80, 0.804]);
        let (out, _) = go(&mut Fake::new(s), &sweep(plain(&names(&n))));
        changed += usize::from(winner(&out) != "a@cuda");
        assert!(!out.results[0].ties.is_empty() || winner(&out) != "a@cuda");
    }
    assert!(found >= 28, "{found} of 30 found");
    // The estimate of half a percent lies beyond a whole one now and then; what replaces is then truly faster.
    assert!(changed <= 3, "{changed} of 30 changed");
}

#[test]
fn the_simplest_of_equal_winners_is_taken() {
    let (s, n) = rates("", &[0.5, 0.9, 0.9, 0.9]);
    let mut w = plain(&names(&n));
    for (c, simplicity) in w.candidates.iter_mut().zip([0, 9, 2, 5]) {
        c.simplicity = simplicity;
    }
    let (out, _) = go(&mut Fake::new(s), &sweep(w));
    assert_eq!(winner(&out), "c@cuda");
    assert!(out.results[0].reason.starts_with("the simplest"), "{}", out.results[0].reason);
    assert_eq!(out.results[0].ties.len(), 2);
}

#[test]
fn without_a_default_the_simplest_stays_in_a_tie() {
    let (s, n) = rates("", &[0.9, 0.9, 0.9]);
    let mut w = plain(&names(&n));
    w.default = None;
    for (c, simplicity) in w.candidates.iter_mut().zip([7, 1, 5]) {
        c.simplicity = simplicity;
    }
    let (out, _) = go(&mut Fake::new(s), &sweep(w));
    assert_eq!(winner(&out), "b@cuda");
}

#[test]
fn pairs_whose_clocks_differ_are_run_again_and_counted() {
    let (mut s, n) = rates("", &[0.7, 0.9]);
    s.device.clocks.jitter = 0.015;
    let (out, journal) = go(&mut Fake::new(s), &sweep(plain(&names(&n))));
    let d = &out.results[0].run_off.as_ref().unwrap().duels[0];
    assert!(d.pairs_rerun > 0, "{d:?}");
    assert_eq!(d.time.as_ref().unwrap().n_pairs, 30);
    assert_eq!(winner(&out), "b@cuda");
    let raw = journal.trials().iter().find(|t| t.purpose == TrialPurpose::RunOff).unwrap();
    assert_eq!(raw.samples.len() as u64, 30 + d.pairs_rerun);
}

#[test]
fn a_gain_in_time_that_cycles_do_not_confirm_is_no_win() {
    use harness_measure::cell::Settings;
    use harness_measure::runoff::{DuelSamples, Played, judge};
    use harness_spec::record::TrialSample;
    let sample = |ns: f64, mhz: f64| TrialSample {
        ns,
        launches: 1,
        sm_clock_mhz: Some(mhz),
        mem_clock_mhz: Some(2619.0),
        verified: true,
        round: 0,
        dropped: None,
    };
    let duel = |memory_bound| {
        let mut samples = DuelSamples::default();
        for i in 0..30u32 {
            let [ours, theirs] = [3 * i, i].map(|i| 1000.0 * (1.0 + 0.001 * f64::from(i % 7)));
            // The challenger is 2.5 % faster, and its clock was 2.5 % higher.
            samples.push(u64::from(i / 5), sample(ours / 1.025, 2029.5), sample(theirs, 1980.0));
        }
        let settings = Settings { resamples: 500, ..Settings::default() };
        judge(&[Played { challenger: 1, defender: 0, samples, memory_bound }], &settings, 1).remove(0)
    };
    assert_eq!(duel(false).verdict, Verdict::Inconclusive);
    assert!((duel(false).cycles.unwrap().ratio - 1.0).abs() < 1e-9);
    // Memory does not run on that clock.
    assert_eq!(duel(true).verdict, Verdict::Faster);
}

#[test]
fn a_finalist_that_faults_in_the_run_off_is_out_and_the_rest_play_on() {
    let (mut s, n) = rates("", &[0.5, 0.9, 0.8]);
    assert_eq!(winner(&go(&mut Fake::new(s.clone()), &sweep(plain(&names(&n)))).0), "b@cuda");
    let fail = harness_measure::fake::Failure {
        stage: harness_spec::Stage::Fault,
        message: "illegal address".into(),
        after_samples: 0,
        only: Some(harness_spec::Phase::RunOff),
        share: 1.0,
    };
    s.rules.push(Rule { fail: Some(fail), ..Rule::of("*/b@cuda") });
    let (out, _) = go(&mut Fake::new(s), &sweep(plain(&names(&n))));
    assert_eq!(winner(&out), "c@cuda");
    let b = out.cells.iter().find(|c| c.cell.variant.kernel == "b").unwrap();
    assert!(matches!(b.outcome, harness_spec::record::Outcome::Failed { stage: harness_spec::Stage::Fault, .. }));
    assert!(out.accounts[0].balances());
}
