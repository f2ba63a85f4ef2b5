//! Targets as data (SPEC.md H17): what has to hold, on which device, from which records one can tell, and what physics
//! allows.
//!
//! The list itself is a file (`suites/targets.toml`); whoever reads it hands it over here. A target beyond its ceiling is
//! refused on entry: nobody can meet it, and whoever seems to has measured something else.

mod status;

use std::path::Path;

use harness_spec::Policy;
use serde::{Deserialize, Serialize};

pub(crate) use status::all as target_status;
pub use status::{TargetOutcome, TargetStatus};

use crate::error::ReportError;
use crate::results::read;

/// Version of the file.
pub const TARGETS_SCHEMA: u32 = 1;

/// The file of targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// [`TARGETS_SCHEMA`].
    pub schema: u32,
    /// Every target.
    pub targets: Vec<Target>,
}

/// Something that has to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name, which no other has.
    pub id: String,
    /// In words.
    pub title: String,
    /// What is taken from a record.
    pub metric: Metric,
    /// Part of the device's name: the GPU of our side, else the processor.
    pub device: String,
    /// What must be reached.
    pub floor: f64,
    /// What is wanted.
    pub aim: Option<f64>,
    /// What cannot be passed.
    pub ceiling: Ceiling,
}

/// What is taken from a record, and of which records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// Our decode tok/s ÷ that of a peer.
    DecodeRatio {
        /// Parts of the model's name, one of which it must have.
        model: Vec<String>,
        /// Part of the peer's label.
        peer: String,
        /// Threads of the run; of any number where it is not given.
        threads: Option<u32>,
    },
    /// Our prompt tok/s through TTFT ÷ that of a peer.
    PromptRatio {
        /// Parts of the model's name.
        model: Vec<String>,
        /// Part of the peer's label.
        peer: String,
        /// Threads of the run; of any number where it is not given.
        threads: Option<u32>,
        /// Tokens of every prompt of the run; of any number where it is not given.
        prompt_tokens: Option<u64>,
    },
    /// The peer's time to the first token ÷ ours.
    TtftRatio {
        /// Parts of the model's name.
        model: Vec<String>,
        /// Part of the peer's label.
        peer: String,
        /// Tokens of every prompt of the run; of any number where it is not given.
        prompt_tokens: Option<u64>,
    },
    /// Bytes that decoding moves ÷ what the device reads in the same record.
    ReadShare {
        /// Parts of the model's name.
        model: Vec<String>,
        /// Threads of the run; of any number where it is not given.
        threads: Option<u32>,
    },
    /// The 99th percentile of times between tokens ÷ their median; less is better.
    ItlSpread {
        /// Parts of the model's name.
        model: Vec<String>,
        /// Fewest times between tokens.
        least_tokens: u64,
    },
    /// Share of decode speed that is lost from one depth of the context to another; less is better.
    DepthCost {
        /// Parts of the model's name.
        model: Vec<String>,
        /// The shallow one.
        from: u64,
        /// The deep one.
        to: u64,
        /// How keys and values are stored, such as `f16`.
        kv: String,
    },
    /// The slowest winner of an op over its shapes, its time ÷ that of a pure read of the same bytes; less is better.
    OverRead {
        /// The op.
        op: String,
        /// Under which policy.
        #[serde(with = "policy_text")]
        policy: Policy,
        /// Fewest bytes of a shape.
        #[serde(default)]
        least_bytes: u64,
        /// Bytes that a shape stays below.
        #[serde(default = "unbounded")]
        below_bytes: u64,
    },
    /// Wall seconds of a tune of a suite; less is better.
    TuneSeconds {
        /// The suite or model.
        suite: String,
        /// Whether most cells came from caches, or none.
        cached: bool,
    },
}

const fn unbounded() -> u64 {
    // The largest number that TOML holds.
    i64::MAX as u64
}

/// What cannot be passed, from measured rates and counted bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ceiling {
    /// Tokens a second, if nothing but these bytes were read at the measured rate, ÷ a reference.
    Read {
        /// Measured read rate, GB/s.
        read_gb_per_s: f64,
        /// Bytes of a token.
        bytes: f64,
        /// Tokens a second of the peer, where the target is a ratio; 1 otherwise.
        #[serde(default = "one")]
        reference: f64,
        /// The record of the rate.
        source: String,
    },
    /// A number that follows from what the metric is, with the reason.
    Limit {
        /// The number.
        limit: f64,
        /// The reason.
        why: String,
    },
    /// None that is known, with the reason.
    None {
        /// The reason.
        why: String,
    },
}

const fn one() -> f64 {
    1.0
}

impl Ceiling {
    /// The number that cannot be passed.
    pub fn value(&self) -> Option<f64> {
        match self {
            Ceiling::Read { read_gb_per_s, bytes, reference, .. } => Some(read_gb_per_s * 1e9 / bytes / reference),
            Ceiling::Limit { limit, .. } => Some(*limit),
            Ceiling::None { .. } => None,
        }
    }
}

