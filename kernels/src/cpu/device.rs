//! What keys results to this processor: everything that may change a time or a choice (MEASURING.md §10).

use std::collections::BTreeMap;
use std::fs;

use harness_spec::DeviceKey;
use variants::Isa;

/// The key of this machine's processor with so many threads of a level.
pub fn device_key(isa: Isa, threads: usize) -> DeviceKey {
    let mut conditions = BTreeMap::new();
    conditions.insert("threads".to_owned(), threads.to_string());
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    conditions.insert("governor".to_owned(), governor.unwrap_or_else(|| "unknown".to_owned()));
    let smt = match read("/sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => "on",
        Some("0") => "off",
        _ => "unknown",
    };
    conditions.insert("smt".to_owned(), smt.to_owned());
    DeviceKey { backend: "cpu".to_owned(), name: model(), arch: isa.name().to_owned(), conditions }
}

/// The processor's name as the system gives it.
fn model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned()).filter(|value| !value.is_empty())
    };
    // ARM gives numbers alone.
    field("model name")
        .or_else(|| Some(format!("ARM {} part {}", field("CPU implementer")?, field("CPU part")?)))
        .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

/// Bytes of the last-level cache that the first processor sees. Where the system does not tell, 32 MiB: more than most
/// have, as too large an assumption only costs memory.
pub fn last_level_cache() -> u64 {
    let base = "/sys/devices/system/cpu/cpu0/cache";
    let size = |index: u32| {
        let level: u32 = read(&format!("{base}/index{index}/level"))?.parse().ok()?;
        Some((level, parse_size(&read(&format!("{base}/index{index}/size"))?)?))
    };
    (0..8).filter_map(size).max().map_or(32 << 20, |(_, size)| size)
}

/// Bytes of memory that can be taken without swapping; 2 GiB where the system does not tell.
pub fn available_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(2 << 30, |kib| kib << 10)
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A size as sysfs writes it, such as `32768K`.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_sysfs_are_read() {
        assert_eq!(
            (parse_size("32768K"), parse_size("2M"), parse_size("64")),
            (Some(32 << 20), Some(2 << 20), Some(64))
        );
        assert_eq!((parse_size("x"), parse_size("1Q")), (None, None));
    }

    #[test]
    fn the_key_names_a_processor_its_level_and_what_may_change_times() {
        let key = device_key(Isa::Scalar, 3);
        assert_eq!((key.backend.as_str(), key.arch.as_str()), ("cpu", "scalar"));
        assert!(!key.slug().is_empty());
        assert_eq!(key.conditions["threads"], "3");
        assert_ne!(key, device_key(Isa::Scalar, 2));
    }

    #[test]
    fn the_machine_has_a_cache_and_memory() {
        assert!(last_level_cache() >= 32 << 10 && available_memory() > 0);
    }
}
