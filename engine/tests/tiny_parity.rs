//! Logits of tiny random models of every architecture against llama.cpp: rotation by pairs and by halves, factor tensor
//! and linear scaling, biases, norms on heads, tied and untied heads, one key head for one, two and four query heads.

use std::path::{Path, PathBuf};

use engine::Engine;
use engine::eval::{EvalError, EvalReport, ReferenceFile, evaluate};
use engine::generate::{KvType, LoadOptions};
use kernels::cpu::Precision;
use variants::Isa;

const MODELS: [&str; 4] = ["tiny-llama3", "tiny-llama-linear", "tiny-qwen2", "tiny-qwen3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn report(model: &str, isa: Isa, precision: Precision, kv: KvType) -> EvalReport {
    let reference = ReferenceFile::read(&fixture(&format!("{model}.json"))).unwrap();
    let options = LoadOptions { isa: Some(isa), threads: Some(2), precision, kv: Some(kv), ..LoadOptions::default() };
    let mut engine = Engine::load(&fixture(&format!("{model}.gguf")), &options).unwrap();
    evaluate(&mut engine, &reference, &mut |_| {}).unwrap()
}

#[test]
fn e2_every_architecture_agrees_with_llama_cpp_at_every_step() {
    for model in MODELS {
        for isa in Isa::available() {
            let report = report(model, isa, Precision::Exact, KvType::F32);
            assert!(report.steps >= 64);
            // Six decimals in the file, float32 on both sides.
            assert!(report.p95_logprob_diff < 2e-5, "{model} on {isa}: {report}");
            assert!(report.mean_kl.abs() < 1e-6, "{model} on {isa}: {report}");
            assert!(report.misses.iter().all(|miss| miss.reference_gap < 1e-4), "{model} on {isa}: {report}");
        }
    }
}

#[test]
fn half_precision_keys_and_values_change_little() {
    for model in MODELS {
        let report = report(model, Isa::detect(), Precision::Fast, KvType::F16);
        assert!(report.p95_logprob_diff < 1e-2, "{model}: {report}");
    }
}

#[test]
fn a_reference_of_another_model_is_refused() {
    let reference = ReferenceFile::read(&fixture("tiny-qwen2.json")).unwrap();
    let mut engine = Engine::load(&fixture("tiny-qwen3.gguf"), &LoadOptions::default()).unwrap();
    let error = evaluate(&mut engine, &reference, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EvalError::OtherModel { .. }), "{error}");
}

#[test]
fn a_reference_that_does_not_fit_or_is_no_reference_is_refused() {
    let reference = ReferenceFile::read(&fixture("tiny-qwen2.json")).unwrap();
    let options = LoadOptions { context: Some(64), ..LoadOptions::default() };
    let mut engine = Engine::load(&fixture("tiny-qwen2.gguf"), &options).unwrap();
    assert!(matches!(evaluate(&mut engine, &reference, &mut |_| {}), Err(EvalError::TooLong { context: 64, .. })));
    assert!(matches!(ReferenceFile::read(&fixture("README.md")), Err(EvalError::Format { .. })));
    assert!(matches!(ReferenceFile::read(&fixture("absent.json")), Err(EvalError::Read { .. })));
    let empty = ReferenceFile { cases: Vec::new(), ..reference };
    assert!(matches!(evaluate(&mut engine, &empty, &mut |_| {}), Err(EvalError::Empty)));
}
