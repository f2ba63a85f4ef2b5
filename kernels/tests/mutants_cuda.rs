//! Every wrong CUDA kernel of `mutants_cuda/` that a processor can show to be wrong is rejected by the gate, and the kernels
//! that they are changes of pass it. The sources run as C++ on the emulator (`emulator/cuda_on_cpu.hpp`).

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use harness_spec::{CellFailure, Shape, Stage};
use kernels::check;
use kernels::op::{Arg, Depth, Op, Problem, Runner, op};
use variants::{KernelSpec, Limits, Registry, registry};

/// Kernels that are right: the others are changes of them.
const CONTROLS: [&str; 4] = ["control", "control_block", "control_logits", "control_mma"];
/// Rejected before they run, by the compiler or by the check of the instruction class.
const COMPILER: [&str; 2] = ["b3_wrong_label", "fault_compile_error"];
/// Right by themselves, and wrong behind a kernel that is not done yet.
const TOO_EARLY: [&str; 6] =
    ["early_newest", "early_query", "early_read", "early_scratch", "early_write", "never_waits"];
/// What only a device shows (see the README).
const DEVICE: [&str; 4] =
    ["b4_too_much_shared", "cheat_only_when_poisoned", "fault_illegal_address", "fault_infinite_loop"];

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    crate_root().join("tests/mutants_cuda")
}

fn all_names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(Result::unwrap);
    entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect()
}

