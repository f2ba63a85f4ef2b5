//! A Gaussian process over the lattice: what the measured points say of the others.
//!
//! Times are modelled as log time = a common level + a level of the kernel + a smooth function of its tunables. Its length
//! scales, one an axis, are those under which the measured points are most likely.
//! Source: Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", chapters 2 and 5.

use super::Seen;
use super::triangle::Triangle;
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

/// One tunable of a kernel.
#[derive(Clone)]
struct Axis {
    scale: f64,
    /// Squares of 0, 1, … steps in units of the scale.
    squares: Vec<f64>,
}

impl Axis {
    fn set(&mut self, scale: f64) {
        self.scale = scale;
        for (steps, square) in self.squares.iter_mut().enumerate() {
            *square = (steps as f64 / scale).powi(2);
        }
    }
}

/// A fitted model. Kernels share no axis, so each has its own length scales and its own block of the covariance.
pub struct Surrogate {
    /// Each kernel's axes.
    axes: Vec<Vec<Axis>>,
    noise: f64,
}

/// What one kernel's block adds to the likelihood: squares of the whitened data, and half the log determinant.
type Share = (f64, f64);

impl Surrogate {
    /// For a space: nothing fitted yet.
    pub fn new(candidates: &[Candidate]) -> Surrogate {
        let groups = candidates.iter().map(|c| c.group + 1).max().unwrap_or(0);
        let mut axes = vec![Vec::new(); groups];
        for c in candidates {
            let of_kernel: &mut Vec<Axis> = &mut axes[c.group];
            of_kernel.resize(c.coordinates.len(), Axis { scale: 3.2, squares: Vec::new() });
            for (axis, &coordinate) in of_kernel.iter_mut().zip(&c.coordinates) {
                if axis.squares.len() <= coordinate {
                    axis.squares.resize(coordinate + 1, 0.0);
                }
            }
        }
        axes.iter_mut().flatten().for_each(|axis| axis.set(axis.scale));
        Surrogate { axes, noise: 0.01 }
    }

    /// How many kernels.
    pub fn groups(&self) -> usize {
        self.axes.len()
    }

    /// The share of the variance that no axis explains.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Prior covariance of two candidates of one kernel, of a prior variance of 1.
    pub fn covariance(&self, a: &Candidate, b: &Candidate) -> f64 {
        let mut square = 0.0;
        for ((&x, &y), axis) in a.coordinates.iter().zip(&b.coordinates).zip(&self.axes[a.group]) {
            square += axis.squares[x.abs_diff(y)];
        }
        LEVEL + (1.0 - LEVEL) * matern(square)
    }

    /// Prior covariances of points and members of one kernel: a row a point. They depend on the steps between the two alone,
    /// which are few where the lattice is small.
    pub fn covariances(&self, seen: &Seen<'_>, group: usize, points: &[usize], members: &[usize]) -> Vec<f64> {
        let axes = &self.axes[group];
        let pairs =
            points.iter().flat_map(|&p| members.iter().map(move |&m| (&seen.candidates[m], &seen.candidates[p])));
        let size = axes.iter().fold(1usize, |size, axis| size.saturating_mul(axis.squares.len()));
        if size > points.len() * members.len() {
            return pairs.map(|(a, b)| self.covariance(a, b)).collect();
        }
        let at_place = |mut place: usize| {
            let mut square = 0.0;
            for axis in axes {
                square += axis.squares[place % axis.squares.len()];
                place /= axis.squares.len();
            }
            LEVEL + (1.0 - LEVEL) * matern(square)
        };
        let table: Vec<f64> = (0..size).map(at_place).collect();
        let place = |(a, b): (&Candidate, &Candidate)| {
            let (mut place, mut stride) = (0, 1);
            for ((&x, &y), axis) in a.coordinates.iter().zip(&b.coordinates).zip(axes) {
                place += x.abs_diff(y) * stride;
                stride *= axis.squares.len();
            }
            place
        };
        pairs.map(|pair| table[place(pair)]).collect()
    }

