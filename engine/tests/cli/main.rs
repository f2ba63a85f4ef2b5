//! The `edgellm` program as a user meets it: every verb, what it prints where, and what it says to mistakes.

mod chat;
mod driver;
#[path = "../scripted/libraries.rs"]
mod libraries;
#[path = "../real_model/mod.rs"]
mod real_model;
mod serve;
#[path = "../tiny/mod.rs"]
mod tiny;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use engine::synth::{Scheme, SynthOptions, write_file};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

/// A home of its own, with a tiny model beside its store.
struct Home {
    dir: TempDir,
    model: PathBuf,
}

fn home() -> Home {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny.gguf");
    let synth = SynthOptions { scheme: Scheme::Q4_0, layers: None, seed: 1 };
    write_file(&model, &tiny::llama(), &synth, &mut |_, _| {}).unwrap();
    Home { dir, model }
}

impl Home {
    fn edgellm(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.env_remove("EDGELLM_DEVICE");
        command.args(words);
        command
    }

    /// Nothing of the machine's own settings, and no way out to the network.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let nowhere = "http://127.0.0.1:1".to_owned();
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        vec![
            ("EDGELLM_HOME", path("home")),
            ("OLLAMA_MODELS", path("no-ollama")),
            ("EDGELLM_OLLAMA_REGISTRY", nowhere.clone()),
            ("HF_ENDPOINT", nowhere.clone()),
            ("EDGELLM_PYPI_INDEX", nowhere),
            ("EDGELLM_PYTHON", "/nonexistent/python3".to_owned()),
            ("EDGELLM_ISA", "scalar".to_owned()),
            ("EDGELLM_LOG", "warn".to_owned()),
        ]
    }

    fn model(&self) -> &str {
        self.model.to_str().unwrap()
    }
}

