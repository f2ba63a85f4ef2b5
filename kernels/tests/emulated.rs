//! Every CUDA variant's source, compiled for the processor and put through the correctness gate: kernels are checked
//! where there is no GPU.
//!
//! What this proves is arithmetic and indexing; `bench verify` on a device proves the rest. The default of every kernel
//! runs, and a seeded sample of its other configurations. The second half tests the emulator itself: each kind of mistake
//! that it claims to show.

#[path = "emulator/mod.rs"]
mod emulator;

use emulator::{Emulated, EmulatedRunner, compiler, run_words};
use harness_spec::{Shape, VariantId};
use kernels::check::Gate;
use kernels::op::{Depth, op};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use variants::{Backend, KernelSpec, Limits, registry};

/// Configurations of a kernel that run besides its default. Six kernels in five formats differ in what makes their activations
/// alone: one format of them is enough.
fn sampled(op: &str) -> usize {
    usize::from(!op.starts_with("rmsnorm_gemv_") || op == "rmsnorm_gemv_q4_0")
}

const SEED: u64 = 20_260_101;

/// Whether there is a compiler. In CI its absence is a failure, not a skip.
fn can_compile() -> bool {
    if compiler().is_some() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "no C++ compiler: install g++ or set CXX");
    println!("skipped: no C++ compiler, install g++ or set CXX");
    false
}

/// A device of the newest architecture with few multiprocessors, so that persistent grids stride.
fn limits() -> Limits {
    Limits { sms: 3, ..Limits::of_architecture(90).expect("sm_90 is known") }
}

fn cuda_kernels(op: &str) -> Vec<&'static KernelSpec> {
    registry()
        .kernels()
        .filter(|(name, spec)| *name == op && spec.backend == Backend::Cuda && !spec.is_library())
        .map(|(_, spec)| spec)
        .collect()
}

/// The shape that the gate is asked for: small, with tails in every dimension.
fn shape(op: &str) -> Shape {
    match op {
        "stream_read" => Shape::of([("BYTES", 69_648)]),
        "rmsnorm" | "rmsnorm_half" => Shape::of([("K", 576), ("M", 2)]),
        "swiglu" => Shape::of([("F", 352), ("M", 3), ("OUT", 8)]),
        "add" => Shape::of([("COUNT", 1155)]),
        "quantize_a8" => Shape::of([("K", 896)]),
        "sample" => Shape::of([("N", 3001), ("LEN", 90)]),
        "attn_decode" => Shape::of([("HEADS", 6), ("KV_HEADS", 2), ("DIM", 64), ("LEN", 37), ("MAX_LEN", 64)]),
        "attn_prefill" => {
            Shape::of([("HEADS", 4), ("KV_HEADS", 2), ("DIM", 64), ("M", 5), ("POS", 20), ("MAX_LEN", 40), ("KV", 16)])
        }
        "attn_token" => Shape::of([
            ("HEADS", 6),
            ("KV_HEADS", 2),
            ("DIM", 64),
            ("LEN", 37),
            ("MAX_LEN", 64),
            ("KV", 16),
            ("OUT", 8),
        ]),
        "rope_append" => Shape::of([
            ("HEADS", 3),
            ("KV_HEADS", 1),
            ("DIM", 64),
            ("ROT", 64),
            ("M", 3),
            ("MAX_LEN", 10),
            ("KV", 16),
            ("PAIRING", 0),
        ]),
        "embed_tq2_0" => Shape::of([("N", 19), ("K", 512), ("M", 3)]),
        _ if op.starts_with("qkv_rope") => {
            let k = if op.contains("_k") { 256 } else { 96 };
            let [heads, dim] = [("HEADS", 2), ("DIM", 16)];
            Shape::of([heads, ("KV_HEADS", 1), dim, ("K", k), ("MAX_LEN", 7), ("KV", 16), ("PAIRING", 0)])
        }
        _ if op.starts_with("gate_up") => Shape::of([("F", 32), ("K", if op.contains("_k") { 512 } else { 352 })]),
        "gemv_g128" => Shape::of([("N", 19), ("K", 384)]),
        _ if op.contains("_k") || op == "gemv_ternary" || op.ends_with("_tq2_0") => Shape::of([("N", 19), ("K", 512)]),
        _ => Shape::of([("N", 19), ("K", 352)]),
    }
}

/// Tunables of two values that have the default's.
fn switches_of_default(spec: &KernelSpec, id: &VariantId) -> usize {
    let switches = spec.tunables.iter().filter(|(_, values)| values.len() == 2);
    switches.filter(|(name, _)| id.tunables.get(*name) == spec.default.get(*name)).count()
}

