//! A table: the variant chosen for each op and shape on one device.
//!
//! What runs, in this order: a row of exactly this shape; a bucket that covers it; the default of the space; the plain
//! kernel. Each must be in the registry, run on the device and hold its constraints, and must not be in quarantine.
//! An op or shape that a table does not know runs its default: never a guess.

mod bucket;
mod built_in;
mod file;
mod memo;
mod unknown;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use harness_spec::{DType, DeviceKey, Shape, VariantId};
use sha2::{Digest, Sha256};

use crate::registry::gemv_op;
use crate::{Activations, Backend, Isa, KernelSpec, Limits, registry};

pub use bucket::{Bucket, LEAST_SHAPES, MOST_REGRET, Regret, ShapeTimes, buckets, leave_one_out};
pub use file::{Row, TABLE_SCHEMA, TableError, TableFile};
use memo::{Memo, same_shape};

/// Why a variant was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// A row of exactly this shape.
    Row,
    /// A bucket that covers it.
    Bucket,
    /// The default of the space.
    Default,
    /// Nothing else is left, or the table is that of the plain kernels.
    Baseline,
}

/// What runs an op at a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel.
    pub spec: &'static KernelSpec,
    /// Its variant.
    pub variant: VariantId,
    /// Why this one.
    pub from: ChosenBy,
}

/// How the table of a device was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// There is one.
    Found {
        /// Where; absent for a built-in table.
        path: Option<PathBuf>,
    },
    /// There is none.
    Unknown {
        /// The device.
        device: String,
    },
    /// There is one of the same name, made under other conditions.
    Foreign {
        /// Where.
        path: String,
        /// What differs.
        differences: String,
    },
    /// There is one that cannot be used.
    Corrupt {
        /// Why.
        error: TableError,
    },
}

impl Loaded {
    /// Whether the defaults run because there is no table that fits, which is said once.
    pub const fn is_default(&self) -> bool {
        !matches!(self, Loaded::Found { .. })
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let defaults = "every op runs its default kernel; `bench tune` measures which are faster";
        match self {
            Loaded::Found { path: Some(path) } => write!(f, "kernels by {}", path.display()),
            Loaded::Found { path: None } => write!(f, "kernels by the built-in table of this device"),
            Loaded::Unknown { device } => write!(f, "no table for {device}: {defaults}"),
            Loaded::Foreign { path, differences } => {
                write!(f, "the table {path} was made under other conditions ({differences}): {defaults}")
            }
            Loaded::Corrupt { error } => write!(f, "{error}; until then every op runs its default kernel"),
        }
    }
}

/// The tables that the program carries, by where they lie in its sources.
pub fn built_in_tables() -> impl Iterator<Item = (String, Result<TableFile, TableError>)> {
    built_in::all().map(|(name, text)| {
        let path = built_in_path(name);
        let file = TableFile::parse(&path, text);
        (path, file)
    })
}

fn built_in_path(file_name: &str) -> String {
    format!("variants/tables/{file_name}")
}

/// Which variant runs each op.
#[derive(Clone)]
pub struct Table(Arc<Inner>);

struct Inner {
    limits: Limits,
    backend: Backend,
    baseline: bool,
    file: Option<TableFile>,
    /// Where the rows of an op and shape are: their hash and index, sorted.
    index: Vec<(u64, usize)>,
    failed: Mutex<Vec<Failed>>,
    memo: Memo,
    hash: OnceLock<String>,
}

/// A variant that failed since the table was loaded.
struct Failed {
    op: String,
    shape: Shape,
    variant: VariantId,
    reason: String,
}

impl Failed {
    fn is(&self, op: &str, shape: &Shape, variant: &VariantId) -> bool {
        self.op == op && self.variant == *variant && same_shape(&self.shape, shape)
    }
}

