//! Sources of noise, each with what was found and how to remove it (R47).

use harness_spec::record::NoiseSource;

use super::{cpu, read_trimmed, telemetry};

/// Everything on this machine that may disturb a measurement.
pub fn sources() -> Vec<NoiseSource> {
    vec![governor(), turbo(), smt(), load(), memory(), virtualization(), cpu_quota(), build()]
}

fn source(name: &str, state: &str, found: impl Into<String>, fix: impl Into<String>) -> NoiseSource {
    NoiseSource { name: name.into(), state: state.into(), found: found.into(), fix: fix.into() }
}

fn governor() -> NoiseSource {
    match cpu::governor().as_deref() {
        Some("performance") => source("governor", "ok", "performance", ""),
        Some(other) => source(
            "governor",
            "warn",
            format!("{other}: the clock follows the load"),
            "sudo cpupower frequency-set -g performance",
        ),
        None => source(
            "governor",
            "unknown",
            "the kernel shows no frequency governor, as in most virtual machines",
            "set it on the host; the ABBA order and the telemetry of each block show drift that is left",
        ),
    }
}

fn turbo() -> NoiseSource {
    let intel = read_trimmed("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|v| v == "0");
    let generic = read_trimmed("/sys/devices/system/cpu/cpufreq/boost").map(|v| v == "1");
    match intel.or(generic) {
        Some(true) => source(
            "turbo",
            "warn",
            "on: the clock depends on temperature and on the other cores",
            "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo (or echo 0 to cpufreq/boost)",
        ),
        Some(false) => source("turbo", "ok", "off", ""),
        None => source("turbo", "unknown", "the kernel does not say", "switch it off in the firmware or on the host"),
    }
}

fn smt() -> NoiseSource {
    match cpu::threads_per_core() {
        Some(1) => source("smt", "ok", "one thread a core", ""),
        Some(n) => source(
            "smt",
            "warn",
            format!("{n} threads a core: a neighbour on the same core slows a run"),
            format!(
                "keep --threads at {} (one a core), or echo off | sudo tee /sys/devices/system/cpu/smt/control",
                cpu::physical_cores()
            ),
        ),
        None => source(
            "smt",
            "unknown",
            "the kernel does not show the topology",
            "give --threads the number of physical cores",
        ),
    }
}

fn load() -> NoiseSource {
    match telemetry::load1() {
        Some(l) if l < 0.3 * f64::from(cpu::logical()) => source("load", "ok", format!("{l:.2} over one minute"), ""),
        Some(l) => source(
            "load",
            "warn",
            format!("{l:.2} over one minute on {} processors", cpu::logical()),
            "end other programs (top shows them), or wait until the load is below 0.3 a processor",
        ),
        None => source("load", "unknown", "no load average", "check by hand that nothing else runs"),
    }
}

fn memory() -> NoiseSource {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| -> Option<u64> {
        text.lines().find_map(|l| l.strip_prefix(key))?.trim().trim_end_matches("kB").trim().parse().ok()
    };
    let swapped = kib("SwapTotal:").zip(kib("SwapFree:")).map(|(total, free)| total - free.min(total));
    match (kib("MemAvailable:"), swapped) {
        (Some(available), Some(swapped)) if available > 1 << 20 && swapped < 64 << 10 => {
            source("memory", "ok", format!("{} MiB available, {} MiB swapped out", available >> 10, swapped >> 10), "")
        }
        (Some(available), swapped) => source(
            "memory",
            "warn",
            format!("{} MiB available, {} MiB swapped out", available >> 10, swapped.unwrap_or(0) >> 10),
            "free memory until both models fit, then sudo swapoff -a && sudo swapon -a",
        ),
        (None, _) => source("memory", "unknown", "the kernel does not say", "check that both models fit"),
    }
}

fn virtualization() -> NoiseSource {
    match cpu::virtualization() {
        None => source("virtualization", "ok", "none shows", ""),
        Some(what) => {
            let steal = steal_percent().map_or_else(String::new, |s| format!(", {s:.2} % of time stolen since boot"));
            source(
                "virtualization",
                "warn",
                format!("{what}{steal}"),
                "measure on a machine of your own, or repeat at another hour and compare the A/A spread",
            )
        }
    }
}

/// Share of processor time that the host took since boot.
fn steal_percent() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let total: f64 = fields.iter().take(8).sum();
    (total > 0.0).then(|| 100.0 * fields.get(7).copied().unwrap_or(0.0) / total)
}

/// A quota stops a group of processes for the rest of a period: stalls that look like jitter.
fn cpu_quota() -> NoiseSource {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folder = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/").trim().to_owned();
    let max =
        read_trimmed(&format!("/sys/fs/cgroup{folder}/cpu.max")).or_else(|| read_trimmed("/sys/fs/cgroup/cpu.max"));
    match max.as_deref().map(|m| m.split_whitespace().collect::<Vec<_>>()).as_deref() {
        Some(["max", ..]) | None => source("cpu quota", "ok", "none", ""),
        Some([quota, period]) => source(
            "cpu quota",
            "warn",
            format!("{quota} µs in each {period} µs: beyond that, threads are stopped"),
            "start the container without a CPU limit (docker run without --cpus), and bind it with --cpuset-cpus instead",
        ),
        Some(other) => source("cpu quota", "unknown", other.join(" "), "read cpu.max of this control group by hand"),
    }
}

fn build() -> NoiseSource {
    match env!("BENCH_PROFILE") {
        "release" => source("build", "ok", "release", ""),
        other => source("build", "warn", format!("{other}: not optimised"), "cargo run --release -- ..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_fine_comes_with_a_fix() {
        for s in sources() {
            assert!(["ok", "warn", "unknown"].contains(&s.state.as_str()));
            assert_eq!(s.state == "ok", s.fix.is_empty(), "{}: {} / {}", s.name, s.found, s.fix);
        }
    }
}
