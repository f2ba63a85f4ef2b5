//! A run of kernels for a terminal.

use harness_spec::record::{KernelRun, KernelRunKind};
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::{fusion, view};
use crate::view::format::{one_line, shortened};

/// Failures that are listed; the rest is counted.
const MOST_FAILURES: usize = 20;
/// Characters of a failure's message that are shown.
const MOST_MESSAGE: usize = 160;

/// The headline, each workload's ranking, what failed and what it cost.
pub fn kernel_terminal(run: &KernelRun) -> String {
    let mut out = format!("{}\n", view::headline(run));
    if let Some(why) = &run.suspect {
        out += &format!("suspect: {why}\n");
    }
    if let Some(incomplete) = view::incomplete(run) {
        out += &format!("incomplete: {}\n", incomplete.summary);
    }
    for w in view::workloads(run) {
        out += &format!("\n{}  {}  floor {}\n{}\n", w.title, w.policy, w.floor, w.numbered_reason);
        if !w.library.is_empty() {
            out += &format!("library: {}\n", w.library);
        }
        if !w.incomplete.is_empty() {
            out += &format!("incomplete: {}\n", w.incomplete);
        }
        let mut table = Builder::default();
        table.push_record(["#", "variant", "µs", "95 %", "GB/s", "of floor", "vs best", "MHz", ""]);
        for r in &w.rows {
            table.push_record([
                &r.rank.to_string(),
                &r.variant,
                &r.time,
                &r.interval,
                &r.rate,
                &r.of_floor,
                &r.against_best,
                &r.clock,
                &r.marks,
            ]);
        }
        if !w.rows.is_empty() {
            let mut table = table.build();
            table.with(Style::blank());
            for column in [0, 2, 4, 5, 6, 7] {
                table.modify(Columns::one(column), Alignment::right());
            }
            out += &format!("{table}\n");
        }
        if w.more > 0 {
            out += &format!("and {} more in run.json\n", w.more);
        }
        for d in &w.run_off {
            out += &format!(
                "run-off: {} against {}: {} {}, {} ({} pairs, {})\n",
                d.challenger, d.defender, d.ratio, d.interval, d.verdict, d.pairs, d.order
            );
        }
        if !w.search.is_empty() {
            out += &format!("search: {}\n", w.search);
        }
    }
    let fusions = fusion::fusions(run);
    if !fusions.is_empty() {
        out += &format!("\nnorm and product in one launch, against {}\n", fusion::APART);
    }
    for f in fusions {
        out += &format!("\n{}  {}  apart: {}\n", f.title, f.policy, f.apart);
        let mut table = Builder::default();
        table.push_record(["variant", "µs", "vs apart", ""]);
        for r in &f.rows {
            table.push_record([&r.variant, &r.time, &r.against_apart, &r.repeated]);
        }
        let mut table = table.build();
        table.with(Style::blank());
        for column in [1, 2] {
            table.modify(Columns::one(column), Alignment::right());
        }
        out += &format!("{table}\n");
    }
    let failures = view::failures(run);
    if !failures.is_empty() {
        out += &format!("\n{} without a valid result:\n", failures.len());
        for f in failures.iter().take(MOST_FAILURES) {
            let message = shortened(&one_line(&f.message), MOST_MESSAGE);
            out += &format!("  {}  {}  {}: {message}\n", f.variant, f.workload, f.stage);
        }
        if failures.len() > MOST_FAILURES {
            out += &format!("  and {} more in run.json\n", failures.len() - MOST_FAILURES);
        }
    }
    if run.kind != KernelRunKind::Verify {
        out.push('\n');
        for account in &run.accounts {
            out += &format!("{}\n", view::account_line(account));
        }
    }
    out += &format!("{}\n", view::cost_line(run));
    for note in &run.notes {
        out += &format!("note: {note}\n");
    }
    out
}
