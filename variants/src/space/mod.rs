//! A space: the kernels that exist for one op, as `spaces/<op>.toml` lists them.

pub(crate) mod check;
mod error;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use harness_spec::{DType, VariantId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::expr::Programs;
use crate::{Activations, Isa, Layout, hex};

pub use error::SpaceError;

/// What runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The processor.
    Cpu,
    /// A CUDA device.
    Cuda,
}

impl Backend {
    /// Both backends.
    pub const ALL: [Backend; 2] = [Backend::Cpu, Backend::Cuda];

    /// The backend as space files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Cuda => "cuda",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a kernel is in its space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A design that others are held against.
    Base,
    /// A design that may win somewhere.
    #[default]
    Cand,
    /// A design known to lose, kept because it is instructive. Never a default.
    Slow,
    /// Slow and exact, for hunting errors. Never a default.
    Oracle,
    /// A call of a vendor's library: what is practically reached. It has no code of its own that is compiled, is timed beside the
    /// others and never wins, and no table may name it.
    Library,
}

impl Role {
    /// Whether a kernel of this role may run without a table that names it.
    pub const fn may_be_default(self) -> bool {
        matches!(self, Role::Base | Role::Cand)
    }
}

/// The class of instructions that a kernel's machine code must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// Fused multiply-adds.
    Fma,
    /// Integer dot products.
    Idp,
    /// Matrix instructions on 16-bit floats.
    Hmma,
    /// Matrix instructions on integers.
    Imma,
    /// Table look-up.
    Lut,
    /// None of these in particular.
    #[default]
    None,
}

impl Instruction {
    /// The class as space files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Instruction::Fma => "fma",
            Instruction::Idp => "idp",
            Instruction::Hmma => "hmma",
            Instruction::Imma => "imma",
            Instruction::Lut => "lut",
            Instruction::None => "none",
        }
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One to three CEL expressions, in the order x, y, z; those that are left out are 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dims {
    /// The x dimension.
    One(String),
    /// The dimensions from x on.
    Many(Vec<String>),
}

impl Dims {
    /// The expressions.
    pub fn expressions(&self) -> &[String] {
        match self {
            Dims::One(x) => std::slice::from_ref(x),
            Dims::Many(all) => all,
        }
    }
}

/// How a CUDA kernel is launched: CEL expressions of integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Blocks.
    pub grid: Dims,
    /// Threads of a block.
    pub block: Dims,
    /// Bytes of dynamic shared memory of a block.
    #[serde(default = "zero")]
    pub smem: String,
    /// Percent of the most shared memory that a multiprocessor can have that it is asked to have, for this kernel and for
    /// all of a token that it is a step of, from 0 to 100; 0 where the driver chooses. Takes a driver of CUDA 12.5.
    #[serde(default = "zero")]
    pub shared_percent: String,
}

fn zero() -> String {
    "0".to_owned()
}

/// One kernel of an op: an algorithm on a backend, in one source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSpec {
    /// The op, which is that of the space.
    #[serde(skip)]
    pub op: String,
    /// The name within the op, such as `planes_dp4a`, or `unsigned@vnni` where one algorithm exists for several
    /// instruction sets.
    pub name: String,
    /// What runs it.
    pub backend: Backend,
    /// The least instruction set level it runs on; `scalar` says nothing of a CUDA kernel.
    #[serde(default = "scalar")]
    pub isa: Isa,
    /// The least compute capability it runs on, ten times the major version plus the minor; CUDA alone.
    #[serde(default = "oldest_cc")]
    pub min_cc: u32,
    /// The weight types it takes; empty for an op without weights, or with weights of no file type.
    #[serde(default)]
    pub dtypes: Vec<DType>,
    /// The weight layout it reads; absent for an op without weights.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// The form of its activations; absent where the op has only one.
    #[serde(default)]
    pub activations: Option<Activations>,
    /// Whether this is the plain kernel that every other is compared with.
    #[serde(default)]
    pub baseline: bool,
    /// Why it is in the space.
    #[serde(default)]
    pub role: Role,
    /// The class of instructions that its machine code must show.
    #[serde(default)]
    pub instruction: Instruction,
    /// The least width in bytes of the widest load from global memory in its machine code, as 16 for a design whose point
    /// is that its lanes load 16 bytes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_bytes: Option<u32>,
    /// Whether two runs on the same input may differ, as float atomics do.
    #[serde(default)]
    pub nondet: bool,
    /// The designs of the inventory that it carries, such as `V19`.
    #[serde(default)]
    pub designs: Vec<String>,
    /// What it does, in a sentence or two.
    pub doc: String,
    /// The source file, from the root of the `kernels` crate, or from the folder of a user's space file. Of a library it is the
    /// file that calls it.
    pub source: String,
    /// The `extern "C"` function of a CUDA kernel.
    #[serde(default)]
    pub entry: Option<String>,
    /// CEL expressions that must all be true of a configuration at a shape on a device.
    #[serde(default)]
    pub constraints: Vec<String>,
    /// How often a launch does work that once would be enough for, such as the norm that every block of a product does for
    /// itself: a CEL expression that may also speak of `blocks`, those of the grid. Absent where there is no such work.
    #[serde(default)]
    pub redundant: Option<String>,
    /// Constants that the source is compiled with, besides the tunables.
    #[serde(default, deserialize_with = "read::defines")]
    pub defines: BTreeMap<String, String>,
    /// The values that each tunable may have.
    #[serde(default)]
    pub tunables: BTreeMap<String, Vec<i64>>,
    /// The value of each tunable where no table says otherwise.
    #[serde(default)]
    pub default: BTreeMap<String, i64>,
    /// How a CUDA kernel is launched.
    #[serde(default)]
    pub launch: Option<Launch>,
    /// The folder of a user's space file; absent for a built-in kernel.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) programs: Programs,
}

