//! The record as tables for a terminal of about 110 columns. Plain text: it is data, and it may be piped.

use harness_spec::record::{Provenance, RunRecord, SideRole};
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Rows};
use tabled::settings::{Modify, Style, Width};

use crate::view::breakdown::{self, BreakdownView};
use crate::view::facts::{self, Fact, SideRow};
use crate::view::metrics::{self, MetricRow};
use crate::view::{facts::ManifestRow, format};

/// Columns that text is wrapped to.
const WIDTH: usize = 110;

/// The record as a terminal shows it: which peer it was and the headline first, then tables.
pub fn terminal(record: &RunRecord) -> String {
    let mut blocks: Vec<String> = Vec::new();
    if record.provenance == Provenance::Simulated {
        blocks.push("SIMULATED: scripted peers, no measurement".to_owned());
    }
    blocks.push(head(record));

    let disputed: Vec<ManifestRow> =
        record.manifest.iter().filter(|f| facts::is_disputed(f)).map(facts::manifest_row).collect();
    if !record.manifest.is_empty() {
        let mut block = format!("Parity manifest: {}", facts::manifest_summary(record));
        if !disputed.is_empty() {
            block.push('\n');
            block.push_str(&manifest_table(record, &disputed));
        }
        blocks.push(block);
    }

    let rows = metrics::overall_rows(record);
    if !rows.is_empty() {
        blocks.push(format!(
            "Measured by the client\n{}{}",
            metric_table(record, &rows),
            footnotes(&rows, |row| &row.title)
        ));
        blocks.push(wrapped(&metrics::ratio_note(record)));
    }
    if let Some(table) = metrics::by_group(record).first() {
        let notes = footnotes(&table.rows, |row| &row.group);
        blocks.push(format!("{} by prompt and length\n{}{notes}", table.title, group_table(record, &table.rows)));
    }
    let reported = facts::server_reported(record);
    if !reported.is_empty() {
        blocks.push(format!("Reported by the servers themselves, not comparable\n{}", side_table(record, &reported)));
    }
    let used: Vec<SideRow> = facts::memory(record).into_iter().chain(facts::bandwidth(record)).collect();
    blocks.push(format!("Memory and bandwidth\n{}", side_table(record, &used)));
    blocks.push(fact_lines("", &facts::ceiling(record)));
    blocks.extend(facts::findings(record).iter().map(|f| wrapped(&format!("finding: {f}"))));
    blocks.extend(breakdown::views(record).iter().map(breakdown_block));
    let checks = facts::checks(record);
    if !checks.is_empty() {
        let line = |c: &facts::CheckRow| wrapped(&format!("{}: {}: {}", c.state, c.name, c.found));
        blocks.push(format!("Checks\n{}", checks.iter().map(line).collect::<Vec<_>>().join("\n")));
    }
    blocks.push(fact_lines("Hygiene\n", &facts::hygiene(record)));

    let noisy: Vec<String> = record
        .environment
        .noise
        .iter()
        .filter(|n| n.state == "warn")
        .map(|n| wrapped(&format::one_line(&format!("noise: {}: {}. {}", n.name, n.found, n.fix))))
        .collect();
    if !noisy.is_empty() {
        blocks.push(noisy.join("\n"));
    }
    blocks.retain(|b| !b.trim().is_empty());
    blocks.join("\n\n") + "\n"
}

/// Which peer, the headline, the verdict, and what a reader must know.
fn head(record: &RunRecord) -> String {
    let mut lines = vec![wrapped(&facts::peer_line(record)), wrapped(&format::one_line(&record.headline.text))];
    if let Some(verdict) = facts::headline_verdict(record) {
        lines.push(format!("verdict on decode tok/s: {}", format::verdict(verdict)));
    }
    if let Some(why) = &record.headline.blocked {
        lines.push(wrapped(&format!("no verdict: {}", format::one_line(why))));
    }
    if record.hygiene.interrupted {
        lines.push("interrupted: the run was cut short, and what was measured is kept".to_owned());
    }
    lines.extend(record.notes.iter().map(|n| wrapped(&format!("note: {}", format::one_line(n)))));
    lines.join("\n")
}

/// The steps of a token by op.
fn breakdown_block(b: &BreakdownView) -> String {
    let mut builder = Builder::default();
    builder.push_record(["op", "steps", "us each", "us", "share", "GB/s", "of ceiling"]);
    for r in &b.ops {
        let count = r.count.to_string();
        builder.push_record([&r.op, &count, &r.each, &r.total, &r.share, &r.rate, &r.of_ceiling]);
    }
    let title = format!("The steps of a token at a depth of {}\n", b.depth);
    format!("{}\n{}", fact_lines(&title, &b.facts), rendered(builder, 25))
}

