//! The tuner on the scripted device: accounts, failures, budgets, caches, cost (R2, R6, R16–R19, R22).

mod common;

use std::sync::atomic::AtomicBool;

use common::{StopAfter, again, floor_cell, go, grid, plan, same_table, script, sweep, tune, winner, workload};
use harness_measure::fake::{Failure, Fake, Rule, Script};
use harness_measure::tune::{
    Costs, KernelOutcome, MemoryJournal, Plan, Replay, STRATEGIES, Silent, Space, StrategyKind, WorkloadPlan,
    candidates, run,
};
use harness_spec::record::{CellResult, KernelRunKind, Outcome, Provenance, TrialPurpose};
use harness_spec::units::Nanos;
use harness_spec::{Cell, Stage, Target};

fn fail(pattern: &str, stage: Stage, share: f64) -> Rule {
    let failure = Failure { stage, message: format!("scripted {stage}"), after_samples: 0, only: None, share };
    Rule { fail: Some(failure), ..Rule::of(pattern) }
}

/// 200 configurations of five kernels.
fn two_hundred() -> WorkloadPlan {
    workload(common::WORKLOAD, grid(5, 8, 5))
}

#[test]
fn a_thousand_configurations_with_every_failure_are_all_accounted_for() {
    let mut w = workload(common::WORKLOAD, grid(10, 10, 10));
    w.pruned =
        (0..50).map(|i| (format!("gemv_q4_0/p[A={i}]@cuda").parse().unwrap(), "A * 32 <= 1024".into())).collect();
    let mut s = script("");
    for (k, stage) in [
        (1, Stage::Compile),
        (2, Stage::Check),
        (3, Stage::Launch),
        (4, Stage::Fault),
        (5, Stage::Resources),
        (6, Stage::Constraint),
        (7, Stage::Cheat),
        (8, Stage::Hang),
    ] {
        s.rules.push(fail(&format!("*/k{k}[*"), stage, 0.3));
    }
    let mut p = sweep(w);
    p.settings.warm_up_limit = Nanos(1);
    p.settings.group = Nanos(1);
    let (out, _) = go(&mut Fake::new(s), &p);
    let a = &out.accounts[0];
    assert!(a.balances() && a.enumerated == 1050 && a.not_reached == 0, "{a:?}");
    assert!(a.pruned > 70 && a.compile_failed > 40 && a.invalid > 100 && a.timed > 600, "{a:?}");
    let failed = out.cells.iter().filter(|c| matches!(c.outcome, Outcome::Failed { .. })).count() as u64;
    assert_eq!(failed, a.compile_failed + a.invalid);
    assert!(
        out.cells.iter().all(|c| c.time_ns.is_none() || c.outcome.is_measured()),
        "times only beside a passed check"
    );
    assert!(out.incomplete.is_none() && out.results[0].winner.is_some());
}

#[test]
fn an_illegal_address_and_an_endless_loop_leave_the_other_198_and_the_winner_as_they_were() {
    let clean = go(&mut Fake::new(script("")), &sweep(two_hundred())).0;
    let mut s = script("");
    s.rules.push(fail("*/k1[A=2,B=2]@cuda", Stage::Fault, 1.0));
    s.rules.push(fail("*/k2[A=4,B=2]@cuda", Stage::Hang, 1.0));
    let mut fake = Fake::new(s);
    let (out, _) = go(&mut fake, &sweep(two_hundred()));
    assert_eq!(winner(&out), winner(&clean));
    assert_eq!((out.accounts[0].timed, out.accounts[0].invalid), (198, 2));
    for (a, b) in out.cells.iter().zip(&clean.cells).filter(|(a, _)| a.outcome.is_measured()) {
        assert_eq!(a.time_ns, b.time_ns, "{}", a.cell.variant);
    }
    assert_eq!(fake.tally().restarts, 2);
    assert!(out.wall.0 <= clean.wall.0 + 2 * 2_000_000_000, "at most two timeouts longer");
    let hang = out.cells.iter().find(|c| c.cell.variant.short() == "k2[A=4,B=2]@cuda").unwrap();
    assert!(matches!(&hang.outcome, Outcome::Failed { stage: Stage::Hang, message } if message == "scripted hang"));
}

