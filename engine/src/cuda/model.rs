//! What the engine drives: tokens in, the next token or logits out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness_spec::{Bytes, VariantId, Workload};
use kernels::cpu;
use kernels::cuda::CudaError;
use kernels::cuda::compile::Arch;
use kernels::cuda::driver::{Device, Facts, HostWords, Stream};
use kernels::cuda::exec::{Exec, LengthClass, Overlap, Precision, Program, Step, StepTime};
use kernels::cuda::library::nvrtc;

use super::breakdown::{self, TimedStep};
use super::buffers::{Buffers, CHUNK};
use super::decode::Builder;
use super::fit;
use super::graphs::Graphs;
use super::prompt::{FEW, Prompt};
use super::sampled::Sampled;
use super::single_tokens;
use super::vram;
use super::weights::{self, DeviceModel};
use crate::generate::LoadOptions;
use crate::gguf::Gguf;
use crate::model::{Config, LoadError};
use crate::sampler::Sampler;
use crate::tables;

/// Words that the device writes tokens to: one a position, modulo this. The kernels know the number.
const RING: usize = 1024;

/// `last` and `untaken` of a model that has seen no token.
const NOTHING_QUEUED: (usize, usize) = (0, 1);

/// What was done since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Tokens decoded one at a time.
    pub tokens: u64,
    /// Launches of a token's graph.
    pub graph_launches: u64,
    /// Kernels launched outside graphs: for prompts, and for the first drawn token of a request.
    pub kernel_launches: u64,
    /// Times that the host waited for the device.
    pub syncs: u64,
    /// Bytes sent to the device.
    pub h2d_bytes: u64,
    /// Bytes that came back.
    pub d2h_bytes: u64,
}

impl Counters {
    /// A token is the launch of one graph.
    fn count_token(&mut self) {
        self.graph_launches += 1;
        self.tokens += 1;
    }
}

/// A model on a device.
#[derive(Debug)]
pub struct CudaModel {
    device: Arc<Device>,
    table_hash: String,
    vram: u64,
    // One thread at a time uses the stream and the graph; whoever holds the model alone needs no lock.
    work: Mutex<Work>,
}

/// What runs.
#[derive(Debug)]
struct Work {
    // Before what they use: graphs go first.
    graphs: Graphs,
    sampled: Sampled,
    prompt: Option<Prompt>,
    builder: Parts,
    ring: HostWords,
    logits: Vec<f32>,
    counters: Counters,
    /// The last position that was fed or queued.
    last: usize,
    /// Positions whose words the device may still write or has written, from here to `last`: none where this is behind it.
    untaken: usize,
}

#[derive(Debug)]
struct Parts {
    exec: Exec,
    model: DeviceModel,
    buffers: Buffers,
    precision: Precision,
}

