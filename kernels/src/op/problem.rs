//! The data of one run of an op: what goes in, what comes out, and in which order a device kernel takes it.

use std::ops::Range;
use std::sync::Arc;

use harness_spec::{DType, Shape, Workload};

use super::recipe::Recipe;

/// How much of the gate to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// Before a variant is timed: tens of small inputs.
    Quick,
    /// For `bench verify`: every position, every code, every awkward shape.
    Full,
}

/// One input of the gate. The data follow from the case and the shape alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What a failure is reported under, such as `AD-01 nibble 7`.
    pub name: String,
    /// Where the random parts of the data start.
    pub seed: u64,
    /// The weight type, for ops that have weights.
    pub dtype: Option<DType>,
    /// How the data are made.
    pub recipe: Recipe,
}

/// One input of an op, on the host.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// `[n, k]` weights as blocks of a GGUF file. Shared, as problems that differ in their activations have the same.
    Weights {
        /// The type of the blocks.
        dtype: DType,
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// The blocks, row-major.
        bytes: Arc<[u8]>,
        /// Row `i` holds the same bytes as row `i % period`: large matrices repeat a prime number of rows, so that the
        /// reference of all of them costs that of a few. At least 1, at most `n`.
        period: usize,
    },
    /// 32-bit floats.
    F32(Vec<f32>),
    /// The bits of 16-bit floats.
    F16(Vec<u16>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Plain bytes.
    Bytes(Arc<[u8]>),
}

/// The type of the elements of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    /// 32-bit floats.
    F32,
    /// The bits of 16-bit floats.
    F16,
    /// 32-bit unsigned integers.
    U32,
    /// Bytes, of a structure that the op describes.
    U8,
}

impl Elem {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Elem::F32 | Elem::U32 => 4,
            Elem::F16 => 2,
            Elem::U8 => 1,
        }
    }
}

/// One output of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name in the contract, such as `y`.
    pub name: &'static str,
    /// The type of its elements.
    pub elem: Elem,
    /// How many.
    pub len: usize,
}

impl OutputSpec {
    /// The size in bytes.
    pub const fn bytes(&self) -> usize {
        self.elem.bytes() * self.len
    }
}

/// The inputs of one run and the shape of its outputs.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The op and its dimensions.
    pub workload: Workload,
    /// The name of the case.
    pub case: String,
    /// The inputs in the order of the op's contract (see each op).
    pub inputs: Vec<Tensor>,
    /// The outputs in the order of the op's contract.
    pub outputs: Vec<OutputSpec>,
    /// Scalars of the contract that are no dimensions, such as the epsilon of a norm.
    pub scalars: Vec<f32>,
    /// Whether every sum of this problem is exact in 32-bit floats in any order, so that outputs must match bit for bit
    /// (class T0).
    pub exact: bool,
}

impl Problem {
    /// A dimension; 1 where the workload leaves it out, as it may with M.
    pub fn dim(&self, name: &str) -> usize {
        dim(&self.workload.shape, name)
    }

    /// Bytes of its inputs, for caches that keep problems.
    pub fn bytes(&self) -> usize {
        self.inputs
            .iter()
            .map(|t| match t {
                Tensor::Weights { bytes, .. } | Tensor::Bytes(bytes) => bytes.len(),
                Tensor::F32(v) => v.len() * 4,
                Tensor::F16(v) => v.len() * 2,
                Tensor::I32(v) => v.len() * 4,
            })
            .sum()
    }

    /// The weights: type, rows, columns and blocks.
    pub fn weights(&self) -> Option<(DType, usize, usize, &Arc<[u8]>)> {
        self.inputs.iter().find_map(|t| match t {
            Tensor::Weights { dtype, n, k, bytes, .. } => Some((*dtype, *n, *k, bytes)),
            _ => None,
        })
    }
}

/// A dimension of a shape; 1 where it is left out.
pub fn dim(shape: &Shape, name: &str) -> usize {
    shape.get(name).map_or(1, |v| usize::try_from(v).expect("a dimension fits in memory, so in usize"))
}

/// One argument of a device kernel, in the order of its parameters.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A buffer that the kernel reads: constants of the model, or what the kernel ahead of it has just written.
    In {
        /// Its contents, in the kernel's layout.
        bytes: Arc<[u8]>,
        /// Whether these are constants of the model (weights, norms, biases, tables of angles): they may be read before the
        /// wait for earlier kernels, and cold timing rotates copies of them. Anything else is written late by the gate.
        weights: bool,
    },
    /// A buffer that the kernel reads and that earlier kernels wrote bit by bit, such as a cache of keys and values. Cold
    /// timing rotates copies of it, as it does of weights. What earlier tokens wrote stands, and may be read before the wait
    /// for earlier kernels; what this token's kernels write may not, and the gate writes it late.
    State {
        /// Its contents, in the kernel's layout.
        bytes: Arc<[u8]>,
        /// Ranges of bytes that this token's kernels write.
        late: Vec<Range<usize>>,
    },
    /// A few words that the last kernel of the token before wrote, and that none writes before this token's last: its
    /// position, the number of its keys. They may be read before the wait.
    Settled {
        /// Their bytes.
        bytes: Arc<[u8]>,
    },
    /// The output of this index.
    Out(usize),
    /// Memory that the kernel works in.
    Scratch {
        /// How much.
        bytes: usize,
        /// Whether it is zeroed once, before the first launch; the kernel leaves it zeroed.
        zeroed: bool,
    },
    /// A 32-bit integer by value.
    I32(i32),
    /// A 64-bit integer by value.
    I64(i64),
    /// A 32-bit float by value.
    F32(f32),
}

impl Arg {
    /// The ranges of this memory, which is `len` bytes, that kernels ahead write or may still read: they are touched
    /// behind the wait for them alone.
    pub fn late(&self, len: usize) -> Vec<Range<usize>> {
        match self {
            Arg::In { weights: false, .. } | Arg::Out(_) | Arg::Scratch { .. } => std::iter::once(0..len).collect(),
            Arg::State { late, .. } => late.clone(),
            Arg::In { weights: true, .. } | Arg::Settled { .. } => Vec::new(),
            Arg::I32(_) | Arg::I64(_) | Arg::F32(_) => Vec::new(),
        }
    }

    /// The contents of an input of which cold timing rotates copies: constants of the model, and its state.
    pub fn rotated(&self) -> Option<&Arc<[u8]>> {
        match self {
            Arg::In { bytes, weights: true } | Arg::State { bytes, .. } => Some(bytes),
            _ => None,
        }
    }
}
