//! The stream-read ceiling: what the memory of the run's device gives over the model's working set. Of the processor that
//! is measured with the threads of the run, of a GPU by a worker process, whose context is gone before the runs.

use anyhow::{Context, anyhow};
use engine::generate::DeviceChoice;
use harness_spec::Target;
use harness_spec::record::Ceiling;
use harness_spec::units::Bytes;
use kernels::cpu::{Cpu, CpuOptions};

use crate::target::WorkerTarget;
use crate::target::open::{Place, start_plain};

/// Passes of one measurement; the best sustained one of all is the ceiling.
const PASSES: usize = 12;

/// Reads the working set before and after the runs.
pub struct CeilingMeter {
    reader: Reader,
    working_set: u64,
    passes: Vec<f64>,
    times: Vec<&'static str>,
}

/// What reads.
enum Reader {
    /// Threads of the processor.
    Cpu(Cpu),
    /// A GPU, by its number, and its name once it has read.
    Gpu(u32, Option<String>),
}

impl CeilingMeter {
    /// A meter for a working set of so many bytes on the device of the run.
    pub fn new(working_set: u64, device: DeviceChoice, threads: u32) -> CeilingMeter {
        let reader = match device {
            DeviceChoice::Cuda(ordinal) => Reader::Gpu(ordinal, None),
            DeviceChoice::Cpu | DeviceChoice::Auto => {
                Reader::Cpu(Cpu::new(CpuOptions { threads: threads as usize, ..CpuOptions::default() }))
            }
        };
        CeilingMeter { reader, working_set, passes: Vec::new(), times: Vec::new() }
    }

    /// Measures; `when` is `before` or `after`.
    ///
    /// # Errors
    /// The GPU cannot be used; the message names the fix.
    pub fn measure(&mut self, when: &'static str) -> anyhow::Result<()> {
        match &mut self.reader {
            Reader::Cpu(cpu) => {
                let rates = cpu.stream_read(Bytes(self.working_set), PASSES);
                self.passes.extend(rates.iter().map(|r| r.0));
            }
            Reader::Gpu(ordinal, name) => {
                let place = Place::Cuda(*ordinal);
                let mut worker: WorkerTarget = start_plain(place)?;
                *name = Some(worker.device().name);
                let canary = worker.canary(Bytes(self.working_set)).map_err(|e| anyhow!("{e}"));
                self.passes.push(canary.with_context(|| format!("measuring the read rate of {place}"))?.read_gb_per_s);
            }
        }
        self.times.push(when);
        Ok(())
    }

    /// What was measured. The best pass counts: everything that disturbs one makes it slower.
    pub fn finish(self) -> Option<Ceiling> {
        let best = self.passes.iter().copied().fold(f64::NAN, f64::max);
        let (threads, device) = match self.reader {
            Reader::Cpu(cpu) => (cpu.threads() as u32, None),
            Reader::Gpu(_, name) => (0, name),
        };
        best.is_finite().then(|| Ceiling {
            read_gb_per_s: best,
            working_set_bytes: self.working_set,
            threads,
            device,
            passes_gb_per_s: self.passes,
            when: self.times.join(" and "),
        })
    }
}
