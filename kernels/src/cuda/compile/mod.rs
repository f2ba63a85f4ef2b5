//! From a source to machine code, without a device: NVRTC, a cache on disk, what the compiler says of the result.

mod arch;
mod cache;
mod log;
mod sass;
mod sources;
mod unit;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_spec::target::Resources;

pub use arch::{Arch, NotAnArch};
pub use cache::{Cache, Header, Lookup, digest};
pub use sass::is_expected;
pub use sources::{Origin, SourceError, SourceFile, built_in, built_in_paths, load};
pub use unit::Unit;

use super::CudaError;
use super::library::{Nvrtc, Refusal, Source, nvrtc};
use crate::parallel::parallel;

/// Machine code of one kernel, or PTX for a virtual architecture, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// The code.
    pub bytes: Vec<u8>,
    /// What it is for.
    pub arch: Arch,
    /// The function in it.
    pub entry: String,
    /// What the compiler says of it.
    pub resources: Resources,
    /// Hash of everything that decided the code.
    pub key: String,
    /// Time spent compiling; zero where it came from the cache.
    pub time: Duration,
}

impl Cubin {
    /// Whether the code came from the cache.
    pub fn cached(&self) -> bool {
        self.time.is_zero()
    }

    /// Bytes of the widest load from global memory in the machine code; `None` where there is none, or for PTX.
    pub fn widest_load(&self) -> Option<u32> {
        sass::widest_load(&self.bytes, &self.entry)
    }
}

/// Compiles units, with a cache.
#[derive(Debug)]
pub struct Compiler {
    nvrtc: &'static Nvrtc,
    cache: Option<Cache>,
    warnings: Mutex<Vec<String>>,
}

impl Compiler {
    /// A compiler with the cache of this user.
    ///
    /// # Errors
    /// [`CudaError::NoNvrtc`].
    pub fn new() -> Result<Compiler, CudaError> {
        let compiler = Compiler { nvrtc: nvrtc()?, cache: Cache::of_this_user(), warnings: Mutex::default() };
        if compiler.cache.is_none() {
            compiler
                .warn("no home folder, so that compiled kernels are not kept; set EDGELLM_CACHE to a folder".into());
        }
        Ok(compiler)
    }

    /// A compiler with this cache, or none.
    ///
    /// # Errors
    /// [`CudaError::NoNvrtc`].
    pub fn with_cache(cache: Option<Cache>) -> Result<Compiler, CudaError> {
        Ok(Compiler { nvrtc: nvrtc()?, cache, warnings: Mutex::default() })
    }

    /// The run-time compiler behind it.
    pub fn nvrtc(&self) -> &'static Nvrtc {
        self.nvrtc
    }

    /// What went wrong without stopping anything, since the last call: damaged entries, a cache that cannot be written.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The key of a unit with this compiler.
    pub fn key(&self, unit: &Unit, arch: Arch) -> String {
        unit.key(arch, &self.nvrtc.version_text())
    }

    /// Compiles a unit, or takes it from the cache.
    ///
    /// # Errors
    /// [`CudaError::Rejected`] with the log, or what failed in the compiler itself.
    pub fn unit(&self, unit: &Unit, arch: Arch) -> Result<Cubin, CudaError> {
        let key = self.key(unit, arch);
        match self.cache.as_ref().map_or(Lookup::Miss, |c| c.get(&key)) {
            Lookup::Hit(header, bytes) => {
                let Header { entry, resources, .. } = header;
                return Ok(Cubin { bytes, arch, entry, resources, key, time: Duration::ZERO });
            }
            Lookup::Bad(why) => self.warn(why),
            Lookup::Miss => {}
        }
        let started = Instant::now();
        let rejected =
            |log: String| CudaError::Rejected { file: unit.source.name.clone(), arch: arch.to_string(), log };
        let output = self.nvrtc.compile(&Source {
            file: &unit.source.name,
            text: &unit.source.text,
            headers: &unit.source.headers,
            options: &unit.options(arch),
        });
        let output = output.map_err(|refusal| match refusal {
            Refusal::Source(log) => rejected(log),
            Refusal::Compiler(error) => error,
        })?;
        let (bytes, resources): (Vec<u8>, Resources) = if arch.ptx {
            if !output.ptx.contains(&format!(".entry {}", unit.entry)) {
                return Err(rejected(format!(
                    "there is no function {}: declare it extern \"C\" __global__",
                    unit.entry
                )));
            }
            // The driver reads PTX up to the zero byte that ends it.
            let mut bytes = output.ptx.into_bytes();
            bytes.push(0);
            (bytes, Resources::default())
        } else {
            let Some(operations) = sass::operations(&output.cubin, &unit.entry) else {
                return Err(rejected(format!(
                    "there is no function {}: declare it extern \"C\" __global__",
                    unit.entry
                )));
            };
            let resources =
                Resources { instructions: sass::classes(&operations), ..log::resources(&output.log, &unit.entry) };
            (output.cubin, resources)
        };
        // A clock too coarse for the compilation must not make it look like a cached one.
        let time = started.elapsed().max(Duration::from_nanos(1));
        if let Some(cache) = &self.cache {
            let header = Header {
                key: key.clone(),
                entry: unit.entry.clone(),
                arch: arch.to_string(),
                nvrtc: self.nvrtc.version_text(),
                resources: resources.clone(),
                sha256: digest(&bytes),
            };
            if let Err(e) = cache.put(&header, &bytes) {
                self.warn(format!(
                    "compiled kernels are not kept: {} cannot be written ({e})",
                    cache.folder().display()
                ));
            }
        }
        Ok(Cubin { bytes, arch, entry: unit.entry.clone(), resources, key, time })
    }

    /// Compiles many units on all processors; the answers are in the order of the units.
    pub fn units(&self, units: &[(Unit, Arch)]) -> Vec<Result<Cubin, CudaError>> {
        parallel(units, |(unit, arch)| self.unit(unit, *arch))
    }
}
