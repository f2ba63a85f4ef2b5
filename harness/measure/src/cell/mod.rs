//! One cell, in order: build, check, warm up to a plateau, sample round-robin, stop (MEASURING.md §4–§6).

mod bimodal;
mod halt;
mod physics;
mod result;
mod sampler;
mod settings;
mod stop_rule;
mod warm_up;

pub use bimodal::bimodal;
pub use halt::{Halt, OUT_OF_TIME};
pub use physics::{Ceiling, IMPLAUSIBLE, Physics};
pub use result::{cell_result, competes};
pub use sampler::{Finished, Ghost, RoundRobin, Runner};
pub use settings::Settings;
pub use stop_rule::Evidence;
pub use warm_up::{burn_in, warm_up};
