//! One page over many records, the depth curve, and the steps of a token.

mod fabricated;

use std::fs;
use std::path::Path;

use fabricated::Script;
use harness_spec::Shape;
use harness_spec::record::{
    Breakdown, BreakdownStep, Check, DecodeTimes, DeviceCounters, Measure, Provenance, RunRecord, Sample, SideGpu,
};
use reports::{
    ChartOutcome, ReportError, Target, TargetCeiling, TargetError, TargetMetric, TargetOutcome, Targets, draw_all,
    html, markdown, results_page, terminal, write_run,
};

/// A comparison at the depths 128 to 1024, taken apart at the first of them, as if it had been measured.
fn deep() -> (RunRecord, Vec<Sample>) {
    let (mut record, samples) = fabricated::compare(&Script { lengths: vec![128], ..Script::default() });
    record.provenance = Provenance::Measured;
    for (prompt, depth) in record.suite.prompts.iter_mut().zip([1024, 128, 512, 256]) {
        prompt.depth = Some(depth);
    }
    record.sides[0].gpu = Some(SideGpu {
        device: "cuda:0".into(),
        name: "An Example GPU".into(),
        driver: Some("580.1".into()),
        vram_bytes: Measure::measured(5e8),
        vram_need_bytes: Some(Measure::derived(6e8)),
        energy_j_per_token: Measure::derived(0.25),
        energy_net_j_per_token: Some(Measure::derived(0.2)),
        counters: None,
    });
    let step = |op: &str, cost_ns: f64, bytes: u64| BreakdownStep {
        op: op.into(),
        shape: Shape::of([("N", 64)]),
        variant: format!("{op}/fast[ROWS=2]@cuda").parse().unwrap(),
        prefix_ns: 0.0,
        cost_ns,
        bytes: Some(bytes),
    };
    record.breakdowns = vec![Breakdown {
        depth: 128,
        position: 192,
        rounds: 21,
        steps: vec![step("gate_up", 3000.0, 9000), step("attn_token", -500.0, 100), step("gate_up", 2500.0, 9000)],
        programmatic_edges: Some(2),
        sum_ns: 5000.0,
        decode: DecodeTimes {
            window: 128,
            windows: 16,
            wall_ns: 5600.0,
            itl_p50_ns: 5500.0,
            itl_p99_ns: Some(5775.0),
            itl_max_ns: 9000.0,
            counters: DeviceCounters { generated: 2048, graph_launches: 2032, d2h_bytes: 8192, ..Default::default() },
        },
    }];
    record.checks = vec![Check {
        name: "steps of a token add up to its wall time within 5 %, at depth 128".into(),
        passed: Some(false),
        found: "5.00 us over 3 steps against 5.60 us: ratio 0.8929".into(),
    }];
    (record, samples)
}

fn written(folder: &Path, record: &RunRecord, samples: &[Sample]) {
    write_run(folder, record, samples).unwrap();
}

fn no_targets() -> Targets {
    Targets { schema: 1, targets: Vec::new() }
}

fn command() -> Vec<String> {
    ["bench", "report", "--records", "reports/published"].map(str::to_owned).to_vec()
}

#[test]
fn steps_are_summed_by_op_with_their_sign_and_a_failed_check_stands_at_the_top() {
    let (record, samples) = deep();
    let page = html(&record, &samples).unwrap();
    let plain = page.replace("<td class=\"num\">", "|").replace("</td>", "").replace("</th>", "");
    // Two steps of 5.5 us together: 110 % of a token that a step of less than nothing makes shorter, 18000 bytes in 5500 ns.
    assert!(plain.contains("gate_up|2|2.75|5.50|110.0 %|3.273|"), "{plain}");
    assert!(plain.contains("attn_token|1|-0.50|-0.50|-10.0 %|—|—"), "a rate over a negative cost is none");
    assert!(page.contains("<b>Check failed.</b> steps of a token add up"), "{page}");
    assert!(page.contains("0.8929") && page.contains("1.050 of p50"), "sum over wall, and p99 over p50");
    for text in [terminal(&record), markdown(&record)] {
        let text = text.replace('\\', "");
        assert!(text.contains("gate_up") && text.contains("failed") && text.contains("110.0 %"), "{text}");
    }
}

