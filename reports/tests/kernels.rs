//! What a report of kernels says, from a fabricated record.

use harness_spec::record::*;
use harness_spec::target::CheckReport;
use harness_spec::*;
use reports::{
    ChartOutcome, ReportError, SimulatedRecords, draw_kernels, is_kernel_run, kernel_html, kernel_markdown,
    kernel_terminal, load_kernel_run, rebuild_kernel_run_with, write_kernel_run, write_kernel_run_with,
};

fn estimate(median: f64) -> Estimate {
    Estimate {
        n: 20,
        median,
        ci95: Some([median * 0.995, median * 1.005]),
        mad_sigma: median * 0.004,
        iqr: median * 0.006,
        min: median * 0.99,
        max: median * 1.02,
        mean: median,
    }
}

fn cell(variant: &str, workload: &Workload, us: f64, role: CellRole) -> CellResult {
    let bytes = workload.shape.get("N").unwrap() * workload.shape.get("K").unwrap() * 18 / 32;
    CellResult {
        cell: Cell { variant: variant.parse().unwrap(), workload: workload.clone(), policy: Policy::COLD_GRAPH },
        role,
        key: format!("{variant} {workload}"),
        outcome: Outcome::Measured,
        from_cache: false,
        time_ns: Some(estimate(us * 1000.0)),
        cycles: None,
        bytes: Some(Bytes(bytes)),
        flops: Some(bytes * 4),
        redundant: None,
        gb_per_s: Measure::derived(bytes as f64 / (us * 1000.0)),
        of_floor: Measure::missing("no floor"),
        of_ceiling: Measure::missing("no ceiling"),
        sm_clock_mhz: Measure::measured(1755.0),
        stop: Some(StopReason::Converged),
        kept: 20,
        dropped: Default::default(),
        verified_launches: [400, 4000],
        check: Some(CheckReport { cases: vec!["random seed 1".into()], worst_of_bound: 0.2, worst_relative_l2: 1e-6 }),
        resources: None,
        findings: vec![],
        cost: TrialCost::default(),
    }
}

fn result(workload: &Workload, cells: &[CellResult], floor_us: f64) -> WorkloadResult {
    let mut ranking: Vec<RankRow> = cells
        .iter()
        .filter(|c| &c.cell.workload == workload && c.outcome.is_measured())
        .map(|c| RankRow {
            variant: c.cell.variant.clone(),
            median_ns: c.time_ns.as_ref().unwrap().median,
            ci_ns: c.time_ns.as_ref().unwrap().ci95,
            role: c.role,
            stop: c.stop,
        })
        .collect();
    ranking.sort_by(|a, b| a.median_ns.total_cmp(&b.median_ns));
    WorkloadResult {
        workload: workload.clone(),
        policy: Policy::COLD_GRAPH,
        floor: Some(Floor {
            variant: "stream_read/oneshot[BATCH=8]@cuda".parse().unwrap(),
            bytes: cells[0].bytes.unwrap(),
            median_ns: floor_us * 1000.0,
        }),
        baseline: Some("gemv_q4_0/plain@cuda".parse().unwrap()),
        default: None,
        incumbent: None,
        winner: Some(ranking[0].variant.clone()),
        reason: "fastest in the run-off".into(),
        runner_up: Some(ranking[1].variant.clone()),
        gap: Measure::derived(ranking[1].median_ns / ranking[0].median_ns - 1.0),
        ties: vec![],
        run_off: None,
        ranking,
        search: Some(SearchReport {
            strategy: "exhaustive".into(),
            seed: 1,
            space: 4,
            evaluations: 4,
            from_cache: 0,
            trace: vec![(1, 30_000.0), (3, 10_000.0)],
        }),
        incomplete: None,
    }
}

