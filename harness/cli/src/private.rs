//! A record is made to be published: it does not say where its author's home is.

use harness_spec::record::{KernelRun, RunRecord, SelftestRun};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The record with the home folder written as `~` wherever it stands: in the command, in model names that are paths,
/// in the command line and the environment of a peer.
pub fn without_home(record: RunRecord) -> RunRecord {
    cleaned(record)
}

/// The same of a run of kernels: in its command, and in the compiler's logs, which name files.
pub fn kernel_run_without_home(record: KernelRun) -> KernelRun {
    cleaned(record)
}

/// The same of a selftest: in its command.
pub fn selftest_without_home(record: SelftestRun) -> SelftestRun {
    cleaned(record)
}

fn cleaned<T: Serialize + DeserializeOwned>(record: T) -> T {
    // A home of `/`, or none at all, would turn every path into something else.
    let Some(home) = std::env::var("HOME").ok().filter(|home| home.len() > 1) else { return record };
    let Ok(mut value) = serde_json::to_value(&record) else { return record };
    visit(&mut value, &|text| *text = text.replace(&home, "~"));
    // Only strings changed. A number that JSON cannot hold would not come back, and no run is lost over that.
    serde_json::from_value(value).unwrap_or(record)
}

fn visit(value: &mut Value, change: &dyn Fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|v| visit(v, change)),
        Value::Object(fields) => fields.values_mut().for_each(|v| visit(v, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_folder_is_a_tilde_wherever_it_stands_and_numbers_stay() {
        let mut value = serde_json::json!({
            "command": ["bench", "--model", "/home/ada/x.gguf"],
            "options": {"flags": "-m /home/ada/x.gguf --port 8080"},
            "n": 0.1, "u": u64::MAX, "none": null
        });
        visit(&mut value, &|text| *text = text.replace("/home/ada", "~"));
        assert_eq!(value["command"][2], "~/x.gguf");
        assert_eq!(value["options"]["flags"], "-m ~/x.gguf --port 8080");
        assert_eq!(value["u"], u64::MAX);
        assert_eq!(value["n"], 0.1);
    }
}
