//! What the verbs of kernels share before anything is run: the device, its table and its spaces.

use std::path::Path;

use harness_spec::Target;
use harness_spec::record::Provenance;
use variants::Backend;

use super::timing::Bench;
use crate::args::DeviceArgs;
use crate::exit::{Failure, usage};
use crate::registry_spaces::{self, RegistrySpaces};
use crate::tables::DeviceTable;
use crate::target::WorkerTarget;
use crate::target::open::{self, Checks, Place};

/// A device that is open, with the registry as it sees it.
pub struct Opened {
    /// The device.
    pub target: WorkerTarget,
    /// The registry.
    pub spaces: RegistrySpaces,
    /// Measured, or simulated.
    pub provenance: Provenance,
}

impl Opened {
    /// Ready to be timed.
    pub fn bench(self) -> Bench {
        Bench { target: self.target, spaces: Box::new(self.spaces), provenance: self.provenance }
    }
}

/// Opens a device with the registry, the user's kernels and the table: that of `table`, else that of the device.
///
/// # Errors
/// A folder of kernels that is none, a device that is not there, a table that is none.
pub fn open(place: Place, a: &DeviceArgs, checks: Checks, table: Option<&Path>) -> Result<Opened, Failure> {
    // A mistake in a space costs nothing yet: it is found before the device is opened.
    let registry = registry_spaces::load(&a.kernels).map_err(usage)?;
    let target = open::start(place, a, checks)?;
    let device = target.device();
    let backend = if device.backend == "cpu" { Backend::Cpu } else { Backend::Cuda };
    let provenance = if target.simulated() { Provenance::Simulated } else { Provenance::Measured };
    let table = DeviceTable::load(&device, target.limits(), table, provenance)?;
    // A folder of the user's may have what the program lacks, so that this is asked of both together.
    let passed_over = table.file().and_then(|file| file.passed_over(&registry));
    for said in table.said.iter().chain(&passed_over) {
        eprintln!("note: {said}");
    }

    let spaces = RegistrySpaces::new(registry, backend, target.limits(), table);
    Ok(Opened { target, spaces, provenance })
}
