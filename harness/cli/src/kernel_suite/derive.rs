//! Workloads of a model: from its shape file, or from the tensors of its GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::gguf::{Gguf, GgufError};
use engine::info::ModelInfo;
use engine::model::Architecture;
use engine::models::{self, Store};
use engine::synth::{Shape as ModelShape, shapes};
use harness_spec::{DType, Workload};
use kernels::cpu::Pairing;
use serde::{Deserialize, Serialize};
use variants::gemv_op;

use super::{ModelEntry, SuiteWorkload, fused};

/// A group of tensors or ops of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Projections to queries, keys and values.
    Qkv,
    /// The projection out of attention.
    O,
    /// Gate and up projections.
    GateUp,
    /// The down projection.
    Down,
    /// The head.
    Head,
    /// Decode attention.
    Attention,
    /// Norms.
    Norm,
    /// Quantisation of activations.
    Quantize,
}

/// Cached positions that attention reads unless the suite says otherwise.
pub(super) const LENGTH: u64 = 512;
/// Positions that the cache can hold unless the suite says otherwise.
pub(super) const MAX_LEN: u64 = 4096;

/// Why a model gives no shapes.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// Neither a shape, nor a file, nor a model of the store.
    #[error(
        "unknown model `{name}`\nhint: shapes are built in for {known}; a GGUF file or a model of `bench list models` works too"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Built-in shapes.
        known: String,
    },
    /// A file that is no model.
    #[error("cannot read {path}: {source}")]
    Gguf {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<GgufError>,
    },
    /// A model that the engine does not know.
    #[error("cannot read {path}: {why}")]
    Model {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A weight type that does not exist.
    #[error("unknown weight type `{0}`\nhint: use {known}, g128 or ternary", known = dtype_names())]
    Quant(String),
}

fn dtype_names() -> String {
    DType::ALL.map(|t| t.to_string().to_lowercase()).join(", ")
}

/// What a model comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// Its workloads, in the order of a forward pass, without repetition.
    pub workloads: Vec<SuiteWorkload>,
    /// What was left out.
    pub notes: Vec<String>,
}

/// The form of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quant {
    Type(DType),
    G128,
}

impl Quant {
    fn parse(text: &str) -> Result<Quant, DeriveError> {
        match text.to_lowercase().as_str() {
            "g128" => Ok(Quant::G128),
            "ternary" => Ok(Quant::Type(DType::TQ2_0)),
            name => DType::ALL
                .into_iter()
                .find(|t| t.to_string().to_lowercase() == name)
                .map(Quant::Type)
                .ok_or_else(|| DeriveError::Quant(text.to_owned())),
        }
    }

    fn op(self) -> &'static str {
        match self {
            Quant::Type(t) => gemv_op(t),
            Quant::G128 => "gemv_g128",
        }
    }

    fn group(self) -> u64 {
        match self {
            Quant::Type(t) => t.block_len() as u64,
            Quant::G128 => 128,
        }
    }

    /// The head that llama-quantize gives a body of this type.
    fn head(self, hidden: u64) -> Quant {
        match self {
            Quant::Type(t @ (DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0)) => Quant::Type(t),
            _ if hidden.is_multiple_of(256) => Quant::Type(DType::Q6K),
            _ => Quant::Type(DType::Q8_0),
        }
    }
}

/// The numbers of a model that its small ops depend on.
pub(super) struct Dims {
    pub hidden: u64,
    pub inter: u64,
    pub layers: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    pub vocab: u64,
    /// Whether neighbours turn together, and not i with i + dims / 2.
    pub adjacent: bool,
    /// Whether query and key heads have norms of their own.
    pub head_norms: bool,
}

/// A weight matrix, as often as the model has it.
pub(super) struct Matrix {
    role: Role,
    pub name: String,
    n: u64,
    k: u64,
    pub count: u64,
    /// The type where a file gives it.
    pub quant: Option<Quant>,
}

