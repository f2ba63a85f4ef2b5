//! Plans on the scripted device.
#![allow(dead_code)]

use std::sync::atomic::AtomicBool;

use harness_measure::cell::Settings;
use harness_measure::fake::{Fake, Script};
use harness_measure::tune::{
    Candidate, Event, Journal, JournalError, KernelOutcome, MemoryJournal, Plan, Progress, Silent, WorkloadPlan,
    candidates, run,
};
use harness_spec::record::{KernelRunKind, Provenance, Trial, TrialPurpose, WorkloadResult};
use harness_spec::{Cell, Policy, VariantId, Workload};

/// The workload of most tests: 9.4 MB of weights.
pub const WORKLOAD: &str = "gemv_q4_0 K=4096 N=4096";

pub fn script(toml: &str) -> Script {
    Script::parse(toml).unwrap()
}

pub fn ids(names: &[String]) -> Vec<VariantId> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

/// `gemv_q4_0/a`, `gemv_q4_0/b`, …, the first being the default.
pub fn plain(kernels: &[&str]) -> WorkloadPlan {
    let names: Vec<String> = kernels.iter().map(|k| format!("gemv_q4_0/{k}@cuda")).collect();
    workload(WORKLOAD, candidates(&ids(&names)))
}

pub fn workload(name: &str, candidates: Vec<Candidate>) -> WorkloadPlan {
    WorkloadPlan {
        workload: name.parse::<Workload>().unwrap(),
        policy: Policy::COLD_GRAPH,
        weight: 1.0,
        candidates,
        pruned: Vec::new(),
        default: Some(0),
        incumbent: None,
        baseline: None,
        floor: Vec::new(),
        library: Vec::new(),
    }
}

/// Kernels `k0`, `k1`, … with tunables A and B of these many values (powers of two).
pub fn grid(kernels: usize, a: u32, b: u32) -> Vec<Candidate> {
    let mut names = Vec::new();
    for k in 0..kernels {
        for x in 0..a {
            for y in 0..b {
                names.push(format!("gemv_q4_0/k{k}[A={},B={}]@cuda", 1 << x, 1 << y));
            }
        }
    }
    candidates(&ids(&names))
}

pub fn floor_cell(bytes: u64) -> Cell {
    Cell {
        variant: "stream_read/plain@cuda".parse().unwrap(),
        workload: Workload::of("stream_read", [("BYTES", bytes)]),
        policy: Policy::COLD_GRAPH,
    }
}

/// A plan whose bootstrap is short enough for a test.
pub fn plan(kind: KernelRunKind, workloads: Vec<WorkloadPlan>) -> Plan {
    let settings = Settings { resamples: 1000, ..Settings::default() };
    Plan { settings, ..Plan::new(kind, Provenance::Simulated, workloads) }
}

pub fn sweep(workload: WorkloadPlan) -> Plan {
    plan(KernelRunKind::Sweep, vec![workload])
}

pub fn tune(workload: WorkloadPlan) -> Plan {
    plan(KernelRunKind::Tune, vec![workload])
}

pub fn go(fake: &mut Fake, plan: &Plan) -> (KernelOutcome, MemoryJournal) {
    let mut journal = MemoryJournal::default();
    let out = again(fake, plan, &mut journal);
    (out, journal)
}

pub fn again(fake: &mut Fake, plan: &Plan, journal: &mut dyn Journal) -> KernelOutcome {
    run(fake, plan, journal, &mut Silent, &AtomicBool::new(false)).unwrap()
}

pub fn winner(out: &KernelOutcome) -> String {
    out.results[0].winner.as_ref().map(|w| w.short()).unwrap_or_else(|| format!("none: {}", out.results[0].reason))
}

/// The trial of a kernel without tunables, as a candidate.
pub fn trial<'a>(journal: &'a MemoryJournal, kernel: &str) -> &'a Trial {
    journal.trials().iter().find(|t| t.cell.variant.kernel == kernel).unwrap_or_else(|| panic!("no trial of {kernel}"))
}

/// Asserts that two runs ended in the same table; how much came from the journal is all that may differ.
pub fn same_table(a: &KernelOutcome, b: &KernelOutcome, when: &str) {
    let strip = |r: &WorkloadResult| {
        let mut r = r.clone();
        if let Some(s) = &mut r.search {
            s.from_cache = 0;
        }
        r
    };
    assert_eq!(a.results.len(), b.results.len(), "{when}");
    for (x, y) in a.results.iter().map(strip).zip(b.results.iter().map(strip)) {
        assert_eq!((&x.winner, &x.reason, &x.search), (&y.winner, &y.reason, &y.search), "{when}");
        assert!(x.ranking == y.ranking && x.run_off == y.run_off, "{when}: times differ at {}", x.workload);
        assert!(x == y, "{when}: results differ at {}", x.workload);
    }
}

/// A journal that dies after so many trials, as a process does that is killed.
pub struct Mortal {
    pub kept: MemoryJournal,
    pub life: usize,
}

impl Journal for Mortal {
    fn find(&self, key: &str) -> Option<&Trial> {
        self.kept.find(key)
    }

    fn append(&mut self, trial: Trial) -> Result<(), JournalError> {
        // Raw samples of run-offs do not count: a run-off is played anew, so that they bring nobody nearer to the end.
        if trial.purpose == TrialPurpose::RunOff {
            return self.kept.append(trial);
        }
        if self.life == 0 {
            return Err(JournalError { place: "the test".into(), cause: "killed".into() });
        }
        self.life -= 1;
        self.kept.append(trial)
    }
}

/// Sets the flag after so many trials.
pub struct StopAfter<'a> {
    pub trials: usize,
    pub flag: &'a AtomicBool,
}

impl Progress for StopAfter<'_> {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Trial { .. } = event {
            if self.trials == 0 {
                self.flag.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            self.trials = self.trials.saturating_sub(1);
        }
    }
}
