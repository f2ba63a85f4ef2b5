//! What a fitted surrogate says of the candidates that nothing is known of, and which of them it would take.

use super::surrogate::{Data, Surrogate};
use super::triangle::Triangle;
use super::{Known, Seen};

/// What the model says of a candidate, in units of log time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Forecast {
    mean: f64,
    variance: f64,
}

/// The unknown candidates of one kernel.
struct Block {
    members: Vec<usize>,
    /// Rows of L⁻¹ K: one a measured point of the kernel, an entry a member.
    rows: Vec<f64>,
    forecasts: Vec<Forecast>,
    /// The chance that each is valid.
    valid: Vec<f64>,
}

/// A model between two answers: everything that all choices of one question share.
pub struct Outlook<'a> {
    surrogate: &'a Surrogate,
    seen: &'a Seen<'a>,
    /// `None` where the covariance of the points has no factor.
    blocks: Option<Vec<Block>>,
    /// Where a candidate stands among the members of its block.
    place: Vec<usize>,
    mean: f64,
    /// The prior variance under which the points are most likely.
    scale: f64,
}

impl<'a> Outlook<'a> {
    /// Of what is known now.
    pub fn of(surrogate: &'a Surrogate, seen: &'a Seen<'a>) -> Outlook<'a> {
        let groups = surrogate.groups();
        let data = Data::of(seen, groups);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups];
        let mut place = vec![usize::MAX; seen.candidates.len()];
        for i in seen.unknown() {
            let block = &mut members[seen.candidates[i].group];
            place[i] = block.len();
            block.push(i);
        }
        let factors: Option<Vec<(Triangle, Vec<f64>)>> = (0..groups)
            .map(|g| {
                let factor = surrogate.factor(seen, &data.points[g])?;
                let z = factor.forward(&data.centred[g]);
                Some((factor, z))
            })
            .collect();
        let squares: f64 = factors.iter().flatten().flat_map(|(_, z)| z).map(|v| v * v).sum();
        let scale = if data.count() == 0 { 1.0 } else { (squares / data.count() as f64).max(1e-12) };
        let blocks = factors.map(|factors| {
            let chances = chances_of_valid(seen, &members);
            let each = factors.iter().zip(members).zip(chances).enumerate();
            each.map(|(g, (((factor, z), members), valid))| {
                let (rows, forecasts) = forecasts(surrogate, seen, (g, &data.points[g], &members), (factor, z));
                Block { members, rows, forecasts, valid }
            })
            .collect()
        });
        Outlook { surrogate, seen, blocks, place, mean: data.mean, scale }
    }

    /// Chooses up to `many` of `pool` one after another, each time the one with the largest expected improvement over
    /// `goal`, a time in ns, weighed by the chance that it is valid. A chosen point counts as measured at its forecast.
    /// Nothing may be known of the pool.
    pub fn choose(&self, pool: &[usize], many: usize, goal: f64) -> Vec<usize> {
        let Some(blocks) = &self.blocks else { return pool.iter().copied().take(many).collect() };
        let candidates = self.seen.candidates;
        let goal = goal.ln() - self.mean;
        let at = |i: usize| (&blocks[candidates[pool[i]].group], self.place[pool[i]]);
        let score = |i: usize, f: Forecast| {
            let (block, place) = at(i);
            block.valid[place] * expected_improvement(goal, f.mean, (f.variance * self.scale).sqrt())
        };
        let mut forecasts: Vec<Forecast> = (0..pool.len()).map(|i| at(i).0.forecasts[at(i).1]).collect();
        let mut scores: Vec<f64> = (0..pool.len()).map(|i| score(i, forecasts[i])).collect();
        // The rows that the points chosen so far add to each block.
        let mut added: Vec<Vec<Vec<f64>>> = vec![Vec::new(); blocks.len()];
        let mut chosen = Vec::new();
        while chosen.len() < many.min(pool.len()) {
            let next = (0..pool.len())
                .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
                .expect("fewer are chosen than the pool has");
            chosen.push(pool[next]);
            let group = candidates[pool[next]].group;
            let (block, pivot) = at(next);
            let known = block.products(&added[group], pivot);
            let diagonal = (forecasts[next].variance + self.surrogate.noise()).sqrt();
            let mut row = vec![0.0; block.members.len()];
            for i in (0..pool.len()).filter(|&i| candidates[pool[i]].group == group) {
                if scores[i] == f64::NEG_INFINITY {
                    continue;
                }
                let place = self.place[pool[i]];
                let prior = self.surrogate.covariance(&candidates[pool[i]], &candidates[pool[next]]);
                let entry = (prior - known[place]) / diagonal;
                row[place] = entry;
                forecasts[i].variance = (forecasts[i].variance - entry * entry).max(1e-9);
                scores[i] = score(i, forecasts[i]);
            }
            added[group].push(row);
            scores[next] = f64::NEG_INFINITY;
        }
        chosen
    }
}

