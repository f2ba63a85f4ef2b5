//! What a tune in the engine asks for: a model's file, the workloads as the engine launches them, and the variants that can
//! run on its weights as they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use engine::generate::KvType;
use engine::models::{self, Store};
use harness_spec::record::Provenance;
use harness_spec::{CacheState, Policy, VariantId, Workload};

use super::kernels::Opened;
use super::timing::Bench;
use crate::args::TuneArgs;
use crate::exit::{Failure, usage};
use crate::kernel_plan::{Enumerated, SpaceError, Spaces};
use crate::kernel_suite::{KernelSuite, SuiteWorkload};
use crate::places;
use crate::registry_spaces::RegistrySpaces;
use crate::target::open::Place;
use crate::target::{EngineFacts, EngineRequest};

/// Why a variant of the space is no candidate here.
const NOT_IN_ENGINE: &str = "the engine's weights lie in another layout, or it is the plain kernel";

/// Whether the policies of the command line ask for the engine.
pub fn asked(policies: &[Policy]) -> bool {
    policies.iter().any(|p| p.is_in_engine())
}

/// What the flags have to be for that; a scripted device takes the workloads of the command line.
///
/// # Errors
/// Wrong usage, with the fix.
pub fn check(args: &TuneArgs, place: Place) -> Result<(), Failure> {
    let refuse = |text: &str| Err(usage(anyhow!("{text}")));
    if args.timing.policy.len() > 1 {
        return refuse(
            "times of tokens do not compare with times of launches\nhint: give --policy cold+in_engine alone, and tune \
             under the other policy in a run of its own",
        );
    }
    if args.timing.policy.iter().any(|p| p.cache != CacheState::Cold) {
        return refuse("a token reads every weight once, so that none is hot\nhint: write --policy cold+in_engine");
    }
    if args.device.simulate.is_some() {
        return Ok(());
    }
    let what = &args.what;
    let Some(model) = &what.model else {
        return refuse(
            "in the engine the workloads are those of a model\nhint: give --model FILE.gguf, and --op to choose among \
             its ops",
        );
    };
    if !what.quant.is_empty() || what.head.is_some() || !what.lengths.is_empty() || what.joined {
        return refuse(
            "--quant, --head, --lengths and --joined make up shapes, and the engine runs a file as it is\nhint: leave \
             them out; edgellm synth --shape NAME --quant TYPE -o FILE.gguf writes a file of any type",
        );
    }
    if !args.device.kernels.is_empty() {
        return refuse(
            "the engine runs the kernels of the program, and none of --kernels\nhint: leave --policy out to time them \
             alone",
        );
    }
    file(model)?;
    if !place.is_gpu() {
        return refuse(
            "kernels are timed in the engine on a CUDA device; on a CPU they are timed alone\nhint: give --device cuda:0, \
             or leave --policy out",
        );
    }
    Ok(())
}

/// The file of the model: a path, or a model of the store.
///
/// # Errors
/// Neither.
pub fn file(word: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(word);
    if path.is_file() {
        let path = path.canonicalize().with_context(|| format!("finding {word}"))?;
        return Ok(path);
    }
    let store = Store::of_this_user().map_err(|e| usage(anyhow::Error::new(e)))?;
    let entry = models::resolve(&store, word).map_err(|e| {
        usage(anyhow!(
            "{word} is no GGUF file, and no model of the store: {e}\nhint: give the path of a file; edgellm synth --shape \
             NAME --quant q4_0 -o FILE.gguf writes one of a built-in shape, and edgellm pull fetches a model"
        ))
    })?;
    Ok(entry.path)
}

/// A table's file that the engine of a worker reads, for as long as the run lasts.
#[derive(Debug)]
pub struct InUse(PathBuf);

