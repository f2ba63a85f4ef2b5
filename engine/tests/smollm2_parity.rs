//! Logits of a real model against llama.cpp, teacher-forced.

mod real_model;

use std::path::Path;

use engine::Engine;
use engine::eval::{EvalReport, ReferenceFile, evaluate};
use engine::generate::{KvType, LoadOptions};
use kernels::cpu::Precision;

/// Which cases of the reference a test takes.
#[derive(Clone, Copy, PartialEq)]
enum Cases {
    All,
    Even,
    Odd,
}

impl Cases {
    fn has(self, case: usize) -> bool {
        self == Cases::All || (self == Cases::Even) == case.is_multiple_of(2)
    }
}

fn report(options: &LoadOptions, cases: Cases) -> Option<EvalReport> {
    let path = real_model::path()?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/smollm2_greedy.json");
    let mut reference = ReferenceFile::read(&fixture).unwrap();
    assert!(reference.steps() > 1000);
    let of_all = std::mem::take(&mut reference.cases).into_iter().enumerate();
    reference.cases = of_all.filter(|(case, _)| cases.has(*case)).map(|(_, of)| of).collect();
    // Tests run at once, and a thread that waits for another spins. Results are the same on any number of them, which
    // tests of small models show.
    let options = LoadOptions { context: Some(256), threads: Some(1), ..*options };
    let mut engine = Engine::load(&path, &options).unwrap();
    let report = evaluate(&mut engine, &reference, &mut |_| {}).unwrap();
    println!("{report}");
    assert_eq!(report.steps, reference.steps());
    assert_eq!(report.filled, usize::from(cases.has(2)), "the first half of a superscript in case 2");
    Some(report)
}

/// In halves, each a test of its own: one thread takes a minute for all.
fn the_exact_path_is_the_reference_but_for_near_ties(cases: Cases) {
    let options = LoadOptions { precision: Precision::Exact, kv: Some(KvType::F32), ..LoadOptions::default() };
    let Some(report) = report(&options, cases) else { return };
    assert!(report.top1_agreement >= 0.998);
    assert!(report.largest_miss_gap < 0.01, "a miss is a near tie");
    assert!(report.median_logprob_diff < 0.001);
}

#[test]
fn the_exact_path_is_the_reference_but_for_near_ties_in_even_cases() {
    the_exact_path_is_the_reference_but_for_near_ties(Cases::Even);
}

#[test]
fn the_exact_path_is_the_reference_but_for_near_ties_in_odd_cases() {
    the_exact_path_is_the_reference_but_for_near_ties(Cases::Odd);
}

#[test]
fn the_fast_path_stays_within_the_noise_of_eight_bit_activations() {
    let Some(report) = report(&LoadOptions::default(), Cases::All) else { return };
    assert!(report.top1_agreement >= 0.97);
    assert!(report.median_logprob_diff <= 0.08);
}
