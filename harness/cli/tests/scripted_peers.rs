//! Whole comparisons against scripted peers: what is kept, what is dropped, what ends a run (R34, R35, R36).

mod fake;

use bench_cli::breakdown::Broken;
use bench_cli::commands::measure::{Measured, Prepared, measure};
use bench_cli::manifest::{self, Field, Known};
use bench_cli::peers::ollama::EngineState;
use bench_cli::peers::prepare::{self, Setting};
use bench_cli::peers::{Client, Side};
use bench_cli::plan::RunPlan;
use bench_cli::record::Identity;
use bench_cli::session::Ended;
use fake::{Fault, Peer, Scripted, Stub, WordJudge, plan};
use harness_spec::record::{
    Check, DropReason, Measure, MetricId, Provenance, RunKind, RunRecord, Sample, SampleStatus, SideRole, Verdict,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const DIGEST: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// A side at an address, with a shape in which every field agrees.
fn side(role: SideRole, peer: &Peer, openai: bool) -> Side {
    let timeout = std::time::Duration::from_secs(5);
    let client = if openai {
        Client::OpenAi(bench_cli::peers::openai::OpenAiClient::new(peer.url.clone(), timeout).unwrap())
    } else {
        Client::Ollama(bench_cli::peers::ollama::OllamaClient::new(peer.url.clone(), timeout).unwrap())
    };
    Side {
        role,
        kind: if openai { "openai" } else { "ollama" },
        label: format!("scripted {role:?}"),
        endpoint: peer.url.clone(),
        version: None,
        model: "m".into(),
        client,
        threads: Some(2),
        can_ignore_eos: false,
        options: Default::default(),
        load_ms: Measure::missing("scripted"),
        pid: None,
        device: None,
        shape: Field::ALL.into_iter().map(|f| (f, Known::is("x", "scripted"))).collect(),
        child: None,
    }
}

struct Race {
    dir: TempDir,
    measured: Measured,
}

impl Race {
    fn record(&self) -> &RunRecord {
        &self.measured.record
    }

    fn samples(&self) -> Vec<Sample> {
        let text = std::fs::read_to_string(self.dir.path().join("samples.jsonl")).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.record().hygiene.dropped.get(reason).copied().unwrap_or(0)
    }
}

async fn race_with(plan: RunPlan, engine: Scripted, peer: Scripted, openai: bool, cancel: CancellationToken) -> Race {
    judged_race(plan, engine, peer, openai, cancel, WordJudge::default()).await
}

async fn judged_race(
    plan: RunPlan,
    engine: Scripted,
    peer: Scripted,
    openai: bool,
    cancel: CancellationToken,
    judge: WordJudge,
) -> Race {
    let dir = TempDir::new().unwrap();
    let engine = engine.ollama().await;
    let peer = if openai { peer.openai().await } else { peer.ollama().await };
    let model = Stub::with_digest(DIGEST);
    let plan = RunPlan { out: Some(dir.path().to_owned()), ..plan };
    let identity = Identity::new(&plan).unwrap();
    let sides = vec![side(SideRole::Engine, &engine, false), side(SideRole::Peer, &peer, openai)];
    let manifest = manifest::compare(&sides[0].shape, &sides[1].shape);
    let prepared = Prepared {
        kind: RunKind::Compare,
        provenance: Provenance::Simulated,
        plan: &plan,
        model: &model,
        schedule: plan.paired().unwrap(),
        sides,
        withhold: manifest::withhold(&manifest),
        manifest,
        notes: vec!["peer: a script".into()],
        broken: Broken::default(),
        identity: &identity,
        command: vec!["bench".into(), "compare".into()],
        ceiling: None,
        cancel,
    };
    let measured = measure(prepared, &judge).await.unwrap();
    Race { dir, measured }
}

async fn race(runs: u64, peer: Scripted) -> Race {
    race_with(plan(runs, &[24]), Scripted::default(), peer, false, CancellationToken::new()).await
}

#[tokio::test]
async fn two_clean_sides_keep_every_pair_and_every_token_time() {
    let r = race(12, Scripted::default()).await;
    assert_eq!(r.measured.ended, Ended::Complete);
    let h = &r.record().hygiene;
    assert_eq!((h.pairs_planned, h.pairs_kept, h.failed_requests, h.interrupted), (12, 12, 0, false));
    let samples = r.samples();
    // One warm-up a side, recorded and left out.
    assert_eq!(samples.len(), 26);
    assert_eq!(samples.iter().filter(|s| s.dropped == Some(DropReason::Warmup)).count(), 2);
    for s in samples.iter().filter(|s| s.dropped.is_none()) {
        assert_eq!((s.token_ns.len(), s.generated_tokens, s.one_token_per_chunk), (24, 24, true));
        assert!(s.submit_ns < s.token_ns[0] && s.token_ns.is_sorted() && s.token_ns[23] <= s.end_ns);
        assert_eq!(s.prompt_tokens, s.server.as_ref().unwrap().prompt_tokens.unwrap());
    }
    assert_eq!(r.record().provenance, Provenance::Simulated);
    assert!(r.record().metrics.iter().any(|m| m.id == MetricId::TtftMs && m.ratio.is_some()));
    for file in ["run.json", "report.html", "samples.jsonl"] {
        assert!(r.dir.path().join(file).is_file(), "{file}");
    }
}

#[tokio::test]
async fn both_sides_of_a_pair_get_the_same_raw_prompt_and_no_two_pairs_share_their_beginning() {
    let (engine, peer) = (Scripted::default(), Scripted::default());
    let r = race_with(plan(8, &[4]), engine, peer, false, CancellationToken::new()).await;
    let samples = r.samples();
    let nonces = |side| -> Vec<(u64, String)> {
        let mut v: Vec<_> = samples.iter().filter(|s| s.side == side).map(|s| (s.pair, s.nonce.clone())).collect();
        v.sort();
        v
    };
    let (a, b) = (nonces(SideRole::Engine), nonces(SideRole::Peer));
    assert_eq!(a, b);
    let distinct: std::collections::BTreeSet<_> = a.iter().map(|(_, n)| n).collect();
    assert_eq!(distinct.len(), a.len());
}

#[tokio::test]
async fn every_request_carries_its_sampler_and_is_raw() {
    let peer = Scripted::default().ollama().await;
    let model = Stub::with_digest(DIGEST);
    let plan = plan(1, &[4]);
    let s = side(SideRole::Peer, &peer, false);
    let request =
        bench_cli::peers::Request { prompt: "[1] hi", length: 4, seed: 9, context: 512, threads: 2, ignore_eos: false };
    let clock = bench_cli::peers::Clock::start();
    s.client.generate("m", &request, &clock, &CancellationToken::new()).await;
    let body = &peer.bodies()[0];
    assert_eq!((body["raw"].as_bool(), body["prompt"].as_str()), (Some(true), Some("[1] hi")));
    for option in
        ["num_predict", "num_ctx", "num_thread", "temperature", "top_k", "top_p", "repeat_penalty", "seed", "stop"]
    {
        assert!(!body["options"][option].is_null(), "{option} is left to the server's default");
    }
    assert!(body["options"]["ignore_eos"].is_null(), "no side may ignore what the other cannot");
    drop((model, plan));
}

#[tokio::test]
async fn end_tokens_are_ignored_only_where_both_sides_can() {
    let (a, b) = (Scripted::default().ollama().await, Scripted::default().openai().await);
    for (can, rule) in [(true, "end tokens ignored"), (false, "or end token")] {
        let mut sides = vec![side(SideRole::Engine, &a, false), side(SideRole::Peer, &b, true)];
        sides[0].can_ignore_eos = true;
        sides[1].can_ignore_eos = can;
        bench_cli::peers::agree_on_stop_rule(&mut sides);
        let ignore_eos = bench_cli::peers::ignores_eos(&sides);
        assert_eq!(ignore_eos, can);
        let clock = bench_cli::peers::Clock::start();
        for s in &sides {
            assert!(s.shape[&Field::StopRule].value.as_ref().unwrap().contains(rule));
            let request =
                bench_cli::peers::Request { prompt: "hi", length: 4, seed: 9, context: 512, threads: 2, ignore_eos };
            s.client.generate("m", &request, &clock, &CancellationToken::new()).await;
        }
        let sent = [&a.bodies().pop().unwrap()["options"]["ignore_eos"], &b.bodies().pop().unwrap()["ignore_eos"]]
            .map(serde_json::Value::as_bool);
        assert_eq!(sent, [can.then_some(true); 2]);
    }
}

#[tokio::test]
async fn merged_tokens_take_itl_and_leave_the_rate() {
    let r = race(12, Scripted::with(Fault::MergesTokens, 0)).await;
    let find = |id| r.record().metrics.iter().find(|m| m.id == id && m.group == "all").unwrap();
    let itl = find(MetricId::ItlP50Ms).peer.as_ref().unwrap();
    assert!(itl.estimate.is_none() && itl.reason.as_ref().unwrap().contains("exactly one token"), "{itl:?}");
    assert!(find(MetricId::DecodeTokPerS).peer.as_ref().unwrap().estimate.is_some());
    assert_eq!(r.record().hygiene.pairs_kept, 12);
}

#[tokio::test]
async fn each_broken_rule_of_hygiene_drops_the_pair_is_counted_and_forbids_a_conclusion() {
    for (fault, openai, reason) in [
        (Fault::StopsAt(9), false, "unequal_tokens"),
        (Fault::CountsFewer, false, "wrong_count"),
        (Fault::CountsPromptWrong, false, "unequal_prompt_tokens"),
        (Fault::CachesPrompt, true, "cached_prompt"),
        (Fault::CountsPromptWrong, true, "unequal_prompt_tokens"),
    ] {
        // The warm-up and ten runs are clean, then the rule is broken twice.
        let r = race_with(
            plan(12, &[24]),
            Scripted::default(),
            Scripted::with(fault, 11),
            openai,
            CancellationToken::new(),
        )
        .await;
        assert_eq!(r.measured.ended, Ended::Complete, "{fault:?}");
        assert!(r.dropped(reason) >= 2, "{fault:?}: {:?}", r.record().hygiene.dropped);
        assert_eq!(r.record().hygiene.pairs_kept, 10, "{fault:?}");
        assert_eq!(r.record().headline.verdict, Some(Verdict::Inconclusive), "{fault:?}");
        assert!(r.record().notes.iter().any(|n| n.contains("2 of 12 pairs were dropped")), "{:?}", r.record().notes);
    }
}

#[tokio::test]
async fn an_early_stop_of_both_sides_at_the_same_token_counts() {
    let stops = || Scripted::with(Fault::StopsAt(9), 0);
    let r = race_with(plan(12, &[24]), stops(), stops(), false, CancellationToken::new()).await;
    assert_eq!(r.record().hygiene.pairs_kept, 12);
    assert!(r.samples().iter().all(|s| s.status == SampleStatus::Stop && s.generated_tokens == 9));
}

#[tokio::test]
async fn a_peer_that_fails_ends_the_run_keeps_the_samples_and_says_why() {
    for (fault, said) in [
        (Fault::NotFound, "answered 404"),
        (Fault::DiesAfter(5), "cut the stream after 5 token(s)"),
        (Fault::Garbage, "what is not Ollama's NDJSON: <html>"),
        (Fault::ErrorInStream, "unexpectedly stopped"),
    ] {
        let r = race(12, Scripted::with(fault, 4)).await;
        let Ended::Lost(why) = &r.measured.ended else { panic!("{fault:?} did not end the run") };
        assert!(why.contains(said), "{fault:?}: {why}");
        let h = &r.record().hygiene;
        assert!(h.interrupted && h.failed_requests == 1, "{fault:?}: {h:?}");
        let samples = r.samples();
        let failed: Vec<_> = samples.iter().filter(|s| matches!(s.status, SampleStatus::Failed { .. })).collect();
        assert_eq!(failed.len(), 1);
        assert!(samples.iter().any(|s| s.status == SampleStatus::Length), "{fault:?}: what was measured is kept");
        assert!(r.dir.path().join("run.json").is_file() && r.dir.path().join("report.html").is_file());
        assert_ne!(r.record().headline.verdict, Some(Verdict::Faster));
    }
}

#[tokio::test]
async fn a_silent_peer_is_a_timeout_and_not_a_hang() {
    let quick = RunPlan { timeout: std::time::Duration::from_millis(300), ..plan(4, &[4]) };
    let dir = TempDir::new().unwrap();
    let peer = Scripted::with(Fault::Hangs, 0).ollama().await;
    let client = bench_cli::peers::ollama::OllamaClient::new(peer.url.clone(), quick.timeout).unwrap();
    let request =
        bench_cli::peers::Request { prompt: "x", length: 4, seed: 1, context: 512, threads: 1, ignore_eos: false };
    let clock = bench_cli::peers::Clock::start();
    let reply = client.generate("m", &request, &clock, &CancellationToken::new()).await;
    assert!(format!("{:?}", reply.end).contains("Timeout"), "{:?}", reply.end);
    drop(dir);
}

#[tokio::test]
async fn a_failing_warm_up_ends_the_run_before_any_timed_request() {
    let r = race(12, Scripted::with(Fault::NotFound, 0)).await;
    assert!(matches!(r.measured.ended, Ended::Lost(_)));
    assert!(r.samples().iter().all(|s| s.dropped == Some(DropReason::Warmup)));
    assert_eq!(r.record().hygiene.pairs_kept, 0);
}

#[tokio::test]
async fn an_interrupt_keeps_what_was_measured() {
    let cancel = CancellationToken::new();
    let slow = Scripted { pause: std::time::Duration::from_millis(3), ..Scripted::default() };
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        stop.cancel();
    });
    let r = race_with(plan(60, &[24]), slow.clone(), slow, false, cancel).await;
    assert_eq!(r.measured.ended, Ended::Interrupted);
    let samples = r.samples();
    assert!(r.record().hygiene.interrupted && samples.len() < 122);
    assert!(samples.iter().any(|s| s.status == SampleStatus::Length));
    assert_eq!(r.record().hygiene.failed_requests, 0, "Ctrl-C is no failure of the server");
}

