//! Device kernels on the processor: a variant's source is compiled as C++ over `cuda_on_cpu.hpp` and run block by block.
//!
//! This proves arithmetic and indexing, and that barriers are where they must be, as the wait for earlier kernels of a
//! programmatic chain. It proves nothing about races on real hardware, memory order between blocks, registers or speed.

use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use harness_spec::{CellFailure, Shape, Stage, VariantId};
use kernels::op::{Arg, Op, Problem, Runner};
use variants::{KernelSpec, Limits};

/// Bytes of poison before and behind every buffer.
const BAND: usize = 512;
const POISON: u8 = 0xFF;
const CANARY: u8 = 0xA5;
const MAX_RANGES: usize = 16;

/// A weight matrix above this is left to the device: an emulated multiply-add costs a thousand real ones.
const MOST_WORK: u64 = 40_000;

/// As `emulator::Range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    begin: *const u8,
    end: *const u8,
}

/// As `emulator::Late`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Late {
    range: Range,
    hidden: u8,
}

/// What a buffer of this size holds where earlier kernels have not written it yet. Small ones hold ids and positions: zero
/// leads to no wild address.
const fn hidden(len: usize) -> u8 {
    if len <= 64 { 0 } else { POISON }
}

/// As `emulator::Launch`.
#[repr(C)]
struct Launch {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_bytes: u32,
    descending: c_int,
    ranges: [Range; MAX_RANGES],
    n_ranges: c_int,
    late: *const Late,
    n_late: c_int,
}

type Entry = unsafe extern "C" fn(*const Launch, *mut *mut c_void, c_int) -> *const c_char;

/// A kernel compiled for the processor.
pub struct Emulated {
    library: libloading::Library,
}

/// The compiler: `CXX`, else g++. `None` where there is none.
pub fn compiler() -> Option<String> {
    let name = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    Command::new(&name).arg("--version").output().ok().filter(|o| o.status.success()).map(|_| name)
}

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text that a compilation may read, as one hash: a changed header recompiles all.
fn hash_of_sources() -> u64 {
    fn walk(folder: &Path, hasher: &mut DefaultHasher) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|e| e.expect("a folder of the crate can be listed").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, hasher);
            } else {
                path.hash(hasher);
                fs::read(&path).unwrap().hash(hasher);
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    walk(&crate_root().join("cuda"), &mut hasher);
    walk(&crate_root().join("tests/emulator"), &mut hasher);
    hasher.finish()
}

/// What every compilation is given. A device rounds a product and its sum apart unless the source says fma. Compiling takes
/// longer than running: `-Og` halves the one and costs the other a quarter.
const FLAGS: [&str; 7] =
    ["-std=c++17", "-Og", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-ffp-contract=off", "-w"];

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated")
}

fn sources() -> u64 {
    static SOURCES: LazyLock<u64> = LazyLock::new(hash_of_sources);
    *SOURCES
}

/// A folder with the emulator's header precompiled, which is much of the work of a compilation: there are hundreds.
/// Where the compiler makes none of it, or none that fits a unit, the header itself is read.
fn precompiled() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = cache().join(format!("{:016x}.headers", sources()));
        let header = folder.join("cuda_on_cpu.hpp.gch");
        if !header.exists() && fs::create_dir_all(&folder).is_ok() {
            let part = folder.join(format!("{}.part", std::process::id()));
            let made = Command::new(compiler().expect("callers have looked for a compiler"))
                .args(FLAGS)
                .args(["-x", "c++-header"])
                .arg(crate_root().join("tests/emulator/cuda_on_cpu.hpp"))
                .arg("-o")
                .arg(&part)
                .output();
            if made.is_ok_and(|output| output.status.success()) {
                let _ = fs::rename(&part, &header);
            }
        }
        folder
    });
    &FOLDER
}

