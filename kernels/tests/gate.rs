//! The gate itself: it rejects every mutant and names the input, and never rejects a kernel that is right.

mod mutants;

use std::fmt::Write;

use harness_spec::{CellFailure, Shape, Stage};
use kernels::Isa;
use kernels::check::{self, Gate};
use kernels::cpu::{Cpu, CpuOptions, CpuRunner};
use kernels::op::{Depth, Op, Problem, Runner, op, ops};
use mutants::{MutantRunner, shape_of, spec, verdicts};
use variants::{Activations, Backend, KernelSpec, Table, registry};

#[test]
fn every_mutant_is_rejected_and_the_input_made_for_it_is_one_that_exposes_it() {
    let mut table = String::new();
    let mut passed = Vec::new();
    for mutant in mutants::all() {
        let op = op(mutant.op).unwrap();
        let (spec, shape) = (spec(mutant.op, mutant.form), shape_of(mutant.op));
        let mut runner = MutantRunner((mutant.make)());
        let Err(failure) = check::run(op, &shape, &spec, 1, Depth::Quick, &mut runner) else {
            passed.push(format!("{} passed the whole gate", mutant.name));
            continue;
        };
        assert_eq!(failure.stage, Stage::Check, "{}: {failure}", mutant.name);

        let verdicts = verdicts(&mutant, 1);
        let exposing: Vec<&str> = verdicts.iter().filter(|(_, f)| f.is_some()).map(|(name, _)| name.as_str()).collect();
        // What shows only when a run is repeated is for the gate as a whole to find.
        if mutant.made_for_it.starts_with("AD-24") {
            assert!(failure.message.contains("AD-24"), "{}: {failure}", mutant.name);
        } else {
            if !exposing.iter().any(|name| name.starts_with(mutant.made_for_it)) {
                let adversarial: Vec<_> = exposing.iter().filter(|name| !name.starts_with("random")).collect();
                passed.push(format!("{} passed {:?}; it failed {adversarial:#?}", mutant.name, mutant.made_for_it));
            }
        }
        let first = failure.message.split(": ").next().unwrap_or_default();
        writeln!(table, "{} | {} | {first} | {} of {}", mutant.op, mutant.name, exposing.len(), verdicts.len())
            .unwrap();
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    let committed = include_str!("mutants/exposed_by.txt");
    let same = committed.lines().eq(table.lines());
    assert!(same, "which input exposes which mutant has changed; if that is right, exposed_by.txt becomes:\n{table}");
}

#[test]
fn the_kernels_that_mutants_are_made_of_are_right() {
    // The same code without a mutation passes, so it is the mutation that is rejected.
    for (name, form) in
        [("gemv_q4_0", Activations::F32), ("gemv_q6_k", Activations::F32), ("gemv_q8_0", Activations::A8)]
    {
        let kernel: mutants::Kernel = Box::new(move |problem, out| {
            let p = mutants::products::parts(problem);
            out[0].fill(&mutants::products::product(&p, form, |r| mutants::products::decoded(&p, r)));
        });
        let mut runner = MutantRunner(kernel);
        check::run(op(name).unwrap(), &shape_of(name), &spec(name, form), 1, Depth::Quick, &mut runner).unwrap();
    }
}

/// B3: timed under the name of a tensor-core kernel, it was plain multiply-adds. What betrays it is its machine code.
#[test]
fn a_kernel_without_the_instructions_of_its_label_is_rejected() {
    let found = vec!["fma".to_owned()];
    for label in ["hmma", "imma", "idp"] {
        assert!(!kernels::cuda::compile::is_expected(label, &found));
    }
    assert!(kernels::cuda::compile::is_expected("fma", &found));
}

fn kernels_of(name: &str) -> Vec<&'static KernelSpec> {
    let space = registry().space(name).unwrap();
    space.kernels.iter().filter(|k| k.backend == Backend::Cpu && Isa::detect().runs(k.isa)).collect()
}

fn small(op: &dyn Op) -> Shape {
    match op.name() {
        "rmsnorm" | "rmsnorm_half" | "quantize_a8" => Shape::of([("K", 96)]),
        "swiglu" => Shape::of([("F", 96), ("M", 2), ("OUT", 8)]),
        "add" => Shape::of([("COUNT", 200)]),
        "sample" => Shape::of([("N", 200), ("LEN", 20)]),
        "attn_decode" => Shape::of([("HEADS", 4), ("KV_HEADS", 2), ("DIM", 16), ("LEN", 37), ("MAX_LEN", 50)]),
        "stream_read" => Shape::of([("BYTES", 4096 + 16)]),
        _ => Shape::of([("N", 19), ("K", 256)]),
    }
}