fn fabricated() -> (KernelRun, Vec<Trial>) {
    let shapes =
        [Workload::of("gemv_q4_0", [("N", 4096), ("K", 14336)]), Workload::of("gemv_q4_0", [("N", 1536), ("K", 1536)])];
    let mut cells = Vec::new();
    for (w, factor) in shapes.iter().zip([1.0, 0.2]) {
        cells.push(cell("gemv_q4_0/planes_dp4a[RPW=2]@cuda", w, 10.0 * factor, CellRole::Candidate));
        cells.push(cell("gemv_q4_0/planes_dp4a[RPW=4]@cuda", w, 11.0 * factor, CellRole::Candidate));
        cells.push(cell("gemv_q4_0/plain@cuda", w, 30.0 * factor, CellRole::Baseline));
    }
    let mut broken = cell("gemv_q4_0/swapped@cuda", &shapes[0], 1.0, CellRole::Candidate);
    broken.outcome = Outcome::Failed { stage: Stage::Check, message: "AD-01 <nibble 7>: y[3] is NaN".into() };
    broken.time_ns = None;
    cells.push(broken);
    let results = shapes.iter().map(|w| result(w, &cells, 8.0)).collect();
    let trials = cells
        .iter()
        .enumerate()
        .map(|(at, c)| Trial {
            schema: KERNEL_SCHEMA_VERSION,
            provenance: Provenance::Simulated,
            purpose: TrialPurpose::Candidate,
            cell: c.cell.clone(),
            key: c.key.clone(),
            outcome: c.outcome.clone(),
            warm_up: None,
            samples: vec![TrialSample {
                ns: 10_000.0,
                launches: 24,
                sm_clock_mhz: Some(1755.0 + at as f64),
                mem_clock_mhz: None,
                verified: true,
                round: 0,
                dropped: (at == 2).then_some(SampleDrop::Throttled),
            }],
            stop: None,
            check: None,
            resources: None,
            bytes: None,
            flops: None,
            redundant: None,
            cost: TrialCost::default(),
            at_ns: Nanos(at as u64 * 1_000_000_000),
        })
        .collect();
    let canary = |when: &str| CanaryReading {
        when: when.into(),
        at_ns: Nanos(0),
        canary: Some(Canary {
            working_set: Bytes(1 << 30),
            read_gb_per_s: 4660.0,
            empty_launch_ns: Some(545.0),
            sm_clock_mhz: Some(1755.0),
            gflop_per_s: None,
        }),
        reason: None,
    };
    let account = |w: &Workload, invalid| SpaceAccount {
        workload: w.clone(),
        policy: Policy::COLD_GRAPH,
        enumerated: 6,
        pruned: 2,
        compile_failed: 0,
        invalid,
        timed: 3,
        not_reached: 1 - invalid,
    };
    let run = load_environment();
    (
        KernelRun {
            schema: KERNEL_SCHEMA_VERSION,
            kind: KernelRunKind::Tune,
            provenance: Provenance::Simulated,
            id: "fabricated".into(),
            started: "2026-11-21T00:00:00Z".into(),
            wall_ns: Nanos(10_000_000_000),
            command: ["bench", "tune", "--suite", "quick"].map(str::to_owned).to_vec(),
            tool: run.tool,
            environment: run.environment,
            device: DeviceKey {
                backend: "cuda".into(),
                name: "Fake GPU".into(),
                arch: "sm_90".into(),
                conditions: [("driver".to_owned(), "1.0".to_owned())].into(),
            },
            device_facts: Default::default(),
            canaries: vec![canary("before"), canary("after")],
            suspect: None,
            plan: KernelPlan {
                suite: "quick".into(),
                strategy: "default".into(),
                seed: 1,
                time_budget: None,
                run_off_pairs: 30,
                workloads: shapes.iter().map(Workload::to_string).collect(),
            },
            cost: CostReport {
                wall: Nanos(10_000_000_000),
                compile: Nanos(4_000_000_000),
                time: Nanos(5_950_000_000),
                ..CostReport::default()
            },
            accounts: vec![account(&shapes[0], 1), account(&shapes[1], 0)],
            cells,
            results,
            incomplete: None,
            notes: vec!["see http://example.invalid".into()],
        },
        trials,
    )
}

/// The environment of the record that the reports of engines are tested with.
fn load_environment() -> RunRecord {
    reports::load_run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fabricated").as_ref()).unwrap().record
}

#[test]
fn the_terminal_form_names_winners_failures_and_cost() {
    insta::assert_snapshot!(kernel_terminal(&fabricated().0));
}

#[test]
fn the_markdown_form_carries_device_command_and_date() {
    insta::assert_snapshot!(kernel_markdown(&fabricated().0));
}

