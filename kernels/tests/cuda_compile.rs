//! The compiler end to end, on sources made here. Needs NVRTC and no device.

use std::collections::BTreeMap;

use kernels::cuda::CudaError;
use kernels::cuda::compile::{Arch, Cache, Compiler, SourceFile, Unit};

/// A compiler, or `None` with a printed reason; a failure where NVRTC is required.
fn compiler(cache: Option<Cache>) -> Option<Compiler> {
    match Compiler::with_cache(cache) {
        Ok(c) => Some(c),
        Err(e) if std::env::var_os("EDGELLM_REQUIRE_NVRTC").is_some() => panic!("NVRTC is required: {e}"),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

fn unit(text: &str) -> Unit {
    Unit {
        source: SourceFile {
            name: "kernels/cuda/test/k.cu".to_owned(),
            text: text.to_owned(),
            headers: vec![("one.cuh".to_owned(), "static __device__ int one(int x) { return x + 1; }".to_owned())],
        },
        entry: "k".to_owned(),
        defines: BTreeMap::from([("ROWS".to_owned(), "4".to_owned())]),
    }
}

const DP4A: &str = "#include \"one.cuh\"
#ifndef ROWS
#error \"every tunable must be set by the build\"
#endif
extern \"C\" __global__ void k(const int* a, float* y) {
    __shared__ int s[64];
    s[threadIdx.x & 63] = a[threadIdx.x];
    __syncthreads();
    int dot = __dp4a(s[0], s[ROWS], a[threadIdx.x]);
    y[threadIdx.x] = y[threadIdx.x + 1] * (float)one(dot) + 1.0f;
}";

const FMA: &str = "extern \"C\" __global__ void k(const float* a, float* y) {
    y[threadIdx.x] = a[threadIdx.x] * a[threadIdx.x + 1] + a[7];
}";

#[test]
fn every_architecture_gets_a_cubin_with_its_resources_and_instruction_classes() {
    let Some(c) = compiler(None) else { return };
    let units: Vec<(Unit, Arch)> = Arch::ALL.into_iter().flat_map(|a| [(unit(DP4A), a), (unit(FMA), a)]).collect();
    for (pair, answer) in units.chunks(2).zip(c.units(&units).chunks(2)) {
        let arch = pair[0].1;
        let dp4a = answer[0].as_ref().unwrap_or_else(|e| panic!("{arch}: {e}"));
        let r = &dp4a.resources;
        assert!(r.registers.is_some_and(|n| (4..=64).contains(&n)), "{arch}: {r:?}");
        assert_eq!((r.local_bytes, r.spill_bytes, r.static_smem_bytes), (Some(0), Some(0), Some(256)), "{arch}");
        assert_eq!(r.instructions, ["idp", "fma", "lut"], "{arch}");
        assert_eq!(dp4a.widest_load(), Some(4), "{arch}");
        let fma = answer[1].as_ref().unwrap_or_else(|e| panic!("{arch}: {e}"));
        assert_eq!(fma.resources.instructions, ["fma"], "{arch}");
        assert_eq!(fma.resources.static_smem_bytes, Some(0), "{arch}");
    }
}

#[test]
fn ptx_for_a_virtual_architecture_ends_with_a_zero_byte_and_names_the_entry() {
    let Some(c) = compiler(None) else { return };
    let ptx = c.unit(&unit(FMA), Arch::compute(75)).unwrap();
    assert_eq!(ptx.bytes.last(), Some(&0));
    assert!(String::from_utf8_lossy(&ptx.bytes).contains(".target sm_75"));
    assert_eq!(ptx.widest_load(), None);
}

#[test]
fn an_error_shows_the_log_with_the_file_and_the_line() {
    let Some(c) = compiler(None) else { return };
    let broken = unit("// one\nextern \"C\" __global__ void k() {\n    undeclared = 1;\n}\n");
    let Err(CudaError::Rejected { log, .. }) = c.unit(&broken, Arch::sm(90)) else { panic!("it compiled") };
    assert!(log.contains("kernels/cuda/test/k.cu(3)") && log.contains("undeclared"), "{log}");
    // ptxas refuses what the front end lets pass; its log must arrive too.
    let asm = unit("extern \"C\" __global__ void k(int* y) { asm volatile(\"no.such.instruction;\"); }");
    let Err(CudaError::Rejected { log, .. }) = c.unit(&asm, Arch::sm(90)) else { panic!("it compiled") };
    assert!(log.contains("no.such.instruction") || log.contains("ptxas"), "{log}");
    let named = unit("__global__ void k(float* y) { y[0] = 1; }");
    let Err(CudaError::Rejected { log, .. }) = c.unit(&named, Arch::sm(90)) else { panic!("it compiled") };
    assert!(log.contains("extern \"C\""), "{log}");
}

