//! The driver's library.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::Library;

use super::{Surroundings, open};
use crate::cuda::CudaError;

/// Loads the driver's library, once a process, and says from where.
///
/// # Errors
/// [`CudaError::NoDriver`]. After a success the functions of the binding crate can be called: it finds this copy.
pub fn load_driver() -> Result<PathBuf, CudaError> {
    library().clone().map(|(_, path)| path)
}

/// The newest CUDA version that the driver supports, as (13, 0). Needs no device.
///
/// # Errors
/// [`CudaError::NoDriver`].
pub fn driver_version() -> Result<(u32, u32), CudaError> {
    let (library, path) = library().clone()?;
    let no = |reason: String| CudaError::NoDriver { reason: format!("{}: {reason}", path.display()) };
    // SAFETY: the signature is that of cuda.h.
    let get = unsafe { library.get::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDriverGetVersion\0") };
    let get = get.map_err(|e| no(e.to_string()))?;
    let mut version = 0i32;
    // SAFETY: the pointer is valid for one int; the call works before cuInit.
    let code = unsafe { get(&mut version) };
    if code != 0 || version <= 0 {
        return Err(no(format!("cuDriverGetVersion returned {code} and version {version}")));
    }
    Ok((version as u32 / 1000, version as u32 % 1000 / 10))
}

type Loaded = Result<(&'static Library, PathBuf), CudaError>;

fn library() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| {
        let name = Path::new("libcuda.so.1");
        let mut reason = match open(name) {
            Ok(library) => return Ok((library, name.to_owned())),
            Err(e) => e,
        };
        for place in Surroundings::of_this_process().driver() {
            let path = place.folder.join(name);
            if path.exists() {
                match open(&path) {
                    Ok(library) => return Ok((library, path)),
                    Err(e) => reason = e,
                }
            }
        }
        Err(CudaError::NoDriver { reason })
    })
}

/// A function of the driver's library that the binding crate does not know under this name; `None` where there is none.
///
/// # Safety
/// `T` is the function's type.
pub(crate) unsafe fn driver_symbol<T: Copy>(name: &str) -> Option<T> {
    let (library, _) = library().as_ref().ok()?;
    // SAFETY: the caller answers for the type.
    unsafe { library.get::<T>(name.as_bytes()) }.ok().map(|s| *s)
}
