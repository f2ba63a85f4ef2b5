//! `bench`: see [`bench_cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bench_cli::main(std::env::args_os().collect())
}