impl Block {
    /// The product of each member's column with that of one of them.
    fn products(&self, added: &[Vec<f64>], pivot: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.members.len()];
        for row in self.rows.chunks_exact(self.members.len()).chain(added.iter().map(Vec::as_slice)) {
            let factor = row[pivot];
            for (sum, value) in out.iter_mut().zip(row) {
                *sum += value * factor;
            }
        }
        out
    }
}

/// The rows of a block, and its forecasts.
fn forecasts(
    surrogate: &Surrogate,
    seen: &Seen<'_>,
    (group, points, members): (usize, &[usize], &[usize]),
    (factor, z): (&Triangle, &[f64]),
) -> (Vec<f64>, Vec<Forecast>) {
    let mut forecasts = vec![Forecast { mean: 0.0, variance: 0.0 }; members.len()];
    let mut rows = surrogate.covariances(seen, group, points, members);
    if !members.is_empty() {
        factor.forward_all(&mut rows, members.len());
        for (row, z) in rows.chunks_exact(members.len()).zip(z) {
            for (forecast, value) in forecasts.iter_mut().zip(row) {
                forecast.mean += value * z;
                forecast.variance += value * value;
            }
        }
    }
    for forecast in &mut forecasts {
        forecast.variance = (1.0 - forecast.variance).max(1e-9);
    }
    (rows, forecasts)
}

/// Share of valid points around each member of each kernel, near ones counting more; a point that nothing is near to is
/// valid.
fn chances_of_valid(seen: &Seen<'_>, members: &[Vec<usize>]) -> Vec<Vec<f64>> {
    let mut known: Vec<Vec<(&[usize], bool)>> = vec![Vec::new(); members.len()];
    for (candidate, answer) in seen.candidates.iter().zip(seen.known) {
        if let Some(answer) = answer {
            known[candidate.group].push((&candidate.coordinates, !matches!(answer, Known::Invalid)));
        }
    }
    let weight = |square: usize| 2.0 * (-(square as f64) / 2.0).exp();
    // Squares of steps are whole and mostly small.
    let weights: Vec<f64> = (0..128).map(weight).collect();
    let chance = |here: &[usize], known: &[(&[usize], bool)]| {
        let (mut valid, mut all) = (1.0, 1.0);
        for (there, is_valid) in known {
            let square: usize = there.iter().zip(here).map(|(x, y)| x.abs_diff(*y).pow(2)).sum();
            let weight = weights.get(square).copied().unwrap_or_else(|| weight(square));
            all += weight;
            if *is_valid {
                valid += weight;
            }
        }
        valid / all
    };
    let of_group = |(members, known): (&Vec<usize>, &Vec<(&[usize], bool)>)| {
        members.iter().map(|&m| chance(&seen.candidates[m].coordinates, known)).collect()
    };
    members.iter().zip(&known).map(of_group).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn improvement_is_the_gap_where_the_forecast_is_sure_and_grows_with_doubt() {
        assert!((expected_improvement(1.0, 0.6, 1e-6) - 0.4).abs() < 1e-6);
        assert!(expected_improvement(1.0, 2.0, 0.01) < 1e-9);
        assert!(expected_improvement(1.0, 1.2, 0.5) > expected_improvement(1.0, 1.2, 0.1));
        assert!((below(1.96) - 0.975).abs() < 1e-4 && (below(-1.0) - 0.158_655).abs() < 1e-5);
    }
}