impl Drop for InUse {
    fn drop(&mut self) {
        // What is left of it is in the cache's folder and hurts nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What is tuned in the engine, and on what.
pub struct InEngine {
    /// The workloads of a token.
    pub suite: KernelSuite,
    /// The device with the model.
    pub bench: Bench,
    /// The table that the engine reads.
    pub in_use: Option<InUse>,
}

/// Loads the model in the engine of the worker. `scripted` is the suite of a scripted device, which has no engine.
///
/// # Errors
/// A model that is not there or cannot be loaded.
pub fn open(mut opened: Opened, args: &TuneArgs, scripted: Option<KernelSuite>) -> Result<InEngine, Failure> {
    if let Some(suite) = scripted {
        let spaces = EngineSpaces { inner: opened.spaces, steps: BTreeMap::new() };
        let bench = Bench { target: opened.target, spaces: Box::new(spaces), provenance: opened.provenance };
        return Ok(InEngine { suite, bench, in_use: None });
    }
    let word = args.what.model.as_deref().expect("the flags were checked");
    let model = file(word)?;
    let in_use = match opened.spaces.table().file() {
        Some(_) => {
            let folder = places::cache()?.join("in-engine");
            std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let path = folder.join(format!("{}.toml", std::process::id()));
            opened.spaces.table().save_to(&path)?;
            Some(InUse(path))
        }
        None => None,
    };
    let request = EngineRequest {
        model,
        table: in_use.as_ref().map(|t| t.0.clone()),
        context: args.context.map(|n| n as usize),
        kv: args.kv.map_or(KvType::F16, KvType::from),
    };
    eprintln!("loading {word} in the engine");
    let facts = opened
        .target
        .load_engine(request)
        .map_err(|e| Failure::Unmeasured(anyhow::Error::new(e).context(word.to_owned())))?;
    eprintln!(
        "note: tokens of {word} are timed; prompts are multiplied by {}, and gemm_*, attn_prefill and what else a prompt \
         takes are timed alone, under cold+graph",
        facts.prompts
    );
    let suite = suite(word, &facts, &args.what.op)?;
    let spaces = EngineSpaces::new(opened.spaces, &facts);
    let bench = Bench { target: opened.target, spaces: Box::new(spaces), provenance: Provenance::Measured };
    Ok(InEngine { suite, bench, in_use })
}

/// The workloads of a token, those that take most time first.
fn suite(model: &str, facts: &EngineFacts, ops: &[String]) -> Result<KernelSuite, Failure> {
    let known: BTreeSet<&str> = facts.steps.iter().map(|s| s.workload.op.as_str()).collect();
    if let Some(unknown) = ops.iter().find(|op| !known.contains(op.as_str())) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(usage(anyhow!("a token of {model} has no op `{unknown}` to tune\nhint: it has {known}")));
    }
    let wanted = |op: &String| ops.is_empty() || ops.contains(op);
    let workloads = facts.steps.iter().filter(|s| wanted(&s.workload.op)).map(|step| SuiteWorkload {
        workload: step.workload.clone(),
        tensors: vec![format!("{model} token")],
        per_token: step.per_token,
    });
    Ok(KernelSuite {
        name: model.to_owned(),
        description: format!("What a decoded token of {model} launches in the engine."),
        policies: Vec::new(),
        workloads: workloads.collect(),
        notes: Vec::new(),
    })
}

/// The spaces of a device, cut to what the engine can run on its weights as they lie.
struct EngineSpaces {
    inner: RegistrySpaces,
    /// What runs each workload now, and what may. Empty on a scripted device, where everything may.
    steps: BTreeMap<Workload, (VariantId, BTreeSet<VariantId>)>,
}

impl EngineSpaces {
    fn new(inner: RegistrySpaces, facts: &EngineFacts) -> EngineSpaces {
        let of = facts.steps.iter();
        let steps = of.map(|s| (s.workload.clone(), (s.present.clone(), s.variants.iter().cloned().collect())));
        EngineSpaces { inner, steps: steps.collect() }
    }
}

impl Spaces for EngineSpaces {
    fn enumerate(&self, workload: &Workload) -> Result<Enumerated, SpaceError> {
        let mut found = self.inner.enumerate(workload)?;
        // A read of the same bytes bounds a launch; that of a token is the ceiling of the device. The engine runs no library
        // for one token.
        found.floor.clear();
        found.library.clear();
        if let Some((_, variants)) = self.steps.get(workload) {
            cut(&mut found, variants);
        }
        Ok(found)
    }

    fn incumbent(&self, workload: &Workload) -> Option<VariantId> {
        let row = self.inner.incumbent(workload);
        let Some((present, variants)) = self.steps.get(workload) else { return row };
        // A bucket may have chosen what runs where there is no row; the default defends itself.
        let default = || self.inner.enumerate(workload).ok().and_then(|found| found.default);
        row.filter(|v| variants.contains(v)).or_else(|| Some(present.clone()).filter(|p| default().as_ref() != Some(p)))
    }
}

/// Leaves what is among `variants`; the rest is pruned with the reason, so that the account of the space adds up.
fn cut(found: &mut Enumerated, variants: &BTreeSet<VariantId>) {
    let (kept, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut found.admitted).into_iter().partition(|v| variants.contains(v));
    found.admitted = kept;
    found.pruned.extend(others.into_iter().map(|v| (v, NOT_IN_ENGINE.to_owned())));
    found.defaults.retain(|v| variants.contains(v));
    found.default = found.default.take().filter(|v| variants.contains(v)).or_else(|| found.defaults.last().cloned());
    found.baseline = found.baseline.take().filter(|v| variants.contains(v));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::EngineStep;

    fn id(text: &str) -> VariantId {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_engine_cannot_run_is_pruned_with_the_reason_and_nothing_is_lost() {
        let names = ["op/plain@cuda", "op/a[R=1]@cuda", "op/a[R=2]@cuda", "op/other_layout@cuda"];
        let mut found = Enumerated {
            admitted: names.map(id).to_vec(),
            defaults: vec![id(names[0]), id(names[1]), id(names[3])],
            default: Some(id(names[3])),
            baseline: Some(id(names[0])),
            ..Enumerated::default()
        };
        cut(&mut found, &[id(names[1]), id(names[2])].into());
        assert_eq!(found.admitted, [id(names[1]), id(names[2])]);
        assert_eq!(found.pruned.len(), 2);
        assert!(found.pruned.iter().all(|(_, why)| why.contains("layout")));
        // The default was of another layout: that of a kernel which can run takes its place.
        assert_eq!((found.default, found.baseline), (Some(id(names[1])), None));
    }

    #[test]
    fn the_workloads_are_those_of_a_token_and_an_op_that_it_lacks_is_named() {
        let step = |workload: &str| EngineStep {
            workload: workload.parse().unwrap(),
            present: id("op/a@cuda"),
            variants: Vec::new(),
            per_token: 30,
            nanos: 1.0,
        };
        let facts = EngineFacts {
            steps: vec![step("gate_up_q4_0 F=64 K=64"), step("gemv_add_q4_0 K=64 N=64")],
            prompts: "gemm".into(),
            context: 64,
        };
        assert_eq!(suite("m", &facts, &[]).unwrap().workloads.len(), 2);
        let one = suite("m", &facts, &["gemv_add_q4_0".to_owned()]).unwrap();
        assert_eq!((one.workloads.len(), one.workloads[0].per_token), (1, 30));
        let said = suite("m", &facts, &["gemm_q4_0".to_owned()]).unwrap_err().to_string();
        assert!(said.contains("gemm_q4_0") && said.contains("gate_up_q4_0"), "{said}");
    }
}