impl Metric {
    /// Whether more is better.
    pub const fn higher_is_better(&self) -> bool {
        match self {
            Metric::DecodeRatio { .. }
            | Metric::PromptRatio { .. }
            | Metric::TtftRatio { .. }
            | Metric::ReadShare { .. } => true,
            Metric::ItlSpread { .. }
            | Metric::DepthCost { .. }
            | Metric::OverRead { .. }
            | Metric::TuneSeconds { .. } => false,
        }
    }

    /// A value of it, as it is shown.
    pub fn shown(&self, value: f64) -> String {
        match self {
            Metric::ReadShare { .. } | Metric::DepthCost { .. } => format!("{:.1} %", value * 100.0),
            Metric::TuneSeconds { .. } => format!("{value:.0} s"),
            _ => format!("{value:.2} ×"),
        }
    }
}

/// How targets stand by the records of a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetsStand {
    /// Every target, in the order of the list.
    pub targets: Vec<TargetStatus>,
    /// Folders of records that could not be asked, and why.
    pub left_out: Vec<String>,
}

/// A list that cannot be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// Another version.
    #[error(
        "targets of schema {found}, and this program reads {TARGETS_SCHEMA}\nhint: use the version of `bench` that wrote them"
    )]
    Schema {
        /// Its version.
        found: u32,
    },
    /// Two of one name.
    #[error("two targets are named {id}\nhint: give each a name of its own")]
    Twice {
        /// The name.
        id: String,
    },
    /// A number that is none.
    #[error(
        "target {id}: {what} is {value}, which is no number above zero\nhint: write what must be reached as a number"
    )]
    Number {
        /// The target.
        id: String,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: f64,
    },
    /// An aim that is easier than what must be reached.
    #[error("target {id}: its aim {aim} asks for less than its floor {floor}\nhint: exchange them")]
    Aim {
        /// The target.
        id: String,
        /// The aim.
        aim: f64,
        /// The floor.
        floor: f64,
    },
    /// Beyond physics.
    #[error(
        "target {id}: its {what} {value} lies beyond its ceiling {ceiling:.3} ({why})\nhint: lower the target, or mend the bytes \
         or the rate that the ceiling is made of"
    )]
    BeyondCeiling {
        /// The target.
        id: String,
        /// `floor` or `aim`.
        what: &'static str,
        /// What was asked for.
        value: f64,
        /// What is possible.
        ceiling: f64,
        /// How that is known.
        why: String,
    },
}

impl Targets {
    /// Checks every target on entry: its numbers, and that its ceiling lets it be met.
    ///
    /// # Errors
    /// [`TargetError`], naming the first target that cannot be right.
    pub fn checked(self) -> Result<Targets, TargetError> {
        if self.schema != TARGETS_SCHEMA {
            return Err(TargetError::Schema { found: self.schema });
        }
        for (at, target) in self.targets.iter().enumerate() {
            if self.targets[..at].iter().any(|t| t.id == target.id) {
                return Err(TargetError::Twice { id: target.id.clone() });
            }
            target.check()?;
        }
        Ok(self)
    }

    /// What became of every target by the records below a folder.
    ///
    /// # Errors
    /// [`ReportError`] where the folder cannot be read.
    pub fn status(&self, records: &Path) -> Result<TargetsStand, ReportError> {
        let found = read::records(records)?;
        Ok(TargetsStand { targets: status::all(self, &found), left_out: found.left_out })
    }
}

impl Target {
    fn check(&self) -> Result<(), TargetError> {
        let id = || self.id.clone();
        let ceiling = self.ceiling.value();
        let mut numbers = vec![("floor", Some(self.floor)), ("aim", self.aim), ("ceiling", ceiling)];
        if let Ceiling::Read { read_gb_per_s, bytes, reference, .. } = &self.ceiling {
            let parts = [("read_gb_per_s", read_gb_per_s), ("bytes", bytes), ("reference", reference)];
            numbers.extend(parts.map(|(what, v)| (what, Some(*v))));
        }
        for (what, value) in numbers {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(TargetError::Number { id: id(), what, value });
            }
        }
        let beyond = |value: f64, limit: f64| {
            if self.metric.higher_is_better() { value > limit } else { value < limit }
        };
        if let Some(aim) = self.aim.filter(|aim| beyond(self.floor, *aim)) {
            return Err(TargetError::Aim { id: id(), aim, floor: self.floor });
        }
        let Some(ceiling) = ceiling else { return Ok(()) };
        let why = match &self.ceiling {
            Ceiling::Read { read_gb_per_s, bytes, reference, source } => {
                let over = if *reference == 1.0 { String::new() } else { format!(" against {reference} tok/s") };
                format!("{:.1} MB a token at {read_gb_per_s:.0} GB/s{over}, {source}", bytes / 1e6)
            }
            Ceiling::Limit { why, .. } | Ceiling::None { why } => why.clone(),
        };
        for (what, value) in [("floor", Some(self.floor)), ("aim", self.aim)] {
            if let Some(value) = value.filter(|v| beyond(*v, ceiling)) {
                return Err(TargetError::BeyondCeiling { id: id(), what, value, ceiling, why });
            }
        }
        Ok(())
    }
}

mod policy_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(policy: &super::Policy, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(policy)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<super::Policy, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
