//! Tells the program which commit it was built from. Outside a checkout it says `unknown` and builds all the same.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|c| !c.is_empty());
    let dirty = commit.as_ref().and_then(|_| git(&["status", "--porcelain", "--untracked-files=no"]));
    println!("cargo::rustc-env=BENCH_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=BENCH_DIRTY={}", dirty.map_or("unknown", |d| if d.is_empty() { "no" } else { "yes" }));
    println!("cargo::rustc-env=BENCH_PROFILE={}", std::env::var("PROFILE").unwrap_or_else(|_| "unknown".into()));
    println!("cargo::rerun-if-changed=build.rs");
    // All that the program is made of: an edit of a kernel alone makes it another one, too.
    for part in ["src", "../spec", "../measure", "../../engine", "../../kernels", "../../reports/src", "../../variants"]
    {
        println!("cargo::rerun-if-changed={part}");
    }
    // The head moves with every commit; its log is absent in some checkouts, and then nothing is watched.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|p| std::path::Path::new(p).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}
