//! Everything beside the metrics: sides, manifest, memory, bandwidth, hygiene, machine, plan.

use std::collections::BTreeSet;

use harness_spec::record::{
    BlockTelemetry, Check, DeviceCounters, Environment, ManifestField, ManifestStatus, Measure, RunRecord, SideFacts,
    SideGpu, SideRole, Verdict,
};
use serde::Serialize;

use super::format;

/// A name with its value, and perhaps the reason for a missing one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    /// Name.
    pub name: String,
    /// Value, or a dash.
    pub value: String,
    /// Why there is no value, or what it rests on.
    pub why: String,
}

impl Fact {
    /// A known fact.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Fact {
        Fact { name: name.into(), value: value.into(), why: String::new() }
    }
}

/// One field of the parity manifest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ManifestRow {
    /// Name.
    pub name: String,
    /// Our side.
    pub engine: String,
    /// The peer.
    pub peer: String,
    /// `equal`, `mismatch`, `unknown` or `info`; also the CSS class.
    pub status: &'static str,
    /// How the peer's value is known.
    pub how: String,
}

/// A quantity of each side: the engine first, the peer if there is one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SideRow {
    /// Name with unit.
    pub name: String,
    /// One entry a side.
    pub values: Vec<SideValue>,
}

/// A side's value, or a dash and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SideValue {
    /// The value, or a dash.
    pub text: String,
    /// Why there is none.
    pub why: String,
}

impl From<Result<String, String>> for SideValue {
    fn from(shown: Result<String, String>) -> SideValue {
        match shown {
            Ok(text) => SideValue { text, why: String::new() },
            Err(why) => SideValue { text: format::NONE.to_owned(), why },
        }
    }
}

/// The side of a role, if it took part.
pub(crate) fn side(record: &RunRecord, role: SideRole) -> Option<&SideFacts> {
    record.sides.iter().find(|s| s.role == role)
}

/// Name of a side in tables and charts.
pub(crate) fn label(record: &RunRecord, role: SideRole) -> String {
    let plain = match role {
        SideRole::Engine => "engine",
        SideRole::Peer => "peer",
    };
    side(record, role).map_or_else(|| plain.to_owned(), |s| format::one_line(&s.label))
}

/// The line that says which peer it was.
pub(crate) fn peer_line(record: &RunRecord) -> String {
    let engine = label(record, SideRole::Engine);
    let Some(peer) = side(record, SideRole::Peer) else {
        return format!("{engine} alone, without a peer");
    };
    let at = format::one_line(&format::endpoint(&peer.endpoint));
    if peer.kind == "baseline" {
        return format!("{engine} against the embedded baseline at {at}: our engine on its plain kernels, not Ollama");
    }
    format!("{engine} against {} ({} at {at})", format::one_line(&peer.label), format::one_line(&peer.kind))
}

/// The verdict of the headline: withheld where the record gives a reason against one, whatever the metric came to.
pub(crate) fn headline_verdict(record: &RunRecord) -> Option<Verdict> {
    let headline = &record.headline;
    headline.verdict.map(|verdict| if headline.blocked.is_some() { Verdict::Withheld } else { verdict })
}

/// The manifest in the order of the record.
pub(crate) fn manifest(record: &RunRecord) -> Vec<ManifestRow> {
    record.manifest.iter().map(manifest_row).collect()
}

/// The manifest in a phrase, such as `14 equal, 1 unknown, 3 for information`.
pub(crate) fn manifest_summary(record: &RunRecord) -> String {
    let count = |status| record.manifest.iter().filter(|f| f.status == status).count();
    let parts = [
        (ManifestStatus::Equal, "equal"),
        (ManifestStatus::Mismatch, "differ"),
        (ManifestStatus::Unknown, "unknown"),
        (ManifestStatus::Info, "for information"),
    ];
    let told = parts.iter().map(|&(status, word)| (count(status), word)).filter(|&(n, _)| n > 0);
    told.map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}

/// Whether the field forbids a verdict unless it was allowed.
pub(crate) fn is_disputed(field: &ManifestField) -> bool {
    matches!(field.status, ManifestStatus::Mismatch | ManifestStatus::Unknown)
}

/// One manifest row.
pub(crate) fn manifest_row(field: &ManifestField) -> ManifestRow {
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| format::NONE.to_owned(), format::one_line);
    let status = match field.status {
        ManifestStatus::Equal => "equal",
        ManifestStatus::Mismatch => "mismatch",
        ManifestStatus::Unknown => "unknown",
        ManifestStatus::Info => "info",
    };
    ManifestRow {
        name: format::one_line(&field.name),
        engine: text(&field.engine),
        peer: text(&field.peer),
        status,
        how: format::one_line(&field.how),
    }
}