/// The metrics over all runs.
fn metric_table(record: &RunRecord, rows: &[MetricRow]) -> String {
    let two_sided = facts::side(record, SideRole::Peer).is_some();
    let mut builder = Builder::default();
    let mut header = vec!["median [95 % CI]".to_owned(), facts::label(record, SideRole::Engine)];
    if two_sided {
        header.extend([facts::label(record, SideRole::Peer), "ratio [CI]".to_owned(), "verdict".to_owned()]);
    }
    builder.push_record(header);
    for row in rows {
        builder.push_record(cells(&row.title, row));
    }
    // The longest plain title has 25 columns; the ones with a length take two lines.
    rendered(builder, 25)
}

/// One metric over the groups.
fn group_table(record: &RunRecord, rows: &[MetricRow]) -> String {
    let two_sided = facts::side(record, SideRole::Peer).is_some();
    let mut builder = Builder::default();
    let mut header = vec!["prompt/tokens".to_owned(), facts::label(record, SideRole::Engine)];
    if two_sided {
        header.extend([facts::label(record, SideRole::Peer), "ratio [CI]".to_owned(), "verdict".to_owned()]);
    }
    builder.push_record(header);
    for row in rows {
        builder.push_record(cells(&format::shortened(&format::one_line(&row.group), 28), row));
    }
    rendered(builder, 28)
}

/// The cells of a metric under `title`.
fn cells(title: &str, row: &MetricRow) -> Vec<String> {
    let mut cells = vec![title.to_owned(), row.engine.line()];
    if let Some(peer) = &row.peer {
        cells.push(peer.line());
        cells.push(row.ratio.as_ref().map(|r| r.line()).unwrap_or_default());
        cells.push(row.verdict.as_ref().map(|v| format!("{} {}", v.sign, v.word)).unwrap_or_default());
    }
    cells
}

/// Notes and reasons below a table.
fn footnotes(rows: &[MetricRow], name: impl Fn(&MetricRow) -> &str) -> String {
    metrics::footnotes(rows, name).iter().map(|note| format!("\n{}", wrapped(&format::one_line(note)))).collect()
}

/// Quantities of the sides.
fn side_table(record: &RunRecord, rows: &[SideRow]) -> String {
    let mut builder = Builder::default();
    let labels = record.sides.iter().map(|s| format::one_line(&s.label));
    builder.push_record(std::iter::once(String::new()).chain(labels));
    for row in rows {
        let values = row.values.iter().map(|v| v.text.clone());
        builder.push_record(std::iter::once(row.name.clone()).chain(values));
    }
    let mut lines: Vec<String> = Vec::new();
    for row in rows {
        for why in row.values.iter().filter(|v| !v.why.is_empty()).map(|v| &v.why) {
            let line = wrapped(&format!("{}: {}", row.name, format::one_line(why)));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    let reasons: String = lines.iter().map(|l| format!("\n{l}")).collect();
    format!("{}{reasons}", rendered(builder, 30))
}

/// The disputed fields of the manifest.
fn manifest_table(record: &RunRecord, rows: &[ManifestRow]) -> String {
    let mut builder = Builder::default();
    let (engine, peer) = (facts::label(record, SideRole::Engine), facts::label(record, SideRole::Peer));
    builder.push_record(["field".to_owned(), engine, peer, "status".to_owned(), "how it is known".to_owned()]);
    for row in rows {
        builder.push_record([&row.name, &row.engine, &row.peer, row.status, &row.how]);
    }
    let mut table = builder.build();
    table.with(Style::rounded());
    for (column, width) in [(0, 18), (1, 22), (2, 22), (4, 30)] {
        table.with(Modify::new(Columns::one(column)).with(Width::wrap(width).keep_words(true)));
    }
    table.to_string()
}

/// Facts as lines of `name: value (why)`.
fn fact_lines(title: &str, facts: &[Fact]) -> String {
    let lines = facts.iter().map(|f| {
        let why = if f.why.is_empty() { String::new() } else { format!(" ({})", f.why) };
        wrapped(&format::one_line(&format!("{}: {}{why}", f.name, f.value)))
    });
    format!("{title}{}", lines.collect::<Vec<_>>().join("\n"))
}

/// The table with its frame; long names wrap instead of breaking it.
fn rendered(builder: Builder, first_column: usize) -> String {
    let mut table = builder.build();
    table
        .with(Style::rounded())
        .with(Modify::new(Columns::first()).with(Width::wrap(first_column).keep_words(true)))
        .with(Modify::new(Rows::first()).with(Width::wrap(26).keep_words(true)));
    table.to_string()
}

/// `text` with line breaks at words, at most [`WIDTH`] columns wide; what follows is indented.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let len = word.chars().count();
        if width > 0 && width + 1 + len > WIDTH {
            out.push_str("\n  ");
            width = 2;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += len;
    }
    out
}
