//! The stream-read ceiling: what this machine's memory gives to the threads of the run, over the model's working set.

use harness_spec::record::Ceiling;
use harness_spec::units::Bytes;
use kernels::cpu::{Cpu, CpuOptions};

/// Passes of one measurement; the best sustained one of all is the ceiling.
const PASSES: usize = 12;

/// Reads the working set before and after the runs, with the threads of the run.
pub struct CeilingMeter {
    cpu: Cpu,
    working_set: u64,
    passes: Vec<f64>,
    times: Vec<&'static str>,
}

impl CeilingMeter {
    /// A meter for a working set of so many bytes.
    pub fn new(working_set: u64, threads: u32) -> CeilingMeter {
        let cpu = Cpu::new(CpuOptions { threads: threads as usize, ..CpuOptions::default() });
        CeilingMeter { cpu, working_set, passes: Vec::new(), times: Vec::new() }
    }

    /// Measures; `when` is `before` or `after`.
    pub fn measure(&mut self, when: &'static str) {
        let rates = self.cpu.stream_read(Bytes(self.working_set), PASSES);
        self.passes.extend(rates.iter().map(|r| r.0));
        self.times.push(when);
    }

    /// What was measured. The best pass counts: everything that disturbs one makes it slower.
    pub fn finish(self) -> Option<Ceiling> {
        let best = self.passes.iter().copied().fold(f64::NAN, f64::max);
        best.is_finite().then(|| Ceiling {
            read_gb_per_s: best,
            working_set_bytes: self.working_set,
            threads: self.cpu.threads() as u32,
            passes_gb_per_s: self.passes,
            when: self.times.join(" and "),
        })
    }
}
