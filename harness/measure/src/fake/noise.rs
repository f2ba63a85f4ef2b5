//! Scripted noise: factors on a time.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How samples of a cell scatter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Noise {
    /// Normal in the logarithm.
    Quiet {
        /// Relative standard deviation.
        sigma: f64,
    },
    /// Quiet, with a slow wave that all cells share, since it follows the clock.
    Drifting {
        /// Relative standard deviation of single samples.
        sigma: f64,
        /// Height of the wave.
        amplitude: f64,
        /// Length of the wave, ms.
        period_ms: f64,
    },
    /// Two levels.
    Bimodal {
        /// Relative standard deviation within a level.
        sigma: f64,
        /// Share of the slow level.
        share: f64,
        /// Factor between the levels.
        slowdown: f64,
    },
    /// An autoregressive process of the first order that all cells share, in the order of their samples: what another
    /// program on the host does. It goes on from one phase to the next, so that a run which resumes sees other samples.
    Correlated {
        /// Relative standard deviation.
        sigma: f64,
        /// Correlation of neighbouring samples.
        rho: f64,
    },
    /// Quiet, with rare long times.
    HeavyTailed {
        /// Relative standard deviation.
        sigma: f64,
        /// Share of long times.
        share: f64,
        /// How long they are at most.
        most: f64,
    },
}

impl Default for Noise {
    fn default() -> Noise {
        Noise::Quiet { sigma: 0.003 }
    }
}

impl Noise {
    /// The factor of one sample: two uniform numbers decide it, the time where it drifts, and what was `before` of all
    /// cells where it is correlated.
    pub fn factor(self, draw: &mut Draw, now_ns: u64, before: &mut f64) -> f64 {
        match self {
            Noise::Quiet { sigma } => (sigma * draw.normal()).exp(),
            Noise::Drifting { sigma, amplitude, period_ms } => {
                let phase = now_ns as f64 / (period_ms * 1e6) * std::f64::consts::TAU;
                (1.0 + amplitude * phase.sin()) * (sigma * draw.normal()).exp()
            }
            Noise::Correlated { sigma, rho } => {
                *before = rho * *before + (1.0 - rho * rho).sqrt() * draw.normal();
                (sigma * *before).exp()
            }
            Noise::Bimodal { sigma, share, slowdown } => {
                let level = if draw.uniform() < share { slowdown } else { 1.0 };
                level * (sigma * draw.normal()).exp()
            }
            Noise::HeavyTailed { sigma, share, most } => {
                let base = (sigma * draw.normal()).exp();
                // A Pareto tail of index 1.5, cut at `most`.
                if draw.uniform() < share { base * draw.uniform().powf(-1.0 / 1.5).min(most) } else { base }
            }
        }
    }
}

/// Random numbers that depend on what they are for and on nothing else.
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of these words.
    pub fn of(seed: u64, words: &[&str], number: u64) -> Draw {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        for w in words {
            hash.update((w.len() as u64).to_le_bytes());
            hash.update(w);
        }
        let digest = hash.finalize();
        let base = u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
        // Streams of neighbouring numbers start far apart.
        Draw { state: base ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03) }
    }

    /// The same stream for another number, without hashing the words again.
    pub fn numbered(base: u64, number: u64) -> Draw {
        Draw { state: base ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03) }
    }

    /// What [`Draw::numbered`] wants.
    pub fn base(seed: u64, words: &[&str]) -> u64 {
        Draw::of(seed, words, 0).state
    }

    /// Uniform in (0, 1). SplitMix64 (Steele, Lea and Flood, 2014).
    pub fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal. Box and Muller (1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::{median, stdev};

    fn factors(noise: Noise, n: u64) -> Vec<f64> {
        let base = Draw::base(7, &["cell"]);
        let mut before = 0.0;
        (0..n).map(|i| noise.factor(&mut Draw::numbered(base, i), i * 1_000_000, &mut before)).collect()
    }

    #[test]
    fn quiet_noise_has_its_deviation_and_does_not_move_the_median() {
        let f = factors(Noise::Quiet { sigma: 0.02 }, 4000);
        assert!((median(&f).unwrap() - 1.0).abs() < 2e-3);
        assert!((stdev(&f).unwrap() / 0.02 - 1.0).abs() < 0.05);
    }

    #[test]
    fn each_kind_has_the_shape_it_is_named_for() {
        let two = factors(Noise::Bimodal { sigma: 0.001, share: 0.25, slowdown: 1.5 }, 4000);
        let slow = two.iter().filter(|f| **f > 1.25).count();
        assert!((800..1200).contains(&slow), "{slow}");
        let heavy = factors(Noise::HeavyTailed { sigma: 0.001, share: 0.05, most: 20.0 }, 4000);
        assert!(heavy.iter().any(|f| *f > 3.0) && (median(&heavy).unwrap() - 1.0).abs() < 1e-3);
        let wave = factors(Noise::Drifting { sigma: 0.0, amplitude: 0.1, period_ms: 1000.0 }, 1000);
        assert!((wave[250] - 1.1).abs() < 1e-3 && (wave[750] - 0.9).abs() < 1e-3);
        let lasting: Vec<f64> =
            factors(Noise::Correlated { sigma: 0.02, rho: 0.7 }, 8000).into_iter().map(f64::ln).collect();
        let neighbours = lasting.windows(2).map(|w| w[0] * w[1]).sum::<f64>();
        assert!((neighbours / lasting.iter().map(|v| v * v).sum::<f64>() - 0.7).abs() < 0.05);
        assert!((stdev(&lasting).unwrap() / 0.02 - 1.0).abs() < 0.05);
    }

    #[test]
    fn the_same_number_of_the_same_stream_is_the_same_factor() {
        let a = Noise::default().factor(&mut Draw::of(1, &["a", "b"], 5), 0, &mut 0.0);
        assert_eq!(a, Noise::default().factor(&mut Draw::numbered(Draw::base(1, &["a", "b"]), 5), 0, &mut 0.0));
        assert_ne!(a, Noise::default().factor(&mut Draw::of(1, &["ab", ""], 5), 0, &mut 0.0));
    }
}
