//! rope / plain: rotary position embedding.
//!
//! Angles are position times frequency in f64, as an f32 product is off by whole radians at position 131071. Cosines and
//! sines of a batch are computed once and shared by every head of every layer.

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// 2i with 2i + 1: the `llama` architecture of GGUF.
    Adjacent,
    /// i with i + dim / 2: `qwen2`, `qwen3`.
    Halves,
}

/// The frequencies of a model: how fast each pair turns.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    frequencies: Vec<f64>,
}

impl RopeTable {
    /// The frequencies `theta^(-2i / dim)` of `dim / 2` pairs, each divided by its factor where the model has factors
    /// (the `rope_freqs` tensor, GB9).
    ///
    /// # Panics
    /// Where `dim` is odd or the factors are not one for each pair.
    pub fn new(dim: usize, theta: f64, factors: Option<&[f32]>) -> RopeTable {
        assert!(dim.is_multiple_of(2), "pairs need an even dimension, got {dim}");
        assert!(factors.is_none_or(|f| f.len() == dim / 2), "one factor for each of {} pairs", dim / 2);
        let frequencies = (0..dim / 2)
            .map(|i| theta.powf(-2.0 * i as f64 / dim as f64) / factors.map_or(1.0, |f| f64::from(f[i])))
            .collect();
        RopeTable { frequencies }
    }

    /// Radians a position of each pair.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// The number of elements of a head that turn.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }
}

/// Cosines and sines of a batch of consecutive positions.
#[derive(Clone, Debug)]
pub struct RopeAngles {
    pairs: usize,
    m: usize,
    // [m][pairs] each, with room for the largest batch.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeAngles {
    /// Room for batches of up to `max_m` positions.
    pub fn new(table: &RopeTable, max_m: usize) -> RopeAngles {
        let pairs = table.frequencies.len();
        RopeAngles { pairs, m: 0, cos: vec![0.0; max_m * pairs], sin: vec![0.0; max_m * pairs] }
    }

    /// Computes the angles of positions `pos0..pos0 + m`. Allocates nothing.
    ///
    /// # Panics
    /// Where the batch is larger than there is room for, or the table has other pairs.
    pub fn fill(&mut self, table: &RopeTable, pos0: usize, m: usize) {
        assert!(table.frequencies.len() == self.pairs && m * self.pairs <= self.cos.len(), "room for {m} positions");
        self.m = m;
        for j in 0..m {
            let position = (pos0 + j) as f64;
            for (i, &frequency) in table.frequencies.iter().enumerate() {
                let (sin, cos) = (position * frequency).sin_cos();
                self.cos[j * self.pairs + i] = cos as f32;
                self.sin[j * self.pairs + i] = sin as f32;
            }
        }
    }

    /// Positions held now.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Rotates the heads of row `j` in place. Elements beyond the table's dimension stay.
    pub(crate) fn rotate(&self, j: usize, heads: &mut [f32], head_dim: usize, pairing: Pairing) {
        let cos = &self.cos[j * self.pairs..][..self.pairs];
        let sin = &self.sin[j * self.pairs..][..self.pairs];
        assert!(2 * self.pairs <= head_dim, "a head of {head_dim} holds {} pairs", self.pairs);
        for head in heads.chunks_exact_mut(head_dim) {
            match pairing {
                Pairing::Adjacent => {
                    for ((pair, &c), &s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * c - b * s;
                        pair[1] = a * s + b * c;
                    }
                }
                Pairing::Halves => {
                    let (low, high) = head[..2 * self.pairs].split_at_mut(self.pairs);
                    for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rotation in f64, pair by pair.
    fn reference(head: &[f32], pos: usize, theta: f64, factors: Option<&[f32]>, pairing: Pairing) -> Vec<f64> {
        let dim = head.len();
        let mut out = vec![0.0; dim];
        for i in 0..dim / 2 {
            let angle = pos as f64 / theta.powf(2.0 * i as f64 / dim as f64) / factors.map_or(1.0, |f| f64::from(f[i]));
            let (p, q) = match pairing {
                Pairing::Adjacent => (2 * i, 2 * i + 1),
                Pairing::Halves => (i, i + dim / 2),
            };
            let (a, b) = (f64::from(head[p]), f64::from(head[q]));
            out[p] = a * angle.cos() - b * angle.sin();
            out[q] = a * angle.sin() + b * angle.cos();
        }
        out
    }

    #[test]
    fn rotation_is_that_of_f64_at_every_position_pairing_and_factor() {
        let factors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32).collect();
        let head: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 / 32.0 - 1.0) / 8.0).collect();
        for pairing in [Pairing::Adjacent, Pairing::Halves] {
            for factors in [None, Some(factors.as_slice())] {
                for pos in [0, 1, 17, 4095, 8191, 131_071] {
                    let table = RopeTable::new(64, 1e4, factors);
                    let mut angles = RopeAngles::new(&table, 2);
                    angles.fill(&table, pos, 2);
                    let mut got = [head.clone(), head.clone()].concat();
                    angles.rotate(0, &mut got, 64, pairing);
                    for (i, want) in reference(&head, pos, 1e4, factors, pairing).iter().enumerate() {
                        for got in [got[i], got[i + 64]] {
                            assert!((f64::from(got) - want).abs() <= 2e-7, "{pairing:?} {pos} {i}: {got} {want}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn elements_beyond_the_rotated_dimension_stay() {
        let table = RopeTable::new(4, 1e4, None);
        let mut angles = RopeAngles::new(&table, 1);
        angles.fill(&table, 3, 1);
        for pairing in [Pairing::Adjacent, Pairing::Halves] {
            let mut head = [1.0; 8];
            angles.rotate(0, &mut head, 8, pairing);
            assert_eq!(head[4..], [1.0; 4]);
            assert_ne!(head[..4], [1.0; 4]);
        }
    }
}