impl Table {
    fn new(backend: Backend, limits: Limits, baseline: bool, file: Option<TableFile>) -> Table {
        let rows = file.iter().flat_map(|f| &f.rows);
        let mut index: Vec<_> = rows.enumerate().map(|(i, row)| (memo::hash(&row.op, &row.shape), i)).collect();
        index.sort_unstable();
        let table = Table(Arc::new(Inner {
            limits,
            backend,
            baseline,
            file,
            index,
            failed: Mutex::default(),
            memo: Memo::new(),
            hash: OnceLock::new(),
        }));
        // Rows are resolved ahead, so that the first token pays for none.
        let rows = table.0.file.iter().flat_map(|f| &f.rows);
        rows.for_each(|row| {
            table.choose(&row.op, &row.shape);
        });
        table
    }

    /// The best kernel of every op that runs on this instruction set level.
    pub fn default_for(isa: Isa) -> Table {
        Table::new(Backend::Cpu, Limits::cpu(isa, 0), false, None)
    }

    /// The default of every op on a device.
    pub fn default_on(backend: Backend, limits: Limits) -> Table {
        Table::new(backend, limits, false, None)
    }

    /// Every op on its plain kernel, on any processor: the embedded peer, and what every other kernel is compared with.
    pub fn baseline() -> Table {
        Table::baseline_on(Backend::Cpu, Limits::cpu(Isa::Scalar, 0))
    }

    /// Every op on its plain kernel on a device.
    pub fn baseline_on(backend: Backend, limits: Limits) -> Table {
        Table::new(backend, limits, true, None)
    }

    /// The table of a file on a device. That it is the device of the file is for the caller to say.
    pub fn of_file(file: TableFile, limits: Limits) -> Table {
        let backend = if file.device.backend == Backend::Cuda.name() { Backend::Cuda } else { Backend::Cpu };
        Table::new(backend, limits, false, Some(file))
    }

    /// The table of a device: the first of these folders that has one, else the built-in one, else the defaults, with what
    /// became of it. A damaged file or one made under other conditions is passed over, never an error.
    pub fn for_device(device: &DeviceKey, limits: Limits, folders: &[PathBuf]) -> (Table, Loaded) {
        let name = TableFile::file_name(device);
        let on_disk = folders.iter().map(|f| f.join(&name)).filter(|p| p.exists());
        let on_disk = on_disk.map(|path| (path.display().to_string(), TableFile::load(&path), Some(path)));
        let embedded = built_in::text(&name).map(|text| {
            let path = built_in_path(&name);
            (path.clone(), TableFile::parse(&path, text), None)
        });
        let mut passed_over = None;
        for (name, file, path) in on_disk.chain(embedded) {
            let problem = match file {
                Ok(file) if file.device == *device => return (Table::of_file(file, limits), Loaded::Found { path }),
                Ok(file) => Loaded::Foreign { path: name, differences: differences(&file.device, device) },
                Err(error) => Loaded::Corrupt { error },
            };
            passed_over.get_or_insert(problem);
        }
        let backend = if device.backend == Backend::Cuda.name() { Backend::Cuda } else { Backend::Cpu };
        let loaded = passed_over.unwrap_or_else(|| Loaded::Unknown { device: device.name.clone() });
        (Table::default_on(backend, limits), loaded)
    }

    /// Whether every op runs its plain kernel.
    pub fn is_baseline(&self) -> bool {
        self.0.baseline
    }

    /// The instruction set level that the table was made for.
    pub fn isa(&self) -> Isa {
        self.0.limits.isa.unwrap_or(Isa::Scalar)
    }

