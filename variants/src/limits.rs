//! What constraints may know of a device.

use serde::{Deserialize, Serialize};

use crate::Isa;

/// The facts of a device that decide which variants it runs. Asked of the device, or of an architecture where there is no
/// device to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Compute capability, ten times the major version plus the minor; 0 where no CUDA kernel runs.
    pub cc: u32,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Bytes of shared memory that a block may ask for.
    pub smem: u32,
    /// Bytes of the last-level cache.
    pub l2: u64,
    /// Threads of a multiprocessor.
    pub threads_per_sm: u32,
    /// The instruction set level; `None` where no CPU kernel runs.
    pub isa: Option<Isa>,
}

impl Limits {
    /// A processor of this level. `l2` is its last-level cache in bytes; 0 if that is not known.
    pub const fn cpu(isa: Isa, l2: u64) -> Limits {
        Limits { cc: 0, sms: 0, smem: 0, l2, threads_per_sm: 0, isa: Some(isa) }
    }

    /// What every device of a compute capability has, for compiling without one: shared memory and threads by the table
    /// of compute capabilities of the CUDA programming guide. `None` for a capability that is not in it.
    ///
    /// Multiprocessors and cache differ between devices of one capability; the smallest on sale stand in.
    pub const fn of_architecture(cc: u32) -> Option<Limits> {
        let (smem_kib, threads_per_sm, sms, l2_mib) = match cc {
            75 => (64, 1024, 14, 1),
            80 => (163, 2048, 56, 24),
            86 => (99, 1536, 16, 2),
            87 => (163, 1536, 4, 2),
            89 => (99, 1536, 20, 12),
            90 => (227, 2048, 78, 50),
            _ => return None,
        };
        Some(Limits { cc, sms, smem: smem_kib * 1024, l2: l2_mib << 20, threads_per_sm, isa: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_of_the_promise_has_its_limits() {
        for cc in [75, 80, 86, 87, 89, 90] {
            assert_eq!(Limits::of_architecture(cc).unwrap().cc, cc);
        }
        assert_eq!(Limits::of_architecture(75).unwrap().smem, 65536);
        assert_eq!(Limits::of_architecture(61), None);
    }
}
