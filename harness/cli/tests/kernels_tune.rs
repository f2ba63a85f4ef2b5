//! A tune from start to table on the scripted device: killed, stopped, resumed, from caches, replayed.

mod kernels;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness_spec::record::{KernelRunKind, Outcome, Provenance, TrialPurpose};
use kernels::{Lab, SMALL, WORKLOAD, done, record, said, trials};
use variants::TableFile;

/// The rows of a table without the run that measured them; the head, too, names the run and the moment.
fn rows(path: &Path) -> Vec<variants::Row> {
    TableFile::load(path).unwrap().rows.into_iter().map(|r| variants::Row { record: None, ..r }).collect()
}

/// A script whose device takes so long in real time that a run can be killed in its middle: checks are long on the mock
/// clock only, so that the run is made of many short calls.
fn wait_for_lines(journal: &Path, lines: usize, child: &mut Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let have = std::fs::read(journal).map_or(0, |b| b.iter().filter(|c| **c == b'\n').count());
        if have >= lines {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no {lines} lines in {}", journal.display());
}

#[test]
fn a_tune_ends_in_a_record_a_page_and_a_table_that_explain_reads() {
    let lab = Lab::new();
    let out = lab.tune("o", "t.toml").output().unwrap();
    done(&out);
    let run = record(&lab.path("o"));
    assert_eq!((run.kind, run.provenance), (KernelRunKind::Tune, Provenance::Simulated));
    let result = &run.results[0];
    let winner = result.winner.clone().unwrap();
    assert!(result.run_off.is_some() && result.search.as_ref().unwrap().evaluations >= 32, "{:?}", result.search);
    assert!(run.accounts[0].balances() && run.cost.explained() >= 0.99);
    assert!(lab.path("o/report.html").is_file() && lab.path("o/charts").is_dir());

    let table = TableFile::load(&lab.path("t.toml")).unwrap();
    assert_eq!((table.rows[0].variant.clone(), &table.record, table.incomplete), (winner.clone(), &run.id, None));
    assert!(!table.rows[0].key.is_empty() && table.rows[0].ci_ns.is_some());

    let explain = lab
        .bench()
        .args(["explain", "gemv_q4_0", "N=4096", "K=4096", "--table", "t.toml", "--record", "o"])
        .output()
        .unwrap();
    done(&explain);
    let text = String::from_utf8_lossy(&explain.stdout).into_owned();
    for part in ["cold+graph", "median", "candidates of o", &winner.short(), &run.id] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn killed_at_twenty_moments_a_tune_resumes_to_the_same_table_and_loses_at_most_one_trial() {
    let lab = Lab::of(SMALL);
    done(&lab.tune("whole", "whole.toml").arg("--no-cache").output().unwrap());
    let want = rows(&lab.path("whole.toml"));
    let all = trials(&lab.path("whole")).len();
    assert!(all > 25, "{all}");
    let mut killed = 0;
    for moment in 0..20 {
        let (out, table) = (format!("k{moment}"), format!("k{moment}.toml"));
        let journal = lab.path(&out).join("trials.jsonl");
        let mut child =
            lab.tune(&out, &table).arg("--no-cache").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Spread over the run; a kill in the middle of a line needs no help from here, it is tried below.
        let reached = wait_for_lines(&journal, 1 + moment * (all - 2) / 20, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        killed += usize::from(reached);
        let before = std::fs::read(&journal).unwrap();
        let whole_lines = before.iter().filter(|b| **b == b'\n').count();
        if moment % 2 == 1 {
            // What a kill in the middle of a write leaves.
            std::fs::write(&journal, &before[..before.len() - 7]).unwrap();
        }
        let resumed = lab.bench().args(["tune", "--resume", &out]).output().unwrap();
        done(&resumed);
        let going_on = said(&resumed);
        let kept: usize = going_on
            .split("going on with ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{going_on}"));
        assert!(kept + 1 >= whole_lines, "{kept} of {whole_lines} trials were kept");
        assert_eq!(rows(&lab.path(&table)), want, "killed at moment {moment}");
        let run = record(&lab.path(&out));
        assert_eq!(run.incomplete, None);
    }
    assert!(killed >= 15, "only {killed} runs were still going when they were killed");
}

#[test]
fn a_second_tune_measures_nothing_and_a_new_variant_costs_one_measurement_and_the_run_off() {
    let lab = Lab::of(SMALL);
    let sweep = |out: &str| {
        let mut c = lab.simulated("sweep");
        c.args(["--workload", SMALL, "--variants", "all", "--seed", "1", "--out", out]);
        done(&c.output().unwrap());
        let run = record(&lab.path(out));
        let fresh = run.cells.iter().filter(|c| !c.from_cache).count();
        (run, fresh)
    };
    let (first, fresh) = sweep("a");
    assert!(fresh >= 160, "{fresh}");
    let (second, fresh) = sweep("b");
    assert_eq!(fresh, 0);
    assert_eq!(first.results[0].winner, second.results[0].winner);
    // The folder of a run from caches is whole all the same.
    let of = |run: &str| trials(&lab.path(run)).iter().filter(|t| t.purpose == TrialPurpose::Candidate).count();
    assert_eq!(of("a"), of("b"));
    // One more value of nothing but one configuration.
    let toml = lab.path("kernels/mine.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let wider = text.replace("ROWS = [1, 2, 4, 8, 16]", "ROWS = [1, 2, 4, 8, 16, 32]").replace(
        "[kernels.tunables]",
        "constraints = [\"ROWS < 32 || (VEC == 1 && UNROLL == 1 && STAGES == 1)\"]\n[kernels.tunables]",
    );
    std::fs::write(&toml, wider).unwrap();
    let (third, fresh) = sweep("c");
    assert_eq!(fresh, 1);
    assert!(third.results[0].run_off.is_some());
}

#[test]
fn a_damaged_cache_is_a_miss_with_a_warning() {
    let lab = Lab::new();
    done(&lab.tune("a", "t.toml").output().unwrap());
    let folder = lab.path("cache/trials");
    let files: Vec<_> = walk(&folder);
    assert!(!files.is_empty());
    for file in files {
        std::fs::write(file, "garbage\n").unwrap();
    }
    let out = lab.tune("b", "u.toml").output().unwrap();
    done(&out);
    assert!(said(&out).contains("warning: cache") && said(&out).contains("line 1"), "{}", said(&out));
    assert_eq!(rows(&lab.path("t.toml")), rows(&lab.path("u.toml")));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).collect()
}

#[test]
fn a_suspect_run_leaves_table_and_cache_as_they_were_until_its_winners_are_accepted() {
    let lab = Lab::new();
    lab.script("canary_after = 0.9\n");
    let out = lab.tune("o", "t.toml").output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    for part in ["the table was left as it was", "read rate moved", "--resume o --accept-suspect"] {
        assert!(said(&out).contains(part), "{part} is not in {}", said(&out));
    }
    assert!(!lab.path("t.toml").exists() && lab.path("o/report.html").is_file());
    // Nothing of it is recalled by a run on a quiet device, whose times are its own.
    lab.script("");
    done(&lab.tune("quiet", "u.toml").output().unwrap());
    assert!(record(&lab.path("quiet")).cells.iter().all(|c| !c.from_cache));
    // Its own journal is whole; what was suspect stays so, and is taken only where that is said.
    let again = lab.bench().args(["tune", "--resume", "o"]).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "{}", said(&again));
    done(&lab.bench().args(["tune", "--resume", "o", "--accept-suspect"]).output().unwrap());
    assert!(record(&lab.path("o")).suspect.is_some() && !rows(&lab.path("t.toml")).is_empty());
}

