//! Every variant of every kernel of the processor passes the correctness gate, and the target times only what it verified.

use std::collections::BTreeMap;

use harness_spec::{CacheState, Cell, LaunchMode, Policy, Shape, Stage, Target, Workload};
use kernels::Isa;
use kernels::check::Gate;
use kernels::cpu::{Cpu, CpuOptions, CpuRunner, CpuTarget};
use kernels::op::{Depth, op, ops};
use variants::{Backend, Limits, Table, registry};

fn shape_of(op: &str) -> Shape {
    match op {
        "rmsnorm" => Shape::of([("K", 576), ("M", 3)]),
        "quantize_a8" => Shape::of([("K", 896)]),
        "attn_decode" => Shape::of([("HEADS", 9), ("KV_HEADS", 3), ("DIM", 64), ("LEN", 257), ("MAX_LEN", 300)]),
        "stream_read" => Shape::of([("BYTES", 1 << 20)]),
        _ => Shape::of([("N", 67), ("K", 768), ("M", 5)]),
    }
}

fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads, isa, table: Table::default_for(isa), pin: false })
}

#[test]
fn every_variant_of_every_kernel_passes_the_gate() {
    let isa = Isa::detect();
    let cpu = cpu(isa, 2);
    let limits = Limits::cpu(isa, 32 << 20);
    let mut checked = BTreeMap::new();
    for op in ops() {
        let mut gate = Gate::new(256 << 20);
        let space = registry().space(op.name()).expect("every op has a space");
        for spec in space.kernels.iter().filter(|k| k.backend == Backend::Cpu && isa.runs(k.isa)) {
            let mut shape = shape_of(op.name());
            if op.name().starts_with("logits_") {
                shape.0.remove("M");
            }
            let mut shapes = vec![shape.clone()];
            // One token has configurations, and code, of its own.
            if shape.0.remove("M").is_some() && op.name().starts_with("gemv_") {
                shapes.push(shape);
            }
            for shape in shapes {
                let variants = spec.variants(&shape, &limits).admitted;
                assert!(!variants.is_empty(), "{}: no configuration at {shape}", spec.id());
                for variant in variants {
                    let mut runner = CpuRunner::new(&cpu, spec, variant.clone());
                    let report = gate
                        .run(op, &shape, spec, 1, Depth::Quick, &mut runner)
                        .unwrap_or_else(|failure| panic!("{variant} at {shape}: {failure}"));
                    assert!(report.cases.len() >= 3 && report.worst_of_bound <= 1.0, "{variant}: {report:?}");
                    *checked.entry(op.name()).or_insert(0) += 1;
                }
            }
        }
    }
    // Each op with a kernel of the processor was reached.
    let of_the_processor =
        |name: &str| registry().space(name).is_some_and(|s| s.kernels.iter().any(|k| k.backend == Backend::Cpu));
    for op in ops().filter(|op| of_the_processor(op.name())) {
        assert!(checked.get(op.name()).is_some_and(|&n| n > 0), "no kernel of {} was checked", op.name());
    }
}

fn cell(workload: Workload, name: &str, policy: Policy) -> Cell {
    let space = registry().space(&workload.op).unwrap();
    let spec = space.kernels.iter().find(|k| k.name == name && k.backend == Backend::Cpu).unwrap();
    Cell { variant: spec.default_variant(), workload, policy }
}

fn target() -> CpuTarget {
    CpuTarget::new(CpuOptions { threads: 2, ..CpuOptions::default() })
}

#[test]
fn a_cell_is_prepared_checked_and_sampled_with_its_outputs_verified() {
    let mut target = target();
    for cache in [CacheState::Hot, CacheState::Cold] {
        let policy = Policy { cache, launch: LaunchMode::Eager };
        let cell = cell(Workload::of("gemv_q4_0", [("N", 96), ("K", 256)]), "plain", policy);
        let prepared = target.prepare(std::slice::from_ref(&cell)).remove(0).unwrap();
        assert!(prepared.bytes.0 >= 96 * 256 / 32 * 18 && prepared.flops == 2 * 96 * 256);
        target.check(&cell, 3).unwrap();
        let samples = target.sample(&cell, 40).unwrap();
        assert_eq!(samples.len(), 40);
        assert!(samples.iter().all(|s| s.ns > 0.0 && s.launches >= 1));
        let verified = samples.iter().filter(|s| s.verified).count();
        assert!(verified * 20 >= samples.len(), "{verified} of {} samples were verified", samples.len());
    }
}

#[test]
fn variants_of_one_layout_are_sampled_on_the_same_weights() {
    let mut target = target();
    let policy = Policy { cache: CacheState::Hot, launch: LaunchMode::Eager };
    let workload = Workload::of("gemv_q4_1", [("N", 64), ("K", 512)]);
    for spec in &registry().space("gemv_q4_1").unwrap().kernels {
        if spec.backend != Backend::Cpu || !Isa::detect().runs(spec.isa) {
            continue;
        }
        for variant in spec.variants(&workload.shape, &Limits::cpu(Isa::detect(), 0)).admitted {
            let cell = Cell { variant, workload: workload.clone(), policy };
            assert_eq!(target.sample(&cell, 3).unwrap().len(), 3, "{}", cell.variant);
        }
    }
}

#[test]
fn what_the_processor_cannot_run_is_a_constraint_and_not_a_fault() {
    let low = CpuOptions { threads: 1, isa: Isa::Scalar, table: Table::default_for(Isa::Scalar), pin: false };
    let mut target = CpuTarget::new(low);
    let cold = Policy::COLD_EAGER;
    let workload = Workload::of("gemv_q4_0", [("N", 64), ("K", 64)]);
    let above = cell(workload.clone(), "unsigned@vnni", cold);
    let graph = cell(workload.clone(), "plain", Policy::COLD_GRAPH);
    let unknown = Cell { variant: "gemv_q4_0/none@cpu".parse().unwrap(), workload: workload.clone(), policy: cold };
    let other = Cell { workload: Workload::of("gemv_q4_1", [("N", 64), ("K", 64)]), ..cell(workload, "plain", cold) };
    for cell in [above, graph, unknown, other] {
        let prepared = target.prepare(std::slice::from_ref(&cell)).remove(0).unwrap_err();
        let sampled = target.sample(&cell, 1).unwrap_err();
        let checked = target.check(&cell, 1).unwrap_err();
        assert!([prepared, sampled, checked].iter().all(|f| f.stage == Stage::Constraint), "{}", cell.variant);
    }
}

#[test]
fn the_canary_reads_at_a_finite_rate_and_the_device_has_a_name() {
    let mut target = target();
    let canary = target.canary(harness_spec::Bytes(1 << 20)).unwrap();
    assert!(canary.read_gb_per_s.is_finite() && canary.read_gb_per_s > 0.0);
    let device = target.device();
    assert!(device.backend == "cpu" && !device.name.is_empty() && device.conditions["threads"] == "2");
    assert!(op("stream_read").is_some());
}
