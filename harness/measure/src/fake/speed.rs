//! The speed of a variant that no rule gives one: a rugged function of its tunables, so that any space can be searched.

use harness_spec::{Cell, VariantId};

use super::noise::Draw;

/// Share of the read rate that a variant reaches on a workload, at most 0.98.
///
/// A kernel has a level, each of its tunables an optimum that moves with the size of the workload, two of them interact,
/// and a few percent are a matter of chance.
pub fn efficiency(seed: u64, cell: &Cell) -> f64 {
    let v = &cell.variant;
    let kernel = v.kernel_id();
    let size = cell.workload.shape.0.values().map(|&d| (d.max(1) as f64).log2()).sum::<f64>();
    let level = 0.35 + 0.63 * Draw::of(seed, &["level", &kernel], 0).uniform();
    let mut loss = 0.0;
    let mut offsets = Vec::new();
    for (name, value) in &v.tunables {
        let mut draw = Draw::of(seed, &["tunable", &kernel, name], 0);
        let best = 1.0 + 2.5 * draw.uniform() + 0.15 * (size - 24.0) * (draw.uniform() - 0.5);
        let weight = 0.02 + 0.10 * draw.uniform();
        let off = (*value as f64).abs().max(1.0).log2() - best;
        loss += weight * off * off;
        offsets.push(off);
    }
    for pair in offsets.windows(2) {
        loss += 0.03 * pair[0] * pair[1];
    }
    let luck = 0.05 * rugged(seed, v, cell);
    (level * (-loss.max(0.0)).exp() * (1.0 - luck)).clamp(0.01, 0.98)
}

fn rugged(seed: u64, v: &VariantId, cell: &Cell) -> f64 {
    Draw::of(seed, &["luck", &v.to_string(), &cell.workload.to_string()], 0).uniform()
}

/// Bytes of one launch, for any workload: `BYTES`, or half a byte and a sixteenth a weight, or eight a position.
pub fn bytes(cell: &Cell) -> u64 {
    let shape = &cell.workload.shape;
    let dim = |name: &str| shape.get(name);
    if let Some(bytes) = dim("BYTES") {
        return bytes;
    }
    match (dim("N"), dim("K")) {
        (Some(n), Some(k)) => n * k * 9 / 16 + 4 * (n + k) * dim("M").unwrap_or(1),
        _ => 8 * shape.0.values().product::<u64>(),
    }
}

/// Operations of one launch.
pub fn flops(cell: &Cell) -> u64 {
    let shape = &cell.workload.shape;
    match (shape.get("N"), shape.get("K")) {
        (Some(n), Some(k)) => 2 * n * k * shape.get("M").unwrap_or(1),
        _ => 0,
    }
}
