//! The page as HTML: no script, no address of any network, links to records by relative paths.

use serde::Serialize;

use super::view::{Duel, KernelRow, Row, Source, TargetRow, View};
use crate::error::ReportError;
use crate::html::{Figure, STYLE, figure, render_page};
use crate::view::format;

const TEMPLATE: &str = include_str!("results.html");

#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    records: usize,
    duels: &'a [Duel],
    machines: Vec<Machine<'a>>,
    kernels: &'a [KernelRow],
    selftests: &'a [KernelRow],
    targets: &'a [TargetRow],
    left_out: &'a [String],
    command: String,
}

#[derive(Serialize)]
struct Machine<'a> {
    name: &'a str,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    facts: &'a str,
    rows: &'a [Row],
    sources: &'a [Source],
    figures: Vec<Figure>,
}

/// The page.
///
/// # Errors
/// [`ReportError::Render`].
pub(super) fn render(view: &View, command: &[String]) -> Result<String, ReportError> {
    let machines = view.machines.iter().map(|machine| Machine {
        name: &machine.name,
        models: machine
            .models
            .iter()
            .map(|m| Model {
                name: &m.name,
                facts: &m.facts,
                rows: &m.rows,
                sources: &m.sources,
                figures: m.charts.iter().filter_map(figure).collect(),
            })
            .collect(),
    });
    let page = Page {
        style: STYLE,
        records: view.records,
        duels: &view.duels,
        machines: machines.collect(),
        kernels: &view.kernels,
        selftests: &view.selftests,
        targets: &view.targets,
        left_out: &view.left_out,
        command: format::command_line(command),
    };
    render_page(TEMPLATE, &page)
}
