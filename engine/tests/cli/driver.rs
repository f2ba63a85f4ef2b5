//! What the program says of a GPU that cannot do what is asked, on a driver that shows a device and computes nothing.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use engine::synth::{Scheme, Shape, SynthOptions, write_file};
use predicates::str::contains;

use crate::{Home, home, libraries, tiny};

/// The folder of the scripted driver, built once, and in it that of a compiler that goes with it.
fn folder() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("compiler")).unwrap();
        libraries::gpu(&folder, &folder.join("compiler/libnvrtc.so"))
            .expect("there is the compiler that links every Rust program");
        folder
    })
}

/// The program on a machine with that driver, which shows what these variables say.
fn on_gpu(home: &Home, words: &[&str], shows: &[(&str, &str)]) -> Command {
    let mut command = home.edgellm(words);
    command.env("LD_LIBRARY_PATH", folder()).env_remove("EDGELLM_ISA").env_remove("CUDA_VISIBLE_DEVICES");
    command.env("EDGELLM_CACHE", home.dir.path().join("cache"));
    command.envs(shows.iter().copied());
    command
}

/// Ends with 3 and one message with these words, and with neither output nor a panic.
fn refused(home: &Home, words: &[&str], shows: &[(&str, &str)], want: &[&str]) {
    let said = on_gpu(home, words, shows).assert().code(3).stdout("");
    let stderr = String::from_utf8(said.get_output().stderr.clone()).unwrap();
    assert!(want.iter().all(|w| stderr.contains(w)) && !stderr.contains("panicked"), "{want:?} in {stderr}");
    assert_eq!(stderr.matches("edgellm: ").count(), 1, "{stderr}");
}

#[test]
fn a_device_that_the_driver_does_not_show_is_named_with_how_many_there_are() {
    let home = home();
    let run = ["run", home.model(), "hi", "--device", "cuda:7"];
    refused(&home, &run, &[("FAKE_DRIVER_DEVICES", "2")], &["no device 7", "shows 2", "hint:"]);
    let run = ["run", home.model(), "hi", "--device", "cuda:0"];
    refused(&home, &run, &[("FAKE_DRIVER_DEVICES", "0")], &["no CUDA device", "the driver shows none", "hint:"]);
}

#[test]
fn a_driver_that_is_too_old_is_named_with_what_is_needed_and_a_run_by_itself_takes_the_processor() {
    let home = home();
    let run = ["run", home.model(), "hi", "-n", "2", "--device", "cuda:0"];
    let old = [("FAKE_DRIVER_VERSION", "11040")];
    refused(&home, &run, &old, &["driver is too old", "CUDA 11.4", "12.0", "hint: install"]);
    on_gpu(&home, &run[..5], &old).assert().success().stderr(contains("too old"));
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_loaded_with_what_it_needs() {
    let home = home();
    let run = ["run", home.model(), "hi", "--device", "cuda:0"];
    refused(&home, &run, &[("FAKE_DRIVER_FREE_MIB", "3")], &["needs", "3 MiB are free on Scripted GPU", "hint:"]);
}

#[test]
fn a_compiler_that_is_not_there_is_named_with_how_to_get_it() {
    let home = home();
    let run = ["run", home.model(), "hi", "--device", "cuda:0"];
    refused(
        &home,
        &run,
        &[("EDGELLM_NVRTC", "/nonexistent/libnvrtc.so")],
        &["no NVRTC", "/nonexistent", "hint: pip install"],
    );
}

#[test]
fn an_architecture_that_is_none_is_named_with_the_form() {
    let home = home();
    let run = ["run", home.model(), "hi", "--device", "cuda:0"];
    for nonsense in ["nonsense", "sm_", "compute_5", "90"] {
        refused(&home, &run, &[("EDGELLM_CUDA_ARCH", nonsense)], &["EDGELLM_CUDA_ARCH", nonsense, "compute_75"]);
    }
}

#[test]
fn a_table_that_is_damaged_or_of_a_processor_is_refused_by_its_name() {
    let home = home();
    if kernels::cuda::library::nvrtc().is_err() {
        // What the device's table is keyed by is not known without the compiler.
        println!("skipped: there is no NVRTC");
        return;
    }
    let path = home.dir.path().join("t.toml");
    let table = path.to_str().unwrap();
    let run = ["run", home.model(), "hi", "--device", "cuda:0", "--table", table];
    std::fs::write(&path, "schema = 1\nnonsense").unwrap();
    refused(&home, &run, &[], &["--table", "t.toml", "is damaged", "bench tune"]);
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../variants/tables/amd-epyc.toml"));
    std::fs::write(&path, text.unwrap()).unwrap();
    refused(&home, &run, &[], &["--table", "t.toml", "(cpu)", "hint: choose a table of this device"]);
}

#[test]
fn heads_of_a_size_that_no_kernel_takes_are_named_and_the_processor_runs_them() {
    if kernels::cuda::library::nvrtc().is_err() {
        println!("skipped: there is no NVRTC");
        return;
    }
    // Its heads have 16 elements.
    let home = home();
    let run = ["run", home.model(), "hi", "-n", "2", "--device", "cuda:0"];
    refused(
        &home,
        &run,
        &[],
        &["the CUDA engine does not run this model", "16 elements a head", "hint: --device cpu runs it"],
    );
}

#[test]
fn a_kernel_that_the_device_has_no_room_for_is_named_once_and_another_answers() {
    let home = home();
    let shape = Shape { hidden: 256, inter: 512, head_dim: 64, context: 4200, ..tiny::llama() };
    let path = home.dir.path().join("wide.gguf");
    let synth = SynthOptions { scheme: Scheme::Q4_0, layers: None, seed: 1 };
    write_file(&path, &shape, &synth, &mut |_, _| {}).unwrap();
    let compiler = folder().join("compiler/libnvrtc.so");
    // A context of three classes of lengths, in each of which attention is a cluster by default.
    let run = ["run", path.to_str().unwrap(), "hi", "-n", "4", "--ctx", "4200", "--device", "cuda:0"];
    let shows = [
        ("EDGELLM_NVRTC", compiler.to_str().unwrap()),
        ("EDGELLM_CUBLASLT", "/none"),
        ("EDGELLM_CUDA_ARCH", "compute_90"),
        ("FAKE_DRIVER_CLUSTER", "16"),
    ];
    // All four kernels of f16 with clusters are named, each once for all classes.
    for (fit, said) in [("1", 0), ("0", 4)] {
        let mut program = on_gpu(&home, &run, &shows);
        let ended = program.env("FAKE_DRIVER_CLUSTERS_THAT_FIT", fit).assert().success();
        let stderr = String::from_utf8(ended.get_output().stderr.clone()).unwrap();
        assert_eq!(stderr.matches("clusters of 16 blocks").count(), said, "{stderr}");
        assert_eq!(stderr.matches("attn_token/cluster").count(), said, "{stderr}");
    }
}