    /// The kernel of an op without weights, on a machine of level `isa`.
    pub fn kernel(&self, op: &str, isa: Isa) -> Option<&'static KernelSpec> {
        let limits = self.limits_at(isa);
        let kernels = &registry().space(op)?.kernels;
        let runs = |k: &&KernelSpec| k.backend == self.0.backend && k.runs_on(&limits).is_ok();
        let chosen = |k: &&KernelSpec| if self.0.baseline { k.baseline } else { k.role.may_be_default() };
        kernels.iter().rfind(|k| runs(k) && chosen(k))
    }

    /// The kernel that multiplies `[n, k]` weights of `dtype` on a machine of level `isa`, and its variant.
    ///
    /// `exact` leaves out the kernels that round their activations.
    pub fn gemv(&self, dtype: DType, n: usize, k: usize, isa: Isa, exact: bool) -> (&'static KernelSpec, VariantId) {
        let shape = Shape::of([("N", n as u64), ("K", k as u64)]);
        let fits = |k: &KernelSpec| k.dtypes.contains(&dtype) && !(exact && k.activations != Some(Activations::F32));
        let choice = self
            .decide(gemv_op(dtype), &shape, &self.limits_at(isa), &fits)
            .expect("a test proves that every type has a plain kernel, and plain kernels are exact and take any shape");
        (choice.spec, choice.variant)
    }

    /// What runs an op at a shape; `None` where no kernel of the op takes it on this device. A look-up that was made before,
    /// or that the table has a row for, allocates nothing and takes no lock.
    pub fn choose(&self, op: &str, shape: &Shape) -> Option<&Choice> {
        self.0.memo.get(op, shape).or_else(|| {
            let choice = self.decide(op, shape, &self.0.limits, &|_| true)?;
            Some(self.0.memo.add(op, shape, choice))
        })
    }

    /// Takes a variant that failed out of service at a shape (R25): from now on the next row runs, in the end the plain
    /// kernel. True the first time, so that it is said once.
    pub fn quarantine(&self, op: &str, shape: &Shape, variant: &VariantId, reason: &str) -> bool {
        let mut failed = self.failed();
        if failed.iter().any(|f| f.is(op, shape, variant)) {
            return false;
        }
        let (shape_of, variant, reason) = (shape.clone(), variant.clone(), reason.to_owned());
        failed.push(Failed { op: op.to_owned(), shape: shape_of, variant, reason });
        drop(failed);
        if let Some(choice) = self.decide(op, shape, &self.0.limits, &|_| true) {
            self.0.memo.replace(op, shape, choice);
        }
        true
    }

    fn failed(&self) -> MutexGuard<'_, Vec<Failed>> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with what was put in quarantine since it was loaded, to be saved; `None` for a table without a file.
    pub fn file(&self) -> Option<TableFile> {
        let mut file = self.0.file.clone()?;
        for failed in self.failed().iter() {
            for row in file.rows.iter_mut().filter(|r| failed.is(&r.op, &r.shape, &r.variant)) {
                row.quarantined = Some(failed.reason.clone());
            }
        }
        Some(file)
    }

    /// Hash of everything that decides a choice: the rows, the spaces, the device's limits. It is part of every result.
    pub fn hash(&self) -> &str {
        self.0.hash.get_or_init(|| {
            let mut hash = Sha256::new();
            hash.update(format!("{:?} {:?} {}\n", self.0.backend, self.0.limits, self.0.baseline));
            for (op, kernel) in registry().kernels() {
                hash.update(format!("{op} {}\n", kernel.fingerprint()));
            }
            if let Some(file) = &self.0.file {
                hash.update(file.to_text());
            }
            crate::hex(&hash.finalize())
        })
    }

    fn limits_at(&self, isa: Isa) -> Limits {
        Limits { isa: self.0.limits.isa.map(|own| own.min(isa)), ..self.0.limits }
    }

    /// Goes down the ladder: rows, buckets, default, plain kernel.
    fn decide(&self, op: &str, shape: &Shape, limits: &Limits, fits: &dyn Fn(&KernelSpec) -> bool) -> Option<Choice> {
        let kernels = &registry().space(op)?.kernels;
        let failed = self.failed();
        let may_run = |kernel: &KernelSpec, variant: &VariantId| {
            kernel.backend == self.0.backend
                && !kernel.is_library()
                && fits(kernel)
                && kernel.admits(variant, shape, limits).is_ok()
                && !failed.iter().any(|f| f.is(op, shape, variant))
        };
        let named = |variant: &VariantId, from: ChosenBy| {
            let kernel = kernels.iter().find(|k| k.is_kernel_of(variant))?;
            may_run(kernel, variant).then(|| Choice { spec: kernel, variant: variant.clone(), from })
        };
        let own = |kernel: &'static KernelSpec, from: ChosenBy| {
            let variant = kernel.default_variant();
            may_run(kernel, &variant).then_some(Choice { spec: kernel, variant, from })
        };
        let plain = || kernels.iter().filter(|k| k.baseline).find_map(|k| own(k, ChosenBy::Baseline));
        if self.0.baseline {
            return plain();
        }
        let hash = memo::hash(op, shape);
        let first = self.0.index.partition_point(|(h, _)| *h < hash);
        let here = self.0.index[first..].iter().take_while(|(h, _)| *h == hash);
        let all = self.0.file.as_ref().map_or(&[][..], |f| &f.rows);
        let rows = here.map(|(_, i)| &all[*i]);
        let rows = rows.filter(|r| r.op == op && r.quarantined.is_none() && same_shape(&r.shape, shape));
        let buckets = self.0.file.iter().flat_map(|f| &f.buckets).filter(|b| b.op == op && b.covers(shape));
        rows.filter_map(|r| named(&r.variant, ChosenBy::Row).filter(|c| c.spec.layout == r.layout))
            .chain(buckets.filter_map(|b| named(&b.variant, ChosenBy::Bucket)))
            .next()
            .or_else(|| {
                let defaults = kernels.iter().rev().filter(|k| k.role.may_be_default() && !k.baseline);
                defaults.filter_map(|k| own(k, ChosenBy::Default)).next()
            })
            .or_else(plain)
    }
}

