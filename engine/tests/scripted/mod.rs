//! The engine on a scripted GPU: a driver and a compiler that compute next to nothing show what is launched where and what is
//! counted, on any machine, with a GPU or without. Each test runs in a process of its own, whose loader finds these libraries
//! before any other.

mod launched;
pub mod libraries;
mod slots;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use engine::cuda::breakdown::{Plan, measure};
use engine::cuda::{Counters, CudaModel, Launching};
use engine::generate::{KvType, LoadOptions, SamplingParams, TableChoice};
use engine::model::Config;
use engine::sampler::Sampler;
use engine::synth::{Scheme, Shape};
use harness_spec::{DeviceKey, Policy, Shape as Dims, VariantId, Workload};
use kernels::cpu::Precision;
use kernels::cuda::CudaError;
use kernels::cuda::library::{driver_version, load_driver};
use variants::{Activations, Row, TABLE_SCHEMA, TableFile, registry};

use super::{on_gpu, tiny, wide};

/// The libraries' folder, set in the process that has them.
const INSIDE: &str = "EDGELLM_SCRIPTED_GPU";

/// The folder of the two libraries, built once; `None` as of [`libraries::build`].
fn folder() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let all = || {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let parent = if built.is_dir() { built.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("scripted-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("stub")).unwrap_or_else(|e| panic!("making {}: {e}", folder.display()));
        libraries::gpu(&folder, &folder.join("libnvrtc.so"))?;
        libraries::build("tests/cli/driver.c", &folder.join("stub/libcuda.so"), &["-DSTUB"])?;
        Some(folder)
    };
    BUILT.get_or_init(all).as_deref()
}

/// Whether the calling test is the one in a process of its own. Where it is not, this runs that process with these variables,
/// in which `{folder}` is that of the libraries, and fails where it fails, with all that it said.
fn inside(test: &str, shows: &[(&str, &str)]) -> bool {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let driver = load_driver().unwrap();
        assert!(driver.starts_with(&folder), "the driver is {} and not that of {folder:?}", driver.display());
        return true;
    }
    let Some(folder) = folder() else {
        println!("skipped: there is no C compiler");
        return false;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("scripted::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, folder).env("LD_LIBRARY_PATH", folder).env("EDGELLM_NVRTC", folder.join("libnvrtc.so"));
    command.env("EDGELLM_CACHE", folder.join(test)).env("EDGELLM_CUBLASLT", "/none");
    // PTX is text, which the scripted compiler can make.
    command.env("EDGELLM_CUDA_ARCH", "compute_90").env_remove("CUDA_VISIBLE_DEVICES").env_remove("EDGELLM_REQUIRE_GPU");
    // What is loaded before everything else may be a driver.
    command.env_remove("LD_PRELOAD");
    command.envs(shows.iter().map(|(name, value)| (name, value.replace("{folder}", &folder.display().to_string()))));
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err, status) = (said(&output.stdout), said(&output.stderr), output.status);
    assert!(status.success() && out.contains("1 passed"), "{test} with {shows:?} ended with {status}:\n{out}{err}");
    false
}

fn model(shape: &Shape, scheme: Scheme, table: TableChoice, context: usize) -> CudaModel {
    model_of(shape, scheme, table, context, KvType::F16)
}

fn model_of(shape: &Shape, scheme: Scheme, table: TableChoice, context: usize, kv: KvType) -> CudaModel {
    let gguf = tiny::gguf(shape, scheme, 5);
    let options = LoadOptions { table, ..on_gpu(Precision::Fast, kv) };
    CudaModel::load(&gguf, &Config::from_gguf(&gguf).unwrap(), 0, &options, context).unwrap()
}

/// The token that the scripted device chooses behind a position.
fn behind(pos: usize, shape: &Shape) -> u32 {
    ((7 * pos + 3) % shape.vocab) as u32
}

/// A table with these rows, each the workload and what runs it.
fn table(folder: &Path, rows: &[(Workload, VariantId)]) -> TableChoice {
    let row = |(workload, variant): &(Workload, VariantId)| Row {
        op: workload.op.clone(),
        shape: workload.shape.clone(),
        layout: registry().find(variant).expect("the variant is in its space").1.layout,
        variant: variant.clone(),
        median_ns: 1.0,
        ci_ns: None,
        runner_up: None,
        gap_to_runner_up: None,
        reason: "a test".to_owned(),
        key: "a test".to_owned(),
        record: None,
        policy: None,
        quarantined: None,
    };
    let file = TableFile {
        schema: TABLE_SCHEMA,
        policy: Policy::COLD_GRAPH,
        date: "2026-01-01T00:00:00Z".to_owned(),
        tool: "a test".to_owned(),
        record: "a test".to_owned(),
        incomplete: None,
        device: DeviceKey {
            backend: "cuda".to_owned(),
            name: "Scripted GPU".to_owned(),
            arch: "sm_90".to_owned(),
            conditions: [("driver".to_owned(), "cuda 13.0".to_owned())].into(),
        },
        rows: rows.iter().map(row).collect(),
        buckets: Vec::new(),
    };
    let path = folder.join("table.toml");
    std::fs::write(&path, file.to_text()).unwrap();
    TableChoice::File(Box::leak(path.into()))
}

/// What runs an op of a token at a position; of a workload that comes again, once.
fn running(model: &CudaModel, op: &str, pos: usize) -> Vec<(Workload, VariantId)> {
    let mut steps = model.steps(pos);
    steps.retain(|(workload, _)| workload.op == op);
    steps.dedup();
    steps
}

#[test]
fn a_stub_that_the_loader_finds_ahead_of_the_driver_is_named_with_the_fix() {
    let test = "a_stub_that_the_loader_finds_ahead_of_the_driver_is_named_with_the_fix";
    if !inside(test, &[("LD_LIBRARY_PATH", "{folder}/stub:{folder}")]) {
        return;
    }
    let said = driver_version().unwrap_err().to_string();
    assert!(said.contains("stub/libcuda.so: ") && said.contains("out of LD_LIBRARY_PATH"), "{said}");
}

#[test]
fn tokens_end_with_the_context_and_nothing_is_appended_behind_it() {
    if !inside("tokens_end_with_the_context_and_nothing_is_appended_behind_it", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    let mut model = model(&shape, Scheme::Q4_0, TableChoice::Default, 32);
    assert!(matches!(model.next_greedy(true), Err(CudaError::NoToken { .. })), "nothing was fed");
    let prompt = super::ids(&shape, 29);
    let mut sampler = Sampler::new(shape.vocab);
    for drawn in [false, true] {
        model.feed(&prompt, 0).unwrap();
        let mut history = prompt.clone();
        sampler.start(&SamplingParams { seed: Some(1), ..SamplingParams::default() });
        let mut next = |model: &mut CudaModel, history: &[u32]| match drawn {
            false => model.next_greedy(true),
            true => model.next_sampled(&mut sampler, history, true),
        };
        for pos in 28..32 {
            let id = next(&mut model, &history).unwrap();
            assert_eq!(id, behind(pos, &shape), "drawn {drawn}, behind position {pos}");
            history.push(id);
        }
        let said = next(&mut model, &history).unwrap_err().to_string();
        assert!(
            said.contains("position 31") && said.contains("32 positions is full") && said.contains("--ctx"),
            "{said}"
        );
    }
    for few in [&prompt[..], &prompt[..3]] {
        model.fill(few, 0).unwrap();
        assert!(matches!(model.next_greedy(true), Err(CudaError::NoToken { .. })), "the cache alone was filled");
    }
    model.feed(&prompt, 0).unwrap();
    assert_eq!(model.next_greedy(false).unwrap(), behind(28, &shape));
    let said = model.next_greedy(false).unwrap_err().to_string();
    assert!(said.contains("position 28") && said.contains("no step was queued"), "{said}");
}

#[test]
fn a_token_of_a_window_is_counted_as_one_graph_and_four_bytes_back() {
    if !inside("a_token_of_a_window_is_counted_as_one_graph_and_four_bytes_back", &[]) {
        return;
    }
    let mut model = model(&wide(tiny::llama()), Scheme::Q4_0, TableChoice::Default, 64);
    let plan = Plan { depth: 8, window: 6, windows: 5, rounds: 1, budget: Duration::ZERO };
    let measured = measure(&mut model, &plan).unwrap();
    assert_eq!(measured.gaps.iter().map(Vec::len).collect::<Vec<_>>(), [6; 5]);
    let want = Counters { tokens: 30, graph_launches: 30, d2h_bytes: 120, ..Counters::default() };
    assert_eq!(measured.counters, want);
}

#[test]
fn a_cluster_that_the_device_has_no_room_for_leaves_its_place_to_another_kernel() {
    let test = "a_cluster_that_the_device_has_no_room_for_leaves_its_place_to_another_kernel";
    // The scripted function is one of clusters of 16, and none or one of them fits.
    for fit in ["0", "1"] {
        if !inside(test, &[("FAKE_DRIVER_CLUSTER", "16"), ("FAKE_DRIVER_CLUSTERS_THAT_FIT", fit)]) {
            continue;
        }
        let fits = std::env::var("FAKE_DRIVER_CLUSTERS_THAT_FIT").unwrap() == "1";
        let shape = Shape { context: 4200, ..wide(tiny::llama()) };
        let mut by_default = model(&shape, Scheme::Q4_0, TableChoice::Default, 4200);
        let [(at, default)] = &running(&by_default, "attn_token", 0)[..] else { panic!("one attention") };
        let cluster: VariantId =
            "attn_token/cluster[MIN_KEYS=64,SPLITS=16,TILES=1,TURNS_AHEAD=4,WARPS=4]@cuda".parse().unwrap();
        // Whoever tries it hears why, and the model runs as before.
        let tried = by_default.try_variant(at, Some(&cluster));
        match &tried {
            Err(e @ CudaError::Cluster { blocks: 16, .. }) => {
                assert!(!fits && e.to_string().contains("clusters of 16 blocks of 128 threads"), "{e}");
                assert_eq!(running(&by_default, "attn_token", 0)[0].1, *default);
            }
            tried => assert!(fits && tried.is_ok(), "{tried:?}"),
        }
        // A row of one class of lengths is that of the others, which have none.
        let folder = tempfile::tempdir().unwrap();
        let by_row = model(&shape, Scheme::Q4_0, table(folder.path(), &[(at.clone(), cluster.clone())]), 4200);
        for pos in [0, 2000, 4100] {
            let [(_, runs)] = &running(&by_row, "attn_token", pos)[..] else { panic!("one attention") };
            assert_eq!(*runs == cluster, fits, "position {pos}: {runs}");
        }
        return;
    }
}

#[test]
fn a_model_runs_as_before_where_a_variant_that_is_tried_cannot_be_launched() {
    let test = "a_model_runs_as_before_where_a_variant_that_is_tried_cannot_be_launched";
    if !inside(test, &[("FAKE_DRIVER_REFUSES", "attn_token_mma")]) {
        return;
    }
    let shape = wide(tiny::llama());
    let mut model = model(&shape, Scheme::Q4_0, TableChoice::Default, 64);
    let before = running(&model, "attn_token", 0);
    let refused = registry().space("attn_token").unwrap().kernels.iter().find(|k| k.name == "mma").unwrap();
    model.feed(&super::ids(&shape, 20), 0).unwrap();
    let said = model.try_variant(&before[0].0, Some(&refused.default_variant())).unwrap_err().to_string();
    assert!(said.contains("launching attn_token_mma"), "{said}");
    assert_eq!(running(&model, "attn_token", 0), before);
    assert!(matches!(model.next_greedy(true), Err(CudaError::NoToken { .. })), "what was fed is forgotten");
    model.feed(&super::ids(&shape, 3), 0).unwrap();
    assert_eq!([true, false].map(|more| model.next_greedy(more).unwrap()), [2, 3].map(|pos| behind(pos, &shape)));
}

#[test]
fn a_row_for_ternary_weights_decides_their_kernel_and_the_layout_that_they_are_sent_in() {
    if !inside("a_row_for_ternary_weights_decides_their_kernel_and_the_layout_that_they_are_sent_in", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    let by_default = model(&shape, Scheme::TQ2_0, TableChoice::Default, 64);
    let steps = running(&by_default, "gemv_ternary", 0);
    assert!(steps.iter().all(|(_, variant)| variant.to_string().contains("planes_dp4a")), "{steps:?}");
    let down: Dims = Dims::of([("N", shape.hidden as u64), ("K", shape.inter as u64)]);
    let (at, _) = steps.iter().find(|(workload, _)| workload.shape == down).expect("the product of each block");
    let row: VariantId = "gemv_ternary/warp_lut[ROWS=4,WARPS=8]@cuda".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let by_row = model(&shape, Scheme::TQ2_0, table(folder.path(), &[(at.clone(), row.clone())]), 64);
    for (workload, variant) in running(&by_row, "gemv_ternary", 0) {
        assert_eq!(variant == row, workload.shape == down, "{workload}: {variant}");
    }
    assert_eq!(by_row.prompt_products(), by_default.prompt_products());
    assert_ne!(by_row.prompt_products(), "token by token");
}

#[test]
fn a_kernel_whose_activations_no_step_leaves_is_neither_bound_nor_offered_nor_tried() {
    if !inside("a_kernel_whose_activations_no_step_leaves_is_neither_bound_nor_offered_nor_tried", &[]) {
        return;
    }
    // Norms of heads keep Q, K and V off the fused path.
    let shape = wide(tiny::qwen3());
    let of = |table| model(&shape, Scheme::Q4_0, table, 64);
    let mut by_default = of(TableChoice::Default);
    let [(at, default)] = &running(&by_default, "gemv_q4_0", 0)[..] else { panic!("one product") };
    let kernels = &registry().space("gemv_q4_0").unwrap().kernels;
    let mut tried = 0;
    for half in kernels.iter().filter(|k| k.activations == Some(Activations::F16)) {
        let variant = half.default_variant();
        let folder = tempfile::tempdir().unwrap();
        let by_row = of(table(folder.path(), &[(at.clone(), variant.clone())]));
        assert_eq!(running(&by_row, "gemv_q4_0", 0), [(at.clone(), default.clone())], "{variant}");
        let offered = by_row.variants(at).unwrap();
        assert!(offered.contains(default) && offered.iter().all(|v| !half.is_kernel_of(v)), "{offered:?}");
        let said = by_default.try_variant(at, Some(&variant)).unwrap_err().to_string();
        assert!(said.contains("activations as f16, which no step of a token leaves"), "{said}");
        tried += 1;
    }
    assert!(tried >= 2, "f16 activations on vector units and on tensor cores");
}

#[test]
fn a_block_of_16_bit_floats_is_five_launches_and_other_steps_stay_in_floats() {
    if !inside("a_block_of_16_bit_floats_is_five_launches_and_other_steps_stay_in_floats", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    for (scheme, name) in [(Scheme::F16, "f16"), (Scheme::BF16, "bf16")] {
        let model = model(&shape, scheme, TableChoice::Default, 64);
        let ops: Vec<String> = model.steps(0).into_iter().map(|(workload, _)| workload.op).collect();
        let add = format!("gemv_add_{name}");
        let block = [&format!("qkv_rope_{name}"), "attn_token", &add, &format!("gate_up_{name}"), &add];
        let (embed, head) = (format!("embed_{name}"), format!("norm_logits_{name}"));
        let blocks = block.iter().cycle().take(5 * shape.layers).copied();
        let want: Vec<&str> = std::iter::once(&*embed).chain(blocks).chain([&*head]).collect();
        assert_eq!(ops, want);
        let [(attention, _)] = &running(&model, "attn_token", 0)[..] else { panic!("one attention") };
        assert_eq!(attention.shape.get("OUT"), Some(32), "the product behind it takes floats");
        for (_, variant) in model.steps(0).iter().filter(|(workload, _)| workload.op != embed) {
            let (_, spec) = registry().find(variant).unwrap();
            assert!(!spec.baseline, "{variant} is a plain kernel");
        }
        // Norms of heads keep Q, K and V off the fused path, and the rest on it.
        let normed = wide(tiny::qwen3());
        let steps = self::model(&normed, scheme, TableChoice::Default, 64).steps(0);
        let singly = steps.iter().filter(|(workload, _)| workload.op == format!("gemv_{name}")).count();
        assert_eq!((singly, steps.len()), (normed.layers, 2 + 7 * normed.layers));
    }
}

#[test]
fn a_cache_in_int8_takes_the_launches_of_one_in_f16() {
    if !inside("a_cache_in_int8_takes_the_launches_of_one_in_f16", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    for scheme in [Scheme::Q4_0, Scheme::F16] {
        let ops = |kv| -> Vec<String> {
            let steps = model_of(&shape, scheme, TableChoice::Default, 64, kv).steps(0);
            steps.into_iter().map(|(workload, _)| workload.op).collect()
        };
        let int8 = ops(KvType::Int8);
        assert_eq!((int8.len(), &int8), (2 + 5 * shape.layers, &ops(KvType::F16)));
    }
}

#[test]
fn steps_launched_one_by_one_choose_the_tokens_of_the_graph_and_are_counted_as_launches() {
    if !inside("steps_launched_one_by_one_choose_the_tokens_of_the_graph_and_are_counted_as_launches", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    let mut model = model(&shape, Scheme::Q4_0, TableChoice::Default, 32);
    let prompt = super::ids(&shape, 20);
    let steps = model.steps(0).len() as u64;
    for way in Launching::ALL {
        // The last token stands at the end of the context.
        let decoded = model.decode_by(way, &prompt, 12).unwrap();
        let want: Vec<u32> = (19..32).map(|pos| behind(pos, &shape)).collect();
        assert_eq!((&decoded.ids, decoded.nanos.len()), (&want, 12), "{way:?}");
        let (graph_launches, kernel_launches) = if way == Launching::Graph { (12, 0) } else { (0, 12 * steps) };
        let want = Counters { tokens: 12, graph_launches, kernel_launches, d2h_bytes: 48, ..Counters::default() };
        assert_eq!(decoded.counted, want, "{way:?}");
        // What follows is not that of a token that was left in the ring.
        model.feed(&prompt[..3], 0).unwrap();
        assert_eq!(model.next_greedy(true).unwrap(), behind(2, &shape));
    }
}
