//! Weights that were packed and sent before: the variants of a kernel, and kernels of one layout, share them.

use std::sync::Arc;

use harness_spec::{CellFailure, Workload};
use variants::{Activations, KernelSpec, Layout};

use super::driver::{Buffer, Stream};
use crate::op::{Arg, Op, Problem};

/// The arguments of a problem, with the weights on the device.
#[derive(Debug)]
pub struct Packed {
    /// What the kernel takes; bytes of weights are empty where `weights` has them.
    pub args: Vec<Arg>,
    /// The weights by the place of their argument.
    pub weights: Vec<(usize, Buffer)>,
}

#[derive(Debug)]
struct Entry {
    // Kept, so that no other weights can come to lie at this address.
    blocks: Arc<[u8]>,
    workload: Workload,
    case: String,
    layout: Option<Layout>,
    form: Option<Activations>,
    kernel: String,
    packed: Arc<Packed>,
    bytes: usize,
    used: u64,
}

/// Packed weights up to a number of bytes; those that were not used for longest go first.
#[derive(Debug)]
pub struct PackedWeights {
    entries: Vec<Entry>,
    budget: usize,
    clock: u64,
}

impl PackedWeights {
    /// None yet; at most `budget` bytes on the device and as many of blocks on the host.
    pub fn new(budget: usize) -> PackedWeights {
        PackedWeights { entries: Vec::new(), budget, clock: 0 }
    }

    /// The arguments of a problem, packed now or before.
    ///
    /// # Errors
    /// Where the layout does not take the weights, or the device has no room.
    pub fn get(
        &mut self,
        stream: &Stream,
        op: &dyn Op,
        problem: &Problem,
        spec: &KernelSpec,
    ) -> Result<Arc<Packed>, CellFailure> {
        let Some((_, _, _, blocks)) = problem.weights() else {
            return Ok(Arc::new(Packed { args: op.arguments(problem, spec)?, weights: Vec::new() }));
        };
        self.clock += 1;
        let found = self.entries.iter_mut().find(|e| {
            // Weights and case together are this very problem.
            Arc::ptr_eq(&e.blocks, blocks)
                && (&e.workload, &e.case) == (&problem.workload, &problem.case)
                && (e.layout, e.form) == (spec.layout, spec.activations)
                // Arguments of products alone are the same for all kernels of a layout: others take scratch memory of their own.
                && (op.name().starts_with("gemv_") || e.kernel == spec.name)
        });
        if let Some(entry) = found {
            entry.used = self.clock;
            return Ok(entry.packed.clone());
        }
        let mut packed = Packed { args: op.arguments(problem, spec)?, weights: Vec::new() };
        let mut bytes = 0;
        for (i, arg) in packed.args.iter_mut().enumerate() {
            if let Arg::In { bytes: contents, weights: true } = arg {
                bytes += contents.len();
                packed.weights.push((i, Buffer::of(stream, contents, "weights")?));
                *contents = Arc::from([]);
            }
        }
        let packed = Arc::new(packed);
        let held = |entries: &[Entry]| entries.iter().map(|e| e.bytes).sum::<usize>();
        while !self.entries.is_empty() && held(&self.entries) + bytes > self.budget {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map_or(0, |(i, _)| i);
            self.entries.swap_remove(oldest);
        }
        self.entries.push(Entry {
            blocks: blocks.clone(),
            workload: problem.workload.clone(),
            case: problem.case.clone(),
            layout: spec.layout,
            form: spec.activations,
            kernel: spec.name.clone(),
            packed: packed.clone(),
            bytes,
            used: self.clock,
        });
        Ok(packed)
    }
}