#[tokio::test]
async fn a_mismatch_leaves_numbers_and_no_verdict() {
    let dir = TempDir::new().unwrap();
    let (engine, peer) = (Scripted::default().ollama().await, Scripted::default().ollama().await);
    let plan = RunPlan { out: Some(dir.path().to_owned()), ..plan(12, &[24]) };
    let identity = Identity::new(&plan).unwrap();
    let mut sides = vec![side(SideRole::Engine, &engine, false), side(SideRole::Peer, &peer, false)];
    sides[1].shape.insert(Field::WeightsDigest, Known::is("another file", "scripted"));
    let manifest = manifest::compare(&sides[0].shape, &sides[1].shape);
    let withhold = manifest::withhold(&manifest);
    assert!(withhold.as_ref().unwrap().contains("weights digest"));
    let model = Stub::with_digest(DIGEST);
    let prepared = Prepared {
        kind: RunKind::Compare,
        provenance: Provenance::Simulated,
        plan: &plan,
        model: &model,
        schedule: plan.paired().unwrap(),
        sides,
        manifest,
        withhold,
        notes: Vec::new(),
        broken: Broken::default(),
        identity: &identity,
        command: Vec::new(),
        ceiling: None,
        cancel: CancellationToken::new(),
    };
    let m = measure(prepared, &WordJudge::default()).await.unwrap();
    assert_eq!(m.record.headline.verdict, Some(Verdict::Withheld));
    assert!(m.record.headline.blocked.as_ref().unwrap().contains("weights digest"));
    assert!(m.record.metrics.iter().all(|m| m.verdict.is_none_or(|v| v == Verdict::Withheld)));
    assert!(m.record.metrics.iter().any(|m| m.ratio.is_some()));
    assert_eq!(m.record.manifest[0].name, "weights digest");
}

