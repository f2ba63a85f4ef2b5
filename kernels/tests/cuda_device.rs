//! The CUDA layer on a device. Without one every test prints why it is skipped; EDGELLM_REQUIRE_GPU=1 makes that a
//! failure.

mod cuda_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use cuda_support::{device, gpu};
use kernels::cuda::compile::{Compiler, SourceFile, Unit};
use kernels::cuda::driver::{Buffer, Device, Function, Graph, Guarded, LaunchShape, Module, Stream, Value};
use kernels::cuda::target::{Late, Slots, Support, With, is_poisoned};
use kernels::cuda::{CudaError, CudaTarget};

const SOURCE: &str = r#"
extern "C" __global__ void twice(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
extern "C" __global__ void add_one(float* y) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    y[0] += 1.0f;
}
extern "C" __global__ void spill_over(float* y, int n) { y[n] = 1.0f; }
extern "C" __global__ void big_shared(float* y, int words) {
    extern __shared__ float s[];
    for (int i = threadIdx.x; i < words; i += blockDim.x) s[i] = (float)i;
    __syncthreads();
    if (threadIdx.x == 0) y[0] = s[words - 1];
}
extern "C" __global__ void wild(float* y) { *(volatile float*)((char*)y + (1ull << 44)) = 1.0f; }
extern "C" __global__ void look(const unsigned* word, unsigned* seen, int n) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    unsigned before = *(volatile const unsigned*)word;
    seen[2] = 7;
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    seen[0] = before;
    seen[1] = ((volatile const unsigned*)word)[n - 1];
}
extern "C" __global__ void wait_for(unsigned long long nanos) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); } while (now - start < nanos);
}
"#;

fn function(device: &Arc<Device>, entry: &str) -> Function {
    let unit = Unit {
        source: SourceFile { name: "kernels/tests/cuda_device.rs".into(), text: SOURCE.into(), headers: Vec::new() },
        entry: entry.to_owned(),
        defines: BTreeMap::new(),
    };
    let cubin = Compiler::with_cache(None).unwrap().unit(&unit, device.arch()).unwrap();
    Module::load(device, &cubin).unwrap().function(entry).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn a_device_says_what_it_is() {
    let Some(device) = device() else { return };
    let f = device.facts();
    println!("{f:?}");
    println!("{:?}", device.key("13.0"));
    assert!(f.cc >= 75 && f.sms > 0 && f.smem >= 48 << 10 && f.l2 > 0 && f.threads_per_sm >= 1024, "{f:?}");
    assert!(f.driver_cuda >= (12, 0), "{f:?}");
    if let Some(board) = device.board() {
        println!(
            "driver {:?}, power {:?} W, memory {:?} MHz",
            board.driver(),
            board.power_limit(),
            board.memory_clock_mhz()
        );
    } else {
        println!("no management library");
    }
}

#[test]
fn a_kernel_reads_its_input_and_its_output_stays_between_the_guards() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let input = Buffer::of(&stream, &bytes, "x").unwrap();
    let output = Guarded::poisoned(&stream, 4 * 1000, "y").unwrap();
    let f = function(&device, "twice");
    let args = [Value::U64(input.address()), Value::U64(output.address()), Value::I32(999)];
    // SAFETY: the arguments are those of the kernel, both buffers live until the read below.
    unsafe { f.launch(&stream, &LaunchShape::line(4, 256), false, &args) }.unwrap();
    let (got, touched) = output.read(&stream, || "reading y".into()).unwrap();
    assert_eq!(touched, None);
    let got = floats(&got);
    assert!(got[..999].iter().zip(&x).all(|(y, x)| *y == 2.0 * x));
    assert_eq!(got[999].to_bits(), u32::MAX, "what nobody writes stays poisoned");
}

#[test]
fn a_store_behind_the_output_is_found() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let output = Guarded::poisoned(&stream, 40, "y").unwrap();
    let f = function(&device, "spill_over");
    // SAFETY: the store goes into the guard band, which is allocated.
    unsafe { f.launch(&stream, &LaunchShape::line(1, 1), false, &[Value::U64(output.address()), Value::I32(10)]) }
        .unwrap();
    assert_eq!(output.read(&stream, || "reading y".into()).unwrap().1, Some(40));
}

