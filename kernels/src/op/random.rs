//! The random numbers of the gate: small, seeded, the same on every machine.

/// SplitMix64: each output is a hash of a counter, so any seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream for `seed`, apart from that of any other `salt`.
    pub(crate) fn new(seed: u64, salt: u64) -> Rng {
        let mut rng = Rng(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.bits();
        rng
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number below `n`, which is at least 1. The bias of the remainder is below 2⁻³² for any `n` used here.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.bits() >> 32) as usize * n) >> 32
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.bits() >> 40) as f32 / (1u64 << 24) as f32)
    }

    /// A whole number in `low..=high`.
    pub(crate) fn whole(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * f64::from(self.uniform(f32::MIN_POSITIVE, 1.0)).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.uniform(0.0, 1.0))).cos()) as f32
    }

    /// `count` values of one kind.
    pub(crate) fn many<T>(&mut self, count: usize, mut one: impl FnMut(&mut Rng) -> T) -> Vec<T> {
        (0..count).map(|_| one(self)).collect()
    }
}