/// Memory and load of each side.
pub(crate) fn memory(record: &RunRecord) -> Vec<SideRow> {
    let file = record.model.file_bytes as f64;
    let mut rows = vec![
        side_row(record, "peak RSS", |s| format::measure(&s.rss_peak_bytes, format::bytes)),
        side_row(record, "peak RSS ÷ model file", |s| {
            format::measure(&s.rss_peak_bytes, |b| format!("{:.2} ×", b / file))
        }),
        side_row(record, "load time, ms", |s| format::measure(&s.load_ms, format::number)),
    ];
    if record.sides.iter().any(|s| s.gpu.is_some()) {
        rows.extend(gpu(record));
    }
    rows
}

/// What each side used of a GPU.
fn gpu(record: &RunRecord) -> Vec<SideRow> {
    let of = |name: &str, value: &dyn Fn(&SideGpu) -> Result<String, String>| {
        side_row(record, name, |s| s.gpu.as_ref().map_or_else(|| Err("no GPU is known of".to_owned()), value))
    };
    let maybe = |m: Option<&Measure>, show: fn(f64) -> String| match m {
        Some(m) => format::measure(m, show),
        None => Err("not recorded".to_owned()),
    };
    let counted = |name: &str, value: &dyn Fn(&DeviceCounters) -> f64| {
        of(name, &|gpu| match gpu.counters.filter(|c| c.generated > 0) {
            Some(c) => Ok(format::number(value(&c) / c.generated as f64)),
            None => Err("the server does not count".to_owned()),
        })
    };
    vec![
        of("GPU", &|gpu| Ok(format!("{}, {}", gpu.device, format::one_line(&gpu.name)))),
        of("driver", &|gpu| gpu.driver.clone().ok_or_else(|| "the management library is not there".to_owned())),
        of("GPU memory of the model", &|gpu| format::measure(&gpu.vram_bytes, format::bytes)),
        of("GPU memory needed, said beforehand", &|gpu| maybe(gpu.vram_need_bytes.as_ref(), format::bytes)),
        of("energy per token, J", &|gpu| format::measure(&gpu.energy_j_per_token, format::number)),
        of("the same less the idle board, J", &|gpu| maybe(gpu.energy_net_j_per_token.as_ref(), format::number)),
        counted("graph launches per token", &|c| c.graph_launches as f64),
        counted("bytes back per token", &|c| c.d2h_bytes as f64),
        counted("bytes sent per token", &|c| c.h2d_bytes as f64),
        counted("waits per token", &|c| c.syncs as f64),
    ]
}

/// Bandwidth of each side.
pub(crate) fn bandwidth(record: &RunRecord) -> Vec<SideRow> {
    vec![
        side_row(record, "achieved in decode, GB/s", |s| format::measure(&s.achieved_gb_per_s, format::number)),
        side_row(record, "bandwidth efficiency", |s| format::measure(&s.bandwidth_efficiency, format::percent)),
    ]
}

/// What the bandwidth figures rest on.
pub(crate) fn ceiling(record: &RunRecord) -> Vec<Fact> {
    let model = &record.model;
    let mut facts = vec![
        Fact::new("weight bytes per token", format!("{:.2} MB", model.weight_bytes_per_token as f64 / 1e6)),
        Fact::new("KV bytes per cached position", format!("{:.2} kB", model.kv_bytes_per_position as f64 / 1e3)),
    ];
    match &record.ceiling {
        Some(c) => {
            facts.push(Fact {
                name: "stream-read ceiling".to_owned(),
                value: format!("{} GB/s", format::number(c.read_gb_per_s)),
                why: format!(
                    "best of {} passes over {} {}, measured {} the runs",
                    c.passes_gb_per_s.len(),
                    format::bytes(c.working_set_bytes as f64),
                    match &c.device {
                        Some(device) => format!("on {}", format::one_line(device)),
                        None => format!("with {} threads", c.threads),
                    },
                    format::one_line(&c.when)
                ),
            });
            if !c.around.is_empty() {
                let reads = c.around.iter().flat_map(|r| [r.before_gb_per_s, r.after_gb_per_s]);
                let (low, high) = reads.fold((f64::MAX, 0.0), |(low, high), r| (r.min(low), r.max(high)));
                facts.push(Fact {
                    name: "stream read around the requests".to_owned(),
                    value: format!("{} to {} GB/s", format::number(low), format::number(high)),
                    why: "before and after each block; the efficiency of a request is its share of their mean"
                        .to_owned(),
                });
            }
            if model.weight_bytes_per_token > 0 {
                let bound = c.read_gb_per_s * 1e9 / model.weight_bytes_per_token as f64;
                facts.push(Fact {
                    name: "decode bound at that ceiling".to_owned(),
                    value: format!("{} tok/s", format::number(bound)),
                    why: "ceiling ÷ weight bytes per token, before any KV traffic".to_owned(),
                });
            }
        }
        None => facts.push(Fact {
            name: "stream-read ceiling".to_owned(),
            value: format::NONE.to_owned(),
            why: "not measured in this run".to_owned(),
        }),
    }
    facts
}

