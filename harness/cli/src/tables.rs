//! The table of a device: who holds a workload now, and what a tune makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use harness_spec::record::{CellResult, KernelRun, Provenance, WorkloadResult};
use harness_spec::{DeviceKey, Policy, Shape, VariantId, Workload};
use serde_json::{Value, json};
use variants::{
    LEAST_SHAPES, Limits, Loaded, Registry, Row, ShapeTimes, TABLE_SCHEMA, Table, TableFile, buckets, built_in_tables,
};

use crate::places;

/// Rows behind the winner of a shape, for the day on which it fails (R25).
const FALLBACKS: usize = 2;

/// A row that a tune has an answer for.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Which workload.
    pub workload: Workload,
    /// Under which policy.
    pub policy: Policy,
    /// Who held it; `None` where there was no row.
    pub from: Option<VariantId>,
    /// Who holds it.
    pub to: VariantId,
    /// Median of the old variant in this run, ns; in the engine that of a token with it.
    pub before_ns: Option<f64>,
    /// Median of the new one, ns; in the engine that of a token with it.
    pub median_ns: f64,
    /// Why, in a sentence.
    pub reason: String,
}

impl fmt::Display for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or_else(|| "the default".to_owned(), VariantId::short);
        write!(f, "{}: {from} -> {}, ", self.workload, self.to.short())?;
        let us = |ns: f64| format!("{:.1}", ns / 1e3);
        match self.before_ns.filter(|_| self.policy.is_in_engine()) {
            Some(before) => write!(f, "a token takes {} µs and took {} µs", us(self.median_ns), us(before)),
            None if self.policy.is_in_engine() => write!(f, "a token takes {} µs", us(self.median_ns)),
            None => write!(f, "{} µs", us(self.median_ns)),
        }
    }
}

/// A table with the winners of a run.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The table.
    pub table: DeviceTable,
    /// What changed, and what was confirmed.
    pub changes: Vec<RowChange>,
    /// Workloads whose row was chosen in the engine, which kernels that were timed alone do not replace.
    pub kept: Vec<Workload>,
}

/// The table of a device, with where it is written to.
#[derive(Clone, Debug)]
pub struct DeviceTable {
    file: Option<TableFile>,
    /// Where it will be written; `None` on a simulated device that was given no file.
    path: Option<PathBuf>,
    /// What a person should know of how it was found.
    pub said: Option<String>,
}

impl DeviceTable {
    /// The table in `path`, else that of the device: the user's, else the built-in one, else none.
    ///
    /// # Errors
    /// A file that was named and is no table, or is one of another device.
    pub fn load(
        device: &DeviceKey,
        limits: Limits,
        path: Option<&Path>,
        provenance: Provenance,
    ) -> anyhow::Result<DeviceTable> {
        if let Some(path) = path {
            let file = if path.exists() { Some(TableFile::load(path)?) } else { None };
            if let Some(other) = file.as_ref().map(|f| &f.device).filter(|d| *d != device) {
                return Err(anyhow!(
                    "the table {} is that of {} ({}), under its conditions, and not of {} ({}) as it is now\nhint: name \
                     another file with --table",
                    path.display(),
                    other.name,
                    other.arch,
                    device.name,
                    device.arch
                ));
            }
            return Ok(DeviceTable { file, path: Some(path.to_owned()), said: None });
        }
        if provenance == Provenance::Simulated {
            return Ok(DeviceTable { file: None, path: None, said: None });
        }
        let folder = places::tables()?;
        let own = folder.join(TableFile::file_name(device));
        let (table, loaded) = Table::for_device(device, limits, &[folder]);
        let said = match &loaded {
            Loaded::Found { .. } => None,
            Loaded::Unknown { .. } => None,
            Loaded::Foreign { .. } | Loaded::Corrupt { .. } => Some(loaded.to_string()),
        };
        Ok(DeviceTable { file: table.file(), path: Some(own), said })
    }

    /// The file as it is now.
    pub fn file(&self) -> Option<&TableFile> {
        self.file.as_ref()
    }

