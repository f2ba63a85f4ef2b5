//! Variants timed in the engine itself: the policy `in_engine`.
//!
//! ```text
//! prepare   as alone: compile                         the device's own target
//! check     as alone: the gate, at the very shape     the device's own target
//! sample    graph of a token with the variant -> one token, whose logits are compared -> tokens, timed
//! ```
//!
//! What is timed is the whole token at a depth, launched as in use, so that what a variant costs or spares the kernels
//! around it counts. The other workloads run by the table, or by what was decided of them before.

use std::collections::BTreeMap;
use std::time::Instant;

use engine::cuda::CudaModel;
use engine::generate::{DeviceChoice, LoadOptions, TableChoice};
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::model::Config;
use harness_spec::units::{Bytes, Nanos};
use harness_spec::{
    CacheState, Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, LaunchMode, Phase, Policy, Prepared,
    Stage, Target, VariantId, Workload,
};
use kernels::cuda::CudaError;
use sha2::{Digest, Sha256};

use super::open::Place;
use super::protocol::{EngineFacts, EngineRequest, EngineStep};

/// Positions of the context that the model is loaded with, unless it was trained for fewer or others were asked for.
const CONTEXT: usize = 8192;

/// Tokens of context at which a token is timed. A workload is timed at the first of them at which a token launches it: the
/// kernel of attention is another one for a longer context. The last is beyond the usual context.
const DEPTHS: [usize; 4] = [256, 2048, 8000, 17_000];

/// An interval is at least as long as this, so that neither the host's clock nor a single late answer decides it.
const INTERVAL_NS: f64 = 6e6;

/// Tokens of one interval.
const TOKENS: std::ops::RangeInclusive<usize> = 8..=64;

/// How far logits may lie from those of the variants before, in relative L2. Other orders of a sum move activations over
/// the edges of their eight bits, which layer upon layer makes a few percent at most; a wrong kernel makes all of it.
const MOST_DIFFERENT: f64 = 0.2;

/// The target of a device, with a model in the engine once one is loaded.
pub struct WithEngine {
    kernels: Box<dyn Target>,
    place: Place,
    engine: Option<InEngine>,
}

/// A model in the engine.
struct InEngine {
    model: CudaModel,
    /// Hash of what decides the time of a token beside the variants.
    identity: String,
    weights: Bytes,
    kv_per_position: Bytes,
    flops: u64,
    /// Tokens of the context, the same for every variant.
    ids: Vec<u32>,
    /// How many of them the cache holds still.
    filled: usize,
    /// Tokens of context at which each workload is timed.
    depths: BTreeMap<Workload, usize>,
    /// What each workload runs by unless it is the one that is timed.
    settled: BTreeMap<Workload, VariantId>,
    /// What the graph has now.
    present: BTreeMap<Workload, VariantId>,
    /// Logits behind the context by depth, before any other variant was tried.
    logits: BTreeMap<usize, Vec<f32>>,
    /// Tokens of one interval.
    tokens: usize,
}

impl WithEngine {
    /// A device without a model.
    pub fn new(kernels: Box<dyn Target>, place: Place) -> WithEngine {
        WithEngine { kernels, place, engine: None }
    }

    /// Loads a model.
    ///
    /// # Errors
    /// Why it cannot be, with the fix, as text: it crosses a pipe.
    pub fn load(&mut self, request: &EngineRequest) -> Result<EngineFacts, String> {
        let Place::Cuda(ordinal) = self.place else {
            let text = "kernels are timed in the engine on a CUDA device only; on a CPU they are timed alone";
            return Err(format!("{text}\nhint: leave --policy out, or give --device cuda:0"));
        };
        // What was loaded before makes room first.
        self.engine = None;
        let (engine, facts) = InEngine::load(ordinal, request)?;
        self.engine = Some(engine);
        Ok(facts)
    }

    /// The engine, for a cell that is timed in it.
    fn engine(&mut self, cell: &Cell) -> Option<&mut InEngine> {
        self.engine.as_mut().filter(|_| cell.policy.is_in_engine())
    }

