//! Which rows of a new table the model runs, and the old table with them.

use std::collections::BTreeSet;

use engine::launched::Launch;
use harness_spec::{Shape, Workload};
use variants::{Row, TableFile};

use crate::tables::RowChange;

/// The op whose kernel is chosen by the length of the context.
const BY_LENGTH: &str = "attn_token";

/// The dimension that is its class.
const LENGTH: &str = "LEN";

/// Prompts behind which a token is of a class of lengths, by the length that stands in the shapes of the class. Those of the
/// shortest class come first in every run.
const DEEPER: [(u64, u64); 3] = [(2048, 2048), (8192, 8000), (32_768, 17_000)];

/// Lengths of prompts that changed rows ask for beside the first. A class without a row of its own runs that of the nearest,
/// so that any change of them may be one of all; the longest is run where its own row changed.
pub fn deeper(changes: &[RowChange]) -> Vec<u64> {
    let classes = changes.iter().filter(|c| c.workload.op == BY_LENGTH).filter_map(|c| c.workload.shape.get(LENGTH));
    let classes: BTreeSet<u64> = classes.collect();
    let (last, _) = DEEPER[DEEPER.len() - 1];
    let wanted = |class: u64| !classes.is_empty() && (class != last || classes.contains(&last));
    DEEPER.into_iter().filter(|&(class, _)| wanted(class)).map(|(_, prompt)| prompt).collect()
}

/// The changed rows that the model runs, and the others. A launch is of the row's own shape, or of a class of lengths that has
/// no row of its own in the table that was tried and runs this one, the nearest.
pub fn run_of<'a>(
    changes: &'a [RowChange],
    launched: &BTreeSet<Launch>,
    tried: &TableFile,
) -> (Vec<&'a RowChange>, Vec<&'a RowChange>) {
    let has_row = |w: &Workload| tried.rows.iter().any(|row| row.quarantined.is_none() && row.workload() == *w);
    let others: BTreeSet<Workload> =
        launched.iter().filter(|(w, _)| !has_row(w)).filter_map(|(w, by)| nearest(w, by, tried)).collect();
    changes.iter().partition(|c| {
        let to = c.to.to_string();
        let own = |(w, by): &Launch| *by == to && w.op == c.workload.op && same_work(&w.shape, &c.workload.shape);
        launched.iter().any(own) || others.contains(&c.workload)
    })
}

/// Whether two shapes are the same: one token is, with and without saying so.
fn same_work(a: &Shape, b: &Shape) -> bool {
    let dims = |shape: &Shape| -> Vec<(String, u64)> {
        shape.0.iter().map(|(name, &dim)| (name.clone(), dim)).filter(|(name, dim)| name != "M" || *dim != 1).collect()
    };
    dims(a) == dims(b)
}

/// The row of another class of lengths that runs a workload.
fn nearest(workload: &Workload, by: &str, table: &TableFile) -> Option<Workload> {
    let own = workload.shape.get(LENGTH)?;
    let at = |row: &Row| {
        let len = row.shape.get(LENGTH)?;
        let mut shape = row.shape.clone();
        shape.0.insert(LENGTH.to_owned(), own);
        let runs = row.op == workload.op && shape == workload.shape && row.variant.to_string() == by;
        runs.then(|| ((len as f64 / own as f64).ln().abs(), len))
    };
    let rows = table.rows.iter().filter(|row| row.quarantined.is_none());
    let found = rows.filter_map(|row| Some((at(row)?, row)));
    found.min_by(|(a, _), (b, _)| a.partial_cmp(b).expect("lengths are no NaN")).map(|(_, row)| row.workload())
}

/// The old table with the rows of the new one for these changes. All other rows and all buckets stay as they are.
pub fn overlaid(old: Option<&TableFile>, new: &TableFile, changes: &[&RowChange]) -> TableFile {
    let taken = |row: &Row| changes.iter().any(|c| c.workload == row.workload());
    let Some(old) = old else {
        let rows = new.rows.iter().filter(|row| taken(row)).cloned().collect();
        return TableFile { rows, buckets: Vec::new(), ..new.clone() };
    };
    let mut out = old.clone();
    out.rows.retain(|row| !taken(row));
    out.rows.extend(new.rows.iter().filter(|row| taken(row)).map(|row| Row {
        policy: row.policy.or(Some(new.policy)).filter(|policy| *policy != old.policy),
        record: row.record.clone().or_else(|| Some(new.record.clone())),
        ..row.clone()
    }));
    if !changes.is_empty() {
        out.date.clone_from(&new.date);
    }
    out
}

#[cfg(test)]
mod tests {
    use kernels::cuda::exec::LengthClass;

    use super::*;

    fn row(workload: &str, variant: &str) -> Row {
        let workload: Workload = workload.parse().unwrap();
        Row {
            variant: format!("{}/{variant}@cuda", workload.op).parse().unwrap(),
            op: workload.op,
            shape: workload.shape,
            layout: None,
            median_ns: 100.0,
            ci_ns: None,
            runner_up: None,
            gap_to_runner_up: None,
            reason: "a test".into(),
            key: String::new(),
            record: None,
            policy: None,
            quarantined: None,
        }
    }