impl Emulated {
    /// Compiles `text`, which defines `entry`; `folder` is where it may include from besides the crate's own headers.
    pub fn compile(
        text: &str,
        folder: &Path,
        entry: &str,
        defines: &[(String, String)],
    ) -> Result<Emulated, CellFailure> {
        let failed = |what: String| CellFailure::new(Stage::Compile, what);
        let mut hasher = DefaultHasher::new();
        (sources(), text, folder, entry, defines).hash(&mut hasher);
        let cache = cache();
        fs::create_dir_all(&cache).map_err(|e| failed(e.to_string()))?;
        let object = cache.join(format!("{:016x}.so", hasher.finish()));
        if !object.exists() {
            let unit = cache.join(format!("{:016x}.{}.cpp", hasher.finish(), std::process::id()));
            let wrapped = format!("#include \"cuda_on_cpu.hpp\"\n#line 1\n{text}\nEDGELLM_EMULATED_ENTRY({entry})\n");
            fs::write(&unit, wrapped).map_err(|e| failed(e.to_string()))?;
            let part = unit.with_extension("part");
            let output = Command::new(compiler().expect("callers have looked for a compiler"))
                .args(FLAGS)
                .arg("-shared")
                .args(defines.iter().map(|(name, value)| format!("-D{name}={value}")))
                .arg("-I")
                .arg(precompiled())
                .arg("-I")
                .arg(crate_root().join("tests/emulator"))
                .arg("-I")
                .arg(folder)
                .arg("-I")
                .arg(crate_root().join("cuda/include"))
                .arg("-I")
                .arg(crate_root().join("cuda"))
                .arg(&unit)
                .arg("-o")
                .arg(&part)
                .output()
                .map_err(|e| failed(e.to_string()))?;
            let _ = fs::remove_file(&unit);
            if !output.status.success() {
                return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
            // Renamed only when whole, so that two test binaries may share the folder.
            fs::rename(&part, &object).map_err(|e| failed(e.to_string()))?;
        }
        // SAFETY: the object was compiled from sources of this crate; it runs no code on loading.
        let library = unsafe { libloading::Library::new(&object) }.map_err(|e| failed(e.to_string()))?;
        Ok(Emulated { library })
    }

    /// Compiles a variant of the registry.
    pub fn of(spec: &KernelSpec, id: &VariantId) -> Result<Emulated, CellFailure> {
        let path = crate_root().join(&spec.source);
        let text = fs::read_to_string(&path)
            .map_err(|e| CellFailure::new(Stage::Compile, format!("{}: {e}", path.display())))?;
        let entry = spec.entry.as_deref().expect("a CUDA kernel names its entry");
        let defines: Vec<(String, String)> = spec.definitions(id).into_iter().collect();
        Emulated::compile(&text, path.parent().expect("a source lies in a folder"), entry, &defines)
    }

    /// Runs a grid. `args` are pointers to the values of the kernel's parameters, `buffers` those it may read, and `late` the
    /// parts of them that earlier kernels write.
    ///
    /// # Safety
    /// The values have the types of the parameters, and pointers among them outlive the call.
    unsafe fn launch(
        &self,
        (grid, block, smem): ([u32; 3], [u32; 3], u32),
        descending: bool,
        args: &mut [*mut c_void],
        buffers: &[Range],
        late: &[Late],
    ) -> Result<(), String> {
        let mut ranges = [Range { begin: std::ptr::null(), end: std::ptr::null() }; MAX_RANGES];
        ranges[..buffers.len()].copy_from_slice(buffers);
        let launch = Launch {
            grid,
            block,
            dynamic_bytes: smem,
            descending: descending.into(),
            ranges,
            n_ranges: buffers.len() as c_int,
            late: late.as_ptr(),
            n_late: late.len() as c_int,
        };
        // SAFETY: every emulated object exports this name with this type (EDGELLM_EMULATED_ENTRY).
        let run = unsafe { self.library.get::<Entry>(b"edgellm_emulated_launch\0") }.map_err(|e| e.to_string())?;
        // SAFETY: the caller vouches for the arguments; the machine of this object is used by one thread, as `&mut` args
        // of one runner are.
        let error = unsafe { run(&launch, args.as_mut_ptr(), args.len() as c_int) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the emulator returns text that ends in zero and lives as long as the library.
        Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
    }
}

/// A buffer between canaries, at a multiple of 256 bytes as a device allocates it.
struct Buffer {
    memory: Vec<u8>,
    at: usize,
    len: usize,
}

impl Buffer {
    fn filled(len: usize, fill: u8) -> Buffer {
        let mut memory = vec![CANARY; len + 2 * BAND + 256];
        let at = BAND + (memory.as_ptr() as usize + BAND).wrapping_neg() % 256;
        memory[at..at + len].fill(fill);
        Buffer { memory, at, len }
    }

    fn of(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::filled(bytes.len(), 0);
        // What lies round an input is poison, so that a plain read past it shows in the result.
        buffer.memory.fill(POISON);
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.at..self.at + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.at..self.at + self.len]
    }

    /// Where a canary was overwritten, as an offset from the buffer's start.
    fn touched(&self) -> Option<isize> {
        let outside = |i: &usize| *i < self.at || *i >= self.at + self.len;
        (0..self.memory.len())
            .filter(outside)
            .find(|&i| self.memory[i] != CANARY)
            .map(|i| i as isize - self.at as isize)
    }

    fn range(&mut self) -> Range {
        let begin = self.bytes_mut().as_ptr();
        // SAFETY: one past the end of the same allocation.
        Range { begin, end: unsafe { begin.add(self.len) } }
    }
}

/// Runs one variant on the emulator. Every other run goes through threads and blocks in the opposite order.
pub struct EmulatedRunner<'a> {
    pub op: &'static dyn Op,
    pub spec: &'a KernelSpec,
    pub variant: &'a VariantId,
    pub limits: &'a Limits,
    pub kernel: &'a Emulated,
    pub descending: bool,
}

