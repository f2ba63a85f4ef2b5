//! Units as types: a rate cannot be added to a duration.

use std::ops::{Add, Div, Sub};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A duration, or an instant on one monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The duration in seconds.
    pub fn secs(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The duration in milliseconds.
    pub fn millis(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(d: std::time::Duration) -> Self {
        Nanos(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add for Nanos {
    type Output = Nanos;
    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0 + other.0)
    }
}

impl Sub for Nanos {
    type Output = Nanos;
    /// Saturates at zero: two readings of a monotonic clock never differ by less.
    fn sub(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The size in MiB, 2²⁰ bytes.
    pub fn mib(self) -> f64 {
        self.0 as f64 / (1u64 << 20) as f64
    }
}

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0 + other.0)
    }
}

/// A rate in GB/s, 10⁹ bytes a second: the unit of data sheets, and not GiB/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct GbPerS(pub f64);

impl Div<Nanos> for Bytes {
    type Output = GbPerS;
    /// B/ns and GB/s are the same number.
    fn div(self, elapsed: Nanos) -> GbPerS {
        GbPerS(self.0 as f64 / elapsed.0 as f64)
    }
}

/// A rate in tokens a second. The name of the field says of which stage and batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TokPerS(pub f64);

impl TokPerS {
    /// `tokens` in `elapsed`.
    pub fn of(tokens: u64, elapsed: Nanos) -> TokPerS {
        TokPerS(tokens as f64 / elapsed.secs())
    }
}
