//! From a kernel of a space to what the compiler and the launch need.

use harness_spec::{CellFailure, Shape, Stage, VariantId};
use variants::{Backend, KernelSpec, Limits};

use super::CudaError;
use super::compile::{Arch, Compiler, Cubin, Origin, Unit, load};
use super::driver::{Facts, LaunchShape};

/// The device facts that constraints may speak of.
pub fn limits(facts: &Facts) -> Limits {
    Limits {
        cc: facts.cc,
        sms: facts.sms,
        smem: facts.smem,
        l2: facts.l2,
        threads_per_sm: facts.threads_per_sm,
        isa: None,
    }
}

/// The source of a variant with every definition.
///
/// # Errors
/// [`Stage::Compile`] where the source cannot be had, or the kernel is none for CUDA.
pub fn unit(spec: &KernelSpec, id: &VariantId) -> Result<Unit, CellFailure> {
    let failed = |message: String| CellFailure::new(Stage::Compile, message);
    if spec.backend != Backend::Cuda {
        return Err(failed(format!("{id} is no kernel for CUDA")));
    }
    let entry = spec.entry.clone().ok_or_else(|| failed(format!("{} names no entry function", spec.id())))?;
    let origin = match &spec.folder {
        Some(folder) => Origin::File(folder.join(&spec.source)),
        None => Origin::BuiltIn(spec.source.clone()),
    };
    let source = load(&origin).map_err(|e| failed(e.to_string()))?;
    Ok(Unit { source, entry, defines: spec.definitions(id) })
}

/// Compiles a variant; needs no device.
///
/// # Errors
/// [`Stage::Constraint`] where the architecture is older than the kernel needs, [`Stage::Compile`] with the log.
pub fn compile(compiler: &Compiler, spec: &KernelSpec, id: &VariantId, arch: Arch) -> Result<Cubin, CellFailure> {
    if arch.cc < spec.min_cc {
        let message = format!("{arch} is older than sm_{}, which {} needs", spec.min_cc, spec.id());
        return Err(CellFailure::new(Stage::Constraint, message));
    }
    compiler.unit(&unit(spec, id)?, arch).map_err(|e| match e {
        // A compiler that is broken fails every variant, and says so under the harness's name.
        CudaError::Nvrtc { .. } => CellFailure::new(Stage::Harness, e.to_string()),
        e => CellFailure::from(e),
    })
}

/// That a variant takes a shape here.
///
/// # Errors
/// [`Stage::Constraint`] with what it lacks.
pub fn admitted(spec: &KernelSpec, id: &VariantId, shape: &Shape, limits: &Limits) -> Result<(), CellFailure> {
    spec.admits(id, shape, limits).map_err(|e| CellFailure::new(Stage::Constraint, e.to_string()))
}

/// How a variant is launched at a shape.
///
/// # Errors
/// [`Stage::Constraint`] where it does not take the shape here, [`Stage::Launch`] where its geometry cannot be computed.
pub fn launch_shape(
    spec: &KernelSpec,
    id: &VariantId,
    shape: &Shape,
    limits: &Limits,
) -> Result<LaunchShape, CellFailure> {
    admitted(spec, id, shape, limits)?;
    let g = spec
        .geometry(id, shape, limits)
        .map_err(|e| CellFailure::new(Stage::Launch, format!("the launch of {id} at {shape}: {e}")))?;
    Ok(LaunchShape { grid: g.grid, block: g.block, smem: g.smem, shared_percent: g.shared_percent })
}
