//! Products of 16-bit or 32-bit matrices by NVIDIA's library: the baseline that own kernels are held against, and for prompts
//! what runs where they are slower.
//!
//! The library is loaded when this is opened, from wherever it is, and is not needed for anything else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use super::CudaError;
use super::driver::{Buffer, Device, Stream};
use super::library::{CublasLt, Handle, Operand, Plan, cublaslt};

/// Bytes that the library may work in. Its documentation asks for 32 MiB on compute capability 9.0.
const WORKSPACE: usize = 32 << 20;
/// The best alignment that the library makes use of.
const MOST_ALIGNED: u64 = 256;

/// `y = W x` or `y += W x` for many tokens, by addresses on the device.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Weights, f16 or f32 `[n, k]`.
    pub w: u64,
    /// Activations of the same type, `[m, k]`.
    pub x: u64,
    /// f32: `m` rows of `n`, `row` elements from the start of one to that of the next.
    pub y: u64,
    /// Rows of the weights.
    pub n: usize,
    /// Their columns.
    pub k: usize,
    /// Tokens.
    pub m: usize,
    /// Elements of a row of `y`; `n` where there is nothing between rows.
    pub row: usize,
    /// Whether weights and activations are f16, and not f32.
    pub half: bool,
    /// Whether the product is added to what `y` holds.
    pub accumulate: bool,
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    n: usize,
    k: usize,
    m: usize,
    row: usize,
    half: bool,
    alignments: [u32; 3],
}

/// The library with a handle, a workspace, and a plan for each shape that it has seen.
#[derive(Debug)]
pub struct Blas {
    library: &'static CublasLt,
    handle: Handle,
    plans: Mutex<HashMap<Key, Plan>>,
    workspace: Buffer,
    device: Arc<Device>,
}

// SAFETY: the handle and the plans are used under the lock alone, by one thread at a time, with the context made current
// first.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    /// Loads the library and makes a handle on a device.
    ///
    /// # Errors
    /// [`CudaError::NoCublasLt`], or the library's or the driver's error.
    pub fn open(device: &Arc<Device>) -> Result<Blas, CudaError> {
        let library = cublaslt()?;
        device.bind()?;
        let workspace = Buffer::new(device, WORKSPACE, "the workspace of the matrix library")?;
        let handle = library.handle()?;
        Ok(Blas { library, handle, plans: Mutex::default(), workspace, device: device.clone() })
    }

    /// The library.
    pub fn library(&self) -> &'static CublasLt {
        self.library
    }

    /// Queues a product. The way to it is chosen once for each shape.
    ///
    /// # Safety
    /// The addresses hold matrices of these sizes, which stay allocated until the stream is done and overlap nothing else that
    /// runs meanwhile; `y` overlaps neither `w` nor `x`. Products of one `Blas` share a workspace, so that they are all queued
    /// on one stream, or on streams that wait for each other.
    ///
    /// # Errors
    /// The library's error.
    pub unsafe fn matmul(&self, stream: &Stream, product: &Product) -> Result<(), CudaError> {
        let &Product { w, x, y, n, k, m, row, half, accumulate } = product;
        assert!(row >= n, "rows of {n} elements do not fit {row} apart");
        if n == 0 || m == 0 {
            return Ok(());
        }
        self.device.bind()?;
        let key = Key { n, k, m, row, half, alignments: [w, x, y].map(alignment) };
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.library.plan(self.handle, operands(&key), key.alignments, WORKSPACE)?)
            }
        };
        let beta = if accumulate { 1.0 } else { 0.0 };
        let workspace = (self.workspace.address(), WORKSPACE);
        // SAFETY: the plan is of these sizes and alignments, the workspace is as large as it was told; the rest is what the
        // caller answers for.
        unsafe { self.library.matmul(self.handle, plan, [w, x, y], beta, workspace, stream.raw) }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // Plans go before the handle; what is still queued holds no reference to either.
        self.plans.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: the handle came from this library and is used no more.
        unsafe { self.library.end(self.handle) }
    }
}

/// The largest power of two that divides an address, as far as the library cares.
fn alignment(address: u64) -> u32 {
    1 << (address | MOST_ALIGNED).trailing_zeros()
}

/// The matrices as the library sees them, column by column: a row-major matrix is its own transpose. `yᵀ = W xᵀ`, where W is
/// read as `[k, n]` and transposed.
fn operands(key: &Key) -> [Operand; 3] {
    let &Key { n, k, m, row, half, .. } = key;
    [
        Operand { half, rows: k, columns: n, stride: k },
        Operand { half, rows: k, columns: m, stride: k },
        Operand { half: false, rows: n, columns: m, stride: row },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_aligned_as_far_as_its_last_set_bit_and_no_further_than_matters() {
        assert_eq!([256, 512, 1 << 40, 0].map(alignment), [256; 4]);
        assert_eq!([4, 12, 264, 4096 + 128].map(alignment), [4, 4, 8, 128]);
    }

    #[test]
    fn matrices_are_described_column_by_column() {
        let key = Key { n: 5, k: 7, m: 3, row: 11, half: true, alignments: [256; 3] };
        let [w, x, y] = operands(&key);
        assert_eq!((w.rows, w.columns, w.stride, w.half), (7, 5, 7, true));
        assert_eq!((x.rows, x.columns, x.stride, x.half), (7, 3, 7, true));
        assert_eq!((y.rows, y.columns, y.stride, y.half), (5, 3, 11, false));
        assert!(operands(&Key { half: false, ..key }).iter().all(|operand| !operand.half));
    }
}