    /// The cell as the device's own target builds and checks it: behind a kernel that writes late, as in a token.
    fn alone(&self, cell: &Cell) -> Cell {
        if self.engine.is_none() || !cell.policy.is_in_engine() {
            return cell.clone();
        }
        let mut alone =
            Cell { policy: Policy { cache: CacheState::Cold, launch: LaunchMode::GraphPdl }, ..cell.clone() };
        // Shapes name one room for every length, and the gate needs as much as the length asks for.
        let dims = &mut alone.workload.shape.0;
        if let (Some(&len), Some(room)) = (dims.get("LEN"), dims.get("MAX_LEN").copied()) {
            dims.insert("MAX_LEN".to_owned(), room.max(len));
        }
        alone
    }
}

impl InEngine {
    fn load(ordinal: u32, request: &EngineRequest) -> Result<(InEngine, EngineFacts), String> {
        let in_file = |e: &dyn std::fmt::Display| format!("{}: {e}", request.model.display());
        let gguf = Gguf::open(&request.model).map_err(|e| in_file(&e))?;
        let config = Config::from_gguf(&gguf).map_err(|e| in_file(&e))?;
        let info = ModelInfo::from_gguf(&gguf).map_err(|e| in_file(&e))?;
        let context = request.context.unwrap_or(CONTEXT).min(config.context_train);
        let deepest = context.saturating_sub(TOKENS.end() + 2);
        if deepest == 0 {
            return Err(in_file(&format!("a context of {context} has no room for the tokens that are timed")));
        }
        // The path lives as long as this process, whose model it is.
        let table = request
            .table
            .clone()
            .map_or(TableChoice::Default, |path| TableChoice::File(Box::leak(path.into_boxed_path())));
        let kv = Some(request.kv);
        let options = LoadOptions { device: DeviceChoice::Cuda(ordinal), table, kv, ..LoadOptions::default() };
        let mut model = CudaModel::load(&gguf, &config, ordinal, &options, context).map_err(|e| in_file(&e))?;
        let (steps, depths) = steps(&mut model, deepest).map_err(|e| e.to_string())?;
        let length = std::fs::metadata(&request.model).map(|m| m.len()).map_err(|e| in_file(&e))?;
        let settled: BTreeMap<Workload, VariantId> =
            steps.iter().map(|s| (s.workload.clone(), s.present.clone())).collect();
        let facts = EngineFacts { steps, prompts: model.prompt_products().to_owned(), context: context as u64 };
        let vocab = config.vocab.max(1);
        let mut engine = InEngine {
            identity: format!(
                "{} {length} {context} {} {INTERVAL_NS} {TOKENS:?}",
                request.model.display(),
                request.kv.name()
            ),
            weights: info.weight_bytes_per_token(),
            kv_per_position: info.kv_bytes_per_position(request.kv),
            flops: 2 * info.parameters(),
            ids: (0..deepest).map(|i| (i * 7919 % vocab) as u32).collect(),
            filled: 0,
            present: settled.clone(),
            settled,
            depths,
            logits: BTreeMap::new(),
            tokens: *TOKENS.start(),
            model,
        };
        let nanos = engine.token(DEPTHS[0].min(deepest)).map_err(|e| e.to_string())?;
        engine.tokens = ((INTERVAL_NS / nanos).ceil() as usize).clamp(*TOKENS.start(), *TOKENS.end());
        Ok((engine, facts))
    }

    /// The depth at which a workload is timed.
    fn depth(&self, workload: &Workload) -> usize {
        self.depths.get(workload).copied().unwrap_or(DEPTHS[0]).min(self.ids.len())
    }

    /// Builds the graph of a token in which `trying` runs its variant and everything else what was decided.
    fn apply(&mut self, trying: Option<&Cell>) -> Result<(), CudaError> {
        let mut wanted = self.settled.clone();
        if let Some(cell) = trying {
            wanted.insert(cell.workload.clone(), cell.variant.clone());
        }
        for (workload, variant) in wanted {
            if self.present.get(&workload) != Some(&variant) {
                self.model.try_variant(&workload, Some(&variant))?;
                self.present.insert(workload, variant);
            }
        }
        Ok(())
    }

