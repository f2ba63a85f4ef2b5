//! What the engine drives: tokens in, the next token or logits out.
//!
//! - `work`: what is done on the device's stream, one call at a time.
//! - `slot`: what an answer has of its own there, so that several can be under way.
//! - `parts`: what the graphs of a token are made of.
//! - `timed`: what its steps cost.
//! - `eager`: the same steps launched one by one.
//! - `counters`: what is counted.

mod counters;
mod eager;
mod parts;
mod slot;
mod timed;
mod work;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness_spec::{Bytes, VariantId, Workload};
use kernels::cpu;
use kernels::cuda::CudaError;
use kernels::cuda::compile::Arch;
use kernels::cuda::driver::{Device, Facts};
use kernels::cuda::exec::{Exec, Precision, Program, StepTime};
use kernels::cuda::library::nvrtc;
use variants::TableFile;

pub use self::counters::Counters;
pub use self::eager::{DecodedBy, Launching};
use self::parts::Parts;
pub(super) use self::parts::{bytes_of, named};
use self::work::Work;
use super::breakdown::TimedStep;
use super::buffers::CHUNK;
use super::{fit, single_tokens, vram};
use crate::backend::check_kv_on_cuda;
use crate::generate::LoadOptions;
use crate::gguf::Gguf;
use crate::model::{Config, LoadError};
use crate::sampler::Sampler;
use crate::tables;

/// A model on a device.
#[derive(Debug)]
pub struct CudaModel {
    device: Arc<Device>,
    table_hash: String,
    vram: u64,
    slots: NonZeroUsize,
    // One thread at a time uses the stream and the graphs; whoever holds the model alone needs no lock.
    work: Mutex<Work>,
}

