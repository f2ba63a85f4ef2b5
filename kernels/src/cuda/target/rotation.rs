//! The buffers that timed launches rotate over. Variants of one layout share them.

use std::sync::Arc;

use harness_spec::CellFailure;

use super::inputs::{Draw, Inputs, POOL};
use super::random::Random;
use super::support::{Slots, Support};
use crate::cuda::CudaError;
use crate::cuda::driver::{Buffer, Device, Stream, Value};
use crate::op::Arg;
use crate::parallel::parallel;

/// Launches in a graph at most: beyond it building the graph costs more than it tells.
const MOST_LAUNCHES: usize = 4096;

/// How long the launches of one sample should take together, where outputs leave room for as many: two thousand times what an
/// event can tell apart.
const SAMPLE_NANOS: f64 = 1e6;

/// Bytes of the outputs of a sample at most, unless the weights need more launches to push each other out of the cache: those of
/// a sample that is verified are sent to the host and compared there.
const MOST_OUTPUTS: u64 = 128 << 20;

/// Bytes between the outputs of two launches beyond the outputs themselves.
const GAP: usize = 256;

/// What a rotation is planned from.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the weights of one launch.
    pub weights: u64,
    /// Bytes of the outputs of one launch, with gaps.
    pub outputs: u64,
    /// Bytes that one launch moves.
    pub moved: u64,
    /// Bytes of the last-level cache.
    pub l2: u64,
    /// Bytes of memory that may be used.
    pub memory: u64,
    /// Read rate of the device in bytes a nanosecond, about.
    pub rate: f64,
    /// Whether the weights must not be resident.
    pub cold: bool,
}

/// How many copies of the weights there are, how many launches a sample has, and whether the cache is flushed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Distinct copies of the weights.
    pub copies: usize,
    /// Launches of a sample, a multiple of the copies.
    pub launches: usize,
    /// Whether the copies together are too small to push each other out of the cache: then it is flushed before each
    /// sample, in which each copy is used once.
    pub flush: bool,
}

/// Plans a rotation. Depends on the workload and the layout, never on how fast a variant is, so that what a graph adds to
/// a launch is the same for all.
pub fn plan(s: &Sizes) -> Plan {
    let as_count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let per_launch = 1000.0 + s.moved as f64 / s.rate.max(1.0);
    let written = as_count((s.memory / 2).min(MOST_OUTPUTS) / s.outputs.max(1)).max(1);
    let wanted = ((SAMPLE_NANOS / per_launch).ceil() as usize).clamp(8, MOST_LAUNCHES).min(written);
    if !s.cold || s.weights == 0 {
        return Plan { copies: 1, launches: wanted, flush: false };
    }
    let footprint = s.l2.saturating_mul(3);
    let fit = as_count((s.memory / 2) / s.weights).max(1);
    let copies = as_count(footprint.div_ceil(s.weights)).clamp(1, MOST_LAUNCHES.min(fit));
    if (copies as u64).saturating_mul(s.weights) < footprint {
        // Norm weights of 6 KB beside a prompt's rows: 4096 outputs would be 6 GB.
        let copies = copies.min(written);
        return Plan { copies, launches: copies, flush: true };
    }
    Plan { copies, launches: wanted.max(copies).div_ceil(copies) * copies, flush: false }
}

/// Equal pieces of one allocation, for one argument.
struct Slab {
    arg: usize,
    buffer: Buffer,
    stride: usize,
}

impl Slab {
    fn new(device: &Arc<Device>, arg: usize, len: usize, count: usize, what: &str) -> Result<Slab, CellFailure> {
        // Every copy keeps the alignment of an allocation.
        let stride = len.max(1).next_multiple_of(256);
        Ok(Slab { arg, buffer: Buffer::new(device, stride * count, what)?, stride })
    }

    fn address(&self, i: usize) -> u64 {
        self.buffer.address() + (self.stride * i) as u64
    }
}

/// Copies of the weights, a pool of activations, one slot of outputs a launch.
pub struct Rotation {
    plan: Plan,
    weights: Vec<Slab>,
    /// The places that launches read, and behind them every draw, which a redraw copies from there.
    active: Vec<Slab>,
    /// Words that are the same for every launch.
    settled: Vec<Slab>,
    outputs: Buffer,
    /// Offset and length of each output in a slot.
    output_at: Vec<(usize, usize)>,
    slot: usize,
    draws: [Option<Draw>; POOL],
    /// When it was last used, for whoever must make room.
    pub used: u64,
}

