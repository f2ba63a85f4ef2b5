//! The bandwidth ceiling: how fast this machine's threads read memory when they do nothing else.

use std::time::Instant;

use harness_spec::{Bytes, GbPerS, Nanos};

use super::{Cpu, share};
use crate::alloc::AlignedBuf;

const LINE: usize = 64;

impl Cpu {
    /// Reads `working_set` from memory `passes` times with all threads and returns the rate of each pass.
    ///
    /// The memory is written once beforehand, so that every page exists. A working set well above the last-level cache
    /// measures main memory.
    pub fn stream_read(&self, working_set: Bytes, passes: usize) -> Vec<GbPerS> {
        let lines = (working_set.0 as usize / LINE).max(self.threads());
        let mut memory = self.arena().buffer(lines * LINE);
        let words = memory.as_mut_slice();
        for (i, line) in words.chunks_exact_mut(LINE).enumerate() {
            line.fill(i as u8);
        }
        (0..passes).map(|_| self.read_once(&memory, lines)).collect()
    }

    fn read_once(&self, memory: &AlignedBuf, lines: usize) -> GbPerS {
        let threads = self.threads();
        let start = Instant::now();
        self.pool().run(&|thread| {
            let part = share(lines, threads, thread);
            let floats = &memory.as_f32()[part.start * LINE / 4..part.end * LINE / 4];
            std::hint::black_box(sum_bits(floats, self.isa()));
        });
        Bytes((lines * LINE) as u64) / Nanos::from(start.elapsed())
    }
}

/// Reads every float; the result only keeps the reads from being dropped.
fn sum_bits(floats: &[f32], isa: variants::Isa) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if isa >= variants::Isa::Avx2 {
        // SAFETY: `Cpu::new` lowers its level to what the machine has, and this level has AVX2.
        return unsafe { sum_bits_avx2(floats) };
    }
    let _ = isa;
    sum_bits_plain(floats)
}

#[inline(always)]
fn sum_bits_plain(floats: &[f32]) -> u32 {
    // Four lines at a time in independent lanes: enough loads in flight to fill the line buffers.
    let mut lanes = [0u32; 64];
    for chunk in floats.as_chunks::<64>().0 {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane ^= v.to_bits();
        }
    }
    lanes.iter().fold(0, |a, b| a ^ b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_bits_avx2(floats: &[f32]) -> u32 {
    sum_bits_plain(floats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_a_finite_rate() {
        let cpu = Cpu::new(crate::cpu::CpuOptions { threads: 2, ..Default::default() });
        let rates = cpu.stream_read(Bytes(1 << 20), 3);
        assert!(rates.len() == 3 && rates.iter().all(|r| r.0.is_finite() && r.0 > 0.0));
    }
}
