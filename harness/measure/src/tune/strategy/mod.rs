//! Search strategies: each is asked for the next candidates and sees what became of the earlier ones (R16).
//!
//! A strategy is deterministic: the same seed and the same answers give the same questions, which is what lets a killed
//! run resume from its journal alone.

mod exhaustive;
mod guided;
mod halving;
mod lattice;
mod local;
mod outlook;
mod random;
mod roofline;
mod surrogate;
mod triangle;

use std::fmt;
use std::str::FromStr;

use super::plan::Candidate;

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// Its median time, ns.
    Time(f64),
    /// A median of a cheap look: enough to drop a candidate, not to choose one.
    Glimpse(f64),
    /// It has no valid time and never will.
    Invalid,
}

impl Known {
    /// The full measurement, if it is one.
    pub fn time(self) -> Option<f64> {
        match self {
            Known::Time(ns) => Some(ns),
            Known::Glimpse(_) | Known::Invalid => None,
        }
    }
}

/// What a strategy may look at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The space.
    pub candidates: &'a [Candidate],
    /// What is known of each; `None` was never asked for.
    pub known: &'a [Option<Known>],
    /// Evaluations that may still be asked for.
    pub left: usize,
}

impl Seen<'_> {
    /// The least full time so far, with its candidate.
    pub fn best(&self) -> Option<(usize, f64)> {
        let times = self.known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?.time()?)));
        times.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Candidates that nothing is known of, in order.
    pub fn unknown(&self) -> impl Iterator<Item = usize> + '_ {
        self.known.iter().enumerate().filter(|(_, k)| k.is_none()).map(|(i, _)| i)
    }
}

/// What a strategy wants next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Candidates to evaluate together; an empty batch ends the search.
    pub batch: Vec<usize>,
    /// End each after so many kept samples; `None` is a full measurement.
    pub look: Option<u32>,
    /// Candidates that will probably be asked for next, so that they may be built meanwhile.
    pub soon: Vec<usize>,
}

/// A way through a space.
pub trait Strategy {
    /// The next candidates. None of them may be known already, but for a [`Known::Glimpse`].
    fn ask(&mut self, seen: &Seen<'_>) -> Ask;
}

/// The strategies by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StrategyKind {
    /// Everything, in order.
    Exhaustive,
    /// A random sample without repetition.
    Random,
    /// Greedy descent over neighbours, with restarts.
    Local,
    /// Cheap looks at many, the better half goes on.
    Halving,
    /// In the order of the roofline model.
    Roofline,
    /// A spread over all kernels; then neighbours of the best of every kernel within reach, and what a surrogate model expects
    /// of each and of all.
    #[default]
    Guided,
}

/// Every strategy.
pub const STRATEGIES: [StrategyKind; 6] = [
    StrategyKind::Exhaustive,
    StrategyKind::Random,
    StrategyKind::Local,
    StrategyKind::Halving,
    StrategyKind::Roofline,
    StrategyKind::Guided,
];

impl StrategyKind {
    /// A fresh search with this seed.
    pub fn start(self, seed: u64) -> Box<dyn Strategy> {
        match self {
            StrategyKind::Exhaustive => Box::new(exhaustive::Exhaustive),
            StrategyKind::Random => Box::new(random::Random::new(seed)),
            StrategyKind::Local => Box::new(local::Local::new(seed)),
            StrategyKind::Halving => Box::new(halving::Halving::new(seed)),
            StrategyKind::Roofline => Box::new(roofline::Roofline),
            StrategyKind::Guided => Box::new(guided::Guided::new(seed)),
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StrategyKind::Exhaustive => "exhaustive",
            StrategyKind::Random => "random",
            StrategyKind::Local => "local",
            StrategyKind::Halving => "halving",
            StrategyKind::Roofline => "roofline",
            StrategyKind::Guided => "guided",
        })
    }
}

/// Text that names no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {0:?}: choose exhaustive, random, local, halving, roofline or guided")]
pub struct UnknownStrategy(pub String);

impl FromStr for StrategyKind {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<StrategyKind, UnknownStrategy> {
        STRATEGIES.into_iter().find(|s| s.to_string() == text).ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}
