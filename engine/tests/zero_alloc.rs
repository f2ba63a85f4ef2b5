//! A decoded token allocates nothing: counted by an allocator that counts.

#[path = "scripted/libraries.rs"]
mod libraries;
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::engine::Engine;
use engine::forward::{Scratch, Wanted, forward};
use engine::generate::{DeviceChoice, Event, GenerateRequest, LoadOptions, SamplingParams};
use engine::kv_cache::KvCache;
use engine::model::load_model;
use engine::synth::{Scheme, Shape};
use kernels::cpu::{Cpu, CpuOptions, KvType, Precision};
use variants::{Isa, Table};

/// Set in the process that has a scripted GPU.
const INSIDE: &str = "EDGELLM_SCRIPTED_GPU";

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `work` and returns how many allocations it made, in the whole process.
fn allocations_of(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    work();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

fn the_forward_pass(shape: &Shape, isa: Isa, precision: Precision, threads: usize) {
    let cpu = Cpu::new(CpuOptions { threads, isa, table: Table::default_for(isa), pin: false });
    let model = load_model(&tiny::gguf(shape, Scheme::Q4_0, 1), &cpu, precision).unwrap();
    let mut kv = KvCache::new(&model.config, KvType::F16, 256);
    let mut scratch = Scratch::new(&model);
    // The first pass lets the standard library set up what it keeps for each thread.
    forward(&cpu, &model, &mut kv, &[1, 2, 3], 0, &mut scratch, Wanted::Last);
    let made = allocations_of(|| {
        let prompt: [u32; 150] = std::array::from_fn(|i| i as u32);
        let mut next = cpu.argmax(forward(&cpu, &model, &mut kv, &prompt, 0, &mut scratch, Wanted::Last));
        for pos in 150..256 {
            next = cpu.argmax(forward(&cpu, &model, &mut kv, &[next], pos, &mut scratch, Wanted::Last));
        }
    });
    assert_eq!(made, 0, "{} {isa} {precision:?} {threads} threads", shape.architecture);
}

fn the_decode_loop(shape: &Shape, device: DeviceChoice, sampling: SamplingParams) {
    const TOKENS: usize = 200;
    let options = LoadOptions { device, threads: Some(2), ..LoadOptions::default() };
    let mut engine = Engine::from_gguf(&tiny::gguf(shape, Scheme::Q4_0, 1), &options).unwrap();
    let request = GenerateRequest {
        prompt: vec![1, 2, 3],
        max_tokens: TOKENS,
        sampling,
        stop: vec!["a string that random weights will hardly write".into()],
        ignore_eos: true,
    };
    let mut counts = [0usize; TOKENS];
    let mut seen = 0;
    engine
        .generate(&request, &mut |event| {
            if let Event::Token { .. } = event {
                counts[seen] = ALLOCATIONS.load(Ordering::SeqCst);
                seen += 1;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, TOKENS);
    assert_eq!(counts[TOKENS - 1] - counts[0], 0, "{} on {device} {:?}", shape.architecture, request.sampling);
}

/// Two answers that take turns, from the first token of both on.
fn the_turns_of_two(shape: &Shape, device: DeviceChoice) {
    let slots = NonZeroUsize::new(2).unwrap();
    let options = LoadOptions { device, threads: Some(2), slots, ..LoadOptions::default() };
    let mut engine = Engine::from_gguf(&tiny::gguf(shape, Scheme::Q4_0, 1), &options).unwrap();
    for (slot, seed) in [(0, None), (1, Some(1))] {
        let sampling = seed.map_or_else(SamplingParams::greedy, |seed| SamplingParams {
            seed: Some(seed),
            ..SamplingParams::default()
        });
        let prompt = vec![1, 2, 3];
        let request = GenerateRequest { prompt, max_tokens: 100, sampling, stop: Vec::new(), ignore_eos: true };
        engine.begin(slot, &request).unwrap();
    }
    let mut turns = |count: usize| {
        for slot in (0..count).flat_map(|_| [0, 1]) {
            assert_eq!(engine.turn(slot, &mut |_| ControlFlow::Continue(())).unwrap(), None);
        }
    };
    turns(1);
    assert_eq!(allocations_of(|| turns(90)), 0, "{} on {device}, in turns", shape.architecture);
}

fn decode_loops(shape: &Shape, device: DeviceChoice) {
    let drawn = SamplingParams { seed: Some(1), ..SamplingParams::default() };
    the_decode_loop(shape, device, SamplingParams::greedy());
    the_decode_loop(shape, device, drawn.clone());
    the_decode_loop(shape, device, SamplingParams { top_k: 0, min_p: 0.05, ..drawn });
    the_turns_of_two(shape, device);
}

/// Runs this program again where the loader finds a driver and a compiler that compute next to nothing: what the host does
/// for a token is the same.
fn again_on_a_scripted_gpu() {
    let folder = tempfile::tempdir().unwrap();
    if libraries::gpu(folder.path(), &folder.path().join("libnvrtc.so")).is_none() {
        return println!("skipped: there is no C compiler");
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--nocapture", "--test-threads=1"]).env(INSIDE, "1").env("LD_LIBRARY_PATH", folder.path());
    again.env("EDGELLM_NVRTC", folder.path().join("libnvrtc.so")).env("EDGELLM_CUBLASLT", "/none");
    // PTX is text, which the scripted compiler can make.
    again.env("EDGELLM_CACHE", folder.path().join("cache")).env("EDGELLM_CUDA_ARCH", "compute_90");
    let output = again.env_remove("CUDA_VISIBLE_DEVICES").env_remove("LD_PRELOAD").output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}

// One test alone in this file: the count is of the whole process.
#[test]
fn neither_the_forward_pass_nor_the_decode_loop_allocates() {
    if std::env::var_os(INSIDE).is_some() {
        // Heads and rows that the kernels of a GPU take.
        let wide = |shape: Shape| Shape { hidden: 256, inter: 512, head_dim: 64, context: 512, ..shape };
        [tiny::llama(), tiny::qwen2(), tiny::qwen3()]
            .map(wide)
            .iter()
            .for_each(|s| decode_loops(s, DeviceChoice::Cuda(0)));
        return;
    }
    for shape in [tiny::llama(), tiny::qwen2(), tiny::qwen3()] {
        for isa in Isa::available() {
            for precision in [Precision::Fast, Precision::Exact] {
                for threads in [1, 2] {
                    the_forward_pass(&shape, isa, precision, threads);
                }
            }
        }
        decode_loops(&shape, DeviceChoice::Cpu);
    }
    again_on_a_scripted_gpu();
}
