//! A kernel raced against itself on a real device: nothing differs, so that every verdict of a difference is false.

use std::sync::atomic::AtomicBool;

use harness_spec::record::{Provenance, SelftestFigure, Verdict};
use harness_spec::units::Nanos;
use harness_spec::{Cell, CellFailure, Phase, Stage, Target};

use super::duels::{floor, median_floor};
use super::figures::Count;
use super::{INJECTED, LEVEL, MOST_FALSE};
use crate::cell::{Halt, Settings, burn_in};
use crate::clock::ReferenceClock;
use crate::cost::Timed;
use crate::runoff::{DuelSamples, Played, judge, play};

/// Longest time that the device is warmed for: a check of the statistics needs no host that is level to the last percent.
const BURN_IN: Nanos = Nanos(5_000_000_000);

/// What a kernel against itself came to.
#[derive(Clone, Debug)]
pub struct OnHardware {
    /// The figures.
    pub figures: Vec<SelftestFigure>,
    /// The samples of each duel.
    pub duels: Vec<DuelSamples>,
    /// Key of the machine code.
    pub key: String,
    /// Whether the run was stopped before its last duel.
    pub stopped: bool,
}

/// Builds, checks and warms a cell, and plays `duels` of it against itself. Figures are of the duels that were played.
///
/// # Errors
/// What the device says of a build, a check or a launch that failed.
pub fn on_target(
    target: &mut dyn Target,
    cell: &Cell,
    seed: u64,
    duels: u64,
    resamples: usize,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(),
) -> Result<OnHardware, CellFailure> {
    let settings = Settings { resamples, burn_in_limit: BURN_IN, ..Settings::default() };
    let mut bench = Timed::start(target);
    let built = bench.prepare(std::slice::from_ref(cell)).into_iter().next();
    let built =
        built.unwrap_or_else(|| Err(CellFailure::new(Stage::Harness, "the device gave no answer to a build")))?;
    bench.check(cell, seed).0?;
    let clock = ReferenceClock(bench.canary(settings.cold_working_set)?.sm_clock_mhz);
    burn_in(&mut bench, cell, &settings)?;
    bench.announce(Phase::RunOff);
    let mut out = OnHardware { figures: Vec::new(), duels: Vec::new(), key: built.key, stopped: false };
    for _ in 0..duels {
        let halt = Halt { stop, deadline: None };
        let Some(samples) = play(&mut bench, cell, cell, &settings, clock, halt) else {
            out.stopped = true;
            break;
        };
        if let Some((_, failure)) = samples.failure {
            return Err(failure);
        }
        out.duels.push(samples);
        progress();
    }
    if !out.duels.is_empty() {
        out.figures = figures(&out.duels, cell, &settings, seed);
    }
    Ok(out)
}

/// Each duel is a family of one. A slowdown is injected into the recorded times of one side: what the noise of this host
/// lets be seen of it describes the host, and is no fault of the statistics.
fn figures(duels: &[DuelSamples], cell: &Cell, settings: &Settings, seed: u64) -> Vec<SelftestFigure> {
    let (mut false_verdicts, mut covered, mut found, mut beyond) =
        (Count::default(), Count::default(), Count::default(), Count::default());
    let mut floors = Vec::new();
    for (i, samples) in duels.iter().enumerate() {
        let seed = seed ^ i as u64;
        let judged = |samples: DuelSamples| {
            let duel = Played { challenger: 0, defender: 0, samples, memory_bound: false };
            judge(&[duel], settings, seed).remove(0)
        };
        let plain = judged(samples.clone());
        false_verdicts.add(plain.verdict.is_difference());
        if let (Some(time), Some(floor)) = (&plain.time, floor(samples, seed)) {
            covered.add(time.ci[0] <= 1.0 && 1.0 <= time.ci[1]);
            beyond.add((time.ratio - 1.0).abs() > floor);
            floors.push(floor);
        }
        let mut slowed = samples.clone();
        for pair in &mut slowed.pairs {
            pair.challenger.ns *= 1.0 + INJECTED;
        }
        found.add(judged(slowed).verdict == Verdict::Slower);
    }
    let over = || {
        format!(
            "duels of {} pairs, {} on {} {} against itself",
            settings.pairs, cell.variant, cell.workload, cell.policy
        )
    };
    let derived = Provenance::Derived;
    vec![
        false_verdicts.figure("device: a kernel is told apart from itself", over(), derived, [None, Some(MOST_FALSE)]),
        covered.figure(
            "device: 95 % interval of the ratio holds 1",
            over(),
            derived,
            [Some(LEVEL - covered.chance(LEVEL)), None],
        ),
        found.figure(
            "device: a slowdown injected into one side's times is found",
            format!("{}, one side's times × {:.2}; describes this host", over(), 1.0 + INJECTED),
            derived,
            [None, None],
        ),
        beyond.figure("device: estimates beyond the noise floor of their own duel", over(), derived, [None, None]),
        median_floor(&floors, over(), derived),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Script};
    use harness_spec::{Policy, Workload};

    #[test]
    fn a_kernel_against_itself_has_figures_of_every_duel_and_a_wrong_one_none() {
        let cell = Cell {
            variant: "gemv_q4_0/a@cuda".parse().unwrap(),
            workload: Workload::of("gemv_q4_0", [("K", 4096), ("N", 4096)]),
            policy: Policy::COLD_GRAPH,
        };
        let go = |script: &str| {
            let mut told = 0;
            let mut fake = Fake::new(Script::parse(script).unwrap());
            let out = on_target(&mut fake, &cell, 1, 20, 300, &AtomicBool::new(false), &mut || told += 1);
            (out, told)
        };
        let (out, told) = go("seed = 3");
        let out = out.unwrap();
        assert_eq!((out.duels.len(), told, out.figures.len(), out.stopped), (20, 20, 5, false));
        assert!(out.figures.iter().all(|f| f.passed && f.of == 20), "{:#?}", out.figures);
        // A host this quiet lets three percent be seen every time.
        assert_eq!(out.figures[2].hits, Some(20));
        let wrong = go("[[rules]]\nvariant = \"*\"\nfail = { stage = \"check\", message = \"output 3 is wrong\" }").0;
        assert!(wrong.unwrap_err().to_string().contains("output 3 is wrong"));
        // Stopped before the first duel, there is nothing to say.
        let mut fake = Fake::new(Script::parse("seed = 3").unwrap());
        let stopped = on_target(&mut fake, &cell, 1, 20, 300, &AtomicBool::new(true), &mut || {}).unwrap();
        assert!(stopped.stopped && stopped.figures.is_empty(), "{:#?}", stopped.figures);
    }
}
