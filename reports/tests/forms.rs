//! What the forms of a report say: page, terminal, Markdown, CSV, charts.

mod fabricated;

use fabricated::Script;
use harness_spec::record::*;
use reports::{ChartOutcome, draw_all, html, load_run, markdown, metrics_csv, samples_csv, terminal};

/// The record of the snapshots, a file so that no change of the statistics changes them.
fn fixed() -> (RunRecord, Vec<Sample>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fabricated");
    let run = load_run(folder.as_ref()).unwrap();
    (run.record, run.samples)
}

/// The page without its drawings and its style.
fn text_of(page: &str) -> String {
    let mut out = String::new();
    let mut rest = page;
    for (open, close) in [("<style>", "</style>")].into_iter().chain(std::iter::repeat(("<svg", "</svg>"))) {
        let Some((before, tail)) = rest.split_once(open) else { break };
        out.push_str(before);
        out.push_str("[…]");
        rest = tail.split_once(close).unwrap().1;
    }
    out + rest
}

fn chart(outcomes: &[ChartOutcome], name: &str) -> String {
    match outcomes.iter().find(|o| o.name() == name).unwrap() {
        ChartOutcome::Drawn(chart) => chart.svg.clone(),
        ChartOutcome::Omitted { why, .. } => panic!("{name} was left out: {why}"),
    }
}

fn why_omitted(outcomes: &[ChartOutcome], name: &str) -> String {
    match outcomes.iter().find(|o| o.name() == name).unwrap() {
        ChartOutcome::Omitted { why, .. } => why.clone(),
        ChartOutcome::Drawn(_) => panic!("{name} was drawn"),
    }
}

#[test]
fn the_terminal_form_of_a_fixed_record() {
    insta::assert_snapshot!(terminal(&fixed().0));
}

#[test]
fn the_markdown_form_of_a_fixed_record() {
    insta::assert_snapshot!(markdown(&fixed().0));
}

#[test]
fn the_csv_forms_of_a_fixed_record() {
    let (record, samples) = fixed();
    insta::assert_snapshot!("metrics_csv", metrics_csv(&record));
    insta::assert_snapshot!("samples_csv", samples_csv(&samples));
}

#[test]
fn the_page_of_a_fixed_record() {
    let (record, samples) = fixed();
    insta::assert_snapshot!(text_of(&html(&record, &samples).unwrap()));
}

#[test]
fn the_ratio_chart_of_a_fixed_record() {
    let (record, samples) = fixed();
    insta::assert_snapshot!(chart(&draw_all(&record, &samples).unwrap(), "ratios"));
}

#[test]
fn the_terminal_form_fits_a_hundred_and_twenty_columns_and_names_the_peer_first() {
    let (record, _) = fabricated::compare(&Script::default());
    let shown = terminal(&record);
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("SIMULATED: scripted peers, no measurement"));
    assert_eq!(lines.nth(1), Some("edgellm 0.1.0 against Ollama 0.20.7 (ollama at 127.0.0.1:11434)"));
    assert!(lines.next().unwrap().starts_with("edgellm decodes"));
    for line in shown.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn an_embedded_peer_is_never_mistaken_for_ollama() {
    let (mut record, samples) = fabricated::compare(&Script::default());
    record.sides[1].kind = "baseline".into();
    record.sides[1].label = "edgellm baseline".into();
    let said =
        "edgellm 0.1.0 against the embedded baseline at 127.0.0.1:11434: our engine on its plain kernels, not Ollama";
    assert!(terminal(&record).replace("\n  ", " ").contains(said));
    assert!(html(&record, &samples).unwrap().contains(said));
    assert!(markdown(&record).contains(said));
}