    /// The rows that another table has other variants in, the first of each workload.
    pub fn changes_to(&self, new: &TableFile) -> Vec<RowChange> {
        let mut out: Vec<RowChange> = Vec::new();
        for row in new.rows.iter().filter(|r| r.quarantined.is_none()) {
            let workload = row.workload();
            if out.iter().any(|c| c.workload == workload) {
                continue;
            }
            let policy = row.policy.unwrap_or(new.policy);
            let same_policy = |r: &&Row| r.policy.or(self.file.as_ref().map(|f| f.policy)) == Some(policy);
            let before = self.file.iter().flat_map(|f| &f.rows).find(|r| r.workload() == workload);
            out.push(RowChange {
                from: self.row(&workload),
                to: row.variant.clone(),
                before_ns: before.filter(same_policy).map(|r| r.median_ns),
                median_ns: row.median_ns,
                reason: row.reason.clone(),
                workload,
                policy,
            });
        }
        out.retain(|c| c.from.as_ref() != Some(&c.to));
        out
    }

    /// Another table in the place of this one.
    pub fn replaced_by(&self, file: TableFile) -> DeviceTable {
        DeviceTable { file: Some(file), path: self.path.clone(), said: None }
    }

    /// Who holds a workload, under whatever policy the table was made.
    pub fn row(&self, workload: &Workload) -> Option<VariantId> {
        let file = self.file.as_ref()?;
        let rows = file.rows.iter().filter(|r| r.op == workload.op && r.shape == workload.shape);
        rows.filter(|r| r.quarantined.is_none()).map(|r| r.variant.clone()).next()
    }

    /// What is missing in the table still after a run that is complete: the run answers for its own workloads.
    fn still_incomplete(&self, run: &KernelRun) -> Option<String> {
        let file = self.file.as_ref()?;
        let answers = |op: &str, shape: &Shape| {
            run.results.iter().any(|r| r.workload.op == op && r.workload.shape == *shape && r.incomplete.is_none())
        };
        let all = file.rows.iter().all(|r| answers(&r.op, &r.shape));
        file.incomplete.clone().filter(|_| !all)
    }

