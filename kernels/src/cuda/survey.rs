//! Every CUDA variant compiled for every architecture, without a device: what it needs and what is wrong with it.

use harness_spec::target::Resources;
use harness_spec::{CellFailure, Shape, VariantId};
use variants::{Backend, KernelSpec, Limits, Registry};

use super::compile::{Arch, Compiler, is_expected, parallel};
use super::kernel::compile;

/// What to compile.
#[derive(Clone, Debug)]
pub struct Selection {
    /// For which architectures.
    pub archs: Vec<Arch>,
    /// Kernels of these ops; of all where empty.
    pub ops: Vec<String>,
    /// Every configuration, where not only the default of each kernel.
    pub all: bool,
}

/// One variant to be compiled for one architecture.
#[derive(Clone, Debug)]
pub struct Job {
    /// The kernel.
    pub spec: KernelSpec,
    /// The variant.
    pub variant: VariantId,
    /// The architecture.
    pub arch: Arch,
    /// Why it is not compiled, where constraints exclude it.
    pub excluded: Option<String>,
    /// Bytes of dynamic shared memory at the shape by which constraints were judged.
    pub dynamic_smem: Option<u32>,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// It compiled.
    Done {
        /// What the compiler says of it.
        resources: Resources,
        /// Whether the code was in the cache.
        cached: bool,
    },
    /// The architecture or a constraint excludes it.
    Excluded(String),
    /// It did not compile.
    Failed(CellFailure),
}

/// The shape by which constraints are judged without a workload: a layer of a 7B model over a cache of `kv` bits.
fn typical_shape(dims: &[String], kv: u64) -> Shape {
    let size = |name: &str| match name {
        "N" | "K" => 4096,
        "F" => 14_336,
        "HEADS" => 32,
        "KV_HEADS" => 8,
        "DIM" | "ROT" => 128,
        "KV" => kv,
        "OUT" => 8,
        "PAIRING" => 0,
        "LEN" => 512,
        "MAX_LEN" => 2048,
        "BYTES" => 32 << 20,
        _ => 1,
    };
    Shape::of(dims.iter().map(|name| (name.as_str(), size(name))))
}

/// The jobs of a selection, in the order of the registry.
pub fn jobs(registry: &Registry, selection: &Selection) -> Vec<Job> {
    let mut out = Vec::new();
    for space in registry.spaces() {
        if !selection.ops.is_empty() && !selection.ops.contains(&space.op) {
            continue;
        }
        let shapes = [16, 8].map(|kv| typical_shape(&space.dims, kv));
        for spec in space.kernels.iter().filter(|k| k.backend == Backend::Cuda) {
            for &arch in &selection.archs {
                // An architecture of no table is judged as the newest of it.
                let limits = Limits::of_architecture(arch.cc).or_else(|| Limits::of_architecture(90));
                let Some(limits) = limits.map(|l| Limits { cc: arch.cc, ..l }) else { continue };
                // A cache in int8 is for kernels that read no other.
                let fits = |shape: &&Shape| spec.admits(&spec.default_variant(), shape, &limits).is_ok();
                let shape = shapes.iter().find(fits).unwrap_or(&shapes[0]);
                let mut push = |variant: VariantId, excluded: Option<String>| {
                    let geometry = spec.geometry(&variant, shape, &limits);
                    let dynamic_smem = geometry.ok().map(|g| g.smem);
                    out.push(Job { spec: spec.clone(), variant, arch, excluded, dynamic_smem });
                };
                if selection.all {
                    spec.variants(shape, &limits).admitted.into_iter().for_each(|v| push(v, None));
                } else {
                    let variant = spec.default_variant();
                    let excluded = spec.admits(&variant, shape, &limits).err();
                    push(variant, excluded);
                }
            }
        }
    }
    out
}