const fn scalar() -> Isa {
    Isa::Scalar
}

const fn oldest_cc() -> u32 {
    75
}

impl KernelSpec {
    /// Whether a vendor's library computes it.
    pub fn is_library(&self) -> bool {
        self.role == Role::Library
    }

    /// The name without what follows the `@`.
    pub fn algorithm(&self) -> &str {
        self.name.split_once('@').map_or(self.name.as_str(), |(algorithm, _)| algorithm)
    }

    /// What follows the `@` in the ids of its variants: what its name says, else the backend.
    pub fn suffix(&self) -> &str {
        self.name.split_once('@').map_or(self.backend.name(), |(_, suffix)| suffix)
    }

    /// The id of its variants without tunables: `gemv_q4_0/planes_dp4a@cuda`.
    pub fn id(&self) -> String {
        format!("{}/{}@{}", self.op, self.algorithm(), self.suffix())
    }

    /// The variant with these values of its tunables, whatever the constraints say.
    pub fn variant(&self, tunables: BTreeMap<String, i64>) -> VariantId {
        VariantId {
            op: self.op.clone(),
            kernel: self.algorithm().to_owned(),
            tunables,
            backend: self.suffix().to_owned(),
        }
    }

    /// The variant that runs where no table says otherwise.
    pub fn default_variant(&self) -> VariantId {
        self.variant(self.default.clone())
    }

    /// Whether this is the kernel of a variant: op, algorithm and suffix agree, and the variant gives each tunable a value
    /// of its list and no others.
    pub fn is_kernel_of(&self, id: &VariantId) -> bool {
        self.op == id.op
            && self.algorithm() == id.kernel
            && self.suffix() == id.backend
            && self.tunables.len() == id.tunables.len()
            && self.tunables.iter().all(|(name, values)| id.tunables.get(name).is_some_and(|v| values.contains(v)))
    }

    /// Hash of the kernel's entry in its space, in any order of its keys.
    pub fn fingerprint(&self) -> String {
        // What is asked of the machine code makes no other kernel of it.
        let entry = KernelSpec { load_bytes: None, ..self.clone() };
        let text = toml::to_string(&entry).expect("an entry was read from TOML and can be written as such");
        hex(&Sha256::new().chain_update(&self.op).chain_update([0]).chain_update(text).finalize())
    }

    /// Hash of all that makes the kernel what it is: its entry, its source, and the headers that it includes, by name.
    pub fn content_hash<'a>(&self, source: &str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let mut hash = Sha256::new();
        // Each part goes in with its length, so that no two lists of parts read alike.
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(&self.fingerprint());
        add(source);
        for (name, text) in headers {
            add(name);
            add(text);
        }
        hex(&hash.finalize())
    }

    /// Everything that is passed to the compiler as `-DNAME=value`: constants and the tunables of a variant.
    pub fn definitions(&self, id: &VariantId) -> BTreeMap<String, String> {
        let tunables = id.tunables.iter().map(|(name, value)| (name.clone(), value.to_string()));
        self.defines.clone().into_iter().chain(tunables).collect()
    }
}

/// Every kernel of one op, the least preferred of each backend first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// The op, such as `gemv_q4_0`.
    pub op: String,
    /// What the op computes.
    pub doc: String,
    /// The dimensions of its shapes. Of these, M may be left out of a shape and is 1 then.
    #[serde(default)]
    pub dims: Vec<String>,
    /// The kernels; where several could run, the last of them that may be a default is the default.
    #[serde(default)]
    pub kernels: Vec<KernelSpec>,
}
