//! Suites of kernels: named lists of workloads with their policies, frozen in `suites/kernels/`.
//!
//! Shapes are never typed in where a model has them: a suite names the model and the tensors, and the numbers come from
//! the model's config (W23).

mod derive;
mod fused;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use harness_spec::policy::UnknownPolicy;
use harness_spec::workload::NotAWorkload;
use harness_spec::{Policy, Workload};
use serde::{Deserialize, Serialize};

pub use derive::{DeriveError, Role, derive};

/// The suites that are part of the program: name, text.
const SUITES: [(&str, &str); 7] = [
    ("quick", include_str!("../../../../suites/kernels/quick.toml")),
    ("decode-smollm2-135m", include_str!("../../../../suites/kernels/decode-smollm2-135m.toml")),
    ("decode-qwen2.5-1.5b", include_str!("../../../../suites/kernels/decode-qwen2.5-1.5b.toml")),
    ("decode-llama-3.1-8b", include_str!("../../../../suites/kernels/decode-llama-3.1-8b.toml")),
    ("formats", include_str!("../../../../suites/kernels/formats.toml")),
    ("cache-length", include_str!("../../../../suites/kernels/cache-length.toml")),
    ("norm-fusion", include_str!("../../../../suites/kernels/norm-fusion.toml")),
];

/// A workload with what it is in its model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuiteWorkload {
    /// The op and its shape.
    pub workload: Workload,
    /// The tensors of the model that have this shape, such as `llama-3.1-8b ffn_down`; empty for a workload given as text.
    pub tensors: Vec<String>,
    /// Launches in one decoded token of the model, or for one batch of a prompt; 0 for a workload given as text, and for an
    /// op in whose place the engine launches a fused one.
    pub per_token: u64,
}

/// A named list of workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelSuite {
    /// Name.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Policies to measure under; empty leaves it to the device.
    pub policies: Vec<Policy>,
    /// What to run, without repetition.
    pub workloads: Vec<SuiteWorkload>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl KernelSuite {
    /// Leaves out the products of prompts, where `library` computes them in the engine: none of ours is launched there.
    pub fn leave_prompts_to(&mut self, library: &str) {
        let of_prompts = |w: &SuiteWorkload| w.workload.op.starts_with("gemm_");
        let ops: BTreeSet<String> =
            self.workloads.iter().filter(|w| of_prompts(w)).map(|w| w.workload.op.clone()).collect();
        self.workloads.retain(|w| !of_prompts(w));
        if !ops.is_empty() {
            let ops = ops.into_iter().collect::<Vec<_>>().join(", ");
            self.notes.push(format!("{ops} left out: {library} multiplies prompts here; --op tunes them all the same"));
        }
    }
}

/// A model in a suite: which of its tensors, in which types.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// A file of `suites/models`, a GGUF file, or a model of the store.
    pub model: String,
    /// Weight types of the body; a GGUF file has its own.
    #[serde(default)]
    pub quants: Vec<String>,
    /// Weight type of the head [default: as llama-quantize chooses].
    pub head: Option<String>,
    /// Which tensors; empty is all.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Q, K and V as one matrix, and gate and up as one, beside the matrices of the file.
    #[serde(default)]
    pub joined: bool,
    /// What the engine launches on a GPU beside the single products: the fused ops of a token, and those of a prompt.
    #[serde(default)]
    pub fused: bool,
    /// Tokens at once; empty is one.
    #[serde(default)]
    pub tokens: Vec<u64>,
    /// Cached positions that attention reads; empty is 512. The engine chooses `attn_token` by classes of lengths, so that
    /// each class is one workload.
    #[serde(default)]
    pub lengths: Vec<u64>,
    /// Positions that the cache can hold [default: 4096, or the longest of `lengths`].
    pub max_len: Option<u64>,
}