#[test]
fn a_hundred_random_seeds_reject_no_kernel_that_is_right() {
    let isa = Isa::detect();
    let cpu = Cpu::new(CpuOptions { threads: 1, isa, table: Table::default_for(isa), pin: false });
    for op in ops() {
        let shape = small(op);
        for spec in kernels_of(op.name()) {
            let form = spec.activations.unwrap_or(Activations::F32);
            let mut runner = CpuRunner::new(&cpu, spec, spec.default_variant());
            for seed in 0..100 {
                // The seeded inputs change with the seed; so do the random parts of the adversarial ones.
                let mut cases = op.cases(&shape, seed, Depth::Quick);
                cases.extend(
                    op.adversarial(&shape, seed, Depth::Quick).into_iter().skip(seed as usize % 20).step_by(20),
                );
                for case in cases.iter().filter(|c| c.dtype.is_none_or(|d| spec.dtypes.contains(&d))) {
                    let problem = op.problem(&shape, case);
                    let Some(expected) = op.expected(&problem, form) else { continue };
                    let outputs = runner.run(&problem).unwrap();
                    if let Err(mismatch) = check::compare(&expected, &outputs) {
                        panic!("{} seed {seed}, {}: {mismatch}", spec.id(), case.name);
                    }
                }
            }
        }
    }
}

#[test]
fn the_full_gate_passes_the_best_kernel_of_every_op() {
    let isa = Isa::detect();
    let cpu = Cpu::new(CpuOptions { threads: 2, isa, table: Table::default_for(isa), pin: false });
    for op in ops() {
        // Some ops are a device's alone.
        let Some(spec) = kernels_of(op.name()).pop() else { continue };
        let mut runner = CpuRunner::new(&cpu, spec, spec.default_variant());
        let report = check::run(op, &shape_of(op.name()), spec, 3, Depth::Full, &mut runner).unwrap();
        assert!(report.cases.len() >= 18 && report.worst_of_bound <= 1.0, "{}: {report:?}", spec.id());
    }
}

/// AD-26. Two gigabytes of weights, and as much again in the layout of the kernel: run where asked for.
#[test]
fn indices_beyond_two_billion_are_right() {
    if std::env::var_os("EDGELLM_HUGE").is_none() {
        println!("skipped: set EDGELLM_HUGE=1 to check matrices of more than 2^31 weights");
        return;
    }
    let isa = Isa::detect();
    let cpu = Cpu::new(CpuOptions { threads: 2, isa, table: Table::default_for(isa), pin: false });
    for name in ["gemv_q4_0", "gemv_ternary", "stream_read"] {
        for spec in kernels_of(name) {
            let mut runner = CpuRunner::new(&cpu, spec, spec.default_variant());
            let report = check::overflow(op(name).unwrap(), spec, 1, &mut runner).unwrap().unwrap();
            assert!(report.cases[0].starts_with("AD-26"), "{report:?}");
        }
    }
}

#[test]
fn a_gate_that_keeps_problems_judges_as_one_that_does_not() {
    let cpu = Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() });
    let op = op("gemv_q4_0").unwrap();
    let shape = Shape::of([("N", 48), ("K", 512)]);
    for budget in [0, 1 << 20, 1 << 28] {
        let mut gate = Gate::new(budget);
        for spec in kernels_of("gemv_q4_0") {
            let mut runner = CpuRunner::new(&cpu, spec, spec.default_variant());
            let kept = gate.run(op, &shape, spec, 9, Depth::Quick, &mut runner).unwrap();
            let fresh = check::run(op, &shape, spec, 9, Depth::Quick, &mut runner).unwrap();
            assert_eq!(kept, fresh, "{}", spec.id());
        }
    }
}

#[test]
fn a_gate_of_one_input_runs_each_kernel_once_and_still_rejects_what_is_wrong_there() {
    let cpu = Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() });
    let shape = Shape::of([("N", 48), ("K", 512)]);
    let mut gate = Gate::new(1 << 20).once();
    for spec in kernels_of("gemv_q4_0") {
        let mut runner = Counted { runs: 0, inner: CpuRunner::new(&cpu, spec, spec.default_variant()) };
        let report = gate.run(op("gemv_q4_0").unwrap(), &shape, spec, 9, Depth::Full, &mut runner).unwrap();
        assert_eq!((report.cases.len(), runner.runs), (1, 1), "{}", spec.id());
        assert!(report.worst_of_bound <= 1.0 && report.cases[0].contains(&shape.to_string()), "{report:?}");
    }
    let mut zeros = MutantRunner(Box::new(|_, out| out[0].fill(&[0.0; 48])));
    let wrong = spec("gemv_q4_0", Activations::F32);
    let failure = gate.run(op("gemv_q4_0").unwrap(), &shape, &wrong, 9, Depth::Quick, &mut zeros).unwrap_err();
    assert_eq!(failure.stage, Stage::Check);
}

/// Counts the runs of another.
struct Counted<R> {
    runs: usize,
    inner: R,
}

impl<R: Runner> Runner for Counted<R> {
    fn run(&mut self, problem: &Problem) -> Result<Vec<Vec<u8>>, CellFailure> {
        self.runs += 1;
        self.inner.run(problem)
    }

    fn admits(&self, shape: &Shape) -> bool {
        self.inner.admits(shape)
    }
}

#[test]
fn the_same_case_and_shape_give_the_same_data() {
    for op in ops() {
        let shape = small(op);
        let cases = [op.cases(&shape, 7, Depth::Quick), op.adversarial(&shape, 7, Depth::Quick)].concat();
        for case in &cases {
            let form = Activations::F32;
            let [a, b] = [(); 2].map(|()| op.expected(&op.problem(&shape, case), form));
            assert_eq!(format!("{a:?}"), format!("{b:?}"), "{} {}", op.name(), case.name);
        }
        // Names tell cases apart.
        let mut names: Vec<_> = cases.iter().map(|c| &c.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "{}", op.name());
    }
}
