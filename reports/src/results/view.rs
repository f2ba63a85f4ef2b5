//! What the page over many records shows, ready for its forms.

use std::path::{Component, Path, PathBuf};

use harness_measure::bandwidth::{bytes_per_token, read_rate};
use harness_measure::compare::ALL;
use harness_spec::record::{KernelRun, Measure, MetricId, RunKind, RunRecord, SelftestRun, SideFacts, SideRole};
use serde::Serialize;

use super::read::{Entry, Found, Record};
use crate::charts::{ChartOutcome, breakdown, depth};
use crate::error::ReportError;
use crate::kernels::{kernel_command, kernel_headline};
use crate::selftest::selftest_headline;
use crate::targets::{TargetOutcome, TargetStatus, Targets, target_status};
use crate::view::metrics::VerdictView;
use crate::view::{depths, facts, format};

/// The page.
#[derive(Debug)]
pub(super) struct View {
    /// Machines in the order in which records name them.
    pub machines: Vec<Machine>,
    /// Engine against peers, over all machines and models.
    pub duels: Vec<Duel>,
    /// Runs of kernels.
    pub kernels: Vec<KernelRow>,
    /// What the statistics made of numbers whose truth is known.
    pub selftests: Vec<KernelRow>,
    /// What has to hold; empty where these records have no figure of any of it.
    pub targets: Vec<TargetRow>,
    /// Records that are not on the page.
    pub left_out: Vec<String>,
    /// Records on it.
    pub records: usize,
}

/// A comparison with a peer.
#[derive(Debug, Serialize)]
pub(super) struct Duel {
    /// The machine.
    pub machine: String,
    /// The model.
    pub model: String,
    /// Our side's decode tok/s.
    pub ours: Figure,
    /// The peer's row.
    pub row: Row,
}

/// A machine with the models that were measured on it.
#[derive(Debug)]
pub(super) struct Machine {
    /// The device that our engine computed on.
    pub name: String,
    /// Its models.
    pub models: Vec<Model>,
}

/// A model on a machine.
#[derive(Debug)]
pub(super) struct Model {
    /// Name of the file.
    pub name: String,
    /// Size, weight types, digest.
    pub facts: String,
    /// Figures.
    pub rows: Vec<Row>,
    /// The records that they are from.
    pub sources: Vec<Source>,
    /// Depth curve and breakdown, as far as there are any.
    pub charts: Vec<ChartOutcome>,
}

/// A record of a model.
#[derive(Debug, Serialize)]
pub(super) struct Source {
    /// Its number on the page, within the model.
    pub number: usize,
    /// Where it lies.
    pub link: String,
    /// The name of its folder.
    pub name: String,
    /// When it was begun.
    pub date: String,
    /// The machine.
    pub machine: String,
    /// The command line.
    pub command: String,
    /// The program.
    pub tool: String,
    /// Checks that failed, and anything that forbids a verdict.
    pub troubles: Vec<String>,
}

/// Figures of one side in one group of runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Which source it is from.
    pub source: usize,
    /// Where that lies.
    pub link: String,
    /// What each figure's link says of it: command, machine, date.
    pub hover: String,
    /// What was run: a depth or a suite, and the length.
    pub what: String,
    /// The side.
    pub side: String,
    /// `engine` or `peer`; also the CSS class.
    pub role: &'static str,
    /// Decode tok/s with its interval.
    pub decode: Figure,
    /// Engine ÷ this peer with its interval; on the peer's row.
    pub ratio: Figure,
    /// What that came to.
    pub verdict: Option<VerdictView>,
    /// Prompt tok/s through TTFT.
    pub prompt: Figure,
    /// Prefill tok/s by the server's own clock.
    pub prefill: Figure,
    /// TTFT, ms.
    pub ttft: Figure,
    /// Median time from token to token, ms.
    pub itl_p50: Figure,
    /// 99th percentile, ms, and its ratio to the median.
    pub itl_p99: Figure,
    /// Joules a token.
    pub energy: Figure,
    /// Share of the read rate: of the reads around the requests where there are such, else of the best one.
    pub bandwidth: Figure,
}

/// A value with what stands beside it, or a dash and why.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// The value, or a dash.
    pub text: String,
    /// Its interval or a second value, or nothing.
    pub beside: String,
    /// Why there is none.
    pub why: String,
}