impl Rotation {
    /// Allocates and fills a rotation: one copy goes to the device, the others are made there.
    ///
    /// # Errors
    /// Where the memory does not suffice.
    pub fn new(
        stream: &Stream,
        inputs: &Inputs,
        sizes: impl FnOnce(u64, u64) -> Sizes,
    ) -> Result<Rotation, CellFailure> {
        let device = stream.device();
        let mut output_at = Vec::new();
        let mut slot = 0;
        for output in &inputs.problem().outputs {
            output_at.push((slot, output.bytes()));
            slot += output.bytes().next_multiple_of(256) + GAP;
        }
        let slot = slot.max(GAP);
        let weight_bytes: usize =
            inputs.args().iter().filter_map(Arg::rotated).map(|bytes| bytes.len().next_multiple_of(256)).sum();
        let plan = plan(&sizes(weight_bytes as u64, slot as u64));
        let (mut weights, mut active, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for (i, arg) in inputs.args().iter().enumerate() {
            match arg {
                Arg::In { bytes, weights: true } | Arg::State { bytes, .. } => {
                    let slab = Slab::new(device, i, bytes.len(), plan.copies, "copies of the weights")?;
                    slab.buffer.upload(stream, 0, bytes)?;
                    for copy in 1..plan.copies {
                        slab.buffer.copy_within(stream, copy * slab.stride, 0, bytes.len())?;
                    }
                    weights.push(slab);
                }
                Arg::In { bytes, weights: false } => {
                    active.push(Slab::new(device, i, bytes.len(), POOL + inputs.draws().len(), "activations")?)
                }
                Arg::Settled { bytes } => {
                    let slab = Slab::new(device, i, bytes.len(), 1, "state of the token")?;
                    slab.buffer.upload(stream, 0, bytes)?;
                    settled.push(slab);
                }
                _ => {}
            }
        }
        let draws: Vec<Draw> = inputs.draws().collect();
        for (draw, contents) in draws.iter().zip(parallel(&draws, |&draw| inputs.active(draw))) {
            for (arg, bytes) in contents? {
                if let Some(slab) = active.iter().find(|s| s.arg == arg) {
                    slab.buffer.upload(stream, slab.stride * (POOL + draw.index), &bytes)?;
                }
            }
        }
        let outputs = Buffer::new(device, slot * plan.launches, "outputs")?;
        outputs.fill(stream, 0, outputs.len(), 0xFF)?;
        Ok(Rotation { plan, weights, active, settled, outputs, output_at, slot, draws: [None; POOL], used: 0 })
    }

    /// The plan it was made by.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        let slabs = self.weights.iter().chain(&self.active).chain(&self.settled);
        (slabs.map(|s| s.buffer.len()).sum::<usize>() + self.outputs.len()) as u64
    }

    /// The slots of the outputs.
    pub fn slots(&self) -> Slots {
        Slots { address: self.outputs.address(), stride: self.slot as u64, count: self.plan.launches as u32 }
    }

    /// Poisons some slots and leaves the others as the launches before left them, as `seed` says. Where nothing is redrawn
    /// what is left would be right again, or be what another kernel's grid wrote: then all are poisoned.
    ///
    /// # Errors
    /// The driver's error.
    pub fn spoil(&self, stream: &Stream, support: &Support, seed: u64) -> Result<(), CudaError> {
        if self.active.is_empty() {
            return self.outputs.fill(stream, 0, self.outputs.len(), 0xff);
        }
        support.poison(stream, &self.slots(), seed)
    }

    /// New activations in every place of the pool, none as it was.
    ///
    /// # Errors
    /// The driver's error.
    pub fn redraw(&mut self, stream: &Stream, inputs: &Inputs, random: &mut Random) -> Result<(), CudaError> {
        for (place, draw) in self.draws.iter_mut().enumerate() {
            let next = inputs.draw(random.word(), *draw);
            *draw = Some(next);
            for slab in &self.active {
                let (to, from) = (slab.stride * place, slab.stride * (POOL + next.index));
                slab.buffer.copy_within(stream, to, from, slab.stride)?;
            }
        }
        Ok(())
    }

    /// The activations of a launch.
    pub fn draw_of(&self, launch: usize) -> Option<Draw> {
        self.draws[launch % POOL]
    }

