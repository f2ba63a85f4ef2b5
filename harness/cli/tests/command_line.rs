//! The program itself: exit codes, messages, files, signals.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt;
use bench_cli::model::{GgufModel, Model};
use bench_cli::suite;
use engine::generate::KvType;
use harness_spec::record::{RunRecord, Sample, SampleStatus, Verdict};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

fn bench() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_bench"));
    // The user's own Ollama must not take part in a test: port 1 answers nothing.
    c.env("OLLAMA_HOST", "127.0.0.1:1").env_remove("BENCH_LOG");
    // Nor a GPU: what is tested here is the same on every machine.
    c.env("CUDA_VISIBLE_DEVICES", "");
    c
}

/// The real model, where there is one.
fn model() -> Option<PathBuf> {
    let given = std::env::var_os("EDGELLM_TEST_MODEL").map(PathBuf::from);
    let store = std::env::var_os("HOME").map(|h| Path::new(&h).join(".local/share/edgellm/models/smollm2-135m.gguf"));
    let found = given.or(store).filter(|p| p.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("EDGELLM_REQUIRE_MODEL").is_none_or(|v| v != "1"),
            "the model is required here; run `edgellm pull smollm2:135m` or set EDGELLM_TEST_MODEL"
        );
        eprintln!("skipped: no model; run `edgellm pull smollm2:135m` or set EDGELLM_TEST_MODEL");
    }
    found
}

fn record(folder: &Path) -> RunRecord {
    serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap()
}

