//! The processor.

use std::collections::BTreeSet;

use harness_spec::record::CpuFacts;

use super::read_trimmed;

/// Processors that this process may use.
pub fn logical() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// Physical cores among them: decode is bound by memory, and two threads of one core share its path to it.
pub fn physical_cores() -> u32 {
    threads_per_core().map_or_else(logical, |t| (logical() / t).max(1))
}

/// Hardware threads a core, where the kernel tells.
pub fn threads_per_core() -> Option<u32> {
    let list = read_trimmed("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")?;
    Some(count_in_list(&list).max(1))
}

/// Entries of a kernel list such as `0-3,8`.
fn count_in_list(list: &str) -> u32 {
    list.split(',')
        .filter_map(|part| match part.split_once('-') {
            Some((a, b)) => Some(b.trim().parse::<u32>().ok()?.checked_sub(a.trim().parse().ok()?)? + 1),
            None => part.trim().parse::<u32>().ok().map(|_| 1),
        })
        .sum()
}

/// The frequency governor of the first processor.
pub fn governor() -> Option<String> {
    read_trimmed("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

/// Mean core clock in MHz.
pub fn mean_mhz() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let clocks: Vec<f64> = info
        .lines()
        .filter(|l| l.starts_with("cpu MHz"))
        .filter_map(|l| l.split(':').nth(1)?.trim().parse().ok())
        .collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

/// Bytes of the last-level cache that the first processor sees.
fn llc_bytes() -> Option<u64> {
    let base = "/sys/devices/system/cpu/cpu0/cache";
    let mut best = None;
    for index in 0..8 {
        let level: Option<u32> = read_trimmed(&format!("{base}/index{index}/level")).and_then(|l| l.parse().ok());
        let size = read_trimmed(&format!("{base}/index{index}/size")).and_then(|s| parse_size(&s));
        if let (Some(level), Some(size)) = (level, size)
            && best.is_none_or(|(l, _)| level >= l)
        {
            best = Some((level, size));
        }
    }
    best.map(|(_, size)| size)
}

/// A kernel size such as `32768K`.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The hypervisor or container that shows.
pub fn virtualization() -> Option<String> {
    let mut found = Vec::new();
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if flags.lines().any(|l| l.starts_with("flags") && l.split_whitespace().any(|f| f == "hypervisor")) {
        let product = read_trimmed("/sys/class/dmi/id/product_name");
        found.push(product.map_or_else(|| "virtual machine".to_owned(), |p| format!("virtual machine ({p})")));
    }
    let cgroup = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let in_container = std::path::Path::new("/.dockerenv").exists()
        || ["docker", "containerd", "kubepods", "lxc"].iter().any(|w| cgroup.contains(w));
    if in_container {
        found.push("container".into());
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// Instruction sets that the kernels of this machine can use.
fn isa() -> Vec<String> {
    let mut names: BTreeSet<String> =
        variants::Isa::available().iter().map(|i| format!("{i:?}").to_lowercase()).collect();
    #[cfg(target_arch = "x86_64")]
    for (name, found) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ] {
        if found {
            names.insert(name.to_owned());
        }
    }
    names.remove("scalar");
    names.into_iter().collect()
}

/// All of it.
pub fn facts() -> CpuFacts {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(':').nth(1));
    CpuFacts {
        model: model.map_or_else(|| "unknown".to_owned(), |m| m.trim().to_owned()),
        threads: logical(),
        threads_per_core: threads_per_core(),
        isa: isa(),
        llc_bytes: llc_bytes(),
        governor: governor(),
        virtualization: virtualization(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_and_sizes_are_read() {
        assert_eq!((count_in_list("0-1"), count_in_list("0,4"), count_in_list("7")), (2, 2, 1));
        assert_eq!((parse_size("32768K"), parse_size("2M"), parse_size("x")), (Some(33_554_432), Some(2 << 20), None));
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(physical_cores() >= 1 && physical_cores() <= logical());
    }
}
