//! The processor as something that the harness measures on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness_spec::policy::{CacheState, LaunchMode};
use harness_spec::{
    Bytes, Canary, Cell, CellFailure, CellSample, CheckReport, DType, DeviceKey, Nanos, Prepared, Resources, Shape,
    Stage, Target, VariantId, Workload,
};
use variants::{KernelSpec, Limits};

use super::call::Call;
use super::{Cpu, CpuOptions, CpuRunner, available_memory, device_key, last_level_cache, sources};
use crate::check::{Fill, Gate, TimedCheck};
use crate::op::{Depth, Op, Problem, op};

/// Slots that a batch goes round, each with activations and outputs of its own; one where a launch takes longer than
/// [`LONG`].
const SLOTS: usize = 4;
const LONG: Duration = Duration::from_millis(2);
/// Cold launches rotate at least this many times the last-level cache.
const FOOTPRINT: u64 = 3;
/// A sample takes at least this long, and [`PRECISIONS`] times the precision of the clock.
const SHORTEST: Duration = Duration::from_micros(50);
const PRECISIONS: u32 = 100;
/// Weights that stay placed between samples take at most this share of the memory that is free.
const MEMORY_SHARE: u64 = 3;
const MOST_LAUNCHES: u32 = 1 << 20;
/// Bytes of problems and references that the gate keeps for the next variant.
const GATE_BUDGET: usize = 256 << 20;

/// The inputs of a workload in one layout, with what is known of timing them.
struct Placed {
    call: Call,
    check: TimedCheck,
    slots: usize,
    bytes: u64,
    used: u64,
    next_copy: usize,
}

/// What is placed: the variants of one layout share their weights.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PlaceKey {
    workload: Workload,
    cache: CacheState,
    dtype: Option<DType>,
    /// The layout and the form of activations, or the variant itself where there are no weights to share.
    shared_by: String,
}

/// The processor, its threads and the weights that are placed for timing.
pub struct CpuTarget {
    cpu: Cpu,
    start: Instant,
    precision: Duration,
    llc: u64,
    memory: u64,
    placed: BTreeMap<PlaceKey, Placed>,
    /// The launches of a sample.
    launches: BTreeMap<Cell, u32>,
    gate: Gate,
    depth: Depth,
    turn: u64,
}

impl CpuTarget {
    /// The processor with these threads. With `options.pin` the calling thread is bound too, as it is one of them.
    pub fn new(options: CpuOptions) -> CpuTarget {
        let pin = options.pin;
        let cpu = Cpu::new(options);
        // After the workers have been started: they inherit what their parent may use, and one processor would be all.
        if pin {
            super::pool::pin_to(0);
        }
        CpuTarget {
            cpu,
            start: Instant::now(),
            precision: precision(),
            llc: last_level_cache(),
            memory: available_memory() / MEMORY_SHARE,
            placed: BTreeMap::new(),
            launches: BTreeMap::new(),
            gate: Gate::new(GATE_BUDGET),
            depth: Depth::Quick,
            turn: 0,
        }
    }

    /// How much of the gate [`Target::check`] runs; [`Depth::Quick`] where nothing else was said.
    pub fn set_depth(&mut self, depth: Depth) {
        self.depth = depth;
    }

    /// From now on [`Target::check`] is [`Gate::once`].
    pub fn check_once(&mut self) {
        self.gate = Gate::new(GATE_BUDGET).once();
    }

