//! A scripted device: times, clocks, noise, failures and cheats are known beforehand, so that every rule of measuring is
//! tested without a GPU (MEASURING.md §1).
//!
//! It is read from a TOML script ([`Script`]) or built in a test. Everything it says is a function of its seed, the cell,
//! the phase and the number of the sample in that phase, never of what happened before: a run that is killed and starts
//! again sees the samples of one that was not. The one exception is [`Noise::Drifting`], which follows the clock.

mod device;
mod glob;
mod noise;
mod script;
mod sides;
mod speed;

pub use device::{Fake, Tally};
pub use noise::Noise;
pub use script::{Cheat, Clocks, Device, Failure, Rule, Script, ScriptError};
pub use sides::{SideScript, play_sides};
