//! Finding and loading `libcuda`, `libnvrtc` and `libcublasLt`.
//!
//! All are loaded at run time, the last only where it is asked for. The driver's library is opened here by its full path
//! where the loader does not know it, which lets the binding crate, which only asks for bare names and panics where there
//! are none, find it loaded. Whichever copy the binding crate finds is the one that all functions are called in.

mod cublaslt;
mod driver;
mod nvrtc;
mod places;

pub use cublaslt::{CublasLt, cublaslt};
pub(crate) use cublaslt::{Handle, Operand, Plan};
pub(crate) use driver::driver_symbol;
pub use driver::{driver_version, load_driver};
pub use nvrtc::{Nvrtc, Output, Refusal, Source, nvrtc};
pub use places::{Place, Surroundings, cublaslt_files, nvrtc_files};

use std::path::{Path, PathBuf};

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

/// A library that is looked for.
struct Wanted {
    /// The variable that names it or its folder.
    variable: &'static str,
    /// Its names for the loader, the best first.
    names: [&'static str; 3],
    /// Folders where it may lie.
    places: Vec<Place>,
    /// Its files in a folder, the best first.
    files: fn(&Path) -> Vec<PathBuf>,
}

impl Wanted {
    /// What the variable says, and the files and names to be tried, in this order, each with its origin. A folder that the
    /// user chose goes before the loader, and the loader before folders that are only likely.
    fn candidates(&self) -> (Option<PathBuf>, Vec<(PathBuf, &'static str)>) {
        let given = std::env::var_os(self.variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let candidates = match &given {
            Some(path) if path.is_dir() => (self.files)(path).into_iter().map(|f| (f, self.variable)).collect(),
            Some(path) => vec![(path.clone(), self.variable)],
            None => {
                let bare = self.names.map(|n| (PathBuf::from(n), "system loader"));
                let files = self.places.iter().flat_map(|p| (self.files)(&p.folder).into_iter().map(|f| (f, p.origin)));
                let chosen = |origin: &str| origin == "CUDA_PATH" || origin == "LD_LIBRARY_PATH";
                let (first, rest): (Vec<_>, Vec<_>) = files.partition(|(_, origin)| chosen(origin));
                first.into_iter().chain(bare).chain(rest).collect()
            }
        };
        (given, candidates)
    }
}
