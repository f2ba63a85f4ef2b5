use engine::models::Store;
use serde_json::{Value, json};
use variants::{Isa, Table, registry};

use super::{print_json, print_text};
use crate::args::Listing;
use crate::exit::{Exit, Outcome};
use crate::machine::environment;
use crate::suite;

/// `bench list`.
pub fn run(what: Listing, _kernels: &[std::path::PathBuf], _op: &[String], json: bool) -> Outcome {
    let rows = match what {
        Listing::Ops => ops(),
        Listing::Kernels => kernels(),
        Listing::Variants => chosen(),
        Listing::Suites => suites()?,
        Listing::Devices => devices(),
        Listing::Models => models()?,
        Listing::Tables => Vec::new(),
    };
    if json {
        print_json(&rows)?;
    } else {
        for row in &rows {
            print_text(&line(row));
        }
        if rows.is_empty() {
            eprintln!("nothing to list");
        }
    }
    Ok(Exit::Done)
}

/// A row for people: its values side by side, the name first.
fn line(row: &Value) -> String {
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Array(a) => {
            a.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let Some(fields) = row.as_object() else { return row.to_string() };
    let mut values = fields.values().map(text);
    let first = values.next().unwrap_or_default();
    format!("{first:<34} {}", values.collect::<Vec<_>>().join("  "))
}

fn ops() -> Vec<Value> {
    registry().spaces().iter().map(|s| json!({ "op": s.op, "kernels": s.kernels.len(), "doc": s.doc })).collect()
}

fn kernels() -> Vec<Value> {
    registry()
        .kernels()
        .map(|(op, k)| {
            let mut row = json!({ "kernel": format!("{op}/{}", k.name), "op": op });
            let spec = serde_json::to_value(k).unwrap_or_default();
            if let (Some(row), Some(spec)) = (row.as_object_mut(), spec.as_object()) {
                row.extend(spec.clone());
            }
            row
        })
        .collect()
}

/// What the default table of this machine would run, and what the embedded baseline does.
fn chosen() -> Vec<Value> {
    let isa = Isa::detect();
    let (best, plain) = (Table::default_for(isa), Table::baseline());
    registry()
        .spaces()
        .iter()
        .map(|s| {
            let name = |t: &Table| t.kernel(&s.op, isa).map(|k| format!("{}/{}@{}", s.op, k.name, k.backend));
            json!({ "op": s.op, "default": name(&best), "baseline": name(&plain) })
        })
        .collect()
}

fn suites() -> anyhow::Result<Vec<Value>> {
    Ok(suite::built_in()?
        .iter()
        .map(|s| {
            let prompts: Vec<&str> = s.prompts.iter().map(|p| p.id.as_str()).collect();
            json!({ "suite": s.name, "prompts": prompts, "lengths": s.lengths, "description": s.description })
        })
        .collect())
}

fn devices() -> Vec<Value> {
    let e = environment::capture();
    let mut rows = vec![
        json!({ "device": "cpu", "model": e.cpu.model, "processors": e.cpu.threads, "isa": e.cpu.isa, "used": true }),
    ];
    rows.extend(
        e.gpus.iter().enumerate().map(|(i, g)| json!({ "device": format!("gpu{i}"), "model": g, "used": false })),
    );
    rows
}

fn models() -> anyhow::Result<Vec<Value>> {
    let store = Store::of_this_user()?;
    Ok(store
        .list()?
        .into_iter()
        .map(|m| {
            json!({
                "model": m.name.to_string(), "bytes": m.size, "sha256": m.sha256.as_ref().map(|d| d.as_str()),
                "path": m.path, "source": m.source,
            })
        })
        .collect())
}
