//! How long the engine waits for its table: loading one of a large model, and a look-up (R23: 5 ms, 50 ns).

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use harness_spec::{DeviceKey, Policy, Shape};
use variants::{Isa, Layout, Limits, Row, TABLE_SCHEMA, Table, TableFile};

/// A table with a row for each of 32 x 16 shapes.
fn file() -> TableFile {
    let sizes = |n: u64| (1..=n).map(|i| i * 256);
    let rows = sizes(32).flat_map(|n| sizes(16).map(move |k| Shape::of([("N", n), ("K", k)])));
    let row = |shape| Row {
        op: "gemv_q4_0".to_owned(),
        shape,
        layout: Some(Layout::Gguf),
        variant: "gemv_q4_0/plain@cpu".parse().expect("it is an id"),
        median_ns: 1234.5,
        ci_ns: Some([1230.0, 1240.0]),
        runner_up: None,
        gap_to_runner_up: None,
        reason: "the fastest of 12".to_owned(),
        key: "0123456789abcdef".repeat(4),
        record: None,
        policy: None,
        quarantined: None,
    };
    TableFile {
        schema: TABLE_SCHEMA,
        policy: Policy::COLD_EAGER,
        date: "2026-01-01T00:00:00Z".to_owned(),
        tool: "bench".to_owned(),
        record: "bench".to_owned(),
        incomplete: None,
        device: DeviceKey {
            backend: "cpu".to_owned(),
            name: "bench".to_owned(),
            arch: "scalar".to_owned(),
            conditions: Default::default(),
        },
        rows: rows.map(row).collect(),
        buckets: Vec::new(),
    }
}

fn lookup(c: &mut Criterion) {
    let file = file();
    let text = file.to_text();
    let limits = Limits::cpu(Isa::Scalar, 0);
    c.bench_function("load 512 rows", |b| {
        b.iter(|| Table::of_file(TableFile::parse("bench", black_box(&text)).expect("it was just written"), limits));
    });
    let table = Table::of_file(file, limits);
    let known = Shape::of([("N", 4096), ("K", 2048)]);
    let unknown = Shape::of([("N", 4097), ("K", 2048)]);
    c.bench_function("a row", |b| b.iter(|| table.choose(black_box("gemv_q4_0"), black_box(&known))));
    c.bench_function("a default", |b| b.iter(|| table.choose(black_box("gemv_q4_0"), black_box(&unknown))));
}

criterion_group!(benches, lookup);
criterion_main!(benches);
