//! From an op and a shape to the kernel that runs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use harness_spec::{DType, Shape, VariantId};
use variants::{Activations, Backend, Choice, ChosenBy, KernelSpec, Layout, Limits, Table, gemv_op, registry};

use super::ahead::Planned;
use super::bound::{Bound, BoundKey, LeftOut};
use super::length::in_other_classes;
use super::taken::OnWeights;
use super::{Overlap, Span, Weights};
use crate::cuda::compile::{Arch, Compiler};
use crate::cuda::driver::{Device, Function, Stream};
use crate::cuda::kernel;
use crate::cuda::{Blas, CudaError};
use crate::layout;

/// Which kernels may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Plain kernels on 32-bit activations.
    Plain,
    /// What the table says.
    Table,
}

/// A device with a stream, a compiler and the dispatch table.
#[derive(Debug)]
pub struct Exec {
    stream: Stream,
    pub(super) compiler: Compiler,
    table: Table,
    plain: Table,
    pub(super) limits: Limits,
    pub(super) arch: Arch,
    overlap: Overlap,
    pub(super) bound: Mutex<HashMap<BoundKey, Arc<Bound>>>,
    pub(super) functions: Mutex<HashMap<String, Function>>,
    pub(super) left_out: Mutex<Vec<LeftOut>>,
    pub(super) notes: Mutex<Vec<String>>,
    library: Option<Blas>,
    pub(super) tried: Mutex<HashMap<(String, Shape), Choice>>,
    pub(super) planned: Mutex<Option<Planned>>,
}

impl Exec {
    /// Opens a stream on a device. `arch` replaces the device's own architecture: PTX of an older one is compiled by the
    /// driver, for trying kernels of older devices.
    ///
    /// # Errors
    /// No NVRTC, or the driver's error.
    pub fn new(device: &Arc<Device>, table: Table, arch: Option<Arch>) -> Result<Exec, CudaError> {
        let arch = arch.unwrap_or_else(|| device.arch());
        let limits = Limits { cc: arch.cc, ..kernel::limits(device.facts()) };
        // What it multiplies is multiplied by an own kernel where it is not there.
        let (library, note) = match Blas::open(device) {
            Ok(library) => (Some(library), None),
            Err(e) => (None, Some(e.to_string())),
        };
        let (overlap, overlap_note) = overlap_on(arch);
        Ok(Exec {
            library,
            tried: Mutex::default(),
            planned: Mutex::default(),
            stream: Stream::new(device)?,
            compiler: Compiler::new()?,
            table,
            plain: Table::baseline_on(Backend::Cuda, limits),
            limits,
            arch,
            overlap,
            bound: Mutex::default(),
            functions: Mutex::default(),
            left_out: Mutex::default(),
            notes: Mutex::new(note.into_iter().chain(overlap_note).collect()),
        })
    }

