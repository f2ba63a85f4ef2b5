//! Spaces of the registry: the kernels of the program, and those of `--kernels`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use harness_spec::{VariantId, Workload};
use kernels::op::op;
use variants::{Backend, KernelSpec, Limits, Registry, registry};

use crate::kernel_plan::{Enumerated, SpaceError, Spaces};
use crate::tables::DeviceTable;

/// The op whose kernels read bytes and do nothing else.
const FLOOR_OP: &str = "stream_read";
/// Configurations of the floor that are timed; the fastest of them counts.
const MOST_FLOORS: usize = 12;

/// Fewer bytes than this are read within the time of a launch on a GPU, and a floor would only be measured with much effort.
const LEAST_ON_GPU: u64 = 128 << 10;

/// The registry as a tuner sees it on one device.
pub struct RegistrySpaces {
    registry: Registry,
    backend: Backend,
    limits: Limits,
    table: DeviceTable,
    /// Only kernels of the user's folders, and the plain ones that they are compared with.
    only_users: bool,
}

/// The registry with the kernels of these folders.
///
/// # Errors
/// A folder or file that is no space, with its place and the fix.
pub fn load(folders: &[PathBuf]) -> anyhow::Result<Registry> {
    let mut all = registry().clone();
    for folder in folders {
        all.load_dir(folder)?;
    }
    Ok(all)
}

impl RegistrySpaces {
    /// Spaces of a device.
    pub fn new(registry: Registry, backend: Backend, limits: Limits, table: DeviceTable) -> RegistrySpaces {
        RegistrySpaces { registry, backend, limits, table, only_users: false }
    }

    /// The same with the user's kernels alone.
    pub fn only_users(mut self) -> RegistrySpaces {
        self.only_users = true;
        self
    }

    /// The ops that have a kernel here and a contract to check it against.
    pub fn ops(&self) -> Vec<&str> {
        let spaces = self.registry.spaces().iter().filter(|s| op(&s.op).is_some());
        spaces.filter(|s| s.kernels.iter().any(|k| self.takes(k))).map(|s| s.op.as_str()).collect()
    }

    /// The table of the device.
    pub fn table(&self) -> &DeviceTable {
        &self.table
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn takes(&self, kernel: &KernelSpec) -> bool {
        kernel.backend == self.backend && (!self.only_users || kernel.folder.is_some())
    }

    /// The fewest bytes that have a floor. On the processor every read has one: small ones come from its caches, faster than
    /// memory could give them, and only the floor tells how fast that is.
    fn least_floor(&self) -> u64 {
        match self.backend {
            Backend::Cuda => LEAST_ON_GPU,
            _ => 0,
        }
    }

    /// A pure read of so many bytes.
    fn floor(&self, bytes: u64) -> Vec<(VariantId, Workload)> {
        let Some(space) = self.registry.space(FLOOR_OP) else { return Vec::new() };
        // Whole vectors of 16 bytes: what any reader reads at least.
        let workload = Workload::of(FLOOR_OP, [("BYTES", bytes.next_multiple_of(16))]);
        let here = |k: &&KernelSpec| k.backend == self.backend;
        // The plain read is slow and counts only where there is no other.
        let tuned = space.kernels.iter().filter(here).any(|k| !k.baseline);
        let kernels = space.kernels.iter().filter(here).filter(|k| !(tuned && k.baseline));
        let all = kernels.flat_map(|k| k.variants(&workload.shape, &self.limits).admitted);
        all.take(MOST_FLOORS).map(|v| (v, workload.clone())).collect()
    }
}

impl Spaces for RegistrySpaces {
    fn enumerate(&self, workload: &Workload) -> Result<Enumerated, SpaceError> {
        let known = || self.ops().join(", ");
        let space = self.registry.space(&workload.op);
        let (Some(space), Some(contract)) = (space, op(&workload.op)) else {
            return Err(SpaceError::UnknownOp { op: workload.op.clone(), known: known() });
        };
        check_dims(workload, contract.dims())?;
        let kernels: Vec<&KernelSpec> = space.kernels.iter().filter(|k| self.takes(k)).collect();
        if kernels.is_empty() {
            let backend = self.backend.to_string();
            return Err(SpaceError::NoKernel { op: workload.op.clone(), backend });
        }
        let mut out = Enumerated::default();
        let mut floor_bytes = None;
        for kernel in kernels {
            let all = kernel.variants(&workload.shape, &self.limits);
            if kernel.is_library() {
                out.library.extend(all.admitted);
                out.pruned.extend(all.pruned);
                continue;
            }
            let bytes = contract.bytes(&workload.shape, kernel).0;
            let own = kernel.default_variant();
            if all.admitted.contains(&own) {
                out.defaults.push(own.clone());
                // The last that may be a default is the default, by the rule of the space.
                if kernel.role.may_be_default() && !kernel.baseline || out.default.is_none() {
                    out.default = Some(own.clone());
                    floor_bytes = Some(bytes);
                }
                if kernel.baseline && out.baseline.is_none() {
                    out.baseline = Some(own);
                }
            }
            for v in &all.admitted {
                out.predicted_ns.insert(v.clone(), bytes as f64 / fill(kernel, v, workload, &self.limits));
            }
            out.admitted.extend(all.admitted);
            out.pruned.extend(all.pruned);
        }
        if let Some(bytes) = floor_bytes.filter(|&b| workload.op != FLOOR_OP && b >= self.least_floor()) {
            out.floor = self.floor(bytes);
        }
        Ok(out)
    }