    /// Brings the cache back to `depth` tokens of the context, the last of which is processed by the graph of a token.
    fn begin(&mut self, depth: usize) -> Result<(), CudaError> {
        if self.filled < depth {
            self.model.fill(&self.ids[self.filled..depth], self.filled)?;
        }
        self.filled = depth;
        self.model.feed(&self.ids[depth - 1..depth], depth - 1)
    }

    /// Time of a token behind `depth` others, ns; [`InEngine::begin`] has been called.
    fn decode(&mut self) -> Result<f64, CudaError> {
        // The step behind the first token is queued already when the clock starts, as it is in the middle of an answer.
        self.model.next_greedy(true)?;
        let start = Instant::now();
        for i in 0..self.tokens {
            self.model.next_greedy(i + 1 < self.tokens)?;
        }
        Ok(start.elapsed().as_nanos() as f64 / self.tokens as f64)
    }

    fn token(&mut self, depth: usize) -> Result<f64, CudaError> {
        self.begin(depth)?;
        self.decode()
    }

    /// Takes samples of a cell.
    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        if !self.settled.contains_key(&cell.workload) {
            let text = format!("a token of this model launches no {}", cell.workload);
            return Err(CellFailure::new(Stage::Constraint, text));
        }
        let depth = self.depth(&cell.workload);
        if !self.logits.contains_key(&depth) {
            self.apply(None)?;
            self.begin(depth)?;
            let logits = self.model.logits()?.to_vec();
            self.logits.insert(depth, logits);
        }
        self.apply(Some(cell))?;
        (0..count).map(|_| self.one(depth)).collect()
    }

    fn one(&mut self, depth: usize) -> Result<CellSample, CellFailure> {
        self.begin(depth)?;
        let before = &self.logits[&depth];
        let away = relative_l2(self.model.logits()?, before);
        // Not a number fails as well.
        if !away.is_some_and(|away| away <= MOST_DIFFERENT) {
            let text = match away {
                Some(away) => format!("logits lie {:.0} % from those before it was tried", away * 100.0),
                None => "logits are no numbers".to_owned(),
            };
            return Err(CellFailure::new(Stage::Cheat, format!("right by itself and wrong in the engine: {text}")));
        }
        let ns = self.decode()?;
        let launches = self.tokens as u32;
        Ok(CellSample { ns, launches, sm_clock_mhz: None, mem_clock_mhz: None, verified: true })
    }

    /// What of the engine decides the time of a token that a workload's variant is tried in.
    fn key(&self, kernel: &str, workload: &Workload) -> String {
        let mut hash = Sha256::new();
        let mut field = |text: &str| hash.update(format!("{}:{text}", text.len()));
        [kernel, &self.identity].into_iter().for_each(&mut field);
        for (other, variant) in self.settled.iter().filter(|(other, _)| *other != workload) {
            field(&format!("{other} {variant}"));
        }
        hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }
}

/// Workloads with the depth at which they are timed.
type Depths = BTreeMap<Workload, usize>;

/// What a token launches at each depth, with what may run it; the workloads that take most time first.
fn steps(model: &mut CudaModel, deepest: usize) -> Result<(Vec<EngineStep>, Depths), CudaError> {
    let mut all: Vec<EngineStep> = Vec::new();
    let mut depths = Depths::new();
    for (i, depth) in DEPTHS.into_iter().enumerate().filter(|(i, depth)| *i == 0 || *depth <= deepest) {
        let depth = depth.min(deepest);
        let mut here: Vec<EngineStep> = Vec::new();
        for step in model.profile(depth, 5)? {
            let workload = Workload { op: step.op, shape: step.key };
            match here.iter_mut().find(|s| s.workload == workload) {
                Some(known) => {
                    known.per_token += 1;
                    known.nanos += step.nanos;
                }
                None => here.push(EngineStep {
                    variants: model.variants(&workload)?,
                    present: step.variant,
                    workload,
                    per_token: 1,
                    nanos: step.nanos,
                }),
            }
        }
        here.retain(|s| i == 0 || !depths.contains_key(&s.workload));
        depths.extend(here.iter().map(|s| (s.workload.clone(), depth)));
        all.extend(here);
    }
    // Nothing is to be chosen of what has one variant.
    all.retain(|s| s.variants.len() > 1);
    all.sort_by(|a, b| b.nanos.total_cmp(&a.nanos));
    Ok((all, depths))
}