#[test]
fn shared_memory_above_48_kib_is_asked_for_and_too_much_is_refused_with_both_numbers() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let f = function(&device, "big_shared");
    let bytes = device.facts().smem;
    let of = |threads, smem| LaunchShape { smem, ..LaunchShape::line(1, threads) };
    f.allow(&of(128, bytes)).unwrap();
    let y = Buffer::new(&device, 4, "y").unwrap();
    let shape = of(128, bytes);
    let args = [Value::U64(y.address()), Value::I32(bytes as i32 / 4)];
    // SAFETY: the arguments are those of the kernel, and the buffer lives until the read below.
    unsafe { f.launch(&stream, &shape, false, &args) }.unwrap();
    let got = floats(&y.download(&stream, 0, 4, || "reading y".into()).unwrap());
    assert_eq!(got[0], (bytes / 4 - 1) as f32);
    let e = f.allow(&of(128, bytes + 4)).unwrap_err();
    assert!(
        matches!(&e, CudaError::Resources { needed, allowed, .. } if *needed == u64::from(bytes) + 4 && *allowed == u64::from(bytes)),
        "{e}"
    );
    assert!(matches!(f.allow(&of(2048, 0)), Err(CudaError::Resources { .. })));
}

#[test]
fn a_captured_graph_runs_every_launch_in_order_with_and_without_programmatic_edges() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let f = function(&device, "add_one");
    let y = Buffer::of(&stream, &0f32.to_le_bytes(), "y").unwrap();
    let add = |s: &Stream, early: bool| {
        // SAFETY: the buffer outlives the graphs below.
        unsafe { f.launch(s, &LaunchShape::line(1, 1), early, &[Value::U64(y.address())]) }
    };
    add(&stream, false).unwrap();
    stream.wait(|| "warming".into()).unwrap();
    let mut want = 1.0;
    for early in [false, true] {
        if early && device.facts().cc < 90 {
            println!("skipped: programmatic launches need compute capability 9.0");
            continue;
        }
        let graph = Graph::capture(&stream, |s| (0..100).try_for_each(|i| add(s, early && i > 0))).unwrap();
        println!("early {early}: {} nodes, programmatic edges {:?}", graph.nodes(), graph.programmatic_edges());
        assert_eq!(graph.nodes(), 100);
        if let Some(edges) = graph.programmatic_edges() {
            assert_eq!(edges, if early { 99 } else { 0 });
        }
        for _ in 0..3 {
            graph.launch(&stream).unwrap();
            want += 100.0;
            let got = floats(&y.download(&stream, 0, 4, || "reading y".into()).unwrap());
            assert_eq!(got[0], want);
        }
    }
}

#[test]
fn a_bracket_times_the_device_and_not_the_host_and_knows_the_clock() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let support = Support::new(&device, &stream, &Compiler::with_cache(None).unwrap()).unwrap();
    let f = function(&device, "wait_for");
    // SAFETY: the kernel takes one number by value.
    let wait = |ns: u64| unsafe { f.launch(&stream, &LaunchShape::line(1, 1), false, &[Value::U64(ns)]) };
    wait(1).unwrap();
    stream.wait(|| "warming".into()).unwrap();
    // The host sleeps while the stream is held: none of that may show.
    let slow_host = || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        wait(2_000_000)
    };
    let i = support.bracket(&stream, slow_host, || "waiting".into()).unwrap();
    println!("{i:?}");
    assert!(i.held && i.ns >= 1.9e6 && i.ns < 30e6, "{i:?}");
    assert!(i.sm_clock_mhz.is_some_and(|mhz| (100.0..5000.0).contains(&mhz)), "{i:?}");
}

#[test]
fn the_device_poisons_the_slots_that_the_host_says_it_does() {
    let Some(device) = device() else { return };
    let stream = Stream::new(&device).unwrap();
    let support = Support::new(&device, &stream, &Compiler::with_cache(None).unwrap()).unwrap();
    let (stride, count) = (768usize, 500u32);
    let all = Buffer::new(&device, stride * count as usize, "slots").unwrap();
    all.fill(&stream, 0, all.len(), 0).unwrap();
    for seed in [3, u64::MAX - 7] {
        all.fill(&stream, 0, all.len(), 0).unwrap();
        let slots = Slots { address: all.address(), stride: stride as u64, count };
        support.poison(&stream, &slots, seed).unwrap();
        let got = all.download(&stream, 0, all.len(), || "reading slots".into()).unwrap();
        for (i, slot) in got.chunks_exact(stride).enumerate() {
            let want = if is_poisoned(seed, i as u32) { 0xFF } else { 0 };
            assert!(slot.iter().all(|&b| b == want), "seed {seed} slot {i}");
        }
    }
}