    /// Tries to write where the table will be, before anything is measured.
    ///
    /// # Errors
    /// A folder that cannot be written, or a table that another policy has made.
    pub fn writable(&self, policies: &[Policy]) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        // Rows that were chosen in the engine name that policy themselves, and stand beside those of kernels timed alone.
        let fits = |f: &TableFile| policies.is_empty() || policies.iter().any(|p| *p == f.policy || p.is_in_engine());
        if let Some(file) = self.file.as_ref().filter(|f| !fits(f)) {
            return Err(anyhow!(
                "the table {} was made under {}, and its rows do not compare with those of another policy\nhint: add \
                 --policy {}, or name another file with --table",
                path.display(),
                file.policy,
                file.policy
            ));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let probe = folder.join(".writable");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&probe, b""))
            .and_then(|()| std::fs::remove_file(&probe))
            .with_context(|| format!("cannot write to {}\nhint: name another table with --table", folder.display()))
    }

    /// The table with the winners of a run, and what changed. Of a run under several policies it takes those of the table's
    /// own, or of the first.
    pub fn merge(&self, run: &KernelRun, registry: &Registry) -> Merged {
        let Some(first) = run.results.first() else {
            return Merged { table: self.clone(), changes: Vec::new(), kept: Vec::new() };
        };
        let in_engine = first.policy.is_in_engine();
        // Rows of kernels timed alone may join a table that the engine began.
        let first_own = if in_engine { Policy::COLD_GRAPH } else { first.policy };
        let own = self.file.as_ref().map_or(first_own, |f| f.policy);
        let policy = if in_engine { first.policy } else { own };
        let mut file = TableFile {
            schema: TABLE_SCHEMA,
            policy: own,
            date: run.started.clone(),
            tool: format!(
                "{} {}{}",
                run.tool.version,
                run.tool.commit,
                if run.tool.dirty == Some(true) { " + changes" } else { "" }
            ),
            record: run.id.clone(),
            incomplete: run.incomplete.clone().or_else(|| self.still_incomplete(run)),
            device: run.device.clone(),
            rows: self.file.as_ref().map_or_else(Vec::new, |f| f.rows.clone()),
            buckets: self.file.as_ref().map_or_else(Vec::new, |f| f.buckets.clone()),
        };
        let cells: BTreeMap<(&VariantId, &Workload), &CellResult> = run
            .cells
            .iter()
            .filter(|c| c.cell.policy == policy)
            .map(|c| ((&c.cell.variant, &c.cell.workload), c))
            .collect();
        let (mut changes, mut kept) = (Vec::new(), Vec::new());
        for result in run.results.iter().filter(|r| r.policy == policy) {
            let Some(winner) = &result.winner else { continue };
            if !in_engine && self.chosen_in_engine(&result.workload) {
                kept.push(result.workload.clone());
                continue;
            }
            let mut rows = rows_of(result, winner, &cells, registry, &run.id);
            if policy != file.policy {
                rows.iter_mut().for_each(|row| row.policy = Some(policy));
            }
            if in_engine && let Some(row) = rows.first_mut() {
                row.reason = in_engine_reason(result, &run.plan.suite);
            }
            let Some(own) = rows.first() else { continue };
            let from = self.row(&result.workload);
            // A run that ended before the run-off has nothing to add to what the row says of its variant.
            if result.run_off.is_none() && result.incomplete.is_some() && from.as_ref() == Some(winner) {
                continue;
            }
            let before = from.as_ref().or(result.default.as_ref());
            changes.push(RowChange {
                workload: result.workload.clone(),
                policy,
                before_ns: before.and_then(|v| result.ranking.iter().find(|r| r.variant == *v)).map(|r| r.median_ns),
                median_ns: own.median_ns,
                reason: own.reason.clone(),
                to: winner.clone(),
                from,
            });
            file.rows.retain(|r| !(r.op == result.workload.op && r.shape == result.workload.shape));
            file.rows.extend(rows);
        }
        // Times of tokens of one model say nothing of the shapes of another.
        if !in_engine {
            add_buckets(&mut file, run, policy);
        }
        Merged { table: DeviceTable { file: Some(file), path: self.path.clone(), said: None }, changes, kept }
    }

    /// Whether the row of a workload was chosen in the engine, in a table of kernels that were timed alone.
    pub fn chosen_in_engine(&self, workload: &Workload) -> bool {
        let Some(file) = self.file.as_ref().filter(|f| !f.policy.is_in_engine()) else { return false };
        let mut rows = file.rows.iter().filter(|r| r.workload() == *workload && r.quarantined.is_none());
        rows.any(|r| r.policy.is_some_and(Policy::is_in_engine))
    }

    /// Writes it. `None` where there is nowhere to write.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&self) -> anyhow::Result<Option<PathBuf>> {
        let (Some(file), Some(path)) = (&self.file, &self.path) else { return Ok(None) };
        file.save_as(path)?;
        Ok(Some(path.clone()))
    }

    /// Writes it somewhere else, to be tried.
    ///
    /// # Errors
    /// The disk refuses, or there is no table.
    pub fn save_to(&self, path: &Path) -> anyhow::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| anyhow!("there is no table to try"))?;
        Ok(file.save_as(path)?)
    }
}

