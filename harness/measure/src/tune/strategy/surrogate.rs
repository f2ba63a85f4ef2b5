//! A Gaussian process over the lattice: what the measured points say of the others.
//!
//! Times are modelled as log time = a common level + a level of the kernel + a smooth function of its tunables. Its length
//! scales, one an axis, are those under which the measured points are most likely.
//! Source: Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", chapters 2 and 5.

use super::{Known, Seen};
use crate::tune::plan::Candidate;

/// Length scales that an axis may take, in steps of its lattice; the last is "does not matter".
const SCALES: [f64; 5] = [0.8, 1.6, 3.2, 6.4, 1e3];
/// Shares of the variance that no axis explains.
const NOISES: [f64; 5] = [0.003, 0.01, 0.03, 0.1, 0.3];
/// Share of the variance that is the kernel's level.
const LEVEL: f64 = 0.5;
/// Fewest points that scales are fitted to.
const LEAST: usize = 4;
/// Log times further above the best are cut here: how bad a bad point is says nothing of where the good ones are.
const CUT: f64 = 1.0;

/// A fitted model. Kernels share no axis, so each has its own length scales and its own block of the covariance.
pub struct Surrogate {
    /// Length scales of each kernel's axes.
    scales: Vec<Vec<f64>>,
    noise: f64,
}

/// What the model says of a candidate, in units of log time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Forecast {
    mean: f64,
    variance: f64,
}

/// What one kernel's block adds to the likelihood: squares of the whitened data, and half the log determinant.
type Share = (f64, f64);

impl Surrogate {
    /// For a space: nothing fitted yet.
    pub fn new(candidates: &[Candidate]) -> Surrogate {
        let groups = candidates.iter().map(|c| c.group + 1).max().unwrap_or(0);
        let mut scales = vec![Vec::new(); groups];
        for c in candidates {
            scales[c.group].resize(c.coordinates.len(), 3.2);
        }
        Surrogate { scales, noise: 0.01 }
    }

    /// Prior covariance of two candidates of one kernel, of a prior variance of 1.
    fn covariance(&self, a: &Candidate, b: &Candidate) -> f64 {
        let mut square = 0.0;
        for ((&x, &y), scale) in a.coordinates.iter().zip(&b.coordinates).zip(&self.scales[a.group]) {
            let d = (x as f64 - y as f64) / scale;
            square += d * d;
        }
        LEVEL + (1.0 - LEVEL) * matern(square)
    }

    /// Fits the scales to what is known, by coordinate ascent from where they stood.
    pub fn fit(&mut self, seen: &Seen<'_>) {
        let data = Data::of(seen, self.scales.len());
        let n = data.count();
        if n < LEAST {
            return;
        }
        let mut shares: Vec<Share> = (0..self.scales.len()).map(|g| self.share(seen, &data, g)).collect();
        let mut best = evidence(&shares, n);
        for group in 0..self.scales.len() {
            if data.points[group].len() < LEAST {
                continue;
            }
            for axis in 0..self.scales[group].len() {
                for scale in SCALES {
                    let before = std::mem::replace(&mut self.scales[group][axis], scale);
                    if before == scale {
                        continue;
                    }
                    let old = std::mem::replace(&mut shares[group], self.share(seen, &data, group));
                    let now = evidence(&shares, n);
                    if now > best {
                        best = now;
                    } else {
                        self.scales[group][axis] = before;
                        shares[group] = old;
                    }
                }
            }
        }
        for noise in NOISES {
            let before = std::mem::replace(&mut self.noise, noise);
            let all: Vec<Share> = (0..self.scales.len()).map(|g| self.share(seen, &data, g)).collect();
            let now = evidence(&all, n);
            if now > best {
                best = now;
            } else {
                self.noise = before;
            }
        }
    }

    fn share(&self, seen: &Seen<'_>, data: &Data, group: usize) -> Share {
        let Some(factor) = self.factor(seen, &data.points[group]) else { return (f64::INFINITY, 0.0) };
        let z = factor.forward(&data.centred[group]);
        (z.iter().map(|v| v * v).sum(), (0..z.len()).map(|i| factor.at(i, i).ln()).sum())
    }

