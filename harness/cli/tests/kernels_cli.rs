//! What a person meets: wrong usage, dry runs, lists, verify, the log.

mod kernels;

use assert_cmd::assert::OutputAssertExt;
use kernels::{Lab, SMALL, WORKLOAD, done, record, said};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

#[test]
fn wrong_usage_ends_with_64_names_the_fix_and_leaves_no_folder() {
    let lab = Lab::new();
    for (args, words) in [
        (vec!["tune"], "--model qwen2.5-1.5b"),
        (vec!["tune", "--suite", "nope"], "decode-llama-3.1-8b"),
        (vec!["tune", "--model", "gpt-5"], "qwen2.5-1.5b"),
        (vec!["tune", "--model", "qwen2.5-1.5b", "--quant", "q3_k"], "q4_0"),
        (vec!["tune", "--workload", "gemv_q4_0 N"], "gemv_q4_0 N=4096 K=14336"),
        (vec!["tune", "--workload", "gemv_q9 N=1 K=1"], "use one of"),
        (vec!["tune", "--workload", "gemv_q4_0 N=64"], "K is missing"),
        (vec!["tune", "--workload", "gemv_q4_0 N=64 K=64 X=1"], "has no X"),
        (vec!["tune", "--workload", WORKLOAD, "--policy", "warm"], "cold or hot"),
        (vec!["sweep", "--workload", WORKLOAD, "--policy", "cold+in_engine"], "bench tune --model FILE.gguf"),
        (vec!["tune", "--workload", WORKLOAD, "--budget", "soon"], "3m"),
        (vec!["tune", "--workload", WORKLOAD, "--share", "2"], "at most 1"),
        (vec!["tune", "--workload", WORKLOAD, "--timeout", "0"], "above 0"),
        (vec!["tune", "--workload", WORKLOAD, "--resume", "nowhere"], "is no run that can go on"),
        (vec!["sweep", "--variants", "some"], "sample:N"),
        (vec!["sweep", "--suite", "quick", "--op", "rope"], "has no op `rope`"),
        (vec!["verify", "--seeds", "0"], "at least 1"),
        (vec!["verify", "--once", "--full"], "cannot be used with"),
        (vec!["verify", "--op", "gemv_q9"], "use one of"),
    ] {
        let mut c = lab.bench();
        c.arg(args[0]).args(["--simulate", "fake.toml"]).args(&args[1..]);
        if !args.contains(&"--resume") {
            c.args(["--out", "never"]);
        }
        c.assert().code(64).stderr(contains(words)).stdout(predicate::str::is_empty());
        assert!(!lab.path("never").exists(), "{args:?}");
    }
    lab.bench().args(["sweep", "--device", "tpu"]).assert().code(64).stderr(contains("cpu, cuda or cuda:N"));
    lab.bench().args(["explain", "gemv_q9", "N=1"]).assert().code(64).stderr(contains("use one of"));
    for (shape, words) in [("N=64", "K is missing"), ("X=1", "is missing"), ("N=64 K=64 X=1", "has no X")] {
        let mut c = lab.bench();
        c.args(["explain", "gemv_q4_0"]).args(shape.split(' ')).args(["--device", "cpu"]);
        c.assert().code(64).stderr(contains(words)).stdout(predicate::str::is_empty());
    }
    lab.bench().args(["list", "kernels", "--op", "gemv_q9"]).assert().code(64).stderr(contains("use one of"));
}

#[test]
fn without_a_gpu_a_cuda_run_is_exit_3_with_the_fix() {
    let lab = Lab::new();
    for verb in ["verify", "sweep"] {
        lab.bench()
            // No driver is found in an empty folder, on a machine with one as well.
            .env("CUDA_VISIBLE_DEVICES", "")
            .args([verb, "--device", "cuda", "--out", "never"])
            .assert()
            .code(3)
            .stderr(contains("error:"));
        assert!(!lab.path("never").exists());
    }
}