impl Runner for EmulatedRunner<'_> {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let geometry = self
            .spec
            .geometry(self.variant, &problem.workload.shape, self.limits)
            .map_err(|e| CellFailure::new(Stage::Launch, e.to_string()))?;
        let args = self.op.arguments(problem, self.spec)?;
        let mut buffers: Vec<Option<Buffer>> = args
            .iter()
            .map(|arg| match arg {
                Arg::In { bytes, .. } | Arg::State { bytes, .. } | Arg::Settled { bytes } => Some(Buffer::of(bytes)),
                Arg::Out(i) => Some(Buffer::filled(problem.outputs[*i].bytes(), POISON)),
                Arg::Scratch { bytes, zeroed } => Some(Buffer::filled(*bytes, if *zeroed { 0 } else { POISON })),
                _ => None,
            })
            .collect();
        let ranges: Vec<Range> = buffers.iter_mut().flatten().map(Buffer::range).collect();
        let pointers = args.iter().filter(|arg| !matches!(arg, Arg::I32(_) | Arg::I64(_) | Arg::F32(_)));
        let late: Vec<Late> = pointers
            .zip(&ranges)
            .flat_map(|(arg, buffer)| {
                let len = buffer.end as usize - buffer.begin as usize;
                let at = |byte: usize| buffer.begin.wrapping_add(byte);
                arg.late(len).into_iter().map(move |part| Late {
                    range: Range { begin: at(part.start), end: at(part.end) },
                    hidden: hidden(len),
                })
            })
            .collect();
        let mut places = ranges.iter();
        let mut values: Vec<u64> = args
            .iter()
            .map(|arg| match arg {
                Arg::I32(v) => u64::from(*v as u32),
                Arg::I64(v) => *v as u64,
                Arg::F32(v) => u64::from(v.to_bits()),
                _ => places.next().expect("a range for every buffer").begin as u64,
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        self.descending = !self.descending;
        let shape = (geometry.grid, geometry.block, geometry.smem);
        // SAFETY: the op gives the arguments of its kernels in their order; buffers and values outlive the call.
        unsafe { self.kernel.launch(shape, self.descending, &mut pointers, &ranges, &late) }
            .map_err(|text| CellFailure::new(Stage::Check, text))?;
        let mut outputs: Vec<Vec<u8>> = problem.outputs.iter().map(|_| Vec::new()).collect();
        for (arg, buffer) in args.iter().zip(&buffers) {
            let Some(buffer) = buffer else { continue };
            let wrote = match arg {
                Arg::Out(i) => {
                    outputs[*i] = buffer.bytes().to_vec();
                    buffer.touched()
                }
                Arg::Scratch { zeroed: true, .. } if buffer.bytes().iter().any(|&b| b != 0) => {
                    return Err(CellFailure::new(Stage::Check, "left its zeroed scratch memory dirty"));
                }
                Arg::Scratch { .. } => buffer.touched(),
                _ => None,
            };
            if let Some(at) = wrote {
                let text = format!("wrote at {at} of a buffer of {} bytes", buffer.bytes().len());
                return Err(CellFailure::new(Stage::Check, text));
            }
        }
        Ok(outputs)
    }

    fn admits(&self, shape: &Shape) -> bool {
        let dim = |name| shape.get(name).unwrap_or(1);
        // Of a vocabulary alone an entry costs a few operations.
        let entries = if shape.get("K").is_some() { dim("N") * dim("K") * dim("M") } else { dim("N") / 4 };
        let work = entries
            + dim("BYTES") / 4
            + dim("HEADS") * dim("DIM") * dim("LEN")
            + dim("F") * dim("K") * 2
            + (dim("HEADS") + 2 * dim("KV_HEADS")) * dim("DIM") * dim("K");
        work <= MOST_WORK && self.spec.admits(self.variant, shape, self.limits).is_ok()
    }
}

/// Runs a source of its own on words: `out[n]` starts as poison, `data` is readable. Returns `out` or the error.
pub fn run_words(
    text: &str,
    entry: &str,
    (blocks, threads, smem): (u32, u32, u32),
    data: &[u32],
    n: usize,
    descending: bool,
) -> Result<Vec<u32>, String> {
    let kernel = Emulated::compile(text, crate_root(), entry, &[]).map_err(|e| e.message)?;
    let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (mut data, mut out) = (Buffer::of(&bytes), Buffer::filled(n * 4, POISON));
    let ranges = [data.range(), out.range()];
    let mut values = [ranges[0].begin as u64, ranges[1].begin as u64];
    let mut args: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
    // SAFETY: every source that tests give takes `(const u8*, u32*)`.
    unsafe { kernel.launch(([blocks, 1, 1], [threads, 1, 1], smem), descending, &mut args, &ranges, &[]) }?;
    if let Some(at) = out.touched() {
        return Err(format!("wrote at {at} of the output"));
    }
    Ok(out.bytes().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
