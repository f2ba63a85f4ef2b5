//! What runs the forward pass: the processor, or a CUDA device. Both leave the logits of the last token to be sampled.

use kernels::cpu::{self, Cpu, CpuOptions};
use kernels::cuda::CudaError;
use variants::Isa;

use crate::cuda::CudaModel;
use crate::forward::{self, Scratch, Wanted, forward};
use crate::generate::{DeviceChoice, KvType, LoadOptions};
use crate::gguf::Gguf;
use crate::host_memory;
use crate::kv_cache::KvCache;
use crate::model::{Config, LoadError, Model, load_model};
use crate::sampler::Sampler;
use crate::tables;

/// Tokens of a prompt that a CUDA device takes at once: what its prefill has room for, and few enough that a request
/// that was given up ends within milliseconds.
const CUDA_BATCH: usize = crate::cuda::vram::PREFILL_TOKENS;

/// What runs the forward pass.
#[derive(Debug)]
pub(crate) enum Backend {
    /// The processor.
    Cpu(Box<CpuBackend>),
    /// A CUDA device.
    Cuda(Box<CudaModel>),
}

/// A model in the memory of the processor, with the threads that run it.
#[derive(Debug)]
pub(crate) struct CpuBackend {
    pub cpu: Cpu,
    pub model: Model,
    scratch: Scratch,
    /// Of each slot.
    kv: Vec<KvCache>,
    slot: usize,
}

impl CpuBackend {
    /// A model with room for `context` positions in each slot.
    pub fn new(cpu: Cpu, model: Model, options: &LoadOptions, context: usize) -> Result<CpuBackend, LoadError> {
        let kind = check_kv_on_cpu(options)?;
        let kv = (0..options.slots.get()).map(|_| KvCache::new(&model.config, kind, context)).collect();
        let scratch = Scratch::new(&model);
        Ok(CpuBackend { cpu, model, scratch, kv, slot: 0 })
    }

    fn run(&mut self, ids: &[u32], pos0: usize, wanted: Wanted) {
        forward(&self.cpu, &self.model, &mut self.kv[self.slot], ids, pos0, &mut self.scratch, wanted);
    }
}

/// The type of the processor's kernels that keys and values are kept in as asked.
fn check_kv_on_cpu(options: &LoadOptions) -> Result<cpu::KvType, LoadError> {
    let asked = options.kv_on_cpu();
    asked.on_cpu().ok_or(LoadError::Kv { asked, device: "the processor", has: "f16 and f32" })
}

/// Whether the kernels of CUDA keep keys and values as asked.
pub(crate) fn check_kv_on_cuda(options: &LoadOptions) -> Result<KvType, LoadError> {
    let asked = options.kv_on_cuda();
    let refused = LoadError::Kv { asked, device: "a CUDA device", has: "f16 and int8" };
    if asked.is_on_cuda() { Ok(asked) } else { Err(refused) }
}

impl Backend {
    /// Tokens of a prompt that are taken at once.
    pub fn batch(&self) -> usize {
        match self {
            Backend::Cpu(_) => forward::BATCH,
            Backend::Cuda(_) => CUDA_BATCH,
        }
    }

    /// Whatever follows is of this slot, until the next call. Logits are not kept from one slot's turn to its next.
    ///
    /// # Panics
    /// Where there is no such slot.
    pub fn turn_to(&mut self, slot: usize) {
        match self {
            Backend::Cpu(cpu) => {
                assert!(slot < cpu.kv.len(), "slot {slot} of {}", cpu.kv.len());
                cpu.slot = slot;
            }
            Backend::Cuda(model) => model.turn_to(slot),
        }
    }

    /// Processes tokens at positions from `pos0` on; the logits after the last can be had then.
    ///
    /// # Errors
    /// What failed on the device.
    pub fn feed(&mut self, ids: &[u32], pos0: usize) -> Result<(), CudaError> {
        match self {
            Backend::Cpu(cpu) => cpu.run(ids, pos0, Wanted::Last),
            Backend::Cuda(model) => model.feed(ids, pos0)?,
        }
        Ok(())
    }

    /// As [`Backend::feed`], and only fills the cache.
    ///
    /// # Errors
    /// As [`Backend::feed`].
    pub fn fill(&mut self, ids: &[u32], pos0: usize) -> Result<(), CudaError> {
        match self {
            Backend::Cpu(cpu) => cpu.run(ids, pos0, Wanted::None),
            Backend::Cuda(model) => model.fill(ids, pos0)?,
        }
        Ok(())
    }