    /// The processor with its threads.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    fn resolve(&self, cell: &Cell) -> Result<(&'static dyn Op, &'static KernelSpec), CellFailure> {
        let Cell { variant, workload, policy } = cell;
        let no = |message: String| CellFailure::new(Stage::Constraint, message);
        let op = op(&workload.op).ok_or_else(|| no(format!("no op {}: see `bench list ops`", workload.op)))?;
        if policy.launch != LaunchMode::Eager {
            return Err(no(format!("{policy}: a processor runs kernels eagerly, as cold+eager or hot+eager")));
        }
        let find = variants::registry().find(variant);
        let (_, spec) =
            find.ok_or_else(|| no(format!("no kernel of this build has the variant {variant}: see `bench list`")))?;
        if variant.op != workload.op {
            return Err(no(format!("{variant} is of another op than {workload}")));
        }
        admits(&self.cpu, spec, variant, &workload.shape).map_err(no)?;
        Ok((op, spec))
    }

    /// Places the inputs of a cell, or finds them placed, and points them at its variant.
    fn place(&mut self, op: &dyn Op, spec: &KernelSpec, cell: &Cell) -> Result<PlaceKey, CellFailure> {
        let case = op
            .cases(&cell.workload.shape, 1, Depth::Quick)
            .into_iter()
            // The last type is that of the fastest kernels of an op that has several, so all compete on one.
            .find(|case| case.dtype.is_none() || case.dtype == spec.dtypes.last().copied())
            .ok_or_else(|| CellFailure::new(Stage::Harness, format!("{} has no case for this kernel", op.name())))?;
        let shared_by = match spec.layout {
            Some(layout) => format!("{layout} {:?}", spec.activations),
            None => cell.variant.to_string(),
        };
        let key = PlaceKey { workload: cell.workload.clone(), cache: cell.policy.cache, dtype: case.dtype, shared_by };
        self.turn += 1;
        if !self.placed.contains_key(&key) {
            let placed = self.build(op, spec, cell, &op.problem(&cell.workload.shape, &case))?;
            self.make_room(placed.bytes);
            self.placed.insert(key.clone(), placed);
        }
        let turn = self.turn;
        let placed = self.placed.get_mut(&key).expect("it was inserted above");
        placed.used = turn;
        if let Some(matrices) = placed.call.matrices() {
            let of = |e: crate::cpu::NoCode| CellFailure::new(Stage::Constraint, e.to_string());
            let views =
                matrices.iter().map(|w| w.with_variant(spec, &cell.variant)).collect::<Result<Option<Vec<_>>, _>>();
            let views = views.map_err(of)?.expect("the key has the layout, so all of them read it");
            placed.call.set_matrices(views);
        }
        Ok(key)
    }

    fn build(&self, op: &dyn Op, spec: &KernelSpec, cell: &Cell, problem: &Problem) -> Result<Placed, CellFailure> {
        let mut call = Call::new(&self.cpu, spec, &cell.variant, problem, SLOTS)?;
        let one = op.bytes(&cell.workload.shape, spec).0.max(1);
        if cell.policy.cache == CacheState::Cold {
            let wanted = (FOOTPRINT * self.llc).div_ceil(one);
            let fit = (self.memory / one).max(2);
            call.replicate(&self.cpu, wanted.min(fit).max(2) as usize);
        }
        let bytes = one * call.copies() as u64;
        let started = Instant::now();
        call.run(&self.cpu, 0, 0);
        let slots = if started.elapsed() > LONG { 1 } else { SLOTS };
        // Where the sequence starts does not matter, only that kernels cannot know it.
        let seed = u64::from(std::process::id()) ^ u64::from(started.elapsed().subsec_nanos()) << 32;
        let check = TimedCheck::new(op, problem, spec, slots, seed)
            .ok_or_else(|| CellFailure::new(Stage::Harness, format!("{}: no reference in this form", problem.case)))?;
        Ok(Placed { call, check, slots, bytes, used: 0, next_copy: 0 })
    }

    /// Lets go of what was used longest ago until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) {
        while self.placed.values().map(|p| p.bytes).sum::<u64>() + bytes > self.memory {
            let Some(oldest) = self.placed.iter().min_by_key(|(_, p)| p.used).map(|(key, _)| key.clone()) else {
                return;
            };
            self.placed.remove(&oldest);
        }
    }

    /// The launches of a sample: more until it is long enough for the clock, and one for each slot at least.
    fn calibrate(&mut self, key: &PlaceKey) -> u32 {
        let shortest = SHORTEST.max(PRECISIONS * self.precision);
        let mut launches = 1;
        loop {
            let took = self.batch(key, launches, |_, _| ());
            if took >= shortest || launches >= MOST_LAUNCHES {
                return launches.max(self.placed[key].slots as u32);
            }
            // A quarter more than it seems to take, so that most batches are not repeated.
            let ratio = shortest.as_nanos() as f64 / took.as_nanos().max(1) as f64;
            launches = (f64::from(launches) * (1.25 * ratio).clamp(1.5, 1024.0)).ceil() as u32;
        }
    }

    /// Times some launches over successive copies and all slots. `fill` prepares the outputs right before.
    fn batch(&mut self, key: &PlaceKey, launches: u32, fill: impl FnOnce(&mut Call, &Cpu)) -> Duration {
        let placed = self.placed.get_mut(key).expect("a cell is placed before it is timed");
        let (copies, slots) = (placed.call.copies(), placed.slots);
        // Wakes the pool, and leaves the state that a launch in a row of launches finds.
        placed.call.run(&self.cpu, placed.next_copy % copies, 0);
        fill(&mut placed.call, &self.cpu);
        let first = placed.next_copy + 1;
        let started = Instant::now();
        for i in 0..launches as usize {
            placed.call.run(&self.cpu, (first + i) % copies, i % slots);
        }
        let took = started.elapsed();
        placed.next_copy = (first + launches as usize) % copies;
        took
    }

    fn sample_one(&mut self, key: &PlaceKey, launches: u32) -> Result<CellSample, CellFailure> {
        let placed = self.placed.get_mut(key).expect("a cell is placed before it is sampled");
        let slots = placed.check.next_interval();
        let problems: Vec<Problem> = {
            let pool: Vec<&Problem> = placed.check.problems().collect();
            slots.iter().map(|slot| pool[slot.activation].clone()).collect()
        };
        let took = self.batch(key, launches, |call, cpu| {
            for (i, (slot, problem)) in slots.iter().zip(&problems).enumerate() {
                call.load(cpu, i, problem);
                if slot.fill == Fill::Poison {
                    call.poison(i);
                }
            }
        });
        let placed = self.placed.get_mut(key).expect("a cell is placed before it is sampled");
        for (i, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.verify) {
            placed.check.verify(slot, &placed.call.outputs(i)?)?;
        }
        Ok(CellSample {
            ns: took.as_nanos() as f64 / f64::from(launches),
            launches,
            sm_clock_mhz: None,
            mem_clock_mhz: None,
            verified: slots.iter().any(|slot| slot.verify),
        })
    }
}