#[test]
fn a_late_producer_writes_every_byte_behind_the_reads_and_stores_that_do_not_wait_for_it() {
    let Some(device) = device() else { return };
    if device.facts().cc < 90 {
        println!("skipped: programmatic launches need compute capability 9.0");
        return;
    }
    let stream = Stream::new(&device).unwrap();
    let support = Support::new(&device, &stream, &Compiler::with_cache(None).unwrap()).unwrap();
    let look = function(&device, "look");
    // Not a multiple of 16 bytes, and long enough for every block of the producer to have a part.
    let words: Vec<u32> = (1..=300_001).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let from = Buffer::of(&stream, &bytes, "the contents").unwrap();
    let (to, seen) = (Buffer::new(&device, bytes.len(), "a").unwrap(), Buffer::new(&device, 13, "b").unwrap());
    let mut found = Vec::new();
    // The first launch loads the code, which takes longer than the producer is late.
    for early in [false, true, true, true] {
        to.fill(&stream, 0, to.len(), 0xFF).unwrap();
        seen.fill(&stream, 0, seen.len(), 0).unwrap();
        let late = |to: &Buffer, with| Late { to: to.address(), bytes: to.len() as u64, with };
        let writes = [late(&to, With::Copy(from.address())), late(&seen, With::Fill(0xAB))];
        let table = support.write_late(&stream, &writes, 50_000).unwrap();
        let args = [Value::U64(to.address()), Value::U64(seen.address()), Value::I32(words.len() as i32)];
        // SAFETY: the arguments are those of the kernel; buffers and table live until the stream is waited for.
        unsafe { look.launch(&stream, &LaunchShape::line(1, 1), early, &args) }.unwrap();
        let got = seen.download(&stream, 0, seen.len(), || "looking".into()).unwrap();
        drop(table);
        assert_eq!(to.download(&stream, 0, to.len(), || "reading".into()).unwrap(), bytes);
        let word = |i: usize| u32::from_le_bytes(got[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!((word(1), got[12]), (300_001, 0xAB), "what is behind the wait is right in any case");
        found.push((word(0), word(2)));
    }
    println!("first word before the wait, and what was stored before it: {found:x?}");
    assert_eq!(found[0], (1, 7), "an ordinary launch comes behind all of it");
    assert!(found[1..].contains(&(u32::MAX, 0xABAB_ABAB)), "the early reads and stores show: {found:x?}");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(_one) = gpu() else { return };
    let e = Device::open(4000).unwrap_err();
    assert!(matches!(e, CudaError::NoDevice { .. }) && e.to_string().contains("4000"), "{e}");
}

/// Runs in a process of its own, started by the test below: it loses its context.
#[test]
fn child_that_faults() {
    if std::env::var_os("EDGELLM_CUDA_FAULT_CHILD").is_none() {
        return;
    }
    let device = Device::open(0).unwrap();
    let stream = Stream::new(&device).unwrap();
    let y = Buffer::new(&device, 4, "y").unwrap();
    let f = function(&device, "wild");
    // SAFETY: the store hits an address that no allocation has, which is the point: the device refuses it.
    unsafe { f.launch(&stream, &LaunchShape::line(1, 1), false, &[Value::U64(y.address())]) }.unwrap();
    let e = stream.wait(|| "running wild".into()).unwrap_err();
    assert!(e.is_fatal() && e.to_string().contains("running wild"), "{e}");
    let failure = harness_spec::CellFailure::from(&e);
    assert_eq!(failure.stage, harness_spec::Stage::Fault, "{failure}");
    let again = Buffer::new(&device, 4, "z").unwrap_err();
    println!("fault: {e}; afterwards: {again}");
}

#[test]
fn an_illegal_address_is_a_fault_that_names_the_launch_and_another_process_goes_on() {
    let Some(_one) = gpu() else { return };
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_faults", "--nocapture"])
        .env("EDGELLM_CUDA_FAULT_CHILD", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("CUDA_ERROR_ILLEGAL_ADDRESS"),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(Device::open(0).is_ok());
}

#[test]
fn without_a_driver_opening_a_target_says_so_with_the_fix() {
    if kernels::cuda::library::load_driver().is_ok() {
        println!("skipped: there is a driver");
        return;
    }
    let registry = Arc::new(variants::registry().clone());
    let Err(e) = CudaTarget::open(registry, 0) else { panic!("a device was opened without a driver") };
    assert!(matches!(e, CudaError::NoDriver { .. }) && e.to_string().contains("hint:"), "{e}");
}
