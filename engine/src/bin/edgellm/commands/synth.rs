//! `edgellm synth`: a GGUF with random weights at a real model's shapes.

use std::io::Write;

use engine::models::{Progress, TerminalProgress};
use engine::synth::{Scheme, Shape, SynthError, SynthOptions, write_file};

use super::binary;
use crate::args::SynthArgs;
use crate::exit::Failure;

pub fn run(args: &SynthArgs) -> Result<(), Failure> {
    let shape = Shape::find(&args.shape).map_err(failure)?;
    let scheme = Scheme::find(&args.quant).map_err(failure)?;
    let options = SynthOptions { scheme, layers: args.layers, seed: args.seed };
    let mut progress = TerminalProgress::new();
    let mut has_begun = false;
    let written = write_file(&args.output, &shape, &options, &mut |done, total| {
        if !std::mem::replace(&mut has_begun, true) {
            progress.begin("writing", Some(total), 0);
        }
        progress.reached(done);
    });
    progress.end();
    let bytes = written.map_err(failure)?;
    eprintln!("{} in {}: {}, with random weights", shape.name, scheme.name(), binary(bytes));
    writeln!(std::io::stdout(), "{}", args.output.display()).map_err(Failure::output)
}

/// A name that does not exist is wrong usage; a disk that is full is not.
fn failure(error: SynthError) -> Failure {
    match error {
        SynthError::UnknownShape { .. } | SynthError::UnknownScheme { .. } => Failure::Usage(error.to_string()),
        _ => error.into(),
    }
}
