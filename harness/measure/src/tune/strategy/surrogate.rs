//! A Gaussian process over the lattice: what the measured points say of the others.
//!
//! Times are modelled as log time = a common level + a level of the kernel + a smooth function of its tunables. Its length
//! scales, one an axis, are those under which the measured points are most likely.
//! Source: Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", chapters 2 and 5.

use super::{Known, Seen};
use crate::tune::plan::Candidate;

/// Length scales that an axis may take, in steps of its lattice; the last is "does not matter".
const SCALES: [f64; 5] = [0.8, 1.6, 3.2, 6.4, 1e3];
/// Shares of the variance: of the kernel's level and of a step that no axis explains.
const LEVEL: f64 = 0.5;
/// Log times further above the best are cut here: how bad a bad point is says nothing of where the good ones are.
const CUT: f64 = 1.2;

/// One axis of the model: an axis of one kernel.
type Axis = (usize, usize);

/// A fitted model.
pub struct Surrogate {
    axes: Vec<Axis>,
    scales: Vec<f64>,
    noise: f64,
}

/// What the model says of a candidate, in units of log time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Expected log time.
    pub mean: f64,
    /// Its variance.
    pub variance: f64,
}

impl Surrogate {
    /// For a space: nothing fitted yet.
    pub fn new(candidates: &[Candidate]) -> Surrogate {
        let mut axes: Vec<Axis> =
            candidates.iter().flat_map(|c| (0..c.coordinates.len()).map(|a| (c.group, a))).collect();
        axes.sort_unstable();
        axes.dedup();
        let scales = vec![3.2; axes.len()];
        Surrogate { axes, scales, noise: 0.02 }
    }

    fn scale(&self, axis: Axis) -> f64 {
        self.axes.binary_search(&axis).map_or(1e3, |i| self.scales[i])
    }

    /// Prior covariance of two candidates, of a prior variance of 1.
    fn covariance(&self, a: &Candidate, b: &Candidate) -> f64 {
        if a.group != b.group {
            return 0.0;
        }
        let mut square = 0.0;
        for (axis, (&x, &y)) in a.coordinates.iter().zip(&b.coordinates).enumerate() {
            let d = (x as f64 - y as f64) / self.scale((a.group, axis));
            square += d * d;
        }
        LEVEL + (1.0 - LEVEL) * matern(square)
    }

    /// Fits the scales to what is known, by coordinate ascent from where they stood.
    pub fn fit(&mut self, seen: &Seen<'_>) {
        let data = Data::of(seen);
        if data.points.len() < 4 {
            return;
        }
        let mut best = self.evidence(seen, &data);
        let try_out = |this: &mut Surrogate, best: &mut f64, change: &dyn Fn(&mut Surrogate)| {
            let before = (this.scales.clone(), this.noise);
            change(this);
            let e = this.evidence(seen, &data);
            if e > *best {
                *best = e;
            } else {
                (this.scales, this.noise) = before;
            }
        };
        for i in 0..self.axes.len() {
            // An axis with fewer than three measured points in its kernel cannot be fitted.
            let group = self.axes[i].0;
            if data.points.iter().filter(|&&p| seen.candidates[p].group == group).count() < 4 {
                continue;
            }
            for s in SCALES {
                if s != self.scales[i] {
                    try_out(self, &mut best, &|this| this.scales[i] = s);
                }
            }
        }
        for noise in [0.003, 0.01, 0.03, 0.1, 0.3] {
            if noise != self.noise {
                try_out(self, &mut best, &|this| this.noise = noise);
            }
        }
    }

    /// Log marginal likelihood of the data, the prior variance being the best one.
    fn evidence(&self, seen: &Seen<'_>, data: &Data) -> f64 {
        let Some(factor) = self.factor(seen, data) else { return f64::NEG_INFINITY };
        let n = data.points.len() as f64;
        let z = factor.forward(&data.centred);
        let variance = (z.iter().map(|v| v * v).sum::<f64>() / n).max(1e-12);
        let log_det: f64 = (0..data.points.len()).map(|i| factor.at(i, i).ln()).sum();
        -0.5 * n * variance.ln() - log_det
    }

    fn factor(&self, seen: &Seen<'_>, data: &Data) -> Option<Triangle> {
        let n = data.points.len();
        Triangle::cholesky(n, |i, j| {
            let (a, b) = (data.points[i], data.points[j]);
            self.covariance(&seen.candidates[a], &seen.candidates[b]) + if i == j { self.noise } else { 0.0 }
        })
    }