/// What of the device differs, as `driver: 570.1 there, 575.2 here`.
fn differences(there: &DeviceKey, here: &DeviceKey) -> String {
    let fields = |d: &DeviceKey| {
        let mut all = d.conditions.clone();
        all.insert("name".to_owned(), d.name.clone());
        all.insert("arch".to_owned(), d.arch.clone());
        all.insert("backend".to_owned(), d.backend.clone());
        all
    };
    let (there, here) = (fields(there), fields(here));
    let names: std::collections::BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let value = |of: Option<&String>| of.map_or("unknown", |v| v).to_owned();
    let differ = names.into_iter().filter(|name| there.get(*name) != here.get(*name));
    differ
        .map(|name| format!("{name}: {} there, {} here", value(there.get(name)), value(here.get(name))))
        .collect::<Vec<_>>()
        .join("; ")
}

impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        let own = |t: &Table| (t.0.limits, t.0.backend, t.0.baseline);
        own(self) == own(other) && self.file() == other.file()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.file.as_ref().map_or(0, |file| file.rows.len());
        write!(f, "Table({}, {rows} rows{})", self.0.backend, if self.0.baseline { ", plain kernels" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_an_exact_and_a_fast_kernel_at_every_level() {
        for dtype in DType::ALL {
            for isa in Isa::ALL {
                for exact in [false, true] {
                    let (kernel, variant) = Table::default_for(isa).gemv(dtype, 4096, 4096, isa, exact);
                    assert!(isa.runs(kernel.isa) && kernel.is_kernel_of(&variant));
                    assert!(!exact || kernel.activations == Some(Activations::F32));
                }
            }
        }
    }

    #[test]
    fn the_baseline_takes_the_plain_kernel_whatever_the_machine_can_do() {
        for dtype in DType::ALL {
            assert!(Table::baseline().gemv(dtype, 64, 64, Isa::Avx512Vnni, false).0.baseline);
        }
        assert!(Table::baseline().kernel("attn_decode", Isa::Avx512Vnni).unwrap().baseline);
    }

    #[test]
    fn a_lower_level_of_the_machine_limits_the_table() {
        let (kernel, _) = Table::default_for(Isa::Avx512Vnni).gemv(DType::Q4_0, 64, 64, Isa::Avx2, false);
        assert!(kernel.isa <= Isa::Avx2);
    }
}
