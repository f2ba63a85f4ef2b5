//! Who takes part in a workload's run-off, and the trials that it leaves.

use harness_spec::record::{
    Duel, KERNEL_SCHEMA_VERSION, Outcome, RunOff, StopReason, Trial, TrialCost, TrialPurpose, TrialSample,
};
use harness_spec::{CacheState, Phase};

use super::journal::JournalError;
use super::progress::Event;
use super::race::{Race, Shared};
use crate::cell::Halt;
use crate::runoff::{DuelSamples, Played, RoundResult, Side, Why, decide, judge, play};

/// Both sides above this share of the read ceiling are bound by memory.
const MEMORY_BOUND: f64 = 0.6;

/// How a workload's final ended.
pub(super) enum Final {
    /// It was played.
    Played(RunOff, Vec<usize>, usize),
    /// One candidate alone has a valid time.
    Alone(usize),
    /// Nobody has a valid time.
    Nobody,
    /// The run was stopped before it was over.
    Stopped,
    /// The plan has none.
    None,
}

/// Finalists: the best by median, and the defender, who stays in a tie.
fn finalists(race: &Race, most: usize) -> Vec<usize> {
    let valid = race.ranked();
    let mut out: Vec<usize> = valid.iter().copied().take(most).collect();
    if let Some(defender) = race.plan.defender().filter(|d| valid.contains(d) && !out.contains(d)) {
        out.push(defender);
    }
    out
}

/// Plays the run-off: every pair of finalists, since it is not known beforehand which duels the decision will need.
pub(super) fn run_off(race: &mut Race, shared: &mut Shared, halt: Halt<'_>) -> Result<Final, JournalError> {
    let plan = shared.plan;
    let settings = &plan.settings;
    if !plan.run_off {
        return Ok(Final::None);
    }
    let mut left = finalists(race, settings.finalists);
    if halt.asked(shared.bench.elapsed()).is_some() {
        return Ok(Final::Stopped);
    }
    shared.progress.event(&Event::RunOff { finalists: left.len() });
    shared.bench.announce(Phase::RunOff);
    loop {
        let Some(&best) = left.first() else { return Ok(Final::Nobody) };
        if left.len() == 1 {
            return Ok(Final::Alone(best));
        }
        // Without a row and a default the simplest stays in a tie.
        let simplicity = |i: usize| race.plan.candidates[i].simplicity;
        let defender = race
            .plan
            .defender()
            .filter(|d| left.contains(d))
            .or_else(|| left.iter().copied().min_by_key(|&i| (simplicity(i), i)))
            .expect("two finalists are left");
        let others: Vec<usize> = left.iter().copied().filter(|&f| f != defender).collect();
        let mut fixtures: Vec<(usize, usize)> = others.iter().map(|&c| (c, defender)).collect();
        for (n, &a) in others.iter().enumerate() {
            fixtures.extend(others[n + 1..].iter().map(|&b| (a, b)));
        }
        let mut duels: Vec<Played> = Vec::new();
        let mut lost = None;
        for (challenger, other) in fixtures {
            let (a, b) = (race.plan.cell(challenger), race.plan.cell(other));
            let samples = match recall(race, shared, challenger, other) {
                Some(samples) => samples,
                None => match play(&mut shared.bench, &a, &b, settings, shared.clock, halt) {
                    Some(samples) => samples,
                    None => return Ok(Final::Stopped),
                },
            };
            let memory_bound = race.plan.policy.cache == CacheState::Cold
                && [challenger, other].iter().all(|&i| {
                    let share = race.result(i, plan).and_then(|r| r.of_ceiling.value);
                    share.is_some_and(|s| s >= MEMORY_BOUND)
                });
            let failed = samples.failure.clone();
            let duel = Played { challenger, defender: other, samples, memory_bound };
            write_trials(race, shared, &duel)?;
            duels.push(duel);
            if let Some((side, failure)) = failed {
                lost = Some((if side == Side::Challenger { challenger } else { other }, failure));
                break;
            }
        }
        if let Some((who, failure)) = lost {
            // A finalist that fails now is out with its time, and the rest play again without it.
            race.disqualify(who, failure);
            left.retain(|&f| f != who);
            continue;
        }
        let judged = judge(&duels, settings, plan.seed);
        let round = decide(&left, defender, &judged, simplicity);
        let name = |i: usize| race.plan.candidates[i].variant.clone();
        let duels: Vec<Duel> = duels
            .iter()
            .zip(judged)
            .map(|(played, j)| Duel {
                challenger: name(j.challenger),
                defender: name(j.defender),
                order: "ABBA".to_owned(),
                pairs_planned: settings.pairs as u64,
                pairs_rerun: played.samples.rerun(),
                time: j.time,
                cycles: j.cycles,
                verdict: j.verdict,
            })
            .collect();
        let of_winner = |d: &&Duel| d.challenger == name(round.winner) && d.defender == name(defender);
        let ratio = duels.iter().find(of_winner).and_then(|duel| duel.time.as_ref()).map(|time| time.ratio);
        let run_off = RunOff {
            finalists: left.iter().map(|&i| name(i)).collect(),
            seed: plan.seed,
            reason: reason(race, &round, defender, ratio),
            duels,
            winner: name(round.winner),
        };
        return Ok(Final::Played(run_off, round.ties, round.winner));
    }
}

