//! The factor of a covariance.

/// A lower triangular matrix, by columns: what is summed for all rows of a column lies side by side.
///
/// Each sum takes its terms in the order of their columns, so a result does not depend on how wide the processor adds.
pub struct Triangle {
    n: usize,
    columns: Vec<f64>,
}

impl Triangle {
    /// An entry on the diagonal or below.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.columns[j * self.n + i]
    }

    /// The factor of a symmetric matrix; `None` if it is not positive definite.
    pub fn cholesky(n: usize, entry: impl Fn(usize, usize) -> f64) -> Option<Triangle> {
        let mut columns = vec![0.0; n * n];
        let mut done = vec![0.0; n];
        for j in 0..n {
            let (before, from) = columns.split_at_mut(j * n);
            done[j..].fill(0.0);
            for column in before.chunks_exact(n) {
                let factor = column[j];
                for (sum, l) in done[j..].iter_mut().zip(&column[j..]) {
                    *sum += l * factor;
                }
            }
            let left = entry(j, j) - done[j];
            if left.is_nan() || left <= 0.0 {
                return None;
            }
            let pivot = left.sqrt();
            from[j] = pivot;
            for i in j + 1..n {
                from[i] = (entry(i, j) - done[i]) / pivot;
            }
        }
        Some(Triangle { n, columns })
    }

    /// Solves L z = b.
    pub fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut z = b.to_vec();
        self.forward_all(&mut z, 1);
        z
    }

    /// Solves L Z = B in place, of so many right sides; a row of B lies side by side.
    pub fn forward_all(&self, b: &mut [f64], sides: usize) {
        let mut done = vec![0.0; sides];
        for i in 0..self.n {
            let (solved, rest) = b.split_at_mut(i * sides);
            done.fill(0.0);
            for (k, row) in solved.chunks_exact(sides).enumerate() {
                let l = self.at(i, k);
                for (sum, z) in done.iter_mut().zip(row) {
                    *sum += z * l;
                }
            }
            let pivot = self.at(i, i);
            for (value, sum) in rest[..sides].iter_mut().zip(&done) {
                *value = (*value - sum) / pivot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_solves_its_system() {
        let a = [[4.0, 2.0, 0.4], [2.0, 5.0, 1.0], [0.4, 1.0, 3.0]];
        let l = Triangle::cholesky(3, |i, j| a[i][j]).unwrap();
        for (i, row) in a.iter().enumerate() {
            for (j, entry) in row.iter().enumerate().take(i + 1) {
                let product: f64 = (0..=j).map(|k| l.at(i, k) * l.at(j, k)).sum();
                assert!((product - entry).abs() < 1e-12);
            }
        }
        let z = l.forward(&[1.0, 2.0, 3.0]);
        assert!((l.at(1, 0) * z[0] + l.at(1, 1) * z[1] - 2.0).abs() < 1e-12);
        assert!(Triangle::cholesky(2, |i, j| if i == j { 1.0 } else { 2.0 }).is_none());
        // Two right sides at once are what each is alone.
        let mut both = [1.0, 7.0, 2.0, 0.5, 3.0, -1.0];
        l.forward_all(&mut both, 2);
        assert_eq!([both[0], both[2], both[4]], z[..]);
        assert_eq!([both[1], both[3], both[5]], l.forward(&[7.0, 0.5, -1.0])[..]);
    }
}
