//! Kernels of the harness itself, and a sample's bracket: a hold, time stamps, two events.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cuda::CudaError;
use crate::cuda::compile::{Arch, Compiler, SourceFile, Unit};
use crate::cuda::driver::{Buffer, Device, Event, Function, Graph, HostWords, LaunchShape, Module, Stream, Value};

/// The names of the kernels in `support.cu`.
const NAMES: [&str; 6] = ["stamp", "hold", "poison", "write_late", "nothing", "read_all"];

/// Slots for stamps; more than any device has multiprocessors.
const STAMP_SLOTS: u32 = 1024;

/// How long a stream is held at most. Far above the time to queue a sample, and short enough to go on where the host was
/// stopped meanwhile.
const HOLD_NANOS: u64 = 500_000_000;

/// How long it is held before a graph where the driver does not queue graphs behind a held stream: longer than a launch
/// takes, so that its latency still lies outside the interval.
const SHORT_HOLD_NANOS: u64 = 300_000;

/// Graphs in a row behind which the stream was not held, from which on the driver is said not to queue them. Fewer than
/// the tries that a sample has.
const UNHELD: u32 = 2;

/// The unit of `support.cu` for one of its kernels.
fn unit(entry: &str) -> Unit {
    Unit {
        source: SourceFile {
            name: "kernels/src/cuda/target/support.cu".to_owned(),
            text: include_str!("support.cu").to_owned(),
            headers: Vec::new(),
        },
        entry: entry.to_owned(),
        defines: BTreeMap::new(),
    }
}

/// Compiles every kernel of the harness for `arch`, which shows without a device that they compile.
///
/// # Errors
/// The compiler's error.
pub fn compile_support(compiler: &Compiler, arch: Arch) -> Result<(), CudaError> {
    NAMES.iter().try_for_each(|name| compiler.unit(&unit(name), arch).map(drop))
}

/// The harness's own kernels, loaded, with the memory that they need.
#[derive(Debug)]
pub struct Support {
    stamp: Function,
    hold: Function,
    poison: Function,
    write_late: Function,
    nothing: Function,
    read_all: Function,
    flag: HostWords,
    ticket: Cell<u32>,
    unheld: Cell<u32>,
    timed_out: Buffer,
    stamps: [Buffer; 2],
    start: Event,
    end: Event,
    sink: Buffer,
    sms: u32,
}

/// What a bracketed interval took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Nanoseconds between the events.
    pub ns: f64,
    /// Mean clock of the multiprocessors between the stamps.
    pub sm_clock_mhz: Option<f64>,
    /// Whether the stream ran on before the host had queued everything: the time then holds some of the host's.
    pub held: bool,
}

impl Support {
    /// Loads the kernels and launches each once, as a first launch may load code, which a held stream would not survive.
    ///
    /// # Errors
    /// The compiler's or the driver's error.
    pub fn new(device: &Arc<Device>, stream: &Stream, compiler: &Compiler) -> Result<Support, CudaError> {
        let load = |name: &str| Module::load(device, &compiler.unit(&unit(name), device.arch())?)?.function(name);
        let buffer = |len| Buffer::new(device, len, "the harness");
        let support = Support {
            stamp: load("stamp")?,
            hold: load("hold")?,
            poison: load("poison")?,
            write_late: load("write_late")?,
            nothing: load("nothing")?,
            read_all: load("read_all")?,
            flag: HostWords::new(device, 1)?,
            ticket: Cell::new(0),
            unheld: Cell::new(0),
            timed_out: buffer(4)?,
            stamps: [buffer(STAMP_SLOTS as usize * 16)?, buffer(STAMP_SLOTS as usize * 16)?],
            start: Event::new(device)?,
            end: Event::new(device)?,
            sink: buffer(256)?,
            sms: device.facts().sms.max(1),
        };
        support.timed_out.fill(stream, 0, 4, 0)?;
        support.sink.fill(stream, 0, 256, 0)?;
        support.poison(stream, &Slots { address: support.sink.address(), stride: 128, count: 2 }, 1)?;
        let late = Late { to: support.sink.address(), bytes: 16, with: With::Fill(0) };
        // Its table goes when the stream has been waited for, in the bracket below.
        let _table = support.write_late(stream, &[late], 0)?;
        support.nothing(stream, false)?;
        support.stamp(stream, 0)?;
        support.read(stream, support.sink.address(), 256, 1, 1)?;
        support.bracket(stream, || Ok(()), || "warming the harness's kernels".to_owned())?;
        Ok(support)
    }