/// Whether a variant takes a shape on this machine, or why not.
pub(super) fn admits(cpu: &Cpu, spec: &KernelSpec, variant: &VariantId, shape: &Shape) -> Result<(), String> {
    spec.admits(variant, shape, &Limits::cpu(cpu.isa(), last_level_cache()))
        .map_err(|reason| format!("unsupported: {reason}"))
}

/// The least time by which two readings of the clock differ.
fn precision() -> Duration {
    let step = || {
        let start = Instant::now();
        loop {
            let step = start.elapsed();
            if !step.is_zero() {
                return step;
            }
        }
    };
    (0..1000).map(|_| step()).min().expect("a thousand steps were taken")
}

impl Target for CpuTarget {
    fn device(&self) -> DeviceKey {
        device_key(self.cpu.isa(), self.cpu.threads())
    }

    fn now(&self) -> Nanos {
        self.start.elapsed().into()
    }

    fn rest(&mut self, pause: Nanos) {
        std::thread::sleep(Duration::from_nanos(pause.0));
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        cells
            .iter()
            .map(|cell| {
                let (op, spec) = self.resolve(cell)?;
                let shape = &cell.workload.shape;
                let key = sources::key(spec, &cell.variant, shape).ok_or_else(|| {
                    CellFailure::new(Stage::Compile, format!("{} has no source in this build", cell.variant))
                })?;
                // The compiler of this program does not say what it made of a function: unknown, not zero.
                let resources = Resources::default();
                Ok(Prepared {
                    bytes: op.bytes(shape, spec),
                    flops: op.flops(shape),
                    redundant: None,
                    resources,
                    key,
                    compile: Nanos(0),
                })
            })
            .collect()
    }

    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        let (op, spec) = self.resolve(cell)?;
        let mut runner = CpuRunner::new(&self.cpu, spec, cell.variant.clone());
        self.gate.run(op, &cell.workload.shape, spec, seed, self.depth, &mut runner)
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        let (op, spec) = self.resolve(cell)?;
        let key = self.place(op, spec, cell)?;
        let launches = match self.launches.get(cell) {
            Some(&launches) => launches,
            None => self.calibrate(&key),
        };
        self.launches.insert(cell.clone(), launches);
        (0..count).map(|_| self.sample_one(&key, launches)).collect()
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        let passes = (FOOTPRINT * self.llc / working_set.0.max(1)).clamp(8, 256) as usize;
        let rates = self.cpu.stream_read(working_set, passes);
        Ok(Canary {
            working_set,
            read_gb_per_s: rates.iter().map(|r| r.0).fold(0.0, f64::max),
            empty_launch_ns: None,
            sm_clock_mhz: None,
            gflop_per_s: None,
        })
    }
}

impl std::fmt::Debug for CpuTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuTarget({:?}, {} placed)", self.cpu, self.placed.len())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_pinned_target_has_a_processor_for_each_of_its_threads() {
        let free = std::thread::available_parallelism().map_or(1, usize::from).min(2);
        // In a thread of its own, which is bound from then on.
        let used = std::thread::spawn(move || {
            let target = CpuTarget::new(CpuOptions { threads: free, pin: true, ..CpuOptions::default() });
            let used = Mutex::new(BTreeSet::new());
            for _ in 0..100 {
                target.cpu.pool().run(&|_| {
                    // SAFETY: the call has no arguments.
                    used.lock().unwrap().insert(unsafe { libc::sched_getcpu() });
                });
            }
            used.into_inner().unwrap()
        });
        // Workers may run one phase where they were started, before they have bound themselves.
        assert!(used.join().unwrap().len() >= free, "threads share a processor");
    }
}
