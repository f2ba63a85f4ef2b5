//! The parent's side: a target whose device is used by a child process.
//!
//! A kernel may fault, hang, or take its process with it (R6). So every device sits behind a worker: a hang ends in a
//! kill, a death in a failure with the worker's last words, and the next call starts a fresh worker.

use std::cell::Cell as Changing;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness_spec::units::{Bytes, Nanos};
use harness_spec::{Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, Phase, Prepared, Stage, Target};

use variants::Limits;

use super::child::{Child, Lost};
use super::protocol::{Answer, EngineFacts, EngineRequest, Reply, Request};

/// How long a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To start and find its device.
    pub start: Duration,
    /// To build one cell; a call that builds several may take their sum.
    pub build: Duration,
    /// To check a cell, with the reference on the host.
    pub check: Duration,
    /// To take samples.
    pub sample: Duration,
    /// To measure the ceilings.
    pub canary: Duration,
    /// To load a model in the engine, from a slow disk perhaps.
    pub load: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let s = Duration::from_secs;
        Timeouts { start: s(120), build: s(60), check: s(300), sample: s(60), canary: s(120), load: s(600) }
    }
}

impl Timeouts {
    /// One limit for everything that runs kernels.
    pub fn of_kernels(limit: Duration) -> Timeouts {
        Timeouts { check: limit, sample: limit, ..Timeouts::default() }
    }
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The device is not usable; the text says why and names the fix.
    #[error("{0}")]
    NoDevice(String),
    /// The worker did not come up.
    #[error("the worker for {device} did not start: {why}")]
    Start {
        /// Which device.
        device: String,
        /// Why.
        why: String,
    },
}

/// A target in a child process.
pub struct WorkerTarget {
    /// This program, which is also the worker.
    program: PathBuf,
    /// Words of the command line that open the device in a child.
    arguments: Vec<String>,
    timeouts: Timeouts,
    device: DeviceKey,
    limits: Limits,
    facts: BTreeMap<String, String>,
    simulated: bool,
    child: Option<Child>,
    begun: Instant,
    /// The scripted clock: what the workers before this one have used, and what this one said last.
    scripted: Changing<(u64, u64)>,
    transfer: (u64, Option<u64>),
    phase: Option<Phase>,
    /// Cells that this child has built. A fresh one builds again, from the cache, what it is asked to run.
    built: HashSet<Cell>,
    /// The model in the engine, and what was decided of its workloads: a fresh worker is told of both.
    engine: Option<EngineRequest>,
    settled: Vec<Cell>,
    restarts: u64,
}

impl WorkerTarget {
    /// Starts a worker and asks what its device is.
    ///
    /// # Errors
    /// No such device, or no worker.
    pub fn start(program: &Path, arguments: Vec<String>, timeouts: Timeouts) -> Result<WorkerTarget, WorkerError> {
        let what = arguments.join(" ");
        let (child, hello) = Child::start(program, &arguments, timeouts.start)
            .map_err(|lost| WorkerError::Start { device: what, why: lost.to_string() })?;
        let device = hello.device.map_err(WorkerError::NoDevice)?;
        Ok(WorkerTarget {
            program: program.to_owned(),
            arguments,
            timeouts,
            device,
            limits: hello
                .limits
                .ok_or_else(|| WorkerError::NoDevice("the worker does not say what its device can".to_owned()))?,
            facts: hello.facts,
            simulated: hello.simulated,
            child: Some(child),
            begun: Instant::now(),
            scripted: Changing::new((0, 0)),
            transfer: (0, None),
            phase: None,
            built: HashSet::new(),
            engine: None,
            settled: Vec::new(),
            restarts: 0,
        })
    }

