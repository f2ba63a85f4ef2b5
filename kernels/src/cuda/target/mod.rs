//! The CUDA device as the measurement core sees it.
//!
//! ```text
//! prepare   compile, in parallel; a library is found                builds
//! check     the gate on fresh guarded buffers                      CudaRunner
//! sample    redraw -> poison -> flush -> [hold  stamp  event  graph  event  stamp] -> verify
//!                                         inputs, rotation         timed, support
//! canary    read rate, empty launch, clock                         canary
//! ```
//!
//! A fault loses the context, and with it everything here: [`CudaTarget::is_dead`] says so, and the process is replaced by
//! whoever started it.

mod builds;
mod canary;
mod inputs;
mod random;
mod rotation;
mod support;
mod timed;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use harness_spec::policy::{CacheState, LaunchMode};
use harness_spec::target::{Canary, Cell, CellSample, CheckReport, DeviceKey, Phase, Prepared, Resources, Target};
use harness_spec::{Bytes, CellFailure, Nanos, Stage, VariantId, Workload};
use variants::{Activations, KernelSpec, Layout, Limits, Registry};

pub use builds::Builds;
pub use rotation::{Plan, Sizes, plan};
pub use support::{Interval, Late, Slots, Support, With, compile_support, is_poisoned};

use super::code::Code;
use super::compile::{Arch, Compiler, digest};
use super::driver::{Buffer, Device, Function, Module, Stream};
use super::kernel::{admitted, launch_shape, limits};
use super::library::cublaslt;
use super::packed::PackedWeights;
use super::runner::CudaRunner;
use super::{Blas, CudaError};
use crate::check::Gate;
use crate::op::{self, Depth, Op};
use inputs::Inputs;
use random::Random;
use rotation::Rotation;
use timed::{Timed, Tools};

/// Cells that stay ready, with their graphs.
const MOST_CELLS: usize = 512;

/// Bytes of problems and references that the gate keeps on the host.
const GATE_BYTES: usize = 4 << 30;

/// How old a reading of the memory clock may be.
const MEM_CLOCK_AGE: Duration = Duration::from_millis(200);

/// What times a launch: what a wrong one measured must not be found again.
static TIMED_BY: LazyLock<String> = LazyLock::new(|| {
    let texts =
        [include_str!("timed.rs"), include_str!("rotation.rs"), include_str!("inputs.rs"), include_str!("support.cu")];
    texts.map(|text| digest(text.as_bytes())).join(" ")
});

/// What calls the library.
static CALLED_BY: LazyLock<String> =
    LazyLock::new(|| [include_str!("../blas.rs"), include_str!("../code.rs")].map(|t| digest(t.as_bytes())).join(" "));

/// Why a kernel is right by itself and wrong in a chain of programmatic launches.
const TOO_EARLY: &str = "right by itself and wrong behind a kernel that writes late: before `pdl_wait` it reads what is no \
                         constant of the model, or stores, or it never waits";

/// Seed of the data of timed launches; activations are redrawn from the system's randomness all the same.
const DATA_SEED: u64 = 0x5eed;

/// What variants share: the data of a workload in one layout and form.
type InputsKey = (Workload, Option<Layout>, Option<Activations>, String);
/// The same on the device, by the state of the cache.
type RotationKey = (InputsKey, CacheState);

/// A CUDA device in this process.
pub struct CudaTarget {
    registry: Arc<Registry>,
    device: Arc<Device>,
    key: DeviceKey,
    limits: Limits,
    builds: Arc<Builds>,
    depth: Depth,
    started: Instant,
    random: Random,
    /// See [`Tools`].
    landing: Vec<u8>,
    /// Whether samples only warm the device.
    warming: bool,
    rate: f64,
    clock: u64,
    dead: Option<String>,
    gate: Gate,
    packed: PackedWeights,
    functions: HashMap<VariantId, Function>,
    /// Opened where a variant first asks for it.
    library: Option<Arc<Blas>>,
    inputs: HashMap<InputsKey, Arc<Inputs>>,
    cells: HashMap<Cell, (RotationKey, Timed, u64)>,
    rotations: HashMap<RotationKey, Rotation>,
    mem_clock: (Option<Instant>, Option<f64>),
    flush: Buffer,
    support: Support,
    stream: Stream,
}