impl Figure {
    fn new(text: String, beside: String) -> Figure {
        Figure { text, beside, why: String::new() }
    }

    fn none(why: impl Into<String>) -> Figure {
        Figure { text: format::NONE.to_owned(), beside: String::new(), why: why.into() }
    }

    fn of(shown: Result<String, String>) -> Figure {
        shown.map_or_else(Figure::none, |text| Figure::new(text, String::new()))
    }

    fn of_measure(m: &Measure, show: fn(f64) -> String) -> Figure {
        Figure::of(format::measure(m, show))
    }
}

/// A run of kernels, or a selftest.
#[derive(Debug, Serialize)]
pub(super) struct KernelRow {
    /// Where it lies.
    pub link: String,
    /// The name of its folder.
    pub name: String,
    /// `verify`, `sweep`, `tune` or `selftest`.
    pub verb: &'static str,
    /// The device.
    pub device: String,
    /// The sentence that it came to.
    pub headline: String,
    /// When it was begun.
    pub date: String,
    /// The command line.
    pub command: String,
    /// Why it is suspect or not the whole answer; empty if neither.
    pub trouble: String,
}

/// A target and how it stands.
#[derive(Debug, Serialize)]
pub(super) struct TargetRow {
    /// In words.
    pub title: String,
    /// The device.
    pub device: String,
    /// What must be reached.
    pub floor: String,
    /// What is wanted.
    pub aim: String,
    /// What cannot be passed.
    pub ceiling: String,
    /// The figure.
    pub value: String,
    /// `met`, `missed by 3.2 %`, `no record`.
    pub outcome: String,
    /// The class of the pill.
    pub class: &'static str,
    /// Where the record lies; empty without one.
    pub link: String,
    /// What else a reader must know.
    pub note: String,
}

/// The records of one model on one machine.
type OfModel<'a> = Vec<(&'a Entry, &'a RunRecord)>;

/// Gathers the page that will lie in `out`.
pub(super) fn build(found: &Found, out: &Path, targets: &Targets) -> Result<View, ReportError> {
    let mut machines: Vec<(String, Vec<OfModel<'_>>)> = Vec::new();
    let (mut kernels, mut selftests) = (Vec::new(), Vec::new());
    for entry in &found.entries {
        match &entry.record {
            Record::Kernels(run) => kernels.push(kernel_row(entry, run, out)),
            Record::Selftest(run) => selftests.push(selftest_row(entry, run, out)),
            Record::Run(record) => {
                let name = machine(record);
                let at = machines.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
                    machines.push((name, Vec::new()));
                    machines.len() - 1
                });
                let models = &mut machines[at].1;
                match models.iter_mut().find(|of_one| of_one[0].1.model.sha256 == record.model.sha256) {
                    Some(of_one) => of_one.push((entry, record)),
                    None => models.push(vec![(entry, record)]),
                }
            }
        }
    }
    let machines = machines.into_iter().map(|(name, models)| {
        let models = models.iter().map(|records| model(records, out)).collect::<Result<_, _>>()?;
        Ok(Machine { name, models })
    });
    let machines = machines.collect::<Result<Vec<Machine>, ReportError>>()?;
    Ok(View {
        duels: machines.iter().flat_map(duels).collect(),
        machines,
        kernels,
        selftests,
        targets: target_rows(found, out, targets),
        left_out: found.left_out.clone(),
        records: found.entries.len(),
    })
}

/// The rows of peers, each with our own rate in the same runs, which stands on the row before.
fn duels(machine: &Machine) -> Vec<Duel> {
    let of_model = |model: &Model| -> Vec<Duel> {
        let pairs = model.rows.windows(2).filter(|pair| pair[1].role == "peer" && pair[0].source == pair[1].source);
        pairs
            .map(|pair| Duel {
                machine: machine.name.clone(),
                model: model.name.clone(),
                ours: pair[0].decode.clone(),
                row: pair[1].clone(),
            })
            .collect()
    };
    machine.models.iter().flat_map(of_model).collect()
}

/// The device that the run was about: the GPU where it had one, else processor and threads.
fn machine(record: &RunRecord) -> String {
    match record.sides.iter().find_map(|s| s.gpu.as_ref()) {
        Some(gpu) => {
            let driver = gpu.driver.as_ref().map_or_else(String::new, |d| format!(", driver {d}"));
            format::one_line(&format!("{}{driver}", gpu.name))
        }
        None => format::one_line(&format!("{}, {} threads", record.environment.cpu.model, record.plan.threads)),
    }
}