    /// As [`Support::bracket`] for the launch of a graph. A driver that makes the host wait with a large graph until the
    /// stream runs is found out by its first two samples, one of which may have been the host's own pause; from then on the
    /// stream is only held for a moment.
    ///
    /// # Errors
    /// As [`Support::bracket`].
    pub fn bracket_graph(
        &self,
        stream: &Stream,
        graph: &Graph,
        doing: impl Fn() -> String,
    ) -> Result<Interval, CudaError> {
        if self.unheld.get() < UNHELD {
            let interval = self.bracket_for(HOLD_NANOS, stream, || graph.launch(stream), &doing)?;
            self.unheld.set(if interval.held { 0 } else { self.unheld.get() + 1 });
            return Ok(interval);
        }
        let interval = self.bracket_for(SHORT_HOLD_NANOS, stream, || graph.launch(stream), &doing)?;
        Ok(Interval { held: true, ..interval })
    }

    /// Times what `work` puts on the stream, from the device's point of view: the stream is held until all of it is
    /// queued, so that no launch latency of the host lies inside.
    ///
    /// # Errors
    /// The driver's error; a fault of the work shows here and is named by `doing`.
    pub fn bracket(
        &self,
        stream: &Stream,
        work: impl FnOnce() -> Result<(), CudaError>,
        doing: impl Fn() -> String,
    ) -> Result<Interval, CudaError> {
        self.bracket_for(HOLD_NANOS, stream, work, doing)
    }

    fn bracket_for(
        &self,
        hold_ns: u64,
        stream: &Stream,
        work: impl FnOnce() -> Result<(), CudaError>,
        doing: impl Fn() -> String,
    ) -> Result<Interval, CudaError> {
        for stamps in &self.stamps {
            stamps.fill(stream, 0, stamps.len(), 0)?;
        }
        let ticket = self.ticket.get().wrapping_add(1).max(1);
        self.ticket.set(ticket);
        let args = [
            Value::U64(self.flag.address()),
            Value::U32(ticket),
            Value::U64(hold_ns),
            Value::U64(self.timed_out.address()),
        ];
        // SAFETY: the arguments are those of `hold`; flag and word live as long as `self`, and the stream is waited for
        // below. The loop in it ends by itself.
        unsafe { self.hold.launch(stream, &LaunchShape::line(1, 1), false, &args)? };
        let queued = self
            .stamp(stream, 0)
            .and_then(|()| self.start.record(stream))
            .and_then(|()| work())
            .and_then(|()| self.end.record(stream))
            .and_then(|()| self.stamp(stream, 1));
        // The stream is let go whatever happened, or the next call would wait for the time-out.
        self.flag.set(0, ticket);
        queued?;
        stream.wait(&doing)?;
        let ns = self.start.until(&self.end)?;
        let word = self.timed_out.download(stream, 0, 4, &doing)?;
        let timed_out = u32::from_le_bytes(word.try_into().expect("four bytes were asked for"));
        let read = |b: &Buffer| b.download(stream, 0, b.len(), &doing);
        let sm_clock_mhz = mean_clock(&read(&self.stamps[0])?, &read(&self.stamps[1])?);
        Ok(Interval { ns, sm_clock_mhz, held: timed_out != ticket })
    }

    fn stamp(&self, stream: &Stream, which: usize) -> Result<(), CudaError> {
        let args = [Value::U64(self.stamps[which].address()), Value::U32(STAMP_SLOTS)];
        // Several blocks of one warp a multiprocessor: every one of them gets at least one.
        // SAFETY: the arguments are those of `stamp`, and the buffer has room for all slots.
        unsafe { self.stamp.launch(stream, &LaunchShape::line(self.sms * 4, 32), false, &args) }
    }

    /// Poisons the slots that [`is_poisoned`] names.
    ///
    /// # Errors
    /// The driver's error.
    pub fn poison(&self, stream: &Stream, slots: &Slots, seed: u64) -> Result<(), CudaError> {
        debug_assert!(slots.stride.is_multiple_of(4));
        let words = slots.stride / 4;
        let args = [Value::U64(slots.address), Value::U64(words), Value::U32(slots.count), Value::U64(seed)];
        let blocks = u32::try_from(words.div_ceil(256)).unwrap_or(u32::MAX).min(64);
        let shape = LaunchShape { grid: [blocks, slots.count.min(4096), 1], ..LaunchShape::line(1, 256) };
        // SAFETY: the arguments are those of `poison`; the caller's slots lie in its buffer.
        unsafe { self.poison.launch(stream, &shape, false, &args) }
    }

    /// Launches one producer that lets the next kernel start at once and writes all of these `delay_ns` later. The buffer,
    /// its table, must live until the stream has been waited for.
    ///
    /// # Errors
    /// The driver's error.
    pub fn write_late(&self, stream: &Stream, writes: &[Late], delay_ns: u64) -> Result<Buffer, CudaError> {
        let table: Vec<u8> = writes.iter().flat_map(|late| late.words()).flat_map(u64::to_le_bytes).collect();
        let table = Buffer::of(stream, &table, "the table of a late producer")?;
        let args = [Value::U64(table.address()), Value::U32(writes.len() as u32), Value::U64(delay_ns)];
        // Few, so that most of the device is left to the kernel that starts meanwhile; several, for large outputs.
        let shape = LaunchShape::line((self.sms / 4).clamp(1, 16), 256);
        // SAFETY: the arguments are those of `write_late`; the caller's places lie in its buffers, which like the table live
        // until the stream has been waited for.
        unsafe { self.write_late.launch(stream, &shape, false, &args)? };
        Ok(table)
    }

