//! Whether a model with its slots fits the memory of this machine, before anything of it is loaded.
//!
//! Keys and values take memory as positions are written: a server with too many slots would start, and be ended by the system
//! in the middle of an answer.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use harness_spec::Bytes;

use crate::generate::LoadOptions;
use crate::model::{Config, LoadError};
use crate::smaller::{fewer_slots, shorter_context};

/// What can still be had without swapping: of the machine, or of the control group that this process is in where that is less.
/// `None` where the system does not tell.
pub fn available() -> Option<Bytes> {
    let machine = meminfo_available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limited = group_available(Path::new("/sys/fs/cgroup"), &groups);
    Some(Bytes(limited.map_or(machine, |limited| limited.min(machine))))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn meminfo_available(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// What the tightest control group of these lines of `/proc/self/cgroup`, or one above it, still gives, in bytes. Seen from
/// within a container the path of a group may not be there, and its limit lies at the root.
fn group_available(root: &Path, groups: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        // Version 2 has one hierarchy without a name, version 1 one for memory.
        let (base, files) = match controllers.split(',').any(|name| name == "memory") {
            true => (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
            false if controllers.is_empty() => (root.to_owned(), ["memory.max", "memory.current"]),
            false => return None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors().filter_map(|group| left_in(&base.join(group), files)).min()
    };
    groups.lines().filter_map(of_line).min()
}

/// What is left in one group. Pages of files count as used there, and are given back when they are needed.
fn left_in(group: &Path, [limit, used]: [&str; 2]) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // Without a limit it is the word `max`, or more than any machine has.
    let (limit, used) = (number(limit)?, number(used)?);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let pages = |of: &str| -> u64 {
        let counts = stat.lines().filter_map(|line| line.strip_prefix(of)?.parse::<u64>().ok());
        counts.sum()
    };
    let of_files = pages("active_file ") + pages("inactive_file ");
    // Version 1 counts those of the groups below apart.
    let with_those_below = pages("total_active_file ") + pages("total_inactive_file ");
    let of_files = of_files.max(with_those_below);
    Some(limit.saturating_sub(used.saturating_sub(of_files)))
}

/// Whether weights of `weights` bytes and the keys and values of every slot, with all positions written, are available.
///
/// # Errors
/// [`LoadError::Memory`] with both numbers and what would help.
pub fn check(
    config: &Config,
    weights: u64,
    options: &LoadOptions,
    context: usize,
    available: Bytes,
) -> Result<(), LoadError> {
    let need = |context, slots| weights.saturating_add(config.kv_bytes(options.kv_on_cpu(), context, slots));
    let fits = |context, slots| need(context, slots) <= available.0;
    let slots = options.slots;
    if fits(context, slots) {
        return Ok(());
    }
    let fewer = fewer_slots(slots, |fewer| fits(context, fewer));
    let shorter = shorter_context(context, |ctx| fits(ctx, NonZeroUsize::MIN));
    let fix = match (fewer, shorter) {
        (Some(fewer), _) => format!("--parallel {fewer} fits; or take a smaller --ctx or a smaller model"),
        (None, Some(ctx)) if slots.get() > 1 => format!("--parallel 1 with --ctx {ctx} fits; or take a smaller model"),
        (None, Some(ctx)) => format!("--ctx {ctx} fits; or take a smaller model"),
        (None, None) => "no --ctx makes it fit: take a smaller model".to_owned(),
    };
    Err(LoadError::Memory { need: need(context, slots), available: available.0, fix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::synth::{Scheme, Shape, SynthOptions, to_bytes};

    #[test]
    fn memory_that_is_available_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(meminfo_available(text), Some(22_000_000 << 10));
        assert_eq!(meminfo_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts_without_its_pages_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of = |groups: &str| group_available(dir.path(), groups);
        assert_eq!(of("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "50\n");
        assert_eq!(of("0::/a/b\n"), None, "no limit is none");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        assert_eq!(of("0::/a/b\n"), Some(300));
        write("a/memory.stat", "anon 1\ninactive_file 100\nactive_file 200\nslab 5\n");
        assert_eq!(of("0::/a/b\n"), Some(600));
        // Version 1, seen from a container: the path is that of the host.
        write("memory/memory.limit_in_bytes", "500\n");
        write("memory/memory.usage_in_bytes", "450\n");
        assert_eq!(of("5:cpu:/x\n4:memory:/docker/1234\n"), Some(50));
    }

    #[test]
    fn too_many_slots_are_refused_with_the_need_and_how_many_fit() {
        let shape = Shape {
            name: "tiny".into(),
            architecture: "llama".into(),
            hidden: 64,
            inter: 96,
            layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            vocab: 288,
            tied_head: true,
            qkv_bias: false,
            eps: 1e-5,
            rope_base: 1e4,
            context: 4096,
            pre_tokenizer: "smollm".into(),
            rope_llama3: None,
            rope_linear: None,
        };
        let synthetic = SynthOptions { scheme: Scheme::Q8_0, layers: None, seed: 1 };
        let config = Config::from_gguf(&Gguf::from_bytes(to_bytes(&shape, &synthetic).unwrap()).unwrap()).unwrap();
        let weights = 1 << 20;
        // Of a position: keys and values of 2 layers, 2 heads and 16 dimensions, in two bytes.
        let slot = |context: u64| 2 * 2 * 2 * 16 * 2 * context;
        let check_with = |slots, available| {
            let options = LoadOptions { slots: NonZeroUsize::new(slots).unwrap(), ..LoadOptions::default() };
            check(&config, weights, &options, 4096, Bytes(available)).map_err(|e| e.to_string())
        };
        assert_eq!(check_with(4, weights + 4 * slot(4096)), Ok(()));
        let said = check_with(5, weights + 4 * slot(4096)).unwrap_err();
        assert!(
            said.contains("needs 6 MiB") && said.contains("5 MiB are") && said.contains("--parallel 4 fits"),
            "{said}"
        );
        for (slots, want) in [(1, "hint: --ctx 1024 fits"), (2, "hint: --parallel 1 with --ctx 1024 fits")] {
            let said = check_with(slots, weights + slot(1024)).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
        assert!(check_with(1, 1000).unwrap_err().contains("smaller model"));
        let said = check_with(usize::MAX, weights + 4 * slot(4096)).unwrap_err();
        assert!(said.contains("needs more than 17592186044415 MiB") && said.contains("--parallel 4 fits"), "{said}");
    }
}
