//! The arrows between the crates, as ARCHITECTURE.md draws them, asserted from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every crate with the workspace crates that it may depend on.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("harness-spec", &[]),
    ("harness-measure", &["harness-spec"]),
    ("variants", &["harness-spec"]),
    ("kernels", &["harness-spec", "variants"]),
    ("engine", &["harness-spec", "variants", "kernels"]),
    ("reports", &["harness-spec", "harness-measure"]),
    ("bench-cli", &["harness-spec", "harness-measure", "variants", "kernels", "engine", "reports"]),
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata runs where cargo test runs");
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let names = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Build);
            (package.name.to_string(), names.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn every_crate_depends_only_on_the_crates_its_arrow_allows() {
    let found = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let members: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(members, allowed.keys().copied().collect(), "a crate was added or removed: draw its arrow here");
    for (name, deps) in &found {
        for dep in deps.iter().filter(|d| members.contains(d.as_str())) {
            assert!(allowed[name.as_str()].contains(&dep.as_str()), "{name} must not depend on {dep}");
        }
    }
}

#[test]
fn only_kernels_may_link_cuda_and_measure_has_neither_files_nor_http() {
    for (name, deps) in dependencies() {
        let has = |dep: &str| deps.contains(dep);
        assert!(name == "kernels" || !has("cudarc"), "{name} links cudarc");
        if name == "harness-measure" || name == "reports" {
            for banned in ["reqwest", "axum", "tokio", "memmap2"] {
                assert!(!has(banned), "{name} must not depend on {banned}");
            }
        }
    }
}