fn model(records: &[(&Entry, &RunRecord)], out: &Path) -> Result<Model, ReportError> {
    let (_, first) = records[0];
    let mut sources = Vec::new();
    let mut rows = Vec::new();
    let mut lines: Vec<depth::Series> = Vec::new();
    let mut charts = Vec::new();
    // Types of keys and values are told apart where there are several.
    let kvs = records.iter().any(|(_, r)| r.plan.kv != first.plan.kv);
    for (at, (entry, record)) in records.iter().enumerate() {
        let source = source(at + 1, entry, record, out);
        rows.extend(rows_of(record, &source));
        sources.push(source);
        for mut series in depth::series(record) {
            if kvs && series.role == SideRole::Engine {
                series.label = format!("{}, {} cache", series.label, record.plan.kv);
            }
            // A later record of the same side takes the place of an earlier one at the depths that both have.
            match lines.iter_mut().find(|s| s.label == series.label) {
                Some(known) => {
                    known.points.retain(|p| series.points.iter().all(|q| q.0 != p.0));
                    known.points.append(&mut series.points);
                    known.points.sort_by_key(|p| p.0);
                }
                None => lines.push(series),
            }
        }
    }
    let name = name(first);
    charts.extend(depth::draw_series(format!("{name}: decode speed by depth of context"), &lines)?);
    // The last record with a breakdown stands for the state of the engine.
    if let Some((_, record)) = records.iter().rev().find(|(_, r)| !r.breakdowns.is_empty()) {
        charts.extend(breakdown::draw(record)?);
    }
    let m = &first.model;
    let types = m.tensors.iter().map(|(t, g)| format!("{} {t}", g.count)).collect::<Vec<_>>().join(", ");
    let facts = format!(
        "{} parameters, {}, tensors: {types}; SHA-256 {}…",
        format::grouped(m.parameters),
        format::bytes(m.file_bytes as f64),
        m.sha256.chars().take(12).collect::<String>()
    );
    Ok(Model { name, facts, rows, sources, charts })
}

/// The name by which a model was asked for, without the folder of a file.
fn name(record: &RunRecord) -> String {
    let asked = format::one_line(&record.model.name);
    let file = Path::new(&asked).file_name().map_or(asked.clone(), |n| n.to_string_lossy().into_owned());
    file.strip_suffix(".gguf").map_or(file.clone(), str::to_owned)
}

fn source(number: usize, entry: &Entry, record: &RunRecord, out: &Path) -> Source {
    let failed = record.checks.iter().filter(|c| c.failed());
    let mut troubles: Vec<String> = failed.map(|c| format!("check failed: {}: {}", c.name, c.found)).collect();
    troubles.extend(record.headline.blocked.iter().map(|why| format!("no verdict: {why}")));
    if record.hygiene.interrupted {
        troubles.push("interrupted".to_owned());
    }
    Source {
        number,
        link: link(entry, out),
        name: folder_name(entry),
        date: minute(&record.started),
        machine: machine(record),
        command: format::command_line(&record.command),
        tool: facts::tool(record),
        troubles: troubles.iter().map(|t| format::one_line(t)).collect(),
    }
}

/// A time of RFC 3339 to the minute.
fn minute(time: &str) -> String {
    match time.get(..16).filter(|_| time.ends_with('Z')) {
        Some(minute) => format!("{} UTC", minute.replace('T', " ")),
        None => format::one_line(time),
    }
}

