//! Randomness that no kernel can foresee.

use std::hash::{BuildHasher, RandomState};

/// A stream of random words (SplitMix64, Steele et al. 2014), started from the operating system's randomness.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A new stream, different in every process.
    pub fn from_system() -> Random {
        Random(RandomState::new().hash_one(std::process::id()))
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True once in `n` on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.word().is_multiple_of(n)
    }
}