#[test]
fn where_everything_fails_there_is_no_winner_and_the_reason_names_one() {
    let mut s = script("");
    s.rules.push(fail("*", Stage::Compile, 1.0));
    let (out, _) = go(&mut Fake::new(s), &sweep(two_hundred()));
    assert!(out.results[0].winner.is_none());
    assert!(out.results[0].reason.contains("failed at compile: scripted compile"), "{}", out.results[0].reason);
    let (out, _) = go(&mut Fake::new(script("")), &sweep(WorkloadPlan { default: None, ..workload("op N=1", vec![]) }));
    assert_eq!(out.results[0].reason, "no candidate is admitted for this shape on this device");
}

#[test]
fn a_second_run_with_the_same_keys_times_only_the_run_off() {
    let w = || {
        let mut w = two_hundred();
        w.floor = vec![floor_cell(9_470_000)];
        w
    };
    let (first, journal) = go(&mut Fake::new(script("")), &sweep(w()));
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    let mut fake = Fake::new(script(""));
    let second = again(&mut fake, &sweep(w()), &mut journal);
    same_table(&second, &first, "from the journal");
    assert!(second.cells.iter().all(|c| c.from_cache));
    assert!(fake.tally().checks.is_empty());
    assert!(fake.tally().samples.keys().all(|(_, phase)| *phase == harness_spec::Phase::RunOff));
}

#[test]
fn one_variant_more_than_a_hundred_measures_one_and_the_run_off() {
    let mut w = workload(common::WORKLOAD, grid(4, 5, 5));
    let (_, journal) = go(&mut Fake::new(script("")), &sweep(w.clone()));
    let mut ids: Vec<_> = w.candidates.iter().map(|c| c.variant.clone()).collect();
    ids.push("gemv_q4_0/new@cuda".parse().unwrap());
    w.candidates = candidates(&ids);
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    let mut fake = Fake::new(script(""));
    let out = again(&mut fake, &sweep(w), &mut journal);
    let measured: Vec<_> = out.cells.iter().filter(|c| !c.from_cache).collect();
    assert!(measured.len() == 1 && measured[0].cell.variant.kernel == "new");
    assert_eq!(fake.tally().checks.len(), 1);
    assert!(out.results[0].run_off.is_some());
}

#[test]
fn changed_machine_code_or_another_device_is_a_miss() {
    let (_, journal) = go(&mut Fake::new(script("")), &sweep(common::plain(&["a", "b"])));
    let remeasured = |s: Script| {
        let mut journal = MemoryJournal::with(journal.trials().to_vec());
        let out = again(&mut Fake::new(s), &sweep(common::plain(&["a", "b"])), &mut journal);
        out.cells.iter().filter(|c| !c.from_cache).count()
    };
    assert_eq!(remeasured(script("")), 0);
    assert_eq!(remeasured(script("[[rules]]\nvariant = \"*/b@cuda\"\nsource = \"edited\"")), 1);
    assert_eq!(remeasured(script("[device.conditions]\ndriver = \"2\"")), 2);
    // Times of a fake never stand in for those of a device.
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    let real = Plan { provenance: Provenance::Measured, ..sweep(common::plain(&["a", "b"])) };
    let out = again(&mut Fake::new(script("")), &real, &mut journal);
    assert!(out.cells.iter().all(|c| !c.from_cache));
}

#[test]
fn a_failure_of_the_harness_itself_is_tried_again() {
    let mut s = script("");
    s.rules.push(fail("*/b@cuda", Stage::Harness, 1.0));
    let (out, journal) = go(&mut Fake::new(s), &sweep(common::plain(&["a", "b"])));
    assert_eq!(out.accounts[0].invalid, 1);
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    let out = again(&mut Fake::new(script("")), &sweep(common::plain(&["a", "b"])), &mut journal);
    assert_eq!((out.accounts[0].invalid, out.accounts[0].timed), (0, 2));
}