#[test]
fn a_fused_product_is_held_against_the_sum_of_the_separate_launches_and_says_how_often_it_norms() {
    let (mut run, _) = fabricated();
    let mut add = |workload: &str, times: &[(&str, f64, Option<u64>)]| {
        let workload: Workload = workload.parse().unwrap();
        let matrix = Workload::of("gemv_q4_0", [("N", 960), ("K", 576)]);
        let cells = times.iter().map(|&(variant, us, redundant)| {
            let plain = cell(&format!("{}/{variant}@cuda", workload.op), &matrix, us, CellRole::Candidate);
            let cell = Cell { workload: workload.clone(), ..plain.cell.clone() };
            CellResult { cell, redundant, ..plain }
        });
        let cells: Vec<CellResult> = cells.collect();
        run.results.push(result(&workload, &cells, 0.5));
        run.cells.extend(cells);
    };
    add("rmsnorm K=576 M=1", &[("held", 1.5, Some(1)), ("plain", 2.5, Some(1))]);
    add("quantize_a8 K=576", &[("vector", 1.0, None), ("plain", 1.25, None)]);
    add("gemv_q4_0 N=960 K=576", &[("multirow", 2.5, None), ("plain", 9.0, None)]);
    let fused = [("epilogue[R=1]", 2.5, Some(132)), ("epilogue[R=2]", 2.6, Some(264)), ("plain", 10.0, Some(960))];
    add("rmsnorm_gemv_q4_0 N=960 K=576", &fused);
    let said = kernel_terminal(&run);
    assert!(said.contains("rmsnorm 1.500 + quantize_a8 1.000 + gemv_q4_0 2.500 = 5.000 µs"), "{said}");
    let table = said.split_once("in one launch, against").unwrap().1;
    let line = |name: &str| {
        let line = table.lines().find(|l| l.contains(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("epilogue"), "epilogue[R=1]@cuda 2.500 0.50x 132 x norm");
    assert_eq!(line("plain"), "plain@cuda 10.00 2.00x 960 x norm");
    assert!(kernel_markdown(&run).contains("| `epilogue[R=1]@cuda` | 2.500 | 0.50x | 132 x norm |"));
    assert!(kernel_html(&run, &[]).unwrap().contains("Norm and product in one launch"));
    run.results.retain(|r| r.workload.op != "quantize_a8");
    assert!(!kernel_terminal(&run).contains("in one launch, against"), "a way that was not timed has no sum");
}

#[test]
fn a_library_stands_beside_the_floor_with_its_time_or_why_it_has_none() {
    let (mut run, _) = fabricated();
    let workload = run.results[0].workload.clone();
    let mut vendor = cell("gemv_q4_0/cublaslt@cuda", &workload, 9.0, CellRole::Library);
    vendor.of_floor = Measure::derived(0.889);
    run.cells.push(vendor);
    let said = kernel_terminal(&run);
    let line = said.lines().find(|l| l.starts_with("library: ")).expect("a line of the library");
    assert!(line.contains("9.000 µs") && line.contains("of the floor, cublaslt@cuda"), "{line}");
    assert!(kernel_markdown(&run).contains("; library 9.000 µs"));
    assert!(kernel_html(&run, &[]).unwrap().contains("Library: 9.000 µs"));
    let vendor = run.cells.last_mut().unwrap();
    (vendor.time_ns, vendor.outcome) = (None, Outcome::Skipped { reason: "no cuBLASLt: nowhere\nhint: set it".into() });
    assert!(kernel_terminal(&run).contains("\nlibrary: cublaslt@cuda skipped: no cuBLASLt: nowhere hint: set it\n"));
}

#[test]
fn every_chart_is_drawn_from_a_full_record() {
    let (run, trials) = fabricated();
    for outcome in draw_kernels(&run, &trials).unwrap() {
        match outcome {
            ChartOutcome::Drawn(chart) => assert!(chart.svg.contains("</svg>") && !chart.caption.is_empty()),
            ChartOutcome::Omitted { name, why, .. } => panic!("{name} was left out: {why}"),
        }
    }
}

#[test]
fn a_verify_has_no_times_and_says_why_each_chart_is_left_out() {
    let (mut run, _) = fabricated();
    run.kind = KernelRunKind::Verify;
    run.results.clear();
    for c in &mut run.cells {
        (c.outcome, c.time_ns) = (Outcome::Verified, None);
    }
    let names: Vec<_> = draw_kernels(&run, &[])
        .unwrap()
        .iter()
        .filter(|o| matches!(o, ChartOutcome::Omitted { why, .. } if !why.is_empty()))
        .map(|o| o.name())
        .collect();
    assert_eq!(names, ["heat_map", "roofline", "search", "clock"]);
    assert!(kernel_terminal(&run).starts_with("7 cells right and 0 rejected on Fake GPU"));
}

#[test]
fn the_page_is_self_contained_escapes_messages_and_says_that_it_is_simulated() {
    let (run, trials) = fabricated();
    let page = kernel_html(&run, &trials).unwrap();
    assert!(!page.contains("http"), "an address is in the page");
    assert!(page.contains("AD-01 &lt;nibble 7&gt;"));
    assert!(page.contains("Simulated: a scripted device"));
}

#[test]
fn a_folder_is_rebuilt_to_the_byte_and_a_cut_last_line_is_left_out() {
    let (run, trials) = fabricated();
    let dir = tempfile::tempdir().unwrap();
    let accept = SimulatedRecords::AcceptInTests;
    let paths = write_kernel_run_with(dir.path(), &run, &trials, accept).unwrap();
    let mut lines: String = trials.iter().map(|t| serde_json::to_string(t).unwrap() + "\n").collect();
    std::fs::write(dir.path().join("trials.jsonl"), &lines).unwrap();
    let first = std::fs::read(&paths.html).unwrap();
    rebuild_kernel_run_with(dir.path(), accept).unwrap();
    assert_eq!(std::fs::read(&paths.html).unwrap(), first);
    assert!(is_kernel_run(dir.path()).unwrap());

    lines += "{\"schema\":1,\"prov";
    std::fs::write(dir.path().join("trials.jsonl"), &lines).unwrap();
    let loaded = load_kernel_run(dir.path()).unwrap();
    assert_eq!(loaded.trials, trials);
    assert_eq!(loaded.record, run);
    assert!(loaded.warnings[0].contains("cut short"), "{:?}", loaded.warnings);

    // As the published runs: packed, and read all the same.
    let plain = dir.path().join("run.json");
    let packed = std::fs::File::create(dir.path().join("run.json.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    std::io::copy(&mut std::fs::File::open(&plain).unwrap(), &mut packed).unwrap();
    packed.finish().unwrap();
    std::fs::remove_file(plain).unwrap();
    assert!(is_kernel_run(dir.path()).unwrap());
    assert_eq!(load_kernel_run(dir.path()).unwrap().record, run);
}

#[test]
fn records_and_trials_validate_against_the_published_schemas() {
    let schema = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
        let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        jsonschema::validator_for(&value).unwrap()
    };
    let (run, trials) = fabricated();
    let run = serde_json::to_value(&run).unwrap();
    assert!(schema("kernel_run.schema.json").is_valid(&run));
    let trial = schema("trial.schema.json");
    assert!(trials.iter().all(|t| trial.is_valid(&serde_json::to_value(t).unwrap())));
    let mut wrong = run;
    wrong["kind"] = "guess".into();
    assert!(!schema("kernel_run.schema.json").is_valid(&wrong));
}

#[test]
fn simulated_numbers_make_no_report_outside_tests() {
    let (run, trials) = fabricated();
    let dir = tempfile::tempdir().unwrap();
    let error = write_kernel_run(dir.path(), &run, &trials).unwrap_err();
    assert!(matches!(error, ReportError::NotMeasured { .. }), "{error}");
    assert!(!dir.path().join("run.json").exists());
}

#[test]
fn ten_thousand_cells_stay_under_five_megabytes() {
    let (mut run, trials) = fabricated();
    let template = run.cells[0].clone();
    for i in 0..10_000 {
        let mut c = template.clone();
        c.cell.variant = format!("gemv_q4_0/planes_dp4a[RPW={i}]@cuda").parse().unwrap();
        run.results[0].ranking.push(RankRow {
            variant: c.cell.variant.clone(),
            median_ns: 10_000.0 + f64::from(i),
            ci_ns: None,
            role: CellRole::Candidate,
            stop: None,
        });
        run.cells.push(c);
    }
    let page = kernel_html(&run, &trials).unwrap();
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
}

/// A selftest with a figure that holds, one that does not, and one that describes.
fn selftest() -> SelftestRun {
    let figure = |name: &str, value: f64, hits, at_least, at_most, passed| SelftestFigure {
        name: name.into(),
        over: "duels of 30 pairs".into(),
        provenance: Provenance::Simulated,
        value: Some(value),
        hits,
        of: 100,
        at_least,
        at_most,
        passed,
    };
    let run = fabricated().0;
    SelftestRun {
        schema: SELFTEST_SCHEMA_VERSION,
        kind: SelftestKind::Selftest,
        id: "5e1f7e57".into(),
        started: run.started,
        wall_ns: Nanos(2_000_000_000),
        command: vec!["bench".into(), "selftest".into(), "stats".into()],
        tool: run.tool,
        environment: run.environment,
        device: None,
        plan: SelftestPlan {
            seed: 1,
            suites: 100,
            pairs: 30,
            runs: 100,
            resamples: 2000,
            injected: 0.03,
            kernel: None,
        },
        figures: vec![
            figure("interval holds the ratio", 0.94, Some(94), Some(0.9), None, true),
            figure("false verdicts", 0.07, Some(7), None, Some(0.05), false),
            figure("median floor", 0.0066, None, None, None, true),
        ],
        incomplete: None,
        notes: vec!["a <note>".into()],
    }
}

#[test]
fn a_selftest_that_ended_early_does_not_say_that_the_statistics_hold() {
    let mut run = selftest();
    run.figures.retain(|f| f.passed);
    assert!(reports::selftest_headline(&run).starts_with("The statistics hold on the scripted device: all 1 figures"));
    run.incomplete = Some("interrupted by a signal after 3 of 100 duels".into());
    assert!(reports::selftest_headline(&run).starts_with("The statistics were not tried to the end: the 1 figures"));
    run.figures.clear();
    assert_eq!(reports::selftest_headline(&run), "The statistics were not tried: there is no figure");
    // A figure of no experiment is null in the record, fails, and can be read again.
    run.figures = selftest().figures;
    (run.figures[1].value, run.figures[1].hits) = (None, Some(0));
    let dir = tempfile::tempdir().unwrap();
    reports::write_selftest(dir.path(), &run).unwrap();
    assert_eq!(reports::rebuild_selftest(dir.path()).unwrap().0, run);
    assert!(
        reports::selftest_terminal(&run).contains("FAILS") && reports::selftest_headline(&run).contains("do not hold")
    );
}

#[test]
fn every_form_of_a_selftest_has_its_figures_with_their_ranges_and_names_what_fails() {
    let run = selftest();
    let (text, markdown) = (reports::selftest_terminal(&run), reports::selftest_markdown(&run));
    let page = reports::selftest_html(&run).unwrap();
    for form in [&text, &markdown, &page] {
        for part in ["do not hold", "94.00 %", "94 of 100", "at least 90.00 %", "7 of 100", "at most 5.00 %", "FAILS"] {
            assert!(form.contains(part), "{part} is not in {form}");
        }
        assert!(form.contains("0.66 %") && form.contains("describes the host"), "{form}");
    }
    assert!(page.contains("a &lt;note&gt;") && page.contains("simulated"));

    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("records/a-selftest");
    reports::write_selftest(&folder, &run).unwrap();
    assert!(reports::is_selftest(&folder).unwrap() && !is_kernel_run(&folder).unwrap());
    let first = std::fs::read(folder.join("report.html")).unwrap();
    let (read, paths) = reports::rebuild_selftest(&folder).unwrap();
    assert_eq!((read, std::fs::read(paths.html).unwrap()), (run, first));
    // On the page of all records it stands apart from what was measured.
    let out = dir.path().join("results.md");
    assert_eq!(
        reports::results_page(&dir.path().join("records"), &out, &[], &reports::Targets { schema: 1, targets: vec![] })
            .unwrap()
            .left_out,
        Vec::<String>::new()
    );
    let page = std::fs::read_to_string(&out).unwrap();
    assert!(page.contains("## The harness itself") && page.contains("a-selftest"), "{page}");
}