    /// Waits until what was fed has been computed.
    ///
    /// # Errors
    /// As [`Backend::feed`].
    pub fn settle(&mut self) -> Result<(), CudaError> {
        match self {
            Backend::Cpu(_) => Ok(()),
            Backend::Cuda(model) => model.settle(),
        }
    }

    /// The logits after the last token, `[vocab]`.
    ///
    /// # Errors
    /// As [`Backend::feed`].
    pub fn logits(&mut self) -> Result<&[f32], CudaError> {
        match self {
            Backend::Cpu(cpu) => Ok(cpu.scratch.last_logits(cpu.model.config.vocab)),
            Backend::Cuda(model) => model.logits(),
        }
    }

    /// Chooses the token behind those of `history`, of which the last has been fed. With `more` the next call will be for
    /// the token behind it, unless the request ends before that: a device that chooses by itself then has begun already,
    /// and [`Step::fed`] says that nothing is left to feed.
    ///
    /// # Errors
    /// As [`Backend::feed`].
    pub fn next(&mut self, sampler: &mut Sampler, history: &[u32], more: bool) -> Result<Step, CudaError> {
        match self {
            // The device chooses: the token's id is all that comes back.
            Backend::Cuda(model) if sampler.is_argmax() => Ok(Step { id: model.next_greedy(more)?, fed: more }),
            Backend::Cuda(model) if model.samples() => {
                Ok(Step { id: model.next_sampled(sampler, history, more)?, fed: more })
            }
            // The processor, or a vocabulary that no kernel takes.
            _ => Ok(Step { id: sampler.sample(self.logits()?, history), fed: false }),
        }
    }
}

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The token.
    pub id: u32,
    /// Whether it is being processed already.
    pub fed: bool,
}

/// Loads a model where the options say, and says where that is.
///
/// # Errors
/// [`LoadError`]. [`DeviceChoice::Auto`] only fails where the processor cannot run the model either.
pub(crate) fn load(
    gguf: &Gguf,
    config: &Config,
    options: &LoadOptions,
    context: usize,
) -> Result<(Backend, DeviceChoice), LoadError> {
    let on_cuda =
        |ordinal| CudaModel::load(gguf, config, ordinal, options, context).map(|model| Backend::Cuda(Box::new(model)));
    let on_cpu = || {
        // Before the weights are packed, which takes seconds.
        check_kv_on_cpu(options)?;
        if let Some(available) = host_memory::available() {
            host_memory::check(config, gguf.mapping().bytes().len() as u64, options, context, available)?;
        }
        let cpu = start_cpu(options)?;
        let model = load_model(gguf, &cpu, options.precision)?;
        cpu.take_notes().iter().for_each(|note| tables::say_once(note));
        CpuBackend::new(cpu, model, options, context).map(|backend| Backend::Cpu(Box::new(backend)))
    };
    match options.device {
        DeviceChoice::Cpu => Ok((on_cpu()?, DeviceChoice::Cpu)),
        DeviceChoice::Cuda(ordinal) => Ok((on_cuda(ordinal)?, options.device)),
        // Whoever names an instruction set means the processor.
        DeviceChoice::Auto if options.isa.is_some() => Ok((on_cpu()?, DeviceChoice::Cpu)),
        DeviceChoice::Auto => match on_cuda(0) {
            Ok(backend) => Ok((backend, DeviceChoice::Cuda(0))),
            Err(refused) => {
                // A damaged file is refused here again, with an error of its own.
                let backend = on_cpu()?;
                tables::say_once(&format!("computing on the processor: {}", first_line(&refused)));
                Ok((backend, DeviceChoice::Cpu))
            }
        },
    }
}

/// What an error says, without what to do about it: there is nothing to be done where another device does the work.
fn first_line(error: &LoadError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The instruction set that `EDGELLM_ISA` names, for trying a lower one without changing a program.
fn isa_from_environment() -> Result<Option<Isa>, LoadError> {
    match std::env::var("EDGELLM_ISA") {
        Ok(word) if !word.is_empty() => Ok(Some(word.parse()?)),
        _ => Ok(None),
    }
}

fn start_cpu(options: &LoadOptions) -> Result<Cpu, LoadError> {
    let best = Isa::detect();
    let isa = match options.isa {
        Some(isa) => isa,
        None => isa_from_environment()?.unwrap_or(best),
    };
    if !best.runs(isa) {
        return Err(LoadError::Isa { asked: isa, best });
    }
    let threads = match options.threads {
        Some(0) => return Err(LoadError::NoThreads),
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (table, note) = tables::choose(options.table, isa, threads)?;
    if let Some(note) = note {
        tables::say_once(&note);
    }
    Ok(Cpu::new(CpuOptions { threads, isa, table, pin: false }))
}