/// Why a row that was chosen in the engine is there: what a token takes with it, and with what ran before, in turns.
fn in_engine_reason(result: &WorkloadResult, model: &str) -> String {
    let name = Path::new(model).file_stem().map_or_else(|| model.to_owned(), |s| s.to_string_lossy().into_owned());
    let median = |v: &VariantId| result.ranking.iter().find(|r| r.variant == *v).map(|r| r.median_ns / 1e3);
    let before = result.incumbent.as_ref().or(result.default.as_ref());
    let winner = result.winner.as_ref();
    let token = match (winner.and_then(median), before.filter(|b| Some(*b) != winner)) {
        (Some(with), Some(before)) => {
            let duel = result.run_off.as_ref().and_then(|r| {
                r.duels.iter().find(|d| Some(&d.challenger) == winner && d.defender == *before)?.time.as_ref()
            });
            let turns = duel.map_or_else(String::new, |t| {
                let percent = |x: f64| (x - 1.0) * 100.0;
                format!(
                    ", in turns {:+.2} % ({:+.2} to {:+.2} %) tokens a second",
                    percent(t.ratio),
                    percent(t.ci[0]),
                    percent(t.ci[1])
                )
            });
            let took = median(before).map_or_else(String::new, |us| format!(" and {us:.1} µs with {}", before.short()));
            format!("a token of {name} takes {with:.1} µs with it{took}{turns}")
        }
        (Some(with), None) => format!("a token of {name} takes {with:.1} µs with it"),
        (None, _) => format!("in the engine with {name}"),
    };
    format!("{token}; {}", result.reason)
}

/// The row of the winner, and those of the next best of other kernels behind it.
fn rows_of(
    result: &WorkloadResult,
    winner: &VariantId,
    cells: &BTreeMap<(&VariantId, &Workload), &CellResult>,
    registry: &Registry,
    run_id: &str,
) -> Vec<Row> {
    let median = |v: &VariantId| result.ranking.iter().find(|r| r.variant == *v);
    let row = |v: &VariantId, reason: String, behind: Option<&VariantId>| -> Option<Row> {
        let own = median(v)?;
        Some(Row {
            op: result.workload.op.clone(),
            shape: result.workload.shape.clone(),
            layout: registry.find(v).and_then(|(_, spec)| spec.layout),
            variant: v.clone(),
            median_ns: own.median_ns,
            ci_ns: own.ci_ns,
            gap_to_runner_up: behind.and_then(median).map(|next| next.median_ns / own.median_ns - 1.0),
            runner_up: behind.cloned(),
            reason,
            key: cells.get(&(v, &result.workload)).map(|c| c.key.clone()).unwrap_or_default(),
            record: Some(run_id.to_owned()),
            policy: None,
            quarantined: None,
        })
    };
    let mut kernels = vec![winner.kernel_id()];
    let mut rows: Vec<Row> = row(winner, result.reason.clone(), result.runner_up.as_ref()).into_iter().collect();
    for next in &result.ranking {
        if rows.len() > FALLBACKS || kernels.contains(&next.variant.kernel_id()) {
            continue;
        }
        kernels.push(next.variant.kernel_id());
        rows.extend(row(&next.variant, "runs where the row before it fails".to_owned(), None));
    }
    rows
}

/// Buckets of the ops that this run has measured at enough shapes.
fn add_buckets(file: &mut TableFile, run: &KernelRun, policy: Policy) {
    let mut by_op: BTreeMap<&str, Vec<ShapeTimes>> = BTreeMap::new();
    for r in run.results.iter().filter(|r| r.policy == policy && !r.ranking.is_empty()) {
        let median_ns = r.ranking.iter().map(|row| (row.variant.clone(), row.median_ns)).collect();
        by_op.entry(&r.workload.op).or_default().push(ShapeTimes { shape: r.workload.shape.clone(), median_ns });
    }
    for (op, times) in by_op.into_iter().filter(|(_, times)| times.len() >= LEAST_SHAPES) {
        file.buckets.retain(|b| b.op != op);
        file.buckets.extend(buckets(op, &times));
    }
}