    fn incumbent(&self, workload: &Workload) -> Option<VariantId> {
        self.table.row(workload)
    }
}

/// Share of the device that a launch fills, in its last wave too: what a roofline knows of a configuration beside its
/// bytes. 1 where there are no launches.
fn fill(kernel: &KernelSpec, v: &VariantId, workload: &Workload, limits: &Limits) -> f64 {
    let Ok(g) = kernel.geometry(v, &workload.shape, limits) else { return 1.0 };
    let product = |d: [u32; 3]| d.iter().map(|&x| f64::from(x)).product::<f64>();
    let (blocks, threads) = (product(g.grid), product(g.block));
    let at_once = (f64::from(limits.threads_per_sm) / threads).floor().clamp(1.0, 32.0) * f64::from(limits.sms.max(1));
    let waves = blocks / at_once;
    (waves / waves.ceil()).clamp(0.01, 1.0)
}

/// Dimensions that are no sizes: which elements RoPE turns together, and where a prompt stands in its context.
const ZERO_IS_A_CHOICE: [&str; 2] = ["PAIRING", "POS"];

/// That a workload has the dimensions of its op and no other. M may be left out and is 1 then.
///
/// # Errors
/// [`SpaceError::Dimensions`] names the first that is wrong.
pub fn check_dims<D: AsRef<str>>(workload: &Workload, dims: &[D]) -> Result<(), SpaceError> {
    let needs: BTreeSet<&str> = dims.iter().map(AsRef::as_ref).collect();
    let given: BTreeMap<&str, u64> = workload.shape.0.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let missing = needs.iter().find(|d| **d != "M" && !given.contains_key(*d));
    let unknown = given.keys().find(|d| !needs.contains(*d));
    let zero = given.iter().find(|(d, v)| **v == 0 && !ZERO_IS_A_CHOICE.contains(*d)).map(|(d, _)| d);
    let also = match (missing, unknown, zero) {
        (Some(d), ..) => format!(", and {d} is missing"),
        (_, Some(d), _) => format!(", and has no {d}"),
        (.., Some(d)) => format!(", and {d} is 0"),
        (None, None, None) => return Ok(()),
    };
    let needs = dims.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    Err(SpaceError::Dimensions { workload: workload.clone(), needs, also })
}