/// Puts a configuration through the gate; what is wrong with it, if anything is.
fn check(spec: &KernelSpec, id: &VariantId, shape: &Shape, gate: &mut Gate, descending: bool) -> Option<String> {
    let (op, limits) = (op(&id.op).expect("a known op"), limits());
    let checked = Emulated::of(spec, id).and_then(|kernel| {
        let mut runner = EmulatedRunner { op, spec, variant: id, limits: &limits, kernel: &kernel, descending };
        gate.run(op, shape, spec, SEED, Depth::Quick, &mut runner)
    });
    match checked {
        Ok(report) => {
            assert!(!report.cases.is_empty(), "{id} was checked with nothing");
            None
        }
        Err(failure) => Some(format!("{id}: {:?}: {}", failure.stage, failure.message)),
    }
}

/// Shapes with so many keys, and configurations with so few warps and splits, that each has more than it holds at once; one for
/// each number of tiles that a warp holds. The newest key is in the first, the second and the third of three tiles of 32 keys.
fn of_many_keys(spec: &KernelSpec, shape: &Shape) -> Vec<(VariantId, Shape)> {
    let named = |id: &VariantId, names: &[&str]| -> Vec<Option<i64>> {
        names.iter().map(|&name| id.tunables.get(name).copied()).collect()
    };
    let mut out = Vec::new();
    for (dim, len) in [(64, 256), (64, 331), (64, 338), (128, 331)] {
        let mut shape = shape.clone();
        shape.0.extend([("LEN", len), ("MAX_LEN", 340), ("DIM", dim)].map(|(dim, size)| (dim.to_owned(), size)));
        let mut fewest = spec.variants(&shape, &limits()).admitted;
        assert!(!fewest.is_empty(), "{} takes no cache of {shape}", spec.id());
        fewest.sort_by_key(|id| named(id, &["HELD", "VALUES", "SPLITS", "WARPS", "MIN_KEYS"]));
        fewest.dedup_by_key(|id| named(id, &["HELD", "VALUES"]));
        out.extend(fewest.into_iter().map(|id| (id, shape.clone())));
    }
    out
}

