//! The same as Markdown, for a forge that shows no HTML.

use std::fmt::Write;

use super::view::{Figure, Model, TargetRow, View};
use crate::markdown::escaped;
use crate::view::format;

/// The page.
pub(super) fn render(view: &View, command: &[String]) -> String {
    let mut out = format!(
        "# Results\n\n{} records, by machine and model; every row links to its record. Medians of client-side times at batch 1. \
         A ratio is our engine against the peer of its row, above 1 where ours is faster, with the interval of its verdict.\n",
        view.records
    );
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    targets(&view.targets, &mut line);
    for machine in &view.machines {
        line(format!("\n## {}", escaped(&machine.name)));
        for model in &machine.models {
            line(format!("\n### {}\n\n{}\n", escaped(&model.name), escaped(&model.facts)));
            table(model, &mut line);
        }
    }
    for (title, rows) in [("Kernels", &view.kernels), ("The harness itself", &view.selftests)] {
        if rows.is_empty() {
            continue;
        }
        line(format!("\n## {title}\n\n| record | verb | what came of it | date |\n|---|---|---|---|"));
        for k in rows {
            line(format!(
                "| [{}]({}) | {} | {} | {} |",
                escaped(&k.name),
                k.link,
                k.verb,
                escaped(&k.headline),
                k.date
            ));
        }
    }
    if !view.left_out.is_empty() {
        line("\n## Not shown\n".to_owned());
        view.left_out.iter().for_each(|l| line(format!("- {}", escaped(l))));
    }
    line(format!("\nMade of the records alone by `{}`.", format::command_line(command)));
    out
}

fn targets(rows: &[TargetRow], line: &mut impl FnMut(String)) {
    if rows.is_empty() {
        return;
    }
    line(
        "\n## Targets\n\nBy the newest record that has the figure; no target lies beyond its ceiling.\n\n| target | device | must \
         be | wanted | ceiling | is | | |\n|---|---|---|---|---|---|---|---|"
            .to_owned(),
    );
    for t in rows {
        let value = if t.link.is_empty() { t.value.clone() } else { format!("[{}]({})", t.value, t.link) };
        line(format!(
            "| {} | {} | {} | {} | {} | {value} | {} | {} |",
            escaped(&t.title),
            escaped(&t.device),
            t.floor,
            t.aim,
            t.ceiling,
            t.outcome,
            escaped(&t.note)
        ));
    }
}

fn table(model: &Model, line: &mut impl FnMut(String)) {
    line(
        "| run | side | decode tok/s | ratio | verdict | prompt tok/s through TTFT | TTFT ms | ITL p50 ms | ITL p99 ms | J a \
         token | of read rate |\n|---|---|---|---|---|---|---|---|---|---|---|"
            .to_owned(),
    );
    for r in &model.rows {
        let verdict = r.verdict.as_ref().map_or("", |v| v.word);
        let figures = [&r.prompt, &r.ttft, &r.itl_p50, &r.itl_p99, &r.energy, &r.bandwidth].map(text).join(" | ");
        line(format!(
            "| [{}]({}) | {} | {} | {} | {verdict} | {figures} |",
            escaped(&r.what),
            r.link,
            escaped(&r.side),
            text(&r.decode),
            text(&r.ratio)
        ));
    }
    line(String::new());
    for s in &model.sources {
        let troubles: String = s.troubles.iter().map(|t| format!("; **{}**", escaped(t))).collect();
        line(format!("- [{}]({}), {}: `{}`{troubles}", escaped(&s.name), s.link, s.date, s.command));
    }
}

fn text(f: &Figure) -> String {
    format!("{} {}", f.text, f.beside).trim().to_owned()
}
