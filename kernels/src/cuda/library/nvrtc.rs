//! The run-time compiler: which library, and the few functions of it that are used.
//!
//! The binding crate loads the first library that answers to one of a list of bare names, offers no way to give it a
//! path, and panics where there is none, so the ten functions are looked up here.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::Library;

use super::places::{Surroundings, nvrtc_files, soname_major};
use super::{Wanted, driver_version, open};
use crate::cuda::CudaError;

type Program = *mut c_void;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// The run-time compiler, loaded.
#[derive(Debug)]
pub struct Nvrtc {
    /// Its version, as (13, 0).
    pub version: (u32, u32),
    /// The library.
    pub path: PathBuf,
    /// Why it was looked for there, such as `Python environment`.
    pub origin: &'static str,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    log: (Size, Text),
    ptx: (Size, Text),
    cubin: (Size, Text),
}

/// One translation unit for the compiler.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// The name that errors carry.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
    /// Headers in memory: the name as it stands in the `#include`, and the text.
    pub headers: &'a [(String, String)],
    /// Options of the compiler.
    pub options: &'a [String],
}

/// What the compiler made of a translation unit.
#[derive(Clone, Debug)]
pub struct Output {
    /// Machine code; empty for a virtual architecture.
    pub cubin: Vec<u8>,
    /// PTX.
    pub ptx: String,
    /// The log of a success: warnings and what `--ptxas-options=-v` prints.
    pub log: String,
}

/// How a compilation ended without output.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The source is wrong; the compiler's log.
    Source(String),
    /// The compiler failed.
    Compiler(CudaError),
}

/// The run-time compiler of this process: found once, see [`Surroundings::nvrtc`] for where. `EDGELLM_NVRTC`, a library
/// or its folder, goes before everything and is not replaced by another where it is unusable.
///
/// # Errors
/// [`CudaError::NoNvrtc`] where there is none whose major version the driver of this machine, if it has one, can run.
pub fn nvrtc() -> Result<&'static Nvrtc, CudaError> {
    static FOUND: OnceLock<Result<Nvrtc, CudaError>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Nvrtc, CudaError> {
    // Cubins and PTX of a newer major version do not load. Without a driver any version will do.
    let newest = driver_version().ok().map(|(major, _)| major);
    let mut tried = Vec::new();
    let wanted = Wanted {
        variable: "EDGELLM_NVRTC",
        names: ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
        places: Surroundings::of_this_process().nvrtc(),
        files: nvrtc_files,
    };
    let (given, candidates) = wanted.candidates();
    for (path, origin) in candidates {
        if let (Some(newest), Some(major)) = (newest, soname_major(&path))
            && major > newest
        {
            tried.push(format!("{} is newer than the driver, which runs CUDA {newest}", path.display()));
            continue;
        }
        match Nvrtc::load(&path, origin) {
            Ok(n) if newest.is_some_and(|newest| n.version.0 > newest) => tried.push(format!(
                "{} is version {}.{} and the driver runs CUDA {}",
                path.display(),
                n.version.0,
                n.version.1,
                newest.unwrap_or_default()
            )),
            Ok(n) => return Ok(n),
            // A bare name that the loader does not know is no finding.
            Err(_) if path.components().count() == 1 && origin == "system loader" => {}
            Err(e) => tried.push(format!("{}: {e}", path.display())),
        }
    }
    let reason = match given {
        Some(path) if tried.is_empty() => format!("EDGELLM_NVRTC names {}, which has no libnvrtc.so", path.display()),
        _ if tried.is_empty() => {
            "libnvrtc.so was looked for by CUDA_PATH, the system loader, in the usual toolkit folders and in Python \
             environments"
                .to_owned()
        }
        _ => tried.join("; "),
    };
    Err(CudaError::NoNvrtc { reason })
}

impl Nvrtc {
    fn load(path: &Path, origin: &'static str) -> Result<Nvrtc, String> {
        // The wheels' library has no run path, and looks for its companion by bare name when it first compiles. Opened
        // beforehand, the loader finds it by that name.
        if let Some(folder) = path.parent().filter(|f| f.is_dir()) {
            for companion in companions(folder, soname_major(path).unwrap_or(0)) {
                // A companion of another version is of no use and no harm.
                let _ = open(&companion);
            }
        }
        let lib = open(path)?;
        let nvrtc = Nvrtc {
            version: (0, 0),
            path: path.to_owned(),
            origin,
            create: symbol(lib, c"nvrtcCreateProgram")?,
            compile: symbol(lib, c"nvrtcCompileProgram")?,
            destroy: symbol(lib, c"nvrtcDestroyProgram")?,
            error_string: symbol(lib, c"nvrtcGetErrorString")?,
            log: (symbol(lib, c"nvrtcGetProgramLogSize")?, symbol(lib, c"nvrtcGetProgramLog")?),
            ptx: (symbol(lib, c"nvrtcGetPTXSize")?, symbol(lib, c"nvrtcGetPTX")?),
            cubin: (symbol(lib, c"nvrtcGetCUBINSize")?, symbol(lib, c"nvrtcGetCUBIN")?),
        };
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = symbol(lib, c"nvrtcVersion")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are valid for one int.
        let code = unsafe { version(&mut major, &mut minor) };
        if code != 0 {
            return Err(format!("nvrtcVersion returned {code}"));
        }
        Ok(Nvrtc { version: (major as u32, minor as u32), ..nvrtc })
    }

