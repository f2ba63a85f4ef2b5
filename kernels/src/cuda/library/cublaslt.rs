//! The library of matrix products: which one, and the few functions of it that are used.
//!
//! As with the compiler, the binding crate would load the first library of a bare name and panic where there is none, so
//! the functions are looked up here.

use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;
use libloading::os::unix::Library;

use super::places::{Surroundings, cublaslt_files, soname_major};
use super::{Wanted, driver_version, open};
use crate::cuda::CudaError;

/// `cublasLtHandle_t`.
pub(crate) type Handle = *mut c_void;
/// A description of a matrix or of a product.
type Description = *mut c_void;

type Create = unsafe extern "C" fn(*mut Description) -> c_int;
type Destroy = unsafe extern "C" fn(Description) -> c_int;
type Set = unsafe extern "C" fn(Description, u32, *const c_void, usize) -> c_int;

/// `cublasLtMatmulAlgo_t`: how a product is carried out, in words of the library's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heuristic {
    pub algorithm: Algorithm,
    pub workspace: usize,
    pub state: c_int,
    pub waves: f32,
    reserved: [c_int; 4],
}

/// A matrix in column-major order: elements, rows, columns, elements from one column to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub half: bool,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

/// The matrix library, loaded.
#[derive(Debug)]
pub struct CublasLt {
    /// Its version, as (13, 0).
    pub version: (u32, u32),
    /// The same with the patch level, as the library tells it: 120805 for 12.8.5.
    pub number: usize,
    /// The library.
    pub path: PathBuf,
    /// Why it was looked for there, such as `Python environment`.
    pub origin: &'static str,
    create: Create,
    destroy: Destroy,
    product: (unsafe extern "C" fn(*mut Description, c_int, c_int) -> c_int, Set, Destroy),
    matrix: (unsafe extern "C" fn(*mut Description, c_int, u64, u64, i64) -> c_int, Destroy),
    preference: (Create, Set, Destroy),
    heuristic: unsafe extern "C" fn(
        Handle,
        Description,
        Description,
        Description,
        Description,
        Description,
        Description,
        c_int,
        *mut Heuristic,
        *mut c_int,
    ) -> c_int,
    matmul: unsafe extern "C" fn(
        Handle,
        Description,
        *const c_void,
        *const c_void,
        Description,
        *const c_void,
        Description,
        *const c_void,
        *const c_void,
        Description,
        *mut c_void,
        Description,
        *const Algorithm,
        *mut c_void,
        usize,
        CUstream,
    ) -> c_int,
}

// From cublasLt.h, cublas_api.h and library_types.h; the same in every version since 11.4.
const R_32F: c_int = 0;
const R_16F: c_int = 2;
const COMPUTE_32F: c_int = 68;
const DESC_TRANS_A: u32 = 3;
const OP_T: c_int = 1;
const PREF_MAX_WORKSPACE: u32 = 1;
const PREF_ALIGNMENTS: [u32; 4] = [5, 6, 7, 8];

/// The matrix library of this process: found once, where the compiler is looked for too. `EDGELLM_CUBLASLT`, a library or its
/// folder, goes before everything and is not replaced by another where it is unusable.
///
/// # Errors
/// [`CudaError::NoCublasLt`] where there is none whose major version the driver of this machine can run.
pub fn cublaslt() -> Result<&'static CublasLt, CudaError> {
    static FOUND: OnceLock<Result<CublasLt, CudaError>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<CublasLt, CudaError> {
    let newest = driver_version().ok().map(|(major, _)| major);
    let wanted = Wanted {
        variable: "EDGELLM_CUBLASLT",
        names: ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        places: Surroundings::of_this_process().cublaslt(),
        files: cublaslt_files,
    };
    let (given, candidates) = wanted.candidates();
    let mut tried = Vec::new();
    for (path, origin) in candidates {
        if let (Some(newest), Some(major)) = (newest, soname_major(&path))
            && major > newest
        {
            tried.push(format!("{} is newer than the driver, which runs CUDA {newest}", path.display()));
            continue;
        }
        match CublasLt::load(&path, origin) {
            Ok(l) if newest.is_some_and(|newest| l.version.0 > newest) => {
                tried.push(format!(
                    "{} is version {} and the driver runs CUDA {}",
                    path.display(),
                    l.version_text(),
                    newest.unwrap_or_default()
                ));
            }
            Ok(l) => return Ok(l),
            // A bare name that the loader does not know is no finding.
            Err(_) if origin == "system loader" => {}
            Err(e) => tried.push(format!("{}: {e}", path.display())),
        }
    }
    let reason = match given {
        Some(path) if tried.is_empty() => {
            format!("EDGELLM_CUBLASLT names {}, which has no libcublasLt.so", path.display())
        }
        _ if tried.is_empty() => {
            "libcublasLt.so was looked for by CUDA_PATH, the system loader, in the usual toolkit folders \
                                  and in Python environments"
                .to_owned()
        }
        _ => tried.join("; "),
    };
    Err(CudaError::NoCublasLt { reason })
}