#[test]
fn prompts_outputs_and_errors_cannot_put_markup_into_the_page() {
    let (mut record, mut samples) = fabricated::compare(&Script::default());
    let attack = "</pre></style></svg><script>alert(1)</script><img src=x onerror=\"alert(2)\">";
    record.suite.prompts[0].text = attack.into();
    record.suite.prompts[0].id = attack.into();
    record.sides[1].label = attack.into();
    record.sides[1].version = Some(attack.into());
    record.headline.text = attack.into();
    record.notes.push(attack.into());
    record.manifest[0].peer = Some(attack.into());
    record.manifest[0].status = ManifestStatus::Mismatch;
    record.metrics[0].note = Some(attack.into());
    record.environment.noise[0].fix = attack.into();
    record.command.push(attack.into());
    for sample in &mut samples {
        sample.text = attack.into();
        if sample.prompt == "relativity" {
            sample.prompt = attack.into();
        }
        if let SampleStatus::Failed { error } = &mut sample.status {
            *error = attack.into();
        }
    }
    let page = html(&record, &samples).unwrap();
    for tag in ["<script", "<img", "</pre></style>"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert!(!markdown(&record).contains("<script"));
}

#[test]
fn the_page_holds_no_address_and_needs_no_other_file() {
    let (mut record, samples) = fabricated::compare(&Script::default());
    record.notes.push("the peer at HTTP://example.org/x and https://example.org".into());
    let page = html(&record, &samples).unwrap();
    assert!(!page.to_ascii_lowercase().contains("http"));
    for reference in ["<link", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("&#72;TTP:&#x2f;&#x2f;example.org"));
    assert!(page.contains("<svg role=\"img\" viewBox="));
    let stand_alone = chart(&draw_all(&record, &samples).unwrap(), "decode");
    assert!(stand_alone.contains("xmlns=\"http://www.w3.org/2000/svg\""), "a file of its own needs its namespace");
}

#[test]
fn a_slower_engine_reads_slower_in_every_form() {
    let (record, samples) = fabricated::compare(&Script { speedup: 0.83, ..Script::default() });
    assert_eq!(record.headline.verdict, Some(Verdict::Slower));
    assert!(terminal(&record).contains("verdict on decode tok/s: slower"));
    assert!(terminal(&record).contains("▼ slower"));
    assert!(html(&record, &samples).unwrap().contains("<span class=\"pill slower\">"));
    assert!(markdown(&record).contains("| slower |"));
    let decode = record.metrics.iter().find(|m| m.id == MetricId::DecodeTokPerS && m.group == "all").unwrap();
    assert!(decode.ratio.as_ref().unwrap().ratio < 1.0);
    assert!(chart(&draw_all(&record, &samples).unwrap(), "ratios").contains("slower"));
}

#[test]
fn a_blocked_headline_gives_its_reason_in_every_form() {
    let (mut record, samples) = fabricated::compare(&Script::default());
    assert_eq!(record.headline.verdict, Some(Verdict::Faster));
    record.headline.blocked = Some("the weights digest differs".into());
    record.manifest[0].status = ManifestStatus::Mismatch;
    record.manifest[0].peer = Some("another".into());
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("<b>No verdict.</b> the weights digest differs"));
    assert!(page.contains("pill mismatch"));
    assert!(page.contains("<p class=\"status\"><span class=\"pill withheld\">"));
    let shown = terminal(&record);
    assert!(shown.contains("verdict on decode tok/s: withheld"));
    assert!(shown.contains("no verdict: the weights digest differs"));
    assert!(shown.contains("│ weights digest"));
    assert!(markdown(&record).contains("No verdict: the weights digest differs."));
}

#[test]
fn one_side_alone_has_no_ratio_no_manifest_and_no_verdict() {
    let (record, samples) = fabricated::one_sided(&Script::default());
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("edgellm 0.1.0 alone, without a peer"));
    assert!(!page.contains("Parity manifest") && !page.contains("class=\"pill faster\""));
    assert!(
        page.contains("Left out: <b>Engine against peer, with confidence intervals</b>, because one side ran alone")
    );
    let shown = terminal(&record);
    assert!(shown.contains("decode tok/s at batch 1") && !shown.contains("verdict") && !shown.contains("ratio"));
    assert!(shown.contains("runs in the statistics: 40 of 40 planned"));
    assert!(markdown(&record).contains("| metric | edgellm 0.1.0 |\n"));
    let outcomes = draw_all(&record, &samples).unwrap();
    assert!(why_omitted(&outcomes, "ratios").contains("alone"));
    assert!(!chart(&outcomes, "decode").contains("#D55E00"), "no mark in the peer's colour");
}

#[test]
fn an_interrupted_run_says_so_and_keeps_what_it_has() {
    let (record, samples) = fabricated::interrupted(&Script::default(), 33);
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("<b>Interrupted.</b>"));
    assert!(page.contains(">interrupted</td>"));
    assert!(terminal(&record).contains("interrupted: the run was cut short"));
    assert!(chart(&draw_all(&record, &samples).unwrap(), "timeline").contains("not in the statistics"));
}

#[test]
fn a_chart_without_data_is_left_out_with_its_reason() {
    let (mut record, mut samples) = fabricated::compare(&Script::default());
    record.ceiling = None;
    for sample in &mut samples {
        sample.one_token_per_chunk = false;
    }
    let outcomes = draw_all(&record, &samples).unwrap();
    assert!(why_omitted(&outcomes, "itl-ecdf").contains("one token a chunk"));
    assert!(why_omitted(&outcomes, "roofline").contains("ceiling was not measured"));
    // A rate needs the first and the last token only.
    assert!(chart(&outcomes, "decode").contains("edgellm"));
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("Left out: <b>Inter-token latency, cumulative</b>, because"));
    assert!(!page.contains("chart-itl-ecdf"));
}

