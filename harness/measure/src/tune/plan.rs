//! What a tuner is asked: workloads, and for each the candidates as points of an abstract space.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::record::{CellRole, KernelRunKind, Provenance};
use harness_spec::units::Nanos;
use harness_spec::{Cell, Policy, VariantId, Workload};

use super::shares::apportion;
use super::strategy::StrategyKind;
use crate::cell::Settings;

/// What a tune takes, about: what its time budget is planned by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// What a workload takes beside its evaluations: its floor, its data, the first check of an input, its run-off.
    pub workload: Nanos,
    /// A candidate: a build that is waited for, a check, a warm-up to a plateau and ten samples.
    pub evaluation: Nanos,
}

impl Costs {
    /// On a GPU. On an H200 an evaluation took 0.19 to 0.26 s over whole tunes of single ops, one of fused ops longer, and floor
    /// and data of a workload some 6 s when every floor was timed with ten reads
    /// (`reports/published/2026-11-21-h200-tune-qwen2.5-1.5b-q4_0`, `reports/published/2026-11-22-h200-engine-raw-2.txt`). With
    /// these numbers a plan for 150 s was too large while warm-ups were verified (`…-raw-3.txt`); not measured since.
    pub const ON_GPU: Costs = Costs { workload: Nanos(5_000_000_000), evaluation: Nanos(500_000_000) };

    /// What a workload with so many evaluations takes, ns.
    pub(super) fn of(&self, evaluations: usize) -> f64 {
        self.workload.0 as f64 + evaluations as f64 * self.evaluation.0 as f64
    }

    /// Evaluations that a budget has room for beside so many workloads.
    fn room(&self, budget: Nanos, workloads: usize) -> usize {
        let left = budget.0.saturating_sub(workloads as u64 * self.workload.0);
        (left / self.evaluation.0.max(1)) as usize
    }
}

/// A variant as the search sees it: a point of a lattice, and no more. What the coordinates mean is not known here.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The variant.
    pub variant: VariantId,
    /// Which kernel, as an index: points of different groups share no axis.
    pub group: usize,
    /// Position on each axis of its group: the index of the tunable's value among those of the space, ascending.
    pub coordinates: Vec<usize>,
    /// Time by the roofline model, ns, where the caller has one: only its order is used.
    pub predicted_ns: Option<f64>,
    /// Less is simpler; decides a tie among challengers.
    pub simplicity: u64,
}

/// The points that these variants are: kernels in their order of appearance, and the values of each tunable that occur in
/// the kernel, ascending.
pub fn candidates(variants: &[VariantId]) -> Vec<Candidate> {
    let mut groups: Vec<String> = Vec::new();
    let mut values: BTreeMap<(usize, &str), BTreeSet<i64>> = BTreeMap::new();
    let mut group_of = Vec::with_capacity(variants.len());
    for v in variants {
        let id = v.kernel_id();
        let group = groups.iter().position(|g| *g == id).unwrap_or_else(|| {
            groups.push(id);
            groups.len() - 1
        });
        group_of.push(group);
        for (name, value) in &v.tunables {
            values.entry((group, name)).or_default().insert(*value);
        }
    }
    variants
        .iter()
        .zip(group_of)
        .map(|(variant, group)| {
            let coordinates: Vec<usize> = variant
                .tunables
                .iter()
                .map(|(name, value)| values[&(group, name.as_str())].range(..value).count())
                .collect();
            // A kernel that comes earlier in its space and smaller tunables are simpler.
            let simplicity = 1000 * group as u64 + coordinates.iter().sum::<usize>() as u64;
            Candidate { variant: variant.clone(), group, coordinates, predicted_ns: None, simplicity }
        })
        .collect()
}

/// One workload under one policy, with everything that may run on it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPlan {
    /// The workload.
    pub workload: Workload,
    /// The policy.
    pub policy: Policy,
    /// How much depends on it: what it is of a token's time, in a unit that all workloads of a plan share. A time budget is
    /// shared out by it.
    pub weight: f64,
    /// What competes.
    pub candidates: Vec<Candidate>,
    /// What a constraint excludes, with the reason.
    pub pruned: Vec<(VariantId, String)>,
    /// Index of what the engine takes without a table.
    pub default: Option<usize>,
    /// Index of the table's row before this run.
    pub incumbent: Option<usize>,
    /// Index of the plain variant.
    pub baseline: Option<usize>,
    /// Reads of the same bytes, as cells of their own workload under this policy. They do not compete.
    pub floor: Vec<Cell>,
    /// Kernels of a vendor's library on this workload. They do not compete, and are part of its space otherwise.
    pub library: Vec<VariantId>,
}

impl WorkloadPlan {
    /// The cell of a candidate.
    pub fn cell(&self, candidate: usize) -> Cell {
        self.cell_of(&self.candidates[candidate].variant)
    }

    /// The cell of a variant.
    pub fn cell_of(&self, variant: &VariantId) -> Cell {
        Cell { variant: variant.clone(), workload: self.workload.clone(), policy: self.policy }
    }

    /// The part that a candidate has; the incumbent's comes before the others.
    pub fn role(&self, candidate: usize) -> CellRole {
        [(self.incumbent, CellRole::Incumbent), (self.default, CellRole::Default), (self.baseline, CellRole::Baseline)]
            .into_iter()
            .find(|(index, _)| *index == Some(candidate))
            .map_or(CellRole::Candidate, |(_, role)| role)
    }

