//! The engine obeys a table, and one that cannot be used never changes a token.

mod tiny;

use std::path::Path;

use engine::Engine;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams, TableChoice};
use engine::model::LoadError;
use engine::synth::Scheme;
use harness_spec::{Policy, Shape, VariantId};
use kernels::cpu::device_key;
use variants::{Isa, Row, TABLE_SCHEMA, TableFile, registry};

const THREADS: usize = 2;

fn load(table: TableChoice) -> Result<Engine, LoadError> {
    let options = LoadOptions { context: Some(64), threads: Some(THREADS), table, ..LoadOptions::default() };
    Engine::from_gguf(&tiny::gguf(&tiny::llama3(), Scheme::Q8_0, 23), &options)
}

fn tokens(engine: &mut Engine) -> Vec<u32> {
    let request = GenerateRequest {
        prompt: vec![5, 6, 7, 8],
        max_tokens: 12,
        sampling: SamplingParams::greedy(),
        stop: Vec::new(),
        ignore_eos: true,
    };
    let mut ids = Vec::new();
    engine
        .generate(&request, &mut |event| {
            if let Event::Token { id, .. } = event {
                ids.push(id);
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    ids
}

/// Writes a table of this machine with one row for a shape of the gate matrix.
fn table(folder: &Path, shape: &Shape, variant: VariantId) -> TableChoice {
    let (_, spec) = registry().find(&variant).expect("the variant is in its space");
    let row = Row {
        op: "gemv_q8_0".to_owned(),
        shape: shape.clone(),
        layout: spec.layout,
        variant,
        median_ns: 1.0,
        ci_ns: None,
        runner_up: None,
        gap_to_runner_up: None,
        reason: "a test".to_owned(),
        key: "a test".to_owned(),
        record: None,
        policy: None,
        quarantined: None,
    };
    let file = TableFile {
        schema: TABLE_SCHEMA,
        policy: Policy::COLD_EAGER,
        date: "2026-01-01T00:00:00Z".to_owned(),
        tool: "a test".to_owned(),
        record: "a test".to_owned(),
        incomplete: None,
        device: device_key(Isa::detect(), THREADS),
        rows: vec![row],
        buckets: Vec::new(),
    };
    let path = folder.join("table.toml");
    std::fs::write(&path, file.to_text()).unwrap();
    TableChoice::File(Box::leak(path.into()))
}

#[test]
fn a_row_decides_the_kernel_of_its_shape_and_the_others_keep_their_default() {
    let folder = tempfile::tempdir().unwrap();
    let mut by_default = load(TableChoice::Default).unwrap();
    let gate = &by_default.model().unwrap().layers[0].gate;
    let shape = Shape::of([("N", gate.n() as u64), ("K", gate.k() as u64)]);
    let plain = gate.variant().clone();
    let (_, spec) = registry().find(&plain).unwrap();
    let Some(values) = spec.tunables.get("PREFETCH") else {
        println!("skipped: the kernels of this machine have no tunables");
        return;
    };
    let mut other = plain.clone();
    other.tunables.insert("PREFETCH".to_owned(), *values.last().unwrap());
    let mut by_table = load(table(folder.path(), &shape, other.clone())).unwrap();
    let model = by_table.model().unwrap();
    assert_eq!(model.layers[0].gate.variant(), &other);
    assert_ne!(model.layers[0].wk.variant(), &other);
    assert_ne!(by_table.table_hash(), by_default.table_hash());
    // What is fetched ahead of one token is no part of the product with many.
    let [of_table, of_default] = [&by_table, &by_default].map(|engine| engine.launched(32).unwrap());
    assert_ne!(of_table.token, of_default.token);
    assert_eq!(of_table.prompt, of_default.prompt);
    assert_eq!(tokens(&mut by_table), tokens(&mut by_default));
}

#[test]
fn a_row_can_name_the_plain_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let mut by_default = load(TableChoice::Default).unwrap();
    let gate = &by_default.model().unwrap().layers[0].gate;
    let shape = Shape::of([("N", gate.n() as u64), ("K", gate.k() as u64)]);
    let mut by_table = load(table(folder.path(), &shape, "gemv_q8_0/plain@cpu".parse().unwrap())).unwrap();
    assert_eq!(by_table.model().unwrap().layers[0].gate.variant().kernel, "plain");
    let [of_table, of_default] = [&by_table, &by_default].map(|engine| engine.launched(32).unwrap());
    assert!(of_table.token != of_default.token && of_table.prompt != of_default.prompt, "{of_table:?}");
    assert_eq!(tokens(&mut by_table).len(), tokens(&mut by_default).len());
}

#[test]
fn a_damaged_table_that_was_asked_for_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "schema = 1\nrows = 3").unwrap();
    let refused = load(TableChoice::File(Box::leak(path.into()))).unwrap_err().to_string();
    assert!(refused.contains("bad.toml") && refused.contains("bench tune"), "{refused}");
}