impl CudaTarget {
    /// Opens a device by its number.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::NoNvrtc`], or what failed on the device.
    pub fn open(registry: Arc<Registry>, ordinal: u32) -> Result<CudaTarget, CudaError> {
        CudaTarget::open_as(registry, ordinal, None)
    }

    /// Opens a device and runs code for another architecture on it: PTX of an older one, which the driver compiles, shows
    /// that kernels are right there without a device of that age. Its times are those of no device on sale.
    ///
    /// # Errors
    /// As [`CudaTarget::open`].
    pub fn open_as(registry: Arc<Registry>, ordinal: u32, arch: Option<Arch>) -> Result<CudaTarget, CudaError> {
        let device = Device::open(ordinal)?;
        let compiler = Compiler::new()?;
        let arch = arch.unwrap_or_else(|| device.arch());
        let mut limits = limits(device.facts());
        if let Some(older) = Limits::of_architecture(arch.cc).filter(|_| arch != device.arch()) {
            limits = Limits { cc: older.cc, smem: older.smem.min(limits.smem), ..limits };
        }
        let mut key = device.key(&compiler.nvrtc().version_text());
        key.arch = arch.to_string();
        let stream = Stream::new(&device)?;
        let support = Support::new(&device, &stream, &compiler)?;
        // Twice the cache: its replacement is not documented, and one pass may leave lines.
        let flush = Buffer::new(&device, (device.facts().l2 as usize * 2).max(1 << 20), "the flush of the cache")?;
        // Only plans depend on it, and a device that fails here fails loudly at its first cell.
        let rate = canary::rough_rate(&stream, &support).unwrap_or(1000.0);
        Ok(CudaTarget {
            registry,
            key,
            limits,
            builds: Builds::new(compiler, arch),
            depth: Depth::Quick,
            started: Instant::now(),
            random: Random::from_system(),
            landing: Vec::new(),
            warming: false,
            rate,
            clock: 0,
            dead: None,
            gate: Gate::new(GATE_BYTES),
            packed: PackedWeights::new((device.facts().memory / 16) as usize),
            functions: HashMap::new(),
            library: None,
            inputs: HashMap::new(),
            cells: HashMap::new(),
            rotations: HashMap::new(),
            mem_clock: (None, None),
            flush,
            support,
            stream,
            device,
        })
    }

    /// How much of the gate [`Target::check`] runs; [`Depth::Quick`] at first.
    pub fn set_depth(&mut self, depth: Depth) {
        self.depth = depth;
    }

    /// From now on [`Target::check`] is [`Gate::once`].
    pub fn check_once(&mut self) {
        self.gate = Gate::new(GATE_BYTES).once();
    }

    /// The device facts that constraints speak of.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The device.
    pub fn cuda(&self) -> &Arc<Device> {
        &self.device
    }

    /// What is recorded of the device and keys nothing: identity, memory, where the compiler was found.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let f = self.device.facts();
        let nvrtc = self.builds.compiler().nvrtc();
        let (major, minor) = f.driver_cuda;
        let mut out = vec![
            ("uuid", f.uuid.clone()),
            ("memory_bytes", f.memory.to_string()),
            ("sms", f.sms.to_string()),
            ("l2_bytes", f.l2.to_string()),
            ("smem_per_block_bytes", f.smem.to_string()),
            ("threads_per_sm", f.threads_per_sm.to_string()),
            ("driver_cuda", format!("{major}.{minor}")),
            ("nvrtc_found", format!("by {}", nvrtc.origin)),
        ];
        if let Some(celsius) = self.device.board().and_then(super::driver::Board::temperature) {
            out.push(("temperature_c", celsius.to_string()));
        }
        out.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// Why the context is lost, where it is: every later call fails, and the process must be replaced.
    pub fn is_dead(&self) -> Option<&str> {
        self.dead.as_deref()
    }

