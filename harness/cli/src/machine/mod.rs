//! What is known of this machine and of the processes on it.

pub mod cpu;
pub mod cuda;
pub mod environment;
pub mod gpu;
pub mod noise;
pub mod process;
pub mod telemetry;

/// An id of this boot of this machine: equal on both sides means one machine, one kernel, no reboot between.
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|s| s.trim().to_owned())
}

/// A file of the kernel's as trimmed text, if it is there and not empty.
fn read_trimmed(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