/// Why the winner won; `ratio` is the defender's time ÷ its own in their duel.
fn reason(race: &Race, round: &RoundResult, defender: usize, ratio: Option<f64>) -> String {
    let part = match race.plan.defender() {
        Some(d) if Some(d) == race.plan.incumbent => "the table's row",
        Some(_) => "the default",
        None => "the simplest",
    };
    let short = |i: usize| race.plan.candidates[i].variant.short();
    match round.reason {
        Why::Stays => format!("{} stays, {part}: no other finalist was proven faster", short(defender)),
        Why::Faster => {
            let times = ratio.map(|ratio| format!(", {ratio:.3} times as fast")).unwrap_or_default();
            format!("proven faster than {} in the run-off{times}", short(defender))
        }
        Why::Simplest => {
            format!(
                "the simplest of those that were proven faster than {} and could not be told apart",
                short(defender)
            )
        }
    }
}

/// The key of one side's samples in a duel: that of its trial and those of both sides, in their parts.
fn duel_key(race: &Race, who: usize, challenger: usize, defender: usize) -> Option<String> {
    let key = |i: usize| race.entries.get(&i).map(|e| e.trial.key.as_str());
    Some(format!("{}-run-off-{}-{}", key(who)?, key(challenger)?, key(defender)?))
}

/// A duel that was played before between the very same machine code, with the parts as they were or exchanged. One of
/// which pairs were dropped is played again.
fn recall(race: &Race, shared: &Shared, challenger: usize, defender: usize) -> Option<DuelSamples> {
    let side = |who, a, b| -> Option<&Trial> {
        let trial = shared.journal.find(&duel_key(race, who, a, b)?)?;
        let whole = trial.samples.len() == shared.plan.settings.pairs;
        let kept = trial.samples.iter().all(|s| s.dropped.is_none());
        (whole && kept && trial.provenance == shared.plan.provenance).then_some(trial)
    };
    let both = |a, b| Some((side(challenger, a, b)?, side(defender, a, b)?));
    let (ours, theirs) = both(challenger, defender).or_else(|| both(defender, challenger))?;
    let mut out = DuelSamples::default();
    for (i, (a, b)) in ours.samples.iter().zip(&theirs.samples).enumerate() {
        out.push(i as u64 / u64::from(shared.plan.settings.block.max(1)), a.clone(), b.clone());
    }
    Some(out)
}

/// Keeps the raw samples of a duel, one line a side.
fn write_trials(race: &Race, shared: &mut Shared, duel: &Played) -> Result<(), JournalError> {
    let side = |challenger: bool| -> Vec<TrialSample> {
        let pairs = duel.samples.pairs.iter();
        pairs.map(|p| if challenger { p.challenger.clone() } else { p.defender.clone() }).collect()
    };
    for (who, samples) in [(duel.challenger, side(true)), (duel.defender, side(false))] {
        let (Some(entry), Some(key)) = (race.entries.get(&who), duel_key(race, who, duel.challenger, duel.defender))
        else {
            continue;
        };
        let trial = Trial {
            schema: KERNEL_SCHEMA_VERSION,
            provenance: shared.plan.provenance,
            purpose: TrialPurpose::RunOff,
            key,
            outcome: Outcome::Measured,
            warm_up: None,
            samples,
            stop: Some(StopReason::Complete),
            cost: TrialCost::default(),
            at_ns: shared.bench.elapsed(),
            ..entry.trial.clone()
        };
        shared.journal.append(trial)?;
    }
    Ok(())
}
