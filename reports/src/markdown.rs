//! The comparison as Markdown, for READMEs and pull requests.

use std::fmt::Write;

use harness_spec::record::{Provenance, RunRecord, SideRole};

use crate::view::breakdown;
use crate::view::metrics::{self, MetricRow};
use crate::view::{facts, format};

/// The record as Markdown: headline, metrics, bandwidth and memory, what was dropped, and where it ran.
pub fn markdown(record: &RunRecord) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    if record.provenance == Provenance::Simulated {
        line("**Simulated: scripted peers, no measurement.**\n");
    }
    line(&format!("**{}**\n", escaped(&record.headline.text)));
    if let Some(why) = &record.headline.blocked {
        line(&format!("No verdict: {}.\n", escaped(why)));
    }
    line(&format!("{}.\n", escaped(&facts::peer_line(record))));
    for note in &record.notes {
        line(&format!("- {}", escaped(note)));
    }
    if !record.notes.is_empty() {
        line("");
    }

    let two_sided = facts::side(record, SideRole::Peer).is_some();
    let engine = escaped(&facts::label(record, SideRole::Engine));
    if two_sided {
        let peer = escaped(&facts::label(record, SideRole::Peer));
        line(&format!("| metric | {engine} | {peer} | ratio | verdict |\n|---|---|---|---|---|"));
    } else {
        line(&format!("| metric | {engine} |\n|---|---|"));
    }
    let rows = metrics::overall_rows(record);
    for row in &rows {
        line(&metric_line(row));
    }
    let notes = metrics::footnotes(&rows, |row| &row.title);
    if !notes.is_empty() {
        line("");
    }
    for note in notes {
        line(&format!("- {}", escaped(&note)));
    }
    let note = metrics::ratio_note(record);
    if !note.is_empty() {
        line(&format!("\n{note}"));
    }

    line(&format!("\n| |{}\n|---|{}", heads(record), "---|".repeat(record.sides.len())));
    for row in facts::memory(record).iter().chain(&facts::bandwidth(record)) {
        let values: String = row.values.iter().map(|v| format!(" {} |", escaped(&v.text))).collect();
        line(&format!("| {} |{values}", row.name));
    }
    for b in breakdown::views(record) {
        line(&format!(
            "\n| op at depth {} | steps | µs | share | GB/s | of ceiling |\n|---|---|---|---|---|---|",
            b.depth
        ));
        for r in &b.ops {
            let (op, count) = (escaped(&r.op), r.count);
            line(&format!("| {op} | {count} | {} | {} | {} | {} |", r.total, r.share, r.rate, r.of_ceiling));
        }
        line("");
        for fact in &b.facts {
            let why = if fact.why.is_empty() { String::new() } else { format!(" ({})", escaped(&fact.why)) };
            line(&format!("- {}: {}{why}", escaped(&fact.name), escaped(&fact.value)));
        }
    }
    line("");
    for check in facts::checks(record) {
        line(&format!("- check {}: {}: {}", check.state, escaped(&check.name), escaped(&check.found)));
    }
    for fact in facts::ceiling(record).iter().chain(&facts::hygiene(record)) {
        line(&format!("- {}: {}", escaped(&fact.name), escaped(&fact.value)));
    }
    for row in facts::manifest(record).iter().filter(|row| row.status == "mismatch" || row.status == "unknown") {
        let how = if row.how.is_empty() { String::new() } else { format!(" ({})", escaped(&row.how)) };
        let (name, engine, peer) = (escaped(&row.name), escaped(&row.engine), escaped(&row.peer));
        line(&format!("- parity, {name}: {engine} against {peer}, {}{how}", row.status));
    }
    let env = &record.environment;
    line(&format!(
        "\n{} on {}, {} threads, {}. {} ({}). Run {} of {}, {}.",
        escaped(&record.model.name),
        escaped(&env.cpu.model),
        record.plan.threads,
        escaped(&env.os),
        escaped(&record.suite.name),
        format::wall(record.wall_ns.secs()),
        escaped(&record.id),
        escaped(&record.started),
        escaped(&facts::tool(record)),
    ));
    out
}

/// One metric.
fn metric_line(row: &MetricRow) -> String {
    let mut cells = vec![row.title.clone(), row.engine.line()];
    if let Some(peer) = &row.peer {
        cells.push(peer.line());
        cells.push(row.ratio.as_ref().map(|r| r.line()).unwrap_or_default());
        cells.push(row.verdict.as_ref().map(|v| v.word.to_owned()).unwrap_or_default());
    }
    format!("| {} |", cells.join(" | "))
}

/// The sides as table headings.
fn heads(record: &RunRecord) -> String {
    record.sides.iter().map(|s| format!(" {} |", escaped(&s.label))).collect()
}

/// Text on one line in which nothing is markup.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in format::one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}