#[test]
fn every_verb_explains_itself() {
    let home = home();
    for verb in ["pull", "run", "serve", "models", "info", "synth", "eval"] {
        home.edgellm(&[verb, "--help"]).assert().success().stdout(contains(format!("edgellm {verb}")));
    }
    home.edgellm(&["--help"]).assert().success().stdout(contains("Exit codes: 0 done, 3 could not do it, 64"));
    home.edgellm(&["--version"]).assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_64_and_says_what_is_wrong() {
    let home = home();
    for (words, want) in [
        (&[][..], "Usage"),
        (&["dance"], "dance"),
        (&["pull"], "<SOURCE>"),
        (&["pull", "two words"], "is not a source of models"),
        (&["pull", "x", "--as", "../up"], "is not a model name"),
        (&["run", home.model(), "hi", "--temperature", "-1"], "temperature is -1, and must be 0 or more"),
        (&["run", home.model(), "hi", "--top-p", "2"], "top_p is 2"),
        (&["run", home.model(), "hi", "--ctx", "0"], "must be at least 1"),
        (&["run", home.model(), "hi", "--isa", "neon9"], "unknown instruction set"),
        (&["run", home.model(), "hi", "--device", "tpu"], "unknown device `tpu`; write auto, cpu, cuda or cuda:N"),
        (&["info", home.model(), "--kv", "f32"], "f16 or int8"),
        (&["run", home.model(), "hi", "--interactive"], "takes no prompt"),
        (&["run", home.model(), ""], "the prompt is empty"),
        (&["run", "no/../name", "hi"], "is not a model name"),
        (&["serve", "--host", "a host"], "is no address to listen on"),
        (&["serve", "--port", "70000"], "70000"),
        (&["serve", "--keep-alive", "soon"], "is not a duration"),
        (&["models", "rm"], "<NAMES>"),
        (&["info"], "<MODEL>"),
        (&["synth", "--shape", "gpt-9", "--quant", "q4_0", "-o", "x.gguf"], "there is no model shape `gpt-9`"),
        (&["synth", "--shape", "smollm2-135m", "--quant", "q9", "-o", "x.gguf"], "there is no quantisation `q9`"),
        (&["eval"], "--reference"),
    ] {
        home.edgellm(words).assert().code(64).stderr(contains(want)).stdout("");
    }
}

#[test]
fn a_mistake_is_told_once_with_what_to_do_about_it_on_a_line_of_its_own() {
    let home = home();
    let table = home.dir.path().join("t.toml");
    std::fs::write(&table, "nonsense").unwrap();
    let (table, text) = (table.to_str().unwrap(), home.dir.path().join("text.json"));
    std::fs::write(&text, "nonsense").unwrap();
    for (words, once) in [
        (&["run", home.model(), "hi", "--device", "cpu", "--table", table][..], "is damaged"),
        (&["synth", "--shape", "smollm2-135m", "--quant", "q4_0", "-o", "/nonexistent/x"], "No such file"),
        (&["eval", "--reference", text.to_str().unwrap(), "--model", home.model()], "expected ident"),
    ] {
        let said = home.edgellm(words).assert().code(3).stdout("");
        let stderr = String::from_utf8(said.get_output().stderr.clone()).unwrap();
        assert_eq!(stderr.matches(once).count(), 1, "{stderr}");
        let last = stderr.trim_end().lines().last().unwrap();
        assert!(!stderr.contains("hint: ") || last.starts_with("hint: "), "{stderr}");
    }
}

#[test]
fn what_cannot_be_done_is_3_and_names_the_fix() {
    let home = home();
    let cut = home.dir.path().join("cut.gguf");
    let bytes = std::fs::read(&home.model).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    let cut = cut.to_str().unwrap();
    let text = home.dir.path().join("text.gguf");
    std::fs::write(&text, "this is no model").unwrap();
    let text = text.to_str().unwrap();
    for (words, want) in [
        (&["run", "llama9", "hi"][..], "model 'llama9' not found, try: edgellm pull llama9"),
        (&["run", "./absent.gguf", "hi"], "there is no file ./absent.gguf"),
        (&["run", cut, "hi"], "cut.gguf"),
        (&["info", text], "text.gguf"),
        (&["info", "llama9"], "edgellm pull llama9"),
        (&["run", home.model(), "hi", "--ctx", "100000"], "100000"),
        (&["run", home.model(), "long ".repeat(600).as_str(), "--raw"], "the context holds 512"),
        (&["run", home.model(), "hi", "--kv", "int8", "--device", "cpu"], "--kv int8 is not possible on the processor"),
        (
            &["run", home.model(), "hi", "--kv", "f32", "--device", "cuda:0"],
            "--kv f32 is not possible on a CUDA device",
        ),
        (&["run", home.model(), "hi", "--device", "cuda:4096"], "no CUDA d"),
        (&["info", home.model(), "--ctx", "100000"], "100000"),
        (&["pull", "./absent.gguf"], "there is no file ./absent.gguf"),
        (&["pull", text], "is not a GGUF file"),
        (&["pull", "llama3.2"], "hint: check the network"),
        (&["pull", "smollm2:135m"], "edgellm pull FILE.gguf --as smollm2:135m"),
        (&["run", "smollm2:135m", "hi"], "could not get smollm2:135m"),
        (&["models", "rm", "llama9"], "edgellm models lists what there is"),
        (&["serve", "--model", "llama9"], "edgellm pull llama9"),
        (&["serve", "--port", "0", "--model", text], "could not be loaded"),
        (&["serve", "--host", "203.0.113.1"], "it is no address of this machine"),
        (&["synth", "--shape", "smollm2-135m", "--quant", "q4_0", "-o", "/nonexistent/x.gguf"], "check the folder"),
        (&["eval", "--reference", "/nonexistent.json", "--model", home.model()], "/nonexistent.json"),
        (&["eval", "--reference", text, "--model", home.model()], "text.gguf"),
    ] {
        let output = home.edgellm(words).assert().code(3).stderr(contains(want)).stdout("");
        let stderr = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_where_it_was_named_and_a_note_where_it_was_not() {
    let home = home();
    // Hides the GPUs of a machine that has some.
    let without_gpu = |words: &[&str]| {
        let mut command = home.edgellm(words);
        command.env_remove("EDGELLM_ISA").env("CUDA_VISIBLE_DEVICES", "");
        command
    };
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama3.json");
    let reference = reference.to_str().unwrap();
    for words in [
        &["run", home.model(), "hi", "--device", "cuda:0"][..],
        &["run", home.model(), "--interactive", "--device", "cuda"],
        &["eval", "--reference", reference, "--model", home.model(), "--device", "cuda:0"],
        &["serve", "--port", "0", "--model", home.model(), "--device", "cuda:0"],
        &["info", home.model(), "--device", "cuda:0"],
    ] {
        let said = without_gpu(words).assert().code(3).stdout("").stderr(contains("no CUDA d").and(contains("hint: ")));
        let stderr = String::from_utf8(said.get_output().stderr.clone()).unwrap();
        assert_eq!(stderr.matches("no CUDA d").count(), 1, "{words:?} says it once: {stderr}");
    }
    let run = ["run", home.model(), "hi", "-n", "4", "--temperature", "0"];
    let by_itself = without_gpu(&run).assert().success();
    let stderr = String::from_utf8(by_itself.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.matches("computing on the processor: no CUDA d").count(), 1, "{stderr}");
    let on_cpu = without_gpu(&[&run[..], &["--device", "cpu"]].concat()).assert().success().stderr("");
    assert_eq!(on_cpu.get_output().stdout, by_itself.get_output().stdout);
    // The environment chooses where the command line does not.
    without_gpu(&run).env("EDGELLM_DEVICE", "cpu").assert().success().stderr("");
    without_gpu(&run).env("EDGELLM_DEVICE", "cuda:0").assert().code(3);
}

#[test]
fn what_pull_stores_the_other_verbs_use() {
    let home = home();
    home.edgellm(&["models"]).assert().success().stdout("").stderr(contains("edgellm pull smollm2:135m"));
    let pulled = home.edgellm(&["pull", home.model(), "--as", "tiny:1"]).assert().success();
    let path = String::from_utf8(pulled.get_output().stdout.clone()).unwrap();
    assert!(Path::new(path.trim()).is_file(), "stdout is the path: {path:?}");
    home.edgellm(&["models"]).assert().success().stdout(contains("tiny:1").and(contains("KiB")));
    home.edgellm(&["ls", "--json"]).assert().success().stdout(contains("\"name\": \"tiny:1\""));
    home.edgellm(&["info", "tiny:1"]).assert().success().stdout(contains("llama").and(contains("Q4_0")));
    home.edgellm(&["run", "tiny:1", "Hello", "-n", "4"]).assert().success();
    home.edgellm(&["models", "rm", "tiny:1", "other"]).assert().code(3);
    home.edgellm(&["models", "list"]).assert().success().stdout(contains("tiny:1"));
    home.edgellm(&["models", "rm", "tiny:1"]).assert().success();
    home.edgellm(&["models"]).assert().success().stdout("");
    assert!(home.model.is_file(), "the original stays");
}

#[test]
fn info_prints_the_architecture_the_tensors_by_type_and_the_bytes_per_token() {
    let home = home();
    let output = home.edgellm(&["info", home.model(), "--json"]).assert().success();
    let info: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(info["architecture"], "llama");
    assert_eq!(info["quantization"], "Q4_0");
    assert!(info["weight_bytes_per_token"].as_u64().unwrap() > 0);
    let vram = &info["vram"];
    let part = |name: &str| vram[name].as_u64().unwrap();
    let parts = ["weights", "embedding", "kv", "rope", "decode", "prefill", "reserve"].map(part);
    assert_eq!(part("need_bytes"), parts.iter().sum::<u64>());
    assert_eq!((&vram["context"], &vram["kv_type"], &vram["gpu"]), (&512.into(), &"f16".into(), &Value::Null));
    let tensors = info["tensors"].as_object().unwrap();
    let per_token = info["weight_bytes_per_token"].to_string();
    let mut shown = home.edgellm(&["info", home.model()]).assert().success().stdout(contains(per_token));
    for dtype in tensors.keys() {
        shown = shown.stdout(contains(dtype.clone()));
    }
}

#[test]
fn synth_writes_the_same_file_for_the_same_seed() {
    let home = home();
    let write = |name: &str, seed: &str| {
        let file = home.dir.path().join(name);
        let words = ["synth", "--shape", "qwen2.5-0.5b", "--quant", "q4_0", "--layers", "1", "--seed", seed, "-o"];
        home.edgellm(&words).arg(&file).assert().success().stdout(contains(name));
        std::fs::read(file).unwrap()
    };
    let first = write("a.gguf", "7");
    assert!(first == write("b.gguf", "7"));
    assert!(first != write("c.gguf", "8"));
    home.edgellm(&["info"]).arg(home.dir.path().join("a.gguf")).assert().success().stdout(contains("qwen2"));
}

#[test]
fn eval_prints_the_agreement_with_a_reference() {
    let Some(model) = real_model::path() else { return };
    let home = home();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/smollm2_greedy.json");
    let mut reference: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    // One case is enough here; the whole file is the business of the parity test.
    reference["cases"].as_array_mut().unwrap().truncate(1);
    let file = home.dir.path().join("reference.json");
    std::fs::write(&file, reference.to_string()).unwrap();
    let words = ["eval", "--reference", file.to_str().unwrap(), "--model", model.to_str().unwrap()];
    let words = [&words[..], &["--precision", "exact"]].concat();
    home.edgellm(&words)
        .env_remove("EDGELLM_ISA")
        .assert()
        .success()
        .stdout(contains("top-1 agreement      100.00 % (96 of 96)"));
    let json = [&words[..], &["--json"]].concat();
    let output = home.edgellm(&json).env_remove("EDGELLM_ISA").assert().success();
    let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert!(report["median_logprob_diff"].as_f64().is_some_and(|diff| diff < 0.001), "{report}");
    // A reference of another model compares nothing.
    let other = ["eval", "--reference", file.to_str().unwrap(), "--model", home.model()];
    home.edgellm(&other).assert().code(3);
}
