//! The name of a variant: a kernel with every tunable fixed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kernel with every tunable fixed; written `gemv_q4_0/multirow[ROWS=8,VEC=4]@cuda`.
///
/// What follows the `@` is the backend, or the instruction set where one algorithm exists for several: `cuda`, `cpu`,
/// `avx2`, `vnni`, `dotprod`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VariantId {
    /// The op.
    pub op: String,
    /// The algorithm, without backend.
    pub kernel: String,
    /// Every tunable with its value.
    pub tunables: BTreeMap<String, i64>,
    /// Backend or instruction set.
    pub backend: String,
}

impl VariantId {
    /// The id without its op, as tables and charts print it: `multirow[ROWS=8,VEC=4]@cuda`.
    pub fn short(&self) -> String {
        let mut out = self.kernel.clone();
        for (i, (name, value)) in self.tunables.iter().enumerate() {
            out.push_str(&format!("{}{name}={value}", if i == 0 { "[" } else { "," }));
        }
        if !self.tunables.is_empty() {
            out.push(']');
        }
        format!("{out}@{}", self.backend)
    }

    /// The kernel that this is a variant of: `gemv_q4_0/multirow@cuda`.
    pub fn kernel_id(&self) -> String {
        format!("{}/{}@{}", self.op, self.kernel, self.backend)
    }
}

impl fmt::Display for VariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.op, self.short())
    }
}

impl From<VariantId> for String {
    fn from(id: VariantId) -> String {
        id.to_string()
    }
}

/// Text that is no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no variant: write op/kernel[TUNABLE=value,...]@backend, as `bench list variants` prints them")]
pub struct NotAVariant(pub String);

impl FromStr for VariantId {
    type Err = NotAVariant;

    fn from_str(text: &str) -> Result<VariantId, NotAVariant> {
        let bad = || NotAVariant(text.to_owned());
        let (op, rest) = text.split_once('/').ok_or_else(bad)?;
        let (rest, backend) = rest.rsplit_once('@').ok_or_else(bad)?;
        let (kernel, inner) = match rest.split_once('[') {
            Some((kernel, inner)) => (kernel, inner.strip_suffix(']').ok_or_else(bad)?),
            None => (rest, ""),
        };
        let mut tunables = BTreeMap::new();
        for pair in inner.split(',').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = value.parse().map_err(|_| bad())?;
            if tunables.insert(name.to_owned(), value).is_some() {
                return Err(bad());
            }
        }
        if op.is_empty() || kernel.is_empty() || backend.is_empty() {
            return Err(bad());
        }
        Ok(VariantId { op: op.to_owned(), kernel: kernel.to_owned(), tunables, backend: backend.to_owned() })
    }
}

impl TryFrom<String> for VariantId {
    type Error = NotAVariant;

    fn try_from(text: String) -> Result<VariantId, NotAVariant> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_text() {
        for text in ["gemv_q4_0/multirow[ROWS=8,VEC=4]@cuda", "rmsnorm/plain@cpu", "gemv_q8_0/unsigned@vnni"] {
            let id: VariantId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["gemv", "gemv/x", "/x@cuda", "gemv/x[A=1@cuda", "gemv/x[A]@cuda", "gemv/x[A=1,A=2]@cuda", "g/x@"] {
            assert_eq!(text.parse::<VariantId>(), Err(NotAVariant(text.to_owned())));
        }
    }
}
