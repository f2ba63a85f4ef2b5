//! The machine as a record has it.

use harness_spec::record::{Environment, ToolFacts};
use sysinfo::System;

use super::{cpu, noise, telemetry};

/// The machine at this moment.
pub fn capture() -> Environment {
    let mut system = System::new();
    system.refresh_memory();
    Environment {
        os: format!(
            "{} (kernel {})",
            System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned()),
            System::kernel_version().unwrap_or_else(|| "unknown".to_owned())
        ),
        arch: std::env::consts::ARCH.to_owned(),
        cpu: cpu::facts(),
        memory_bytes: system.total_memory(),
        load1: telemetry::load1(),
        gpus: gpus(),
        noise: noise::sources(),
    }
}

/// NVIDIA GPUs by the driver's own list, whether the engine computes on one or not: a peer may.
pub fn gpus() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut found: Vec<String> = entries
        .filter_map(|e| {
            let text = std::fs::read_to_string(e.ok()?.path().join("information")).ok()?;
            let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
            Some(format!("{} ({})", field("Model:")?, field("GPU UUID:").unwrap_or_else(|| "no UUID".into())))
        })
        .collect();
    found.sort();
    found
}

/// The program that writes the record.
pub fn tool() -> ToolFacts {
    ToolFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("BENCH_COMMIT").to_owned(),
        dirty: match env!("BENCH_DIRTY") {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        },
        profile: env!("BENCH_PROFILE").to_owned(),
    }
}
