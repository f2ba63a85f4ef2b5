//! From a suite and a device to what a tuner is asked: which variants exist for each workload, and who holds it now.

use std::collections::BTreeMap;

use harness_measure::tune::{WorkloadPlan, candidates};
use harness_spec::{Cell, Policy, VariantId, Workload};
use rand::SeedableRng;
use rand::seq::IndexedRandom;

use crate::args::VariantChoice;
use crate::kernel_suite::{KernelSuite, SuiteWorkload};

/// What a space has for one workload on one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enumerated {
    /// Every variant that the constraints admit.
    pub admitted: Vec<VariantId>,
    /// Every other, with the constraint.
    pub pruned: Vec<(VariantId, String)>,
    /// The default configuration of each kernel that the constraints admit.
    pub defaults: Vec<VariantId>,
    /// What the engine takes without a table.
    pub default: Option<VariantId>,
    /// The plain variant.
    pub baseline: Option<VariantId>,
    /// A pure read of the same bytes, in its configurations.
    pub floor: Vec<(VariantId, Workload)>,
    /// Kernels of a vendor's library that the constraints admit. They do not compete and are not among `admitted`.
    pub library: Vec<VariantId>,
    /// Least time by the roofline model, ns.
    pub predicted_ns: BTreeMap<VariantId, f64>,
}

/// Why a workload cannot be enumerated.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The op is not known.
    #[error("unknown op `{op}`\nhint: use one of {known}")]
    UnknownOp {
        /// What was asked for.
        op: String,
        /// Those that exist.
        known: String,
    },
    /// The op exists, but not here.
    #[error("no kernel of {op} runs on {backend}")]
    NoKernel {
        /// The op.
        op: String,
        /// The backend.
        backend: String,
    },
    /// The shape lacks a dimension or has one too many.
    #[error("{workload} needs the dimensions {needs}{also}")]
    Dimensions {
        /// What was asked for.
        workload: Workload,
        /// Those of the op.
        needs: String,
        /// What is wrong with one of them.
        also: String,
    },
}

/// Where variants come from: the registry, a script, a recorded space.
pub trait Spaces {
    /// What exists for this workload.
    ///
    /// # Errors
    /// [`SpaceError`], each with the fix.
    fn enumerate(&self, workload: &Workload) -> Result<Enumerated, SpaceError>;

    /// The row of the table before the run.
    fn incumbent(&self, workload: &Workload) -> Option<VariantId>;
}

/// The plan of every workload, and what was left out of it.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// What the tuner is asked.
    pub workloads: Vec<WorkloadPlan>,
    /// For each of them, variants that exist and were not asked for.
    pub not_asked: Vec<u64>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Plans a suite.
///
/// A workload that a model implies and this device has no kernel for is left out with a note; one that was asked for by
/// name is an error.
///
/// # Errors
/// [`SpaceError`] of a workload that was asked for by name.
pub fn plan(
    suite: &KernelSuite,
    policies: &[Policy],
    spaces: &dyn Spaces,
    choice: VariantChoice,
    seed: u64,
) -> Result<Planned, SpaceError> {
    let mut out = Planned { notes: suite.notes.clone(), ..Planned::default() };
    for item in &suite.workloads {
        let found = match spaces.enumerate(&item.workload) {
            Ok(found) => found,
            Err(e) if !item.tensors.is_empty() => {
                out.notes.push(format!("{} is left out: {}", item.workload, first_line(&e)));
                continue;
            }
            Err(e) => return Err(e),
        };
        for &policy in policies {
            let incumbent = spaces.incumbent(&item.workload);
            let (workload, not_asked) = plan_one(item, policy, &found, incumbent, choice, seed);
            out.workloads.push(workload);
            out.not_asked.push(not_asked);
        }
    }
    Ok(out)
}

fn first_line(e: &SpaceError) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

impl Planned {
    /// The same with the workloads that most depends on first: what wins there is where searches at other shapes begin,
    /// and a run that is cut short lacks what matters least.
    #[must_use]
    pub fn heaviest_first(mut self) -> Planned {
        let mut all: Vec<_> = self.workloads.drain(..).zip(self.not_asked.drain(..)).collect();
        all.sort_by(|(a, _), (b, _)| b.weight.total_cmp(&a.weight));
        (self.workloads, self.not_asked) = all.into_iter().unzip();
        self
    }
}

/// What a workload is of the time of a token: its launches, each as long as its fastest variant by the roofline. A launch
/// for a prompt serves as many tokens as it takes at once, and what was given as text counts as one launch.
fn weight(item: &SuiteWorkload, found: &Enumerated) -> f64 {
    let launch = found.predicted_ns.values().copied().min_by(f64::total_cmp).unwrap_or(1.0);
    let tokens = item.workload.shape.get("M").unwrap_or(1).max(1);
    launch * item.per_token.max(1) as f64 / tokens as f64
}

