//! How many blocks of a kernel a multiprocessor holds at once, told from what the compiler says of it.

use serde::{Deserialize, Serialize};

/// Threads of a warp.
const WARP: u32 = 32;

/// Registers of a multiprocessor, and how many of them a warp is given at a time: the same from 7.5 to 9.0.
const REGISTERS: u32 = 65_536;
const REGISTER_UNIT: u32 = 256;

/// Warps are given registers by fours, one for each scheduler.
const WARP_UNIT: u32 = 4;

/// What fits on one multiprocessor where nothing else runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    /// Blocks that run at once.
    pub blocks_per_sm: u32,
    /// Warps of these blocks.
    pub warps: u32,
    /// Warps that it could hold.
    pub most_warps: u32,
}

/// Warps, blocks, bytes of shared memory, and the unit and the reserve of a block's share of it. Technical specifications
/// by compute capability in the CUDA programming guide; units as in the toolkit's occupancy header.
const fn multiprocessor(cc: u32) -> Option<(u32, u32, u32, u32, u32)> {
    Some(match cc {
        75 => (32, 16, 64 << 10, 256, 0),
        80 => (64, 32, 164 << 10, 128, 1 << 10),
        86 => (48, 16, 100 << 10, 128, 1 << 10),
        87 => (48, 16, 164 << 10, 128, 1 << 10),
        89 => (48, 24, 100 << 10, 128, 1 << 10),
        90 => (64, 32, 228 << 10, 128, 1 << 10),
        _ => return None,
    })
}

impl Occupancy {
    /// Of blocks of so many threads, each thread with so many registers, and bytes of shared memory, static and dynamic, on
    /// a device of compute capability `cc` that gives shared memory all that it can. `None` for a capability that is not
    /// known; no blocks at all where one is too large.
    pub fn of(cc: u32, threads: u32, registers: u32, smem: u32) -> Option<Occupancy> {
        let (most_warps, most_blocks, most_smem, smem_unit, smem_reserve) = multiprocessor(cc)?;
        if threads == 0 || registers == 0 {
            return None;
        }
        let warps = threads.div_ceil(WARP);
        let warp_registers = (registers * WARP).next_multiple_of(REGISTER_UNIT);
        let by_registers = REGISTERS / warp_registers / WARP_UNIT * WARP_UNIT / warps;
        let block_smem = (smem.checked_add(smem_reserve)?).checked_next_multiple_of(smem_unit)?;
        let by_smem = most_smem.checked_div(block_smem).unwrap_or(most_blocks);
        let blocks_per_sm = most_blocks.min(most_warps / warps).min(by_registers).min(by_smem);
        Some(Occupancy { blocks_per_sm, warps: blocks_per_sm * warps, most_warps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn blocks(cc: u32, threads: u32, registers: u32, smem: u32) -> u32 {
        Occupancy::of(cc, threads, registers, smem).unwrap().blocks_per_sm
    }

    #[test]
    fn what_there_is_least_of_says_how_many_blocks_fit() {
        assert_eq!(blocks(80, 64, 16, 0), 32, "blocks");
        assert_eq!(blocks(90, 256, 32, 0), 8, "warps");
        assert_eq!(blocks(80, 256, 64, 0), 4, "registers");
        assert_eq!(blocks(75, 1024, 64, 0), 1, "all registers for one block");
        // 33 registers are given as 40: 51 warps fit, which schedulers share as 48.
        assert_eq!(blocks(90, 128, 33, 0), 12, "registers in units");
        // Each block takes a kilobyte more than it asks for.
        assert_eq!(blocks(86, 128, 32, 49 << 10), 2, "shared memory");
        assert_eq!(blocks(86, 128, 32, 50 << 10), 1, "shared memory with its reserve");
        assert_eq!(blocks(75, 128, 32, 32 << 10), 2, "shared memory without a reserve");
        assert_eq!(blocks(86, 128, 32, 100 << 10), 0, "a block that does not fit");
    }

    #[test]
    fn warps_are_those_of_whole_blocks_and_what_is_not_known_is_not_told() {
        let of = Occupancy::of(89, 160, 40, 0).unwrap();
        assert_eq!(of, Occupancy { blocks_per_sm: 9, warps: 45, most_warps: 48 });
        assert_eq!(Occupancy::of(61, 128, 32, 0), None);
        assert_eq!(Occupancy::of(90, 0, 32, 0), None);
        assert_eq!(Occupancy::of(90, 128, 0, 0), None);
    }

    #[test]
    fn a_multiprocessor_holds_the_threads_and_a_block_the_shared_memory_of_its_limits() {
        for cc in [75, 80, 86, 87, 89, 90] {
            let limits = Limits::of_architecture(cc).unwrap();
            let of = Occupancy::of(cc, 128, 32, limits.smem).unwrap();
            assert_eq!((of.blocks_per_sm, of.most_warps * WARP), (1, limits.threads_per_sm), "{cc}");
            assert_eq!(blocks(cc, 128, 32, limits.smem + 1), 0, "{cc}");
        }
    }
}
