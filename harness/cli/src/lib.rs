//! The `bench` command: doctor, list, verify, sweep, tune, explain, compare, e2e, report, targets, selftest, log. The one
//! crate that wires all the others.
//!
//! It is a library so that scripted peers can drive a whole comparison inside a test; the program is `main.rs`.
//! Data goes to stdout, words for people to stderr.

pub mod args;
pub mod breakdown;
pub mod ceiling;
pub mod commands;
pub mod depth;
pub mod exit;
pub mod gpu_use;
pub mod grid;
pub mod interrupt;
pub mod kernel_plan;
pub mod kernel_suite;
pub mod machine;
pub mod manifest;
pub mod model;
pub mod peers;
pub mod places;
pub mod plan;
pub mod private;
pub mod progress;
pub mod quality;
pub mod record;
pub mod registry_spaces;
pub mod session;
pub mod suite;
pub mod tables;
pub mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use exit::{Exit, Failure};

/// Parses the command line, runs the command and maps everything that can happen to an exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    start_tracing();
    let parsed = match args::Bench::try_parse_from(&args) {
        Ok(parsed) => parsed,
        Err(e) => {
            // Help and version are answers, not errors; clap's own code 2 would read as inconclusive.
            let code = if e.use_stderr() { Exit::Usage } else { Exit::Done };
            // A closed pipe is no reason to fail.
            let _ = e.print();
            return code.into();
        }
    };
    // Where the binary lies is of this machine and of no interest to whoever repeats the command.
    let words = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned());
    let command_line: Vec<String> = std::iter::once("bench".to_owned()).chain(words).collect();
    // Rust would end a panic with 101, which is none of our codes.
    let outcome = std::panic::catch_unwind(|| commands::dispatch(parsed, command_line));
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => {
            eprintln!("error: {failure}");
            failure.exit().into()
        }
        Err(_) => {
            eprintln!("error: bench ended by a panic, which is a defect of bench; the message above says where");
            Exit::Unmeasured.into()
        }
    }
}

/// Diagnostics on stderr, off unless `BENCH_LOG` asks for them.
fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BENCH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    // A second call in one process, as in tests, finds a subscriber already and keeps it.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