/// The kernel of a folder, read as a user's folder is.
fn spec(name: &str) -> KernelSpec {
    let mut spaces: Registry = registry().clone();
    spaces.load_dir(&folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let found = spaces.kernels().find(|(_, k)| k.name == name).map(|(_, k)| k.clone());
    found.unwrap_or_else(|| panic!("{name}.toml has no kernel {name}"))
}

fn shape_of(op: &str) -> Shape {
    match op {
        "rmsnorm" | "quantize_a8" => Shape::of([("K", 1536)]),
        "rmsnorm_gemv_q4_0" => Shape::of([("N", 8), ("K", 1536)]),
        "sample" => Shape::of([("N", 1500), ("LEN", 50)]),
        "attn_decode" => Shape::of([("HEADS", 6), ("KV_HEADS", 2), ("DIM", 64), ("LEN", 64), ("MAX_LEN", 320)]),
        _ => Shape::of([("N", 32), ("K", 1024)]),
    }
}

#[repr(C)]
struct Launch {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_bytes: c_uint,
    descending: c_int,
    ranges: [[*const u8; 2]; 16],
    n_ranges: c_int,
    late: *const Late,
    n_late: c_int,
}

/// As `emulator::Late`.
#[repr(C)]
struct Late {
    range: [*const u8; 2],
    hidden: u8,
}

type Entry = unsafe extern "C" fn(*const Launch, *mut *mut c_void, c_int) -> *const c_char;

/// Memory as a device gives it: aligned to 256 bytes.
#[derive(Clone)]
#[repr(align(256))]
struct Chunk {
    _bytes: [u8; 256],
}

struct Buffer {
    chunks: Vec<Chunk>,
    bytes: usize,
}

const GUARD: u8 = 0xa5;

impl Buffer {
    /// `bytes` between guard bands.
    fn new(bytes: usize) -> Buffer {
        Buffer { chunks: vec![Chunk { _bytes: [GUARD; 256] }; bytes.div_ceil(256) + 2], bytes }
    }

    fn filled(bytes: usize, with: u8) -> Buffer {
        let mut buffer = Buffer::new(bytes);
        buffer.inside().fill(with);
        buffer
    }

    fn all(&mut self) -> &mut [u8] {
        let len = self.chunks.len() * 256;
        // SAFETY: chunks are arrays of bytes that lie one behind the other.
        unsafe { std::slice::from_raw_parts_mut(self.chunks.as_mut_ptr().cast(), len) }
    }

    fn inside(&mut self) -> &mut [u8] {
        let end = 256 + self.bytes;
        &mut self.all()[256..end]
    }

    fn guards_are_whole(&mut self) -> bool {
        let end = 256 + self.bytes;
        let all = self.all();
        all[..256].iter().chain(&all[end..]).all(|&b| b == GUARD)
    }
}

/// A kernel compiled for the processor. State of its own lives as long as it does, as on a device.
struct Emulated {
    spec: KernelSpec,
    op: &'static dyn Op,
    limits: Limits,
    library: libloading::Library,
    launches: c_int,
    /// Whether the kernel ahead writes late, as in a programmatic chain.
    late: bool,
}

impl Emulated {
    fn build(name: &str) -> Result<Emulated, String> {
        let spec = spec(name);
        let dir = tempfile::tempdir().unwrap();
        let (unit, object) = (dir.path().join("unit.cpp"), dir.path().join("unit.so"));
        let source = folder().join(name).join(format!("{name}.cu"));
        let text = format!("#include \"cuda_on_cpu.hpp\"\n#include {source:?}\nEDGELLM_EMULATED_ENTRY({name})\n");
        std::fs::write(&unit, text).unwrap();
        let root = crate_root();
        let out = Command::new("g++")
            .args(["-std=c++17", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC"])
            // Each library has an emulator of its own, although they are loaded into one process.
            .args(["-fno-gnu-unique", "-fvisibility=hidden"])
            .args(["tests/emulator", "cuda/include", "cuda"].map(|d| format!("-I{}", root.join(d).display())))
            .args(spec.definitions(&spec.default_variant()).iter().map(|(name, value)| format!("-D{name}={value}")))
            .arg("-o")
            .args([&object, &unit])
            .output()
            .expect("g++ compiles kernels for the emulator: install it");
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        // SAFETY: the library has no initialisers but those of plain data.
        let library = unsafe { libloading::Library::new(&object) }.unwrap();
        let op = op(&spec.op).expect("its space is that of a known op");
        let limits = Limits { cc: 90, sms: 132, smem: 232_448, l2: 60 << 20, threads_per_sm: 2048, isa: None };
        Ok(Emulated { spec, op, limits, library, launches: 0, late: true })
    }
}

impl Runner for Emulated {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        let args = self.op.arguments(problem, &self.spec)?;
        let geometry = self.spec.geometry(&self.spec.default_variant(), &problem.workload.shape, &self.limits);
        let geometry = geometry.map_err(|e| CellFailure::new(Stage::Launch, e.to_string()))?;
        let mut buffers: Vec<Option<Buffer>> = args
            .iter()
            .map(|arg| match arg {
                Arg::In { bytes, .. } | Arg::State { bytes, .. } | Arg::Settled { bytes } => {
                    let mut buffer = Buffer::new(bytes.len());
                    buffer.inside().copy_from_slice(bytes);
                    Some(buffer)
                }
                Arg::Out(i) => Some(Buffer::filled(problem.outputs[*i].bytes(), 0xff)),
                Arg::Scratch { bytes, zeroed } => Some(Buffer::filled(*bytes, if *zeroed { 0 } else { 0xff })),
                Arg::I32(_) | Arg::I64(_) | Arg::F32(_) => None,
            })
            .collect();
        let mut launch = Launch {
            grid: geometry.grid,
            block: geometry.block,
            dynamic_bytes: geometry.smem,
            descending: self.launches % 2,
            ranges: [[std::ptr::null(); 2]; 16],
            n_ranges: 0,
            late: std::ptr::null(),
            n_late: 0,
        };
        self.launches += 1;
        let mut late = Vec::new();
        // Each argument as the eight bytes that its pointer leads to.
        let mut values: Vec<u64> = Vec::with_capacity(args.len());
        for (arg, buffer) in args.iter().zip(&mut buffers) {
            values.push(match (arg, buffer) {
                (Arg::I32(v), _) => u64::from(*v as u32),
                (Arg::I64(v), _) => *v as u64,
                (Arg::F32(v), _) => u64::from(v.to_bits()),
                (_, Some(buffer)) => {
                    let range = buffer.inside().as_ptr_range();
                    launch.ranges[launch.n_ranges as usize] = [range.start, range.end];
                    launch.n_ranges += 1;
                    // Small buffers hold ids and positions: zero leads to no wild address.
                    let hidden = if buffer.bytes <= 64 { 0 } else { 0xff };
                    for part in if self.late { arg.late(buffer.bytes) } else { Vec::new() } {
                        let range = [part.start, part.end].map(|at| range.start.wrapping_add(at));
                        late.push(Late { range, hidden });
                    }
                    range.start as u64
                }
                (_, None) => unreachable!("every pointer has a buffer"),
            });
        }
        (launch.late, launch.n_late) = (late.as_ptr(), late.len() as c_int);
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        // SAFETY: the wrapper exports this function; the arguments are those of the op in their order, the buffers outlive
        // the call, and a write outside of them lands in guard bands (mutants go no further).
        let error = unsafe {
            let entry: libloading::Symbol<'_, Entry> = self.library.get(b"edgellm_emulated_launch").unwrap();
            let text = entry(&launch, pointers.as_mut_ptr(), pointers.len() as c_int);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        if let Some(error) = error {
            return Err(CellFailure::new(Stage::Fault, error));
        }
        let mut outputs = vec![Vec::new(); problem.outputs.len()];
        for (arg, buffer) in args.iter().zip(&mut buffers) {
            let Some(buffer) = buffer else { continue };
            if !buffer.guards_are_whole() {
                return Err(CellFailure::new(Stage::Check, "wrote outside of a buffer: a guard band changed"));
            }
            match arg {
                Arg::Out(i) => outputs[*i] = buffer.inside().to_vec(),
                Arg::Scratch { zeroed: true, .. } if buffer.inside().iter().any(|&b| b != 0) => {
                    return Err(CellFailure::new(Stage::Check, "left scratch memory that is not zero"));
                }
                _ => {}
            }
        }
        Ok(outputs)
    }

    fn admits(&self, shape: &Shape) -> bool {
        self.spec.admits(&self.spec.default_variant(), shape, &self.limits).is_ok()
    }
}

/// What the gate says of each of these behind a kernel that writes late, or by itself; on all processors.
fn verdicts(names: &[String], late: bool) -> Vec<Result<(), CellFailure>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![None; names.len()]));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut kernel =
                        Emulated::build(name).unwrap_or_else(|log| panic!("{name} does not compile:\n{log}"));
                    kernel.late = late;
                    let (op, spec) = (kernel.op, kernel.spec.clone());
                    let verdict = check::run(op, &shape_of(&spec.op), &spec, 1, Depth::Quick, &mut kernel).map(drop);
                    let at = names.iter().position(|n| n == name).expect("it is one of them");
                    done.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(verdict);
                }
            });
        }
    });
    done.into_inner().unwrap().into_iter().map(|v| v.expect("every kernel was run")).collect()
}