/// |a − b| ÷ |b|; `None` where that is no number.
fn relative_l2(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let square = |x: f64| x * x;
    let away: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    Some((away / size).sqrt()).filter(|r| r.is_finite())
}

impl Target for WithEngine {
    fn device(&self) -> DeviceKey {
        self.kernels.device()
    }

    fn now(&self) -> Nanos {
        self.kernels.now()
    }

    fn rest(&mut self, pause: Nanos) {
        self.kernels.rest(pause);
    }

    fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        let alone: Vec<Cell> = cells.iter().map(|c| self.alone(c)).collect();
        let built = self.kernels.prepare(&alone);
        let Some(engine) = &self.engine else { return built };
        let of_token = |(cell, built): (&Cell, Result<Prepared, CellFailure>)| {
            let built = built?;
            if !cell.policy.is_in_engine() {
                return Ok(built);
            }
            // A launch is a token here: it reads every weight once, and the keys and values before it.
            let depth = engine.depth(&cell.workload) as u64;
            Ok(Prepared {
                bytes: Bytes(engine.weights.0 + engine.kv_per_position.0 * depth),
                flops: engine.flops,
                key: engine.key(&built.key, &cell.workload),
                ..built
            })
        };
        cells.iter().zip(built).map(of_token).collect()
    }

    fn prefetch(&mut self, cells: &[Cell]) {
        let alone: Vec<Cell> = cells.iter().map(|c| self.alone(c)).collect();
        self.kernels.prefetch(&alone);
    }

    fn announce(&mut self, phase: Phase) {
        self.kernels.announce(phase);
    }

    fn settle(&mut self, cell: &Cell) {
        if let Some(engine) = self.engine(cell)
            && let Some(settled) = engine.settled.get_mut(&cell.workload)
        {
            settled.clone_from(&cell.variant);
        }
    }

    fn transfer_time(&self) -> Option<Nanos> {
        self.kernels.transfer_time()
    }

    fn check(&mut self, cell: &Cell, seed: u64) -> Result<CheckReport, CellFailure> {
        let alone = self.alone(cell);
        self.kernels.check(&alone, seed)
    }

    fn sample(&mut self, cell: &Cell, count: u32) -> Result<Vec<CellSample>, CellFailure> {
        match self.engine(cell) {
            Some(engine) => engine.sample(cell, count),
            None => self.kernels.sample(cell, count),
        }
    }

    fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        self.kernels.canary(working_set)
    }
}

#[cfg(test)]
mod tests {
    use engine::generate::KvType;
    use harness_measure::fake::{Fake, Script};

    use super::*;

    #[test]
    fn the_distance_of_logits_is_relative_and_none_where_there_is_no_number() {
        assert_eq!(relative_l2(&[3.0, 4.0], &[3.0, 4.0]), Some(0.0));
        assert_eq!(relative_l2(&[0.0, 0.0], &[3.0, 4.0]), Some(1.0));
        assert_eq!(relative_l2(&[f32::NAN, 4.0], &[3.0, 4.0]), None);
        assert_eq!(relative_l2(&[1.0], &[0.0]), None);
        assert_eq!(relative_l2(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn without_a_model_every_cell_goes_to_the_device_as_it_is_and_a_cpu_loads_none() {
        let script = Script::parse("seed = 1\n[[rules]]\npolicy = \"cold+in_engine\"\ntime_ns = 5000.0\n").unwrap();
        let mut target = WithEngine::new(Box::new(Fake::new(script)), Place::Cpu);
        let cell = Cell {
            variant: "gemv_q4_0/a@cuda".parse().unwrap(),
            workload: "gemv_q4_0 N=64 K=64".parse().unwrap(),
            policy: Policy::COLD_IN_ENGINE,
        };
        target.prepare(std::slice::from_ref(&cell)).remove(0).unwrap();
        let ns = target.sample(&cell, 1).unwrap()[0].ns;
        assert!((4000.0..6000.0).contains(&ns), "{ns}");
        let said = target
            .load(&EngineRequest { model: "m.gguf".into(), table: None, context: None, kv: KvType::F16 })
            .unwrap_err();
        assert!(said.contains("--device cuda:0"), "{said}");
    }
}
