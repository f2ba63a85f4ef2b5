//! `edgellm eval`: the engine against a reference, token by token.

use std::io::{IsTerminal, Write};

use engine::eval::{ReferenceFile, evaluate};

use super::{find_or_pull, load};
use crate::args::EvalArgs;
use crate::exit::Failure;

pub fn run(args: &EvalArgs) -> Result<(), Failure> {
    let reference = ReferenceFile::read(&args.reference)?;
    let entry = find_or_pull(&args.model)?;
    let mut engine = load(&entry, &args.load.options())?;
    let steps = reference.steps();
    let is_terminal = std::io::stderr().is_terminal();
    let report = evaluate(&mut engine, &reference, &mut |done| {
        if is_terminal && done % 16 == 0 {
            eprint!("\r{done}/{steps} tokens");
        }
    });
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    let report = report?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).expect("numbers have a JSON form"),
        false => report.to_string(),
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)
}
