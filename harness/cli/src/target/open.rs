//! Opening a device: in a worker, where it is used, and from the parent, which starts the worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use harness_measure::fake::{Fake, Script};
use harness_spec::{DeviceKey, Target};
use kernels::cpu::{CpuOptions, CpuTarget};
use kernels::cuda::CudaTarget;
use kernels::op::Depth;
use variants::{Isa, Limits};

use super::{Timeouts, WorkerTarget};
use crate::args::{DeviceArgs, WorkerArgs};
use crate::exit::{Failure, usage};
use crate::machine::cpu;
use crate::registry_spaces;

/// A device of this process.
pub struct Opened {
    /// The device.
    pub target: Box<dyn Target>,
    /// Whether times are scripted.
    pub simulated: bool,
    /// Recorded and not keyed.
    pub facts: BTreeMap<String, String>,
    /// What the constraints of spaces see.
    pub limits: Limits,
    /// Where it is; of a scripted device nowhere, and so the processor.
    pub place: Place,
}

/// How much of the gate a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// One input of each kernel, launched once.
    Once,
    /// What precedes every timed kernel.
    Quick,
    /// Every position, every code, every awkward shape.
    Full,
}

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    Cpu,
    /// A GPU by its number.
    Cuda(u32),
}

impl Place {
    /// Whether it is a GPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, Place::Cuda(_))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// The devices that a word of the command line means: `cpu`, `cuda`, `cuda:N`, `all`, or nothing.
///
/// # Errors
/// A word that is none of them.
pub fn places(word: Option<&str>) -> Result<Vec<Place>, Failure> {
    // No driver, no GPU: which of them it is, is said when one is asked for.
    let gpus = kernels::cuda::driver::Device::count().unwrap_or(0);
    match word {
        None if gpus > 0 => Ok(vec![Place::Cuda(0)]),
        None | Some("cpu") => Ok(vec![Place::Cpu]),
        Some("cuda") => Ok(vec![Place::Cuda(0)]),
        Some("all") => Ok(std::iter::once(Place::Cpu).chain((0..gpus).map(Place::Cuda)).collect()),
        Some(other) => {
            let number = other.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            number.map(|n| vec![Place::Cuda(n)]).ok_or_else(|| {
                usage(anyhow!(
                    "unknown device `{other}`\nhint: write cpu, cuda or cuda:N; `bench list devices` shows them"
                ))
            })
        }
    }
}

/// Starts the worker of a device.
///
/// # Errors
/// The device is not there or not usable; the message names the fix.
pub fn start(place: Place, a: &DeviceArgs, checks: Checks) -> Result<WorkerTarget, Failure> {
    if a.threads == Some(0) {
        return Err(usage(anyhow!("--threads 0 computes nothing; give at least 1")));
    }
    let timeouts = match a.timeout {
        None => Timeouts::default(),
        Some(s) if s.is_finite() && s > 0.0 => Timeouts::of_kernels(Duration::from_secs_f64(s)),
        Some(s) => return Err(usage(anyhow!("--timeout {s} ends every call; give a number of seconds above 0"))),
    };
    let path = |p: &Path| p.display().to_string();
    let mut words = match &a.simulate {
        Some(script) => {
            // Read here as well, so that a mistake in it is a mistake of usage with its line.
            read_script(script).map_err(usage)?;
            vec!["--simulate".to_owned(), path(script)]
        }
        None => vec!["--device".to_owned(), place.to_string()],
    };
    for folder in &a.kernels {
        words.extend(["--kernels".to_owned(), path(folder)]);
    }
    if let Some(threads) = a.threads {
        words.extend(["--threads".to_owned(), threads.to_string()]);
    }
    match checks {
        Checks::Once => words.push("--once".to_owned()),
        Checks::Quick => {}
        Checks::Full => words.push("--full".to_owned()),
    }
    let program = std::env::current_exe().context("finding this program's own file")?;
    WorkerTarget::start(&program, words, timeouts).map_err(|e| Failure::Unmeasured(anyhow::Error::new(e)))
}

/// Starts the worker of a device without kernels of the user's own.
///
/// # Errors
/// As [`start`].
pub fn start_plain(place: Place) -> anyhow::Result<WorkerTarget> {
    let words = vec!["--device".to_owned(), place.to_string()];
    let program = std::env::current_exe().context("finding this program's own file")?;
    Ok(WorkerTarget::start(&program, words, Timeouts::default())?)
}

/// Opens a device in this process.
///
/// # Errors
/// Why it cannot be used, with the fix, as text: it crosses a pipe.
pub fn open(a: &WorkerArgs) -> Result<Opened, String> {
    if let Some(script) = &a.simulate {
        let script = read_script(script).map_err(|e| format!("{e:#}"))?;
        let key = script.device.key();
        let limits = limits_of(&key)?;
        let (target, facts) = (Box::new(Fake::new(script)), BTreeMap::new());
        return Ok(Opened { target, simulated: true, facts, limits, place: Place::Cpu });
    }
    match a.device.as_deref().map(|d| places(Some(d))) {
        None => open_cpu(a),
        Some(Ok(all)) => match all.first() {
            None | Some(Place::Cpu) => open_cpu(a),
            Some(Place::Cuda(n)) => open_cuda(*n, a),
        },
        Some(Err(e)) => Err(e.to_string()),
    }
}

fn open_cpu(a: &WorkerArgs) -> Result<Opened, String> {
    let threads = a.threads.unwrap_or_else(cpu::physical_cores) as usize;
    let options = CpuOptions { threads, pin: true, ..CpuOptions::default() };
    let mut target = CpuTarget::new(options);
    if a.full {
        target.set_depth(Depth::Full);
    }
    if a.once {
        target.check_once();
    }
    let limits = limits_of(&target.device())?;
    let facts = BTreeMap::new();
    Ok(Opened { target: Box::new(target), simulated: false, facts, limits, place: Place::Cpu })
}

fn open_cuda(ordinal: u32, a: &WorkerArgs) -> Result<Opened, String> {
    let registry = registry_spaces::load(&a.kernels).map_err(|e| format!("{e:#}"))?;
    let mut target = CudaTarget::open(Arc::new(registry), ordinal).map_err(|e| e.to_string())?;
    if a.full {
        target.set_depth(Depth::Full);
    }
    if a.once {
        target.check_once();
    }
    let limits = *target.limits();
    let (facts, place) = (BTreeMap::new(), Place::Cuda(ordinal));
    Ok(Opened { target: Box::new(target), simulated: false, facts, limits, place })
}

fn read_script(path: &Path) -> anyhow::Result<Script> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the script {}", path.display()))?;
    Script::parse(&text).with_context(|| format!("in {}", path.display()))
}

/// What a device of this key can: by its architecture, where there is none to ask.
fn limits_of(key: &DeviceKey) -> Result<Limits, String> {
    if key.backend == "cpu" {
        let isa: Isa = key.arch.parse().map_err(|e| format!("{e}"))?;
        return Ok(Limits::cpu(isa, kernels::cpu::last_level_cache()));
    }
    let cc = key.arch.strip_prefix("sm_").and_then(|cc| cc.parse().ok());
    cc.and_then(Limits::of_architecture).ok_or_else(|| {
        format!("unknown architecture `{}`\nhint: write arch = \"sm_90\", or one of sm_75 to sm_90", key.arch)
    })
}