    /// Warnings of the compiler's cache since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        self.builds.compiler().take_warnings()
    }

    fn find(&self, id: &VariantId) -> Result<KernelSpec, CellFailure> {
        let missing =
            || CellFailure::new(Stage::Harness, format!("no space has {id}: `bench list variants` prints them"));
        self.registry.find(id).map(|(_, spec)| spec.clone()).ok_or_else(missing)
    }

    /// The variants of cells that are compiled.
    fn compiled(&self, cells: &[Cell]) -> Vec<(KernelSpec, VariantId)> {
        let specs = cells.iter().filter_map(|c| Some((self.find(&c.variant).ok()?, c.variant.clone())));
        specs.filter(|(spec, _)| !spec.is_library()).collect()
    }

    fn op_of(&self, cell: &Cell) -> Result<&'static dyn Op, CellFailure> {
        let name = &cell.workload.op;
        op::op(name).ok_or_else(|| CellFailure::new(Stage::Harness, format!("there is no op {name}")))
    }

    /// What computes a variant: its function, loaded, or the library.
    fn code(&mut self, spec: &KernelSpec, id: &VariantId) -> Result<Code, CellFailure> {
        if spec.is_library() {
            let library = match self.library.take() {
                Some(library) => library,
                None => Arc::new(Blas::open(&self.device)?),
            };
            return Ok(Code::Library(self.library.insert(library).clone()));
        }
        if let Some(f) = self.functions.get(id) {
            return Ok(Code::Function(f.clone()));
        }
        let cubin = self.builds.get(spec, id)?;
        let function = Module::load(&self.device, &cubin)?.function(&cubin.entry)?;
        self.functions.insert(id.clone(), function.clone());
        Ok(Code::Function(function))
    }

    /// What decided the code of a variant, what the compiler says of it, and how long that took. A library compiles nothing
    /// here and tells nothing.
    fn built(&self, spec: &KernelSpec, cell: &Cell) -> Result<(String, Resources, Nanos), CellFailure> {
        if spec.is_library() {
            admitted(spec, &cell.variant, &cell.workload.shape, &self.limits)?;
            let library = cublaslt()?;
            let key = format!("cublaslt {} {} {}", library.number, spec.fingerprint(), *CALLED_BY);
            return Ok((key, Resources::default(), Nanos(0)));
        }
        let shape = launch_shape(spec, &cell.variant, &cell.workload.shape, &self.limits)?;
        let cubin = self.builds.get(spec, &cell.variant)?;
        let resources = Resources { dynamic_smem_bytes: Some(shape.smem), ..cubin.resources.clone() };
        Ok((cubin.key.clone(), resources, Nanos::from(cubin.time)))
    }

    fn prepared(&self, cell: &Cell) -> Result<Prepared, CellFailure> {
        let (spec, op) = (self.find(&cell.variant)?, self.op_of(cell)?);
        let (code, resources, compile) = self.built(&spec, cell)?;
        let redundant = spec
            .redundancy(&cell.variant, &cell.workload.shape, &self.limits)
            .map_err(|e| CellFailure::new(Stage::Launch, e.to_string()))?;
        // What decided the code, and what it is checked by (MEASURING.md §10).
        let contract = format!("{code} {} {} {} {}", op.name(), env!("CARGO_PKG_VERSION"), self.key_text(), *TIMED_BY);
        Ok(Prepared {
            bytes: op.bytes(&cell.workload.shape, &spec),
            flops: op.flops(&cell.workload.shape),
            redundant,
            resources,
            key: digest(contract.as_bytes()),
            compile,
        })
    }

    fn key_text(&self) -> String {
        format!("{} {} {:?}", self.key.name, self.key.arch, self.key.conditions)
    }

    fn checked(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        let (spec, op) = (self.find(&cell.variant)?, self.op_of(cell)?);
        admitted(&spec, &cell.variant, &cell.workload.shape, &self.limits)?;
        let code = self.code(&spec, &cell.variant)?;
        let mut runner = CudaRunner {
            op,
            spec: &spec,
            variant: &cell.variant,
            limits: &self.limits,
            code: &code,
            stream: &self.stream,
            support: &self.support,
            early: cell.policy.launch == LaunchMode::GraphPdl && self.limits.cc >= 90 && !spec.is_library(),
            warm: false,
            packed: &mut self.packed,
            fatal: None,
        };
        let shape = &cell.workload.shape;
        let outcome = self.gate.run(op, shape, &spec, seed, self.depth, &mut runner);
        let Err(failure) = &outcome else { return outcome };
        // What fails behind a kernel that writes late alone breaks a rule of its own, which its numbers do not tell.
        if runner.early && failure.stage == Stage::Check {
            runner.early = false;
            if self.gate.run(op, shape, &spec, seed, self.depth, &mut runner).is_ok() {
                let message = format!("{} ({TOO_EARLY})", failure.message);
                return Err(CellFailure::new(Stage::Check, message));
            }
        }
        outcome
    }

    fn sampled(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        let (spec, op) = (self.find(&cell.variant)?, self.op_of(cell)?);
        self.clock += 1;
        let inputs = self.inputs(op, cell, &spec)?;
        if !self.cells.contains_key(cell) {
            admitted(&spec, &cell.variant, &cell.workload.shape, &self.limits)?;
            let code = self.code(&spec, &cell.variant)?;
            let launch = code.at(&spec, &cell.variant, &cell.workload.shape, &self.limits)?;
            let key = self.rotation(op, cell, &spec, &inputs)?;
            let rotation = self.rotations.get_mut(&key).expect("it was made just now");
            let mut tools = Tools {
                stream: &self.stream,
                support: &self.support,
                random: &mut self.random,
                flush: &self.flush,
                landing: &mut self.landing,
                warming: true,
                mem_clock_mhz: None,
            };
            let timed = Timed::new(cell, launch, &inputs, rotation, &mut tools)?;
            self.forget_oldest_cell();
            self.cells.insert(cell.clone(), (key, timed, self.clock));
        }
        let (key, timed, used) = self.cells.get_mut(cell).expect("it was there or made just now");
        *used = self.clock;
        let rotation = self.rotations.get_mut(key).expect("cells of a rotation that goes are forgotten with it");
        rotation.used = self.clock;
        // Outside every interval, and not before each: the query takes milliseconds and this clock rarely changes.
        if self.mem_clock.0.is_none_or(|read| read.elapsed() > MEM_CLOCK_AGE) {
            let mhz = self.device.board().and_then(super::driver::Board::memory_clock_mhz);
            self.mem_clock = (Some(Instant::now()), mhz);
        }
        let mem_clock_mhz = self.mem_clock.1;
        let mut tools = Tools {
            stream: &self.stream,
            support: &self.support,
            random: &mut self.random,
            flush: &self.flush,
            landing: &mut self.landing,
            warming: self.warming,
            mem_clock_mhz,
        };
        (0..count).map(|_| timed.sample(&inputs, rotation, &mut tools)).collect()
    }

    fn inputs(&mut self, op: &'static dyn Op, cell: &Cell, spec: &KernelSpec) -> Result<Arc<Inputs>, CellFailure> {
        let key = inputs_key(cell, spec);
        if let Some(inputs) = self.inputs.get(&key) {
            return Ok(inputs.clone());
        }
        // Data of other workloads are not wanted again soon, and large matrices fill the host's memory.
        self.inputs.retain(|(workload, ..), _| *workload == cell.workload);
        let inputs = Arc::new(Inputs::new(op, &cell.workload, spec, DATA_SEED)?);
        self.inputs.insert(key, inputs.clone());
        Ok(inputs)
    }

    /// Makes the rotation of a cell where there is none, at the cost of those that were not used for longest.
    fn rotation(
        &mut self,
        op: &'static dyn Op,
        cell: &Cell,
        spec: &KernelSpec,
        inputs: &Inputs,
    ) -> Result<RotationKey, CellFailure> {
        let key = (inputs_key(cell, spec), cell.policy.cache);
        if self.rotations.contains_key(&key) {
            return Ok(key);
        }
        let l2 = self.device.facts().l2;
        let moved = op.bytes(&cell.workload.shape, spec).0;
        let (rate, cold) = (self.rate, cell.policy.cache == CacheState::Cold);
        // Half of the memory holds rotations at most, so that the check of another cell always finds room.
        let limit = self.device.facts().memory / 2;
        while self.rotations.values().map(Rotation::bytes).sum::<u64>() > limit / 2 {
            let oldest = self.rotations.iter().min_by_key(|(_, r)| r.used).map(|(k, _)| k.clone());
            let Some(oldest) = oldest else { break };
            self.cells.retain(|_, (key, ..)| *key != oldest);
            self.rotations.remove(&oldest);
        }
        let memory = self.device.free_memory()?.min(limit) / 2;
        let sizes = |weights, outputs| Sizes { weights, outputs, moved, l2, memory, rate, cold };
        let mut rotation = Rotation::new(&self.stream, inputs, sizes)?;
        rotation.used = self.clock;
        self.rotations.insert(key.clone(), rotation);
        Ok(key)
    }

    fn forget_oldest_cell(&mut self) {
        if self.cells.len() >= MOST_CELLS {
            let oldest = self.cells.iter().min_by_key(|(_, (_, _, used))| *used).map(|(cell, _)| cell.clone());
            if let Some(oldest) = oldest {
                self.cells.remove(&oldest);
            }
        }
    }

    /// Runs a step on a live context, and notes the fault that ends it.
    fn alive<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, CellFailure>) -> Result<T, CellFailure> {
        if let Some(why) = &self.dead {
            return Err(CellFailure::new(Stage::Harness, format!("the device was lost before: {why}")));
        }
        self.device.bind()?;
        let out = step(self);
        if let Err(failure) = &out
            && failure.stage == Stage::Fault
        {
            self.dead = Some(failure.message.clone());
        }
        out
    }
}

