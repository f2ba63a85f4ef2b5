//! The published schemas are those of the types, and records validate against them.

mod fabricated;

use std::fs;
use std::path::PathBuf;

use fabricated::Script;
use reports::schema::{kernel_run_schema, run_schema, sample_schema, selftest_schema, trial_schema};
use serde_json::Value;

fn published(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema").join(name)
}

/// `UPDATE_SCHEMA=1 cargo test -p reports --test schema` rewrites the files.
fn is_published(name: &str, schema: &Value) {
    let path = published(name);
    let want = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &want).unwrap();
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "{} is stale: run `UPDATE_SCHEMA=1 cargo test -p reports --test schema` and commit it",
        path.display()
    );
}

/// The schema as published, so that a user's validator is the one under test.
fn validator(name: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&fs::read_to_string(published(name)).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn assert_valid(validator: &jsonschema::Validator, value: &Value) {
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    is_published("run.schema.json", &run_schema());
    is_published("sample.schema.json", &sample_schema());
    is_published("kernel_run.schema.json", &kernel_run_schema());
    is_published("trial.schema.json", &trial_schema());
    is_published("selftest.schema.json", &selftest_schema());
}

#[test]
fn records_and_samples_of_every_kind_validate() {
    let (run, sample) = (validator("run.schema.json"), validator("sample.schema.json"));
    let script = Script::default();
    for (record, samples) in
        [fabricated::compare(&script), fabricated::one_sided(&script), fabricated::interrupted(&script, 33)]
    {
        assert_valid(&run, &serde_json::to_value(&record).unwrap());
        assert!(!samples.is_empty());
        for line in &samples {
            assert_valid(&sample, &serde_json::to_value(line).unwrap());
        }
    }
}

#[test]
fn a_record_without_a_required_field_or_with_a_false_verdict_does_not_validate() {
    let (record, samples) = fabricated::compare(&Script::default());
    let validator = validator("run.schema.json");
    let good = serde_json::to_value(&record).unwrap();

    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("manifest");
    assert!(!validator.is_valid(&missing));

    let mut wrong = good;
    wrong["headline"]["verdict"] = Value::from("much faster");
    assert!(!validator.is_valid(&wrong));

    let mut line = serde_json::to_value(&samples[0]).unwrap();
    line["token_ns"][0] = Value::from("soon");
    assert!(!self::validator("sample.schema.json").is_valid(&line));
}

#[test]
fn every_property_of_the_schemas_says_what_it_is() {
    for schema in [run_schema(), sample_schema(), kernel_run_schema(), selftest_schema()] {
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property.get("description").is_some(), "{name} has no description");
        }
    }
}
