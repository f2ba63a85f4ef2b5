//! One cell ready to be timed, and one sample of it.

use harness_spec::policy::{CacheState, LaunchMode};
use harness_spec::target::{Cell, CellSample};
use harness_spec::{CellFailure, Stage};

use super::inputs::Inputs;
use super::random::Random;
use super::rotation::Rotation;
use super::support::{Support, is_poisoned};
use crate::check::compare;
use crate::cuda::CudaError;
use crate::cuda::code::Launch;
use crate::cuda::driver::{Buffer, Graph, Stream, Value};
use crate::op::Arg;
use crate::parallel::parallel;

/// One sample in this many is verified on average; the floor is one in twenty (R4).
const VERIFY_ONE_IN: u64 = 12;

/// Tries to get a sample whose stream was held to the end.
const TRIES: usize = 3;

/// A variant on a workload under a policy, warmed, its graph on the device.
pub struct Timed {
    name: String,
    code: Launch,
    launch: LaunchMode,
    cache: CacheState,
    values: Vec<Vec<Value>>,
    graph: Option<Graph>,
    _scratch: Vec<Buffer>,
    next: usize,
    taken: u64,
    verified: u64,
}

/// What every sample needs beside its cell.
pub struct Tools<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// The harness's kernels.
    pub support: &'a Support,
    /// Randomness.
    pub random: &'a mut Random,
    /// What is written over to flush the cache: at least twice its size.
    pub flush: &'a Buffer,
    /// Where outputs are read to. Kept by the target, as a copy into pages that nothing has touched takes several times as long.
    pub landing: &'a mut Vec<u8>,
    /// Whether samples only warm the device: their times enter no result.
    pub warming: bool,
    /// The memory clock in MHz, read outside the interval.
    pub mem_clock_mhz: Option<f64>,
}

impl Timed {
    /// Makes a cell ready: scratch memory, one launch to load the code, the graph.
    ///
    /// # Errors
    /// The failure of the cell, or what is wrong with the policy.
    pub fn new(
        cell: &Cell,
        code: Launch,
        inputs: &Inputs,
        rotation: &mut Rotation,
        tools: &mut Tools<'_>,
    ) -> Result<Timed, CellFailure> {
        let stream = tools.stream;
        let facts = stream.device().facts();
        let early = match cell.policy.launch {
            LaunchMode::InEngine => {
                let message = "in_engine is measured by the engine; ask for eager, graph or graph_pdl";
                return Err(CellFailure::new(Stage::Harness, message));
            }
            LaunchMode::GraphPdl if facts.cc < 90 => {
                let message = format!("graph_pdl needs compute capability 9.0, this is {}", stream.device().arch());
                return Err(CellFailure::new(Stage::Constraint, message));
            }
            launch => launch == LaunchMode::GraphPdl && code.can_be_early(),
        };
        let mut scratch = Vec::new();
        for arg in inputs.args() {
            if let Arg::Scratch { bytes, .. } = arg {
                let buffer = Buffer::new(stream.device(), *bytes, "scratch memory")?;
                buffer.fill(stream, 0, *bytes, 0)?;
                scratch.push(buffer);
            }
        }
        let addresses: Vec<u64> = scratch.iter().map(Buffer::address).collect();
        let launches = rotation.plan().launches;
        let values: Vec<Vec<Value>> = (0..launches).map(|i| rotation.values(i, inputs.args(), &addresses)).collect();
        let name = format!("{} on {} under {}", cell.variant, cell.workload, cell.policy);
        rotation.redraw(stream, inputs, tools.random)?;
        // SAFETY: the values are the arguments of this kernel in the order that the op gives, and point into buffers that
        // the rotation and this cell keep. A target has one stream.
        let launch = |stream: &Stream, i: usize| unsafe { code.launch(stream, early && i > 0, &values[i]) };
        // The first launch loads the code, which neither a capture nor a held stream survives.
        launch(stream, 0)?;
        stream.wait(|| format!("warming {name}"))?;
        let graph = match cell.policy.launch {
            LaunchMode::Eager | LaunchMode::InEngine => None,
            LaunchMode::Graph | LaunchMode::GraphPdl => {
                let graph = Graph::capture(stream, |s| (0..launches).try_for_each(|i| launch(s, i)))?;
                if !code.makes(graph.nodes(), launches) {
                    let message =
                        format!("{name}: the captured graph has {} nodes for {launches} launches", graph.nodes());
                    return Err(CellFailure::new(Stage::Harness, message));
                }
                // What was asked for must be what runs: the driver could have made plain edges of it.
                if early && launches > 1 && graph.programmatic_edges() == Some(0) {
                    let message =
                        format!("{name}: the captured graph has no programmatic edge for {launches} launches");
                    return Err(CellFailure::new(Stage::Harness, message));
                }
                graph.launch(stream)?;
                stream.wait(|| format!("warming the graph of {name}"))?;
                Some(graph)
            }
        };
        Ok(Timed {
            name,
            code,
            launch: cell.policy.launch,
            cache: cell.policy.cache,
            values,
            graph,
            _scratch: scratch,
            next: 0,
            taken: 0,
            verified: 0,
        })
    }