fn folder_name(entry: &Entry) -> String {
    entry.folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// The way from the folder `out` to an entry's page.
fn link(entry: &Entry, out: &Path) -> String {
    let (from, to) = (absolute(out), absolute(&entry.folder));
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let mut path: PathBuf = from.components().skip(shared).map(|_| Component::ParentDir).collect();
    path.extend(to.components().skip(shared));
    path.push(&entry.file);
    path.to_string_lossy().replace('\\', "/")
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The rows of a record: a group of each depth, or all runs, and in each the engine and the peer.
fn rows_of(record: &RunRecord, source: &Source) -> Vec<Row> {
    let lengths = record.suite.lengths.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut groups: Vec<(Option<u64>, &str, String)> = depths::groups(record)
        .into_iter()
        .map(|(depth, group)| {
            let length = group.rsplit_once('/').map_or(lengths.as_str(), |(_, length)| length);
            (Some(depth), group, format!("depth {}, {length} tokens", format::grouped(depth)))
        })
        .collect();
    if groups.is_empty() {
        groups.push((None, ALL, format!("suite {}, {lengths} tokens", record.suite.name)));
    }
    // The percentiles of runs of several lengths are those of each length: the longest stands for them.
    let longest = record.suite.lengths.iter().max().map_or_else(|| ALL.to_owned(), |l| format!("{ALL}/{l}"));
    let alone = groups.len() == 1;
    let mut rows = Vec::new();
    for (depth, group, what) in &groups {
        for side in &record.sides {
            let figures = Figures { record, side, group, fallback: &longest };
            rows.push(Row {
                source: source.number,
                link: source.link.clone(),
                hover: format!("{} · {} · {}", source.command, source.machine, source.date),
                what: match record.plan.kv.as_str() {
                    "f16" => what.clone(),
                    kv => format!("{what}, {kv} cache"),
                },
                side: format::one_line(&side.label),
                role: match side.role {
                    SideRole::Engine => "engine",
                    SideRole::Peer => "peer",
                },
                decode: figures.with_interval(MetricId::DecodeTokPerS),
                ratio: figures.ratio(),
                verdict: figures.verdict(),
                prompt: figures.plain(MetricId::PromptTokPerSThroughTtft),
                prefill: figures.prefill(alone),
                ttft: figures.plain(MetricId::TtftMs),
                itl_p50: figures.plain(MetricId::ItlP50Ms),
                itl_p99: figures.itl_p99(),
                energy: figures.energy(alone),
                bandwidth: figures.bandwidth(*depth),
            });
        }
    }
    rows
}

/// The figures of one side in one group.
struct Figures<'a> {
    record: &'a RunRecord,
    side: &'a SideFacts,
    group: &'a str,
    fallback: &'a str,
}

impl Figures<'_> {
    fn median(&self, id: MetricId) -> Option<f64> {
        let of = |group: &str| depths::estimate(self.record, self.side.role, id, group).map(|e| e.median);
        of(self.group).or_else(|| if self.group == ALL { of(self.fallback) } else { None })
    }

    fn why(&self, id: MetricId) -> String {
        let m = depths::metric(self.record, id, self.group);
        let side = m.and_then(|m| match self.side.role {
            SideRole::Engine => Some(&m.engine),
            SideRole::Peer => m.peer.as_ref(),
        });
        side.and_then(|s| s.reason.clone()).unwrap_or_else(|| "not in the record".to_owned())
    }

    fn plain(&self, id: MetricId) -> Figure {
        match self.median(id) {
            Some(v) => Figure::new(format::number(v), String::new()),
            None => Figure::none(self.why(id)),
        }
    }

    fn with_interval(&self, id: MetricId) -> Figure {
        match depths::estimate(self.record, self.side.role, id, self.group) {
            Some(e) => {
                let interval = e.ci95.map_or_else(String::new, |ci| format::interval(ci, e.median));
                Figure::new(format::number(e.median), interval)
            }
            None => Figure::none(self.why(id)),
        }
    }

    /// Engine ÷ peer stands on the peer's row.
    fn ratio(&self) -> Figure {
        if self.side.role == SideRole::Engine {
            return Figure::new(String::new(), String::new());
        }
        match depths::ratio(self.record, MetricId::DecodeTokPerS, self.group) {
            Some(r) => {
                let [lo, hi] = r.ci;
                Figure::new(format::ratio(r.ratio), format!("[{}, {}]", format::ratio(lo), format::ratio(hi)))
            }
            None if self.record.kind == RunKind::E2e => Figure::none("the record has one side"),
            None => Figure::none(self.why(MetricId::DecodeTokPerS)),
        }
    }

    fn verdict(&self) -> Option<VerdictView> {
        if self.side.role == SideRole::Engine {
            return None;
        }
        depths::metric(self.record, MetricId::DecodeTokPerS, self.group)?.verdict.map(VerdictView::from)
    }

    fn prefill(&self, alone: bool) -> Figure {
        if !alone {
            return Figure::none("the server's own rate is over all depths of the record");
        }
        let reported = self.record.server_reported.iter().find(|r| r.side == self.side.role);
        match reported {
            Some(r) => Figure::of_measure(&r.prefill_tok_per_s, format::number),
            None => Figure::none("this server reports no durations"),
        }
    }

    fn itl_p99(&self) -> Figure {
        match (self.median(MetricId::ItlP99Ms), self.median(MetricId::ItlP50Ms)) {
            (Some(p99), Some(p50)) => Figure::new(format::number(p99), format!("× {:.3}", p99 / p50)),
            (Some(p99), None) => Figure::new(format::number(p99), String::new()),
            (None, _) => Figure::none(self.why(MetricId::ItlP99Ms)),
        }
    }

    fn energy(&self, alone: bool) -> Figure {
        match &self.side.gpu {
            None => Figure::none("no GPU is known of"),
            Some(_) if !alone => Figure::none("the board's energy is over all depths of the record"),
            Some(gpu) => {
                let mut figure = Figure::of_measure(&gpu.energy_j_per_token, format::number);
                if let Some(net) = gpu.energy_net_j_per_token.as_ref().and_then(|m| m.value) {
                    figure.beside = format!("{} net", format::number(net));
                }
                figure
            }
        }
    }

    /// Of a depth by the bytes that a token moves there, else that of the whole record.
    fn bandwidth(&self, depth: Option<u64>) -> Figure {
        let Some(depth) = depth else { return Figure::of_measure(&self.side.bandwidth_efficiency, format::percent) };
        let rate = self.median(MetricId::DecodeTokPerS);
        let ceiling = self.record.ceiling.as_ref().map(read_rate);
        let generated = self.group.rsplit_once('/').and_then(|(_, length)| length.parse().ok());
        let generated = generated.or(self.record.suite.lengths.first().copied()).unwrap_or(0);
        match rate.zip(ceiling) {
            Some((rate, ceiling)) => {
                let bytes = bytes_per_token(&self.record.model, depth, generated);
                Figure::new(format::percent(bytes * rate / 1e9 / ceiling), String::new())
            }
            None => Figure::none("no decode rate or no ceiling"),
        }
    }
}