fn plan_one(
    item: &SuiteWorkload,
    policy: Policy,
    found: &Enumerated,
    incumbent: Option<VariantId>,
    choice: VariantChoice,
    seed: u64,
) -> (WorkloadPlan, u64) {
    let held = choice == VariantChoice::Table;
    let always: Vec<&VariantId> = if held {
        incumbent.iter().chain(&found.default).take(1).collect()
    } else {
        [&found.default, &found.baseline, &incumbent].into_iter().flatten().collect()
    };
    let drawn = drawn(found, choice, seed);
    let chosen: Vec<VariantId> = found
        .admitted
        .iter()
        .filter(|v| choice == VariantChoice::All || always.contains(v) || drawn.contains(v))
        .cloned()
        .collect();
    let mut points = candidates(&chosen);
    for point in &mut points {
        point.predicted_ns = found.predicted_ns.get(&point.variant).copied();
    }
    let index = |v: &Option<VariantId>| v.as_ref().and_then(|v| chosen.iter().position(|c| c == v));
    let cell = |(variant, workload): &(VariantId, Workload)| Cell {
        variant: variant.clone(),
        workload: workload.clone(),
        policy,
    };
    let not_asked = (found.admitted.len() - chosen.len()) as u64;
    let plan = WorkloadPlan {
        workload: item.workload.clone(),
        policy,
        weight: weight(item, found),
        default: index(&found.default),
        incumbent: index(&incumbent),
        baseline: index(&found.baseline),
        candidates: points,
        pruned: found.pruned.clone(),
        floor: found.floor.iter().filter(|_| !held).map(cell).collect(),
        library: found.library.iter().filter(|_| !held).cloned().collect(),
    };
    (plan, not_asked)
}

/// The variants that a choice names: the defaults of all kernels, and some others of each.
fn drawn(found: &Enumerated, choice: VariantChoice, seed: u64) -> Vec<VariantId> {
    if choice == VariantChoice::Table {
        return Vec::new();
    }
    let mut out = found.defaults.clone();
    if let VariantChoice::Sample(n) = choice {
        let mut kernels: BTreeMap<String, Vec<&VariantId>> = BTreeMap::new();
        for v in found.admitted.iter().filter(|v| !found.defaults.contains(v)) {
            kernels.entry(v.kernel_id()).or_default().push(v);
        }
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for all in kernels.values() {
            out.extend(all.choose_multiple(&mut random, n).map(|v| (*v).clone()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Three;

    impl Spaces for Three {
        fn enumerate(&self, workload: &Workload) -> Result<Enumerated, SpaceError> {
            if workload.op != "op" {
                return Err(SpaceError::UnknownOp { op: workload.op.clone(), known: "op".into() });
            }
            let id = |text: &str| text.parse::<VariantId>().unwrap();
            Ok(Enumerated {
                admitted: (0..20).map(|i| id(&format!("op/a[R={i}]@cpu"))).chain([id("op/plain@cpu")]).collect(),
                pruned: vec![(id("op/a[R=99]@cpu"), "R < 50".into())],
                defaults: vec![id("op/a[R=4]@cpu"), id("op/plain@cpu")],
                default: Some(id("op/a[R=4]@cpu")),
                baseline: Some(id("op/plain@cpu")),
                ..Enumerated::default()
            })
        }

        fn incumbent(&self, _: &Workload) -> Option<VariantId> {
            Some("op/a[R=7]@cpu".parse().unwrap())
        }
    }

    fn suite(texts: &[&str]) -> KernelSuite {
        let all: Vec<Workload> = texts.iter().map(|t| t.parse().unwrap()).collect();
        crate::kernel_suite::of_workloads(&all)
    }

    #[test]
    fn the_incumbent_takes_part_whatever_was_chosen_and_the_rest_is_counted() {
        let counts = [(VariantChoice::Default, 3), (VariantChoice::Sample(5), 8), (VariantChoice::All, 21)];
        for (choice, n) in counts {
            let planned = plan(&suite(&["op N=1"]), &[Policy::COLD_EAGER], &Three, choice, 3).unwrap();
            let w = &planned.workloads[0];
            assert!(w.candidates.len() == n || (choice == VariantChoice::Sample(5) && w.candidates.len() == n - 1));
            assert_eq!(planned.not_asked[0] as usize + w.candidates.len(), 21);
            let name = |i: Option<usize>| w.candidates[i.unwrap()].variant.short();
            assert_eq!((name(w.incumbent), name(w.default)), ("a[R=7]@cpu".into(), "a[R=4]@cpu".into()));
            assert_eq!(w.pruned.len(), 1);
        }
        let held = plan(&suite(&["op N=1"]), &[Policy::COLD_EAGER], &Three, VariantChoice::Table, 3).unwrap();
        let alone: Vec<String> = held.workloads[0].candidates.iter().map(|c| c.variant.short()).collect();
        assert_eq!((alone, held.not_asked[0]), (vec!["a[R=7]@cpu".to_owned()], 20));
    }

    #[test]
    fn what_most_of_a_token_depends_on_comes_first_and_a_prompt_counts_by_its_tokens() {
        let mut s = suite(&["op N=1", "op N=2", "op N=3 M=512"]);
        for (item, launches) in s.workloads.iter_mut().zip([1, 28, 28]) {
            item.per_token = launches;
        }
        let planned = plan(&s, &[Policy::COLD_EAGER], &Three, VariantChoice::Table, 1).unwrap().heaviest_first();
        let all: Vec<_> = planned.workloads.iter().map(|w| (w.workload.to_string(), w.weight)).collect();
        let want = [("op N=2", 28.0), ("op N=1", 1.0), ("op M=512 N=3", 28.0 / 512.0)];
        assert_eq!(all, want.map(|(name, weight)| (name.to_owned(), weight)));
    }

    #[test]
    fn an_op_of_a_model_that_is_not_there_is_a_note_and_one_of_the_command_line_an_error() {
        let mut s = suite(&["other N=1", "op N=1"]);
        assert!(plan(&s, &[Policy::COLD_EAGER], &Three, VariantChoice::All, 1).is_err());
        s.workloads[0].tensors.push("m attn_q".into());
        let planned = plan(&s, &[Policy::COLD_EAGER], &Three, VariantChoice::All, 1).unwrap();
        assert_eq!(planned.workloads.len(), 1);
        assert!(planned.notes[0].contains("other N=1 is left out"), "{:?}", planned.notes);
    }
}