    /// The version as text, `13.0`.
    pub fn version_text(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Compiles one translation unit. May be called from many threads at once.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn compile(&self, source: &Source<'_>) -> Result<Output, Refusal> {
        let c = |text: &str, what: &str| {
            CString::new(text).map_err(|_| Refusal::Source(format!("{}: {what} contains a zero byte", source.file)))
        };
        let text = c(source.text, "the source")?;
        let file = c(source.file, "the file name")?;
        let headers: Vec<(CString, CString)> =
            source.headers.iter().map(|(n, t)| Ok((c(n, "a header's name")?, c(t, n)?))).collect::<Result<_, _>>()?;
        let (names, texts): (Vec<_>, Vec<_>) = headers.iter().map(|(n, t)| (n.as_ptr(), t.as_ptr())).unzip();
        let options: Vec<CString> = source.options.iter().map(|o| c(o, "an option")).collect::<Result<_, _>>()?;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();

        let mut raw: Program = std::ptr::null_mut();
        // SAFETY: every pointer is to a C string or an array of `headers.len()` of them that outlives the call; NVRTC
        // copies what it keeps.
        let code = unsafe {
            (self.create)(&mut raw, text.as_ptr(), file.as_ptr(), names.len() as c_int, texts.as_ptr(), names.as_ptr())
        };
        self.ok("nvrtcCreateProgram", code)?;
        let program = Guard { nvrtc: self, raw };
        // SAFETY: the program is alive, the options are `options.len()` C strings that outlive the call.
        let code = unsafe { (self.compile)(program.raw, options.len() as c_int, options.as_ptr()) };
        let log = String::from_utf8_lossy(&program.bytes("nvrtcGetProgramLog", self.log)?).trim_end().to_owned();
        // NVRTC_ERROR_COMPILATION and NVRTC_ERROR_INVALID_OPTION are the source's; the rest is ours or the machine's.
        if code == 6 || code == 5 {
            return Err(Refusal::Source(log));
        }
        if code != 0 {
            let mut e = self.error("nvrtcCompileProgram", code);
            if let CudaError::Nvrtc { text, .. } = &mut e
                && !log.is_empty()
            {
                text.push_str(&format!("; {log}"));
            }
            return Err(Refusal::Compiler(e));
        }
        let ptx = String::from_utf8_lossy(&program.bytes("nvrtcGetPTX", self.ptx)?).into_owned();
        let cubin = program.bytes("nvrtcGetCUBIN", self.cubin)?;
        Ok(Output { cubin, ptx, log })
    }

    fn error(&self, call: &'static str, code: c_int) -> CudaError {
        // SAFETY: the function returns a static C string for every code.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        CudaError::Nvrtc { call, code, text: text.to_string_lossy().into_owned() }
    }

    fn ok(&self, call: &'static str, code: c_int) -> Result<(), Refusal> {
        if code == 0 { Ok(()) } else { Err(Refusal::Compiler(self.error(call, code))) }
    }
}

/// A program that is destroyed at the end of its scope.
struct Guard<'a> {
    nvrtc: &'a Nvrtc,
    raw: Program,
}

impl Guard<'_> {
    /// One of the results of a program. Text loses the zero byte that ends it.
    fn bytes(&self, call: &'static str, (size, get): (Size, Text)) -> Result<Vec<u8>, Refusal> {
        let mut len = 0usize;
        // SAFETY: the program is alive and the pointer is valid for one size.
        self.nvrtc.ok(call, unsafe { size(self.raw, &mut len) })?;
        let mut out = vec![0u8; len];
        if len > 0 {
            // SAFETY: `out` has the length that the library asked for.
            self.nvrtc.ok(call, unsafe { get(self.raw, out.as_mut_ptr().cast()) })?;
        }
        if call != "nvrtcGetCUBIN" && out.last() == Some(&0) {
            out.pop();
        }
        Ok(out)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created by the same library and is used no more. A failure would leak it.
        unsafe { (self.nvrtc.destroy)(&mut self.raw) };
    }
}

fn symbol<T: Copy>(lib: &Library, name: &CStr) -> Result<T, String> {
    // SAFETY: every caller names the type that nvrtc.h declares for the function, which has not changed since 11.2.
    unsafe { lib.get::<T>(name.to_bytes_with_nul()) }.map(|s| *s).map_err(|e| e.to_string())
}

/// The libraries that the compiler wants beside itself; of its own major where the name says so.
fn companions(folder: &Path, major: u32) -> Vec<PathBuf> {
    let prefix = if major == 0 { "libnvrtc-builtins.so".to_owned() } else { format!("libnvrtc-builtins.so.{major}") };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut out: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}