fn symbol<T: Copy>(lib: &Library, name: &CStr) -> Result<T, String> {
    // SAFETY: every caller names the type that cublasLt.h declares for the function, which has not changed since 11.4.
    unsafe { lib.get::<T>(name.to_bytes_with_nul()) }.map(|s| *s).map_err(|e| e.to_string())
}

impl CublasLt {
    fn load(path: &Path, origin: &'static str) -> Result<CublasLt, String> {
        let lib = open(path)?;
        let version: unsafe extern "C" fn() -> usize = symbol(lib, c"cublasLtGetVersion")?;
        // SAFETY: the function takes nothing and returns a number.
        let number = unsafe { version() };
        let version = number as u32;
        Ok(CublasLt {
            version: (version / 10_000, version / 100 % 100),
            number,
            path: path.to_owned(),
            origin,
            create: symbol(lib, c"cublasLtCreate")?,
            destroy: symbol(lib, c"cublasLtDestroy")?,
            product: (
                symbol(lib, c"cublasLtMatmulDescCreate")?,
                symbol(lib, c"cublasLtMatmulDescSetAttribute")?,
                symbol(lib, c"cublasLtMatmulDescDestroy")?,
            ),
            matrix: (symbol(lib, c"cublasLtMatrixLayoutCreate")?, symbol(lib, c"cublasLtMatrixLayoutDestroy")?),
            preference: (
                symbol(lib, c"cublasLtMatmulPreferenceCreate")?,
                symbol(lib, c"cublasLtMatmulPreferenceSetAttribute")?,
                symbol(lib, c"cublasLtMatmulPreferenceDestroy")?,
            ),
            heuristic: symbol(lib, c"cublasLtMatmulAlgoGetHeuristic")?,
            matmul: symbol(lib, c"cublasLtMatmul")?,
        })
    }

    /// The version as text, `13.0`.
    pub fn version_text(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// A handle for the context that is current.
    pub(crate) fn handle(&self) -> Result<Handle, CudaError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        check("cublasLtCreate", unsafe { (self.create)(&mut handle) }, || "starting the matrix library".to_owned())?;
        Ok(handle)
    }

    /// Ends a handle.
    ///
    /// # Safety
    /// It came from [`CublasLt::handle`] and is used no more.
    pub(crate) unsafe fn end(&self, handle: Handle) {
        // SAFETY: as the caller says. A failure would leak it.
        let _ = unsafe { (self.destroy)(handle) };
    }

    fn description(
        &self,
        call: &'static str,
        destroy: Destroy,
        make: impl FnOnce(*mut Description) -> c_int,
    ) -> Result<Described, CudaError> {
        let mut raw = std::ptr::null_mut();
        check(call, make(&mut raw), || "describing a product".to_owned())?;
        Ok(Described { raw, destroy })
    }

    fn matrix(&self, of: Operand) -> Result<Described, CudaError> {
        let (create, destroy) = self.matrix;
        let kind = if of.half { R_16F } else { R_32F };
        self.description("cublasLtMatrixLayoutCreate", destroy, |raw| {
            // SAFETY: the pointer is valid for one description.
            unsafe { create(raw, kind, of.rows as u64, of.columns as u64, of.stride as i64) }
        })
    }

