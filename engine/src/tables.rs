//! Which table the kernels are taken from: that of this device, one that was asked for, or none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use harness_spec::{DeviceKey, VariantId, Workload};
use kernels::cpu::{device_key, last_level_cache};
use kernels::cuda::driver::Facts;
use kernels::cuda::kernel::limits as cuda_limits;
use variants::{Backend, Isa, Limits, Row, Table, TableFile};

use crate::generate::TableChoice;
use crate::model::LoadError;

/// The folders of this user's tables, the first of them before the next and all before the built-in ones.
pub fn folders() -> Vec<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "edgellm");
    dirs.map(|dirs| dirs.data_dir().join("tables")).into_iter().collect()
}

/// The table of a choice for so many threads of a level, and what there is to say of it. A table that is absent, damaged
/// or of another device means the defaults, which are right everywhere, only slower.
///
/// # Errors
/// [`LoadError::Table`] where a file that was asked for by its path cannot be used, [`LoadError::TableBackend`] where it is
/// that of another kind of device.
pub(crate) fn choose(choice: TableChoice, isa: Isa, threads: usize) -> Result<(Table, Option<String>), LoadError> {
    match choice {
        // Neither depends on the cache or on the number of threads, and so their hashes do not either.
        TableChoice::Default => Ok((Table::default_for(isa), None)),
        TableChoice::Baseline => Ok((Table::baseline(), None)),
        TableChoice::Device => Ok(of_device(&device_key(isa, threads), Limits::cpu(isa, last_level_cache()))),
        TableChoice::File(path) => {
            of_file(path, &device_key(isa, threads), Backend::Cpu, Limits::cpu(isa, last_level_cache()))
        }
    }
}

/// The same for a CUDA device of these facts and this key ([`Device::key`](kernels::cuda::driver::Device::key)).
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_on_cuda(
    choice: TableChoice,
    key: &DeviceKey,
    facts: &Facts,
) -> Result<(Table, Option<String>), LoadError> {
    let limits = cuda_limits(facts);
    match choice {
        TableChoice::Default => Ok((Table::default_on(Backend::Cuda, limits), None)),
        TableChoice::Baseline => Ok((Table::baseline_on(Backend::Cuda, limits), None)),
        TableChoice::Device => Ok(of_device(key, limits)),
        TableChoice::File(path) => of_file(path, key, Backend::Cuda, limits),
    }
}

fn of_device(device: &DeviceKey, limits: Limits) -> (Table, Option<String>) {
    let (table, loaded) = Table::for_device(device, limits, &folders());
    let note = loaded.is_default().then(|| loaded.to_string()).or_else(|| passed_over(table.file().as_ref()?));
    (table, note)
}

fn of_file(
    path: &Path,
    device: &DeviceKey,
    backend: Backend,
    limits: Limits,
) -> Result<(Table, Option<String>), LoadError> {
    let file = TableFile::load(path).map_err(LoadError::Table)?;
    if file.device.backend != device.backend {
        let (found, here) = (format!("{} ({})", file.device.name, file.device.backend), backend.name());
        return Err(LoadError::TableBackend { path: path.to_owned(), found, here });
    }
    let note = (file.device != *device).then(|| {
        let (there, here) = (&file.device.name, &device.name);
        format!("the table {} was measured on {there} under other conditions than {here} has now", path.display())
    });
    let note = match (note, passed_over(&file)) {
        (Some(note), Some(rows)) => Some(format!("{note}; {rows}")),
        (note, rows) => note.or(rows),
    };
    Ok((Table::of_file(file, limits), note))
}

/// What there is to say of rows that name what this program does not have.
fn passed_over(file: &TableFile) -> Option<String> {
    file.passed_over(variants::registry())
}

/// What there is to say of a model on a CUDA device whose table was measured with other models (R24): how many products and
/// attentions of a token it has no row for, and the first of them. A row of attention counts for every length: a class
/// without one runs that of the nearest.
pub(crate) fn unmeasured(file: &TableFile, steps: &[(Workload, VariantId)]) -> Option<String> {
    let tuned = |op: &str| {
        let families = ["gemv_", "qkv_rope_", "gate_up_", "norm_logits_", "attn_token"];
        families.iter().any(|family| op.starts_with(family))
    };
    let is_row_of = |row: &Row, of: &Workload| {
        let mut dims = of.shape.0.iter().filter(|(name, _)| *name != "LEN");
        row.op == of.op && dims.all(|(name, value)| row.shape.get(name) == Some(*value))
    };
    let mut all: Vec<&Workload> = Vec::new();
    for (workload, _) in steps.iter().filter(|(workload, _)| tuned(&workload.op)) {
        if !all.contains(&workload) {
            all.push(workload);
        }
    }
    let lacks: Vec<_> = all.iter().filter(|w| !file.rows.iter().any(|row| is_row_of(row, w))).collect();
    let first = lacks.first()?;
    Some(format!(
        "the table of {} has no row for {} of the {} products and attentions of a token of this model, such as {first}: \
         they run default kernels; `bench tune --policy cold+in_engine` measures which are faster",
        file.device.name,
        lacks.len(),
        all.len()
    ))
}