    fn factor(&self, seen: &Seen<'_>, points: &[usize]) -> Option<Triangle> {
        Triangle::cholesky(points.len(), |i, j| {
            let (a, b) = (&seen.candidates[points[i]], &seen.candidates[points[j]]);
            self.covariance(a, b) + if i == j { self.noise } else { 0.0 }
        })
    }

    /// Chooses up to `many` of `pool` one after another, each time the one with the largest expected improvement over
    /// `goal`, a time in ns, weighed by the chance that it is valid. A chosen point counts as measured at its forecast.
    pub fn choose(&self, seen: &Seen<'_>, pool: &[usize], many: usize, goal: f64) -> Vec<usize> {
        let data = Data::of(seen, self.scales.len());
        let blocks: Option<Vec<(Triangle, Vec<f64>)>> = (0..self.scales.len())
            .map(|g| {
                let factor = self.factor(seen, &data.points[g])?;
                let z = factor.forward(&data.centred[g]);
                Some((factor, z))
            })
            .collect();
        let Some(blocks) = blocks else { return pool.iter().copied().take(many).collect() };
        let squares: f64 = blocks.iter().flat_map(|(_, z)| z).map(|v| v * v).sum();
        let scale = if data.count() == 0 { 1.0 } else { (squares / data.count() as f64).max(1e-12) };
        let goal = goal.ln() - data.mean;
        let group = |i: usize| seen.candidates[pool[i]].group;
        // For each of the pool the row L⁻¹ k of its kernel, which grows by one entry with each choice.
        let mut rows: Vec<Vec<f64>> = (0..pool.len())
            .map(|i| {
                let here = &seen.candidates[pool[i]];
                let points = &data.points[group(i)];
                let k: Vec<f64> = points.iter().map(|&d| self.covariance(here, &seen.candidates[d])).collect();
                blocks[group(i)].0.forward(&k)
            })
            .collect();
        let mut forecasts: Vec<Forecast> = (0..pool.len())
            .map(|i| Forecast {
                mean: rows[i].iter().zip(&blocks[group(i)].1).map(|(a, b)| a * b).sum(),
                variance: (1.0 - rows[i].iter().map(|v| v * v).sum::<f64>()).max(1e-9),
            })
            .collect();
        let valid: Vec<f64> = pool.iter().map(|&p| chance_of_valid(seen, p)).collect();
        let score = |i: usize, f: Forecast| valid[i] * expected_improvement(goal, f.mean, (f.variance * scale).sqrt());
        let mut scores: Vec<f64> = (0..pool.len()).map(|i| score(i, forecasts[i])).collect();
        let mut chosen = Vec::new();
        while chosen.len() < many.min(pool.len()) {
            let next = (0..pool.len())
                .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
                .expect("fewer are chosen than the pool has");
            chosen.push(pool[next]);
            let pivot = rows[next].clone();
            let diagonal = (forecasts[next].variance + self.noise).sqrt();
            for i in (0..pool.len()).filter(|&i| group(i) == group(next)) {
                if scores[i] == f64::NEG_INFINITY {
                    continue;
                }
                let prior = self.covariance(&seen.candidates[pool[i]], &seen.candidates[pool[next]]);
                let known: f64 = rows[i].iter().zip(&pivot).map(|(a, b)| a * b).sum();
                let entry = (prior - known) / diagonal;
                rows[i].push(entry);
                forecasts[i].variance = (forecasts[i].variance - entry * entry).max(1e-9);
                scores[i] = score(i, forecasts[i]);
            }
            scores[next] = f64::NEG_INFINITY;
        }
        chosen
    }
}

/// Log likelihood of the data under the prior variance that makes it largest, but for a constant.
fn evidence(shares: &[Share], n: usize) -> f64 {
    let squares: f64 = shares.iter().map(|s| s.0).sum();
    let log_det: f64 = shares.iter().map(|s| s.1).sum();
    -0.5 * n as f64 * (squares / n as f64).max(1e-12).ln() - log_det
}