/// Every workload of `entry`'s model.
///
/// # Errors
/// [`DeriveError`], each with the fix.
pub fn derive(entry: &ModelEntry) -> Result<Derived, DeriveError> {
    let source = find(&entry.model)?;
    let (dims, matrices) = match &source {
        Source::Shape(shape) => {
            let dims = Dims::of_shape(shape);
            let matrices = dims.matrices();
            (dims, matrices)
        }
        Source::File(path) => read(path)?,
    };
    let mut out = Derived::default();
    let quants = match entry.quants.as_slice() {
        [] => vec![Quant::Type(DType::Q4_0)],
        names => names.iter().map(|q| Quant::parse(q)).collect::<Result<_, _>>()?,
    };
    let head = entry.head.as_deref().map(Quant::parse).transpose()?;
    let tokens = if entry.tokens.is_empty() { vec![1] } else { entry.tokens.clone() };
    let mut all: Vec<&Matrix> = matrices.iter().collect();
    let joined = if entry.joined { join(&matrices) } else { Vec::new() };
    all.extend(&joined);
    all.sort_by_key(|m| m.role);
    let body = if entry.quants.is_empty() { Vec::new() } else { quants.clone() };
    let singles = entry.fused.then(|| fused::Singles::of(&dims, &matrices, &body));
    for matrix in all.into_iter().filter(|m| wanted(entry, m.role)) {
        let kinds: Vec<Quant> = match (matrix.quant.filter(|_| entry.quants.is_empty()), matrix.role) {
            (_, Role::Head) if head.is_some() => head.into_iter().collect(),
            (Some(own), _) => vec![own],
            (None, Role::Head) => vec![quants[0].head(dims.hidden)],
            (None, _) => quants.clone(),
        };
        for kind in kinds {
            if !matrix.k.is_multiple_of(kind.group()) {
                let (model, name, op) = (&entry.model, &matrix.name, kind.op());
                out.notes.push(format!("{model} {name} is left out of {op}: K={} splits a block of weights", matrix.k));
                continue;
            }
            for &m in &tokens {
                let mut shape = vec![("N", matrix.n), ("K", matrix.k)];
                if m != 1 {
                    shape.push(("M", m));
                }
                let launches = singles.as_ref().map_or(matrix.count, |s| s.products(matrix.role, kind, matrix.count));
                push(&mut out, entry, Workload::of(kind.op(), shape), &matrix.name, launches);
            }
            // On a GPU the head ends in the greatest logit's index; on a CPU it is a product like any other.
            if let (Role::Head, Some(op)) = (matrix.role, logits_op(kind)) {
                let launches = u64::from(singles.is_none());
                push(&mut out, entry, Workload::of(op, [("N", matrix.n), ("K", matrix.k)]), &matrix.name, launches);
            }
        }
    }
    small_ops(&mut out, entry, &dims, singles.as_ref());
    if entry.fused {
        let own = matrices.iter().find(|m| m.role == Role::Head).and_then(|m| m.quant).filter(|_| body.is_empty());
        let head = head.or(own).or_else(|| quants.first().map(|q| q.head(dims.hidden)));
        fused::add(&mut out, entry, &dims, &matrices, &body, head);
    }
    Ok(out)
}

fn logits_op(quant: Quant) -> Option<&'static str> {
    match quant {
        Quant::Type(DType::Q8_0) => Some("logits_q8_0"),
        Quant::Type(DType::Q6K) => Some("logits_q6_k"),
        _ => None,
    }
}

pub(super) fn wanted(entry: &ModelEntry, role: Role) -> bool {
    entry.roles.is_empty() || entry.roles.contains(&role)
}

pub(super) fn push(out: &mut Derived, entry: &ModelEntry, workload: Workload, name: &str, per_token: u64) {
    let tensors = vec![format!("{} {name}", entry.model)];
    super::add(&mut out.workloads, SuiteWorkload { workload, tensors, per_token });
}

fn small_ops(out: &mut Derived, entry: &ModelEntry, d: &Dims, singles: Option<&fused::Singles>) {
    if wanted(entry, Role::Attention) {
        let lengths = if entry.lengths.is_empty() { vec![LENGTH] } else { entry.lengths.clone() };
        let longest = lengths.iter().copied().max().unwrap_or(LENGTH);
        let max_len = entry.max_len.unwrap_or(MAX_LEN).max(longest);
        for len in lengths {
            let dims = [("HEADS", d.heads), ("KV_HEADS", d.kv_heads), ("DIM", d.head_dim), ("LEN", len)];
            let shape = dims.into_iter().chain([("MAX_LEN", max_len)]);
            let launches = if singles.is_some() { 0 } else { d.layers };
            push(out, entry, Workload::of("attn_decode", shape), "attention", launches);
        }
    }
    if wanted(entry, Role::Norm) {
        let launches = singles.map_or(2 * d.layers + 1, |s| s.norms());
        push(out, entry, Workload::of("rmsnorm", [("K", d.hidden), ("M", 1)]), "norms", launches);
    }
    if wanted(entry, Role::Quantize) {
        let counts = singles.map_or([2 * d.layers + 1, d.layers, d.layers], |s| s.inputs());
        let inputs = [
            (d.hidden, "input of qkv and gate_up"),
            (d.heads * d.head_dim, "input of attn_output"),
            (d.inter, "input of ffn_down"),
        ];
        for ((k, name), count) in inputs.into_iter().zip(counts) {
            push(out, entry, Workload::of("quantize_a8", [("K", k)]), name, count);
        }
    }
}

