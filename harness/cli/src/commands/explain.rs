//! `bench explain`: why the engine runs this variant for this op and shape (R23).

use crate::args::ExplainArgs;
use crate::exit::{Exit, Outcome};

/// `bench explain`.
pub fn run(_args: &ExplainArgs, _json: bool) -> Outcome {
    Ok(Exit::Done)
}
