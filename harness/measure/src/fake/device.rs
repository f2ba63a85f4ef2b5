//! The scripted device itself, with its mock clock.

use std::cell::Cell as Counter;
use std::collections::{BTreeMap, HashMap, HashSet};

use harness_spec::units::{Bytes, Nanos};
use harness_spec::{
    CacheState, Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, Phase, Prepared, Resources, Stage,
    Target, VariantId, Workload,
};
use sha2::{Digest, Sha256};

use super::noise::Draw;
use super::script::{Cheat, Failure, Rule, Script};
use super::speed;

/// What was done to the device: tests ask it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Variants that were compiled.
    pub compiled: u64,
    /// Checks by cell.
    pub checks: BTreeMap<Cell, u64>,
    /// Samples by cell and phase, the warm-up included.
    pub samples: BTreeMap<(Cell, Phase), u64>,
    /// Cells in the order in which they were sampled, neighbours once.
    pub order: Vec<Cell>,
    /// Pauses.
    pub rests: Vec<Nanos>,
    /// Times the worker had to be started again.
    pub restarts: u64,
}

/// What is worked out of a cell once.
struct Known {
    rule: Rule,
    time_ns: f64,
    /// Stream of its noise by phase.
    streams: [u64; 3],
    fails: bool,
}

/// A scripted device.
pub struct Fake {
    script: Script,
    now: u64,
    /// Reading the clock takes a moment, as it does everywhere.
    tick: Counter<u64>,
    phase: Phase,
    taken: HashMap<Cell, u64>,
    known: HashMap<Cell, Known>,
    compiled: HashSet<VariantId>,
    /// Workloads whose data are there.
    with_data: HashSet<Workload>,
    transferred: u64,
    canaries: u64,
    /// Where correlated noise stands.
    wander: f64,
    tally: Tally,
}

impl Fake {
    /// Plays this script.
    pub fn new(script: Script) -> Fake {
        Fake {
            script,
            now: 0,
            tick: Counter::new(0),
            phase: Phase::Sample,
            taken: HashMap::new(),
            known: HashMap::new(),
            compiled: HashSet::new(),
            with_data: HashSet::new(),
            transferred: 0,
            canaries: 0,
            wander: 0.0,
            tally: Tally::default(),
        }
    }

    /// What was done to it so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The time that a cell takes without noise, ns.
    pub fn true_time(&mut self, cell: &Cell) -> f64 {
        self.know(cell).time_ns
    }

    fn pass_ms(&mut self, ms: f64) {
        self.now += (ms * 1e6) as u64;
    }

    fn know(&mut self, cell: &Cell) -> &Known {
        let script = &self.script;
        self.known.entry(cell.clone()).or_insert_with(|| {
            let rule = script.rule(cell);
            let device = &script.device;
            let rate = match cell.policy.cache {
                CacheState::Cold => device.read_gb_per_s,
                CacheState::Hot => device.hot_gb_per_s,
            };
            // Bytes a nanosecond and GB/s are the same number.
            let least = speed::bytes(cell) as f64 / rate;
            let time = rule.time_ns.unwrap_or_else(|| {
                // A pure read is what the ceiling was taken from.
                let reads = cell.variant.op == "stream_read";
                let own = if reads { 0.97 } else { speed::efficiency(script.seed, cell) };
                least / rule.efficiency.unwrap_or(own) + device.overhead_ns
            });
            let honest = time * rule.slower.unwrap_or(1.0);
            let time_ns = if rule.cheat == Some(Cheat::Memoises) { least / 20.0 } else { honest };
            let name = format!("{} {} {}", cell.variant, cell.workload, cell.policy);
            let streams = ["warm-up", "sample", "run-off"].map(|phase| Draw::base(script.seed, &[&name, phase]));
            let chance = Draw::of(script.seed, &["fails", &name], 0).uniform();
            let fails = rule.fail.as_ref().is_some_and(|f| chance < f.share);
            Known { rule, time_ns, streams, fails }
        })
    }

    /// The scripted failure of a cell at one of these stages.
    fn failure(&mut self, cell: &Cell, at: impl Fn(Stage) -> bool) -> Option<Failure> {
        let known = self.know(cell);
        known.rule.fail.clone().filter(|f| known.fails && at(f.stage))
    }

    fn fail(&mut self, failure: &Failure) -> CellFailure {
        match failure.stage {
            Stage::Hang => {
                self.pass_ms(self.script.device.timeout_ms);
                self.tally.restarts += 1;
            }
            Stage::Fault | Stage::Harness => self.tally.restarts += 1,
            _ => {}
        }
        CellFailure::new(failure.stage, failure.message.clone())
    }

