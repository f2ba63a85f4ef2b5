//! A made-up run, marked as simulated: scripted token times, judged and summarised by the real analysis. It exists so that
//! every form of a report can be tested and looked at without a server; no number in it was measured.

#![allow(dead_code)] // Each test file uses its own part.

use std::collections::BTreeMap;

use harness_measure::compare::{AnalysisOptions, analyse, describe_one_side};
use harness_spec::record::*;
use harness_spec::units::Nanos;

/// What to make up.
#[derive(Clone, Debug)]
pub struct Script {
    /// Runs a side.
    pub runs: u64,
    /// Engine speed ÷ peer speed.
    pub speedup: f64,
    /// Lengths asked for.
    pub lengths: Vec<u64>,
    /// Bootstrap resamples: few keep the tests quick.
    pub resamples: usize,
    /// Whether some runs fail or end early.
    pub mishaps: bool,
}

impl Default for Script {
    fn default() -> Script {
        Script { runs: 40, speedup: 1.18, lengths: vec![50, 200], resamples: 400, mishaps: true }
    }
}

/// Ids and texts of the prompts.
pub const PROMPTS: [(&str, &str); 4] = [
    ("relativity", "Explain the theory of relativity in simple terms:"),
    ("neural-networks", "Write a detailed explanation of how neural networks learn:"),
    ("photosynthesis", "Describe the process of photosynthesis step by step:"),
    ("python-javascript", "What are the main differences between Python and JavaScript?"),
];

