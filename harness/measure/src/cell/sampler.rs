//! Round-robin sampling of the live candidates of one workload (§4.4, §5, §6).

use harness_spec::record::{SampleDrop, StopReason, Trial, TrialSample, WarmUp};
use harness_spec::units::Nanos;
use harness_spec::{Cell, CellFailure, CellSample, Phase};

use super::halt::Halt;
use super::settings::Settings;
use super::stop_rule::Evidence;
use super::warm_up::interval_ns;
use crate::clock::{ReferenceClock, Waiting};
use crate::cost::Timed;
use crate::describe::median;

/// A candidate while it is sampled.
#[derive(Debug)]
pub struct Runner {
    /// What it is.
    pub cell: Cell,
    /// How it was warmed.
    pub warm_up: Option<WarmUp>,
    /// Every sample, dropped ones too.
    pub samples: Vec<TrialSample>,
    /// Why it ended; `None` while it is live.
    pub stop: Option<StopReason>,
    /// A launch that failed ends it too.
    pub failure: Option<CellFailure>,
    /// Time spent on its samples.
    pub time: Nanos,
    /// Time spent waiting for its clock.
    pub idle: Nanos,
    /// End after so many kept samples, whatever they say: a cheap look.
    pub look: Option<u32>,
    /// Less than this physics does not allow, ns: a median below it eliminates nobody, since it is no measurement.
    pub least_ns: f64,
    evidence: Evidence,
    waiting: Waiting,
    device_ns: f64,
    /// Launches that were compared with the reference, and all.
    verified: [u64; 2],
    first: Option<usize>,
}

impl Runner {
    /// A candidate without a sample.
    pub fn new(cell: Cell, settings: &Settings) -> Runner {
        Runner {
            cell,
            warm_up: None,
            samples: Vec::new(),
            stop: None,
            failure: None,
            time: Nanos(0),
            idle: Nanos(0),
            look: None,
            least_ns: 0.0,
            evidence: Evidence::default(),
            waiting: Waiting::within(settings.waiting),
            device_ns: 0.0,
            verified: [0, 0],
            first: None,
        }
    }

    /// Whether it still takes samples.
    pub fn live(&self) -> bool {
        self.stop.is_none() && self.failure.is_none()
    }

    /// Kept samples.
    pub fn kept(&self) -> usize {
        self.evidence.n()
    }

    /// The least time that others are held against.
    fn bar(&self) -> Option<f64> {
        let plausible = self.failure.is_none() && self.evidence.median().is_some_and(|m| m >= self.least_ns);
        self.evidence.min().filter(|_| plausible)
    }

    /// Takes in one turn's samples; how long to wait afterwards, if the clock asks for it.
    fn absorb(&mut self, samples: Vec<CellSample>, round: u32, clock: ReferenceClock) -> Option<Nanos> {
        let mut pause = None;
        let mut throttled = 0;
        let turn = samples.len();
        for s in samples {
            let interval = interval_ns(&s);
            if interval.is_finite() && interval > 0.0 {
                self.device_ns += interval;
            }
            self.verified[0] += u64::from(s.verified) * u64::from(s.launches);
            self.verified[1] += u64::from(s.launches);
            let dropped = if !(s.ns.is_finite() && s.ns > 0.0) {
                Some(SampleDrop::NotFinite)
            } else if clock.throttled(&s) {
                throttled += 1;
                Some(SampleDrop::Throttled)
            } else {
                self.evidence.push(s.ns);
                self.first.get_or_insert(self.samples.len());
                None
            };
            self.samples.push(TrialSample {
                ns: s.ns,
                launches: s.launches,
                sm_clock_mhz: s.sm_clock_mhz,
                mem_clock_mhz: s.mem_clock_mhz,
                verified: s.verified,
                round,
                dropped,
            });
        }
        if throttled > 0 {
            match self.waiting.throttled() {
                Some(p) => pause = Some(p),
                None => self.stop = Some(StopReason::Unstable),
            }
            if throttled < turn {
                self.waiting.recovered();
            }
        } else if turn > 0 {
            self.waiting.recovered();
        }
        // The first kept sample still pays for the ramp; it goes once three others exist.
        if let Some(first) = self.first.filter(|_| self.evidence.n() >= 4)
            && self.samples[first].dropped.is_none()
        {
            self.samples[first].dropped = Some(SampleDrop::First);
            self.evidence.remove(self.samples[first].ns);
        }
        pause
    }