    fn one(&mut self, cell: &Cell, number: u64) -> CellSample {
        let now = self.now;
        let phase = self.phase as usize;
        let device = self.script.device.clone();
        let known = self.know(cell);
        let mut draw = Draw::numbered(known.streams[phase], number);
        let (time_ns, noise) = (known.time_ns, known.rule.noise.unwrap_or(device.noise));
        let share = known.rule.throttled.unwrap_or(device.clocks.throttled);
        let factor = noise.factor(&mut draw, now, &mut self.wander);
        let throttled = draw.uniform() < share;
        let mut mhz = device.sm_clock_mhz * (1.0 + device.clocks.jitter * draw.normal());
        let mut ns = time_ns * factor;
        if throttled {
            ns *= mhz / device.clocks.throttled_mhz;
            mhz = device.clocks.throttled_mhz;
        }
        let verified = device.verify_every > 0 && number.is_multiple_of(u64::from(device.verify_every));
        self.now += (ns * f64::from(device.launches)) as u64;
        CellSample {
            ns,
            launches: device.launches,
            sm_clock_mhz: (device.sm_clock_mhz > 0.0).then_some(mhz),
            mem_clock_mhz: (device.mem_clock_mhz > 0.0).then_some(device.mem_clock_mhz),
            verified,
        }
    }
}

fn at_build(stage: Stage) -> bool {
    matches!(stage, Stage::Constraint | Stage::Compile | Stage::Resources)
}

fn at_launch(stage: Stage) -> bool {
    matches!(stage, Stage::Launch | Stage::Fault | Stage::Hang | Stage::Cheat | Stage::Implausible | Stage::Harness)
}

impl Target for Fake {
    fn device(&self) -> DeviceKey {
        self.script.device.key()
    }

    fn now(&self) -> Nanos {
        self.tick.set(self.tick.get() + 40);
        Nanos(self.now + self.tick.get())
    }

    fn rest(&mut self, pause: Nanos) {
        self.tally.rests.push(pause);
        self.now += pause.0;
    }

    fn announce(&mut self, phase: Phase) {
        self.phase = phase;
        // Samples are numbered from here, so that a run that resumes, which asks for fewer of them, sees the same ones.
        self.taken.clear();
    }

    fn transfer_time(&self) -> Option<Nanos> {
        Some(Nanos(self.transferred))
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        cells
            .iter()
            .map(|cell| {
                let mut compile = Nanos(0);
                if self.compiled.insert(cell.variant.clone()) {
                    self.tally.compiled += 1;
                    compile = Nanos((self.script.device.compile_ms * 1e6) as u64);
                    self.now += compile.0;
                }
                if let Some(failure) = self.failure(cell, at_build) {
                    return Err(self.fail(&failure));
                }
                let source = self.know(cell).rule.source.clone().unwrap_or_default();
                let text = format!("{} {} {source}", cell.variant, cell.workload);
                let key = Sha256::digest(text).iter().take(8).map(|b| format!("{b:02x}")).collect();
                Ok(Prepared {
                    bytes: Bytes(speed::bytes(cell)),
                    flops: speed::flops(cell),
                    redundant: None,
                    resources: Resources { registers: Some(40), spill_bytes: Some(0), ..Resources::default() },
                    key,
                    compile,
                })
            })
            .collect()
    }

    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        *self.tally.checks.entry(cell.clone()).or_default() += 1;
        let rule = &self.know(cell).rule;
        let (check, data) = (rule.check_ms, rule.data_ms);
        let device = &self.script.device;
        let (check, transfer) = (check.unwrap_or(device.check_ms), device.transfer_ms);
        let data = data.filter(|_| self.with_data.insert(cell.workload.clone())).unwrap_or(0.0);
        self.pass_ms(check + transfer + data);
        self.transferred += (transfer * 1e6) as u64;
        if let Some(failure) = self.failure(cell, |s| s == Stage::Check) {
            return Err(self.fail(&failure));
        }
        let cases = vec![format!("random seed {seed}")];
        Ok(CheckReport { cases, worst_of_bound: 0.1, worst_relative_l2: 1e-7 })
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        if self.tally.order.last() != Some(cell) {
            self.tally.order.push(cell.clone());
        }
        let phase = self.phase;
        let from = self.taken.get(cell).copied().unwrap_or(0);
        if let Some(failure) = self.failure(cell, at_launch)
            && failure.only.is_none_or(|only| only == phase)
            && from + u64::from(count) > failure.after_samples
        {
            return Err(self.fail(&failure));
        }
        let samples: Vec<CellSample> = (from..from + u64::from(count)).map(|i| self.one(cell, i)).collect();
        let taken = from + u64::from(count);
        self.taken.insert(cell.clone(), taken);
        *self.tally.samples.entry((cell.clone(), phase)).or_default() += u64::from(count);
        let skips = self.know(cell).rule.cheat == Some(Cheat::SkipsWhenTimed);
        if skips && samples.iter().any(|s| s.verified) {
            let message = "right when checked, wrong in a timed launch: output 0 was not written".to_owned();
            return Err(CellFailure::new(Stage::Cheat, message));
        }
        Ok(samples)
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        self.pass_ms(100.0);
        self.canaries += 1;
        let device = &self.script.device;
        // A canary larger than any cache reads memory; a small one the cache.
        let rate = if working_set.0 >= 1 << 28 { device.read_gb_per_s } else { device.hot_gb_per_s };
        let shift = if self.canaries > 1 { device.canary_after } else { 1.0 };
        Ok(Canary {
            working_set,
            read_gb_per_s: rate * shift,
            empty_launch_ns: Some(device.overhead_ns),
            sm_clock_mhz: (device.sm_clock_mhz > 0.0).then_some(device.sm_clock_mhz),
            gflop_per_s: Some(device.gflop_per_s),
        })
    }
}