    /// Launches of one sample.
    fn launches(&self) -> usize {
        if self.graph.is_some() { self.values.len() } else { 1 }
    }

    /// Takes one sample: new activations, some outputs poisoned and some left as they are, the interval, and now and then
    /// a look at every output of it; never where the sample only warms the device.
    ///
    /// # Errors
    /// A fault, or [`Stage::Cheat`] where a timed launch was wrong.
    pub fn sample(
        &mut self,
        inputs: &Inputs,
        rotation: &mut Rotation,
        tools: &mut Tools<'_>,
    ) -> Result<CellSample, CellFailure> {
        let (mut interval, mut seed, mut first) = (None, 0, 0);
        for _ in 0..TRIES {
            rotation.redraw(tools.stream, inputs, tools.random)?;
            seed = tools.random.word();
            rotation.spoil(tools.stream, tools.support, seed)?;
            first = if self.graph.is_some() { 0 } else { self.next_launch() };
            self.prepare_cache(rotation, tools, first)?;
            let (stream, doing) = (tools.stream, || format!("timing {}", self.name));
            let taken = match &self.graph {
                Some(graph) => tools.support.bracket_graph(stream, graph, doing)?,
                None => tools.support.bracket(stream, || self.launch_one(stream, first), doing)?,
            };
            interval = Some(taken);
            if taken.held {
                break;
            }
        }
        let interval = interval.filter(|i| i.held).ok_or_else(|| {
            let message =
                format!("{}: the stream could not be held while the sample was queued, {TRIES} times", self.name);
            CellFailure::new(Stage::Harness, message)
        })?;
        // The first sample is always looked at, later ones when the share falls behind or by chance.
        let behind = self.verified * 20 <= self.taken;
        let verified = !tools.warming && (behind || tools.random.one_in(VERIFY_ONE_IN));
        self.taken += u64::from(!tools.warming);
        if verified {
            self.verify(inputs, rotation, tools, first, seed)?;
            self.verified += 1;
        }
        let launches = self.launches();
        Ok(CellSample {
            ns: interval.ns / launches as f64,
            launches: launches as u32,
            sm_clock_mhz: interval.sm_clock_mhz,
            mem_clock_mhz: tools.mem_clock_mhz,
            verified,
        })
    }

    fn next_launch(&mut self) -> usize {
        let i = self.next;
        self.next = (self.next + 1) % self.values.len();
        i
    }

    fn launch_one(&self, stream: &Stream, i: usize) -> Result<(), CudaError> {
        // SAFETY: as in `new`.
        unsafe { self.code.launch(stream, self.launch == LaunchMode::GraphPdl, &self.values[i]) }
    }

    /// Brings the cache into the state that the policy names.
    fn prepare_cache(&self, rotation: &Rotation, tools: &Tools<'_>, first: usize) -> Result<(), CudaError> {
        match self.cache {
            CacheState::Cold => {
                // Persisting lines are not reset: nothing here sets memory aside for them, and on an H200 the call by itself
                // made every later launch of the context 0.18 µs slower (an empty one 679 ns instead of 501).
                // One launch a sample leaves little between two uses of a copy but the copies in between, which are the
                // footprint; a rotation that is too small is flushed whatever the launch.
                if rotation.plan().flush {
                    tools.flush.fill(tools.stream, 0, tools.flush.len(), 0)?;
                }
            }
            // A sample of many launches warms itself; one launch needs another before it, on other outputs.
            CacheState::Hot if self.graph.is_none() => {
                self.launch_one(tools.stream, (first + 1) % self.values.len())?
            }
            CacheState::Hot => {}
        }
        Ok(())
    }

    /// Compares every output of the interval with the reference.
    fn verify(
        &self,
        inputs: &Inputs,
        rotation: &Rotation,
        tools: &mut Tools<'_>,
        first: usize,
        seed: u64,
    ) -> Result<(), CellFailure> {
        let doing = || format!("verifying {}", self.name);
        rotation.read(tools.stream, first, first + self.launches(), tools.landing, doing)?;
        let landing = tools.landing.as_slice();
        let launches: Vec<usize> = (0..self.launches()).collect();
        // One scaled reference a place of the pool, not one a launch.
        let places: Vec<usize> = (0..super::inputs::POOL).collect();
        let wanted = parallel(&places, |&place| rotation.draw_of(place).and_then(|draw| inputs.expected(draw)));
        let wrong = parallel(&launches, |&i| {
            let expected = wanted[(first + i) % super::inputs::POOL].as_ref()?;
            compare(expected, &rotation.landed(landing, i)).err().map(|mismatch| (first + i, mismatch.to_string()))
        });
        if let Some((launch, mismatch)) = wrong.into_iter().flatten().next() {
            let before = if is_poisoned(seed, launch as u32) { "poisoned" } else { "stale" };
            return Err(CellFailure::new(
                Stage::Cheat,
                format!("timed launch {launch} of {} (its outputs were {before} before): {mismatch}", self.launches()),
            ));
        }
        Ok(())
    }
}