    /// A product `D = op(A)ᵀ B` with f32 sums, and the best way to it that fits in a workspace; `alignments` are those of A, B
    /// and D in bytes.
    pub(crate) fn plan(
        &self,
        handle: Handle,
        operands: [Operand; 3],
        alignments: [u32; 3],
        workspace: usize,
    ) -> Result<Plan, CudaError> {
        let doing = || format!("planning a product of {operands:?}");
        let (create, set, destroy) = self.product;
        let product = self.description("cublasLtMatmulDescCreate", destroy, |raw| {
            // SAFETY: the pointer is valid for one description.
            unsafe { create(raw, COMPUTE_32F, R_32F) }
        })?;
        let transposed = OP_T;
        // SAFETY: the attribute is one int.
        let code = unsafe { set(product.raw, DESC_TRANS_A, (&raw const transposed).cast(), size_of::<c_int>()) };
        check("cublasLtMatmulDescSetAttribute", code, doing)?;
        let [a, b, d] = operands;
        let (a, b, d) = (self.matrix(a)?, self.matrix(b)?, self.matrix(d)?);
        let (create, set, destroy) = self.preference;
        let preference = self.description("cublasLtMatmulPreferenceCreate", destroy, |raw| {
            // SAFETY: the pointer is valid for one description.
            unsafe { create(raw) }
        })?;
        // SAFETY: the attribute is one size.
        let code =
            unsafe { set(preference.raw, PREF_MAX_WORKSPACE, (&raw const workspace).cast(), size_of::<usize>()) };
        check("cublasLtMatmulPreferenceSetAttribute", code, doing)?;
        let [of_a, of_b, of_d] = alignments;
        for (attribute, bytes) in PREF_ALIGNMENTS.into_iter().zip([of_a, of_b, of_d, of_d]) {
            // SAFETY: the attribute is one u32.
            let code = unsafe { set(preference.raw, attribute, (&raw const bytes).cast(), size_of::<u32>()) };
            check("cublasLtMatmulPreferenceSetAttribute", code, doing)?;
        }
        let (mut best, mut found) = (Heuristic::default(), 0);
        // SAFETY: every description is alive, and there is room for the one result that is asked for.
        let code = unsafe {
            (self.heuristic)(handle, product.raw, a.raw, b.raw, d.raw, d.raw, preference.raw, 1, &mut best, &mut found)
        };
        check("cublasLtMatmulAlgoGetHeuristic", code, doing)?;
        // CUBLAS_STATUS_NOT_SUPPORTED.
        check("cublasLtMatmulAlgoGetHeuristic", if found < 1 { 15 } else { best.state }, doing)?;
        Ok(Plan { product, a, b, d, best })
    }

    /// Carries out a product on a stream: `D = op(A)ᵀ B + beta D`.
    ///
    /// # Safety
    /// The addresses hold the matrices of the plan, aligned as it was asked for, the workspace holds what the plan was given,
    /// and all of it is allocated and used by nobody else until the stream is done.
    pub(crate) unsafe fn matmul(
        &self,
        handle: Handle,
        plan: &Plan,
        [a, b, d]: [u64; 3],
        beta: f32,
        (workspace, bytes): (u64, usize),
        stream: CUstream,
    ) -> Result<(), CudaError> {
        let (alpha, at) = (1.0f32, |address: u64| address as *mut c_void);
        // SAFETY: the descriptions are alive, the factors are floats on the host as the description says, the rest is the
        // caller's word.
        let code = unsafe {
            (self.matmul)(
                handle,
                plan.product.raw,
                (&raw const alpha).cast(),
                at(a),
                plan.a.raw,
                at(b),
                plan.b.raw,
                (&raw const beta).cast(),
                at(d),
                plan.d.raw,
                at(d),
                plan.d.raw,
                &plan.best.algorithm,
                at(workspace),
                bytes,
                stream,
            )
        };
        check("cublasLtMatmul", code, || "multiplying matrices".to_owned())
    }
}

/// A product that is described, and how it is carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    product: Described,
    a: Described,
    b: Described,
    d: Described,
    best: Heuristic,
}

/// A description that is destroyed at the end of its scope.
#[derive(Debug)]
struct Described {
    raw: Description,
    destroy: Destroy,
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: it was created by the same library and is used no more. A failure would leak it.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

fn check(call: &'static str, code: c_int, doing: impl FnOnce() -> String) -> Result<(), CudaError> {
    let text = match code {
        0 => return Ok(()),
        1 => "not initialized",
        3 => "allocation failed",
        7 => "invalid value",
        8 => "architecture mismatch",
        13 => "execution failed",
        14 => "internal error",
        15 => "not supported",
        _ => "unknown",
    };
    Err(CudaError::CublasLt { call, code, text, doing: doing() })
}