    /// What the constraints of spaces see of the device.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Recorded and not keyed, with the number of restarts.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = self.facts.clone();
        facts.insert("worker restarts".to_owned(), self.restarts.to_string());
        facts
    }

    /// Whether times are scripted.
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// How often the worker was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Loads a model in the engine of the worker: cells whose policy says so are timed in it from then on.
    ///
    /// # Errors
    /// Why it cannot be loaded, with the fix.
    pub fn load_engine(&mut self, request: EngineRequest) -> Result<EngineFacts, WorkerError> {
        let limit = self.timeouts.load;
        let failed = |why: String| WorkerError::NoDevice(why);
        match self.call(&Request::LoadEngine(request.clone()), limit).map_err(|f| failed(f.message))? {
            Answer::Engine(Ok(facts)) => {
                self.engine = Some(request);
                Ok(facts)
            }
            Answer::Engine(Err(why)) => Err(failed(why)),
            _ => Err(failed(mixed_up().message)),
        }
    }

    fn child(&mut self) -> Result<&mut Child, CellFailure> {
        if self.child.is_none() {
            let (mut child, hello) = Child::start(&self.program, &self.arguments, self.timeouts.start)
                .map_err(|lost| CellFailure::new(Stage::Harness, format!("the worker did not start again: {lost}")))?;
            let device = hello.device.map_err(|why| {
                CellFailure::new(Stage::Harness, format!("the device is gone after a failure: {why}"))
            })?;
            if device != self.device {
                let text = "the device changed its name, arch or conditions after a failure, so its results would \
                            belong to another\nhint: run again";
                return Err(CellFailure::new(Stage::Harness, text));
            }
            if let Some(request) = &self.engine {
                let request = Request::LoadEngine(request.clone());
                let again = |why: String| {
                    CellFailure::new(Stage::Harness, format!("the engine did not load again after a failure: {why}"))
                };
                match child.call(&request, self.timeouts.load).map_err(|lost| again(lost.to_string()))?.answer {
                    Answer::Engine(Ok(_)) => {}
                    Answer::Engine(Err(why)) => return Err(again(why)),
                    _ => return Err(mixed_up()),
                }
                for cell in &self.settled {
                    let _ = child.call(&Request::Settle { cell: cell.clone() }, self.timeouts.start);
                }
            }
            if let Some(phase) = self.phase {
                // A worker that does not take this is noticed by the call that follows.
                let _ = child.call(&Request::Announce { phase }, self.timeouts.start);
            }
            let (before, last) = self.scripted.get();
            self.scripted.set((before + last, 0));
            self.transfer = (self.transfer.0 + self.transfer.1.unwrap_or(0), None);
            self.child = Some(child);
            self.restarts += 1;
        }
        self.child.as_mut().ok_or_else(|| CellFailure::new(Stage::Harness, "there is no worker"))
    }

    /// One call. Whatever goes wrong ends the worker and is a failure of the cell.
    fn call(&mut self, request: &Request, limit: Duration) -> Result<Answer, CellFailure> {
        let asked = match request {
            Request::Check { .. } => "checking",
            Request::Sample { .. } => "timing",
            Request::Prepare { .. } => "building",
            Request::LoadEngine(_) => "loading the model",
            _ => "another call",
        };
        match self.child()?.call(request, limit) {
            Ok(Reply { answer, now, transfer, leaving }) => {
                self.scripted.set((self.scripted.get().0, now.0));
                self.transfer.1 = transfer.map(|t| t.0).or(self.transfer.1);
                if leaving {
                    self.end();
                }
                Ok(answer)
            }
            Err(Lost::Silent { limit }) => {
                self.end();
                let text =
                    format!("{asked} did not finish within {} s, and the worker was killed", limit.as_secs_f64());
                Err(CellFailure::new(Stage::Hang, text))
            }
            Err(Lost::Ended { how, last_words }) => {
                self.end();
                let mut text = format!("the worker ended while {asked}: {how}");
                if !last_words.is_empty() {
                    text.push_str(&format!("\n{last_words}"));
                }
                Err(CellFailure::new(Stage::Fault, text))
            }
            Err(lost @ (Lost::Spawn(_) | Lost::Garbled(_))) => {
                self.end();
                Err(CellFailure::new(Stage::Harness, lost.to_string()))
            }
        }
    }

    fn end(&mut self) {
        self.child = None;
        self.built.clear();
    }

    /// Makes sure that this very worker has built the cell.
    fn build(&mut self, cell: &Cell) -> Result<(), CellFailure> {
        if self.child.is_some() && self.built.contains(cell) {
            return Ok(());
        }
        self.prepare(std::slice::from_ref(cell)).remove(0).map(|_| ())
    }
}