impl Dims {
    fn of_shape(s: &ModelShape) -> Dims {
        Dims {
            hidden: s.hidden as u64,
            inter: s.inter as u64,
            layers: s.layers as u64,
            heads: s.n_heads as u64,
            kv_heads: s.n_kv_heads as u64,
            head_dim: s.head_dim as u64,
            vocab: s.vocab as u64,
            adjacent: s.architecture == Architecture::Llama.name(),
            head_norms: s.architecture == Architecture::Qwen3.name(),
        }
    }

    /// The matrices that the config implies, under the names that a file gives them.
    fn matrices(&self) -> Vec<Matrix> {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let of = |role, name: &str, n, k| Matrix { role, name: name.to_owned(), n, k, count: self.layers, quant: None };
        vec![
            of(Role::Qkv, "attn_q", q, self.hidden),
            of(Role::Qkv, "attn_k", kv, self.hidden),
            of(Role::Qkv, "attn_v", kv, self.hidden),
            of(Role::O, "attn_output", self.hidden, q),
            of(Role::GateUp, "ffn_gate", self.inter, self.hidden),
            of(Role::GateUp, "ffn_up", self.inter, self.hidden),
            of(Role::Down, "ffn_down", self.hidden, self.inter),
            Matrix { count: 1, ..of(Role::Head, "output", self.vocab, self.hidden) },
        ]
    }
}

/// The matrices that share an input, as one: what a fused projection reads. Only where all have one type.
fn join(matrices: &[Matrix]) -> Vec<Matrix> {
    let sum = |role: Role, name: &str, parts: &[&str]| -> Option<Matrix> {
        let found: Vec<&Matrix> = parts.iter().filter_map(|p| matrices.iter().find(|m| m.name == *p)).collect();
        let first = found.first()?;
        let same = found.iter().all(|m| m.quant == first.quant && m.k == first.k && m.count == first.count);
        (same && found.len() == parts.len()).then(|| Matrix {
            role,
            name: name.to_owned(),
            n: found.iter().map(|m| m.n).sum(),
            k: first.k,
            count: first.count,
            quant: first.quant,
        })
    };
    let qkv = sum(Role::Qkv, "attn_qkv", &["attn_q", "attn_k", "attn_v"]);
    qkv.into_iter().chain(sum(Role::GateUp, "ffn_gate_up", &["ffn_gate", "ffn_up"])).collect()
}

enum Source {
    Shape(Box<ModelShape>),
    File(PathBuf),
}

/// A file wins over a shape of the same name, since it has its own types; a model of the store over a built-in shape too.
fn find(word: &str) -> Result<Source, DeriveError> {
    if Path::new(word).is_file() && !word.ends_with(".toml") {
        return Ok(Source::File(PathBuf::from(word)));
    }
    // `qwen2.5:1.5b` is how a store writes what the shapes call `qwen2.5-1.5b`.
    for name in [word.to_owned(), word.replace(':', "-")] {
        if let Ok(shape) = ModelShape::find(&name) {
            if word.contains(':')
                && let Some(path) = stored(word)
            {
                return Ok(Source::File(path));
            }
            return Ok(Source::Shape(Box::new(shape)));
        }
    }
    stored(word).map(Source::File).ok_or_else(|| DeriveError::Unknown {
        name: word.to_owned(),
        known: shapes().into_iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
    })
}

fn stored(word: &str) -> Option<PathBuf> {
    let store = Store::of_this_user().ok()?;
    models::resolve(&store, word).ok().map(|entry| entry.path)
}

