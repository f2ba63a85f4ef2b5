//! A workload: an op at concrete shapes, the unit of work that variants compete on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Named dimensions of an op, such as `N=4096 K=14336`. Ordered by name, so that two equal shapes read the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Shape(pub BTreeMap<String, u64>);

impl Shape {
    /// The shape of these dimensions.
    pub fn of<'a>(dims: impl IntoIterator<Item = (&'a str, u64)>) -> Shape {
        Shape(dims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A dimension by name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// An op at concrete shapes; written `gemv_q4_0 K=14336 N=4096`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// The op, such as `gemv_q4_0`.
    pub op: String,
    /// Its dimensions.
    pub shape: Shape,
}

impl Workload {
    /// The workload of `op` at these dimensions.
    pub fn of<'a>(op: &str, dims: impl IntoIterator<Item = (&'a str, u64)>) -> Workload {
        Workload { op: op.to_owned(), shape: Shape::of(dims) }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if self.shape.0.is_empty() { Ok(()) } else { write!(f, " {}", self.shape) }
    }
}

/// Text that is no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no workload: write an op and its dimensions, such as \"gemv_q4_0 N=4096 K=14336\"")]
pub struct NotAWorkload(pub String);

impl FromStr for Workload {
    type Err = NotAWorkload;

    fn from_str(text: &str) -> Result<Workload, NotAWorkload> {
        let bad = || NotAWorkload(text.to_owned());
        let mut words = text.split_whitespace();
        let op = words.next().ok_or_else(bad)?;
        let mut shape = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(bad)?;
            let value = value.parse().map_err(|_| bad())?;
            if name.is_empty() || shape.insert(name.to_owned(), value).is_some() {
                return Err(bad());
            }
        }
        Ok(Workload { op: op.to_owned(), shape: Shape(shape) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_read_back_from_its_text() {
        let w = Workload::of("gemv_q4_0", [("N", 4096), ("K", 14336)]);
        assert_eq!(w.to_string(), "gemv_q4_0 K=14336 N=4096");
        assert_eq!(w.to_string().parse(), Ok(w));
    }

    #[test]
    fn text_that_is_no_workload_is_refused() {
        for text in ["", "gemv N", "gemv N=x", "gemv N=1 N=2", "gemv =3"] {
            assert_eq!(text.parse::<Workload>(), Err(NotAWorkload(text.to_owned())));
        }
    }
}