#[tokio::test]
async fn two_sides_that_say_what_the_model_says_have_their_quality_in_the_record_and_a_verdict() {
    let r = race(12, Scripted::default()).await;
    let quality = r.record().quality.as_ref().unwrap();
    assert!(quality.passed == Some(true) && quality.text.tokens > 1, "{quality:?}");
    // Four requests, each with the answer of both sides.
    assert_eq!((quality.answers.len(), quality.agreements.len()), (8, 4));
    assert!(quality.answers.iter().all(|a| a.tokens == 24 && a.others == 0), "{:?}", quality.answers);
    assert_ne!(r.record().headline.verdict, Some(Verdict::Withheld));
    assert!(r.record().checks.iter().filter(|c| c.name.contains("greedy answers")).all(|c| c.passed == Some(true)));
}

#[tokio::test]
async fn whoever_returns_junk_takes_the_verdict_with_it_and_is_named() {
    let junk = || Scripted::with(Fault::Babbles, 0);
    let clean = Scripted::default;
    for (engine, peer, judge, said) in [
        (clean(), junk(), WordJudge::default(), "greedy answers of scripted Peer"),
        (junk(), clean(), WordJudge::default(), "greedy answers of scripted Engine"),
        // Both say the same, and it is wrong.
        (junk(), junk(), WordJudge::default(), "greedy answers of scripted Engine"),
        (clean(), clean(), WordJudge { fast_is_off: 9.0, ..WordJudge::default() }, "quality on a fixed text"),
        (clean(), clean(), WordJudge { fast_is_off: f32::NAN, ..WordJudge::default() }, "no numbers"),
        (clean(), clean(), WordJudge { fails: true, ..WordJudge::default() }, "the device is gone"),
    ] {
        let r = judged_race(plan(12, &[24]), engine, peer, false, CancellationToken::new(), judge).await;
        let record = r.record();
        assert_eq!(r.measured.ended, Ended::Complete);
        assert_eq!(record.headline.verdict, Some(Verdict::Withheld), "{said}");
        let why = record.headline.blocked.as_ref().unwrap();
        assert!(why.starts_with("the quality gate failed") && why.contains(said), "{said}: {why}");
        assert!(record.checks.iter().any(Check::failed), "{said}");
        assert!(record.quality.as_ref().is_none_or(|q| q.passed == Some(false)), "{said}");
        // The figures stay, and so does the page that says why.
        assert!(record.metrics.iter().any(|m| m.ratio.is_some()));
        let page = std::fs::read_to_string(r.dir.path().join("report.html")).unwrap();
        assert!(page.contains("Check failed"), "{said}");
    }
}