impl ModelEntry {
    /// All tensors of a model, one token at a time.
    pub fn of(model: &str) -> ModelEntry {
        ModelEntry {
            model: model.to_owned(),
            quants: Vec::new(),
            head: None,
            roles: Vec::new(),
            joined: false,
            fused: false,
            tokens: Vec::new(),
            lengths: Vec::new(),
            max_len: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    name: String,
    description: String,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    models: Vec<ModelEntry>,
    #[serde(default)]
    workloads: Vec<String>,
}

/// What the command line changes in every model of a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Weight types of the body.
    pub quants: Vec<String>,
    /// Weight type of the head.
    pub head: Option<String>,
    /// Cached positions that attention reads.
    pub lengths: Vec<u64>,
}

/// Why there is no suite.
#[derive(Debug, thiserror::Error)]
pub enum KernelSuiteError {
    /// No such name and no such file.
    #[error("unknown suite of kernels `{name}`\nhint: use {known}, or the path of a .toml file", known = names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not a suite.
    #[error("{path} is not a suite of kernels: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why, with the line.
        source: Box<toml::de::Error>,
    },
    /// A workload that is none.
    #[error("in suite {suite}: {source}")]
    Workload {
        /// Which suite.
        suite: String,
        /// The text.
        source: NotAWorkload,
    },
    /// A policy that does not exist.
    #[error("in suite {suite}: {source}")]
    Policy {
        /// Which suite.
        suite: String,
        /// The text.
        source: UnknownPolicy,
    },
    /// A model that gives no shapes.
    #[error("in suite {suite}: {source}")]
    Model {
        /// Which suite.
        suite: String,
        /// Why.
        source: DeriveError,
    },
    /// Nothing to run.
    #[error("suite {0} has no workload\nhint: give it [[models]] or workloads = [\"gemv_q4_0 N=4096 K=4096\"]")]
    Empty(String),
}

/// The names of the built-in suites, for messages.
fn names() -> String {
    SUITES.map(|(name, _)| name).join(", ")
}

/// Every built-in suite.
///
/// # Errors
/// None in a program that passed its tests; a test loads each.
pub fn built_in() -> Result<Vec<KernelSuite>, KernelSuiteError> {
    SUITES.iter().map(|(name, _)| load(name, &Overrides::default())).collect()
}

/// The suite of a name, or of a file.
///
/// # Errors
/// [`KernelSuiteError`], each with the fix.
pub fn load(word: &str, overrides: &Overrides) -> Result<KernelSuite, KernelSuiteError> {
    if let Some((_, text)) = SUITES.iter().find(|(name, _)| *name == word) {
        return parse(text, Path::new(word), overrides);
    }
    let path = Path::new(word);
    if !path.is_file() {
        return Err(KernelSuiteError::Unknown { name: word.to_owned() });
    }
    let text =
        std::fs::read_to_string(path).map_err(|source| KernelSuiteError::Read { path: path.to_owned(), source })?;
    parse(&text, path, overrides)
}

/// The suite of one model; `fused` adds what the engine launches on a GPU.
///
/// # Errors
/// A model that is not known, or a type that does not exist.
pub fn of_model(
    model: &str,
    joined: bool,
    fused: bool,
    overrides: &Overrides,
) -> Result<KernelSuite, KernelSuiteError> {
    let mut suite = KernelSuite {
        name: model.to_owned(),
        description: format!("Every product and small op of one decoded token of {model}."),
        policies: Vec::new(),
        workloads: Vec::new(),
        notes: Vec::new(),
    };
    add_model(&mut suite, ModelEntry { joined, fused, ..ModelEntry::of(model) }, overrides)?;
    Ok(suite)
}

/// The suite of workloads given one by one.
pub fn of_workloads(workloads: &[Workload]) -> KernelSuite {
    let mut suite = KernelSuite {
        name: "workloads".to_owned(),
        description: "Workloads of the command line.".to_owned(),
        policies: Vec::new(),
        workloads: Vec::new(),
        notes: Vec::new(),
    };
    for workload in workloads {
        add(&mut suite.workloads, SuiteWorkload { workload: workload.clone(), tensors: Vec::new(), per_token: 0 });
    }
    suite
}

fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<KernelSuite, KernelSuiteError> {
    let file: SuiteFile =
        toml::from_str(text).map_err(|e| KernelSuiteError::Parse { path: path.to_owned(), source: Box::new(e) })?;
    let name = file.name.clone();
    let policies = file.policies.iter().map(|p| p.parse()).collect::<Result<Vec<Policy>, _>>();
    let policies = policies.map_err(|source| KernelSuiteError::Policy { suite: name.clone(), source })?;
    let mut suite = KernelSuite {
        name: file.name,
        description: file.description,
        policies,
        workloads: Vec::new(),
        notes: Vec::new(),
    };
    for entry in file.models {
        add_model(&mut suite, entry, overrides)?;
    }
    for text in &file.workloads {
        let workload = text.parse().map_err(|source| KernelSuiteError::Workload { suite: name.clone(), source })?;
        add(&mut suite.workloads, SuiteWorkload { workload, tensors: Vec::new(), per_token: 0 });
    }
    if suite.workloads.is_empty() {
        return Err(KernelSuiteError::Empty(name));
    }
    Ok(suite)
}

fn add_model(suite: &mut KernelSuite, mut entry: ModelEntry, o: &Overrides) -> Result<(), KernelSuiteError> {
    if !o.quants.is_empty() {
        entry.quants.clone_from(&o.quants);
        // The file's head belongs to the file's body; another body gets the head that llama-quantize would give it.
        entry.head = None;
    }
    if o.head.is_some() {
        entry.head.clone_from(&o.head);
    }
    if !o.lengths.is_empty() {
        entry.lengths.clone_from(&o.lengths);
    }
    let derived = derive(&entry).map_err(|source| KernelSuiteError::Model { suite: suite.name.clone(), source })?;
    for workload in derived.workloads {
        add(&mut suite.workloads, workload);
    }
    suite.notes.extend(derived.notes);
    Ok(())
}

/// Adds a workload, or its tensors to the workload that is there already.
fn add(list: &mut Vec<SuiteWorkload>, new: SuiteWorkload) {
    match list.iter_mut().find(|w| w.workload == new.workload) {
        Some(known) => {
            known.per_token += new.per_token;
            known.tensors.extend(new.tensors);
            known.tensors.dedup();
        }
        None => list.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_prompts_are_left_to_a_library_with_a_note_and_nothing_else_is() {
        let mut suite = of_model("qwen2.5-1.5b", false, true, &Overrides::default()).unwrap();
        let all = suite.workloads.len();
        let of_prompts = suite.workloads.iter().filter(|w| w.workload.op == "gemm_q4_0").count();
        assert!(of_prompts > 0);
        suite.leave_prompts_to("cuBLASLt 13");
        assert_eq!(suite.workloads.len(), all - of_prompts);
        assert!(suite.notes.iter().any(|n| n.contains("gemm_q4_0 left out: cuBLASLt 13")), "{:?}", suite.notes);
        let before = suite.clone();
        suite.leave_prompts_to("cuBLASLt 13");
        assert_eq!(suite, before, "nothing is left to leave out");
    }

    #[test]
    fn every_built_in_suite_parses_and_every_file_is_built_in() {
        let names: Vec<String> = built_in().unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, SUITES.map(|(name, _)| name));
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../suites/kernels");
        let on_disk = std::fs::read_dir(dir).unwrap().count();
        assert_eq!(on_disk, SUITES.len());
    }

    #[test]
    fn a_broken_file_names_its_line_and_an_unknown_suite_the_known_ones() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, "name = \"x\"\nbroken").unwrap();
        let said = load(path.to_str().unwrap(), &Overrides::default()).unwrap_err().to_string();
        assert!(said.contains("x.toml") && said.contains("line 2"), "{said}");
        let said = load("nope", &Overrides::default()).unwrap_err().to_string();
        assert!(said.contains("decode-llama-3.1-8b"), "{said}");
        std::fs::write(&path, "name = \"x\"\ndescription = \"\"").unwrap();
        assert!(matches!(load(path.to_str().unwrap(), &Overrides::default()), Err(KernelSuiteError::Empty(_))));
    }

    #[test]
    fn a_type_of_the_command_line_replaces_that_of_the_suite() {
        let overrides = Overrides { quants: vec!["q8_0".into()], ..Overrides::default() };
        let suite = load("decode-qwen2.5-1.5b", &overrides).unwrap();
        let gemv: Vec<&str> =
            suite.workloads.iter().map(|w| w.workload.op.as_str()).filter(|o| o.contains("q")).collect();
        assert!(gemv.contains(&"gemv_q8_0") && !gemv.contains(&"gemv_q4_0"), "{gemv:?}");
    }
}
