//! Killed at any moment, a run resumes to the same answer (R18).

mod common;

use std::sync::atomic::AtomicBool;

use common::{Mortal, again, floor_cell, go, grid, plan, same_table, script, workload};
use harness_measure::fake::{Failure, Fake, Rule, Script};
use harness_measure::tune::{MemoryJournal, Plan, Silent, StrategyKind, WorkloadPlan, run};
use harness_spec::record::{KernelRunKind, TrialPurpose};
use harness_spec::{Cell, Stage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn noisy() -> Script {
    let mut s = script(
        "seed = 11\n[device]\nnoise = { kind = \"heavy_tailed\", sigma = 0.01, share = 0.03, most = 5.0 }\n\
         [device.clocks]\nthrottled = 0.05",
    );
    for (stage, pattern) in [(Stage::Compile, "*A=8*"), (Stage::Check, "*/k2*"), (Stage::Fault, "*B=4*")] {
        let failure = Failure { stage, message: "scripted".into(), after_samples: 0, only: None, share: 0.2 };
        s.rules.push(Rule { fail: Some(failure), ..Rule::of(pattern) });
    }
    s
}

fn two_workloads(strategy: StrategyKind) -> Plan {
    let shapes = ["gemv_q4_0 K=4096 N=4096", "gemv_q4_0 K=1536 N=8960"];
    let of = |(i, shape): (u64, &&str)| {
        let read = |r| Cell { variant: format!("stream_read/r[R={r}]@cuda").parse().unwrap(), ..floor_cell(i << 20) };
        WorkloadPlan { floor: (1..=5).map(read).collect(), ..workload(shape, grid(5, 6, 6)) }
    };
    let mut p = plan(KernelRunKind::Tune, (1..).zip(&shapes).map(of).collect());
    p.strategy = strategy;
    p
}

#[test]
fn killed_at_twenty_random_moments_a_tune_resumes_to_the_same_table() {
    for strategy in [StrategyKind::Guided, StrategyKind::Local, StrategyKind::Halving] {
        let p = two_workloads(strategy);
        let (whole, journal) = go(&mut Fake::new(noisy()), &p);
        let all = journal.trials().iter().filter(|t| t.purpose == TrialPurpose::Candidate).count();
        let mut rng = ChaCha8Rng::seed_from_u64(strategy as u64);
        for _ in 0..20 {
            let life = rng.random_range(0..all);
            let mut mortal = Mortal { kept: MemoryJournal::default(), life };
            let killed = run(&mut Fake::new(noisy()), &p, &mut mortal, &mut Silent, &AtomicBool::new(false));
            assert!(killed.is_err(), "the journal dies before the end");
            let mut rest = mortal.kept.clone();
            let mut fake = Fake::new(noisy());
            let resumed = again(&mut fake, &p, &mut rest);
            same_table(&resumed, &whole, &format!("{strategy} killed after {life} of {all}"));
            // Nothing that was finished is measured again.
            let done =
                mortal.kept.trials().iter().filter(|t| t.purpose == TrialPurpose::Candidate && t.check.is_some());
            for t in done {
                assert_eq!(fake.tally().checks.get(&t.cell).copied().unwrap_or(0), 0, "{} again", t.cell.variant);
            }
        }
    }
}

#[test]
fn killed_again_and_again_it_still_arrives() {
    let p = two_workloads(StrategyKind::Guided);
    let (whole, _) = go(&mut Fake::new(noisy()), &p);
    let mut kept = MemoryJournal::default();
    let mut runs = 0;
    let last = loop {
        runs += 1;
        let mut mortal = Mortal { kept, life: 7 };
        let answer = run(&mut Fake::new(noisy()), &p, &mut mortal, &mut Silent, &AtomicBool::new(false));
        kept = mortal.kept;
        match answer {
            Ok(out) => break out,
            Err(_) => assert!(runs < 100, "it does not arrive"),
        }
    };
    same_table(&last, &whole, "after many deaths");
}