#[test]
fn stopped_at_ten_moments_the_result_is_valid_incomplete_and_no_worse_than_the_default() {
    let p = tune(workload(common::WORKLOAD, grid(10, 10, 10)));
    let whole = go(&mut Fake::new(script("")), &p).0;
    assert!(whole.incomplete.is_none());
    for trials in [0, 1, 3, 10, 20, 31, 47, 60, 80, 95] {
        let flag = AtomicBool::new(false);
        let mut journal = MemoryJournal::default();
        let mut progress = StopAfter { trials, flag: &flag };
        let out = run(&mut Fake::new(script("")), &p, &mut journal, &mut progress, &flag).unwrap();
        let why = out.results[0].incomplete.as_ref().unwrap_or_else(|| panic!("stopped after {trials}"));
        assert!(why.contains("stopped") && out.incomplete.is_some());
        assert!(out.accounts[0].balances() && out.accounts[0].not_reached > 0);
        // Without a run-off nothing is proven: the default stays.
        assert_eq!(winner(&out), p.workloads[0].candidates[0].variant.short());
        // And a later run finishes it.
        let finished = again(&mut Fake::new(script("")), &p, &mut journal);
        same_table(&finished, &whole, "finished later");
    }
}

/// What a workload and an evaluation are planned to take, ms.
fn costs(workload: u64, evaluation: u64) -> Costs {
    let [workload, evaluation] = [workload, evaluation].map(|ms| Nanos(ms * 1_000_000));
    Costs { workload, evaluation }
}

/// Three shapes of one op, of which the first is most of a token.
fn three_shapes() -> Plan {
    let shapes = ["gemv_q4_0 K=4096 N=4096", "gemv_q4_0 K=1536 N=8960", "gemv_q4_0 K=8960 N=1536"];
    let workloads = shapes.iter().zip([8.0, 1.0, 1.0]);
    let workloads = workloads.map(|(w, weight)| WorkloadPlan { weight, ..workload(w, grid(10, 10, 10)) });
    plan(KernelRunKind::Tune, workloads.collect())
}

#[test]
fn a_used_up_time_budget_still_ends_in_run_offs_of_every_workload() {
    let mut p = three_shapes();
    // More is planned than there is time for.
    (p.time_budget, p.costs) = (Some(Nanos(20_000_000_000)), costs(960, 60));
    assert_eq!(p.limits(), p.unbounded());
    let (out, _) = go(&mut Fake::new(script("")), &p);
    assert!(out.wall.0 <= 22_000_000_000, "{}", out.wall.secs());
    assert!(out.results.iter().all(|r| r.run_off.is_some() && r.winner.is_some()));
    let evaluations: Vec<u64> = out.results.iter().map(|r| r.search.as_ref().unwrap().evaluations).collect();
    assert!(evaluations.iter().all(|n| *n >= 5), "{evaluations:?}");
    let why = out.incomplete.as_ref().unwrap();
    assert!(why.contains("of 3 workloads are incomplete") && why.contains("time budget"), "{why}");
}

#[test]
fn a_budget_is_planned_by_weight_and_a_run_that_is_repeated_asks_the_same() {
    let mut p = three_shapes();
    assert_eq!(p.limits(), [100, 33, 33]);
    (p.time_budget, p.costs) = (Some(Nanos(90_000_000_000)), costs(9600, 600));
    assert_eq!(p.limits(), [70, 15, 15]);
    let (out, mut journal) = go(&mut Fake::new(script("")), &p);
    assert!(out.incomplete.is_none() && out.wall.0 <= 90_000_000_000, "{:?} {}", out.incomplete, out.wall.secs());
    let evaluations: Vec<u64> = out.results.iter().map(|r| r.search.as_ref().unwrap().evaluations).collect();
    assert_eq!(evaluations, [70, 15, 15]);
    let repeat = again(&mut Fake::new(script("")), &p, &mut journal);
    same_table(&out, &repeat, "repeated");
    assert!(repeat.cells.iter().all(|c| c.from_cache));
}