/// The dimensions and matrices of a file, each with its own type.
fn read(path: &Path) -> Result<(Dims, Vec<Matrix>), DeriveError> {
    let gguf = Gguf::open(path).map_err(|e| DeriveError::Gguf { path: path.to_owned(), source: Box::new(e) })?;
    let info =
        ModelInfo::from_gguf(&gguf).map_err(|e| DeriveError::Model { path: path.to_owned(), why: e.to_string() })?;
    let c = &info.config;
    let dims = Dims {
        hidden: c.hidden as u64,
        inter: c.inter as u64,
        layers: c.layers as u64,
        heads: c.n_heads as u64,
        kv_heads: c.n_kv_heads as u64,
        head_dim: c.head_dim as u64,
        vocab: c.vocab as u64,
        adjacent: c.rope.pairing == Pairing::Adjacent,
        head_norms: c.architecture == Architecture::Qwen3,
    };
    let tied = gguf.tensor("output.weight").is_none();
    let mut found: BTreeMap<(Role, String, u64, u64, &'static str), Matrix> = BTreeMap::new();
    for (name, tensor) in gguf.tensors() {
        let Some((role, short)) = role_of(name, tied) else { continue };
        let (n, k) = (tensor.n() as u64, tensor.k() as u64);
        let quant = Quant::Type(tensor.dtype);
        // Some schemes give layers different types: each is a matrix of its own.
        found
            .entry((role, short.to_owned(), n, k, quant.op()))
            .or_insert_with(|| Matrix { role, name: short.to_owned(), n, k, count: 0, quant: Some(quant) })
            .count += 1;
    }
    Ok((dims, found.into_values().collect()))
}

/// The role of a tensor of a file; `None` for norms, biases and an embedding that is no head.
fn role_of(name: &str, tied: bool) -> Option<(Role, &str)> {
    let name = name.strip_suffix(".weight")?;
    let short = name.rsplit('.').next().unwrap_or(name);
    let role = match short {
        "attn_q" | "attn_k" | "attn_v" | "attn_qkv" => Role::Qkv,
        "attn_output" => Role::O,
        "ffn_gate" | "ffn_up" => Role::GateUp,
        "ffn_down" => Role::Down,
        "output" => Role::Head,
        "token_embd" if tied => Role::Head,
        _ => return None,
    };
    Some((role, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes_of(entry: &ModelEntry) -> Vec<(String, String)> {
        let list = derive(entry).unwrap().workloads;
        list.into_iter().map(|w| (w.workload.to_string(), w.tensors.join(" + "))).collect()
    }

    #[test]
    fn shapes_come_from_the_config_under_the_names_of_their_tensors() {
        let entry = ModelEntry { roles: vec![Role::Qkv, Role::Down, Role::Head], ..ModelEntry::of("llama-3.1-8b") };
        let want = [
            ("gemv_q4_0 K=4096 N=4096", "llama-3.1-8b attn_q"),
            ("gemv_q4_0 K=4096 N=1024", "llama-3.1-8b attn_k + llama-3.1-8b attn_v"),
            ("gemv_q4_0 K=14336 N=4096", "llama-3.1-8b ffn_down"),
            ("gemv_q6_k K=4096 N=128256", "llama-3.1-8b output"),
            ("logits_q6_k K=4096 N=128256", "llama-3.1-8b output"),
        ];
        assert_eq!(shapes_of(&entry), want.map(|(w, t)| (w.to_owned(), t.to_owned())));
    }

    #[test]
    fn joined_projections_are_as_wide_as_their_parts_together() {
        let entry = ModelEntry { roles: vec![Role::Qkv], joined: true, ..ModelEntry::of("qwen2.5:1.5b") };
        let joined = shapes_of(&entry).into_iter().find(|(_, t)| t.ends_with("attn_qkv")).unwrap();
        assert_eq!(joined.0, "gemv_q4_0 K=1536 N=2048");
    }

    #[test]
    fn launches_a_token_are_counted_over_all_layers() {
        let list = derive(&ModelEntry { roles: vec![Role::GateUp], ..ModelEntry::of("qwen2.5-1.5b") }).unwrap();
        assert_eq!(list.workloads.len(), 1);
        assert_eq!(list.workloads[0].per_token, 56);
    }

    #[test]
    fn rows_that_split_a_block_are_left_out_with_a_note() {
        let entry = ModelEntry { quants: vec!["q4_k".into()], ..ModelEntry::of("smollm2-135m") };
        let derived = derive(&entry).unwrap();
        assert!(derived.notes.iter().any(|n| n.contains("attn_q") && n.contains("K=576")), "{:?}", derived.notes);
        assert!(derived.workloads.iter().any(|w| w.workload.op == "gemv_q4_k"), "down has K=1536");
    }

    #[test]
    fn unknown_models_and_types_name_the_known_ones() {
        assert!(derive(&ModelEntry::of("gpt-5")).unwrap_err().to_string().contains("qwen2.5-1.5b"));
        let entry = ModelEntry { quants: vec!["q3_k".into()], ..ModelEntry::of("qwen2.5-1.5b") };
        assert!(derive(&entry).unwrap_err().to_string().contains("q4_0"));
    }
}
