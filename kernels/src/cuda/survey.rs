//! Every CUDA variant compiled for every architecture, without a device: what it needs and what is wrong with it.

use harness_spec::target::Resources;
use harness_spec::{CellFailure, Shape, VariantId};
use variants::{Backend, KernelSpec, Limits, Occupancy, Registry};

use super::compile::{Arch, Compiler, is_expected};
use super::kernel::compile;
use crate::parallel::parallel;

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
    /// Why it is not compiled: constraints exclude it, or it is a library's.
    pub excluded: Option<String>,
    /// Bytes of dynamic shared memory at the shape by which constraints were judged.
    pub dynamic_smem: Option<u32>,
    /// Threads of a block at that shape.
    pub threads: Option<u32>,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// It compiled.
    Done {
        /// What the compiler says of it.
        resources: Resources,
        /// Bytes of the widest load from global memory; `None` where the machine code has none, or there is none.
        load_bytes: Option<u32>,
        /// Whether the code was in the cache.
        cached: bool,
    },
    /// The architecture or a constraint excludes it, or a library computes it.
    Excluded(String),
    /// It did not compile.
    Failed(CellFailure),
}

/// Why there is nothing to compile.
const OF_A_LIBRARY: &str = "a library computes it, which has no source here";

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
                    let geometry = geometry.ok();
                    let dynamic_smem = geometry.as_ref().map(|g| g.smem);
                    let threads = geometry.map(|g| g.block.iter().product());
                    out.push(Job { spec: spec.clone(), variant, arch, excluded, dynamic_smem, threads });
                };
                if spec.is_library() {
                    push(spec.default_variant(), Some(OF_A_LIBRARY.to_owned()));
                } else if selection.all {
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
                    let (cached, load_bytes) = (cubin.cached(), cubin.widest_load());
                    let resources = Resources { dynamic_smem_bytes: job.dynamic_smem, ..cubin.resources };
                    Compiled::Done { resources, load_bytes, cached }
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
        let Compiled::Done { resources, load_bytes, .. } = compiled else {
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
        if let Some(least) = self.spec.load_bytes
            && load_bytes.is_none_or(|widest| widest < least)
        {
            let found = load_bytes.map_or_else(|| "none".to_owned(), |widest| format!("{widest} at most"));
            out.push(format!("declares loads of {least} bytes and its machine code has {found}"));
        }
        out
    }

    /// How many of its blocks a multiprocessor holds, at the shape by which constraints were judged; `None` where the
    /// compiler did not say what they take, or the architecture is not known.
    pub fn occupancy(&self, resources: &Resources) -> Option<Occupancy> {
        let smem = resources.static_smem_bytes?.checked_add(resources.dynamic_smem_bytes?)?;
        Occupancy::of(self.arch.cc, self.threads?, resources.registers?, smem)
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
        Compiled::Done { resources, load_bytes: Some(8), cached: false }
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
    fn narrower_loads_than_a_space_declares_are_reported() {
        let with = |least| {
            let mut job = job();
            job.spec.load_bytes = least;
            job
        };
        let found = done(0, 0, &["idp"]);
        assert_eq!(with(Some(8)).problems(&found), Vec::<String>::new());
        assert!(with(Some(16)).problems(&found)[0].contains("loads of 16 bytes and its machine code has 8 at most"));
        let Compiled::Done { resources, cached, .. } = found else { panic!("it is done") };
        let none = Compiled::Done { resources, load_bytes: None, cached };
        assert!(with(Some(4)).problems(&none)[0].contains("has none"));
    }

    #[test]
    fn occupancy_needs_all_that_the_compiler_says() {
        let job = Job { threads: Some(256), ..job() };
        let all = Resources {
            registers: Some(64),
            static_smem_bytes: Some(0),
            dynamic_smem_bytes: Some(0),
            ..Default::default()
        };
        assert_eq!(job.occupancy(&all).unwrap(), Occupancy { blocks_per_sm: 4, warps: 32, most_warps: 64 });
        assert_eq!(job.occupancy(&Resources { registers: None, ..all.clone() }), None);
        assert_eq!(job.occupancy(&Resources { dynamic_smem_bytes: None, ..all }), None);
    }

    #[test]
    fn every_cuda_kernel_has_a_job_for_every_architecture_and_op_filters_hold() {
        let registry = variants::registry();
        let kernels = registry.kernels().filter(|(_, k)| k.backend == Backend::Cuda).count();
        let selection = Selection { archs: Arch::ALL.to_vec(), ops: Vec::new(), all: false };
        assert_eq!(jobs(registry, &selection).len(), kernels * 6);
        let library = jobs(registry, &selection).into_iter().filter(|j| j.spec.is_library());
        assert!(library.into_iter().all(|j| j.excluded.as_deref() == Some(OF_A_LIBRARY)));
        let one = Selection { ops: vec!["stream_read".to_owned()], ..selection };
        assert!(jobs(registry, &one).iter().all(|j| j.variant.op == "stream_read"));
    }
}
