//! Finding and loading `libcuda` and `libnvrtc`.
//!
//! Both are loaded at run time. The driver's library is opened here by its full path where the loader does not know it,
//! which lets the binding crate, which only asks for bare names and panics where there are none, find it loaded.

mod driver;
mod nvrtc;
mod places;

pub(crate) use driver::driver_symbol;
pub use driver::{driver_version, load_driver};
pub use nvrtc::{Nvrtc, Output, Refusal, Source, nvrtc};
pub use places::{Place, Surroundings, nvrtc_files};

use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Opens a library for the whole process and keeps it open.
fn open(path: &Path) -> Result<&'static Library, String> {
    // SAFETY: the initialisers of NVIDIA's libraries have no preconditions. The path was chosen by the user, by the
    // loader or by the package that installed it.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| {
        // The error says that it failed; what the loader says is its cause.
        std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string)
    })?;
    // Threads of the library may outlive any owner that we could give it, so that it is never closed.
    Ok(Box::leak(Box::new(library)))
}