/// Logs a note the first time that this process hears it: a server loads models again and again.
pub(crate) fn say_once(note: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(note.to_owned()) {
        tracing::warn!("{note}");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use harness_spec::{Policy, Shape as Dims};
    use variants::{Layout, TABLE_SCHEMA};

    use super::*;

    fn facts() -> Facts {
        Facts {
            name: "A GPU".to_owned(),
            uuid: String::new(),
            cc: 90,
            sms: 132,
            l2: 50 << 20,
            smem: 227 << 10,
            threads_per_sm: 2048,
            memory: 1 << 36,
            driver_cuda: (13, 0),
        }
    }

    pub(crate) fn key(backend: &str, name: &str) -> DeviceKey {
        let conditions = [("driver".to_owned(), "580".to_owned())].into();
        DeviceKey { backend: backend.to_owned(), name: name.to_owned(), arch: "sm_90".to_owned(), conditions }
    }

    /// A table without rows.
    pub(crate) fn table_file(device: DeviceKey) -> TableFile {
        TableFile {
            schema: TABLE_SCHEMA,
            policy: Policy::COLD_GRAPH,
            date: "2026-01-01T00:00:00Z".to_owned(),
            tool: "a test".to_owned(),
            record: "a test".to_owned(),
            incomplete: None,
            device,
            rows: Vec::new(),
            buckets: Vec::new(),
        }
    }

    /// A row that says no more than what runs a workload.
    pub(crate) fn row(workload: Workload, variant: VariantId, layout: Option<Layout>) -> Row {
        Row {
            op: workload.op,
            shape: workload.shape,
            layout,
            variant,
            median_ns: 1.0,
            ci_ns: None,
            runner_up: None,
            gap_to_runner_up: None,
            reason: "a test".to_owned(),
            key: "a test".to_owned(),
            record: None,
            policy: None,
            quarantined: None,
        }
    }

    fn file(folder: &Path, device: DeviceKey) -> TableChoice {
        let path = folder.join("table.toml");
        std::fs::write(&path, table_file(device).to_text()).unwrap();
        TableChoice::File(Box::leak(path.into()))
    }

    #[test]
    fn every_choice_on_a_gpu_is_a_table_of_cuda_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let here = key("cuda", "A GPU");
        let shape = harness_spec::Shape::of([("N", 4096), ("K", 4096)]);
        let from_file = file(folder.path(), here.clone());
        for choice in [TableChoice::Default, TableChoice::Baseline, TableChoice::Device, from_file] {
            let (table, note) = choose_on_cuda(choice, &here, &facts()).unwrap();
            let chosen = table.choose("gemv_q4_0", &shape).unwrap();
            assert_eq!(chosen.spec.backend, Backend::Cuda, "{choice:?}");
            assert_eq!(chosen.spec.baseline, choice == TableChoice::Baseline, "{choice:?}");
            // Nobody has measured this GPU, which is said; what was asked for by name is not remarked on.
            assert_eq!(note.is_some(), choice == TableChoice::Device, "{note:?}");
        }
    }

    #[test]
    fn a_table_of_another_gpu_is_used_where_it_was_named_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let choice = file(folder.path(), key("cuda", "Another GPU"));
        let (_, note) = choose_on_cuda(choice, &key("cuda", "A GPU"), &facts()).unwrap();
        assert!(note.is_some_and(|note| note.contains("Another GPU") && note.contains("table.toml")));
    }

    #[test]
    fn a_table_of_another_kind_of_device_is_refused_on_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let for_cuda = file(folder.path(), key("cuda", "A GPU"));
        let said = choose(for_cuda, Isa::Scalar, 1).unwrap_err().to_string();
        assert!(said.contains("A GPU (cuda)") && said.contains("loaded for cpu"), "{said}");
        let for_cpu = file(folder.path(), key("cpu", "A processor"));
        let said = choose_on_cuda(for_cpu, &key("cuda", "A GPU"), &facts()).unwrap_err().to_string();
        assert!(said.contains("A processor (cpu)") && said.contains("loaded for cuda"), "{said}");
    }

    #[test]
    fn products_and_attention_that_a_table_never_saw_are_counted_and_one_is_named() {
        let step = |op: &str, shape: &[(&str, u64)], variant: &str| {
            (Workload::of(op, shape.iter().copied()), format!("{op}/{variant}@cuda").parse::<VariantId>().unwrap())
        };
        let product = step("gemv_add_q4_0", &[("N", 64), ("K", 64)], "plain");
        let attention = step("attn_token", &[("DIM", 64), ("LEN", 2048)], "plain");
        let steps = [product.clone(), step("add", &[("COUNT", 64)], "plain"), attention.clone(), product.clone()];
        let mut file = table_file(key("cuda", "A GPU"));
        let said = unmeasured(&file, &steps).unwrap();
        assert!(
            said.contains("no row for 2 of the 2") && said.contains("gemv_add_q4_0") && said.contains("A GPU"),
            "{said}"
        );
        let row = |(workload, variant): &(Workload, VariantId), shape: Dims| {
            row(Workload { shape, ..workload.clone() }, variant.clone(), None)
        };
        // Of attention a row of another class of lengths.
        file.rows = vec![row(&attention, Dims::of([("DIM", 64), ("LEN", 512)]))];
        assert!(unmeasured(&file, &steps).unwrap().contains("no row for 1 of the 2"));
        file.rows.push(row(&product, product.0.shape.clone()));
        assert_eq!(unmeasured(&file, &steps), None);
    }
}