    /// Fits the scales to what is known, by coordinate ascent from where they stood.
    pub fn fit(&mut self, seen: &Seen<'_>) {
        let data = Data::of(seen, self.groups());
        let n = data.count();
        if n < LEAST {
            return;
        }
        let mut shares: Vec<Share> = (0..self.groups()).map(|g| self.share(seen, &data, g)).collect();
        let mut best = evidence(&shares, n);
        for group in 0..self.groups() {
            if data.points[group].len() < LEAST {
                continue;
            }
            for axis in 0..self.axes[group].len() {
                for scale in SCALES {
                    let before = self.axes[group][axis].scale;
                    if before == scale {
                        continue;
                    }
                    self.axes[group][axis].set(scale);
                    let old = std::mem::replace(&mut shares[group], self.share(seen, &data, group));
                    let now = evidence(&shares, n);
                    if now > best {
                        best = now;
                    } else {
                        self.axes[group][axis].set(before);
                        shares[group] = old;
                    }
                }
            }
        }
        // The scales stay now, and so do the covariances.
        let priors: Vec<Vec<f64>> = data.points.iter().map(|points| self.priors(seen, points)).collect();
        for noise in NOISES {
            let before = std::mem::replace(&mut self.noise, noise);
            let all = (0..self.groups()).map(|g| share(self.factor_of(&priors[g], data.points[g].len()), &data, g));
            let now = evidence(&all.collect::<Vec<Share>>(), n);
            if now > best {
                best = now;
            } else {
                self.noise = before;
            }
        }
    }

    fn share(&self, seen: &Seen<'_>, data: &Data, group: usize) -> Share {
        share(self.factor(seen, &data.points[group]), data, group)
    }

    /// The factor of the covariance of points of one kernel.
    pub fn factor(&self, seen: &Seen<'_>, points: &[usize]) -> Option<Triangle> {
        self.factor_of(&self.priors(seen, points), points.len())
    }

    fn factor_of(&self, priors: &[f64], n: usize) -> Option<Triangle> {
        Triangle::cholesky(n, |i, j| priors[i * (i + 1) / 2 + j] + if i == j { self.noise } else { 0.0 })
    }

    /// Prior covariances of points of one kernel: the lower triangle by rows.
    fn priors(&self, seen: &Seen<'_>, points: &[usize]) -> Vec<f64> {
        let of = |(i, &a): (usize, &usize)| {
            let a = &seen.candidates[a];
            points[..=i].iter().map(move |&b| self.covariance(a, &seen.candidates[b]))
        };
        points.iter().enumerate().flat_map(of).collect()
    }
}

fn share(factor: Option<Triangle>, data: &Data, group: usize) -> Share {
    let Some(factor) = factor else { return (f64::INFINITY, 0.0) };
    let z = factor.forward(&data.centred[group]);
    (z.iter().map(|v| v * v).sum(), (0..z.len()).map(|i| factor.at(i, i).ln()).sum())
}

/// Log likelihood of the data under the prior variance that makes it largest, but for a constant.
fn evidence(shares: &[Share], n: usize) -> f64 {
    let squares: f64 = shares.iter().map(|s| s.0).sum();
    let log_det: f64 = shares.iter().map(|s| s.1).sum();
    -0.5 * n as f64 * (squares / n as f64).max(1e-12).ln() - log_det
}

/// What is measured, ready for the model, by kernel.
pub struct Data {
    /// Measured candidates.
    pub points: Vec<Vec<usize>>,
    /// Log times less their mean.
    pub centred: Vec<Vec<f64>>,
    /// The mean of all log times.
    pub mean: f64,
}

impl Data {
    /// Of what is known.
    pub fn of(seen: &Seen<'_>, groups: usize) -> Data {
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

    /// How many are measured.
    pub fn count(&self) -> usize {
        self.points.iter().map(Vec::len).sum()
    }
}

/// Matérn 5/2 of a squared distance: twice differentiable, rougher than a Gaussian.
fn matern(square: f64) -> f64 {
    let d = (5.0 * square).sqrt();
    (1.0 + d + d * d / 3.0) * (-d).exp()
}
