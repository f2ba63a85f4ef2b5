//! Run-offs of scripted kernels: equals, and one that is not slowed where all others are.

use std::sync::atomic::AtomicBool;

use harness_spec::record::{Provenance, SelftestFigure, Verdict};
use harness_spec::{Cell, Phase, Policy, Target, Workload};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::figures::{Count, of_value};
use super::{Effort, INJECTED, LEAST_FOUND, LEVEL, MOST_BEYOND_FLOOR, MOST_FALSE};
use crate::cell::{Halt, Settings};
use crate::clock::ReferenceClock;
use crate::cost::Timed;
use crate::describe::{estimate, median};
use crate::fake::{Device, Fake, Noise, Rule, Script};
use crate::noise::same_side_floor;
use crate::runoff::{DuelSamples, Played, decide, judge, play};

/// Samples of a cell whose interval of the median is held against its scripted time.
const CELL_SAMPLES: u32 = 30;

/// Suites have noise of two kinds in turns, as hosts have: rare long times, and a slow wave that all kernels share.
fn noise(suite: u64) -> Noise {
    match suite % 2 {
        0 => Noise::HeavyTailed { sigma: 0.01, share: 0.03, most: 5.0 },
        _ => Noise::Drifting { sigma: 0.008, amplitude: 0.02, period_ms: 40.0 },
    }
}

/// Noise of a host that other programs share: it lasts over several samples.
const LASTING: Noise = Noise::Correlated { sigma: 0.03, rho: 0.7 };

/// A device on which every kernel takes as long, and all but the second are slowed by `slowed`.
fn device(seed: u64, number: u64, noise: Noise, slowed: f64, clocks: bool) -> Fake {
    let sm_clock_mhz = if clocks { 1980.0 } else { 0.0 };
    let device = Device { overhead_ns: 0.0, sm_clock_mhz, noise, ..Device::default() };
    let rules = vec![
        Rule { efficiency: Some(0.8), slower: Some(1.0 + slowed), ..Rule::of("*") },
        Rule { slower: Some(1.0), ..Rule::of("*/k1@*") },
    ];
    let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number);
    Fake::new(Script { seed, device, rules })
}

fn cell(kernel: usize) -> Cell {
    Cell {
        variant: format!("gemv_q4_0/k{kernel}@cuda").parse().expect("the name of a scripted kernel is a variant"),
        workload: Workload::of("gemv_q4_0", [("K", 4096), ("N", 4096)]),
        policy: Policy::COLD_GRAPH,
    }
}

/// The run-off of a suite: every challenger against the defender, which is kernel 0, and against each other.
fn run_off(fake: &mut Fake, effort: &Effort, settings: &Settings) -> Vec<Played> {
    let never = AtomicBool::new(false);
    let clock = ReferenceClock(effort.clocks.then_some(1980.0));
    let mut bench = Timed::start(fake);
    bench.announce(Phase::RunOff);
    let mut fixtures: Vec<(usize, usize)> = (1..=effort.challengers).map(|c| (c, 0)).collect();
    fixtures.extend((1..=effort.challengers).flat_map(|a| (a + 1..=effort.challengers).map(move |b| (a, b))));
    let halt = Halt { stop: &never, deadline: None };
    fixtures
        .into_iter()
        .map(|(challenger, defender)| {
            let samples = play(&mut bench, &cell(challenger), &cell(defender), settings, clock, halt);
            Played {
                challenger,
                defender,
                samples: samples.expect("nobody stops a scripted duel"),
                memory_bound: false,
            }
        })
        .collect()
}

/// The floor of a duel: that of its noisier side.
pub(super) fn floor(samples: &DuelSamples, seed: u64) -> Option<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kept = samples.kept();
    let mut side = |ours: bool| {
        let values: Vec<(u64, f64)> =
            kept.iter().map(|p| (p.block, if ours { p.challenger.ns } else { p.defender.ns })).collect();
        same_side_floor(&values, &mut rng)
    };
    Some(side(true)?.max(side(false)?))
}

/// What the suites came to.
#[derive(Default)]
pub(super) struct Tally {
    /// Suites of equals with a verdict of faster or slower.
    pub false_verdicts: Count,
    /// Suites of equals in which the defender lost its place.
    pub replaced: Count,
    /// Suites with a slowdown in which its duel found it.
    pub found: Count,
    /// Suites with a slowdown that the kernel without it won.
    pub won: Count,
    /// Intervals that hold the true ratio.
    pub covered: Count,
    /// Intervals of a cell's median that hold its scripted time.
    pub median_covered: Count,
    /// Estimates of equals beyond their own floor.
    pub beyond_floor: Count,
    /// The floors.
    pub floors: Vec<f64>,
}

fn tally(seed: u64, effort: &Effort, go_on: &mut dyn FnMut() -> bool) -> Option<Tally> {
    let settings = Settings { resamples: effort.resamples, ..Settings::default() };
    let mut out = Tally::default();
    let finalists: Vec<usize> = (0..=effort.challengers).collect();
    for suite in 0..effort.suites {
        for slowed in [0.0, INJECTED] {
            if !go_on() {
                return None;
            }
            let number = 2 * suite + u64::from(slowed > 0.0);
            let mut fake = device(seed, number, noise(suite), slowed, effort.clocks);
            let duels = run_off(&mut fake, effort, &settings);
            let judged = judge(&duels, &settings, seed ^ suite);
            let winner = decide(&finalists, 0, &judged, |_| 0).winner;
            // Alone it is a family of one, whose interval is at the plain level.
            let alone = judge(&duels[..1], &settings, seed ^ suite);
            if let Some(time) = &alone[0].time {
                let truth = 1.0 + slowed;
                out.covered.add(time.ci[0] <= truth && truth <= time.ci[1]);
            }
            if slowed > 0.0 {
                out.found.add(judged[0].verdict == Verdict::Faster);
                out.won.add(winner == 1);
            } else {
                out.false_verdicts.add(judged.iter().any(|j| j.verdict.is_difference()));
                out.replaced.add(winner != 0);
                if let (Some(time), Some(floor)) = (&alone[0].time, floor(&duels[0].samples, seed ^ suite)) {
                    out.beyond_floor.add((time.ratio - 1.0).abs() > floor);
                    out.floors.push(floor);
                }
            }
            out.median_covered.add(median_holds(seed, suite, slowed));
        }
    }
    Some(out)
}

