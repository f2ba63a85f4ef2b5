//! Promotion where noise lasts longer than a request, on the scripted device (R27).

mod common;

use std::sync::atomic::AtomicBool;

use common::{WORKLOAD, ids, script};
use harness_measure::cell::{Halt, Settings};
use harness_measure::clock::ReferenceClock;
use harness_measure::cost::Timed;
use harness_measure::fake::{Fake, Rule};
use harness_measure::runoff::play;
use harness_measure::tune::{EngineEvidence, EngineLoading, EnginePair, EngineStage, EngineWork, promote};
use harness_spec::{Cell, Phase, Policy};

/// Four loadings of two tables on one device, requests of 1 % noise of which each is correlated by 0.7 with the one before.
/// The new table is `gain` times as fast.
fn evidence(seed: u64, gain: f64) -> EngineEvidence {
    let noise = "[device]\noverhead_ns = 0.0\nnoise = { kind = \"correlated\", sigma = 0.01, rho = 0.7 }";
    let mut s = script(&format!("seed = {seed}\n{noise}"));
    s.rules.push(Rule { efficiency: Some(0.5), ..Rule::of("*/old@cuda") });
    s.rules.push(Rule { efficiency: Some(0.5 * gain), ..Rule::of("*/new@cuda") });
    let variants = ids(&["gemv_q4_0/old@cuda".to_owned(), "gemv_q4_0/new@cuda".to_owned()]);
    let cell = |i: usize| Cell {
        variant: variants[i].clone(),
        workload: WORKLOAD.parse().unwrap(),
        policy: Policy::COLD_GRAPH,
    };
    let (mut fake, never) = (Fake::new(s), AtomicBool::new(false));
    let mut bench = Timed::start(&mut fake);
    let settings = Settings { pairs: 32, block: 8, ..Settings::default() };
    let halt = Halt { stop: &never, deadline: None };
    bench.announce(Phase::RunOff);
    let loadings = [false, true, true, false].map(|new_first| {
        let samples = play(&mut bench, &cell(1), &cell(0), &settings, ReferenceClock(None), halt).unwrap();
        let rate = |ns: f64| 1e9 / ns;
        let pairs = samples.pairs.iter().map(|p| EnginePair {
            old: rate(p.defender.ns),
            new: rate(p.challenger.ns),
            block: p.block,
        });
        EngineLoading { new_first, pairs: pairs.collect() }
    });
    let stage = EngineStage { work: EngineWork::Decode, prompt: 512 };
    EngineEvidence { stage, same_kernels: false, loadings: loadings.into() }
}

#[test]
fn a_table_as_fast_as_the_old_one_is_promoted_once_in_twenty_times_at_most_where_noise_lasts() {
    let mut outside = 0;
    let promoted = (0..200).filter(|&seed| {
        let p = promote(&[evidence(seed, 1.0)], Ok(()), &[], seed);
        let [low, high] = p.stages[0].ratio.ci;
        outside += usize::from(!(low..=high).contains(&1.0));
        p.promoted
    });
    let promoted = promoted.count();
    assert!(promoted <= 10 && outside <= 16, "{promoted} promoted, {outside} intervals without 1, of 200");
}

#[test]
fn three_percent_are_found_where_noise_lasts() {
    let promoted = (0..50).filter(|&seed| promote(&[evidence(seed, 1.03)], Ok(()), &[], seed).promoted).count();
    assert!(promoted >= 45, "{promoted} of 50");
}