    /// A launch of nothing.
    ///
    /// # Errors
    /// The driver's error.
    pub fn nothing(&self, stream: &Stream, early: bool) -> Result<(), CudaError> {
        // SAFETY: the kernel does not touch its argument.
        unsafe { self.nothing.launch(stream, &LaunchShape::line(1, 32), early, &[Value::U64(0)]) }
    }

    /// Reads `bytes` bytes `passes` times with `blocks_per_sm` blocks of 512 threads.
    ///
    /// # Errors
    /// The driver's error.
    pub fn read(
        &self,
        stream: &Stream,
        data: u64,
        bytes: u64,
        passes: u32,
        blocks_per_sm: u32,
    ) -> Result<(), CudaError> {
        let args = [Value::U64(data), Value::U64(bytes / 16), Value::U32(passes), Value::U64(self.sink.address())];
        // SAFETY: the arguments are those of `read_all`; the caller's buffer has that many bytes.
        unsafe { self.read_all.launch(stream, &LaunchShape::line(self.sms * blocks_per_sm, 512), false, &args) }
    }
}

/// One place that a late producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Where, a multiple of 16.
    pub to: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What.
    pub with: With,
}

/// What a late producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// The bytes from this address on, a multiple of 16 other than 0.
    Copy(u64),
    /// The same byte everywhere.
    Fill(u8),
}

impl Late {
    /// As `Late` in `support.cu`.
    fn words(&self) -> [u64; 4] {
        let (from, fill) = match self.with {
            With::Copy(from) => (from, 0),
            With::Fill(byte) => (0, u64::from(byte)),
        };
        debug_assert!(self.to.is_multiple_of(16) && from.is_multiple_of(16), "{self:?} is not at a multiple of 16");
        [self.to, from, self.bytes, fill]
    }
}

/// Equal slots, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Of the first.
    pub address: u64,
    /// Bytes from one to the next, a multiple of 4.
    pub stride: u64,
    /// How many.
    pub count: u32,
}

/// Whether a slot is poisoned before the sample of this seed; as `poisons` in `support.cu`.
pub fn is_poisoned(seed: u64, slot: u32) -> bool {
    let mut z = seed.wrapping_add((u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) & 1 != 0
}

/// The mean clock in MHz from pairs of nanoseconds and cycles of each multiprocessor before and after: cycles of all over
/// nanoseconds of all, as each ran the same interval. `None` where no multiprocessor was stamped twice.
fn mean_clock(before: &[u8], after: &[u8]) -> Option<f64> {
    let pairs = |bytes: &[u8]| -> Vec<(u64, u64)> {
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("chunks of eight bytes"));
        bytes.chunks_exact(16).map(|p| (word(&p[..8]), word(&p[8..]))).collect()
    };
    let (mut nanos, mut cycles) = (0u64, 0u64);
    for ((t0, c0), (t1, c1)) in pairs(before).into_iter().zip(pairs(after)) {
        if t0 != 0 && t1 > t0 && c1 > c0 {
            nanos += t1 - t0;
            cycles += c1 - c0;
        }
    }
    (nanos > 0).then(|| cycles as f64 / nanos as f64 * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(pairs: &[(u64, u64)]) -> Vec<u8> {
        pairs.iter().flat_map(|(t, c)| [t.to_le_bytes(), c.to_le_bytes()].concat()).collect()
    }

    #[test]
    fn the_clock_is_cycles_over_time_of_multiprocessors_that_were_stamped_twice() {
        let before = stamps(&[(1000, 50), (0, 0), (1000, 7)]);
        let after = stamps(&[(2000, 2030), (2000, 9), (0, 0)]);
        assert_eq!(mean_clock(&before, &after), Some(1980.0));
        assert_eq!(mean_clock(&stamps(&[(0, 0)]), &stamps(&[(5, 5)])), None);
    }

    #[test]
    fn a_late_write_is_a_copy_or_a_fill_as_the_device_reads_it() {
        let late = |with| Late { to: 512, bytes: 7, with }.words();
        assert_eq!(late(With::Copy(256)), [512, 256, 7, 0]);
        assert_eq!(late(With::Fill(0xFF)), [512, 0, 7, 0xFF]);
    }

    #[test]
    fn about_half_of_the_slots_are_poisoned_and_another_seed_draws_others() {
        let drawn = |seed| (0..4096).filter(|&s| is_poisoned(seed, s)).collect::<Vec<_>>();
        for seed in [0, 1, u64::MAX] {
            assert!((1800..2300).contains(&drawn(seed).len()), "seed {seed}");
        }
        assert_ne!(drawn(1), drawn(2));
    }
}
