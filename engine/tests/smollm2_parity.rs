//! Logits of a real model against llama.cpp, teacher-forced.

mod real_model;

use std::path::Path;

use engine::Engine;
use engine::eval::{EvalReport, ReferenceFile, evaluate};
use engine::generate::{KvType, LoadOptions};
use kernels::cpu::Precision;

fn report(options: &LoadOptions) -> Option<EvalReport> {
    let path = real_model::path()?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/smollm2_greedy.json");
    let reference = ReferenceFile::read(&fixture).unwrap();
    assert!(reference.steps() > 1000);
    // Both tests run at once, and a thread that waits for another spins. Results are the same on any number of them, which
    // tests of small models show.
    let options = LoadOptions { context: Some(256), threads: Some(1), ..*options };
    let mut engine = Engine::load(&path, &options).unwrap();
    let report = evaluate(&mut engine, &reference, &mut |_| {}).unwrap();
    println!("{report}");
    assert_eq!(report.steps, reference.steps());
    assert_eq!(report.filled, 1, "the first half of a superscript in case 2");
    Some(report)
}

#[test]
fn the_exact_path_is_the_reference_but_for_near_ties() {
    let options = LoadOptions { precision: Precision::Exact, kv: Some(KvType::F32), ..LoadOptions::default() };
    let Some(report) = report(&options) else { return };
    assert!(report.top1_agreement >= 0.998);
    assert!(report.largest_miss_gap < 0.01, "a miss is a near tie");
    assert!(report.median_logprob_diff < 0.001);
}

#[test]
fn the_fast_path_stays_within_the_noise_of_eight_bit_activations() {
    let Some(report) = report(&LoadOptions::default()) else { return };
    assert!(report.top1_agreement >= 0.97);
    assert!(report.median_logprob_diff <= 0.08);
}