/// What a token and a prompt of Qwen2.5-1.5B launch on a GPU: 14 workloads with as many candidates as their spaces admit, in
/// the order of their weight, each with the ten reads of its floor.
fn of_a_model() -> Plan {
    let all: [(&str, [u32; 3], f64); 14] = [
        ("gate_up_q4_0 F=8960 K=1536", [6, 10, 10], 35.0),
        ("gemv_add_q4_0 K=8960 N=1536", [8, 25, 25], 18.0),
        ("norm_logits_q6_k K=1536 N=151936", [4, 20, 20], 16.0),
        ("qkv_rope_q4_0 K=1536 N=2048", [4, 20, 20], 5.0),
        ("gemv_add_q4_0 K=1536 N=1536", [8, 20, 20], 4.0),
        ("attn_token DIM=128 HEADS=12 LEN=512", [8, 20, 20], 2.0),
        ("gemm_q4_0 K=1536 M=512 N=17920", [8, 10, 10], 0.5),
        ("swiglu F=8960 M=512", [1, 7, 1], 0.2),
        ("gemm_q4_0 K=8960 M=512 N=1536", [8, 10, 10], 0.2),
        ("attn_prefill DIM=128 HEADS=12 M=512", [2, 5, 1], 0.1),
        ("rmsnorm_half K=1536 M=512", [3, 7, 1], 0.1),
        ("rope_append DIM=128 HEADS=12 M=512", [1, 1, 1], 0.1),
        ("gemm_q4_0 K=1536 M=512 N=2048", [8, 10, 10], 0.1),
        ("gemm_q4_0 K=1536 M=512 N=1536", [8, 10, 10], 0.1),
    ];
    let of = |(i, (name, [k, a, b], weight)): (usize, (&str, [u32; 3], f64))| {
        let bytes = 1_000_000 * (i as u64 + 1);
        let read =
            |r: usize| Cell { variant: format!("stream_read/r[R={r}]@cuda").parse().unwrap(), ..floor_cell(bytes) };
        let candidates = grid(k as usize, a, b);
        let baseline = Some(candidates.len() - 1);
        WorkloadPlan { weight, baseline, floor: (0..10).map(read).collect(), ..workload(name, candidates) }
    };
    let mut p = plan(KernelRunKind::Tune, all.into_iter().enumerate().map(of).collect());
    p.time_budget = Some(Nanos(150_000_000_000));
    p
}

/// A device on which the data of a workload take so long, and checks between a part and all of so long; all in ms.
fn slow_device(data: u64, checks: [u64; 2]) -> Fake {
    let mut s = script("[device]\ncompile_ms = 5.0");
    s.rules.push(Rule { check_ms: Some(70.0), ..Rule::of("stream_read/*") });
    let [least, most] = checks.map(|ms| ms as f64);
    s.rules.push(Rule { data_ms: Some(data as f64), ..Rule::of("gemv_q4_0/*") });
    for (i, op) in ["gate_up", "gemv_add", "norm_logits", "qkv_rope", "attn", "gemm", "rmsnorm"].iter().enumerate() {
        let check_ms = Some(least + (most - least) * (i % 4) as f64 / 3.0);
        s.rules.push(Rule { workload: format!("{op}*"), check_ms, ..Rule::of("gemv_q4_0/*") });
    }
    Fake::new(s)
}

#[test]
fn a_model_of_fourteen_workloads_is_done_in_its_budget_and_asks_the_same_when_it_is_repeated() {
    let p = of_a_model();
    // Evaluations of 0.2 to 0.5 s, a minimum of 60 ms of warm-up among them.
    let (out, mut journal) = go(&mut slow_device(3000, [130, 430]), &p);
    assert!(out.incomplete.is_none() && out.wall.secs() <= 150.0, "{:?} {}", out.incomplete, out.wall.secs());
    let evaluations = |out: &KernelOutcome| -> Vec<usize> {
        out.results.iter().map(|r| r.search.as_ref().unwrap().evaluations as usize).collect()
    };
    assert_eq!(evaluations(&out), p.limits());
    let mut fake = slow_device(3000, [130, 430]);
    let repeat = again(&mut fake, &p, &mut journal);
    same_table(&out, &repeat, "repeated");
    assert!(repeat.cells.iter().all(|c| c.from_cache) && fake.tally().checks.is_empty());
    assert!(repeat.wall.secs() <= 15.0, "{}", repeat.wall.secs());
}

#[test]
fn a_budget_that_is_far_too_short_for_its_plan_leaves_no_workload_without_a_time() {
    let p = of_a_model();
    let (out, _) = go(&mut slow_device(5000, [1000, 1500]), &p);
    assert!(out.incomplete.as_ref().is_some_and(|why| why.contains("time budget")), "{:?}", out.incomplete);
    assert!(out.results.iter().all(|r| r.winner.is_some()), "{:#?}", out.incomplete);
    assert!(out.wall.secs() <= 155.0, "{}", out.wall.secs());
}