fn kernel_row(entry: &Entry, run: &KernelRun, out: &Path) -> KernelRow {
    let trouble = run.suspect.iter().chain(&run.incomplete).map(|t| format::one_line(t)).collect::<Vec<_>>();
    KernelRow {
        link: link(entry, out),
        name: folder_name(entry),
        verb: kernel_command(run.kind),
        device: format::one_line(&run.device.name),
        headline: kernel_headline(run),
        date: minute(&run.started),
        command: format::command_line(&run.command),
        trouble: trouble.join("; "),
    }
}

fn selftest_row(entry: &Entry, run: &SelftestRun, out: &Path) -> KernelRow {
    KernelRow {
        link: link(entry, out),
        name: folder_name(entry),
        verb: "selftest",
        device: run.device.as_ref().map_or_else(String::new, |d| format::one_line(&d.name)),
        headline: selftest_headline(run),
        date: minute(&run.started),
        command: format::command_line(&run.command),
        trouble: run.incomplete.as_deref().map(format::one_line).unwrap_or_default(),
    }
}

fn target_rows(found: &Found, out: &Path, targets: &Targets) -> Vec<TargetRow> {
    let all = target_status(targets, found);
    // A folder of somebody's own runs is not about the targets of this project.
    if all.iter().all(|s| s.outcome == TargetOutcome::NoRecord) {
        return Vec::new();
    }
    let row = |s: TargetStatus| {
        let t = &s.target;
        let shown = |v: Option<f64>| v.map_or_else(|| format::NONE.to_owned(), |v| t.metric.shown(v));
        TargetRow {
            floor: t.metric.shown(t.floor),
            aim: shown(t.aim),
            ceiling: shown(s.ceiling),
            value: shown(s.value),
            outcome: s.outcome_text(),
            class: match s.outcome {
                TargetOutcome::AimMet | TargetOutcome::Met => "faster",
                TargetOutcome::Missed => "slower",
                TargetOutcome::Unproven | TargetOutcome::NoRecord => "inconclusive",
            },
            link: s.entry.map_or_else(String::new, |at| link(&found.entries[at], out)),
            note: s.note.clone().unwrap_or_default(),
            title: t.title.clone(),
            device: t.device.clone(),
        }
    };
    all.into_iter().map(row).collect()
}
