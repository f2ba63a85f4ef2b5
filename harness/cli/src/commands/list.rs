//! `bench list`: what there is, with every field of the registry (R1).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use engine::models::Store;
use engine::synth::shapes;
use harness_spec::VariantId;
use kernels::op::op as contract;
use serde_json::{Map, Value, json};
use variants::{KernelSpec, Registry, Space};

use super::{print_json, print_text};
use crate::args::Listing;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::grid::Grid;
use crate::machine::environment;
use crate::registry_spaces;
use crate::{kernel_suite, suite};

/// `bench list`.
pub fn run(what: Listing, kernels: &[PathBuf], ops_only: &[String], json: bool) -> Outcome {
    let registry = registry_spaces::load(kernels).map_err(usage)?;
    let spaces = chosen(&registry, ops_only)?;
    let rows = match what {
        Listing::Ops => ops(&spaces),
        Listing::Kernels => all_kernels(&spaces),
        Listing::Variants => variants(&spaces),
        Listing::Suites => suites()?,
        Listing::Devices => devices(),
        Listing::Models => models()?,
        Listing::Tables => crate::tables::list(&registry)?,
    };
    if json {
        print_json(&rows)?;
    } else if rows.is_empty() {
        eprintln!("nothing to list");
    } else {
        print_text(&for_people(&rows))?;
    }
    Ok(Exit::Done)
}

fn chosen<'a>(registry: &'a Registry, only: &[String]) -> Result<Vec<&'a Space>, Failure> {
    let all: Vec<&Space> = registry.spaces().iter().collect();
    if let Some(unknown) = only.iter().find(|o| !all.iter().any(|s| s.op == **o)) {
        let known = all.iter().map(|s| s.op.as_str()).collect::<Vec<_>>().join(", ");
        return Err(usage(anyhow!("unknown op `{unknown}`\nhint: use one of {known}")));
    }
    Ok(all.into_iter().filter(|s| only.is_empty() || only.contains(&s.op)).collect())
}

/// Rows for people: the fields that are short in every row side by side, under their names. The rest is in `--json`.
fn for_people(rows: &[Value]) -> String {
    /// Longer values would make a table that no terminal shows.
    const WIDEST: usize = 60;
    let text = |v: Option<&Value>| match v {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(a)) => {
            a.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    };
    let names: Vec<&str> =
        rows.iter().find_map(Value::as_object).map_or_else(Vec::new, |r| r.keys().map(String::as_str).collect());
    let fits = |name: &&&str| {
        let values = || rows.iter().map(|r| r.get(**name));
        let flat = values().all(|v| !matches!(v, Some(Value::Object(o)) if !o.is_empty()));
        let said = values().any(|v| !matches!(text(v).as_str(), "-" | "" | "{}" | "false"));
        flat && said && values().all(|v| text(v).chars().count() <= WIDEST)
    };
    let mut shown: Vec<&str> = names.iter().filter(fits).copied().collect();
    // The first field is the name; it is shown however long it is.
    if let Some(first) = names.first().filter(|n| !shown.contains(n)) {
        shown.insert(0, first);
    }
    let mut grid = Grid::new(&shown);
    for row in rows {
        grid.row(shown.iter().map(|name| text(row.get(*name))));
    }
    grid.render()
}

fn ops(spaces: &[&Space]) -> Vec<Value> {
    spaces
        .iter()
        .map(|s| {
            let default = |backend: &str| {
                let mut all = s.kernels.iter().filter(|k| k.backend.name() == backend && k.role.may_be_default());
                all.next_back().map(KernelSpec::id)
            };
            let baselines: Vec<String> = s.kernels.iter().filter(|k| k.baseline).map(KernelSpec::id).collect();
            json!({
                "op": s.op, "dims": s.dims, "kernels": s.kernels.len(), "contract": contract(&s.op).is_some(),
                "configurations": s.kernels.iter().map(configurations).sum::<u64>(),
                "baselines": baselines, "last_cpu": default("cpu"), "last_cuda": default("cuda"), "doc": s.doc,
            })
        })
        .collect()
}

/// Configurations of a kernel before any constraint.
fn configurations(kernel: &KernelSpec) -> u64 {
    kernel.tunables.values().map(|v| v.len() as u64).product()
}

