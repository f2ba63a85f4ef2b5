//! What `--ptxas-options=-v` prints: registers, stack, spills and shared memory.

use harness_spec::target::Resources;

/// Reads the resources of `entry` from the log of a compilation; what the log does not say stays `None`.
///
/// ```text
/// ptxas info    : Compiling entry function 'k' for 'sm_90'
/// ptxas info    : Function properties for k
/// ptxas         .     160 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 40 registers, used 1 barriers, 160 bytes cumulative stack size, 256 bytes smem
/// ```
pub fn resources(log: &str, entry: &str) -> Resources {
    let mut out = Resources::default();
    let mut ours = false;
    // Functions that were not inlined have lines of their own between those of the entry.
    let mut properties = false;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            ours = rest.split('\'').next() == Some(entry);
        } else if !ours {
            continue;
        } else if let Some((_, function)) = line.split_once("Function properties for ") {
            properties = function.trim() == entry;
        } else if properties && line.contains("bytes stack frame") {
            out.local_bytes = number_before(line, "bytes stack frame");
            let stores = number_before(line, "bytes spill stores");
            let loads = number_before(line, "bytes spill loads");
            out.spill_bytes = stores.zip(loads).map(|(s, l)| s + l);
        } else if line.contains("Used ") && line.contains(" registers") {
            out.registers = number_before(line, "registers");
            // ptxas leaves out what is zero.
            out.static_smem_bytes = Some(number_before(line, "bytes smem").unwrap_or(0));
        }
    }
    out
}

/// The number that stands before `words`.
fn number_before(line: &str, words: &str) -> Option<u32> {
    line.split_once(words)?.0.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'other' for 'sm_75'
ptxas info    : Function properties for other
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 356 bytes cmem[0]
ptxas info    : Compiling entry function 'k' for 'sm_75'
ptxas info    : Function properties for k
ptxas         .     160 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 160 bytes cumulative stack size, 256 bytes smem, 372 bytes cmem[0]
ptxas info    : Compile time = 13.672 ms";

    #[test]
    fn registers_stack_spills_and_shared_memory_are_those_of_the_entry() {
        let r = resources(LOG, "k");
        assert_eq!((r.registers, r.local_bytes), (Some(64), Some(160)));
        assert_eq!((r.spill_bytes, r.static_smem_bytes), (Some(32), Some(256)));
        let r = resources(LOG, "other");
        assert_eq!((r.registers, r.local_bytes), (Some(8), Some(0)));
        assert_eq!((r.spill_bytes, r.static_smem_bytes), (Some(0), Some(0)));
    }

    #[test]
    fn what_a_log_does_not_say_is_unknown_and_not_zero() {
        assert_eq!(resources(LOG, "missing"), Resources::default());
        assert_eq!(resources("", "k"), Resources::default());
    }
}
