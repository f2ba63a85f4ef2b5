//! Machine code of variants, each compiled once a process, ahead of the device where there is time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use harness_spec::{CellFailure, Stage, VariantId};
use variants::KernelSpec;

use crate::cuda::compile::{Arch, Compiler, Cubin, is_expected};
use crate::cuda::kernel::compile;
use crate::parallel::parallel;

type Slot = Arc<OnceLock<Result<Arc<Cubin>, CellFailure>>>;

/// Compiled variants for one architecture.
#[derive(Debug)]
pub struct Builds {
    compiler: Compiler,
    arch: Arch,
    slots: Mutex<HashMap<VariantId, Slot>>,
    stopped: AtomicBool,
}

impl Builds {
    /// None yet.
    pub fn new(compiler: Compiler, arch: Arch) -> Arc<Builds> {
        Arc::new(Builds { compiler, arch, slots: Mutex::default(), stopped: AtomicBool::new(false) })
    }

    /// The compiler behind it.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The code of a variant. Whoever asks while another thread compiles it waits for that thread.
    ///
    /// # Errors
    /// As [`compile`], the same answer each time.
    pub fn get(&self, spec: &KernelSpec, id: &VariantId) -> Result<Arc<Cubin>, CellFailure> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(id.clone()).or_default().clone()
        };
        slot.get_or_init(|| {
            let cubin = compile(&self.compiler, spec, id, self.arch)?;
            // A kernel that does not do what its name says would be timed under a false one (W24).
            let (declared, found) = (spec.instruction.name(), &cubin.resources.instructions);
            if !is_expected(declared, found) {
                let found = if found.is_empty() { "none".to_owned() } else { found.join(",") };
                let message = format!("declares instruction class {declared} and its machine code has {found}");
                return Err(CellFailure::new(Stage::Check, message));
            }
            Ok(Arc::new(cubin))
        })
        .clone()
    }

    /// Compiles many on all processors and returns when all are there.
    pub fn all(&self, wanted: &[(KernelSpec, VariantId)]) {
        parallel(wanted, |(spec, id)| drop(self.get(spec, id)));
    }

    /// Compiles many on all processors and returns at once.
    pub fn ahead(self: &Arc<Builds>, wanted: Vec<(KernelSpec, VariantId)>) {
        let builds = self.clone();
        // Nobody waits for it: whoever needs a variant asks for it and waits for that one.
        std::thread::spawn(move || {
            parallel(&wanted, |(spec, id)| {
                if !builds.stopped.load(Ordering::Relaxed) {
                    drop(builds.get(spec, id));
                }
            });
        });
    }

    /// Ends what was begun ahead after the variants in hand.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