/// Share of valid points around a candidate, near ones counting more; a point that nothing is near to is valid.
fn chance_of_valid(seen: &Seen<'_>, candidate: usize) -> f64 {
    let here = &seen.candidates[candidate];
    let (mut valid, mut all) = (1.0, 1.0);
    for (other, known) in seen.candidates.iter().zip(seen.known) {
        let Some(known) = known else { continue };
        if other.group != here.group {
            continue;
        }
        let steps: f64 =
            other.coordinates.iter().zip(&here.coordinates).map(|(&x, &y)| (x as f64 - y as f64).powi(2)).sum();
        let weight = 2.0 * (-steps / 2.0).exp();
        all += weight;
        if !matches!(known, Known::Invalid) {
            valid += weight;
        }
    }
    valid / all
}

/// What is measured, ready for the model, by kernel.
struct Data {
    points: Vec<Vec<usize>>,
    /// Log times less their mean.
    centred: Vec<Vec<f64>>,
    mean: f64,
}

impl Data {
    fn of(seen: &Seen<'_>, groups: usize) -> Data {
        let times: Vec<(usize, f64)> =
            seen.known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?.time()?.ln()))).collect();
        let best = times.iter().map(|t| t.1).fold(f64::INFINITY, f64::min);
        let cut = |y: f64| y.min(best + CUT);
        let mean = times.iter().map(|t| cut(t.1)).sum::<f64>() / times.len().max(1) as f64;
        let (mut points, mut centred) = (vec![Vec::new(); groups], vec![Vec::new(); groups]);
        for (i, y) in times {
            points[seen.candidates[i].group].push(i);
            centred[seen.candidates[i].group].push(cut(y) - mean);
        }
        Data { points, centred, mean }
    }

    fn count(&self) -> usize {
        self.points.iter().map(Vec::len).sum()
    }
}

/// Matérn 5/2 of a squared distance: twice differentiable, rougher than a Gaussian.
fn matern(square: f64) -> f64 {
    let d = (5.0 * square).sqrt();
    (1.0 + d + d * d / 3.0) * (-d).exp()
}

/// Expected amount by which a normal forecast undercuts `goal`.
fn expected_improvement(goal: f64, mean: f64, sigma: f64) -> f64 {
    let gap = goal - mean;
    let z = gap / sigma;
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (gap * below(z) + sigma * density).max(0.0)
}

/// The standard normal distribution function, to 1e-7: more than a ranking needs and cheaper than the exact one.
/// Source: Abramowitz and Stegun, formula 26.2.17.
fn below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z > 0.0 { 1.0 - upper } else { upper }
}

/// A lower triangular matrix, packed by rows.
struct Triangle {
    rows: Vec<f64>,
}

impl Triangle {
    fn at(&self, i: usize, j: usize) -> f64 {
        self.rows[i * (i + 1) / 2 + j]
    }

    /// The factor of a symmetric matrix; `None` if it is not positive definite.
    fn cholesky(n: usize, entry: impl Fn(usize, usize) -> f64) -> Option<Triangle> {
        let mut rows: Vec<f64> = Vec::with_capacity(n * (n + 1) / 2);
        for i in 0..n {
            let row = rows.len();
            for j in 0..=i {
                let other = j * (j + 1) / 2;
                let done: f64 = (0..j).map(|k| rows[row + k] * rows[other + k]).sum();
                let left = entry(i, j) - done;
                if i == j {
                    if left.is_nan() || left <= 0.0 {
                        return None;
                    }
                    rows.push(left.sqrt());
                } else {
                    rows.push(left / rows[other + j]);
                }
            }
        }
        Some(Triangle { rows })
    }

    /// Solves L z = b.
    fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut z = Vec::with_capacity(b.len());
        for (i, value) in b.iter().enumerate() {
            let row = &self.rows[i * (i + 1) / 2..];
            let done: f64 = z.iter().zip(row).map(|(a, l): (&f64, &f64)| a * l).sum();
            z.push((value - done) / row[i]);
        }
        z
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
    }

    #[test]
    fn improvement_is_the_gap_where_the_forecast_is_sure_and_grows_with_doubt() {
        assert!((expected_improvement(1.0, 0.6, 1e-6) - 0.4).abs() < 1e-6);
        assert!(expected_improvement(1.0, 2.0, 0.01) < 1e-9);
        assert!(expected_improvement(1.0, 1.2, 0.5) > expected_improvement(1.0, 1.2, 0.1));
        assert!((below(1.96) - 0.975).abs() < 1e-4 && (below(-1.0) - 0.158_655).abs() < 1e-5);
    }
}