/// An answer to another question than was asked.
fn mixed_up() -> CellFailure {
    CellFailure::new(Stage::Harness, "the worker answered another question than it was asked")
}

impl Target for WorkerTarget {
    fn device(&self) -> DeviceKey {
        self.device.clone()
    }

    fn now(&self) -> Nanos {
        if self.simulated {
            let (before, last) = self.scripted.get();
            return Nanos(before + last);
        }
        Nanos(self.begun.elapsed().as_nanos() as u64)
    }

    fn rest(&mut self, pause: Nanos) {
        if self.simulated {
            // A scripted clock cools down in the worker. If that is gone, so is what was throttled.
            let _ = self.call(&Request::Rest { pause }, self.timeouts.sample);
        } else {
            std::thread::sleep(Duration::from_nanos(pause.0));
        }
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        if cells.is_empty() {
            return Vec::new();
        }
        let limit = self.timeouts.build.saturating_mul(cells.len().min(10_000) as u32);
        let answer = self.call(&Request::Prepare { cells: cells.to_vec() }, limit);
        match answer {
            Ok(Answer::Prepared(all)) if all.len() == cells.len() => {
                if self.child.is_some() {
                    self.built.extend(cells.iter().zip(&all).filter(|(_, r)| r.is_ok()).map(|(c, _)| c.clone()));
                }
                all
            }
            // One cell of many brought the worker down: each is built alone, so that only the culprit fails.
            Err(f) if cells.len() > 1 && f.stage != Stage::Harness => {
                cells.iter().map(|c| self.prepare(std::slice::from_ref(c)).remove(0)).collect()
            }
            Ok(_) => cells.iter().map(|_| Err(mixed_up())).collect(),
            Err(f) => cells.iter().map(|_| Err(f.clone())).collect(),
        }
    }

    fn prefetch(&mut self, cells: &[Cell]) {
        // Only a hint: what became of the cells is asked later, and a worker that died of it is noticed then.
        let _ = self.call(&Request::Prefetch { cells: cells.to_vec() }, self.timeouts.start);
    }

    fn announce(&mut self, phase: Phase) {
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            // A fresh worker is told as it starts.
            if self.child.is_some() {
                let _ = self.call(&Request::Announce { phase }, self.timeouts.start);
            }
        }
    }

    fn settle(&mut self, cell: &Cell) {
        // Kernels that are timed alone know of no others.
        if self.engine.is_none() || !cell.policy.is_in_engine() {
            return;
        }
        self.settled.retain(|known| known.workload != cell.workload);
        self.settled.push(cell.clone());
        // A fresh worker is told as it starts.
        if self.child.is_some() {
            let _ = self.call(&Request::Settle { cell: cell.clone() }, self.timeouts.start);
        }
    }

    fn transfer_time(&self) -> Option<Nanos> {
        self.transfer.1.map(|t| Nanos(self.transfer.0 + t))
    }

    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        self.build(cell)?;
        match self.call(&Request::Check { cell: cell.clone(), seed }, self.timeouts.check)? {
            Answer::Checked(result) => result,
            _ => Err(mixed_up()),
        }
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        self.build(cell)?;
        match self.call(&Request::Sample { cell: cell.clone(), count }, self.timeouts.sample)? {
            Answer::Sampled(result) => result,
            _ => Err(mixed_up()),
        }
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        match self.call(&Request::Canary { working_set }, self.timeouts.canary)? {
            Answer::Canary(result) => result,
            _ => Err(mixed_up()),
        }
    }
}