#[test]
fn what_a_fast_device_leaves_of_a_short_budget_is_searched_with() {
    let mut p = of_a_model();
    // Less than is planned for floors, data and run-offs alone.
    p.time_budget = Some(Nanos(60_000_000_000));
    assert!(p.limits().iter().all(|&limit| limit <= 8));
    let (out, _) = go(&mut slow_device(300, [20, 50]), &p);
    assert!(out.incomplete.is_none() && out.wall.secs() <= 60.0, "{:?} {}", out.incomplete, out.wall.secs());
}

#[test]
fn floors_of_other_sizes_are_timed_with_the_best_reads_of_the_first() {
    let mut p = of_a_model();
    p.workloads.truncate(3);
    (p.whole, p.share) = (4, 0.0);
    let floors = [0, 1, 2].map(|i: usize| p.workloads[i].floor[0].workload.clone());
    let (out, journal) = go(&mut Fake::new(script("")), &p);
    let reads = |out: &KernelOutcome, i: usize| -> Vec<_> {
        let of = |c: &&CellResult| c.cell.workload == floors[i];
        out.cells.iter().filter(of).map(|c| (c.cell.variant.clone(), c.time_ns.as_ref().unwrap().median)).collect()
    };
    let mut first = reads(&out, 0);
    first.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut best: Vec<_> = first.iter().take(3).map(|(v, _)| v.clone()).collect();
    best.sort();
    for other in [1, 2] {
        let mut timed: Vec<_> = reads(&out, other).into_iter().map(|(v, _)| v).collect();
        timed.sort();
        assert_eq!((first.len(), &timed), (10, &best));
    }
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    assert!(again(&mut Fake::new(script("")), &p, &mut journal).cells.iter().all(|c| c.from_cache));
    // A sweep leaves nothing out.
    p.kind = KernelRunKind::Sweep;
    for w in &mut p.workloads {
        w.candidates.truncate(2);
        w.baseline = None;
    }
    assert_eq!(reads(&go(&mut Fake::new(script("")), &p).0, 2).len(), 10);
}

#[test]
fn what_has_passed_its_check_when_the_time_is_over_is_timed() {
    let mut p = sweep(workload(common::WORKLOAD, grid(2, 4, 4)));
    p.time_budget = Some(Nanos(6_000_000_000));
    let mut fake = Fake::new(script("[device]\ncompile_ms = 5.0\ncheck_ms = 1000.0"));
    let (out, _) = go(&mut fake, &p);
    let checked = fake.tally().checks.len() as u64;
    assert!(out.incomplete.is_some() && (3..8).contains(&checked), "{checked}");
    assert_eq!(out.accounts[0].timed, checked);
}

#[test]
fn where_evaluations_are_scarce_the_best_of_each_kernel_by_the_roofline_comes_first() {
    let mut w = workload(common::WORKLOAD, grid(4, 10, 10));
    for (i, c) in w.candidates.iter_mut().enumerate() {
        c.predicted_ns = Some(1000.0 - (i % 100) as f64);
    }
    assert_eq!(w.ranked_first(&[0]), [199, 299, 399]);
    let mut p = tune(w);
    (p.time_budget, p.costs) = (Some(Nanos(14_400_000_000)), costs(9600, 600));
    assert_eq!(p.limits(), [8]);
    let (out, _) = go(&mut Fake::new(script("")), &p);
    let asked = |i: usize| out.cells.iter().any(|c| c.cell.variant == p.workloads[0].candidates[i].variant);
    assert!([0, 199, 299, 399].into_iter().all(asked));
}

#[test]
fn every_strategy_keeps_its_limit_is_repeated_by_its_seed_and_is_never_worse_than_the_default() {
    for strategy in STRATEGIES {
        let mut p = tune(workload(common::WORKLOAD, grid(8, 8, 6)));
        (p.strategy, p.seed) = (strategy, 5);
        let (out, journal) = go(&mut Fake::new(script("")), &p);
        let (repeat, other) = go(&mut Fake::new(script("")), &p);
        same_table(&out, &repeat, &strategy.to_string());
        let order = |j: &MemoryJournal| j.trials().iter().map(|t| t.key.clone()).collect::<Vec<_>>();
        assert_eq!(order(&journal), order(&other), "{strategy}");
        let search = out.results[0].search.as_ref().unwrap();
        let limit = if strategy == StrategyKind::Exhaustive { 384 } else { 38 };
        assert!(search.evaluations <= limit && search.evaluations >= 30, "{strategy}: {}", search.evaluations);
        assert!(out.accounts[0].balances());
        let median =
            |v: &harness_spec::VariantId| out.results[0].ranking.iter().find(|r| r.variant == *v).map(|r| r.median_ns);
        let [won, default] = [&out.results[0].winner, &out.results[0].default].map(|v| v.as_ref().and_then(median));
        assert!(won.unwrap() <= default.unwrap() * 1.01, "{strategy}");
        assert!(search.trace.windows(2).all(|w| w[1].1 < w[0].1 && w[1].0 >= w[0].0));
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
    }
    assert!("annealing".parse::<StrategyKind>().is_err());
}