#[test]
fn a_broken_space_names_its_file_and_line() {
    let lab = Lab::new();
    std::fs::write(lab.path("kernels/mine.toml"), "op = \"gemv_q4_0\"\ndoc = \"x\"\n[[kernels]]\nname = \n").unwrap();
    lab.simulated("sweep")
        .args(["--workload", WORKLOAD])
        .assert()
        .code(64)
        .stderr(contains("mine.toml").and(contains("line 4")));
    lab.bench().args(["list", "kernels", "--kernels", "kernels"]).assert().code(64).stderr(contains("mine.toml"));
}

#[test]
fn a_source_that_does_not_compile_costs_its_variants_and_shows_file_and_line() {
    let lab = Lab::new();
    lab.kernel("other", "");
    lab.script("[[rules]]\nvariant = \"*/mine*\"\nfail = { stage = \"compile\", message = \"mine.cu(3): error: expected a ;\" }\n");
    let mut c = lab.simulated("sweep");
    let out = c.args(["--workload", WORKLOAD, "--seed", "1", "--out", "o"]).output().unwrap();
    done(&out);
    assert!(said(&out).contains("mine.cu(3): error: expected a ;"), "{}", said(&out));
    let run = record(&lab.path("o"));
    assert!(run.accounts[0].compile_failed >= 1 && run.results[0].winner.is_some());
}

#[test]
fn a_constraint_that_nothing_satisfies_is_said_and_the_sweep_goes_on() {
    let lab = Lab::of(SMALL);
    lab.kernel("other", "constraints = [\"ROWS > 99\"]");
    let mut c = lab.simulated("sweep");
    let out = c.args(["--workload", SMALL, "--seed", "1", "--variants", "all", "--out", "o"]).output().unwrap();
    done(&out);
    let run = record(&lab.path("o"));
    assert!(run.accounts[0].pruned >= 160 && run.results[0].winner.is_some(), "{:?}", run.accounts);
}

#[test]
fn a_library_is_timed_beside_a_sweep_or_skipped_with_the_reason() {
    let lab = Lab::new();
    let sweep = |out: &str| {
        let mut c = lab.simulated("sweep");
        let out = c.args(["--workload", "gemv_f16 N=4096 K=4096", "--seed", "1", "--out", out]).output().unwrap();
        done(&out);
        String::from_utf8(out.stdout).unwrap()
    };
    let line = |said: &str| said.lines().find(|l| l.starts_with("library: ")).unwrap_or_default().to_owned();
    assert!(line(&sweep("with")).ends_with(" µs, cublaslt@cuda"), "a time, and no rate of what is simulated");
    lab.script(
        "[[rules]]\nvariant = \"*/cublaslt*\"\nfail = { stage = \"constraint\", message = \"no cuBLASLt\\nhint: x\" }\n",
    );
    assert_eq!(line(&sweep("without")), "library: cublaslt@cuda skipped: no cuBLASLt hint: x");
    for name in ["with", "without"] {
        let run = record(&lab.path(name));
        assert!(run.accounts[0].balances(), "{name}: {:?}", run.accounts);
        assert!(run.results[0].winner.as_ref().is_some_and(|w| w.kernel != "cublaslt"), "{name}");
    }
}

#[test]
fn a_dry_run_says_what_would_be_run_and_leaves_nothing() {
    let lab = Lab::new();
    let out = lab.tune("never", "never.toml").args(["--dry-run", "--json"]).output().unwrap();
    done(&out);
    let plan: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(plan["verb"], "tune");
    assert!(plan["workloads"][0]["evaluations"].as_u64() >= Some(32));
    assert!(plan["workloads"][0]["candidates"].as_u64() >= Some(160));
    lab.simulated("verify").args(["--op", "gemv_q4_0", "--dry-run"]).assert().code(0).stdout(contains("gemv_q4_0"));
    assert!(!lab.path("never").exists() && !lab.path("never.toml").exists() && !lab.path("results").exists());
}

