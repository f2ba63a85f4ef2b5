//! The stream-read ceiling: what the memory of the run's device gives over the model's working set. Of the processor that
//! is measured with the threads of the run, of a GPU by a worker process, whose context is gone before the runs.

use anyhow::{Context, anyhow};
use engine::generate::DeviceChoice;
use harness_measure::describe::median;
use harness_spec::Target;
use harness_spec::record::{Ceiling, ReadAround};
use harness_spec::units::Bytes;
use kernels::cpu::{Cpu, CpuOptions};

use crate::target::WorkerTarget;
use crate::target::open::{Place, start_plain};

/// Passes of one measurement; the best sustained one of all is the ceiling.
const PASSES: usize = 12;

/// Passes between two blocks.
const PASSES_BETWEEN: usize = 3;

/// When these are made, as a record says it.
const BETWEEN: &str = "between";

/// Reads the working set before and after the runs, and on the processor between the blocks of requests, too.
pub struct CeilingMeter {
    reader: Reader,
    working_set: u64,
    passes: Vec<f64>,
    times: Vec<&'static str>,
    around: Vec<ReadAround>,
    /// The block under way, and what was read before it.
    open: Option<(u64, f64)>,
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
        CeilingMeter { reader, working_set, passes: Vec::new(), times: Vec::new(), around: Vec::new(), open: None }
    }

    /// Measures; `when` is `before` or `after`.
    ///
    /// # Errors
    /// The GPU cannot be used; the message names the fix.
    pub fn measure(&mut self, when: &'static str) -> anyhow::Result<()> {
        match &mut self.reader {
            Reader::Cpu(cpu) => {
                self.passes.extend(cpu.stream_read(Bytes(self.working_set), PASSES).iter().map(|r| r.0));
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

    /// Reads between two blocks, each time pages of their own, as not all are equally fast: after the one before, if there was
    /// one, and before `next`, if there is one. A GPU is not read here: its worker needs a context of its own, and its memory does
    /// not change its speed from one minute to the next.
    pub fn between(&mut self, next: Option<u64>) {
        let Reader::Cpu(cpu) = &self.reader else { return };
        let passes: Vec<f64> =
            cpu.stream_read(Bytes(self.working_set), PASSES_BETWEEN).iter().map(|rate| rate.0).collect();
        let Some(read) = median(&passes) else { return };
        self.passes.extend(passes);
        if !self.times.contains(&BETWEEN) {
            self.times.push(BETWEEN);
        }
        if let Some((block, before_gb_per_s)) = self.open.take() {
            self.around.push(ReadAround { block, before_gb_per_s, after_gb_per_s: read });
        }
        self.open = next.map(|block| (block, read));
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
            around: self.around,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_lies_between_two_reads_and_shares_one_with_its_neighbour() {
        let mut meter = CeilingMeter::new(1 << 20, DeviceChoice::Cpu, 1);
        meter.measure("before").unwrap();
        for next in [Some(4), Some(7), None, None] {
            meter.between(next);
        }
        let ceiling = meter.finish().unwrap();
        let blocks: Vec<u64> = ceiling.around.iter().map(|around| around.block).collect();
        assert_eq!(blocks, [4, 7]);
        assert_eq!(ceiling.around[0].after_gb_per_s, ceiling.around[1].before_gb_per_s);
        assert_eq!((ceiling.passes_gb_per_s.len(), ceiling.when.as_str()), (12 + 4 * 3, "before and between"));
        assert!(ceiling.around.iter().all(|a| a.before_gb_per_s > 0.0 && a.after_gb_per_s <= ceiling.read_gb_per_s));
    }

    #[test]
    fn a_block_that_was_cut_off_was_not_surrounded() {
        let mut meter = CeilingMeter::new(1 << 20, DeviceChoice::Cpu, 1);
        meter.between(Some(0));
        assert!(meter.finish().unwrap().around.is_empty());
    }
}