#[tokio::test]
async fn a_sound_model_whose_answers_are_short_is_too_little_to_judge_and_has_not_failed() {
    let r = judged_race(
        plan(12, &[3]),
        Scripted::default(),
        Scripted::default(),
        false,
        CancellationToken::new(),
        WordJudge::default(),
    )
    .await;
    let record = r.record();
    assert_eq!(record.headline.verdict, Some(Verdict::Withheld));
    let why = record.headline.blocked.as_ref().unwrap();
    assert!(why.starts_with("the quality is not known: greedy answers of scripted Engine"), "{why}");
    assert!(why.contains("12 tokens of 4 answers, too little to judge, 16 are needed"), "{why}");
    assert!(!why.contains("failed") && !record.checks.iter().any(Check::failed), "{why}");
    assert_eq!(record.quality.as_ref().unwrap().passed, None);
    let page = std::fs::read_to_string(r.dir.path().join("report.html")).unwrap();
    assert!(!page.contains("Check failed") && page.contains("pill unknown"), "{page}");
}

fn setting<'a>(model: &'a Stub, plan: &'a RunPlan, out: &'a TempDir) -> Setting<'a> {
    let (device, kv, out) = (plan.device, plan.kv, out.path());
    Setting { model, suite: &plan.suite, context: 512, device, kv, threads: 2, timeout: plan.timeout, out }
}