fn samples(folder: &Path) -> Vec<Sample> {
    let text = std::fs::read_to_string(folder.join("samples.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn wrong_usage_ends_with_64_and_names_the_fix() {
    for (args, said) in [
        (vec!["compare", "--runs", "0"], "at least 1"),
        (vec!["compare", "--suite", "protocl"], "protocol, general, quick"),
        (vec!["compare", "--block", "11"], "1 to 10"),
        (vec!["compare", "--lengths", "1"], "at least 2 tokens"),
        (vec!["compare", "--lengths", "5000"], "raise --ctx"),
        (vec!["compare", "--against", "vllm"], "ollama, ollama=URL, openai=URL or baseline"),
        (vec!["compare", "--against", "openai"], "openai=http://"),
        (vec!["compare", "--against", "ollama=ftp://x"], "http://HOST:PORT"),
        (vec!["compare", "--threads", "0"], "at least 1"),
        (vec!["compare", "--runs", "many"], "--runs"),
        (vec!["e2e", "--backend", "gpt"], "unknown server"),
        (vec!["e2e", "--device", "tpu"], "unknown device `tpu`"),
        (vec!["compare", "--device", "auto"], "write cpu or cuda:N"),
        (vec!["e2e", "--breakdown", "--device", "cpu"], "--device cuda:N"),
        (vec!["e2e", "--breakdown", "--device", "cuda:0", "--backend", "ollama"], "leave --backend out"),
        (vec!["e2e", "--kv", "int8", "--device", "cpu"], "--kv f16"),
        (vec!["compare", "--depth", "2000", "--device", "cpu"], "--ctx 2304"),
        (vec!["compare", "--depth", "64,64"], "twice"),
        (vec!["e2e", "--tokens", "0"], "no time between tokens"),
        (vec!["e2e", "--tokens", "100", "--runs", "5"], "cannot be used with"),
        (vec!["bogus"], "unrecognized subcommand"),
        (vec![], "Usage"),
    ] {
        bench().args(&args).assert().code(64).stderr(contains(said)).stdout(predicate::str::is_empty());
    }
}

#[test]
fn help_and_version_are_answers() {
    bench().arg("--help").assert().code(0).stdout(contains("compare"));
    bench().arg("--version").assert().code(0).stdout(contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_absent_ollama_that_was_asked_for_is_no_substitute_but_exit_3() {
    let out = TempDir::new().unwrap();
    for against in ["ollama", "ollama=127.0.0.1:1", "openai=127.0.0.1:1"] {
        bench()
            .args(["compare", "--against", against, "--out"])
            .arg(out.path())
            .assert()
            .code(3)
            .stderr(contains("refused").and(contains("hint:")).and(contains("baseline (this").not()));
    }
}

#[test]
fn a_gpu_that_is_not_there_is_exit_3_with_the_fix_and_the_processor_is_no_substitute() {
    let out = TempDir::new().unwrap();
    for verb in ["e2e", "compare"] {
        let folder = out.path().join(verb);
        bench()
            .args([verb, "--device", "cuda:0", "--model", "/nowhere/x.gguf", "--out"])
            .arg(&folder)
            .assert()
            .code(3)
            .stdout(predicate::str::is_empty())
            .stderr(contains("--device cuda:0").and(contains("no CUDA d")).and(contains("hint:")));
        assert!(!folder.exists(), "nothing was begun");
    }
    // What would be run is said for a device of another machine, too.
    bench().args(["e2e", "--device", "cuda:3", "--dry-run"]).assert().code(0).stdout(contains("cuda:3"));
    bench().args(["compare", "--dry-run", "--json"]).assert().code(0).stdout(contains("\"device\": \"cpu\""));
}

#[test]
fn a_depth_fills_the_context_in_every_run_and_the_page_of_the_record_has_a_row_for_each() {
    let (Some(model), dir) = (model(), TempDir::new().unwrap()) else { return };
    let folder = dir.path().join("records/curve");
    bench()
        .args(["e2e", "--device", "cpu", "--depth", "96,200", "--lengths", "6", "--runs", "4", "--warmup", "0"])
        .args(["--model".as_ref(), model.as_os_str(), "--out".as_ref(), folder.as_os_str()])
        .assert()
        .code(0);
    let (record, samples) = (record(&folder), samples(&folder));
    let depths: Vec<_> = record.suite.prompts.iter().map(|p| (p.id.as_str(), p.depth)).collect();
    assert_eq!(depths, [("depth-96", Some(96)), ("depth-200", Some(200))]);
    for sample in &samples {
        let depth: u64 = sample.prompt.trim_start_matches("depth-").parse().unwrap();
        assert!(sample.prompt_tokens.abs_diff(depth) <= 16, "{} tokens at {depth}", sample.prompt_tokens);
    }
    assert!(record.headline.text.contains("at a depth of 96") && record.headline.text.contains("at a depth of 200"));
    let page = dir.path().join("results.html");
    bench()
        .args(["report".as_ref(), "--records".as_ref(), dir.path().as_os_str(), "--out".as_ref(), page.as_os_str()])
        .assert()
        .code(0);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("depth 96, 6 tokens") && page.contains("depth 200, 6 tokens"), "{page}");
}

#[test]
fn a_folder_that_cannot_be_written_or_holds_a_run_is_refused_before_anything_starts() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let inside = file.join("out");
    bench().args(["compare", "--out"]).arg(&inside).assert().code(3).stderr(contains("--out"));
    std::fs::write(dir.path().join("run.json"), b"{}").unwrap();
    bench().args(["compare", "--out"]).arg(dir.path()).assert().code(3).stderr(contains("holds a run already"));
}

#[test]
fn a_model_that_is_not_there_or_is_none_is_one_message() {
    let dir = TempDir::new().unwrap();
    let out = |name: &str| dir.path().join(name);
    bench()
        .args(["compare", "--model", "/nowhere/x.gguf", "--out"])
        .arg(out("a"))
        .assert()
        .code(3)
        .stderr(contains("/nowhere/x.gguf"));
    let junk = dir.path().join("junk.gguf");
    std::fs::write(&junk, b"not a model").unwrap();
    bench()
        .args(["compare", "--out"])
        .arg(out("b"))
        .arg("--model")
        .arg(&junk)
        .assert()
        .code(3)
        .stderr(contains("junk.gguf"));
}

#[test]
fn a_dry_run_says_what_would_be_run_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("never");
    let run = bench()
        .args(["compare", "--dry-run", "--json", "--runs", "20", "--seed", "5", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(run.status.success());
    let plan: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((plan["runs_a_side"].as_u64(), plan["blocks"].as_array().unwrap().len()), (Some(20), 4));
    assert!(!out.exists());
    bench().args(["e2e", "--dry-run"]).assert().code(0).stdout(contains("100 runs"));
    for (model, said) in [("./", "is a folder"), ("src/", "is a folder"), ("./no.gguf", "there is no file ./no.gguf")] {
        for verb in ["compare", "e2e"] {
            bench().args([verb, "--dry-run", "--model", model]).assert().code(3).stderr(contains(said));
        }
    }
}

#[test]
fn lists_and_the_doctor_print_json_on_stdout_alone() {
    // All variants of all ops are some 180,000, whose constraints take a while.
    for what in ["ops", "kernels", "variants --op add", "suites", "devices", "models"] {
        let dir = TempDir::new().unwrap();
        let list = bench().arg("list").args(what.split(' ')).arg("--json").env("EDGELLM_HOME", dir.path()).output();
        let run = list.unwrap();
        assert!(run.status.success(), "{what}: {}", String::from_utf8_lossy(&run.stderr));
        let rows: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert!(rows.is_array() && (what == "models" || !rows.as_array().unwrap().is_empty()), "{what}");
    }
    let run = bench().args(["doctor", "--json"]).output().unwrap();
    let v: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    for name in ["governor", "smt", "load", "memory", "virtualization", "cpu quota"] {
        let noise = v["environment"]["noise"].as_array().unwrap();
        assert!(noise.iter().any(|n| n["name"] == name), "{name}");
    }
    for name in ["ollama", "nvrtc", "model store"] {
        assert!(v["checks"].as_array().unwrap().iter().any(|n| n["name"] == name), "{name}");
    }
    bench().arg("doctor").assert().code(0).stdout(contains("fix:"));
}

#[test]
fn a_report_of_a_folder_without_a_run_is_exit_3() {
    let dir = TempDir::new().unwrap();
    bench().arg("report").arg(dir.path()).assert().code(3).stderr(contains("run.json"));
}

#[test]
fn the_frozen_token_ids_are_those_of_the_models_own_tokenizer() {
    let Some(path) = model() else { return };
    let model = GgufModel::read("smollm2", &path, Some("0".repeat(64)), 2048, KvType::F16).unwrap();
    for suite in suite::built_in().unwrap() {
        for prompt in suite.prompts {
            assert_eq!(prompt.token_ids["smollm2"], model.ids(&prompt.text), "{}", prompt.id);
        }
    }
}

#[test]
fn a_rendered_prompt_shares_no_text_with_that_of_another_nonce() {
    let Some(path) = model() else { return };
    let model = GgufModel::read("smollm2", &path, Some("0".repeat(64)), 2048, KvType::F16).unwrap();
    let (a, b) = (model.render("Hi", "12345678").unwrap(), model.render("Hi", "87654321").unwrap());
    assert!(a.text.contains("user\n[12345678] Hi"), "{}", a.text);
    assert_eq!(a.ids.len(), b.ids.len(), "nonces are of one length in tokens");
    let shared = a.ids.iter().zip(&b.ids).take_while(|(x, y)| x == y).count();
    assert!(shared <= 6, "a prefix cache could keep {shared} tokens of {:?}", a.text);
}

#[test]
fn the_embedded_peer_is_measured_from_start_to_report() {
    let Some(path) = model() else { return };
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    let run = bench()
        .args(["compare", "--runs", "3", "--lengths", "8", "--warmup", "1", "--json", "--model"])
        .arg(&path)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{stderr}");
    // Without a peer asked for and none there, the first line says who stands in.
    assert!(
        stderr.starts_with("peer: embedded baseline") && stderr.contains("nothing below is about Ollama"),
        "{stderr}"
    );
    let printed: RunRecord = serde_json::from_slice(&run.stdout).unwrap();
    let saved = record(&out);
    assert_eq!(printed, saved);
    assert_eq!((saved.sides[0].kind.as_str(), saved.sides[1].kind.as_str()), ("edgellm", "baseline"));
    // Three pairs are too few for any verdict but this.
    assert_eq!(saved.headline.verdict, Some(Verdict::Unstable));
    assert!(saved.notes[0].starts_with("peer: embedded baseline"));
    // Both sides compute the model, each with its own kernels: the exact path agrees with every answer.
    let quality = saved.quality.as_ref().unwrap();
    assert!(quality.passed == Some(true) && quality.answers.len() == 6 && quality.text.mean_kl > 0.0, "{quality:?}");
    assert!(saved.notes.iter().any(|n| n.contains("greedy answers of both sides")), "{:?}", saved.notes);
    assert!(saved.ceiling.as_ref().unwrap().read_gb_per_s > 0.1);
    assert_eq!(saved.plan.device, "cpu");
    assert!(saved.sides.iter().all(|s| s.gpu.is_none() && s.options["device"] == "cpu"));
    for side in &saved.sides {
        assert!(side.rss_peak_bytes.value.unwrap() > saved.model.weight_bytes_per_token as f64 * 0.5, "{side:?}");
        assert!(side.load_ms.value.unwrap() > 0.0 && side.achieved_gb_per_s.value.is_some());
    }
    for s in samples(&out) {
        assert_eq!(s.server.as_ref().unwrap().prompt_tokens, Some(s.prompt_tokens));
        assert!(s.one_token_per_chunk && s.rss_bytes.is_some());
    }
    // The report is rebuilt from the files alone.
    std::fs::remove_file(out.join("report.html")).unwrap();
    bench().arg("report").arg(&out).assert().code(0).stdout(contains("decode"));
    assert!(out.join("report.html").is_file());
    // What is not known to be no slower is no pass.
    bench()
        .args([
            "compare",
            "--runs",
            "1",
            "--lengths",
            "8",
            "--warmup",
            "0",
            "--fail-on-slower",
            "--against",
            "baseline",
            "--model",
        ])
        .arg(&path)
        .arg("--out")
        .arg(dir.path().join("second"))
        .assert()
        .code(2);
}

#[test]
fn one_side_alone_leaves_the_same_kind_of_record() {
    let Some(path) = model() else { return };
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    bench()
        .args(["e2e", "--runs", "2", "--lengths", "8", "--warmup", "0", "--model"])
        .arg(&path)
        .arg("--out")
        .arg(&out)
        .assert()
        .code(0);
    let r = record(&out);
    assert_eq!((r.sides.len(), r.manifest.len(), r.headline.verdict), (1, 0, None));
    assert_eq!(r.hygiene.pairs_kept, 2);
}

/// Waits until a run in another process has a few timed samples on disk.
fn wait_for_samples(out: &Path, count: usize) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        let lines = std::fs::read_to_string(out.join("samples.jsonl")).map_or(0, |t| t.lines().count());
        if lines >= count {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the run made no progress");
}

fn long_run(path: &Path, out: &Path) -> std::process::Child {
    bench()
        .args(["compare", "--against", "baseline", "--runs", "200", "--lengths", "8", "--warmup", "1", "--model"])
        .arg(path)
        .arg("--out")
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap().success());
}

#[test]
fn ctrl_c_in_the_middle_keeps_the_samples_and_writes_the_report() {
    let Some(path) = model() else { return };
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    let child = long_run(&path, &out);
    wait_for_samples(&out, 5);
    signal(child.id(), "INT");
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("interrupted") && stderr.contains("what was measured"), "{stderr}");
    let r = record(&out);
    assert!(r.hygiene.interrupted && r.hygiene.failed_requests == 0);
    let samples = samples(&out);
    assert!(samples.len() < 400 && samples.iter().any(|s| s.status == SampleStatus::Length));
    assert!(out.join("report.html").is_file());
}

#[test]
fn a_killed_run_leaves_its_samples_and_no_server_behind() {
    let Some(path) = model() else { return };
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    let mut child = long_run(&path, &out);
    wait_for_samples(&out, 5);
    let servers: Vec<u32> =
        bench_cli::machine::process::tree(child.id()).into_iter().filter(|pid| *pid != child.id()).collect();
    assert_eq!(servers.len(), 2, "both servers are children of the run");
    signal(child.id(), "KILL");
    child.wait().unwrap();
    assert!(samples(&out).len() >= 5);
    let begun = Instant::now();
    while servers.iter().any(|pid| is_running(*pid)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "a server outlived the run that started it");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a process exists and is no zombie that only waits to be collected.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_selftest_of_the_statistics_leaves_a_record_whose_page_can_be_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("selftest");
    let run = bench().args(["selftest", "stats", "--suites", "2", "--json", "--out"]).arg(&out).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{stderr}");
    let record: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((record["kind"].as_str(), record["figures"].as_array().unwrap().len()), (Some("selftest"), 10));
    assert!(record["notes"][0].as_str().unwrap().contains("asks for 100"), "{record}");
    let page = std::fs::read(out.join("report.html")).unwrap();
    let again = bench().arg("report").arg(&out).output().unwrap();
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("The statistics hold"));
    assert_eq!(std::fs::read(out.join("report.html")).unwrap(), page);

    let gpu =
        bench().args(["selftest", "stats", "--device", "cuda:99", "--out"]).arg(dir.path().join("g")).output().unwrap();
    assert_eq!(gpu.status.code(), Some(3), "{}", String::from_utf8_lossy(&gpu.stderr));
    assert!(!dir.path().join("g").exists(), "a device that is not there leaves no folder");
}