    fn table(record: &str, policy: &str, rows: &[Row]) -> TableFile {
        TableFile {
            schema: variants::TABLE_SCHEMA,
            policy: policy.parse().unwrap(),
            date: format!("date of {record}"),
            tool: "a test".into(),
            record: record.into(),
            incomplete: None,
            device: harness_spec::DeviceKey {
                backend: "cuda".into(),
                name: "G".into(),
                arch: "sm_90".into(),
                conditions: Default::default(),
            },
            rows: rows.to_vec(),
            buckets: Vec::new(),
        }
    }

    fn change(row: &Row) -> RowChange {
        RowChange {
            workload: row.workload(),
            policy: "cold+graph".parse().unwrap(),
            from: None,
            to: row.variant.clone(),
            before_ns: None,
            median_ns: 1.0,
            reason: String::new(),
        }
    }

    fn launch(row: &Row) -> Launch {
        (row.workload(), row.variant.to_string())
    }

    #[test]
    fn rows_that_the_model_does_not_run_and_rows_that_are_missing_in_the_new_table_stay() {
        let (kept, run, unrun) =
            (row("gemv_q4_0 N=32 K=32", "old"), row("gemv_q4_0 N=64 K=64", "old"), row("gemv_q8_0 N=64 K=64", "old"));
        let old = table("first", "cold+graph", &[kept.clone(), run.clone(), unrun.clone()]);
        let (better, other) = (row("gemv_q4_0 N=64 K=64", "new"), row("gemv_q8_0 N=64 K=64", "new"));
        let new = table("second", "cold+in_engine", &[better.clone(), other.clone()]);
        let changes = [change(&better), change(&other)];
        let (runs, stays) = run_of(&changes, &[launch(&better), launch(&kept)].into(), &new);
        assert_eq!((runs.len(), stays.len()), (1, 1));
        let out = overlaid(Some(&old), &new, &runs);
        let of = |w: &Row| out.rows.iter().filter(|r| r.workload() == w.workload()).cloned().collect::<Vec<_>>();
        assert_eq!((of(&kept), of(&unrun)), (vec![kept], vec![unrun]));
        let [taken] = &of(&run)[..] else { panic!("{out:?}") };
        assert_eq!(taken.variant, better.variant);
        // What stood in the head of its own table goes with it.
        assert_eq!(taken.policy.map(|p| p.to_string()).as_deref(), Some("cold+in_engine"));
        assert_eq!(taken.record.as_deref(), Some("second"));
        assert_eq!((out.record.as_str(), out.policy.to_string().as_str()), ("first", "cold+graph"));
        assert_eq!(overlaid(Some(&old), &new, &[]), old);
    }

    #[test]
    fn a_first_table_has_the_rows_that_the_model_runs_and_no_other() {
        let rows = [row("gemv_q4_0 N=64 K=64", "new"), row("gemv_q8_0 N=64 K=64", "new")];
        let new = table("second", "cold+graph", &rows);
        let changes = rows.each_ref().map(change);
        let (runs, _) = run_of(&changes, &[launch(&rows[0])].into(), &new);
        assert_eq!(overlaid(None, &new, &runs).rows, [rows[0].clone()]);
    }

    #[test]
    fn a_row_that_runs_in_another_class_of_lengths_is_run_and_one_that_has_its_own_there_is_not() {
        let shape = |len: u64| format!("attn_token DIM=64 HEADS=9 KV=16 KV_HEADS=3 LEN={len} MAX_LEN=4096 OUT=8");
        let rows = [row(&shape(2048), "a"), row(&shape(32_768), "a")];
        let new = table("second", "cold+in_engine", &rows);
        let changes = rows.each_ref().map(change);
        // At the shortest class the row of the next runs.
        let launched = |len: u64| [launch(&row(&shape(len), "a"))].into();
        let (runs, stays) = run_of(&changes, &launched(512), &new);
        assert_eq!((runs[0].workload.shape.get("LEN"), stays.len()), (Some(2048), 1));
        let (runs, _) = run_of(&changes, &launched(32_768), &new);
        assert_eq!((runs.len(), runs[0].workload.shape.get("LEN")), (1, Some(32_768)));
        // What another kernel runs is no doing of this row.
        let (runs, _) = run_of(&changes, &[launch(&row(&shape(512), "b"))].into(), &new);
        assert!(runs.is_empty());
    }

    #[test]
    fn one_token_is_run_whether_the_shape_says_so_or_not() {
        let own = row("rmsnorm K=64 M=1", "a");
        let new = table("second", "cold+graph", std::slice::from_ref(&own));
        let changes = [change(&own)];
        let (runs, _) = run_of(&changes, &[launch(&row("rmsnorm K=64", "a"))].into(), &new);
        assert_eq!(runs.len(), 1);
    }

    #[test]
    fn changed_rows_of_attention_ask_for_prompts_of_their_classes() {
        for (class, prompt) in DEEPER {
            assert_eq!(LengthClass::of(prompt as usize + 1).key() as u64, class);
        }
        let at = |len: u64| change(&row(&format!("attn_token DIM=64 LEN={len}"), "a"));
        assert_eq!(deeper(&[change(&row("gemv_q4_0 N=64 K=64", "a"))]), Vec::<u64>::new());
        assert_eq!(deeper(&[at(512)]), [2048, 8000]);
        assert_eq!(deeper(&[at(512), at(32_768)]), [2048, 8000, 17_000]);
    }
}
