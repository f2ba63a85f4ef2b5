//! Records in; terminal tables, Markdown, CSV, JSON schema, SVG charts and one self-contained HTML page out.
//!
//! Nothing here measures, and nothing here asks the network, the engine or the clock: a report is a function of
//! `run.json` and `samples.jsonl` alone, so [`rebuild`] gives the same bytes as [`write_run`] did.

mod charts;
mod csv;
mod error;
mod files;
mod html;
mod kernels;
mod markdown;
mod results;
mod run;
pub mod schema;
mod selftest;
mod series;
mod targets;
mod terminal;
mod view;

pub use charts::{Chart, ChartOutcome, draw_all};
pub use csv::{metrics_csv, samples_csv};
pub use error::ReportError;
pub use html::html;
pub use kernels::{
    LoadedKernelRun, draw_kernels, is_kernel_run, kernel_html, kernel_markdown, kernel_terminal, load_kernel_run,
    rebuild_kernel_run, rebuild_kernel_run_with, repeated, write_kernel_run, write_kernel_run_with,
};
pub use markdown::markdown;
pub use results::{ResultsPage, results_page};
pub use run::{
    LoadedRun, Rebuilt, SimulatedRecords, WrittenPaths, load_run, rebuild, rebuild_with, write_run, write_run_with,
};
pub use selftest::{
    is_selftest, rebuild_selftest, selftest_headline, selftest_html, selftest_markdown, selftest_terminal,
    write_selftest,
};
pub use targets::{
    Ceiling as TargetCeiling, Metric as TargetMetric, TARGETS_SCHEMA, Target, TargetError, TargetOutcome, TargetStatus,
    Targets, TargetsStand,
};
pub use terminal::terminal;