    /// Whether a candidate is what the others are compared with, table or not.
    pub fn is_reference(&self, candidate: usize) -> bool {
        [self.default, self.baseline].contains(&Some(candidate))
    }

    /// Who stays in a tie: the table's row, else what the engine takes without a table.
    pub fn defender(&self) -> Option<usize> {
        self.incumbent.or(self.default)
    }

    /// Of each kernel that has no point among `taken` the one that the roofline ranks first, the best of them first. None
    /// where it says nothing.
    pub fn ranked_first(&self, taken: &[usize]) -> Vec<usize> {
        let mut met: BTreeSet<usize> = taken.iter().map(|&i| self.candidates[i].group).collect();
        let predicted = |i: usize| self.candidates[i].predicted_ns;
        let mut ranked: Vec<usize> = (0..self.candidates.len()).filter(|&i| predicted(i).is_some()).collect();
        let key = |i: usize| (predicted(i).unwrap_or(f64::INFINITY), self.candidates[i].simplicity);
        ranked.sort_by(|&a, &b| key(a).0.total_cmp(&key(b).0).then(key(a).1.cmp(&key(b).1)));
        ranked.retain(|&i| met.insert(self.candidates[i].group));
        ranked
    }

    /// Candidates that come before all others, so that a run that is cut short is never worse than none.
    pub fn first(&self) -> Vec<usize> {
        let mut first = Vec::new();
        for index in [self.incumbent, self.default, self.baseline].into_iter().flatten() {
            if !first.contains(&index) {
                first.push(index);
            }
        }
        first
    }
}

/// What is to be done; fixed before the first sample.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Check only, time everything, or search.
    pub kind: KernelRunKind,
    /// `Measured`, or `Simulated` on a scripted device.
    pub provenance: Provenance,
    /// The workloads.
    pub workloads: Vec<WorkloadPlan>,
    /// How a `Tune` searches; a `Sweep` takes everything.
    pub strategy: StrategyKind,
    /// Most evaluations in a workload as a share of its space. The default strategy stays within a tenth.
    pub share: f64,
    /// Spaces up to this size are measured whole, whatever the share.
    pub whole: usize,
    /// Seed of the search, the checks, the orders and the bootstrap.
    pub seed: u64,
    /// Wall time that may be used.
    pub time_budget: Option<Nanos>,
    /// What is taken on such a device: a `Tune` under a time budget plans as many evaluations as fit into it.
    pub costs: Costs,
    /// Whether to end each workload with the paired run-off. A `Verify` has none.
    pub run_off: bool,
    /// The numbers of sampling.
    pub settings: Settings,
}

impl Plan {
    /// A plan with the values of the law.
    pub fn new(kind: KernelRunKind, provenance: Provenance, workloads: Vec<WorkloadPlan>) -> Plan {
        Plan {
            kind,
            provenance,
            workloads,
            strategy: StrategyKind::default(),
            share: 0.1,
            whole: 32,
            seed: 1,
            time_budget: None,
            costs: Costs::ON_GPU,
            run_off: true,
            settings: Settings::default(),
        }
    }

    /// Most evaluations of each workload: those of its share of the space, or what the time budget leaves room for.
    ///
    /// The room is planned beforehand and by [`Plan::costs`] alone, so that a tune that is repeated asks the same
    /// questions and finds their answers in its caches, however fast these answer.
    pub fn limits(&self) -> Vec<usize> {
        let full = self.unbounded();
        match self.time_budget.filter(|_| self.searches()) {
            None => full,
            Some(budget) => {
                let weights: Vec<f64> = self.workloads.iter().map(|w| w.weight).collect();
                apportion(self.costs.room(budget, full.len()), &full, &weights)
            }
        }
    }

    /// Most evaluations of each workload where there is time for all. A search at a second shape of an op begins with what
    /// won at the first, and gets a third of the evaluations.
    pub fn unbounded(&self) -> Vec<usize> {
        let of = |(index, w): (usize, &WorkloadPlan)| {
            let full = self.limit(w.candidates.len());
            let same = |o: &WorkloadPlan| o.workload.op == w.workload.op && o.policy == w.policy;
            let met = self.workloads[..index].iter().any(same);
            if self.searches() && met { (full / 3).max(self.whole).min(full) } else { full }
        };
        self.workloads.iter().enumerate().map(of).collect()
    }

    /// Whether some candidates stand for all.
    fn searches(&self) -> bool {
        self.kind == KernelRunKind::Tune && self.strategy != StrategyKind::Exhaustive
    }

    /// Most evaluations in a space of so many candidates, where nothing is known of its op.
    fn limit(&self, space: usize) -> usize {
        if !self.searches() {
            return space;
        }
        ((space as f64 * self.share) as usize).max(self.whole).min(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunables_become_positions_on_the_axes_of_their_kernel() {
        let ids: Vec<VariantId> = ["op/a[R=8,W=2]@cuda", "op/a[R=1,W=4]@cuda", "op/b@cuda", "op/a[R=2,W=2]@cuda"]
            .iter()
            .map(|t| t.parse().unwrap())
            .collect();
        let c = candidates(&ids);
        let points: Vec<(usize, &[usize])> = c.iter().map(|c| (c.group, c.coordinates.as_slice())).collect();
        assert_eq!(points, [(0, &[2, 0][..]), (0, &[0, 1][..]), (1, &[][..]), (0, &[1, 0][..])]);
        assert!(c[3].simplicity < c[0].simplicity && c[0].simplicity < c[2].simplicity);
    }
}