#[test]
fn a_cost_report_explains_all_of_the_wall_time_and_each_of_its_parts() {
    let mut w = two_hundred();
    w.floor = vec![floor_cell(9_470_000)];
    let (out, journal) = go(&mut Fake::new(script("[device.clocks]\nthrottled = 0.1")), &sweep(w));
    let cost = &out.cost;
    assert!(cost.explained() >= 0.99 && cost.explained() <= 1.0 + 1e-9, "{cost:?}");
    assert_eq!(cost.wall, out.wall);
    // 201 variants of 300 ms, and 201 checks of 20 ms beside 2 ms of transfer.
    assert!((cost.compile.secs() - 60.3).abs() < 0.01, "{cost:?}");
    assert!((cost.verify.secs() - 4.02).abs() < 0.01 && (cost.transfer.secs() - 0.402).abs() < 0.001, "{cost:?}");
    assert!(cost.idle.0 > 0 && cost.time.0 > 0 && cost.search.0 > 0);
    let trials = journal.trials().iter().filter(|t| t.purpose != TrialPurpose::RunOff);
    let idle: u64 = trials.map(|t| t.cost.idle.0).sum();
    assert!(idle <= cost.idle.0, "what trials waited is part of what the run waited");
}

#[test]
fn a_verify_checks_everything_and_times_nothing() {
    let mut s = script("");
    s.rules.push(fail("*/k3[*", Stage::Check, 1.0));
    let mut fake = Fake::new(s);
    let p = plan(KernelRunKind::Verify, vec![two_hundred()]);
    let (out, journal) = go(&mut fake, &p);
    assert_eq!((out.accounts[0].timed, out.accounts[0].invalid), (160, 40));
    assert!(fake.tally().samples.is_empty() && out.canaries.is_empty());
    assert!(out.results[0].winner.is_none() && out.cells.iter().all(|c| c.time_ns.is_none()));
    assert!(out.cells.iter().filter(|c| c.outcome == Outcome::Verified).all(|c| c.check.is_some()));
    // A sweep does not take a verified cell for a timed one.
    let mut journal = MemoryJournal::with(journal.trials().to_vec());
    let out = again(&mut Fake::new(script("")), &sweep(two_hundred()), &mut journal);
    assert_eq!(out.accounts[0].timed, 200);
}

#[test]
fn a_recorded_space_replays_to_the_same_winner_without_a_device() {
    let mut fake = Fake::new(script(""));
    let (out, journal) = go(&mut fake, &sweep(two_hundred()));
    let text: String = journal.trials().iter().map(|t| serde_json::to_string(t).unwrap() + "\n").collect();
    // A line that a crash cut, and one of another program, are named and passed over.
    let (trials, warnings) = harness_measure::tune::read_lines(&(text + "{\"schema\":1,\"cel\n{}\n"));
    assert_eq!((trials.len(), warnings.len()), (journal.trials().len(), 2));
    assert!(warnings[0].starts_with(&format!("line {}: no trial", trials.len() + 1)), "{warnings:?}");
    let spaces = Space::from_trials(&trials).unwrap();
    assert!(spaces.len() == 1 && spaces[0].candidates.len() == 200);
    assert_eq!(spaces[0].optimum_ns(), out.results[0].ranking[0].median_ns);
    let canary = fake.canary(harness_spec::units::Bytes(1 << 30)).unwrap();
    let mut replay = Replay::new(fake.device(), canary, &trials);
    let again =
        run(&mut replay, &sweep(two_hundred()), &mut MemoryJournal::default(), &mut Silent, &AtomicBool::new(false));
    assert_eq!(winner(&again.unwrap()), winner(&out));
    assert!(Space::from_trials(&[]).unwrap_err().to_string().contains("trials.jsonl"));
}