/// Compiles every job on all processors; `done` is called after each, from any thread.
pub fn run(compiler: &Compiler, jobs: &[Job], done: &(dyn Fn() + Sync)) -> Vec<Compiled> {
    parallel(jobs, |job| {
        let out = match &job.excluded {
            Some(reason) => Compiled::Excluded(reason.clone()),
            None => match compile(compiler, &job.spec, &job.variant, job.arch) {
                Ok(cubin) => {
                    let cached = cubin.cached();
                    let resources = Resources { dynamic_smem_bytes: job.dynamic_smem, ..cubin.resources };
                    Compiled::Done { resources, cached }
                }
                Err(failure) => Compiled::Failed(failure),
            },
        };
        done();
        out
    })
}

impl Job {
    /// Whether this is the configuration that runs where no table says otherwise.
    pub fn is_default(&self) -> bool {
        self.variant.tunables == self.spec.default
    }

    /// What is wrong with the result, a sentence each: a default must not spill, and the machine code must have the
    /// instructions that the space declares.
    pub fn problems(&self, compiled: &Compiled) -> Vec<String> {
        let Compiled::Done { resources, .. } = compiled else {
            return match compiled {
                Compiled::Failed(failure) => vec![failure.to_string()],
                _ => Vec::new(),
            };
        };
        // PTX has no registers yet: the driver gives them out.
        if self.arch.ptx {
            return Vec::new();
        }
        let mut out = Vec::new();
        if self.is_default() {
            match resources.spill_bytes {
                None => out.push("the compiler's log does not say what is spilled".to_owned()),
                Some(0) => {}
                Some(bytes) => out.push(format!("spills {bytes} bytes")),
            }
            if let Some(bytes @ 1..) = resources.local_bytes {
                out.push(format!("uses {bytes} bytes of local memory"));
            }
        }
        let expected = self.spec.instruction.name();
        if !is_expected(expected, &resources.instructions) {
            let found =
                if resources.instructions.is_empty() { "none".to_owned() } else { resources.instructions.join(",") };
            out.push(format!("declares instruction class {expected} and its machine code has {found}"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        let registry = variants::registry();
        let selection = Selection { archs: vec![Arch::sm(90)], ops: Vec::new(), all: false };
        let mut all = jobs(registry, &selection);
        let at = all.iter().position(|j| j.excluded.is_none()).expect("a CUDA kernel is registered");
        let mut job = all.swap_remove(at);
        job.spec.instruction = variants::Instruction::Idp;
        job
    }

    fn done(local: u32, spill: u32, instructions: &[&str]) -> Compiled {
        let resources = Resources {
            local_bytes: Some(local),
            spill_bytes: Some(spill),
            instructions: instructions.iter().map(|i| (*i).to_owned()).collect(),
            ..Default::default()
        };
        Compiled::Done { resources, cached: false }
    }

    #[test]
    fn a_default_that_spills_uses_local_memory_or_has_other_instructions_is_reported() {
        let job = job();
        assert_eq!(job.problems(&done(0, 0, &["idp", "fma"])), Vec::<String>::new());
        assert!(job.problems(&done(0, 8, &["idp"]))[0].contains("spills 8"));
        assert!(job.problems(&done(16, 0, &["idp"]))[0].contains("16 bytes of local"));
        assert!(job.problems(&done(0, 0, &["fma"]))[0].contains("declares instruction class idp"));
        let failed = Compiled::Failed(CellFailure::new(harness_spec::Stage::Compile, "k.cu(3): error"));
        assert!(job.problems(&failed)[0].contains("k.cu(3)"));
    }

    #[test]
    fn every_cuda_kernel_has_a_job_for_every_architecture_and_op_filters_hold() {
        let registry = variants::registry();
        let kernels = registry.kernels().filter(|(_, k)| k.backend == Backend::Cuda).count();
        let selection = Selection { archs: Arch::ALL.to_vec(), ops: Vec::new(), all: false };
        assert_eq!(jobs(registry, &selection).len(), kernels * 6);
        let one = Selection { ops: vec!["stream_read".to_owned()], ..selection };
        assert!(jobs(registry, &one).iter().all(|j| j.variant.op == "stream_read"));
    }
}