#[test]
fn the_second_compilation_comes_from_the_cache_and_a_damaged_entry_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(c) = compiler(Some(Cache::at(dir.path()))) else { return };
    let first = c.unit(&unit(DP4A), Arch::sm(90)).unwrap();
    assert!(!first.cached());
    let second = c.unit(&unit(DP4A), Arch::sm(90)).unwrap();
    assert!(second.cached());
    assert_eq!((&second.bytes, &second.resources, &second.entry), (&first.bytes, &first.resources, &first.entry));
    assert!(c.take_warnings().is_empty());

    let entry = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &bytes[..bytes.len() / 2]).unwrap();
    let third = c.unit(&unit(DP4A), Arch::sm(90)).unwrap();
    assert!(!third.cached() && third.bytes == first.bytes);
    let warnings = c.take_warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("compiled again"), "{warnings:?}");
    assert!(c.unit(&unit(DP4A), Arch::sm(90)).unwrap().cached(), "the entry was repaired");
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let Some(c) = compiler(Some(Cache::at(file.join("cubin")))) else { return };
    assert!(c.unit(&unit(FMA), Arch::sm(90)).is_ok());
    assert!(c.take_warnings().iter().any(|w| w.contains("not kept")));
}

/// The numbers of operations in `sass.rs` against the disassembler, where it is installed beside NVRTC.
#[test]
fn instruction_classes_are_those_that_the_disassembler_prints() {
    let Some(c) = compiler(None) else { return };
    let folder = c.nvrtc().path.parent().and_then(|p| p.parent()).map(|p| p.join("bin/nvdisasm"));
    let Some(nvdisasm) = folder.filter(|p| p.exists()) else {
        println!("skipped: no nvdisasm beside NVRTC");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mma = "extern \"C\" __global__ void k(const unsigned* a, float* y, int* z) {
    float d[4] = {0, 0, 0, 0};
    asm volatile(\"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\"
        : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]));
    int e[2] = {0, 0};
    asm volatile(\"mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};\"
        : \"+r\"(e[0]), \"+r\"(e[1]) : \"r\"(a[4]), \"r\"(a[5]));
    y[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
    z[threadIdx.x] = e[0] + e[1];
}";
    let wide = "extern \"C\" __global__ void k(const float4* a, const short* b, float4* y) {
    float4 v = a[threadIdx.x];
    v.x = fmaf(v.x, v.y, (float)b[threadIdx.x]);
    y[threadIdx.x] = v;
}";
    for arch in Arch::ALL {
        for (text, want) in
            [(wide, ["FFMA"].as_slice()), (DP4A, &["IDP", "FFMA", "LDS"]), (mma, &["HMMA", "IMMA"]), (FMA, &["FFMA"])]
        {
            let cubin = c.unit(&unit(text), arch).unwrap();
            let file = dir.path().join("k.cubin");
            std::fs::write(&file, &cubin.bytes).unwrap();
            let out = std::process::Command::new(&nvdisasm).arg("-c").arg(&file).output().unwrap();
            let sass = String::from_utf8_lossy(&out.stdout);
            let has = |op: &str| sass.lines().any(|l| l.split_whitespace().any(|w| w.split('.').next() == Some(op)));
            for op in want {
                assert!(has(op), "{arch}: no {op} in\n{sass}");
            }
            let mut classes = Vec::new();
            for (class, ops) in [
                ("hmma", ["HMMA", ""]),
                ("imma", ["IMMA", ""]),
                ("idp", ["IDP", ""]),
                ("fma", ["FFMA", "HFMA2"]),
                ("lut", ["LDS", ""]),
            ] {
                if ops.iter().any(|op| !op.is_empty() && has(op)) {
                    classes.push(class.to_owned());
                }
            }
            assert_eq!(cubin.resources.instructions, classes, "{arch}");
            let loads = sass.lines().flat_map(str::split_whitespace).filter(|word| word.starts_with("LDG."));
            let width = |load: &str| match load.split('.').find(|part| part.contains(|c: char| c.is_ascii_digit())) {
                None => 4,
                Some(part) => part.trim_start_matches(['U', 'S']).parse::<u32>().unwrap() / 8,
            };
            assert_eq!(cubin.widest_load(), loads.map(width).max(), "{arch}:\n{sass}");
        }
    }
}
