//! The bandwidth ceiling: how fast this machine's threads read memory when they do nothing else.

use std::time::Instant;

use harness_spec::{Bytes, GbPerS, Nanos};

use variants::Isa;

use super::shares::Shares;
use super::{Cpu, Matrix, Spread, share};
use crate::alloc::AlignedBuf;

const LINE: usize = 64;

/// Bytes of weights that are read at a time.
const SPAN: usize = 128 << 10;

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

    /// Reads matrices as a token does, shared among the threads as rows are, and does nothing with them: the rate that
    /// decoding is held against. It is taken from the pages that hold the weights, since a machine's memory is not equally
    /// fast everywhere: under a hypervisor the same read took 60 % longer of one buffer than of another.
    pub fn read_weights<'a>(&self, matrices: impl Iterator<Item = &'a Matrix>) -> GbPerS {
        let spans: Vec<&[u8]> = matrices.flat_map(|matrix| matrix.stored().chunks(SPAN)).collect();
        let bytes = spans.iter().map(|span| span.len()).sum();
        let start = Instant::now();
        let mut shares = Shares::new(&self.claims, 1);
        shares.push(spans.len(), bytes, false);
        self.pool().run(&|thread| {
            shares.each(thread, |_, (span, _)| {
                std::hint::black_box(sum_of(spans[span], self.isa()));
            });
        });
        Bytes(bytes as u64) / Nanos::from(start.elapsed())
    }

    fn read_once(&self, memory: &AlignedBuf, lines: usize) -> GbPerS {
        let mut sums = vec![0; self.threads()];
        let start = Instant::now();
        self.sum_words(&memory.as_slice()[..lines * LINE], self.isa(), &mut sums);
        std::hint::black_box(sums);
        Bytes((lines * LINE) as u64) / Nanos::from(start.elapsed())
    }

    /// The sum of all 32-bit words modulo 2³², one part a thread: the read that every product is measured against.
    ///
    /// # Panics
    /// Where `data` is no whole number of words or `sums` has not one place a thread.
    pub(crate) fn sum_words(&self, data: &[u8], isa: Isa, sums: &mut [u32]) {
        let threads = self.threads();
        assert!(data.len().is_multiple_of(4) && sums.len() == threads, "whole words, and a sum for each thread");
        let lines = data.len().div_ceil(LINE);
        let sums = Spread::new(sums);
        self.pool().run(&|thread| {
            let part = share(lines, threads, thread);
            let words = &data[part.start * LINE..(part.end * LINE).min(data.len())];
            // SAFETY: each thread writes a place of its own.
            unsafe { sums.part(thread, 1)[0] = sum_of(words, isa) };
        });
    }
}

fn sum_of(bytes: &[u8], isa: Isa) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 || isa == Isa::Avx512Vnni {
        // SAFETY: callers ask for levels that this machine has, and these have AVX2.
        return unsafe { sum_avx2(bytes) };
    }
    let _ = isa;
    sum_plain(bytes)
}

#[inline(always)]
fn sum_plain(bytes: &[u8]) -> u32 {
    // Four lines at a time in independent lanes: enough loads in flight to fill the line buffers.
    let mut lanes = [0u32; 64];
    let (body, tail) = bytes.as_chunks::<256>();
    for chunk in body {
        let (words, _) = chunk.as_chunks::<4>();
        for (lane, &word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(u32::from_le_bytes(word));
        }
    }
    let (words, _) = tail.as_chunks::<4>();
    let tail = words.iter().fold(0, |sum: u32, &word| sum.wrapping_add(u32::from_le_bytes(word)));
    lanes.iter().fold(tail, |a, &b| a.wrapping_add(b))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u32 {
    sum_plain(bytes)
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

    #[test]
    fn the_sum_of_all_words_does_not_depend_on_threads_or_level() {
        let data: Vec<u8> = (0..4 * 4099u32).map(|i| (i * 97 + i / 7) as u8).collect();
        let words = data.as_chunks::<4>().0.iter().map(|&w| u32::from_le_bytes(w));
        let want = words.fold(0, u32::wrapping_add);
        for threads in [1, 2, 3] {
            let cpu = Cpu::new(crate::cpu::CpuOptions { threads, ..Default::default() });
            for isa in Isa::available() {
                let mut sums = vec![u32::MAX; threads];
                cpu.sum_words(&data, isa, &mut sums);
                assert_eq!(sums.into_iter().fold(0, u32::wrapping_add), want, "{threads} {isa}");
            }
        }
    }
}