#[tokio::test]
async fn an_ollama_with_our_weights_is_used_as_it_is() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let peer =
        Scripted { models: [("mine".to_owned(), DIGEST.to_owned())].into(), ..Scripted::default() }.ollama().await;
    let model = Stub::with_digest(DIGEST);
    let side = prepare::ollama(&setting(&model, &plan, &dir), SideRole::Peer, &peer.url).await.unwrap();
    assert_eq!((side.model.as_str(), side.label.as_str()), ("mine:latest", "Ollama 0.20.7"));
    assert!(peer.blobs().is_empty(), "nothing was uploaded");
    let digest = side.shape[&Field::WeightsDigest].value.as_deref();
    assert_eq!(digest, Some(DIGEST));
    // The script runs inside this process, so its environment and boot are seen as any local server's are.
    for field in [Field::Context, Field::PromptIds, Field::GpuLayers, Field::Tokenizer, Field::Slots, Field::Machine] {
        assert!(side.shape[&field].value.is_some(), "{field:?}: {}", side.shape[&field].how);
    }
}

#[tokio::test]
async fn an_ollama_without_our_weights_gets_them_through_its_blob_and_create_api() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let file = dir.path().join("m.gguf");
    // Larger than one chunk of the upload.
    std::fs::write(&file, vec![7u8; (1 << 20) + 13]).unwrap();
    let model = Stub::of_file(&file);
    let other = "0".repeat(64);
    let peer = Scripted { models: [("llama3".to_owned(), other)].into(), ..Scripted::default() }.ollama().await;
    let s = setting(&model, &plan, &dir);
    let side = prepare::ollama(&s, SideRole::Peer, &peer.url).await.unwrap();
    let sha = suite_sha(&file);
    assert_eq!(side.model, format!("edgellm-{}", &sha[..12]));
    assert_eq!(peer.blobs()[&format!("sha256:{sha}")], (1 << 20) + 13);
    assert_eq!(peer.models()[&side.model], sha);
    // A second time nothing is uploaded: the model is found under its name.
    let again = prepare::ollama(&s, SideRole::Peer, &peer.url).await.unwrap();
    assert_eq!(again.model, format!("{}:latest", side.model));
}

