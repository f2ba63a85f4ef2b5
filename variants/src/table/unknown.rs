//! Rows whose variant this program does not have, or no longer has: they are passed over, and that is said.
//!
//! They are not put in quarantine. What a row names may be in another version of the program that reads the same file, or
//! in a folder of the user's own kernels; a quarantine would stay when the variant is there again.

use harness_spec::{Shape, VariantId};

use super::TableFile;
use crate::{Layout, Registry};

/// Rows that are named; the others are counted.
const MOST_NAMED: usize = 3;

impl TableFile {
    /// What to say of rows and buckets that are passed over since no kernel of `registry` is what they name: each with its
    /// shape and variant, the first three; `None` where every one is known.
    pub fn passed_over(&self, registry: &Registry) -> Option<String> {
        let rows = self.rows.iter().filter(|r| r.quarantined.is_none());
        let rows = rows.filter_map(|r| unknown(registry, &r.op, Some(&r.shape), &r.variant, Some(r.layout)));
        let buckets = self.buckets.iter().filter_map(|b| unknown(registry, &b.op, None, &b.variant, None));
        let all: Vec<String> = rows.chain(buckets).collect();
        if all.is_empty() {
            return None;
        }
        let more = match all.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            n => format!("; and {n} more"),
        };
        let named = all[..all.len().min(MOST_NAMED)].join("; ");
        let rows = if all.len() == 1 { "a row that is" } else { "rows that are" };
        Some(format!(
            "the table of {} has {rows} passed over: {named}{more}: what stands behind runs there, or the default; `bench \
             tune` measures which is faster",
            self.device.name
        ))
    }
}

/// Why a row does not hold; `None` where the registry has its variant, in the layout that it says.
fn unknown(
    registry: &Registry,
    op: &str,
    shape: Option<&Shape>,
    variant: &VariantId,
    layout: Option<Option<Layout>>,
) -> Option<String> {
    let why = match registry.find(variant) {
        None => "which this program does not have".to_owned(),
        Some((_, kernel)) if layout.is_some_and(|l| l != kernel.layout) => {
            format!("which reads {} now", kernel.layout.map_or("no weights".to_owned(), |l| format!("the layout {l}")))
        }
        Some(_) => return None,
    };
    let of = shape.map_or_else(|| format!("shapes of {op} without a row"), |shape| format!("{op} {shape}"));
    Some(format!("{of} names {variant}, {why}"))
}
