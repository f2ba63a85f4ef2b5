//! `bench worker`, hidden: a device behind lines of JSON, so that what a kernel breaks is not the run.

use crate::args::WorkerArgs;
use crate::exit::{Exit, Outcome};
use crate::target::{open, worker};

/// Serves until the parent is gone.
pub fn run(args: &WorkerArgs) -> Outcome {
    worker::serve(open::open(args))?;
    Ok(Exit::Done)
}