fn check_op(name: &str) {
    if !can_compile() {
        return;
    }
    let limits = limits();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut gate = Gate::new(64 << 20);
    let mut failures = Vec::new();
    let kernels = cuda_kernels(name);
    assert!(!kernels.is_empty(), "{name} has no CUDA kernel");
    for spec in kernels {
        // A kernel that wants whole runs of blocks takes the second, one that reads a cache in int8 alone the third, or the
        // fourth where heads are to be whole clusters.
        let mut int8 = shape(name);
        int8.0.insert("KV".to_owned(), 8);
        let mut wide = int8.clone();
        wide.0.insert("DIM".to_owned(), 64);
        let shape = [shape(name), Shape::of([("N", 19), ("K", 1024)]), int8, wide]
            .into_iter()
            .find(|shape| spec.admits(&spec.default_variant(), shape, &limits).is_ok())
            .unwrap_or_else(|| panic!("{} takes no shape of this test", spec.id()));
        let mut others = spec.variants(&shape, &limits).admitted;
        others.retain(|id| *id != spec.default_variant());
        others.shuffle(&mut rng);
        // What a switch leaves out of the default's code is compiled nowhere else.
        others.sort_by_key(|id| switches_of_default(spec, id));
        for id in [spec.default_variant()].iter().chain(others.iter().take(sampled(name))) {
            failures.extend(check(spec, id, &shape, &mut gate, rng.random()));
        }
        if name == "attn_token" {
            for (id, shape) in of_many_keys(spec, &shape) {
                failures.extend(check(spec, &id, &shape, &mut gate, rng.random()));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {name} fail:\n{}", failures.len(), failures.join("\n"));
}

macro_rules! ops {
    ($($test:ident: $op:literal,)*) => {
        $(#[test] fn $test() { check_op($op); })*

        #[test]
        fn every_op_with_a_cuda_kernel_is_checked_here() {
            let checked = [$($op),*];
            let missing: Vec<&str> = registry()
                .kernels()
                .filter(|(name, spec)| spec.backend == Backend::Cuda && !checked.contains(name))
                .map(|(name, _)| name)
                .collect();
            assert!(missing.is_empty(), "no test for {missing:?}");
        }
    };
}

ops! {
    gemv_q4_0_is_right_on_the_emulator: "gemv_q4_0",
    gemv_q4_1_is_right_on_the_emulator: "gemv_q4_1",
    gemv_q5_0_is_right_on_the_emulator: "gemv_q5_0",
    gemv_q8_0_is_right_on_the_emulator: "gemv_q8_0",
    gemv_q4_k_is_right_on_the_emulator: "gemv_q4_k",
    gemv_q5_k_is_right_on_the_emulator: "gemv_q5_k",
    gemv_q6_k_is_right_on_the_emulator: "gemv_q6_k",
    gemv_f16_is_right_on_the_emulator: "gemv_f16",
    gemv_bf16_is_right_on_the_emulator: "gemv_bf16",
    gemv_f32_is_right_on_the_emulator: "gemv_f32",
    gemv_g128_is_right_on_the_emulator: "gemv_g128",
    gemv_ternary_is_right_on_the_emulator: "gemv_ternary",
    logits_q8_0_is_right_on_the_emulator: "logits_q8_0",
    logits_q6_k_is_right_on_the_emulator: "logits_q6_k",
    rmsnorm_is_right_on_the_emulator: "rmsnorm",
    rmsnorm_half_is_right_on_the_emulator: "rmsnorm_half",
    swiglu_is_right_on_the_emulator: "swiglu",
    add_is_right_on_the_emulator: "add",
    quantize_a8_is_right_on_the_emulator: "quantize_a8",
    attn_decode_is_right_on_the_emulator: "attn_decode",
    attn_prefill_is_right_on_the_emulator: "attn_prefill",
    attn_token_is_right_on_the_emulator: "attn_token",
    rope_append_is_right_on_the_emulator: "rope_append",
    gemm_q4_0_is_right_on_the_emulator: "gemm_q4_0",
    gemm_q4_1_is_right_on_the_emulator: "gemm_q4_1",
    gemm_q5_0_is_right_on_the_emulator: "gemm_q5_0",
    gemm_q8_0_is_right_on_the_emulator: "gemm_q8_0",
    gemm_q4_k_is_right_on_the_emulator: "gemm_q4_k",
    gemm_q5_k_is_right_on_the_emulator: "gemm_q5_k",
    gemm_q6_k_is_right_on_the_emulator: "gemm_q6_k",
    gemm_tq2_0_is_right_on_the_emulator: "gemm_tq2_0",
    gemm_f16_is_right_on_the_emulator: "gemm_f16",
    gemm_bf16_is_right_on_the_emulator: "gemm_bf16",
    dequantize_q4_0_is_right_on_the_emulator: "dequantize_q4_0",
    dequantize_q4_1_is_right_on_the_emulator: "dequantize_q4_1",
    dequantize_q5_0_is_right_on_the_emulator: "dequantize_q5_0",
    dequantize_q8_0_is_right_on_the_emulator: "dequantize_q8_0",
    dequantize_q4_k_is_right_on_the_emulator: "dequantize_q4_k",
    dequantize_q5_k_is_right_on_the_emulator: "dequantize_q5_k",
    dequantize_q6_k_is_right_on_the_emulator: "dequantize_q6_k",
    dequantize_tq2_0_is_right_on_the_emulator: "dequantize_tq2_0",
    dequantize_f16_is_right_on_the_emulator: "dequantize_f16",
    dequantize_bf16_is_right_on_the_emulator: "dequantize_bf16",
    embed_q4_0_is_right_on_the_emulator: "embed_q4_0",
    embed_q4_1_is_right_on_the_emulator: "embed_q4_1",
    embed_q5_0_is_right_on_the_emulator: "embed_q5_0",
    embed_q8_0_is_right_on_the_emulator: "embed_q8_0",
    embed_q4_k_is_right_on_the_emulator: "embed_q4_k",
    embed_q5_k_is_right_on_the_emulator: "embed_q5_k",
    embed_q6_k_is_right_on_the_emulator: "embed_q6_k",
    embed_tq2_0_is_right_on_the_emulator: "embed_tq2_0",
    embed_f16_is_right_on_the_emulator: "embed_f16",
    embed_bf16_is_right_on_the_emulator: "embed_bf16",
    embed_f32_is_right_on_the_emulator: "embed_f32",
    qkv_rope_q4_0_is_right_on_the_emulator: "qkv_rope_q4_0",
    qkv_rope_q4_1_is_right_on_the_emulator: "qkv_rope_q4_1",
    qkv_rope_q5_0_is_right_on_the_emulator: "qkv_rope_q5_0",
    qkv_rope_q8_0_is_right_on_the_emulator: "qkv_rope_q8_0",
    qkv_rope_q4_k_is_right_on_the_emulator: "qkv_rope_q4_k",
    qkv_rope_q5_k_is_right_on_the_emulator: "qkv_rope_q5_k",
    qkv_rope_q6_k_is_right_on_the_emulator: "qkv_rope_q6_k",
    qkv_rope_f16_is_right_on_the_emulator: "qkv_rope_f16",
    qkv_rope_bf16_is_right_on_the_emulator: "qkv_rope_bf16",
    gate_up_q4_0_is_right_on_the_emulator: "gate_up_q4_0",
    gate_up_q4_1_is_right_on_the_emulator: "gate_up_q4_1",
    gate_up_q5_0_is_right_on_the_emulator: "gate_up_q5_0",
    gate_up_q8_0_is_right_on_the_emulator: "gate_up_q8_0",
    gate_up_q4_k_is_right_on_the_emulator: "gate_up_q4_k",
    gate_up_q5_k_is_right_on_the_emulator: "gate_up_q5_k",
    gate_up_q6_k_is_right_on_the_emulator: "gate_up_q6_k",
    gate_up_f16_is_right_on_the_emulator: "gate_up_f16",
    gate_up_bf16_is_right_on_the_emulator: "gate_up_bf16",
    gemv_add_q4_0_is_right_on_the_emulator: "gemv_add_q4_0",
    gemv_add_q4_1_is_right_on_the_emulator: "gemv_add_q4_1",
    gemv_add_q5_0_is_right_on_the_emulator: "gemv_add_q5_0",
    gemv_add_q8_0_is_right_on_the_emulator: "gemv_add_q8_0",
    gemv_add_q4_k_is_right_on_the_emulator: "gemv_add_q4_k",
    gemv_add_q5_k_is_right_on_the_emulator: "gemv_add_q5_k",
    gemv_add_q6_k_is_right_on_the_emulator: "gemv_add_q6_k",
    gemv_add_f16_is_right_on_the_emulator: "gemv_add_f16",
    gemv_add_bf16_is_right_on_the_emulator: "gemv_add_bf16",
    norm_logits_q4_0_is_right_on_the_emulator: "norm_logits_q4_0",
    norm_logits_q4_1_is_right_on_the_emulator: "norm_logits_q4_1",
    norm_logits_q5_0_is_right_on_the_emulator: "norm_logits_q5_0",
    norm_logits_q8_0_is_right_on_the_emulator: "norm_logits_q8_0",
    norm_logits_q4_k_is_right_on_the_emulator: "norm_logits_q4_k",
    norm_logits_q5_k_is_right_on_the_emulator: "norm_logits_q5_k",
    norm_logits_q6_k_is_right_on_the_emulator: "norm_logits_q6_k",
    norm_logits_f16_is_right_on_the_emulator: "norm_logits_f16",
    norm_logits_bf16_is_right_on_the_emulator: "norm_logits_bf16",
    rmsnorm_gemv_q4_0_is_right_on_the_emulator: "rmsnorm_gemv_q4_0",
    rmsnorm_gemv_q4_1_is_right_on_the_emulator: "rmsnorm_gemv_q4_1",
    rmsnorm_gemv_q4_k_is_right_on_the_emulator: "rmsnorm_gemv_q4_k",
    sample_is_right_on_the_emulator: "sample",
    stream_read_is_right_on_the_emulator: "stream_read",
}

/// A kernel `k(data, out)` with this body.
fn kernel(body: &str) -> String {
    format!(
        "#include \"warp.cuh\"\n#include \"async_copy.cuh\"\n\
         extern \"C\" __global__ void k(const u8* data, u32* out) {{ const u32 t = threadIdx.x; {body} }}"
    )
}

fn both_orders(body: &str, threads: u32, smem: u32, n: usize) -> [Result<Vec<u32>, String>; 2] {
    let data: Vec<u32> = (0..64).collect();
    [false, true].map(|descending| run_words(&kernel(body), "k", (2, threads, smem), &data, n, descending))
}

fn error_of(body: &str, threads: u32, smem: u32) -> String {
    match both_orders(body, threads, smem, 64) {
        [Err(first), Err(_)] => first,
        other => panic!("both orders should fail: {other:?}"),
    }
}

#[test]
fn a_block_that_keeps_its_barriers_reverses_words_in_both_orders() {
    if !can_compile() {
        return;
    }
    let body = "__shared__ u32 s[64]; s[t] = load_weights_4(data + 4 * t); __syncthreads(); out[t] = s[63 - t];";
    let want: Vec<u32> = (0..64).rev().collect();
    assert_eq!(both_orders(body, 64, 0, 64), [Ok(want.clone()), Ok(want)]);
}

#[test]
fn a_missing_barrier_shows_in_one_of_the_orders() {
    if !can_compile() {
        return;
    }
    let body = "__shared__ u32 s[64]; s[t] = t; out[t] = s[63 - t];";
    let want: Vec<u32> = (0..64).rev().collect();
    let both = both_orders(body, 64, 0, 64);
    assert!(both.iter().any(|got| got.as_ref() != Ok(&want)), "{both:?}");
}

#[test]
fn a_barrier_that_some_threads_return_before_is_a_deadlock() {
    if !can_compile() {
        return;
    }
    let text = error_of("if (t >= 40) return; __syncthreads(); out[t] = t;", 64, 0);
    assert!(text.contains("deadlocked") && text.contains("has returned"), "{text}");
}

#[test]
fn a_shuffle_whose_mask_names_a_lane_that_returned_is_an_error() {
    if !can_compile() {
        return;
    }
    let text = error_of("if (t == 5) return; out[t] = __shfl_xor_sync(FULL_WARP, t, 1);", 32, 0);
    assert!(text.contains("lane 5") || text.contains("has returned"), "{text}");
}

#[test]
fn loads_outside_of_a_buffer_or_off_their_alignment_are_errors() {
    if !can_compile() {
        return;
    }
    let text = error_of("out[t] = load_weights_4(data + 256 + 4 * t);", 32, 0);
    assert!(text.contains("a load of 4 bytes at 256 of a buffer of 256"), "{text}");
    let text = error_of("out[t] = load_weights_16(data + 2 + 16 * (t % 4)).x;", 32, 0);
    assert!(text.contains("a load of 16 bytes is not aligned"), "{text}");
}

#[test]
fn shared_memory_is_poison_until_written_and_its_end_is_guarded() {
    if !can_compile() {
        return;
    }
    let poison = Ok(vec![u32::MAX; 32]);
    assert_eq!(both_orders("__shared__ u32 s[32]; out[t] = s[t];", 32, 0, 32), [poison.clone(), poison.clone()]);
    assert_eq!(both_orders("DYNAMIC_SHARED(s); out[t] = ((u32*)s)[t];", 32, 128, 32), [poison.clone(), poison]);
    let text = error_of("DYNAMIC_SHARED(s); ((u32*)s)[t + 1] = t; out[t] = t;", 32, 128);
    assert!(text.contains("past the 128 bytes of dynamic shared memory"), "{text}");
}

#[test]
fn an_asynchronous_copy_arrives_with_its_wait_and_not_before() {
    if !can_compile() {
        return;
    }
    let copy = "DYNAMIC_SHARED(s); copy_async_16(s + 16 * t, data + 16 * t); copy_async_commit();";
    let early = format!("{copy} out[t] = ((u32*)s)[4 * t]; copy_async_wait<0>();");
    assert_eq!(both_orders(&early, 16, 256, 16), [Ok(vec![u32::MAX; 16]), Ok(vec![u32::MAX; 16])]);
    let right = format!("{copy} copy_async_wait<0>(); out[t] = ((u32*)s)[4 * t];");
    let want: Vec<u32> = (0..16).map(|t| 4 * t).collect();
    assert_eq!(both_orders(&right, 16, 256, 16), [Ok(want.clone()), Ok(want)]);
}

#[test]
fn conversions_of_f16_are_those_of_the_half_crate() {
    if !can_compile() {
        return;
    }
    // 65536 codes in 64 x 1024: each block writes its part as f32 bits and back as f16.
    let text = "#include \"dialect.cuh\"\nextern \"C\" __global__ void k(const u8* data, u32* out) {\n\
                (void)data; u32 i = blockIdx.x * 1024 + threadIdx.x; float f = f16_to_f32((u16)i);\n\
                out[2 * i] = __float_as_uint(f); out[2 * i + 1] = f32_to_f16(f * 1.0002f); }";
    let got = run_words(text, "k", (64, 1024, 0), &[0], 2 << 16, false).unwrap();
    for code in 0..=u16::MAX {
        let value = half::f16::from_bits(code);
        if value.is_nan() {
            continue;
        }
        let at = usize::from(code) * 2;
        assert_eq!(got[at], value.to_f32().to_bits(), "{code:#06x}");
        assert_eq!(got[at + 1] as u16, half::f16::from_f32(value.to_f32() * 1.0002).to_bits(), "{code:#06x}");
    }
}
