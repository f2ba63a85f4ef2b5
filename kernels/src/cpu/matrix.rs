//! A weight matrix in the layout of the kernel that multiplies it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use harness_spec::{DType, Shape, VariantId};
use variants::{Activations, Isa, KernelSpec, Layout};

use super::{Cpu, Precision};
use crate::alloc::AlignedBuf;
use crate::gemv::{GROUP_ROWS, GemvKernel, NoCode, tile::Tile};
use crate::quant::{self, QuantError};

/// The bytes of a tensor as they are in the file.
#[derive(Clone)]
pub enum Weights {
    /// A range of something that others hold too, such as a mapped file.
    Shared {
        /// What keeps the bytes alive.
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        /// Where in it the tensor lies.
        range: Range<usize>,
    },
    /// Bytes that belong to the matrix.
    Owned(Vec<u8>),
}

impl Weights {
    /// The bytes.
    ///
    /// # Panics
    /// Where the range of a shared source lies outside of it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Weights::Shared { owner, range } => &(**owner).as_ref()[range.clone()],
            Weights::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Weights::Shared { range, .. } => write!(f, "Shared({range:?})"),
            Weights::Owned(bytes) => write!(f, "Owned({} bytes)", bytes.len()),
        }
    }
}

/// Why a matrix cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The bytes are not N rows of K legal weights.
    #[error(transparent)]
    Weights(#[from] QuantError),
    /// There is no code for the kernel asked for.
    #[error(transparent)]
    Kernel(#[from] NoCode),
    /// The kernel needs instructions that this machine lacks.
    #[error("{variant} needs {isa} instructions, which this machine lacks")]
    Isa {
        /// The variant, boxed to keep results of the happy path small.
        variant: Box<VariantId>,
        /// What it needs.
        isa: Isa,
    },
    /// There is nothing to multiply.
    #[error("a matrix needs at least one row and one column, got {n} x {k}")]
    Empty {
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
    },
}

#[derive(Debug)]
enum Body {
    Gguf(Weights),
    Tiled(Tile, AlignedBuf),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Body::Gguf(weights) => weights.bytes(),
            Body::Tiled(_, packed) => packed.as_slice(),
        }
    }
}

/// The `[N, K]` weights of one tensor.
#[derive(Debug)]
pub struct Matrix {
    dtype: DType,
    n: usize,
    k: usize,
    kernel: GemvKernel,
    body: Arc<Body>,
}

impl Matrix {
    /// Builds the matrix for the kernel that the table of `cpu` names, repacking on its pool where the kernel's layout is
    /// not that of the file.
    ///
    /// `precision` [`Precision::Exact`] leaves out the kernels that round activations to int8.
    ///
    /// # Errors
    /// [`BuildError`] where the bytes are not `n` rows of `k` legal weights.
    pub fn from_gguf(
        cpu: &Cpu,
        dtype: DType,
        n: usize,
        k: usize,
        weights: Weights,
        precision: Precision,
    ) -> Result<Matrix, BuildError> {
        let shape = Shape::of([("N", n as u64), ("K", k as u64)]);
        loop {
            let (spec, variant) = cpu.table().gemv(dtype, n, k, cpu.isa(), precision == Precision::Exact);
            let Err(no_code) = GemvKernel::of(spec, &variant, dtype) else {
                return Matrix::with_kernel(cpu, spec, &variant, dtype, n, k, weights);
            };
            // The next row runs, or the default, or in the end the plain kernel, of which there is always code (R25).
            if !cpu.table().quarantine(&spec.op, &shape, &variant, &no_code.to_string()) {
                return Err(no_code.into());
            }
            cpu.note(format!("{no_code}; another kernel runs at {shape}"));
        }
    }

    /// Builds the matrix for a variant of a kernel of its space, whatever the table says.
    ///
    /// # Errors
    /// [`BuildError`] where the bytes are not `n` rows of `k` legal weights, or the machine or this build lacks the kernel.
    pub fn with_kernel(
        cpu: &Cpu,
        spec: &KernelSpec,
        variant: &VariantId,
        dtype: DType,
        n: usize,
        k: usize,
        weights: Weights,
    ) -> Result<Matrix, BuildError> {
        if n == 0 || k == 0 {
            return Err(BuildError::Empty { n, k });
        }
        quant::validate(dtype, n, k, weights.bytes())?;
        if !cpu.isa().runs(spec.isa) {
            return Err(BuildError::Isa { variant: Box::new(variant.clone()), isa: spec.isa });
        }
        let kernel = GemvKernel::of(spec, variant, dtype)?;
        let body = match kernel.tile {
            Some(tile) => Body::Tiled(tile, pack(cpu, tile, kernel.rows, n, k, weights.bytes())),
            None => Body::Gguf(weights),
        };
        Ok(Matrix { dtype, n, k, kernel, body: Arc::new(body) })
    }

    /// The same weights for another variant that reads the same layout; `None` where its layout is another. The memory is
    /// shared.
    ///
    /// # Errors
    /// [`NoCode`] where this build lacks the variant.
    pub fn with_variant(&self, spec: &KernelSpec, variant: &VariantId) -> Result<Option<Matrix>, NoCode> {
        let kernel = GemvKernel::of(spec, variant, self.dtype)?;
        let same = kernel.layout == self.kernel.layout && kernel.rows == self.kernel.rows;
        let body = Arc::clone(&self.body);
        Ok(same.then_some(Matrix { dtype: self.dtype, n: self.n, k: self.k, kernel, body }))
    }