/// Findings that a reader must see: an efficiency above 100 % is an error of the model or of the ceiling.
pub(crate) fn findings(record: &RunRecord) -> Vec<String> {
    let above = |m: &Measure| m.value.is_some_and(|v| v > 1.0);
    let sides = record.sides.iter().filter(|s| above(&s.bandwidth_efficiency));
    sides
        .map(|s| {
            format!(
                "{} reads {} of the measured rate: the byte model or the rate is wrong, so this figure supports \
                 no verdict",
                format::one_line(&s.label),
                format::percent(s.bandwidth_efficiency.value.unwrap_or_default())
            )
        })
        .collect()
}

/// Rates by the servers' own durations.
pub(crate) fn server_reported(record: &RunRecord) -> Vec<SideRow> {
    let of = |role| record.server_reported.iter().find(|r| r.side == role);
    if record.server_reported.is_empty() {
        return Vec::new();
    }
    let row = |name: &str, pick: fn(&harness_spec::record::ServerReported) -> &Measure| SideRow {
        name: name.to_owned(),
        values: record
            .sides
            .iter()
            .map(|s| match of(s.role) {
                Some(r) => format::measure(pick(r), format::number).into(),
                None => Err("this server reports no durations".to_owned()).into(),
            })
            .collect(),
    };
    vec![row("decode, tok/s", |r| &r.decode_tok_per_s), row("prefill, tok/s", |r| &r.prefill_tok_per_s)]
}

/// A check as a line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckRow {
    /// What must hold.
    pub name: String,
    /// `ok`, `failed` or `unknown`; also the CSS class.
    pub state: &'static str,
    /// The figures.
    pub found: String,
}

/// What must hold of the run, in the order of the record.
pub(crate) fn checks(record: &RunRecord) -> Vec<CheckRow> {
    let row = |c: &Check| CheckRow {
        name: format::one_line(&c.name),
        state: match c.passed {
            Some(true) => "ok",
            Some(false) => "failed",
            None => "unknown",
        },
        found: format::one_line(&c.found),
    };
    record.checks.iter().map(row).collect()
}

/// What was kept and what was not.
pub(crate) fn hygiene(record: &RunRecord) -> Vec<Fact> {
    let h = &record.hygiene;
    let mut facts = Vec::new();
    if h.interrupted {
        facts.push(Fact::new("interrupted", "yes: the run was cut short, and what was measured is kept"));
    }
    let share = |n: u64| if h.pairs_planned == 0 { 0.0 } else { n as f64 / h.pairs_planned as f64 };
    let unit = if side(record, SideRole::Peer).is_some() { "pairs" } else { "runs" };
    facts.push(Fact::new(
        format!("{unit} in the statistics"),
        format!("{} of {} planned ({})", h.pairs_kept, h.pairs_planned, format::percent(share(h.pairs_kept))),
    ));
    facts.push(Fact::new("failed requests", h.failed_requests.to_string()));
    facts.extend(
        h.dropped
            .iter()
            .map(|(key, n)| Fact::new(format!("dropped runs: {}", format::drop_reason_named(key)), n.to_string())),
    );
    facts
}

/// The machine.
pub(crate) fn machine(env: &Environment) -> Vec<Fact> {
    let cpu = &env.cpu;
    let maybe = |v: Option<String>| v.unwrap_or_else(|| "unknown".to_owned());
    vec![
        Fact::new("processor", cpu.model.clone()),
        Fact::new(
            "threads",
            match cpu.threads_per_core {
                Some(n) => format!("{} usable, {n} a core", cpu.threads),
                None => format!("{} usable", cpu.threads),
            },
        ),
        Fact::new("instruction sets", cpu.isa.join(", ")),
        Fact::new("last-level cache", maybe(cpu.llc_bytes.map(|b| format::bytes(b as f64)))),
        Fact::new("governor", maybe(cpu.governor.clone())),
        Fact::new("virtualisation", cpu.virtualization.clone().unwrap_or_else(|| "none seen".to_owned())),
        Fact::new("memory", format::bytes(env.memory_bytes as f64)),
        Fact::new("system", format!("{} ({})", env.os, env.arch)),
        Fact::new("load average at the start", maybe(env.load1.map(|l| format!("{l:.2}")))),
        Fact::new("GPUs", if env.gpus.is_empty() { "none".to_owned() } else { env.gpus.join(", ") }),
    ]
}