/// Whether the interval of a cell's median holds the time that its script says. Of independent samples alone: what a wave
/// adds to all of them is no error of the interval.
fn median_holds(seed: u64, suite: u64, slowed: f64) -> bool {
    // An even half of its number is the noise with rare long times.
    let mut fake = device(seed, 4 * suite + u64::from(slowed > 0.0), noise(2 * suite), slowed, false);
    let cell = cell(0);
    fake.announce(Phase::Sample);
    let truth = fake.true_time(&cell);
    let samples = fake.sample(&cell, CELL_SAMPLES).expect("no failure is scripted");
    let ns: Vec<f64> = samples.iter().map(|s| s.ns).collect();
    estimate(&ns).and_then(|e| e.ci95).is_some_and(|[lo, hi]| lo <= truth && truth <= hi)
}

/// Suites of equals under this noise with a verdict of faster or slower.
fn false_verdicts(seed: u64, effort: &Effort, noise: Noise, go_on: &mut dyn FnMut() -> bool) -> Option<Count> {
    let settings = Settings { resamples: effort.resamples, ..Settings::default() };
    let mut out = Count::default();
    for suite in 0..effort.suites {
        if !go_on() {
            return None;
        }
        let duels = run_off(&mut device(seed, suite, noise, 0.0, effort.clocks), effort, &settings);
        out.add(judge(&duels, &settings, seed ^ suite).iter().any(|j| j.verdict.is_difference()));
    }
    Some(out)
}

pub(super) fn figures(seed: u64, effort: &Effort, go_on: &mut dyn FnMut() -> bool) -> Option<Vec<SelftestFigure>> {
    let t = tally(seed, effort, go_on)?;
    let lasting = false_verdicts(seed, effort, LASTING, go_on)?;
    let simulated = Provenance::Simulated;
    let pairs = Settings::default().pairs;
    let duels = effort.challengers * (effort.challengers + 1) / 2;
    let equals = format!("suites of {} equal kernels, {duels} duels of {pairs} pairs each", effort.challengers + 1);
    let slowed = format!(
        "suites in which all kernels but one are slowed by {:.0} %, {duels} duels of {pairs} pairs",
        INJECTED * 100.0
    );
    let both_ways = |c: &Count| [Some(LEVEL - c.chance(LEVEL)), None];
    Some(vec![
        t.covered.figure(
            "run-off: 95 % interval of the ratio holds the true one",
            format!("duels of {pairs} pairs, true ratio 1 or {:.2}", 1.0 + INJECTED),
            simulated,
            both_ways(&t.covered),
        ),
        t.median_covered.figure(
            "cell: 95 % interval of the median holds the scripted time",
            format!("cells of {CELL_SAMPLES} samples"),
            simulated,
            both_ways(&t.median_covered),
        ),
        t.false_verdicts.figure(
            "run-off: a suite of equals with a false verdict",
            equals.clone(),
            simulated,
            [None, Some(MOST_FALSE)],
        ),
        lasting.figure(
            "run-off: a suite of equals with a false verdict where noise lasts",
            format!("{equals}; samples of 3 % noise, each correlated by 0.7 with the one before"),
            simulated,
            [None, Some(MOST_FALSE)],
        ),
        t.replaced.figure(
            "run-off: the defender of equals is replaced",
            equals.clone(),
            simulated,
            [None, Some(MOST_FALSE)],
        ),
        t.found.figure("run-off: the slowdown is found", slowed.clone(), simulated, [Some(LEAST_FOUND), None]),
        t.won.figure("run-off: the kernel that was not slowed wins", slowed, simulated, [Some(LEAST_FOUND), None]),
        t.beyond_floor.figure(
            "noise floor: estimates of equals beyond the floor of their own duel",
            format!("{}; the median floor is {:.2} %", equals, median(&t.floors).unwrap_or(f64::NAN) * 100.0),
            simulated,
            [None, Some(MOST_BEYOND_FLOOR)],
        ),
    ])
}

/// The median of floors as a figure that describes.
pub(super) fn median_floor(floors: &[f64], over: String, provenance: Provenance) -> SelftestFigure {
    let of = floors.len() as u64;
    of_value("noise floor: median over duels", over, provenance, median(floors), of, [None, None])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_seldom_told_apart_however_long_noise_lasts() {
        for rho in [0.3, 0.7] {
            let noise = Noise::Correlated { sigma: 0.03, rho };
            let count = false_verdicts(2, &Effort::CHEAP, noise, &mut || true).unwrap();
            let figure = count.figure("", String::new(), Provenance::Simulated, [None, Some(MOST_FALSE)]);
            assert!(figure.passed, "rho {rho}: {:?} of {}", figure.hits, figure.of);
        }
    }
}
