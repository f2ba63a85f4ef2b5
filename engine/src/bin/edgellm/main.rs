//! `edgellm`: pull models, run them, serve them, look at them, and make synthetic ones.

mod args;
mod commands;
mod exit;
mod interrupt;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Verb};
use exit::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing can be said to a closed terminal.
            let _ = error.print();
            return if is_help { ExitCode::SUCCESS } else { exit::USAGE.into() };
        }
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("EDGELLM_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(cli.verb.default_log())),
        )
        .with_writer(std::io::stderr)
        .with_target(false);
    match cli.verb {
        Verb::Serve(_) => log.init(),
        // Read as they come, so that nobody asks when.
        _ => log.without_time().init(),
    }
    let done = match cli.verb {
        Verb::Pull(args) => commands::pull::run(&args),
        Verb::Run(args) => commands::run::run(&args),
        Verb::Serve(args) => commands::serve::run(&args),
        Verb::Models(args) => commands::models::run(&args),
        Verb::Info(args) => commands::info::run(&args),
        Verb::Synth(args) => commands::synth::run(&args),
        Verb::Eval(args) => commands::eval::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.code()
        }
    }
}

impl Failure {
    fn print(&self) {
        match self {
            // The reader of a pipe has enough; that is no failure to tell anybody about.
            Failure::OutputClosed | Failure::Interrupted => {}
            Failure::Usage(message) => eprintln!("edgellm: {message}"),
            Failure::CouldNot(error) => eprintln!("edgellm: {}", harness_spec::in_words(error.as_ref())),
        }
    }
}