/// A kernel with every field of its space file, and a hash of its source, so that nothing of the registry is unseen.
fn all_kernels(spaces: &[&Space]) -> Vec<Value> {
    spaces
        .iter()
        .flat_map(|s| s.kernels.iter())
        .map(|k| {
            let mut row = Map::new();
            row.insert("kernel".into(), json!(k.id()));
            row.insert("op".into(), json!(k.op));
            if let Ok(Value::Object(spec)) = serde_json::to_value(k) {
                row.extend(spec);
            }
            row.insert("configurations".into(), json!(configurations(k)));
            row.insert("folder".into(), json!(k.folder.as_ref().map(|f| f.display().to_string())));
            row.insert("source_sha256".into(), json!(source_hash(k)));
            Value::Object(row)
        })
        .collect()
}

/// SHA-256 of a kernel's source; `null` where the program does not carry it, as for CPU kernels, which it is itself.
fn source_hash(kernel: &KernelSpec) -> Option<String> {
    use sha2::{Digest, Sha256};
    let text = match &kernel.folder {
        Some(folder) => std::fs::read_to_string(folder.join(&kernel.source)).ok()?,
        None => kernels::cuda::compile::built_in(&kernel.source)?.to_owned(),
    };
    Some(Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect())
}

/// Every kernel with every tunable fixed, before the constraints of a shape and a device.
fn variants(spaces: &[&Space]) -> Vec<Value> {
    let mut rows = Vec::new();
    for kernel in spaces.iter().flat_map(|s| s.kernels.iter()) {
        let default = kernel.default_variant();
        for id in all_variants(kernel) {
            rows.push(json!({
                "variant": id.to_string(), "op": kernel.op, "kernel": kernel.id(), "backend": kernel.backend,
                "tunables": id.tunables, "default": id == default, "role": kernel.role, "baseline": kernel.baseline,
                "constraints": kernel.constraints, "layout": kernel.layout, "activations": kernel.activations,
                "instruction": kernel.instruction, "redundant": kernel.redundant,
            }));
        }
    }
    rows
}

/// Every assignment of values to tunables, the last tunable varying fastest.
fn all_variants(kernel: &KernelSpec) -> Vec<VariantId> {
    let mut all = vec![BTreeMap::new()];
    for (name, values) in &kernel.tunables {
        let with = |base: &BTreeMap<String, i64>, value: i64| {
            let mut next = base.clone();
            next.insert(name.clone(), value);
            next
        };
        all = all.iter().flat_map(|base| values.iter().map(move |&v| with(base, v))).collect();
    }
    all.into_iter().map(|tunables| kernel.variant(tunables)).collect()
}

fn suites() -> anyhow::Result<Vec<Value>> {
    let prompts = suite::built_in()?.into_iter().map(|s| {
        json!({
            "suite": s.name, "of": "prompts", "items": s.prompts.len(), "lengths": s.lengths,
            "names": s.prompts.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), "description": s.description,
        })
    });
    let kernels = kernel_suite::built_in()?.into_iter().map(|s| {
        let names: Vec<String> = s.workloads.iter().map(|w| w.workload.to_string()).collect();
        json!({
            "suite": s.name, "of": "kernels", "items": s.workloads.len(), "lengths": Value::Null,
            "names": names, "workloads": s.workloads, "policies": s.policies, "description": s.description,
        })
    });
    Ok(prompts.chain(kernels).collect())
}

fn devices() -> Vec<Value> {
    let e = environment::capture();
    let mut rows = vec![
        json!({ "device": "cpu", "model": e.cpu.model, "processors": e.cpu.threads, "isa": e.cpu.isa, "runs": "engine, kernels" }),
    ];
    rows.extend(e.gpus.iter().enumerate().map(|(i, g)| {
        json!({ "device": format!("cuda:{i}"), "model": g, "processors": null, "isa": null, "runs": "kernels" })
    }));
    rows
}

fn models() -> anyhow::Result<Vec<Value>> {
    let store = Store::of_this_user()?;
    let mut rows: Vec<Value> = store
        .list()?
        .into_iter()
        .map(|m| {
            json!({
                "model": m.name.to_string(), "of": "store", "bytes": m.size,
                "sha256": m.sha256.as_ref().map(|d| d.as_str()), "path": m.path, "source": m.source,
            })
        })
        .collect();
    rows.extend(shapes().into_iter().map(|s| {
        json!({
            "model": s.name, "of": "shape", "bytes": null, "sha256": null, "path": null, "architecture": s.architecture,
            "hidden": s.hidden, "inter": s.inter, "layers": s.layers, "n_heads": s.n_heads, "n_kv_heads": s.n_kv_heads,
            "head_dim": s.head_dim, "vocab": s.vocab,
        })
    }));
    Ok(rows)
}