    /// The stream on which everything runs.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn library(&self) -> Option<&Blas> {
        self.library.as_ref()
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        self.stream.device()
    }

    /// The table that kernels are taken from.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Which kernels of a token may start before the one ahead has ended.
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// What there is to say of kernels that could not be used, since the last call.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn of(&self, precision: Precision) -> &Table {
        match precision {
            Precision::Plain => &self.plain,
            Precision::Table => &self.table,
        }
    }

    /// What the table says of an op and a shape. A class of lengths that it has no row for takes that of the nearest.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`].
    pub fn choice(&self, precision: Precision, op: &str, shape: &Shape) -> Result<&Choice, CudaError> {
        let table = self.of(precision);
        let own = table.choose(op, shape);
        if own.is_some_and(|own| own.from == ChosenBy::Default) {
            for other in in_other_classes(shape) {
                let measured = table.choose(op, &other).filter(|choice| choice.from == ChosenBy::Row);
                let fits = |choice: &&Choice| {
                    choice.spec.admits(&choice.variant, shape, &self.limits).is_ok()
                        && !self.is_left_out(op, shape, &choice.variant)
                };
                if let Some(choice) = measured.filter(fits) {
                    return Ok(choice);
                }
            }
        }
        own.ok_or_else(|| CudaError::NoKernel {
            op: op.to_owned(),
            shape: shape.to_string(),
            reason: format!("no kernel of it takes this shape on {}", self.arch),
        })
    }

    /// The layout and the form of activations that the product of a matrix takes; of one that lies in `layout` already,
    /// where it does.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`].
    pub fn product(
        &self,
        precision: Precision,
        dtype: DType,
        n: usize,
        k: usize,
        layout: Option<Layout>,
    ) -> Result<(Layout, Activations), CudaError> {
        let on = OnWeights { dtype: Some(dtype), layout };
        let spec = self.choice_on(precision, gemv_op(dtype), &matrix_shape(n, k), on)?.spec;
        Ok((spec.layout.unwrap_or(Layout::Gguf), spec.activations.unwrap_or(Activations::F32)))
    }

    /// Whether an op of a family has a kernel here that is more than the plain one.
    pub fn has_fast(&self, family: &str, dtype: DType, shape: &Shape) -> bool {
        self.table.choose(&op_of(family, dtype), shape).is_some_and(|choice| !choice.spec.baseline)
    }

    /// The layout in which the head's kernel wants its weights.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`].
    pub fn head_layout(&self, precision: Precision, dtype: DType, n: usize, k: usize) -> Result<Layout, CudaError> {
        let on = OnWeights { dtype: Some(dtype), layout: None };
        let choice = self.choice_on(precision, &op_of("norm_logits", dtype), &matrix_shape(n, k), on)?;
        Ok(choice.spec.layout.unwrap_or(Layout::Gguf))
    }

    /// The variant that somebody tries at a shape.
    pub(super) fn tried(&self, precision: Precision, op: &str, shape: &Shape) -> Option<Choice> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.get(&(op.to_owned(), shape.clone())).filter(|_| precision == Precision::Table).cloned()
    }

    /// Packs rows of a file and sends them to the device.
    ///
    /// # Errors
    /// Where the layout does not take them, or the device has no room.
    pub fn weights(
        &self,
        dtype: DType,
        n: usize,
        k: usize,
        layout: Layout,
        blocks: &[u8],
        what: &str,
    ) -> Result<Weights, CudaError> {
        let refused = |e: layout::LayoutError| CudaError::NoKernel {
            op: what.to_owned(),
            shape: format!("N={n} K={k}"),
            reason: e.to_string(),
        };
        let slab = match layout {
            Layout::Gguf => Span::whole(crate::cuda::driver::Buffer::of(&self.stream, blocks, what)?),
            layout => {
                let packed = layout::pack(layout, dtype, n, k, blocks).map_err(refused)?;
                Span::whole(crate::cuda::driver::Buffer::of(&self.stream, &packed, what)?)
            }
        };
        Ok(Weights { dtype, n, k, layout, slab })
    }

    /// Every variant that may run an op at a shape here on the weights that the present one reads, with activations that a
    /// token has, but the plain one; the default of the present kernel comes first.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`].
    pub fn variants(&self, op: &str, shape: &Shape) -> Result<Vec<VariantId>, CudaError> {
        let (present, on) = self.present(op, shape)?;
        let kernels = registry().space(op).map_or(&[][..], |space| &space.kernels);
        let others = kernels.iter().filter(|k| {
            let own = k.backend == Backend::Cuda && !k.baseline && !k.is_library();
            own && !std::ptr::eq(*k, present) && on.refuse(op, k).is_none()
        });
        Ok([present].into_iter().chain(others).flat_map(|k| k.variants(shape, &self.limits).admitted).collect())
    }

    /// The kernel that runs an op at a shape now, and the weights that it reads. What is bound tells: the table's choice may
    /// want the weights otherwise than they lie, and another kernel runs in its place.
    fn present(&self, op: &str, shape: &Shape) -> Result<(&'static KernelSpec, OnWeights), CudaError> {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let found = bound.iter().find(|((of, at, plain, _), _)| of == op && at == shape && !plain);
        match found.map(|((.., on), bound)| (bound.spec, *on)) {
            Some(found) => Ok(found),
            None => {
                drop(bound);
                let spec = self.choice_on(Precision::Table, op, shape, OnWeights::default())?.spec;
                Ok((spec, OnWeights { dtype: None, layout: spec.layout }))
            }
        }
    }

    /// Runs another variant at this shape from the next step on that is bound, or the table's again.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`]: no such variant, one that reads other weights than lie there, or one whose activations no step
    /// leaves.
    pub fn try_variant(&self, op: &str, shape: &Shape, variant: Option<&VariantId>) -> Result<(), CudaError> {
        let key = (op.to_owned(), shape.clone());
        let choice = match variant {
            Some(variant) => {
                let refused =
                    |reason: String| CudaError::NoKernel { op: op.to_owned(), shape: shape.to_string(), reason };
                // The variant's own kernel: that of the present one has other sources.
                let (_, spec) = registry()
                    .find(variant)
                    .filter(|_| variant.op == op)
                    .ok_or_else(|| refused(format!("no space has {variant}: `bench list variants` prints them")))?;
                let (_, on) = self.present(op, shape)?;
                if let Some(why) = on.refuse(op, spec) {
                    return Err(refused(format!("{variant} cannot be tried: {why}")));
                }
                Some(Choice { spec, variant: variant.clone(), from: ChosenBy::Row })
            }
            None => None,
        };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        match choice {
            Some(choice) => drop(tried.insert(key, choice)),
            None => drop(tried.remove(&key)),
        }
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.retain(|(of, at, ..), _| of != op || at != shape);
        Ok(())
    }

    pub(super) fn compile_all(&self, units: &[(&'static KernelSpec, VariantId)]) {
        let (compiler, arch) = (&self.compiler, self.arch);
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(units.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((spec, variant)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // An error comes again, with its text, where the kernel is bound.
                        let _ = kernel::compile(compiler, spec, variant, arch);
                    }
                });
            }
        });
    }
}

/// What overlaps on an architecture, and what there is to say of it. `EDGELLM_PLAIN_EDGE_EVERY` puts plain edges between the
/// launches of a token, as [`Overlap::with_plain_edges`] reads them: an experiment on how evenly tokens follow each other.
fn overlap_on(arch: Arch) -> (Overlap, Option<String>) {
    const PLAIN: &str = "EDGELLM_PLAIN_EDGE_EVERY";
    if arch.cc < 90 || arch.ptx {
        return (Overlap::NONE, None);
    }
    match std::env::var(PLAIN) {
        Ok(text) if !text.is_empty() => match Overlap::ALL.with_plain_edges(&text) {
            Some(overlap) => (overlap, None),
            None => {
                let note = format!("{PLAIN}={text} is left out: it is a number of launches, such as 25, or 25+3");
                (Overlap::ALL, Some(note))
            }
        },
        _ => (Overlap::ALL, None),
    }
}

/// The shape of a product for one token.
pub(super) fn matrix_shape(n: usize, k: usize) -> Shape {
    Shape::of([("N", n as u64), ("K", k as u64)])
}

/// `gemv_q4_0` of Q4_0, with another family in front: `gate_up_q4_0`.
pub(super) fn op_of(family: &str, dtype: DType) -> String {
    // Products of ternary weights are named for all of them, other ops for the type.
    let name = if dtype == DType::TQ2_0 { "tq2_0" } else { gemv_op(dtype).trim_start_matches("gemv_") };
    format!("{family}_{name}")
}