impl CudaModel {
    fn locked(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weights, and keys, values and the graphs of a token of each slot, on device `ordinal`.
    ///
    /// # Errors
    /// [`LoadError`]: no device, no room, or a part of the model that there is no kernel for.
    pub fn load(
        gguf: &Gguf,
        config: &Config,
        ordinal: u32,
        options: &LoadOptions,
        context: usize,
    ) -> Result<CudaModel, LoadError> {
        let kv = check_kv_on_cuda(options)?;
        let device = Device::open(ordinal)?;
        let free = Bytes(device.free_memory()?);
        vram::check(config, || gguf.tensors(), context, kv, options.slots, free, &device.facts().name)?;
        let arch = arch_from_environment()?;
        // Kernels of another architecture are chosen as that one would have them.
        let facts = Facts { cc: arch.map_or(device.facts().cc, |a| a.cc), ..device.facts().clone() };
        let key = device.key(&nvrtc()?.version_text());
        let (table, note) = tables::choose_on_cuda(options.table, &key, &facts)?;
        note.iter().for_each(|note| tables::say_once(note));
        fit::check(&table, config, gguf.tensors())?;
        let precision = match options.precision {
            cpu::Precision::Exact => Precision::Plain,
            cpu::Precision::Fast if table.is_baseline() => Precision::Plain,
            cpu::Precision::Fast => Precision::Table,
        };
        let exec = Exec::new(&device, table, arch)?;
        let work = Work::new(gguf, config, exec, precision, (kv, context, options.slots)).map_err(|e| match e {
            LoadError::Cuda(e @ CudaError::NoKernel { .. }) => LoadError::NotOnCuda { what: e.to_string() },
            e => e,
        })?;
        let (table_hash, vram) = (work.exec.table().hash().to_owned(), work.bytes());
        Ok(CudaModel { device, table_hash, vram, slots: options.slots, work: Mutex::new(work) })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Hash of everything that decides which kernels run.
    pub fn table_hash(&self) -> &str {
        &self.table_hash
    }

    /// The table that chose the kernels, if it was a file.
    pub(crate) fn table_file(&self) -> Option<TableFile> {
        self.locked().exec.table().file()
    }

    /// Bytes of weights, and of the keys and values of every slot, on the device.
    pub fn vram(&self) -> u64 {
        self.vram
    }

    /// What was done since the model was loaded.
    pub fn counters(&self) -> Counters {
        self.locked().counters
    }

    /// The launches of a token at a position: op and variant of each.
    pub fn steps(&self, pos: usize) -> Vec<(Workload, VariantId)> {
        self.locked().slot.graphs.program(pos).steps().iter().map(named).collect()
    }

    /// The launches of a prompt of so many tokens, some of them more than once: those of its chunks, and those of a token
    /// for the tokens that are taken one by one, be it the last few or all.
    ///
    /// # Errors
    /// No kernel.
    pub fn prompt_steps(&self, tokens: usize) -> Result<Vec<(Workload, VariantId)>, CudaError> {
        let work = self.locked();
        let Parts { exec, model, buffers, .. } = work.parts();
        let mut steps = Vec::new();
        let mut at_once = 0;
        if let Some(prompt) = &work.prompt {
            at_once = tokens - single_tokens(tokens as u64) as usize;
            for m in [CHUNK.min(at_once), at_once % CHUNK].into_iter().filter(|&m| m > 0) {
                steps.extend(prompt.steps(exec, model, buffers, m)?);
            }
        }
        let singly = work.slot.graphs.programs_at(at_once..tokens);
        steps.extend(singly.flat_map(Program::steps).map(named));
        Ok(steps)
    }

    /// Every variant that may run a workload of a token here, the default first.
    ///
    /// # Errors
    /// The op is none of a token.
    pub fn variants(&self, workload: &Workload) -> Result<Vec<VariantId>, CudaError> {
        self.locked().exec.variants(&workload.op, &workload.shape)
    }

    /// Runs a workload of a token by another variant from now on; `None` goes back to the table's.
    ///
    /// # Errors
    /// A variant that cannot run; the model runs as before.
    pub fn try_variant(&mut self, workload: &Workload, variant: Option<&VariantId>) -> Result<(), CudaError> {
        self.work().try_variant(workload, variant)
    }

    /// Nodes of the graph of a first token, and those of its edges by which a kernel may start before the one ahead has
    /// ended.
    pub fn graph_facts(&self) -> (usize, Option<usize>) {
        let work = self.locked();
        let graph = work.slot.graphs.graph(0);
        (graph.nodes(), graph.programmatic_edges())
    }

    /// How prompts are multiplied.
    pub fn prompt_products(&self) -> &'static str {
        let work = self.locked();
        match &work.prompt {
            None => "token by token",
            Some(_) if work.exec.has_library() => "cuBLASLt",
            Some(_) => "gemm",
        }
    }

    /// Whatever follows is of this slot, until the next call; a model begins with the first. What a slot has queued stays
    /// queued. Logits are those of whichever slot computed last.
    ///
    /// # Panics
    /// Where there is no such slot.
    pub fn turn_to(&mut self, slot: usize) {
        assert!(slot < self.slots.get(), "slot {slot} of {}", self.slots);
        self.work().turn_to(slot);
    }

    /// Processes tokens at positions from `pos0` on. Afterwards the logits behind the last of them and the most likely next
    /// token are on the device.
    ///
    /// # Errors
    /// The driver's error.
    ///
    /// # Panics
    /// Where there are no tokens, or they do not fit the context: the engine checks requests.
    pub fn feed(&mut self, ids: &[u32], pos0: usize) -> Result<(), CudaError> {
        self.work().process(ids, pos0, true)
    }

    /// As [`CudaModel::feed`], and only fills the cache.
    ///
    /// # Errors
    /// The driver's error.
    ///
    /// # Panics
    /// As [`CudaModel::feed`].
    pub fn fill(&mut self, ids: &[u32], pos0: usize) -> Result<(), CudaError> {
        self.work().process(ids, pos0, false)
    }

    /// The most likely token behind what was fed or decoded last. With `more` the step that feeds it back is queued first,
    /// so that the device goes on meanwhile; where nobody asks for that step's token, what is fed next takes its place.
    /// Behind the last position of the context nothing is queued.
    ///
    /// # Errors
    /// [`CudaError::NoToken`] where no step is under way whose token was not taken, or the driver's error.
    pub fn next_greedy(&mut self, more: bool) -> Result<u32, CudaError> {
        self.work().next_greedy(more)
    }

    /// As [`CudaModel::next_greedy`], and the token is drawn as the sampler says, behind the tokens of `history`. Draws follow
    /// its uniform numbers one by one, and are the same tokens that it would choose from the logits, but where the rounding of
    /// a sum of probabilities decides.
    ///
    /// # Errors
    /// As [`CudaModel::next_greedy`].
    ///
    /// # Panics
    /// Where the history of a first draw is not that of what was fed.
    pub fn next_sampled(&mut self, sampler: &mut Sampler, history: &[u32], more: bool) -> Result<u32, CudaError> {
        self.work().next_sampled(sampler, history, more)
    }

    /// Whether [`CudaModel::next_sampled`] has a kernel for this vocabulary.
    pub fn samples(&self) -> bool {
        self.locked().slot.sampled.has_kernel
    }

    /// Waits until all that was fed or decoded has been computed.
    ///
    /// # Errors
    /// The driver's error.
    pub fn settle(&mut self) -> Result<(), CudaError> {
        self.work().wait("computing a prompt")
    }

    /// The logits behind what was fed or decoded last, `[vocab]`.
    ///
    /// # Errors
    /// The driver's error.
    pub fn logits(&mut self) -> Result<&[f32], CudaError> {
        self.work().logits()
    }

    /// What each step of a token takes at a position, in a graph that lets no two of them overlap: `repeats` launches, the
    /// median of each step. What the context held at that position is lost.
    ///
    /// # Errors
    /// The driver's error.
    ///
    /// # Panics
    /// Where the position is behind the context.
    pub fn profile(&mut self, pos: usize, repeats: usize) -> Result<Vec<StepTime>, CudaError> {
        self.work().profile(pos, repeats)
    }

    /// For [`breakdown::measure`]: every prefix of a token at a position.
    pub(super) fn prefixes(
        &mut self,
        pos: usize,
        rounds: usize,
        budget: Duration,
    ) -> Result<Vec<TimedStep>, CudaError> {
        self.work().prefixes(pos, rounds, budget)
    }

    /// Tokens of the vocabulary.
    pub(super) fn vocab(&self) -> usize {
        self.locked().logits.len()
    }
}

/// The architecture that `EDGELLM_CUDA_ARCH` names, such as `compute_75`: the kernels of an older device, which the driver
/// compiles for this one. For trying their results, not their speed.
fn arch_from_environment() -> Result<Option<Arch>, LoadError> {
    match std::env::var("EDGELLM_CUDA_ARCH") {
        Ok(word) if !word.is_empty() => word.parse().map(Some).map_err(LoadError::CudaArch),
        _ => Ok(None),
    }
}
