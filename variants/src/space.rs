//! A space: the kernels that exist for one op, as `spaces/<op>.toml` lists them.

use std::fmt;

use harness_spec::DType;
use serde::{Deserialize, Serialize};

use crate::Isa;

/// In what form a kernel wants its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activations {
    /// 32-bit floats: nothing is rounded before the product.
    #[serde(rename = "f32")]
    F32,
    /// int8 with a float scale and a float sum for every 32 elements.
    #[serde(rename = "a8/32")]
    A8,
}

/// How weights lie in memory for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The file's own blocks, no copy.
    Gguf,
    /// Tiles of 4 rows, 4 columns of each row in every 16-byte vector.
    Rows4Cols4,
    /// Tiles of 8 rows, 4 columns of each row in every 32-byte vector.
    Rows8Cols4,
    /// Tiles of 16 rows, 4 columns of each row in every 64-byte vector.
    Rows16Cols4,
    /// Tiles of 16 rows whose nibbles are pairs of neighbouring columns, for table look-up.
    Rows16Pairs,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Gguf => "gguf",
            Layout::Rows4Cols4 => "rows4_cols4",
            Layout::Rows8Cols4 => "rows8_cols4",
            Layout::Rows16Cols4 => "rows16_cols4",
            Layout::Rows16Pairs => "rows16_pairs",
        })
    }
}

/// One kernel of an op: an algorithm on a backend, in one source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSpec {
    /// The name within the op, such as `unsigned@vnni`.
    pub name: String,
    /// What runs it: `cpu`.
    pub backend: String,
    /// The least instruction set level it runs on.
    pub isa: Isa,
    /// The weight types it takes; empty for an op without weights.
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
    /// What it does, in a sentence or two.
    pub doc: String,
    /// The source file, from the root of the `kernels` crate.
    pub source: String,
}

/// Every kernel of one op, the least preferred first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// The op, such as `gemv_q4_0`.
    pub op: String,
    /// What the op computes.
    pub doc: String,
    /// The kernels; where several could run, the last of them is the default.
    pub kernels: Vec<KernelSpec>,
}
