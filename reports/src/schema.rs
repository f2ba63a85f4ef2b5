//! The published JSON Schemas, generated from the record types.

use harness_spec::record::{KernelRun, RunRecord, Sample, SelftestRun, Trial};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// Schema of `run.json`, as published in `reports/schema/run.schema.json`.
pub fn run_schema() -> Value {
    titled::<RunRecord>("EdgeLLM Bench run.json")
}

/// Schema of a line of `samples.jsonl`, as published in `reports/schema/sample.schema.json`.
pub fn sample_schema() -> Value {
    titled::<Sample>("A line of EdgeLLM Bench samples.jsonl")
}

/// Schema of the `run.json` of `verify`, `sweep` and `tune`, as published in `reports/schema/kernel_run.schema.json`.
pub fn kernel_run_schema() -> Value {
    titled::<KernelRun>("EdgeLLM Bench run.json of kernels")
}

/// Schema of a line of `trials.jsonl`, as published in `reports/schema/trial.schema.json`.
pub fn trial_schema() -> Value {
    titled::<Trial>("A line of EdgeLLM Bench trials.jsonl")
}

/// Schema of the `run.json` of `selftest`, as published in `reports/schema/selftest.schema.json`.
pub fn selftest_schema() -> Value {
    titled::<SelftestRun>("EdgeLLM Bench run.json of a selftest")
}

/// The schema of `T` under a title that says which file it is of.
fn titled<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), Value::from(title));
    let Value::Object(all) = schema.to_value() else { unreachable!("a root schema of a struct is an object") };
    // What a reader looks for first stands first.
    let (first, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(key, _)| ["$schema", "title", "description"].contains(&key.as_str()));
    Value::Object(first.into_iter().chain(rest).collect())
}