    /// The argument values of a launch; `scratch` are the addresses for arguments of that kind, in their order.
    pub fn values(&self, launch: usize, args: &[Arg], scratch: &[u64]) -> Vec<Value> {
        let mut scratch = scratch.iter();
        let slab = |slabs: &[Slab], arg: usize, i: usize| {
            let slab = slabs.iter().find(|s| s.arg == arg).expect("a slab was made for every input");
            Value::U64(slab.address(i))
        };
        args.iter()
            .enumerate()
            .map(|(i, arg)| match arg {
                Arg::In { weights: true, .. } | Arg::State { .. } => slab(&self.weights, i, launch % self.plan.copies),
                Arg::In { weights: false, .. } => slab(&self.active, i, launch % POOL),
                Arg::Settled { .. } => slab(&self.settled, i, 0),
                Arg::Out(o) => Value::U64(self.outputs.address() + (self.slot * launch + self.output_at[*o].0) as u64),
                Arg::Scratch { .. } => Value::U64(*scratch.next().expect("an address was given for every scratch")),
                Arg::I32(v) => Value::I32(*v),
                Arg::I64(v) => Value::U64(*v as u64),
                Arg::F32(v) => Value::F32(*v),
            })
            .collect()
    }

    /// Reads the outputs of launches `from..to` into `landing`, for [`Rotation::landed`].
    ///
    /// # Errors
    /// The driver's error.
    pub fn read(
        &self,
        stream: &Stream,
        from: usize,
        to: usize,
        landing: &mut Vec<u8>,
        doing: impl Fn() -> String,
    ) -> Result<(), CudaError> {
        landing.resize((to - from) * self.slot, 0);
        self.outputs.download_into(stream, from * self.slot, landing, doing)
    }

    /// The outputs of the launch that was read as number `i`, as the op lists them.
    pub fn landed<'a>(&self, landing: &'a [u8], i: usize) -> Vec<&'a [u8]> {
        let slot = &landing[i * self.slot..(i + 1) * self.slot];
        self.output_at.iter().map(|&(at, len)| &slot[at..at + len]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Sizes =
        Sizes { weights: 0, outputs: 16384, moved: 0, l2: 60 << 20, memory: 64 << 30, rate: 4600.0, cold: true };

    #[test]
    fn cold_weights_cover_three_times_the_cache_and_every_copy_is_used_equally_often() {
        for weights in [200_000u64, 1 << 20, 33 << 20, 500 << 20] {
            let p = plan(&Sizes { weights, moved: weights, ..H200 });
            assert!(p.copies as u64 * weights >= 3 * H200.l2 && !p.flush, "{weights}: {p:?}");
            assert_eq!(p.launches % p.copies, 0, "{weights}: {p:?}");
            assert!((8..=2 * MOST_LAUNCHES).contains(&p.launches), "{weights}: {p:?}");
        }
    }

    #[test]
    fn copies_too_small_to_push_each_other_out_are_used_once_after_a_flush() {
        let p = plan(&Sizes { weights: 2304, moved: 7000, ..H200 });
        assert_eq!(p, Plan { copies: 4096, launches: 4096, flush: true });
        let p = plan(&Sizes { weights: 33 << 20, moved: 33 << 20, memory: 100 << 20, ..H200 });
        assert_eq!(p, Plan { copies: 1, launches: 1, flush: true });
    }

    #[test]
    fn large_outputs_leave_room_for_fewer_launches_and_for_every_copy() {
        let prompt = Sizes { weights: 15 << 20, outputs: 36 << 20, moved: 51 << 20, ..H200 };
        assert_eq!(plan(&prompt), Plan { copies: 12, launches: 12, flush: false });
        let none = Sizes { outputs: 9 << 20, moved: 45 << 20, ..H200 };
        assert_eq!(plan(&none).launches, 14);
        let norm = Sizes { weights: 6144, outputs: 3 << 19, moved: 9 << 19, ..H200 };
        assert_eq!(plan(&norm), Plan { copies: 85, launches: 85, flush: true });
    }

    #[test]
    fn hot_weights_and_no_weights_need_one_copy() {
        assert_eq!(plan(&Sizes { weights: 1 << 20, moved: 1 << 20, cold: false, ..H200 }).copies, 1);
        let p = plan(&Sizes { weights: 0, moved: 4096, ..H200 });
        assert!(p.copies == 1 && !p.flush && p.launches > 500, "{p:?}");
    }
}