    /// A copy at other addresses, for measurements that must not find their weights in a cache.
    pub fn distinct_copy(&self, cpu: &Cpu) -> Matrix {
        let body = match &*self.body {
            Body::Gguf(weights) => Body::Gguf(Weights::Owned(weights.bytes().to_vec())),
            Body::Tiled(tile, packed) => {
                let mut copy = cpu.arena().buffer(packed.as_slice().len());
                copy.as_mut_slice().copy_from_slice(packed.as_slice());
                Body::Tiled(*tile, copy)
            }
        };
        Matrix { dtype: self.dtype, n: self.n, k: self.k, kernel: self.kernel.clone(), body: Arc::new(body) }
    }

    /// Rows, the output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns, the reduction.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The weight type in the file.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How the weights lie in memory.
    pub fn layout(&self) -> Layout {
        self.kernel.layout
    }

    /// The variant that multiplies it.
    pub fn variant(&self) -> &VariantId {
        &self.kernel.variant
    }

    /// What multiplies it with many tokens, in words: matrices of one type that say the same are multiplied by the same code
    /// there, however a token alone is.
    pub fn code_of_many(&self) -> String {
        self.kernel.code_of_many()
    }

    /// The form of activations that the kernel multiplies.
    pub fn activations(&self) -> Activations {
        self.kernel.activations
    }

    /// Bytes that one product reads: the weights in their layout.
    pub fn bytes(&self) -> usize {
        self.body.bytes().len()
    }

    /// Whether the matrix still reads the source it was built from. Where it does not, the loader may drop those pages.
    pub fn borrows_source(&self) -> bool {
        matches!(*self.body, Body::Gguf(Weights::Shared { .. }))
    }

    /// Decodes row `row` to floats. Allocates nothing.
    ///
    /// # Panics
    /// Where the row does not exist or `out` is not K long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.n && out.len() == self.k,
            "row {row} of {} rows, room for {} of {}",
            self.n,
            out.len(),
            self.k
        );
        match &*self.body {
            Body::Gguf(weights) => {
                let bytes = weights.bytes();
                let row_bytes = bytes.len() / self.n;
                quant::dequantize_row(self.dtype, &bytes[row * row_bytes..][..row_bytes], out);
            }
            Body::Tiled(tile, packed) => {
                let tiles = &packed.as_slice()[row / self.kernel.rows * tile.bytes(self.k)..][..tile.bytes(self.k)];
                // The largest tiled block has 210 bytes.
                let mut block = [0u8; 256];
                let block = &mut block[..self.dtype.block_bytes()];
                for (i, out) in out.chunks_exact_mut(self.dtype.block_len()).enumerate() {
                    tile.unpack_block(tiles, row % self.kernel.rows, i, block);
                    quant::dequantize_row(self.dtype, block, out);
                }
            }
        }
    }

    /// The bytes as they lie in memory.
    pub(super) fn stored(&self) -> &[u8] {
        match &*self.body {
            Body::Gguf(weights) => weights.bytes(),
            Body::Tiled(_, packed) => packed.as_slice(),
        }
    }

    pub(crate) fn gemv_kernel(&self) -> &GemvKernel {
        &self.kernel
    }

    /// Groups of 16 rows.
    pub(crate) fn groups(&self) -> usize {
        self.n.div_ceil(GROUP_ROWS)
    }

    /// The bytes and rows of unit `unit`, which holds the rows from `unit * kernel.rows` on.
    #[inline]
    pub(crate) fn unit(&self, unit: usize) -> (&[u8], usize) {
        let first = unit * self.kernel.rows;
        let rows = self.kernel.rows.min(self.n - first);
        match &*self.body {
            Body::Gguf(weights) => {
                let bytes = weights.bytes();
                let row_bytes = bytes.len() / self.n;
                (&bytes[first * row_bytes..][..rows * row_bytes], rows)
            }
            Body::Tiled(tile, packed) => {
                let size = tile.bytes(self.k);
                (&packed.as_slice()[unit * size..][..size], rows)
            }
        }
    }
}

/// Repacks a tensor on the pool. Each thread writes a run of tiles of its own.
fn pack(cpu: &Cpu, tile: Tile, rows: usize, n: usize, k: usize, source: &[u8]) -> AlignedBuf {
    let tiles = n.div_ceil(rows);
    let size = tile.bytes(k);
    let row_bytes = source.len() / n;
    let mut packed = cpu.arena().buffer(tiles * size);
    let threads = cpu.threads();
    let out = super::Spread::new(packed.as_mut_slice());
    cpu.pool().run(&|thread| {
        for t in super::share(tiles, threads, thread) {
            let count = rows.min(n - t * rows);
            let from = &source[t * rows * row_bytes..][..count * row_bytes];
            // SAFETY: tile `t` belongs to this thread alone, as `share` gives every index to one thread.
            tile.pack(from, count, k, unsafe { out.part(t * size, size) });
        }
    });
    packed
}