#[test]
fn a_run_whose_second_part_is_suspect_leaves_nothing_of_its_first_to_later_runs() {
    let lab = Lab::new();
    // Trials of a run before it, which are good and stay.
    let mut sweep = lab.simulated("sweep");
    done(&sweep.args(["--workload", WORKLOAD, "--seed", "1", "--out", "good"]).output().unwrap());
    let good: Vec<_> = record(&lab.path("good")).cells.into_iter().map(|c| c.cell).collect();
    let recalled = |run: &str| -> Vec<_> {
        record(&lab.path(run)).cells.into_iter().filter(|c| c.from_cache).map(|c| c.cell).collect()
    };
    done(&lab.tune("o", "t.toml").args(["--budget", "8s"]).output().unwrap());
    let first = record(&lab.path("o"));
    let of_good = recalled("o");
    assert!(first.suspect.is_none() && !of_good.is_empty() && of_good.iter().all(|c| good.contains(c)));
    assert!(first.cells.len() > of_good.len(), "the first part measured something");
    lab.script("canary_after = 0.9\n");
    let out = lab.bench().args(["tune", "--resume", "o"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    lab.script("");
    done(&lab.tune("quiet", "u.toml").output().unwrap());
    let recalled = recalled("quiet");
    assert!(recalled.iter().all(|c| good.contains(c)) && of_good.iter().all(|c| recalled.contains(c)));
}

#[test]
fn a_tune_that_is_repeated_without_a_seed_finds_every_answer_and_what_its_budget_leaves_out_is_said() {
    let lab = Lab::new();
    // An evaluation takes less than is planned for it.
    lab.script("compile_ms = 20.0\n");
    let run = |out: &str| {
        let mut c = lab.simulated("tune");
        c.args(["--workload", WORKLOAD, "--budget", "20s", "--out", out, "--table", "t.toml"]);
        let out = c.output().unwrap();
        done(&out);
        said(&out)
    };
    let text = run("a");
    let first = record(&lab.path("a"));
    let note = "the time budget of 20 s leaves 30 of ";
    assert!(text.contains(note) && first.notes.iter().any(|n| n.contains(note)), "{text}");
    assert_eq!((first.results[0].search.as_ref().unwrap().evaluations, &first.incomplete), (30, &None));
    run("b");
    let second = record(&lab.path("b"));
    assert!(second.plan.seed == first.plan.seed && second.cells.iter().all(|c| c.from_cache));
}

#[test]
fn a_budget_that_ends_leaves_a_valid_table_marked_incomplete_that_a_resume_finishes() {
    let lab = Lab::new();
    let out = lab.tune("o", "t.toml").args(["--budget", "8s"]).output().unwrap();
    done(&out);
    let table = TableFile::load(&lab.path("t.toml")).unwrap();
    assert!(table.incomplete.is_some() && !table.rows.is_empty(), "{:?}", table.incomplete);
    assert!(said(&out).contains("--resume o"), "{}", said(&out));
    done(&lab.bench().args(["tune", "--resume", "o"]).output().unwrap());
    let table = TableFile::load(&lab.path("t.toml")).unwrap();
    assert_eq!(table.incomplete, None);
    done(&lab.tune("whole", "w.toml").arg("--no-cache").output().unwrap());
    assert_eq!(table.rows[0].variant, rows(&lab.path("w.toml"))[0].variant);
}

#[test]
fn a_tune_that_is_repeated_asks_the_same_although_the_table_has_its_winners_now() {
    let lab = Lab::new();
    let more = ["--workload", "gemv_q4_0 N=8192 K=4096", "--share", "0.05"];
    let run = |out: &str| {
        let mut c = lab.simulated("tune");
        c.args(["--workload", WORKLOAD, "--seed", "1", "--out", out, "--table", "t.toml"]).args(more);
        done(&c.output().unwrap());
        record(&lab.path(out))
    };
    let (first, second) = (run("a"), run("b"));
    assert!(first.cells.iter().all(|c| !c.from_cache));
    assert_eq!(second.cells.iter().filter(|c| !c.from_cache).count(), 0);
    for (a, b) in first.results.iter().zip(&second.results) {
        assert!(a.incumbent.is_none() && a.winner != a.default, "{:?}", a.winner);
        assert_eq!((&b.incumbent, &b.winner), (&a.winner, &a.winner));
    }
    // Duels of the same machine code are recalled, whichever of the two defends now.
    let duels = |run: &str| -> Vec<_> {
        trials(&lab.path(run)).into_iter().filter(|t| t.purpose == TrialPurpose::RunOff).collect()
    };
    let (first, second) = (duels("a"), duels("b"));
    assert!(!second.is_empty());
    assert!(second.iter().all(|t| first.iter().any(|u| u.cell == t.cell && u.samples == t.samples)));
}

#[test]
fn ctrl_c_keeps_what_was_measured_and_ends_with_3() {
    let lab = Lab::new();
    let mut sweep = lab.simulated("sweep");
    sweep.args([
        "--workload",
        WORKLOAD,
        "--workload",
        "gemv_q4_0 N=8192 K=4096",
        "--workload",
        "gemv_q4_0 N=4096 K=8192",
    ]);
    sweep.args(["--variants", "all", "--seed", "1", "--no-cache", "--out", "o"]);
    let mut child = sweep.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = lab.path("o/trials.jsonl");
    // The first dozen are reads for the floor.
    assert!(wait_for_lines(&journal, 30, &mut child));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(said(&out).contains("--resume"), "{}", said(&out));
    let run = record(&lab.path("o"));
    assert!(run.incomplete.is_some() && run.accounts.iter().all(|a| a.balances()));
    assert!(run.cells.iter().filter(|c| c.outcome == Outcome::Measured).count() >= 10);
}

#[test]
fn a_recorded_space_is_replayed_without_a_device() {
    let lab = Lab::new();
    let mut c = lab.tune("o", "t.toml");
    done(&c.args(["--strategy", "exhaustive", "--record-space", "space.jsonl"]).output().unwrap());
    let run = record(&lab.path("o"));
    let best = run.results[0].ranking[0].median_ns;
    let out = lab
        .bench()
        .args(["tune", "--replay", "space.jsonl", "--json", "--share", "0.05", "--searches", "5"])
        .output()
        .unwrap();
    done(&out);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    let of = |name: &str| rows.iter().find(|r| r["strategy"] == name).unwrap();
    assert_eq!(of("exhaustive")["within_2_percent"], 5);
    let optimum = of("guided")["optimum_ns"].as_f64().unwrap();
    assert!((optimum / best - 1.0).abs() < 1e-9, "{optimum} {best}");
    let regret = |name: &str| of(name)["median_regret"].as_f64().unwrap();
    assert!(regret("guided") <= regret("random"), "{rows:?}");
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let lab = Lab::new();
    for out in ["a", "b"] {
        done(&lab.tune(out, &format!("{out}.toml")).arg("--no-cache").output().unwrap());
    }
    assert_eq!(rows(&lab.path("a.toml")), rows(&lab.path("b.toml")));
}

#[test]
fn rows_chosen_in_the_engine_name_it_tell_of_tokens_and_are_not_replaced_by_kernels_timed_alone() {
    let lab = Lab::new();
    let second = "gemv_q4_0 N=8192 K=4096";
    done(&lab.tune("alone", "t.toml").output().unwrap());
    let run = |out: &str, policy: &str| {
        let mut c = lab.simulated("tune");
        c.args(["--workload", second, "--share", "0.02", "--seed", "1", "--out", out, "--table", "t.toml"]);
        let out = c.args(["--policy", policy]).output().unwrap();
        done(&out);
        said(&out)
    };
    let text = run("engine", "cold+in_engine");
    let found = record(&lab.path("engine"));
    let result = &found.results[0];
    assert!(result.policy.is_in_engine() && result.floor.is_none() && found.accounts[0].balances());
    assert!(text.contains("a token takes"), "{text}");

    let table = TableFile::load(&lab.path("t.toml")).unwrap();
    let of = |table: &TableFile, k: &str| -> Vec<variants::Row> {
        table.rows.iter().filter(|r| r.shape.to_string() == k).cloned().collect()
    };
    assert_eq!(table.policy.to_string(), "cold+graph");
    assert!(of(&table, "K=4096 N=4096").iter().all(|r| r.policy.is_none()), "rows of kernels timed alone stay");
    let chosen = of(&table, "K=4096 N=8192");
    assert!(chosen.iter().all(|r| r.policy.is_some_and(|p| p.is_in_engine())), "{chosen:?}");
    let best = result.ranking.iter().find(|r| Some(&r.variant) == result.winner.as_ref()).unwrap();
    assert_eq!((&chosen[0].variant, chosen[0].median_ns), (&best.variant, best.median_ns));
    assert!(chosen[0].reason.contains("a token of workloads takes"), "{}", chosen[0].reason);

    let text = run("again", "cold+graph");
    assert!(text.contains("K=4096 N=8192 keeps its row"), "{text}");
    let after = TableFile::load(&lab.path("t.toml")).unwrap();
    assert_eq!(of(&after, "K=4096 N=8192"), chosen);
    let explain = lab.bench().args(["explain", "gemv_q4_0", "N=8192", "K=4096", "--table", "t.toml"]).output().unwrap();
    done(&explain);
    let text = String::from_utf8_lossy(&explain.stdout).into_owned();
    assert!(text.contains("token ") && text.contains("cold+in_engine") && !text.contains("median  "), "{text}");
}

#[test]
fn a_tune_in_the_engine_that_is_stopped_resumes_to_the_same_rows() {
    let lab = Lab::new();
    let run = |out: &str, table: &str, more: &[&str]| {
        let mut c = lab.tune(out, table);
        c.args(["--policy", "cold+in_engine", "--no-cache"]).args(more);
        done(&c.output().unwrap());
    };
    run("whole", "whole.toml", &[]);
    run("cut", "cut.toml", &["--budget", "4s"]);
    assert!(TableFile::load(&lab.path("cut.toml")).unwrap().incomplete.is_some());
    done(&lab.bench().args(["tune", "--resume", "cut"]).output().unwrap());
    // The reason tells what ran before, which is what the first part has chosen.
    let chosen = |table: &str| -> Vec<_> {
        rows(&lab.path(table)).into_iter().map(|r| (r.variant, r.median_ns, r.ci_ns, r.key)).collect()
    };
    assert_eq!(chosen("cut.toml"), chosen("whole.toml"));
}

#[test]
fn what_the_engine_cannot_be_asked_is_wrong_usage_with_the_fix() {
    let lab = Lab::new();
    let model = lab.path("no.gguf").display().to_string();
    for (args, part) in [
        (vec!["--policy", "cold+in_engine", "--workload", WORKLOAD], "--model FILE.gguf"),
        (vec!["--policy", "hot+in_engine", "--model", "m"], "cold+in_engine"),
        (vec!["--policy", "cold+in_engine", "--policy", "cold+graph", "--model", "m"], "a run of its own"),
        (vec!["--policy", "cold+in_engine", "--model", "m", "--quant", "q4_0"], "edgellm synth"),
        (vec!["--policy", "cold+in_engine", "--model", "m", "--kernels", "kernels"], "--kernels"),
        (vec!["--policy", "cold+in_engine", "--model", &model], "edgellm synth"),
        (vec!["--policy", "cold+graph", "--workload", WORKLOAD, "--context", "20000"], "--policy cold+in_engine"),
        (vec!["--workload", WORKLOAD, "--kv", "int8"], "--policy cold+in_engine"),
        (vec!["--policy", "cold+in_engine", "--model", "fake.toml"], "--device cuda:0"),
    ] {
        let out = lab.bench().args(["tune", "--device", "cpu"]).args(&args).output().unwrap();
        assert_eq!(out.status.code(), Some(64), "{args:?}: {}", said(&out));
        assert!(said(&out).contains(part), "{args:?}: {}", said(&out));
    }
}

/// A small model, the device's own key, and tables of it.
fn promotion(lab: &Lab) -> (String, harness_spec::DeviceKey) {
    use engine::synth::{Scheme, Shape, SynthOptions, write_file};
    let shape = Shape::find("smollm2-135m").unwrap();
    let small = Shape { hidden: 64, inter: 96, layers: 1, n_heads: 4, n_kv_heads: 2, head_dim: 16, ..shape };
    let small = Shape { vocab: 288, context: 256, pre_tokenizer: "smollm".into(), ..small };
    let model = lab.path("small.gguf");
    write_file(&model, &small, &SynthOptions { scheme: Scheme::Q4_0, layers: None, seed: 1 }, &mut |_, _| {}).unwrap();
    let hello = lab.bench().args(["worker", "--device", "cpu"]).stdin(Stdio::null()).output().unwrap();
    let line = String::from_utf8_lossy(&hello.stdout).lines().next().unwrap().to_owned();
    let hello: serde_json::Value = serde_json::from_str(&line).unwrap();
    (model.display().to_string(), serde_json::from_value(hello["device"]["Ok"].clone()).unwrap())
}

fn table_of_plain_kernels(device: harness_spec::DeviceKey) -> TableFile {
    let row = |n: u64, k: u64| variants::Row {
        op: "gemv_q4_0".into(),
        shape: harness_spec::Shape::of([("N", n), ("K", k)]),
        layout: Some(variants::Layout::Gguf),
        variant: "gemv_q4_0/plain@cpu".parse().unwrap(),
        median_ns: 100.0,
        ci_ns: None,
        runner_up: None,
        gap_to_runner_up: None,
        reason: "a test".into(),
        key: String::new(),
        record: None,
        policy: None,
        quarantined: None,
    };
    TableFile {
        schema: variants::TABLE_SCHEMA,
        policy: harness_spec::Policy::COLD_EAGER,
        date: "2026-01-01T00:00:00Z".into(),
        tool: "a test".into(),
        record: "a test".into(),
        incomplete: None,
        device,
        rows: [(64, 64), (32, 64), (96, 64), (64, 96)].map(|(n, k)| row(n, k)).to_vec(),
        buckets: Vec::new(),
    }
}

#[test]
fn a_table_of_plain_kernels_is_refused_by_the_engine_which_names_its_rows_and_leaves_the_old_one() {
    let lab = Lab::new();
    let (model, device) = promotion(&lab);
    let new = table_of_plain_kernels(device);
    TableFile { rows: Vec::new(), ..new.clone() }.save_as(&lab.path("old.toml")).unwrap();
    new.save_as(&lab.path("new.toml")).unwrap();
    let before = std::fs::read(lab.path("old.toml")).unwrap();
    let promote = |new: &str| {
        let mut c = lab.bench();
        c.args([
            "promote", new, "--model", &model, "--device", "cpu", "--table", "old.toml", "--seed", "1", "--out", "p",
        ]);
        c.output().unwrap()
    };
    let out = promote("new.toml");
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    for part in ["is not promoted", "gemv_q4_0 K=64 N=96: the default -> plain@cpu", "promotion: decode"] {
        assert!(said(&out).contains(part), "{part} in {}", said(&out));
    }
    assert_eq!(std::fs::read(lab.path("old.toml")).unwrap(), before);
    let decision = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(lab.path("p/promotion/decision.json")).unwrap()).unwrap()
    };
    let first = decision();
    assert_eq!((&first["promoted"], first["rows"].as_array().unwrap().len()), (&false.into(), 4), "{first}");
    let requests = std::fs::read_to_string(lab.path("p/promotion/requests.jsonl")).unwrap();
    assert!(requests.lines().filter(|l| l.contains("\"line\":\"request\"")).count() >= 80, "{requests}");

    let of_loading = |n: u8| requests.lines().filter(|l| l.contains(&format!("\"loading\":{n}"))).count();
    assert!((0..4).all(|n| of_loading(n) >= 24), "each table is loaded first twice");
    // The old table has no such row, and neither has the model such a matrix: nothing is to be timed.
    let mut unrun = TableFile { rows: vec![new.rows[0].clone()], ..new.clone() };
    unrun.rows[0].shape = harness_spec::Shape::of([("N", 4096), ("K", 4096)]);
    unrun.save_as(&lab.path("unrun.toml")).unwrap();
    for (table, others) in [("unrun.toml", 1), ("old.toml", 0)] {
        let out = promote(table);
        done(&out);
        assert!(said(&out).contains("no difference"), "{table}: {}", said(&out));
        assert_eq!(std::fs::read(lab.path("old.toml")).unwrap(), before, "{table}");
        let decision = decision();
        let said = (&decision["promoted"], &decision["same_kernels"], &decision["changed_and_not_run"]);
        assert_eq!(said, (&false.into(), &true.into(), &others.into()), "{decision}");
    }

    // A table of another device is no table here.
    let device = harness_spec::DeviceKey { name: "Another".into(), ..new.device.clone() };
    TableFile { device, ..new }.save_as(&lab.path("other.toml")).unwrap();
    let out = promote("other.toml");
    assert!(out.status.code() == Some(64) && said(&out).contains("that of Another"), "{}", said(&out));
}
