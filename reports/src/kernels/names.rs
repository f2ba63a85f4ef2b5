//! Names of variants in a table: what all rows share is said once.

use std::collections::BTreeMap;

use harness_spec::VariantId;

/// Rows of one kernel from which naming the shared tunables once is shorter than naming them in each row.
const LEAST_ROWS: usize = 3;

/// For each kernel, the tunables that have one value in all of its rows.
pub(super) type Shared = BTreeMap<String, BTreeMap<String, i64>>;

/// The tunables that are the same in all rows of a kernel, for kernels with at least [`LEAST_ROWS`] rows.
pub(super) fn shared_tunables<'a>(rows: impl Iterator<Item = &'a VariantId>) -> Shared {
    let mut out: BTreeMap<String, (usize, BTreeMap<String, i64>)> = BTreeMap::new();
    for variant in rows {
        let (count, shared) = out.entry(variant.kernel.clone()).or_insert_with(|| (0, variant.tunables.clone()));
        *count += 1;
        shared.retain(|name, value| variant.tunables.get(name) == Some(value));
    }
    let worth = out.into_iter().filter(|(_, (count, shared))| *count >= LEAST_ROWS && !shared.is_empty());
    worth.map(|(kernel, (_, shared))| (kernel, shared)).collect()
}

/// A variant without the tunables in `same`, and without its backend where that is the run's own.
pub(super) fn short(variant: &VariantId, backend: &str, same: &Shared) -> String {
    let mut rest = variant.clone();
    if let Some(same) = same.get(&variant.kernel) {
        rest.tunables.retain(|name, _| !same.contains_key(name));
    }
    let text = rest.short();
    text.strip_suffix(&format!("@{backend}")).unwrap_or(&text).to_owned()
}

/// What [`short`] leaves out: `planes_dp4a has PREFETCH=0, XSTAGE=0`.
pub(super) fn same_line(same: &Shared) -> String {
    let kernels = same.iter().map(|(kernel, tunables)| {
        let tunables: Vec<String> = tunables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{kernel} has {}", tunables.join(", "))
    });
    kernels.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants(texts: &[&str]) -> Vec<VariantId> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn tunables_with_one_value_in_all_rows_of_a_kernel_are_named_once() {
        let rows =
            variants(&["o/a[X=1,Y=1]@cuda", "o/a[X=2,Y=1]@cuda", "o/a[X=3,Y=1]@cuda", "o/b[Y=1]@cuda", "o/c@cpu"]);
        let same = shared_tunables(rows.iter());
        assert_eq!(same_line(&same), "a has Y=1");
        let names: Vec<String> = rows.iter().map(|v| short(v, "cuda", &same)).collect();
        assert_eq!(names, ["a[X=1]", "a[X=2]", "a[X=3]", "b[Y=1]", "c@cpu"]);
    }

    #[test]
    fn two_rows_keep_their_names() {
        let rows = variants(&["o/a[X=1,Y=1]@cuda", "o/a[X=2,Y=1]@cuda"]);
        assert!(shared_tunables(rows.iter()).is_empty());
    }
}