impl CudaModel {
    fn locked(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weights, keys and values, and the graph of a token on device `ordinal`.
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
        let device = Device::open(ordinal)?;
        let kv = options.kv_on_cuda();
        if !kv.is_on_cuda() {
            return Err(LoadError::Kv { asked: kv, device: "a CUDA device", has: "f16 and int8" });
        }
        let free = Bytes(device.free_memory()?);
        vram::check(config, || gguf.tensors(), context, kv, free, &device.facts().name)?;
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
        let work = Work::new(gguf, config, exec, precision, kv, context).map_err(|e| match e {
            LoadError::Cuda(e @ CudaError::NoKernel { .. }) => LoadError::NotOnCuda { what: e.to_string() },
            e => e,
        })?;
        let (table_hash, vram) = (work.builder.exec.table().hash().to_owned(), work.builder.model.bytes);
        Ok(CudaModel { device, table_hash, vram, work: Mutex::new(work) })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Hash of everything that decides which kernels run.
    pub fn table_hash(&self) -> &str {
        &self.table_hash
    }

    /// Bytes of weights, keys and values on the device.
    pub fn vram(&self) -> u64 {
        self.vram
    }

    /// What was done since the model was loaded.
    pub fn counters(&self) -> Counters {
        self.locked().counters
    }

    /// The launches of a token at a position: op and variant of each.
    pub fn steps(&self, pos: usize) -> Vec<(Workload, VariantId)> {
        self.locked().graphs.program(pos).steps().iter().map(named).collect()
    }

    /// The launches of a prompt of so many tokens, some of them more than once: those of its chunks, and those of a token
    /// for the tokens that are taken one by one, be it the last few or all.
    ///
    /// # Errors
    /// No kernel.
    pub fn prompt_steps(&self, tokens: usize) -> Result<Vec<(Workload, VariantId)>, CudaError> {
        let work = self.locked();
        let Parts { exec, model, buffers, .. } = &work.builder;
        let mut steps = Vec::new();
        let mut at_once = 0;
        if let Some(prompt) = &work.prompt {
            at_once = tokens - single_tokens(tokens as u64) as usize;
            for m in [CHUNK.min(at_once), at_once % CHUNK].into_iter().filter(|&m| m > 0) {
                steps.extend(prompt.steps(exec, model, buffers, m)?);
            }
        }
        let singly = work.graphs.programs_at(at_once..tokens);
        steps.extend(singly.flat_map(Program::steps).map(named));
        Ok(steps)
    }

    /// Every variant that may run a workload of a token here, the default first.
    ///
    /// # Errors
    /// The op is none of a token.
    pub fn variants(&self, workload: &Workload) -> Result<Vec<VariantId>, CudaError> {
        self.locked().builder.exec.variants(&workload.op, &workload.shape)
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
        let graph = work.graphs.graph(0);
        (graph.nodes(), graph.programmatic_edges())
    }

    /// How prompts are multiplied.
    pub fn prompt_products(&self) -> &'static str {
        let work = self.locked();
        match &work.prompt {
            None => "token by token",
            Some(_) if work.builder.exec.has_library() => "cuBLASLt",
            Some(_) => "gemm",
        }
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
        self.locked().sampled.has_kernel
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

impl Work {
    fn try_variant(&mut self, workload: &Workload, variant: Option<&VariantId>) -> Result<(), CudaError> {
        self.forget_queued()?;
        let is_of = |step: &&Step| step.op() == workload.op && *step.key() == workload.shape;
        let before = self.graphs.programs().flat_map(Program::steps).find(is_of).map(|step| step.variant().clone());
        self.builder.exec.try_variant(&workload.op, &workload.shape, variant)?;
        let rebuilt = self.rebuild();
        if rebuilt.is_err() {
            self.builder.exec.try_variant(&workload.op, &workload.shape, before.as_ref())?;
        }
        rebuilt
    }

    fn rebuild(&mut self) -> Result<(), CudaError> {
        self.graphs = self.builder.graphs(&self.ring)?;
        self.sampled.graphs = None;
        (self.last, self.untaken) = NOTHING_QUEUED;
        Ok(())
    }

    fn new(
        gguf: &Gguf,
        config: &Config,
        exec: Exec,
        precision: Precision,
        kv: crate::generate::KvType,
        context: usize,
    ) -> Result<Work, LoadError> {
        let model = weights::load(gguf, config, &exec, precision, kv, context)?;
        let buffers = Buffers::new(exec.stream(), config, model.heads)?;
        let ring = HostWords::new(exec.device(), RING)?;
        let sampled = Sampled::new(&exec, precision, RING, config.vocab, context)?;
        let parts = Parts { exec, model, buffers, precision };
        let prompt = match Prompt::takes(&parts.model, precision) {
            true => Some(Prompt::new(&parts.exec, &parts.model)?),
            false => None,
        };
        parts.exec.compile_for(|| {
            parts.programs(&ring)?;
            if sampled.has_kernel {
                sampled.first(&parts.builder(0))?;
            }
            prompt.as_ref().map_or(Ok(()), |prompt| prompt.plan(&parts.exec, &parts.model, &parts.buffers))
        });
        let graphs = parts.graphs(&ring)?;
        parts.exec.take_notes().iter().for_each(|note| tables::say_once(note));
        let logits = vec![0.0; config.vocab];
        Ok(Work {
            graphs,
            sampled,
            prompt,
            builder: parts,
            ring,
            logits,
            counters: Counters::default(),
            last: NOTHING_QUEUED.0,
            untaken: NOTHING_QUEUED.1,
        })
    }

    fn process(&mut self, ids: &[u32], pos0: usize, head: bool) -> Result<(), CudaError> {
        let context = self.builder.context();
        assert!(!ids.is_empty() && pos0 + ids.len() <= context, "positions {pos0}..{} of {context}", pos0 + ids.len());
        self.builder.exec.device().bind()?;
        self.forget_queued()?;
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let pos = pos0 + i * CHUNK;
            let last = pos + chunk.len() == pos0 + ids.len();
            match &self.prompt {
                Some(_) if chunk.len() > FEW => self.chunk(chunk, pos, head && last)?,
                _ => self.one_by_one(chunk, pos, head && last)?,
            }
        }
        self.last = pos0 + ids.len() - 1;
        self.untaken = if head { self.last } else { self.last + 1 };
        Ok(())
    }

    fn chunk(&mut self, ids: &[u32], pos: usize, head: bool) -> Result<(), CudaError> {
        let Parts { exec, model, buffers: b, .. } = &self.builder;
        let (stream, m) = (exec.stream(), ids.len());
        let prompt = self.prompt.as_ref().expect("the caller has seen it");
        b.ids.upload(stream, &bytes_of(ids))?;
        b.positions.upload(stream, &bytes_of(&[pos as u32, (pos + m - 1) as u32]))?;
        self.counters.h2d_bytes += 4 * m as u64 + 8;
        self.counters.kernel_launches += prompt.run(exec, model, b, m)?;
        if head {
            let hidden = 4 * model.config.hidden;
            let mut program = Program::new();
            let last = b.x.part((m - 1) * hidden, hidden);
            self.builder.builder(self.ring.address()).head(&last, &b.positions.part(4, 4), &mut program)?;
            program.run(stream, Overlap::NONE)?;
            self.counters.kernel_launches += program.steps().len() as u64;
        }
        Ok(())
    }

    /// Each token through the graph. The words of the ring that are not asked for are taken away: all but that of the last
    /// token, where it is `wanted`.
    fn one_by_one(&mut self, ids: &[u32], pos: usize, wanted: bool) -> Result<(), CudaError> {
        for (i, &id) in ids.iter().enumerate() {
            self.builder.set_state(id, pos + i)?;
            self.counters.h2d_bytes += 16;
            self.launch(pos + i)?;
            if !wanted || i + 1 < ids.len() {
                self.await_token(pos + i)?;
            }
        }
        Ok(())
    }

    /// The token whose position is in the device's memory, which is `pos`.
    fn launch(&mut self, pos: usize) -> Result<(), CudaError> {
        self.assert_in_context(pos);
        self.counters.count_token();
        self.graphs.graph(pos).launch(self.builder.exec.stream())
    }

    /// A step appends keys and values at its position: one behind the context would write over what is not its own.
    fn assert_in_context(&self, pos: usize) {
        let context = self.builder.context();
        assert!(pos < context, "position {pos} of {context}");
    }

    /// The position whose token is asked for now.
    fn awaited(&self) -> Result<usize, CudaError> {
        if self.untaken <= self.last {
            return Ok(self.last);
        }
        let (position, context) = (self.last, self.builder.context());
        let reason = match position + 1 < context {
            true => "its token was taken, or none was fed, and no step was queued behind it: feed one".to_owned(),
            false => format!("the context of {context} positions is full: load the model with a larger one (--ctx)"),
        };
        Err(CudaError::NoToken { position, reason })
    }

    /// Waits for all that is on the stream.
    fn wait(&mut self, doing: &str) -> Result<(), CudaError> {
        self.counters.syncs += 1;
        self.builder.exec.stream().wait(|| doing.to_owned())
    }

    /// Waits for steps that were queued and not asked for, and takes their tokens out of the ring.
    fn forget_queued(&mut self) -> Result<(), CudaError> {
        self.wait("waiting for the last request")?;
        (self.untaken..=self.last).for_each(|pos| {
            self.ring.take(pos % RING);
        });
        self.sampled.end(self.untaken..=self.last, RING);
        self.untaken = self.last + 1;
        Ok(())
    }

    fn next_greedy(&mut self, more: bool) -> Result<u32, CudaError> {
        let pos = self.awaited()?;
        if more && pos + 1 < self.builder.context() {
            self.launch(pos + 1)?;
            self.last += 1;
        }
        let id = self.await_token(pos)?;
        self.untaken = pos + 1;
        self.counters.d2h_bytes += 4;
        Ok(id)
    }

    fn next_sampled(&mut self, sampler: &mut Sampler, history: &[u32], more: bool) -> Result<u32, CudaError> {
        let is_first = !self.sampled.is_under_way();
        // The logits of a first choice are there, whoever computed them and took the most likely token.
        let pos = if is_first { self.last } else { self.awaited()? };
        let stream = self.builder.exec.stream();
        if is_first {
            self.sampled.begin(stream, sampler, history, pos, &mut self.counters)?;
            self.sampled.first(&self.builder.builder(0))?.launch(stream, false)?;
            self.counters.kernel_launches += 1;
        }
        if more && pos + 1 < self.builder.context() {
            if self.sampled.graphs.is_none() {
                self.sampled.graphs = Some(self.builder.sampled_graphs(&self.sampled)?);
            }
            self.sampled.draw_for(stream, sampler, pos + 1, &mut self.counters)?;
            let graphs = self.sampled.graphs.as_ref().expect("they have just been captured");
            graphs.graph(pos + 1).launch(stream)?;
            self.counters.count_token();
            self.last += 1;
        }
        let id = await_word(&self.sampled.ring, stream, pos, "sample")?;
        if is_first {
            // What the head said of those logits is for nobody; it came before what was drawn from them.
            self.ring.take(pos % RING);
        }
        self.untaken = pos + 1;
        self.counters.d2h_bytes += 4;
        Ok(id)
    }

    fn await_token(&mut self, pos: usize) -> Result<u32, CudaError> {
        await_word(&self.ring, self.builder.exec.stream(), pos, "norm_logits")
    }

    fn logits(&mut self) -> Result<&[f32], CudaError> {
        let Parts { exec, buffers, .. } = &self.builder;
        let bytes = buffers.logits.download(exec.stream(), 4 * self.logits.len(), || "computing logits".to_owned())?;
        self.counters.syncs += 1;
        self.counters.d2h_bytes += bytes.len() as u64;
        for (out, bytes) in self.logits.iter_mut().zip(bytes.chunks_exact(4)) {
            *out = f32::from_le_bytes(bytes.try_into().expect("chunks of four"));
        }
        Ok(&self.logits)
    }

    fn prefixes(&mut self, pos: usize, rounds: usize, budget: Duration) -> Result<Vec<TimedStep>, CudaError> {
        self.forget_queued()?;
        self.assert_in_context(pos);
        let Parts { exec, .. } = &self.builder;
        // The whole token ahead of a prefix stands at `pos - 1`, so that the prefix is that of the token at `pos`.
        let restore = || self.builder.set_state(0, pos - 1);
        let timed = breakdown::prefixes(exec, self.graphs.program(pos), pos + 1, rounds, budget, &restore);
        for written in [pos - 1, pos] {
            self.ring.take(written % RING);
        }
        timed
    }

    fn profile(&mut self, pos: usize, repeats: usize) -> Result<Vec<StepTime>, CudaError> {
        self.forget_queued()?;
        self.assert_in_context(pos);
        let exec = &self.builder.exec;
        let program = self.graphs.program(pos);
        let (graph, marks) = program.capture_marked(exec.stream())?;
        let mut all: Vec<Vec<StepTime>> = Vec::new();
        for _ in 0..repeats.max(1) + 3 {
            self.builder.set_state(0, pos)?;
            graph.launch(exec.stream())?;
            exec.stream().wait(|| "timing the steps of a token".to_owned())?;
            all.push(program.times(&marks)?);
        }
        self.ring.take(pos % RING);
        let timed = &all[3..];
        let median = |i: usize| {
            let mut nanos: Vec<f64> = timed.iter().map(|run| run[i].nanos).collect();
            nanos.sort_by(f64::total_cmp);
            nanos[nanos.len() / 2]
        };
        let first = &timed[0];
        Ok(first.iter().enumerate().map(|(i, step)| StepTime { nanos: median(i), ..step.clone() }).collect())
    }
}

/// Waits until the device has written the token of a position; `op` is the step that writes it. The host polls: it has
/// nothing else to do, and a wait in the driver would cost it microseconds.
fn await_word(ring: &HostWords, stream: &Stream, pos: usize, op: &str) -> Result<u32, CudaError> {
    let started = Instant::now();
    let mut spins = 0u32;
    loop {
        let word = ring.take(pos % RING);
        if word != 0 {
            return Ok(word - 1);
        }
        spins += 1;
        if spins.is_multiple_of(1024) && started.elapsed() > Duration::from_millis(1) {
            let doing = || format!("decoding the token behind position {pos}");
            // A fault shows here, and a step that ended without a token cannot be waited for.
            let done = stream.is_done(doing)?;
            if done && started.elapsed() > Duration::from_secs(10) {
                return Err(CudaError::NoKernel {
                    op: op.to_owned(),
                    shape: format!("position {pos}"),
                    reason: "the steps ended and no token came".to_owned(),
                });
            }
            std::thread::yield_now();
        }
        std::hint::spin_loop();
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

impl Parts {
    fn builder(&self, ring: u64) -> Builder<'_> {
        let Parts { exec, model, buffers, precision } = self;
        let (next, class) = (&buffers.state, LengthClass::of(1));
        Builder { exec, model, buffers, precision: *precision, next, ring, class }
    }

    /// Positions that the cache has room for.
    fn context(&self) -> usize {
        self.model.layers.first().map_or(0, |l| l.cache.max_len)
    }

    /// The steps of a token at every length of the context.
    fn programs(&self, ring: &HostWords) -> Result<Vec<Program>, CudaError> {
        let of = |class| Builder { class, ..self.builder(ring.address()) }.token();
        LengthClass::up_to(self.context()).map(of).collect()
    }

    /// The steps of a token at every length and their graphs.
    fn graphs(&self, ring: &HostWords) -> Result<Graphs, CudaError> {
        let stream = self.exec.stream();
        Graphs::new(self.programs(ring)?, |program| {
            // The first launch of a function loads it, which a capture forbids. Position 0 is written again by any prompt.
            self.set_state(0, 0)?;
            let ran = program.run(stream, Overlap::NONE);
            let waited = stream.wait(|| "running the steps of a token for the first time".to_owned());
            // Whatever failed: what is left there would be taken for the token of a position.
            ring.take(0);
            ran.and(waited)?;
            program.capture(stream, self.exec.overlap())
        })
    }

    /// The graphs of a token behind which one is drawn. Every function in them has been launched: the head and what is before
    /// it when the model was loaded, the choice for the request's first token.
    fn sampled_graphs(&self, sampled: &Sampled) -> Result<Graphs, CudaError> {
        let of = |class| sampled.token(Builder { class, ..self.builder(0) });
        let programs = LengthClass::up_to(self.context()).map(of).collect::<Result<_, _>>()?;
        Graphs::new(programs, |program| program.capture(self.exec.stream(), self.exec.overlap()))
    }

    fn set_state(&self, id: u32, pos: usize) -> Result<(), CudaError> {
        let words = [id, pos as u32, pos as u32 + 1, 0];
        self.buffers.state.upload(self.exec.stream(), &bytes_of(&words))
    }
}

/// What a step computes, and what runs it.
pub(super) fn named(step: &Step) -> (Workload, VariantId) {
    (Workload { op: step.op().to_owned(), shape: step.key().clone() }, step.variant().clone())
}

/// Words as the device reads them.
pub(super) fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nothing that a launch uses is freed before the launch has ended. After a fault the wait fails at once.
        let _ = self.builder.exec.stream().wait(|| "unloading a model".to_owned());
    }
}