#[test]
fn a_table_or_folder_that_cannot_be_written_is_found_before_anything_is_measured() {
    let lab = Lab::new();
    std::fs::write(lab.path("file"), "x").unwrap();
    let out = lab.tune("never", "file/t.toml").output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert!(said(&out).contains("--table") && !lab.path("never").exists(), "{}", said(&out));
    let out = lab.tune("file/o", "t.toml").output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert!(said(&out).contains("--out"), "{}", said(&out));
    let mut c = lab.tune("never", "t.toml");
    let out = c.args(["--record-space", "nowhere/space.jsonl"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert!(said(&out).contains("--record-space") && !lab.path("never").exists(), "{}", said(&out));
}

/// `/dev/full` takes nothing, as a full disk.
#[cfg(target_os = "linux")]
#[test]
fn what_stdout_does_not_take_is_exit_3_and_costs_no_result() {
    let lab = Lab::new();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for args in [&["list", "ops"][..], &["list", "suites", "--json"], &["doctor"]] {
        lab.bench().args(args).stdout(full()).assert().code(3).stderr(contains("stdout could not be written"));
    }
    let out = lab.tune("o", "t.toml").stdout(full()).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(lab.path("t.toml").is_file() && record(&lab.path("o")).results[0].winner.is_some());
    assert!(said(&out).contains("results: o") && said(&out).contains("stdout could not be written"), "{}", said(&out));
}

#[test]
fn verify_passes_right_kernels_and_names_the_input_that_exposed_a_wrong_one() {
    let lab = Lab::new();
    let verify = |out: &str, more: &[&str]| {
        let mut c = lab.simulated("verify");
        c.args(["--op", "gemv_q4_0", "--variants", "sample:3", "--seeds", "2", "--out", out]).args(more);
        c.output().unwrap()
    };
    done(&verify("a", &[]));
    lab.script(
        "[[rules]]\nvariant = \"*/mine*\"\nfail = { stage = \"check\", message = \"AD-07 tail of K: row 3\" }\n",
    );
    let out = verify("b", &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("REJECTED at check") && text.contains("AD-07 tail of K: row 3"), "{text}");
    let run = record(&lab.path("b"));
    assert!(run.cells.iter().all(|c| c.time_ns.is_none()), "a verify times nothing");
}

#[test]
fn a_kernel_of_the_user_that_runs_at_no_shape_is_told_and_no_pass() {
    let lab = Lab::new();
    lab.kernel("wide", "constraints = [\"K >= 1048576\"]");
    let verify = |more: &[&str], out: &str| {
        let mut c = lab.simulated("verify");
        c.args(["--op", "gemv_q4_0", "--out", out]).args(more).output().unwrap()
    };
    let out = verify(&[], "a");
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains("gemv_q4_0/wide") && text.contains("K >= 1048576") && text.contains("--workload"), "{text}");
    assert_eq!(record(&lab.path("a")).cells.iter().filter(|c| c.cell.variant.to_string().contains("wide")).count(), 0);
    done(&verify(&["--workload", "gemv_q4_0 N=64 K=1048576"], "b"));
}

#[test]
fn mutants_must_be_rejected_every_one_and_cheats_when_they_are_timed() {
    let lab = Lab::new();
    let verify = |out: &str| {
        let mut c = lab.simulated("verify");
        c.args(["--op", "gemv_q4_0", "--expect-rejected", "--out", out]).output().unwrap()
    };
    let out = verify("a");
    assert_eq!(out.status.code(), Some(1), "right kernels are not rejected");
    assert!(said(&out).contains("were not rejected"), "{}", said(&out));
    lab.script("[[rules]]\nvariant = \"*/mine*\"\nfail = { stage = \"check\", message = \"last row is stale\" }\n");
    done(&verify("b"));
    lab.script("[[rules]]\nvariant = \"*/mine*\"\ncheat = \"skips_when_timed\"\n");
    let out = verify("c");
    done(&out);
    assert!(String::from_utf8_lossy(&out.stdout).contains("REJECTED at cheat"));
    // A mutant that does not even compile proves nothing.
    lab.script("[[rules]]\nvariant = \"*/mine*\"\nfail = { stage = \"compile\", message = \"x\" }\n");
    assert_eq!(verify("d").status.code(), Some(1));
}

#[test]
fn every_field_of_the_registry_is_listed_and_read_back() {
    let lab = Lab::new();
    let list = |what: &str| -> Vec<Value> {
        let out =
            lab.bench().arg("list").args(what.split(' ')).args(["--kernels", "kernels", "--json"]).output().unwrap();
        done(&out);
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let kernels = list("kernels");
    let registry: Vec<_> = variants::registry().kernels().collect();
    assert_eq!(kernels.len(), registry.len() + 1);
    for (_, spec) in registry {
        let row = kernels.iter().find(|r| r["kernel"] == spec.id()).unwrap_or_else(|| panic!("{}", spec.id()));
        let Value::Object(fields) = serde_json::to_value(spec).unwrap() else { panic!("a kernel is an object") };
        for (name, value) in fields {
            assert_eq!(row[&name], value, "{} {name}", spec.id());
        }
    }
    let mine = kernels.iter().find(|r| r["kernel"] == "gemv_q4_0/mine@cuda").unwrap();
    assert_eq!((mine["configurations"].as_u64(), mine["folder"].as_str()), (Some(160), Some("kernels")));
    assert_eq!(mine["source_sha256"].as_str().map(str::len), Some(64));
    // Those of all ops take a minute of a loaded processor.
    let variants = list("variants --op gemv_q4_0");
    assert!(variants.iter().all(|v| v["variant"].as_str().unwrap().parse::<harness_spec::VariantId>().is_ok()));
    assert_eq!(variants.iter().filter(|v| v["kernel"] == "gemv_q4_0/mine@cuda").count(), 160);
    let suites = list("suites");
    assert!(suites.iter().any(|s| s["of"] == "kernels" && s["suite"] == "decode-llama-3.1-8b"));
    assert!(list("models").iter().any(|m| m["of"] == "shape" && m["model"] == "llama-3.1-8b"));
    lab.bench().args(["list", "kernels", "--op", "gemv_q4_0"]).assert().code(0).stdout(contains("gemv_q4_0/plain@cpu"));
}

#[test]
fn tables_are_listed_with_what_is_wrong_with_them() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path("home/tables")).unwrap();
    done(&lab.tune("o", "home/tables/fake-gpu.toml").output().unwrap());
    std::fs::write(lab.path("home/tables/bad.toml"), "schema = 1\n").unwrap();
    let out = lab.bench().args(["list", "tables", "--json"]).output().unwrap();
    done(&out);
    let rows: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert!(rows[0]["problem"].as_str().unwrap().contains("bad.toml"));
    // The winner is a kernel of the user's folder, which this list does not have unless it is given.
    let problem = rows[1]["problem"].as_str().unwrap();
    assert!(rows[1]["device"] == "Fake GPU" && problem.contains("names gemv_q4_0/mine"), "{problem}");
    let out = lab.bench().args(["list", "tables", "--kernels", "kernels", "--json"]).output().unwrap();
    let with_folder: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert!(with_folder[1]["problem"].is_null(), "{}", with_folder[1]);
    assert!(rows[..2].iter().all(|r| r["of"] == "user"));
    // Behind them those that the program carries.
    let built_in: Vec<_> = rows[2..].iter().map(|r| (r["of"].as_str(), r["device"].as_str())).collect();
    assert!(built_in.contains(&(Some("built in"), Some("NVIDIA H200"))), "{built_in:?}");
    assert!(rows[2..].iter().all(|r| r["of"] == "built in" && r["rows"].as_u64() > Some(0)), "{built_in:?}");
    lab.bench().args(["list", "tables"]).assert().code(0).stdout(contains("NVIDIA H200").and(contains("bad.toml")));
    let file = lab.path("home/tables/bad.toml");
    lab.bench().env("EDGELLM_HOME", file).args(["list", "tables"]).assert().code(3).stderr(contains("EDGELLM_HOME"));
}

#[test]
fn the_log_is_added_to_and_shown() {
    let lab = Lab::new();
    lab.bench().arg("log").assert().code(0).stderr(contains("is empty"));
    let mut add = lab.bench();
    add.args(["log", "add", "wider loads", "--before", "232.4", "--tok-per-s", "241.5", "--verdict", "faster"]);
    add.assert().code(0);
    lab.bench().arg("log").assert().code(0).stdout(contains("wider loads").and(contains("232.4 -> 241.5")));
    let out = lab.bench().args(["log", "--json"]).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((rows.len(), rows[0]["tok_per_s"].as_f64(), rows[0]["kernel_us"].is_null()), (1, Some(241.5), true));
    lab.bench().args(["log", "add", " "]).assert().code(64);
}