    /// Chooses up to `many` of `pool` one after another, each time the one with the largest expected improvement over the
    /// best, weighed by the chance that it is valid. A chosen point counts as measured at its forecast.
    pub fn choose(&self, seen: &Seen<'_>, pool: &[usize], many: usize) -> Vec<usize> {
        let data = Data::of(seen);
        let Some(factor) = self.factor(seen, &data) else { return pool.iter().copied().take(many).collect() };
        let n = data.points.len();
        let z = factor.forward(&data.centred);
        let scale = if n == 0 { 1.0 } else { (z.iter().map(|v| v * v).sum::<f64>() / n as f64).max(1e-12) };
        let best = data.best - data.mean;
        // For each of the pool the row L⁻¹ k, which grows by one entry with each choice.
        let mut rows: Vec<Vec<f64>> = pool
            .iter()
            .map(|&p| {
                let k: Vec<f64> =
                    data.points.iter().map(|&d| self.covariance(&seen.candidates[p], &seen.candidates[d])).collect();
                factor.forward(&k)
            })
            .collect();
        let mut forecasts: Vec<Forecast> = rows
            .iter()
            .map(|row| Forecast {
                mean: row.iter().zip(&z).map(|(a, b)| a * b).sum(),
                variance: (1.0 - row.iter().map(|v| v * v).sum::<f64>()).max(1e-9),
            })
            .collect();
        let valid: Vec<f64> = pool.iter().map(|&p| self.chance_of_valid(seen, p)).collect();
        let mut taken = vec![false; pool.len()];
        let mut chosen = Vec::new();
        while chosen.len() < many.min(pool.len()) {
            let score = |i: usize| {
                valid[i] * expected_improvement(best, forecasts[i].mean, (forecasts[i].variance * scale).sqrt())
            };
            let Some(next) =
                (0..pool.len()).filter(|&i| !taken[i]).max_by(|&a, &b| score(a).total_cmp(&score(b)).then(b.cmp(&a)))
            else {
                break;
            };
            taken[next] = true;
            chosen.push(pool[next]);
            let pivot = rows[next].clone();
            let diagonal = (forecasts[next].variance + self.noise).sqrt();
            for i in (0..pool.len()).filter(|&i| !taken[i]) {
                let prior = self.covariance(&seen.candidates[pool[i]], &seen.candidates[pool[next]]);
                let known: f64 = rows[i].iter().zip(&pivot).map(|(a, b)| a * b).sum();
                let entry = (prior - known) / diagonal;
                rows[i].push(entry);
                forecasts[i].variance = (forecasts[i].variance - entry * entry).max(1e-9);
            }
            rows[next].push(diagonal);
        }
        chosen
    }

    /// Share of valid points around a candidate, near ones counting more; a point that nothing is near to is valid.
    fn chance_of_valid(&self, seen: &Seen<'_>, candidate: usize) -> f64 {
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
}

/// What is measured, ready for the model.
struct Data {
    points: Vec<usize>,
    centred: Vec<f64>,
    mean: f64,
    best: f64,
}

impl Data {
    fn of(seen: &Seen<'_>) -> Data {
        let times: Vec<(usize, f64)> =
            seen.known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?.time()?.ln()))).collect();
        let best = times.iter().map(|t| t.1).fold(f64::INFINITY, f64::min);
        let cut: Vec<f64> = times.iter().map(|t| t.1.min(best + CUT)).collect();
        let mean = if cut.is_empty() { 0.0 } else { cut.iter().sum::<f64>() / cut.len() as f64 };
        Data {
            points: times.iter().map(|t| t.0).collect(),
            centred: cut.iter().map(|y| y - mean).collect(),
            mean,
            best,
        }
    }
}

/// Matérn 5/2 of a squared distance: twice differentiable, rougher than a Gaussian.
fn matern(square: f64) -> f64 {
    let d = (5.0 * square).sqrt();
    (1.0 + d + d * d / 3.0) * (-d).exp()
}

/// Expected amount by which a normal forecast undercuts `best`.
fn expected_improvement(best: f64, mean: f64, sigma: f64) -> f64 {
    let gap = best - mean;
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
                    if !(left > 0.0) {
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
        for i in 0..3 {
            for j in 0..=i {
                let product: f64 = (0..=j).map(|k| l.at(i, k) * l.at(j, k)).sum();
                assert!((product - a[i][j]).abs() < 1e-12);
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