#[test]
fn the_depth_curve_and_the_breakdown_are_drawn_where_the_record_has_them_and_not_missed_where_not() {
    let names = |record: &RunRecord, samples: &[Sample]| -> Vec<&'static str> {
        let drawn = draw_all(record, samples).unwrap();
        drawn.iter().filter(|c| matches!(c, ChartOutcome::Drawn(_))).map(ChartOutcome::name).collect()
    };
    let (record, samples) = deep();
    let with = names(&record, &samples);
    assert!(with.contains(&"depth") && with.contains(&"breakdown"), "{with:?}");
    let (plain, samples) = fabricated::compare(&Script::default());
    let outcomes = draw_all(&plain, &samples).unwrap();
    assert!(outcomes.iter().all(|c| !["depth", "breakdown"].contains(&c.name())));
}

#[test]
fn the_page_of_many_records_has_a_row_for_each_depth_and_side_and_links_to_each_record() {
    let dir = tempfile::tempdir().unwrap();
    let (record, samples) = deep();
    written(&dir.path().join("records/a-compare"), &record, &samples);
    let (mut alone, few) = fabricated::one_sided(&Script::default());
    alone.provenance = Provenance::Measured;
    written(&dir.path().join("records/b-e2e"), &alone, &few);
    let out = dir.path().join("pages/results.html");
    let made = results_page(&dir.path().join("records"), &out, &command(), &no_targets()).unwrap();
    assert_eq!((made.records, made.left_out.len()), (2, 0));
    let page = fs::read_to_string(&out).unwrap();
    for depth in ["depth 128, 128 tokens", "depth 512, 128 tokens", "depth 1\u{202f}024, 128 tokens"] {
        assert_eq!(page.matches(depth).count(), 3, "{depth}: a row for each side, and one against the peer");
    }
    // Slashes are character references, which a browser reads as slashes.
    let plain = page.replace("&#x2f;", "/");
    assert!(plain.contains("href=\"../records/a-compare/report.html\""), "{page}");
    assert!(plain.contains("href=\"../records/b-e2e/report.html\""));
    assert!(
        page.contains("bench compare --runs 40 --against ollama · An Example GPU, driver 580.1 · 2026-01-02 03:04 UTC")
    );
    assert!(page.contains("check failed: steps of a token add up"), "a failed check is beside the record's name");
    assert!(page.contains("<h2>An Example GPU, driver 580.1</h2>"), "machines are told apart");
    assert!(
        page.contains("decode speed by depth of context") && page.contains("Where the time of a decoded token goes")
    );
    assert!(!page.contains("http") && !page.contains("<script"), "the page stands alone");
    let again = results_page(&dir.path().join("records"), &out, &command(), &no_targets()).unwrap();
    assert_eq!((again, fs::read_to_string(&out).unwrap()), (made, page), "the same records give the same page");
}

#[test]
fn a_page_whose_name_ends_in_md_is_markdown_with_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (record, samples) = deep();
    written(&dir.path().join("a"), &record, &samples);
    let out = dir.path().join("results.md");
    results_page(dir.path(), &out, &command(), &no_targets()).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("| [depth 512, 128 tokens](a/report.html) | edgellm"), "{text}");
    assert!(text.contains("**check failed: steps of a token"), "{text}");
}

#[test]
fn a_damaged_or_simulated_record_is_named_and_an_empty_folder_is_an_error_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results.html");
    let empty = results_page(dir.path(), &out, &command(), &no_targets()).unwrap_err();
    assert!(matches!(&empty, ReportError::NoRecords { .. }) && empty.to_string().contains("hint:"), "{empty}");
    let (record, samples) = deep();
    written(&dir.path().join("good"), &record, &samples);
    for (name, text) in [
        ("cut", serde_json::to_string(&record).unwrap()[..500].to_owned()),
        (
            "simulated",
            serde_json::to_string(&RunRecord { provenance: Provenance::Simulated, ..record.clone() }).unwrap(),
        ),
        ("later", serde_json::to_string(&RunRecord { schema: 99, ..record.clone() }).unwrap()),
    ] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("run.json"), text).unwrap();
    }
    let made = results_page(dir.path(), &out, &command(), &no_targets()).unwrap();
    assert_eq!((made.records, made.left_out.len()), (1, 3), "{:?}", made.left_out);
    let page = fs::read_to_string(&out).unwrap();
    assert!(
        page.contains("<h2>Not shown</h2>") && page.contains("simulated: run fabricated-0001 has simulated numbers")
    );
}