/// A linear congruential generator: the same numbers everywhere and for ever.
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, σ 1.
    fn bell(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The samples of a script, in ABBA blocks of ten.
pub fn samples(script: &Script) -> Vec<Sample> {
    let mut noise = Noise(7);
    let mut samples = Vec::new();
    let mut clock = 0;
    let blocks = script.runs.div_ceil(10);
    for block in 0..blocks {
        let pairs = block * 10..script.runs.min(block * 10 + 10);
        let order =
            if block % 2 == 0 { [SideRole::Engine, SideRole::Peer] } else { [SideRole::Peer, SideRole::Engine] };
        for (turn, side) in order.into_iter().enumerate() {
            for pair in pairs.clone() {
                let seq = samples.len() as u64;
                let made = sample(script, &mut noise, seq, pair, block * 2 + turn as u64, side, &mut clock);
                samples.push(made);
            }
        }
    }
    samples
}

fn sample(
    script: &Script,
    noise: &mut Noise,
    seq: u64,
    pair: u64,
    block: u64,
    side: SideRole,
    clock: &mut u64,
) -> Sample {
    let prompt = PROMPTS[pair as usize % PROMPTS.len()];
    let asked = script.lengths[(pair as usize / PROMPTS.len()) % script.lengths.len()];
    let speed = if side == SideRole::Engine { script.speedup } else { 1.0 };
    let slow = 1.0 + 0.012 * noise.bell() + 0.02 * (seq as f64 / 40.0).sin();
    let submit = *clock + 3_000_000;
    let mut at = submit + (21e6 / speed.powf(1.4) * (1.0 + 0.05 * noise.bell().abs()) * slow) as u64;
    let mut token_ns = vec![Nanos(at)];
    for depth in 1..asked {
        let stall = if noise.unit() > 0.994 { 2.6 } else { 1.0 };
        let itl = 6.4e6 / speed * slow * (1.0 + 0.0004 * depth as f64) * (1.0 + 0.02 * noise.bell()) * stall;
        at += itl.max(1000.0) as u64;
        token_ns.push(Nanos(at));
    }
    *clock = at + 400_000;
    let mut made = Sample {
        seq,
        pair,
        block,
        side,
        prompt: prompt.0.into(),
        asked_tokens: asked,
        nonce: format!("{:08}", pair * 7919),
        submit_ns: Nanos(submit),
        end_ns: Nanos(at + 200_000),
        generated_tokens: asked,
        token_ns,
        one_token_per_chunk: true,
        prompt_tokens: 41,
        text: format!("A made-up answer to \"{}\"\nwith a second line & <b>markup</b>.", prompt.1),
        status: SampleStatus::Length,
        server: Some(ServerTimings {
            prompt_tokens: Some(41),
            cached_tokens: Some(0),
            prompt_ns: Some(Nanos((18e6 / speed) as u64)),
            eval_tokens: Some(asked),
            eval_ns: Some(Nanos((6.3e6 / speed * slow * asked as f64) as u64)),
            load_ns: Some(Nanos(0)),
        }),
        dropped: None,
        rss_bytes: Some(if side == SideRole::Engine { 131_000_000 } else { 402_000_000 }),
    };
    if script.mishaps && side == SideRole::Peer && pair == 7 {
        made.status =
            SampleStatus::Failed { error: "connection to http://127.0.0.1:11434 was cut <mid-stream>".into() };
        made.token_ns.truncate(11);
        made.generated_tokens = 11;
    }
    made
}

/// A comparison with its samples.
pub fn compare(script: &Script) -> (RunRecord, Vec<Sample>) {
    let samples = samples(script);
    let options = AnalysisOptions { resamples: script.resamples, ..AnalysisOptions::new(11, script.runs) };
    let analysis = analyse(&samples, &options);
    let decode = |side: fn(&MetricComparison) -> Option<&SideSummary>| {
        let all = analysis.metrics.iter().find(|m| m.id == MetricId::DecodeTokPerS && m.group == "all");
        all.and_then(side).and_then(|s| s.estimate.as_ref()).map(|e| e.median)
    };
    let (engine, peer) = (decode(|m| Some(&m.engine)), decode(|m| m.peer.as_ref()));
    let mut record = blank(script);
    record.sides = vec![side(SideRole::Engine, engine), side(SideRole::Peer, peer)];
    record.manifest = manifest();
    record.metrics = analysis.metrics;
    record.server_reported = analysis.server_reported;
    record.hygiene = analysis.hygiene;
    record.notes = analysis.notes;
    let word = match analysis.verdict {
        Some(Verdict::Faster) => "faster than",
        Some(Verdict::Slower) => "slower than",
        _ => "not told apart from",
    };
    record.headline = Headline {
        text: format!(
            "edgellm decodes {:.1} tok/s against {:.1}: {word} Ollama 0.20.7 on SmolLM2-135M-Instruct Q4_1",
            engine.unwrap_or_default(),
            peer.unwrap_or_default()
        ),
        verdict: analysis.verdict,
        blocked: analysis.blocked,
    };
    (record, samples)
}

/// The engine alone.
pub fn one_sided(script: &Script) -> (RunRecord, Vec<Sample>) {
    let mut samples = samples(&Script { mishaps: false, ..script.clone() });
    samples.retain(|s| s.side == SideRole::Engine);
    let options = AnalysisOptions { resamples: script.resamples, ..AnalysisOptions::new(11, script.runs) };
    let analysis = describe_one_side(&samples, SideRole::Engine, &options);
    let mut record = blank(script);
    record.kind = RunKind::E2e;
    record.command = ["bench", "e2e", "--runs", "40"].map(str::to_owned).to_vec();
    record.sides = vec![side(SideRole::Engine, Some(180.0))];
    record.metrics = analysis.metrics;
    record.server_reported = analysis.server_reported;
    record.hygiene = analysis.hygiene;
    record.headline = Headline { text: "edgellm decodes 180 tok/s".into(), verdict: None, blocked: None };
    (record, samples)
}

/// A comparison that Ctrl-C cut after `kept` samples; the last one is cut itself.
pub fn interrupted(script: &Script, kept: usize) -> (RunRecord, Vec<Sample>) {
    let (mut record, mut samples) = compare(script);
    samples.truncate(kept);
    if let Some(last) = samples.last_mut() {
        last.status = SampleStatus::Interrupted;
        last.token_ns.truncate(5);
        last.generated_tokens = 5;
    }
    let options =
        AnalysisOptions { resamples: script.resamples, interrupted: true, ..AnalysisOptions::new(11, script.runs) };
    let analysis = analyse(&samples, &options);
    record.metrics = analysis.metrics;
    record.hygiene = analysis.hygiene;
    record.headline.verdict = analysis.verdict;
    record.headline.blocked = Some("the run was interrupted".into());
    (record, samples)
}

fn blank(script: &Script) -> RunRecord {
    RunRecord {
        schema: SCHEMA_VERSION,
        kind: RunKind::Compare,
        provenance: Provenance::Simulated,
        id: "fabricated-0001".into(),
        started: "2026-01-02T03:04:05Z".into(),
        wall_ns: Nanos(1_234_567_890_123),
        command: ["bench", "compare", "--runs", &script.runs.to_string(), "--against", "ollama"]
            .map(str::to_owned)
            .to_vec(),
        tool: ToolFacts {
            version: "0.1.0".into(),
            commit: "0123456789ab".into(),
            dirty: Some(false),
            profile: "release".into(),
        },
        environment: environment(),
        model: model(),
        suite: SuiteFacts {
            name: "protocol".into(),
            prompts: PROMPTS
                .iter()
                .map(|(id, text)| PromptFacts {
                    id: (*id).into(),
                    text: (*text).into(),
                    sha256: format!("{:064x}", text.len() * 7_777_777),
                    token_ids: (0..text.len() as u32 / 5).collect(),
                    depth: None,
                })
                .collect(),
            lengths: script.lengths.clone(),
        },
        plan: Plan {
            runs: script.runs,
            block_len: 10,
            order: "ABBA".into(),
            warmup: 2,
            seed: 11,
            threads: 2,
            device: "cpu".into(),
            kv: "f16".into(),
        },
        sides: Vec::new(),
        manifest: Vec::new(),
        ceiling: Some(Ceiling {
            read_gb_per_s: 24.318,
            working_set_bytes: 98_000_000,
            threads: 2,
            device: None,
            passes_gb_per_s: vec![22.9, 23.7, 24.318, 24.1, 23.2, 24.2],
            when: "before and after".into(),
            around: vec![ReadAround { block: 0, before_gb_per_s: 23.7, after_gb_per_s: 24.1 }],
        }),
        metrics: Vec::new(),
        server_reported: Vec::new(),
        hygiene: Hygiene::default(),
        telemetry: (0..script.runs.div_ceil(10) * 2).map(telemetry).collect(),
        breakdowns: Vec::new(),
        checks: Vec::new(),
        quality: None,
        headline: Headline { text: String::new(), verdict: None, blocked: None },
        notes: Vec::new(),
    }
}

fn telemetry(block: u64) -> BlockTelemetry {
    BlockTelemetry {
        block,
        side: if block.is_multiple_of(2) { SideRole::Engine } else { SideRole::Peer },
        at_ns: Nanos(block * 9_000_000_000),
        cpu_mhz: Measure::measured(2890.0 + block as f64),
        load1: Measure::measured(1.9),
        temperature_c: Measure::missing("no sensor is readable in this virtual machine"),
        gpu: None,
    }
}

fn environment() -> Environment {
    let noise = |name: &str, state: &str, found: &str, fix: &str| NoiseSource {
        name: name.into(),
        state: state.into(),
        found: found.into(),
        fix: fix.into(),
    };
    Environment {
        os: "Linux 6.1.0".into(),
        arch: "x86_64".into(),
        cpu: CpuFacts {
            model: "Example Xeon Processor @ 2.90GHz".into(),
            threads: 2,
            threads_per_core: Some(2),
            isa: vec!["avx2".into(), "avx512vnni".into()],
            llc_bytes: Some(34_603_008),
            governor: None,
            virtualization: Some("kvm".into()),
        },
        memory_bytes: 25_769_803_776,
        load1: Some(0.42),
        gpus: Vec::new(),
        noise: vec![
            noise("virtual machine", "warn", "kvm: other guests share the host", "measure on bare metal if you can"),
            noise("governor", "unknown", "cpufreq is not visible", "set it on the host to performance"),
            noise("load", "ok", "0.42 over one minute", ""),
        ],
    }
}

fn model() -> ModelFacts {
    let group = |count, bytes| TensorGroup { count, bytes };
    ModelFacts {
        name: "smollm2:135m".into(),
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".into(),
        file_bytes: 98_362_432,
        architecture: "llama".into(),
        parameters: 134_515_008,
        tensors: BTreeMap::from([
            ("F32".into(), group(61, 140_544)),
            ("Q4_1".into(), group(210, 66_355_200)),
            ("Q8_0".into(), group(1, 30_081_024)),
        ]),
        weight_bytes_per_token: 96_576_768,
        kv_bytes_per_position: 23_040,
        layers: 30,
        context: 2048,
    }
}

fn side(role: SideRole, decode: Option<f64>) -> SideFacts {
    let traffic = decode.map(|rate| rate * 98.9e6 / 1e9);
    let derived = |v: Option<f64>| v.map_or_else(|| Measure::missing("no run completed"), Measure::derived);
    let engine = role == SideRole::Engine;
    let text = |a: &str, b: &str| if engine { a.to_owned() } else { b.to_owned() };
    SideFacts {
        role,
        kind: text("edgellm", "ollama"),
        label: text("edgellm 0.1.0", "Ollama 0.20.7"),
        endpoint: text("http://127.0.0.1:40123", "http://127.0.0.1:11434"),
        version: Some(text("0.1.0", "0.20.7")),
        model: text("smollm2:135m", "edgellm-bench-b179c9523d0e"),
        threads: engine.then_some(2),
        options: BTreeMap::from([("temperature".into(), "0".into()), ("num_ctx".into(), "2048".into())]),
        load_ms: if engine { Measure::measured(181.4) } else { Measure::missing("the peer was loaded before the run") },
        rss_peak_bytes: Measure::measured(if engine { 131e6 } else { 402e6 }),
        bandwidth_efficiency: derived(traffic.map(|t| t / 24.318)),
        achieved_gb_per_s: derived(traffic),
        gpu: None,
    }
}

fn manifest() -> Vec<ManifestField> {
    let field = |name: &str, engine: &str, peer: Option<&str>, status, how: &str| ManifestField {
        name: name.into(),
        engine: Some(engine.into()),
        peer: peer.map(str::to_owned),
        status,
        how: how.into(),
    };
    let digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    use ManifestStatus::{Equal, Info, Unknown};
    vec![
        field("weights digest", digest, Some(digest), Equal, "/api/show, FROM line of the modelfile"),
        field("tensor types", "F32 61, Q4_1 210, Q8_0 1", Some("F32 61, Q4_1 210, Q8_0 1"), Equal, "same file"),
        field("context length", "2048", Some("2048"), Equal, "sent with every request"),
        field("KV type", "F16", Some("f16"), Equal, "default of this version"),
        field("temperature", "0", Some("0"), Equal, "sent with every request"),
        field("prompt ids", "sha256 51ab…", Some("sha256 51ab…"), Equal, "raw mode, same text"),
        field("flash attention", "n/a", None, Unknown, "the peer does not say"),
        field("threads", "2", Some("2"), Equal, "sent with every request"),
        field("version", "0.1.0", Some("0.20.7"), Info, "/api/version"),
    ]
}