#[test]
fn a_side_without_a_curve_is_named_and_a_logarithmic_axis_says_so() {
    let (record, mut samples) = fabricated::compare(&Script::default());
    for sample in samples.iter_mut().filter(|s| s.side == SideRole::Peer) {
        sample.one_token_per_chunk = false;
    }
    for at in &mut samples[3].token_ns {
        at.0 += 900_000_000;
    }
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("Ollama 0.20.7 has no curve: no run of it carried one token a chunk."));
    assert!(page.contains("TTFT, ms, logarithmic (lower is better)"));
    assert!(page.contains("decode tok/s (higher is better)"));
}

#[test]
fn a_run_without_any_sample_still_makes_a_page() {
    let (mut record, _) = fabricated::interrupted(&Script::default(), 0);
    record.metrics.clear();
    let page = html(&record, &[]).unwrap();
    assert!(page.contains("No run completed, so there are no metrics."));
    for name in ["ratios", "decode", "ttft", "itl-ecdf", "timeline"] {
        assert!(!why_omitted(&draw_all(&record, &[]).unwrap(), name).is_empty());
    }
    assert!(terminal(&record).contains("pairs in the statistics: 0 of 40 planned"));
}

#[test]
fn a_percentile_of_too_few_values_is_a_dash_with_its_reason() {
    let (record, samples) = fixed();
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("<span class=\"none\" title=\"p99 needs 1000 values, there are "));
    assert!(page.contains("<li>edgellm 0.1.0 and Ollama 0.20.7: p90 needs 100 values"));
}

#[test]
fn numbers_that_are_estimated_or_above_the_ceiling_are_not_passed_off_as_results() {
    let (mut record, samples) = fabricated::compare(&Script::default());
    record.sides[0].rss_peak_bytes = Measure { provenance: Provenance::Estimated, ..Measure::measured(131e6) };
    record.sides[1].bandwidth_efficiency = Measure::derived(1.31);
    let page = html(&record, &samples).unwrap();
    assert!(page.contains("neither measured nor derived from measured values"));
    assert!(!page.contains("124.9 MiB"));
    let finding = "Ollama 0.20.7 reads 131.0 % of the measured rate";
    assert!(page.contains(finding) && terminal(&record).replace("\n  ", " ").contains(finding));
}

#[test]
fn what_a_run_used_of_a_gpu_is_shown_beside_the_memory_of_each_side() {
    let (mut record, samples) = fabricated::compare(&Script::default());
    assert!(!terminal(&record).contains("energy per token"), "a run on processors has no such rows");
    let counters = DeviceCounters {
        generated: 1000,
        tokens: 1000,
        graph_launches: 1000,
        kernel_launches: 90,
        syncs: 20,
        h2d_bytes: 2500,
        d2h_bytes: 4000,
    };
    record.sides[0].gpu = Some(SideGpu {
        device: "cuda:0".into(),
        name: "An Example GPU".into(),
        driver: Some("580.1".into()),
        vram_bytes: Measure::measured(512.0 * 1048576.0),
        vram_need_bytes: Some(Measure::derived(640.0 * 1048576.0)),
        energy_j_per_token: Measure::derived(0.125),
        energy_net_j_per_token: Some(Measure::missing("500 tokens in 2.0 s: net energy takes 1000 tokens and 10 s")),
        counters: Some(counters),
    });
    record.plan.device = "cuda:0".into();
    record.ceiling.as_mut().unwrap().device = Some("An Example GPU".into());
    for block in &mut record.telemetry {
        block.gpu = Some(GpuTelemetry {
            sm_mhz: Measure::measured(1980.0),
            memory_mhz: Measure::measured(3201.0),
            temperature_c: Measure::measured(41.0),
            power_w: Measure::measured(310.0),
            memory_used_bytes: Measure::missing("the board does not tell"),
            energy_j: Measure::measured(12.0),
            throttled: Some("sw power cap".into()),
        });
    }
    let (text, page) = (terminal(&record).replace("\n  ", " "), html(&record, &samples).unwrap());
    for want in ["cuda:0, An Example GPU", "0.125", "graph launches per token", "bytes back per token"] {
        assert!(text.contains(want), "{want} is missing in\n{text}");
    }
    for want in ["on An Example GPU", "GPU clock", "sw power cap", "engine device", "the board does not tell"] {
        assert!(page.contains(want), "{want} is missing");
    }
    let back: harness_spec::record::RunRecord = serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
    assert_eq!(back, record);
}

#[test]
fn ten_thousand_samples_stay_below_five_megabytes() {
    let script = Script { runs: 5000, lengths: vec![12, 24], resamples: 20, ..Script::default() };
    let (mut record, samples) = fabricated::compare(&Script { runs: 40, ..script.clone() });
    assert!(samples.len() < 100);
    let samples = fabricated::samples(&script);
    record.plan.runs = script.runs;
    assert_eq!(samples.len(), 10_000);
    let page = html(&record, &samples).unwrap();
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
}