fn suite_sha(file: &std::path::Path) -> String {
    bench_cli::suite::sha256_hex(&std::fs::read(file).unwrap())
}

#[tokio::test]
async fn an_ollama_that_shows_another_digest_than_was_uploaded_is_a_mismatch() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let file = dir.path().join("m.gguf");
    std::fs::write(&file, b"weights").unwrap();
    let model = Stub::of_file(&file);
    let peer = Scripted { claims: Some("f".repeat(64)), ..Scripted::default() }.ollama().await;
    let s = setting(&model, &plan, &dir);
    let side = prepare::ollama(&s, SideRole::Peer, &peer.url).await.unwrap();
    let ours = bench_cli::manifest::known::engine(
        &bench_cli::manifest::known::Asked { model: &model, context: 512, threads: 2, prompt_ids: "x" },
        "0",
        false,
        &EngineState { device: "cpu".into(), kv_type: "f16".into(), table_hash: "h".into(), counters: None },
    );
    let why = manifest::withhold(&manifest::compare(&ours, &side.shape)).unwrap();
    assert!(why.contains("weights digest") && why.contains("tokenizer"), "{why}");
}

#[tokio::test]
async fn a_peer_that_counts_prompt_tokens_otherwise_is_known_before_the_first_run() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let scripted = Scripted {
        models: [("mine".to_owned(), DIGEST.to_owned())].into(),
        ..Scripted::with(Fault::CountsPromptWrong, 0)
    };
    let peer = scripted.ollama().await;
    let model = Stub::with_digest(DIGEST);
    let side = prepare::ollama(&setting(&model, &plan, &dir), SideRole::Peer, &peer.url).await.unwrap();
    assert_eq!(side.shape[&Field::PromptIds].value.as_deref(), Some("other counts"));
}

