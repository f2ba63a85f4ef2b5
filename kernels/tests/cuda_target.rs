//! The CUDA target on a device: every built-in kernel checked and timed, and the cheats of R4 found. Without a device
//! every test prints why it is skipped; EDGELLM_REQUIRE_GPU=1 makes that a failure.

mod cuda_support;

use std::path::Path;
use std::sync::Arc;

use cuda_support::{gpu, source};
use harness_spec::target::{Cell, Target};
use harness_spec::{Bytes, CellFailure, Policy, Stage, VariantId, Workload};
use kernels::cuda::CudaTarget;
use variants::{Backend, Limits, Registry, registry};

fn workload(op: &str, n: u64, k: u64) -> Workload {
    let dims: &[(&str, u64)] = match op {
        "rmsnorm" | "rmsnorm_half" => &[("K", k), ("M", 1)],
        "swiglu" => &[("F", k), ("M", 1), ("OUT", 8)],
        "add" => &[("COUNT", k)],
        "quantize_a8" => &[("K", k)],
        "sample" => &[("N", 49_152), ("LEN", 512)],
        "attn_decode" => &[("HEADS", 12), ("KV_HEADS", 2), ("DIM", 128), ("LEN", 512), ("MAX_LEN", 1024)],
        "attn_token" => {
            &[("HEADS", 12), ("KV_HEADS", 2), ("DIM", 128), ("LEN", 512), ("MAX_LEN", 1024), ("KV", 16), ("OUT", 8)]
        }
        "attn_prefill" => {
            &[("HEADS", 12), ("KV_HEADS", 2), ("DIM", 128), ("M", 128), ("POS", 70), ("MAX_LEN", 1024), ("KV", 16)]
        }
        "rope_append" => &[
            ("HEADS", 12),
            ("KV_HEADS", 2),
            ("DIM", 128),
            ("ROT", 128),
            ("M", 1),
            ("MAX_LEN", 1024),
            ("KV", 16),
            ("PAIRING", 0),
        ],
        "stream_read" => &[("BYTES", 4 << 20)],
        op if op.starts_with("qkv_rope_") => {
            &[("HEADS", 12), ("KV_HEADS", 2), ("DIM", 128), ("K", k), ("MAX_LEN", 64), ("KV", 16), ("PAIRING", 0)]
        }
        op if op.starts_with("gate_up_") => &[("F", n), ("K", k)],
        op if ["logits_", "norm_logits_", "gemv_add_", "rmsnorm_gemv_", "dequantize_"]
            .iter()
            .any(|name| op.starts_with(name)) =>
        {
            &[("N", n), ("K", k)]
        }
        _ => &[("N", n), ("K", k), ("M", 1)],
    };
    Workload::of(op, dims.iter().copied())
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

fn cell(variant: &VariantId, workload: &Workload, p: &str) -> Cell {
    Cell { variant: variant.clone(), workload: workload.clone(), policy: policy(p) }
}

#[test]
fn every_built_in_default_passes_the_gate_and_is_timed_under_every_policy() {
    let Some(_one) = gpu() else { return };
    let mut target = CudaTarget::open(Arc::new(registry().clone()), 0).unwrap();
    println!("{:?}\n{:?}", target.device(), target.facts());
    let limits = *target.limits();
    let mut failures = Vec::new();
    for space in registry().spaces() {
        for spec in space.kernels.iter().filter(|k| k.backend == Backend::Cuda) {
            let id = spec.default_variant();
            let w = workload(&space.op, 1536, 1536);
            if let Err(why) = spec.admits(&id, &w.shape, &limits) {
                println!("{id}: not at {w}: {why}");
                continue;
            }
            for p in ["cold+graph", "cold+graph_pdl", "hot+graph", "cold+eager", "hot+eager"] {
                if p.ends_with("pdl") && limits.cc < 90 {
                    continue;
                }
                let c = cell(&id, &w, p);
                let step = |target: &mut CudaTarget| -> Result<String, CellFailure> {
                    let prepared = target.prepare(std::slice::from_ref(&c)).remove(0)?;
                    let report = target.check(&c, 1)?;
                    let samples = target.sample(&c, 3)?;
                    assert!(samples[0].verified, "{id}: the first sample is looked at");
                    assert!(samples.iter().all(|s| s.ns > 100.0 && s.ns.is_finite()), "{id}: {samples:?}");
                    let best = samples.iter().map(|s| s.ns).fold(f64::INFINITY, f64::min);
                    Ok(format!(
                        "{:8.2} us {:7.0} GB/s, {} launches, {:?} MHz, {} cases, worst {:.2} of its bound",
                        best / 1e3,
                        prepared.bytes.0 as f64 / best,
                        samples[0].launches,
                        samples[0].sm_clock_mhz.map(f64::round),
                        report.cases.len(),
                        report.worst_of_bound
                    ))
                };
                match step(&mut target) {
                    Ok(text) => println!("{id} {p}: {text}"),
                    Err(e) if spec.is_library() && e.stage == Stage::Constraint => println!("{id}: skipped: {e}"),
                    Err(e) => {
                        println!("{id} {p}: FAILED {e}");
                        failures.push(format!("{id} {p}: {e}"));
                    }
                }
                if target.is_dead().is_some() {
                    panic!("the context was lost: {failures:#?}");
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_plain_kernel_of_every_op_takes_the_workload_that_is_run_here() {
    let limits = Limits::of_architecture(90).unwrap();
    let mut missing = Vec::new();
    let on_device = |k: &variants::KernelSpec| k.backend == Backend::Cuda;
    for space in registry().spaces().iter().filter(|space| space.kernels.iter().any(on_device)) {
        let w = workload(&space.op, 1536, 1536);
        let known = |dim: &str| space.dims.iter().any(|d| d == dim);
        if let Some(dim) = w.shape.0.keys().find(|dim| !known(dim)) {
            missing.push(format!("{}: no dimension {dim}", space.op));
        }
        for spec in space.kernels.iter().filter(|k| k.backend == Backend::Cuda && k.baseline) {
            if let Err(why) = spec.admits(&spec.default_variant(), &w.shape, &limits) {
                missing.push(format!("{}: {why}", spec.id()));
            }
        }
    }
    assert!(missing.is_empty(), "on a device nothing of these would run: {missing:#?}");
}

#[test]
fn the_canary_knows_the_ceilings_of_memory_cache_launch_and_clock() {
    let Some(_one) = gpu() else { return };
    let mut target = CudaTarget::open(Arc::new(registry().clone()), 0).unwrap();
    let l2 = target.limits().l2;
    let memory = target.canary(Bytes(l2 * 8)).unwrap();
    let cache = target.canary(Bytes(l2 / 4)).unwrap();
    println!("memory {memory:?}\ncache {cache:?}");
    assert!(memory.read_gb_per_s > 100.0 && cache.read_gb_per_s > memory.read_gb_per_s);
    assert!(memory.empty_launch_ns.is_some_and(|ns| (50.0..20_000.0).contains(&ns)));
    assert!(memory.sm_clock_mhz.is_some_and(|mhz| (100.0..5000.0).contains(&mhz)));
}

/// Writes a user's kernel of `gemv_f32`: a thread a row, `body` in place of the store of the sum.
fn user_kernel(folder: &Path, name: &str, globals: &str, before: &str, store: &str) {
    let source = format!(
        "typedef unsigned char u8; typedef unsigned long long u64;
{globals}
extern \"C\" __global__ void {name}(const u8* W, const u8* x, float* y, int N, int K, int M) {{
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= N) return;
    const float* w = (const float*)W + (u64)row * K;
    {before}
    for (int m = 0; m < M; ++m) {{
        const float* xs = (const float*)x + (u64)m * K;
        float sum = 0.0f;
        for (int k = 0; k < K; ++k) sum += w[k] * xs[k];
        {store}
    }}
}}"
    );
    std::fs::write(folder.join(format!("{name}.cu")), source).unwrap();
    let space = format!(
        "op = \"gemv_f32\"\ndoc = \"y = W x\"\n[[kernels]]\nname = \"{name}\"\nbackend = \"cuda\"\ndtypes = [\"F32\"]
layout = \"gguf\"\nactivations = \"f32\"\ninstruction = \"fma\"\ndoc = \"A test.\"\nsource = \"{name}.cu\"\nentry = \"{name}\"
[kernels.launch]\ngrid = \"ceil_div(N, 128)\"\nblock = \"128\"\n"
    );
    std::fs::write(folder.join(format!("{name}.toml")), space).unwrap();
}

const STORE: &str = "y[(u64)m * N + row] = sum;";

/// The cheats of R4, and an honest kernel that must pass.
fn user_registry(folder: &Path) -> Registry {
    user_kernel(folder, "honest", "", "", STORE);
    // Right as long as outputs are poisoned, as the gate has them.
    user_kernel(
        folder,
        "only_when_poisoned",
        "",
        "",
        "if (__float_as_uint(y[(u64)m * N + row]) == 0xffffffffu) y[(u64)m * N + row] = sum;",
    );
    // Skips every launch that follows another closely: right when launches are far apart, as in the gate. The time is
    // stored at the end, when every thread of the launch has read that of the launch before.
    user_kernel(
        folder,
        "skip_in_a_batch",
        "__device__ u64 last_end;
__device__ __forceinline__ u64 nanos() { u64 t; asm volatile(\"mov.u64 %0, %%globaltimer;\" : \"=l\"(t)); return t; }",
        "if (nanos() - *(volatile u64*)&last_end < 20000) return;",
        "y[(u64)m * N + row] = sum; if (row == 0 && m == M - 1) *(volatile u64*)&last_end = nanos();",
    );
    // Remembers results by the addresses of its arguments and returns them whatever the contents.
    user_kernel(
        folder,
        "remembers",
        "__device__ float memory[4096][64]; __device__ u64 known[4096];",
        "int slot = (int)(((u64)y >> 8) * 2654435761u % 4096u); bool hit = M == 1 && row < 64 && known[slot] == (u64)y + N;
    if (hit) { y[row] = memory[slot][row]; return; }",
        "y[(u64)m * N + row] = sum; if (M == 1 && row < 64) { memory[slot][row] = sum; if (row == 0) known[slot] = (u64)y + N; }",
    );
    let mut registry = registry().clone();
    registry.load_dir(folder).unwrap();
    registry
}

#[test]
fn a_users_folder_compiles_and_its_broken_kernel_shows_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    user_kernel(folder.path(), "broken", "", "", "y[row] = undeclared;");
    let mut registry = registry().clone();
    registry.load_dir(folder.path()).unwrap();
    let Ok(compiler) = kernels::cuda::compile::Compiler::with_cache(None) else {
        println!("skipped: no NVRTC");
        return;
    };
    let id: VariantId = "gemv_f32/broken@cuda".parse().unwrap();
    let (_, spec) = registry.find(&id).unwrap();
    let arch = kernels::cuda::compile::Arch::sm(90);
    let e = kernels::cuda::kernel::compile(&compiler, spec, &id, arch).unwrap_err();
    assert_eq!(e.stage, Stage::Compile);
    assert!(e.message.contains("broken.cu(") && e.message.contains("undeclared"), "{e}");
    let honest = tempfile::tempdir().unwrap();
    let registry = user_registry(honest.path());
    for name in ["honest", "only_when_poisoned", "skip_in_a_batch", "remembers"] {
        let id: VariantId = format!("gemv_f32/{name}@cuda").parse().unwrap();
        let (_, spec) = registry.find(&id).unwrap();
        let cubin = kernels::cuda::kernel::compile(&compiler, spec, &id, arch);
        assert!(cubin.is_ok(), "{name}: {}", cubin.unwrap_err());
    }
}

#[test]
fn a_kernel_that_is_right_when_checked_and_wrong_when_timed_is_found() {
    let Some(_one) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut target = CudaTarget::open(Arc::new(user_registry(folder.path())), 0).unwrap();
    let w = workload("gemv_f32", 64, 256);
    for (name, cheats) in
        [("honest", false), ("only_when_poisoned", true), ("skip_in_a_batch", true), ("remembers", true)]
    {
        let id: VariantId = format!("gemv_f32/{name}@cuda").parse().unwrap();
        let c = cell(&id, &w, "cold+graph");
        target.prepare(std::slice::from_ref(&c)).remove(0).unwrap();
        let outcome = target.check(&c, 7).and_then(|_| target.sample(&c, 40));
        match outcome {
            Ok(samples) => {
                let verified = samples.iter().filter(|s| s.verified).count();
                println!("{name}: {} samples, {verified} verified", samples.len());
                assert!(!cheats, "{name} was not found out");
                assert!(verified * 20 >= samples.len(), "at least one in twenty is verified");
            }
            Err(e) => {
                println!("{name}: {e}");
                assert!(cheats && matches!(e.stage, Stage::Cheat | Stage::Check), "{name}: {e}");
            }
        }
    }
}

/// The mutants that are right by themselves and break the rule of the wait, each with a kernel that keeps it.
const TOO_EARLY: [(&str, &str, bool); 8] = [
    ("gemv_q4_0", "control", false),
    ("logits_q8_0", "control_logits", false),
    ("attn_decode", "plain", false),
    ("attn_decode", "early_length", true),
    ("attn_decode", "early_read", true),
    ("attn_decode", "early_scratch", true),
    ("gemv_q4_0", "early_write", true),
    ("gemv_q4_0", "never_waits", true),
];

#[test]
fn a_kernel_that_reads_or_stores_before_the_kernel_ahead_is_done_is_rejected_where_launches_overlap() {
    let Some(_one) = gpu() else { return };
    let mutants = source("tests/mutants_cuda");
    let mut registry = registry().clone();
    for (_, name, _) in TOO_EARLY.iter().filter(|(_, name, _)| *name != "plain") {
        registry.load_dir(&mutants.join(name)).unwrap();
    }
    let mut target = CudaTarget::open(Arc::new(registry), 0).unwrap();
    if target.limits().cc < 90 {
        println!("skipped: programmatic launches need compute capability 9.0");
        return;
    }
    let mut wrong = Vec::new();
    for (op, name, too_early) in TOO_EARLY {
        let id: VariantId = format!("{op}/{name}@cuda").parse().unwrap();
        let by_itself = cell(&id, &workload(op, 64, 1024), "cold+graph");
        target.prepare(std::slice::from_ref(&by_itself)).remove(0).unwrap();
        if let Err(e) = target.check(&by_itself, 1) {
            wrong.push(format!("{name} must be right by itself: {e}"));
        }
        let chained = Cell { policy: policy("cold+graph_pdl"), ..by_itself };
        match target.check(&chained, 1) {
            Ok(report) => {
                println!("{id} in a chain: passes {} cases", report.cases.len());
                if too_early {
                    wrong.push(format!("{name} passed in a chain"));
                }
            }
            Err(e) => {
                println!("{id} in a chain: {e}");
                if !too_early || e.stage != Stage::Check || !e.message.contains("right by itself") {
                    wrong.push(format!("{name} in a chain: {e}"));
                }
            }
        }
        assert!(target.is_dead().is_none(), "the context was lost: {wrong:#?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_cell_that_cannot_be_is_a_typed_failure_and_the_next_one_goes_on() {
    let Some(_one) = gpu() else { return };
    let mut target = CudaTarget::open(Arc::new(registry().clone()), 0).unwrap();
    let w = workload("gemv_f32", 64, 256);
    let none: VariantId = "gemv_f32/nothing_of_that_name@cuda".parse().unwrap();
    let e = target.prepare(&[cell(&none, &w, "cold+graph")]).remove(0).unwrap_err();
    assert!(e.stage == Stage::Harness && e.message.contains("bench list variants"), "{e}");
    let kernel = registry().kernels().find(|(_, k)| k.backend == Backend::Cuda).unwrap().1;
    let id = kernel.default_variant();
    let e = target.sample(&cell(&id, &workload(&id.op, 1536, 1536), "cold+in_engine"), 1).unwrap_err();
    assert!(e.message.contains("in_engine"), "{e}");
    assert!(target.is_dead().is_none());
}