/// What the telemetry between blocks saw, each as a range.
pub(crate) fn telemetry(record: &RunRecord) -> Vec<Fact> {
    let blocks = &record.telemetry;
    if blocks.is_empty() {
        return Vec::new();
    }
    let range = |name: &str, unit: &str, pick: fn(&BlockTelemetry) -> Option<&Measure>| {
        let seen: Vec<f64> = blocks.iter().filter_map(|b| pick(b)?.value).collect();
        let (lo, hi) = seen.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        if seen.is_empty() {
            let why = blocks.iter().find_map(|b| pick(b)?.reason.clone());
            return Fact {
                name: name.to_owned(),
                value: format::NONE.to_owned(),
                why: why.unwrap_or_else(|| "not read".to_owned()),
            };
        }
        let value = format!("{} to {} {unit}", format::number(lo), format::number(hi));
        Fact { name: name.to_owned(), value: value.trim_end().to_owned(), why: format!("before {} blocks", seen.len()) }
    };
    let mut facts = vec![
        range("core clock", "MHz", |b| Some(&b.cpu_mhz)),
        range("load average", "", |b| Some(&b.load1)),
        range("processor temperature", "°C", |b| Some(&b.temperature_c)),
    ];
    if blocks.iter().any(|b| b.gpu.is_some()) {
        facts.extend([
            range("GPU clock", "MHz", |b| b.gpu.as_ref().map(|g| &g.sm_mhz)),
            range("GPU memory clock", "MHz", |b| b.gpu.as_ref().map(|g| &g.memory_mhz)),
            range("GPU temperature", "°C", |b| b.gpu.as_ref().map(|g| &g.temperature_c)),
            range("GPU power", "W", |b| b.gpu.as_ref().map(|g| &g.power_w)),
            range("GPU memory in use", "bytes", |b| b.gpu.as_ref().map(|g| &g.memory_used_bytes)),
        ]);
        let throttled: BTreeSet<&str> = blocks.iter().filter_map(|b| b.gpu.as_ref()?.throttled.as_deref()).collect();
        let held = throttled.into_iter().collect::<Vec<_>>().join("; ");
        facts.push(Fact::new("GPU clocks held down", if held.is_empty() { "never".to_owned() } else { held }));
    }
    facts
}

/// How it was run.
pub(crate) fn plan(record: &RunRecord) -> Vec<Fact> {
    let (plan, suite) = (&record.plan, &record.suite);
    let lengths = suite.lengths.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut facts = vec![
        Fact::new("suite", format!("{}: {} prompts, lengths {lengths} tokens", suite.name, suite.prompts.len())),
        Fact::new("runs a side", plan.runs.to_string()),
        Fact::new("warm-up runs a side", plan.warmup.to_string()),
    ];
    if side(record, SideRole::Peer).is_some() {
        facts.push(Fact::new("order", format!("{} in blocks of at most {} runs", plan.order, plan.block_len)));
    }
    facts.push(Fact::new("seed", plan.seed.to_string()));
    if plan.device != "cpu" {
        facts.push(Fact::new("engine device", plan.device.clone()));
        facts.push(Fact::new("engine keys and values", plan.kv.clone()));
    }
    facts.push(Fact::new("engine threads", plan.threads.to_string()));
    facts.push(Fact::new("started", record.started.clone()));
    facts.push(Fact::new("wall time", format::wall(record.wall_ns.secs())));
    facts
}

/// The model file.
pub(crate) fn model(record: &RunRecord) -> Vec<Fact> {
    let m = &record.model;
    let tensors = m.tensors.iter().map(|(t, g)| format!("{} {t} ({})", g.count, format::bytes(g.bytes as f64)));
    vec![
        Fact::new("model", m.name.clone()),
        Fact::new("architecture", m.architecture.clone()),
        Fact::new("parameters", format::grouped(m.parameters)),
        Fact::new("file", format!("{} bytes ({})", format::grouped(m.file_bytes), format::bytes(m.file_bytes as f64))),
        Fact::new("SHA-256", m.sha256.clone()),
        Fact::new("tensors", tensors.collect::<Vec<_>>().join(", ")),
        Fact::new("layers", m.layers.to_string()),
        Fact::new("context", format!("{} tokens", m.context)),
    ]
}

/// The program that wrote the record.
pub(crate) fn tool(record: &RunRecord) -> String {
    let t = &record.tool;
    let dirty = match t.dirty {
        Some(true) => ", with uncommitted changes",
        Some(false) => "",
        None => ", state of the checkout unknown",
    };
    format!("bench {} at commit {}{dirty}, {} build", t.version, t.commit, t.profile)
}

/// The rows of `name` over the sides.
fn side_row(record: &RunRecord, name: &str, value: impl Fn(&SideFacts) -> Result<String, String>) -> SideRow {
    SideRow { name: name.to_owned(), values: record.sides.iter().map(|s| value(s).into()).collect() }
}