/// A target on the device of [`deep`].
fn target(id: &str, metric: TargetMetric, floor: f64, aim: Option<f64>, ceiling: f64) -> Target {
    let ceiling = TargetCeiling::Limit { limit: ceiling, why: "of a test".into() };
    Target {
        id: id.into(),
        title: format!("title of {id}"),
        metric,
        device: "An Example GPU".into(),
        floor,
        aim,
        ceiling,
    }
}

fn decode(peer: &str) -> TargetMetric {
    TargetMetric::DecodeRatio { model: vec!["nothing".into(), "".into()], peer: peer.into(), threads: None }
}

#[test]
fn a_target_stands_by_the_records_alone_and_is_missed_by_a_share_of_its_floor() {
    let dir = tempfile::tempdir().unwrap();
    let (record, samples) = deep();
    written(&dir.path().join("records/one"), &record, &samples);
    let peer = record.sides[1].label.to_lowercase();
    let ratio = record
        .metrics
        .iter()
        .find(|m| m.id == harness_spec::record::MetricId::DecodeTokPerS && m.group == "all")
        .and_then(|m| m.ratio.as_ref())
        .unwrap()
        .ratio;
    let depth = |kv: &str| TargetMetric::DepthCost { model: vec!["".into()], from: 128, to: 1024, kv: kv.into() };
    let targets = vec![
        target("met", decode(&peer), ratio - 0.1, Some(ratio + 0.1), 100.0),
        target("aim", decode(&peer), ratio - 0.2, Some(ratio - 0.1), 100.0),
        target("missed", decode(&peer), 2.0 * ratio, None, 100.0),
        target("of nobody", decode("another peer"), 1.0, None, 100.0),
        target("depth", depth("f16"), 0.9, None, 0.001),
        target("depth in int8", depth("int8"), 0.9, None, 0.001),
        Target { device: "Another GPU".into(), ..target("elsewhere", decode(&peer), 1.0, None, 100.0) },
    ];
    let targets = Targets { schema: 1, targets }.checked().unwrap();
    // A record that cannot be read has no figure, and that is said.
    fs::create_dir_all(dir.path().join("records/torn")).unwrap();
    fs::write(dir.path().join("records/torn/run.json"), "{").unwrap();
    let found = targets.status(&dir.path().join("records")).unwrap();
    assert!(found.left_out.len() == 1 && found.left_out[0].starts_with("torn: "), "{:?}", found.left_out);
    let stands = found.targets;
    use TargetOutcome::{AimMet, Met, Missed, NoRecord};
    let outcomes: Vec<_> = stands.iter().map(|s| s.outcome).collect();
    assert_eq!(outcomes, [Met, AimMet, Missed, NoRecord, Met, NoRecord, NoRecord]);
    assert_eq!(stands[0].value, Some(ratio));
    assert!((stands[2].missed_by.unwrap() - 0.5).abs() < 1e-12 && stands[2].outcome_text() == "missed by 50.0 %");
    assert!(stands[3].value.is_none() && stands[3].record.is_none());

    let shown = |targets: &Targets, name: &str| {
        let out = dir.path().join(name);
        results_page(&dir.path().join("records"), &out, &command(), targets).unwrap();
        fs::read_to_string(out).unwrap()
    };
    for name in ["page.html", "page.md"] {
        let page = shown(&targets, name);
        assert!(page.contains("title of missed") && page.contains("missed by 50.0 %") && page.contains("no record"));
        // Somebody's own runs are not about the targets of others.
        let foreign = Targets { schema: 1, targets: targets.targets[5..].to_vec() };
        assert!(!shown(&foreign, name).contains("title of elsewhere"));
    }
}

#[test]
fn a_target_that_a_record_without_a_verdict_reaches_is_not_called_met() {
    use harness_spec::record::{MetricId, Verdict};
    let dir = tempfile::tempdir().unwrap();
    let (mut record, samples) = deep();
    let peer = record.sides[1].label.to_lowercase();
    let is_decode = |id, group: &str| id == MetricId::DecodeTokPerS && group == "all";
    let metric = record.metrics.iter_mut().find(|m| is_decode(m.id, &m.group)).unwrap();
    metric.verdict = Some(Verdict::Withheld);
    let ratio = metric.ratio.as_ref().unwrap().ratio;
    written(&dir.path().join("one"), &record, &samples);
    let reached = target("reached", decode(&peer), ratio - 0.2, Some(ratio - 0.1), 100.0);
    let missed = target("missed", decode(&peer), 2.0 * ratio, None, 100.0);
    let targets = Targets { schema: 1, targets: vec![reached, missed] }.checked().unwrap();
    let stands = targets.status(dir.path()).unwrap().targets;
    assert_eq!(stands.iter().map(|s| s.outcome).collect::<Vec<_>>(), [TargetOutcome::Unproven, TargetOutcome::Missed]);
    assert_eq!(stands[0].outcome_text(), "reached, unproven");
    assert_eq!(stands[0].note.as_deref(), Some("the record withholds its verdict"));
}