/// Every table that can be found, for `bench list tables`: those of this user, and those that the program carries,
/// with what is wrong with them: a file that is no table, rows that name what the registry does not have.
///
/// # Errors
/// The user's folder is not known, or cannot be read.
pub fn list(registry: &Registry) -> anyhow::Result<Vec<Value>> {
    let folder = places::tables()?;
    let reading = || format!("reading the tables in {}\nhint: set EDGELLM_HOME to a folder of yours", folder.display());
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => {
            let all = entries.and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
            all.with_context(reading)?
        }
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    // Every row has every field, so that all are shown whichever comes first.
    let row = |place: String, of: &str, file: Result<TableFile, variants::TableError>| {
        let (file, problem) = match file {
            Ok(file) => {
                let passed_over = file.passed_over(registry);
                (Some(file), passed_over)
            }
            Err(e) => (None, Some(e.to_string())),
        };
        let file = file.as_ref();
        json!({
            "table": place, "of": of, "device": file.map(|f| &f.device.name), "arch": file.map(|f| &f.device.arch),
            "policy": file.map(|f| f.policy.to_string()), "rows": file.map(|f| f.rows.len()),
            "buckets": file.map(|f| f.buckets.len()), "date": file.map(|f| &f.date), "record": file.map(|f| &f.record),
            "incomplete": file.map(|f| &f.incomplete), "tool": file.map(|f| &f.tool),
            "conditions": file.map(|f| &f.device.conditions), "problem": problem,
        })
    };
    let own = paths.into_iter().map(|p| row(p.display().to_string(), "user", TableFile::load(&p)));
    Ok(own.chain(built_in_tables().map(|(name, file)| row(name, "built in", file))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceKey {
        DeviceKey { backend: "cuda".into(), name: name.into(), arch: "sm_90".into(), conditions: BTreeMap::new() }
    }

    fn limits() -> Limits {
        Limits::of_architecture(90).unwrap()
    }

    fn file(device: DeviceKey) -> TableFile {
        TableFile {
            schema: TABLE_SCHEMA,
            policy: Policy::COLD_GRAPH,
            date: "2026-01-01T00:00:00Z".into(),
            tool: "t".into(),
            record: "r".into(),
            incomplete: None,
            device,
            rows: Vec::new(),
            buckets: Vec::new(),
        }
    }

    #[test]
    fn a_table_of_another_device_or_policy_is_never_written_over() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("t.toml");
        file(device("A")).save_as(&path).unwrap();
        let load = |d: &str| DeviceTable::load(&device(d), limits(), Some(&path), Provenance::Measured);
        let said = load("B").unwrap_err().to_string();
        assert!(said.contains("that of A") && said.contains("--table"), "{said}");
        let table = load("A").unwrap();
        table.writable(&[Policy::COLD_GRAPH]).unwrap();
        let said = table.writable(&["hot+eager".parse().unwrap()]).unwrap_err().to_string();
        assert!(said.contains("cold+graph"), "{said}");
    }

    #[test]
    fn a_damaged_table_that_was_named_is_an_error_and_a_missing_one_is_new() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("t.toml");
        let load = || DeviceTable::load(&device("A"), limits(), Some(&path), Provenance::Measured);
        assert!(load().unwrap().file().is_none());
        std::fs::write(&path, "schema = 1\nnonsense").unwrap();
        assert!(load().unwrap_err().to_string().contains("t.toml"));
    }

    /// R24 on recorded times: each choice made without a shape is held against what was best there.
    #[test]
    fn recorded_shapes_of_an_h200_bear_out_no_bucket_so_that_other_shapes_run_their_default() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reports/published/2026-11-21-h200-tune-formats");
        let run = reports::load_kernel_run(Path::new(folder)).unwrap().record;
        let mut table = file(device("A"));
        add_buckets(&mut table, &run, Policy::COLD_GRAPH);
        assert_eq!(table.buckets, []);
        for op in ["gemv_q8_0", "gemv_q4_k", "gemv_q6_k"] {
            let of_op = run.results.iter().filter(|r| r.workload.op == op);
            let times: Vec<ShapeTimes> = of_op
                .map(|r| ShapeTimes {
                    shape: r.workload.shape.clone(),
                    median_ns: r.ranking.iter().map(|row| (row.variant.clone(), row.median_ns)).collect(),
                })
                .collect();
            let regret = variants::leave_one_out(&times).unwrap();
            // Good at some shapes, a fifth or a third slower at others: that is what the rule is for.
            assert!(regret.each.len() == 8 && regret.each.iter().any(|(_, r)| *r < 0.1), "{op}: {regret:?}");
            assert!(regret.p95 > variants::MOST_REGRET, "{op}: {regret:?}");
        }
    }
}
