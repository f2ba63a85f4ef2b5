//! The driver's library.

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys;

use super::{Surroundings, open};
use crate::cuda::CudaError;

/// What a library that is only there to be linked against returns from every function.
const IS_A_STUB: i32 = 34;

/// Loads the driver's library, once a process, and says from which file.
///
/// # Errors
/// [`CudaError::NoDriver`]. After a success the functions of the binding crate can be called.
pub fn load_driver() -> Result<PathBuf, CudaError> {
    static LOADED: OnceLock<Result<PathBuf, CudaError>> = OnceLock::new();
    LOADED.get_or_init(load).clone()
}

/// The newest CUDA version that the driver supports, as (13, 0). Needs no device.
///
/// # Errors
/// [`CudaError::NoDriver`].
pub fn driver_version() -> Result<(u32, u32), CudaError> {
    let path = load_driver()?;
    let no = |reason: &str| CudaError::NoDriver { reason: format!("{}: {reason}", path.display()) };
    type Get = unsafe extern "C" fn(*mut i32) -> i32;
    // SAFETY: the signature is that of cuda.h.
    let get = unsafe { driver_symbol::<Get>("cuDriverGetVersion") }.ok_or_else(|| no("no cuDriverGetVersion"))?;
    let mut version = 0i32;
    // SAFETY: the pointer is valid for one int; the call works before cuInit.
    match unsafe { get(&mut version) } {
        0 if version > 0 => Ok((version as u32 / 1000, version as u32 % 1000 / 10)),
        IS_A_STUB => Err(no("a toolkit's stub, which the loader finds first: take its folder out of LD_LIBRARY_PATH")),
        code => Err(no(&format!("cuDriverGetVersion returned {code} and version {version}"))),
    }
}

fn load() -> Result<PathBuf, CudaError> {
    let name = Path::new("libcuda.so.1");
    let mut reason = match open(name) {
        Ok(_) => return Ok(bound().unwrap_or_else(|| name.to_owned())),
        Err(e) => e,
    };
    for place in Surroundings::of_this_process().driver() {
        let path = place.folder.join(name);
        if path.exists() {
            match open(&path) {
                Ok(_) => return Ok(bound().unwrap_or(path)),
                Err(e) => reason = e,
            }
        }
    }
    Err(CudaError::NoDriver { reason })
}

/// The file of the library whose functions the binding crate calls. It asks the loader for `libcuda.so` first: where that is
/// another file than `libcuda.so.1`, it is the one that counts, and nothing is called in the other.
fn bound() -> Option<PathBuf> {
    // SAFETY: a library has been opened, so that there is one to be found, and the address is not called.
    let address = *unsafe { sys::culib().get::<*const c_void>(b"cuDriverGetVersion\0") }.ok()?;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked about, and the pointer is valid for one answer.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: zeroes are an answer too, of null pointers.
    let name = unsafe { info.assume_init() }.dli_fname;
    // SAFETY: a name that is not null is a C string that lives as long as the library, which is never closed.
    (!name.is_null()).then(|| PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

/// A function of the driver's library that the binding crate does not know under this name; `None` where there is none. The
/// library is the binding crate's own: a handle of one copy means nothing to another.
///
/// # Safety
/// `T` is the function's type.
pub(crate) unsafe fn driver_symbol<T: Copy>(name: &str) -> Option<T> {
    load_driver().ok()?;
    // SAFETY: the caller answers for the type.
    unsafe { sys::culib().get::<T>(name.as_bytes()) }.ok().map(|s| *s)
}