    /// Whether it ends after this round.
    fn judge(&mut self, best: f64, settings: &Settings) {
        if !self.live() {
            return;
        }
        let n = self.kept();
        // A device that gives no times would keep us here for ever.
        let not_finite = self.samples.iter().filter(|s| s.dropped == Some(SampleDrop::NotFinite)).count();
        if not_finite > 2 * settings.least && not_finite > n {
            self.stop = Some(StopReason::Unstable);
            return;
        }
        // Which launches are verified is a matter of chance, so that a kernel cannot know; a cell that is good enough goes
        // on until enough of them were.
        let verified = self.verified[0] as f64 >= settings.verified * self.verified[1] as f64;
        if let Some(look) = self.look {
            if n >= look as usize {
                self.stop = Some(StopReason::Complete);
                return;
            }
        } else if let Some(reason) = self.evidence.settled(settings).filter(|_| verified) {
            self.stop = Some(reason);
            return;
        }
        if n >= settings.least
            && settings.elimination
            && self.evidence.min().is_some_and(|m| m > settings.eliminate * best)
        {
            self.stop = Some(StopReason::Eliminated);
        } else if self.device_ns >= settings.device_budget.0 as f64 {
            self.stop = Some(StopReason::Budget);
        }
    }
}

/// A candidate that another run finished: its samples take part in elimination round by round, as if it were live, so
/// that a resumed run eliminates whom the uninterrupted one would have.
#[derive(Clone, Debug)]
pub struct Ghost {
    /// Least kept time up to and with each round.
    best_by_round: Vec<f64>,
}

impl Ghost {
    /// The ghost of a finished trial, whose times physics bounds by `least_ns`.
    pub fn of(trial: &Trial, least_ns: f64) -> Ghost {
        let kept: Vec<f64> = trial.samples.iter().filter(|s| s.dropped.is_none()).map(|s| s.ns).collect();
        let plausible = trial.outcome.is_measured() && median(&kept).is_some_and(|m| m >= least_ns);
        if !plausible {
            return Ghost { best_by_round: Vec::new() };
        }
        let rounds = trial.samples.last().map_or(0, |s| s.round as usize + 1);
        let mut best_by_round = vec![f64::INFINITY; rounds];
        for s in trial.samples.iter().filter(|s| s.dropped.is_none()) {
            let slot = &mut best_by_round[s.round as usize];
            *slot = slot.min(s.ns);
        }
        for i in 1..rounds {
            best_by_round[i] = best_by_round[i].min(best_by_round[i - 1]);
        }
        Ghost { best_by_round }
    }

    fn best(&self, round: u32) -> f64 {
        let at = (round as usize).min(self.best_by_round.len().wrapping_sub(1));
        self.best_by_round.get(at).copied().unwrap_or(f64::INFINITY)
    }
}

/// What a candidate came to, handed over the moment it is finished.
pub type Finished<'f, E> = dyn FnMut(usize, &Runner, Nanos) -> Result<(), E> + 'f;

/// The round-robin over the live candidates of a batch.
pub struct RoundRobin<'a> {
    /// Numbers of the law.
    pub settings: &'a Settings,
    /// What a clock is held against.
    pub clock: ReferenceClock,
    /// When to end early.
    pub halt: Halt<'a>,
    /// Candidates of the same batch that a journal already holds.
    pub ghosts: &'a [Ghost],
    /// Least time of earlier batches of the workload.
    pub best_before: f64,
}

impl RoundRobin<'_> {
    /// Samples until every runner has ended or the run is halted. The answer is why it was halted; runners without an end
    /// are then unfinished.
    ///
    /// # Errors
    /// Those of `finished`.
    pub fn run<E>(
        &self,
        bench: &mut Timed,
        runners: &mut [Runner],
        finished: &mut Finished<E>,
    ) -> Result<Option<&'static str>, E> {
        bench.announce(Phase::Sample);
        let mut told: Vec<bool> = runners.iter().map(|r| !r.live()).collect();
        for round in 0.. {
            if runners.iter().all(|r| !r.live()) {
                break;
            }
            for runner in runners.iter_mut().filter(|r| r.live()) {
                if let Some(why) = self.halt.asked(bench.elapsed()) {
                    return Ok(Some(why));
                }
                self.turn(bench, runner, round);
            }
            // Judged at the end of the round, so that the place in the order decides nothing (R12).
            let ghosts = self.ghosts.iter().map(|g| g.best(round));
            let best = runners.iter().filter_map(Runner::bar).chain(ghosts).fold(self.best_before, f64::min);
            for runner in runners.iter_mut() {
                runner.judge(best, self.settings);
            }
            for (i, runner) in runners.iter().enumerate() {
                if !runner.live() && !told[i] {
                    told[i] = true;
                    finished(i, runner, bench.elapsed())?;
                }
            }
        }
        Ok(None)
    }

    fn turn(&self, bench: &mut Timed, runner: &mut Runner, round: u32) {
        let count = match runner.look {
            // One more than asked for, since the first is dropped.
            Some(look) => (look + 1).saturating_sub(runner.samples.len() as u32).clamp(1, self.settings.turn),
            None => self.settings.turn,
        };
        let (samples, took) = bench.sample(&runner.cell, count);
        runner.time = runner.time + took;
        match samples {
            Ok(samples) if samples.is_empty() => runner.stop = Some(StopReason::Unstable),
            Ok(samples) => {
                if let Some(pause) = runner.absorb(samples, round, self.clock).filter(|_| runner.live()) {
                    runner.idle = runner.idle + bench.rest(pause);
                }
            }
            Err(failure) => runner.failure = Some(failure),
        }
    }
}