#[test]
fn a_target_of_some_threads_or_prompts_is_answered_by_records_of_these_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut record, samples) = deep();
    record.suite.prompts.retain(|p| p.depth == Some(128));
    written(&dir.path().join("one"), &record, &samples);
    let (model, peer) = (vec![String::new()], record.sides[1].label.clone());
    let ran = record.plan.threads;
    let decode = |threads| TargetMetric::DecodeRatio { model: model.clone(), peer: peer.clone(), threads };
    let ttft = |prompt_tokens| TargetMetric::TtftRatio { model: model.clone(), peer: peer.clone(), prompt_tokens };
    let prompt = |threads, prompt_tokens| TargetMetric::PromptRatio {
        model: model.clone(),
        peer: peer.clone(),
        threads,
        prompt_tokens,
    };
    let metrics = [
        (decode(Some(ran)), true),
        (decode(Some(ran + 1)), false),
        (ttft(Some(128)), true),
        (ttft(Some(512)), false),
        (prompt(None, None), true),
        (prompt(Some(ran), Some(128)), true),
        (prompt(Some(ran), Some(512)), false),
        (prompt(Some(ran + 1), Some(128)), false),
    ];
    let named = metrics.iter().enumerate().map(|(i, (m, _))| target(&i.to_string(), m.clone(), 0.001, None, 100.0));
    let targets = Targets { schema: 1, targets: named.collect() }.checked().unwrap();
    let stands = targets.status(dir.path()).unwrap().targets;
    for (stand, (metric, found)) in stands.iter().zip(&metrics) {
        assert_eq!(stand.value.is_some(), *found, "{metric:?}");
    }
}

#[test]
fn a_target_beyond_its_ceiling_or_with_numbers_that_are_none_is_refused_on_entry() {
    let refused = |target: Target| Targets { schema: 1, targets: vec![target] }.checked().unwrap_err();
    let beyond = refused(target("a", decode("p"), 2.0, Some(3.0), 2.5));
    assert!(matches!(&beyond, TargetError::BeyondCeiling { what: "aim", .. }), "{beyond}");
    assert!(beyond.to_string().contains("target a: its aim 3 lies beyond its ceiling 2.500 (of a test)"), "{beyond}");
    // Where less is better, the ceiling is what it cannot go below.
    let depth = || TargetMetric::DepthCost { model: vec![], from: 128, to: 2048, kv: "f16".into() };
    assert!(matches!(refused(target("a", depth(), 0.05, Some(0.03), 0.04)), TargetError::BeyondCeiling { .. }));
    assert!(matches!(refused(target("a", depth(), 0.05, Some(0.06), 0.01)), TargetError::Aim { .. }));
    assert!(matches!(refused(target("a", decode("p"), f64::NAN, None, 2.5)), TargetError::Number { .. }));
    let read = |bytes| TargetCeiling::Read { read_gb_per_s: 4000.0, bytes, reference: 100.0, source: "s".into() };
    // 4 GB at 4 TB/s are 1000 tokens a second, 10 times the reference.
    let of = |bytes, floor| Target { ceiling: read(bytes), ..target("a", decode("p"), floor, None, 1.0) };
    assert!(Targets { schema: 1, targets: vec![of(4e9, 10.0)] }.checked().is_ok());
    assert!(matches!(refused(of(4e9, 10.1)), TargetError::BeyondCeiling { .. }));
    assert!(matches!(refused(of(0.0, 1.0)), TargetError::Number { .. }));
    let twice = vec![of(4e9, 1.0), of(4e9, 1.0)];
    assert!(matches!(Targets { schema: 1, targets: twice }.checked(), Err(TargetError::Twice { .. })));
    assert!(matches!(Targets { schema: 2, targets: vec![] }.checked(), Err(TargetError::Schema { found: 2 })));
}
