//! One file a verb.

mod compare;
mod compile;
mod doctor;
mod e2e;
mod explain;
mod in_engine;
mod judge_engine;
mod kernel_report;
mod kernels;
mod list;
pub mod log;
pub mod measure;
mod profile_engine;
mod promote;
mod race_tables;
mod replay;
mod report;
mod selftest;
mod serve_engine;
mod sweep;
mod targets;
mod timing;
mod tune;
mod verify;
mod worker;

use crate::args::{Bench, Command};
use crate::exit::{Failure, Outcome};
use crate::plan::{ComparePlan, E2ePlan};

/// Runs what was asked for.
///
/// # Errors
/// [`Failure`] with its exit code.
pub fn dispatch(bench: Bench, command_line: Vec<String>) -> Outcome {
    match bench.command {
        Command::Doctor => doctor::run(bench.json),
        Command::List { what, kernels, op } => list::run(what, &kernels, &op, bench.json),
        Command::Verify(args) => verify::run(&args, bench.json, &command_line),
        Command::Sweep(args) => sweep::run(args, bench.json, command_line),
        Command::Tune(args) => tune::run(args, bench.json, command_line),
        Command::Promote(args) => promote::run(&args, bench.json),
        Command::RaceTables(args) => race_tables::run(&args),
        Command::Explain(args) => explain::run(&args, bench.json),
        Command::Log(args) => log::run(args, bench.json),
        Command::Worker(args) => worker::run(&args),
        Command::Report(args) => report::run(&args, bench.json, &command_line),
        Command::Targets(args) => targets::run(&args, bench.json),
        Command::Selftest(args) => selftest::run(&args, bench.json, &command_line),
        Command::Compile(args) => compile::run(args, bench.json),
        Command::ProfileEngine(args) => profile_engine::run(&args),
        Command::JudgeEngine(args) => judge_engine::run(&args),
        Command::ServeEngine(args) => serve_engine::run(args),
        Command::Compare(args) => {
            let plan = ComparePlan::try_from(args)?;
            runtime()?.block_on(compare::run(&plan, bench.json, command_line))
        }
        Command::E2e(args) => {
            let plan = E2ePlan::try_from(args)?;
            runtime()?.block_on(e2e::run(&plan, bench.json, command_line))
        }
    }
}

/// A runtime. One thread drives the client: it makes one request at a time, and more threads would only wake each other
/// on cores that the servers compute on.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failure::Unmeasured(anyhow::Error::new(e).context("starting the runtime")))
}

/// Prints JSON on stdout. A closed pipe ends the output, not the program with a panic.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print_text(&serde_json::to_string_pretty(value).map_err(anyhow::Error::new)?)
}

/// Prints data on stdout.
///
/// # Errors
/// Data that did not arrive, as on a full disk. A closed pipe is none: whoever reads may have enough before the end
/// (`| head`).
fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::Unmeasured(
            anyhow::Error::new(e).context("stdout could not be written\nhint: send it to a place with room"),
        )),
        _ => Ok(()),
    }
}