#[tokio::test]
async fn an_openai_server_that_shows_nothing_leaves_parity_unknown() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let peer = Scripted::default().openai().await;
    let model = Stub::with_digest(DIGEST);
    let side = prepare::openai(&setting(&model, &plan, &dir), SideRole::Peer, &peer.url).await.unwrap();
    for field in [Field::WeightsDigest, Field::Context, Field::Threads, Field::PromptIds, Field::KvType] {
        assert!(side.shape[&field].value.is_none(), "{field:?}");
    }
    assert!(side.shape[&Field::WeightsDigest].how.contains("model_path"));
}

#[tokio::test]
async fn a_llama_server_on_this_machine_is_asked_by_its_process_and_its_threads_are_known_only_if_it_was_told() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let peer = Scripted::default().llama_server().await;
    let model = Stub::with_digest(DIGEST);
    let side = prepare::openai(&setting(&model, &plan, &dir), SideRole::Peer, &peer.url).await.unwrap();
    let field = |field| &side.shape[&field];
    // The process that listens is this test, which was started with no flag of llama-server.
    let own: Vec<String> = std::env::args().skip(1).collect();
    assert_eq!(field(Field::Flags).value, Some(own.join(" ")));
    let kv = field(Field::KvType);
    assert!(kv.value.as_deref() == Some("f16") && kv.how.contains("default f16"), "{kv:?}");
    let threads = field(Field::Threads);
    assert!(threads.value.is_none() && threads.how.contains("start the server with it"), "{threads:?}");
    assert_eq!((side.label.as_str(), side.threads), ("llama-server b1-0000000", None));
}

#[tokio::test]
async fn an_absent_peer_is_one_message_with_the_fix() {
    let (dir, plan) = (TempDir::new().unwrap(), plan(1, &[4]));
    let model = Stub::with_digest(DIGEST);
    let nobody = reqwest::Url::parse("http://127.0.0.1:1").unwrap();
    let s = setting(&model, &plan, &dir);
    let e = format!("{:#}", prepare::ollama(&s, SideRole::Peer, &nobody).await.unwrap_err());
    assert!(e.contains("no Ollama at") && e.contains("ollama serve"), "{e}");
    assert!(prepare::openai(&s, SideRole::Peer, &nobody).await.is_err());
}

#[tokio::test]
async fn the_record_is_what_the_published_schema_says() {
    let r = race(12, Scripted::default()).await;
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(r.dir.path().join("run.json")).unwrap()).unwrap();
    let schema = |name: &str| -> serde_json::Value {
        let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../reports/schema/{}"), name);
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))).unwrap()
    };
    let of_run = jsonschema::validator_for(&schema("run.schema.json")).unwrap();
    let errors: Vec<String> = of_run.iter_errors(&run).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let of_sample = jsonschema::validator_for(&schema("sample.schema.json")).unwrap();
    for sample in r.samples() {
        let v = serde_json::to_value(&sample).unwrap();
        assert!(of_sample.is_valid(&v), "{v}");
    }
}