impl Drop for CudaTarget {
    fn drop(&mut self) {
        self.builds.stop();
    }
}

/// Kernels of one layout and form share their data; of ops other than products each kernel has its own, as the scratch
/// memory that it asks for may be its own.
fn inputs_key(cell: &Cell, spec: &KernelSpec) -> InputsKey {
    let name = if cell.workload.op.starts_with("gemv_") { String::new() } else { spec.name.clone() };
    (cell.workload.clone(), spec.layout, spec.activations, name)
}

impl Target for CudaTarget {
    fn device(&self) -> DeviceKey {
        self.key.clone()
    }

    fn now(&self) -> Nanos {
        Nanos::from(self.started.elapsed())
    }

    fn rest(&mut self, pause: Nanos) {
        std::thread::sleep(std::time::Duration::from_nanos(pause.0));
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        self.builds.all(&self.compiled(cells));
        cells.iter().map(|c| self.prepared(c)).collect()
    }

    fn prefetch(&mut self, cells: &[Cell]) {
        self.builds.ahead(self.compiled(cells));
    }

    fn announce(&mut self, phase: Phase) {
        self.warming = phase == Phase::WarmUp;
    }

    fn transfer_time(&self) -> Option<Nanos> {
        Some(Nanos::from(self.device.transfer_time()))
    }

    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        self.alive(|t| t.checked(cell, seed))
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        self.alive(|t| t.sampled(cell, count))
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        self.alive(|t| canary::canary(&t.stream, &t.support, working_set))
    }
}