#[test]
fn every_mutant_that_a_processor_can_show_is_rejected_with_the_input_that_exposed_it() {
    let others: BTreeSet<&str> = [&CONTROLS[..], &COMPILER[..], &DEVICE[..]].concat().into_iter().collect();
    let names: Vec<String> = all_names().into_iter().filter(|n| !others.contains(n.as_str())).collect();
    assert!(names.len() >= 40, "only {} mutants were found", names.len());
    let (mut table, mut passed) = (String::new(), Vec::new());
    for (name, verdict) in names.iter().zip(verdicts(&names, true)) {
        match verdict {
            Ok(()) => passed.push(name.as_str()),
            Err(failure) => {
                assert!(matches!(failure.stage, Stage::Check | Stage::Fault), "{name}: {failure}");
                let case = failure.message.split(": ").next().unwrap_or_default();
                assert!(case.contains('='), "{name}: the message names no input and shape: {failure}");
                writeln!(table, "{name} | {case}").unwrap();
            }
        }
    }
    assert!(passed.is_empty(), "these passed the whole gate: {passed:?}\n{table}");
    let committed = include_str!("mutants_cuda/exposed_by.txt");
    let same = committed.lines().eq(table.lines());
    assert!(same, "which input exposes which mutant has changed; if that is right, exposed_by.txt becomes:\n{table}");
}

#[test]
fn the_kernels_that_mutants_are_changes_of_pass() {
    let names = CONTROLS.map(String::from);
    for (name, verdict) in names.iter().zip(verdicts(&names, true)) {
        assert_eq!(verdict, Ok(()), "{name}");
    }
}

#[test]
fn kernels_that_only_fail_to_wait_for_the_kernel_ahead_are_right_by_themselves() {
    let names = TOO_EARLY.map(String::from);
    for (name, verdict) in names.iter().zip(verdicts(&names, false)) {
        assert_eq!(verdict, Ok(()), "{name}");
    }
}

#[test]
fn every_mutant_has_its_line_in_the_readme_and_is_of_the_kind_it_says() {
    let readme = include_str!("mutants_cuda/README.md");
    for name in all_names() {
        let line = readme.lines().find(|l| l.starts_with(&format!("| `{name}` |")));
        let line = line.unwrap_or_else(|| panic!("the README does not list {name}"));
        let kind = match name.as_str() {
            n if CONTROLS.contains(&n) => "passes",
            n if COMPILER.contains(&n) => "compiler",
            n if DEVICE.contains(&n) => "device",
            _ => "emulator",
        };
        assert!(line.ends_with(&format!("| {kind} |")), "{name} is shown by: {kind}");
        assert_eq!(spec(&name).entry.as_deref(), Some(name.as_str()));
    }
}

#[test]
fn a_source_that_does_not_compile_is_refused_with_its_file_and_line() {
    let log = Emulated::build("fault_compile_error").err().expect("it must not compile");
    assert!(log.contains("fault_compile_error.cu:") && log.contains("no_such_name"), "{log}");
}
