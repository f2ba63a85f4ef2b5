//! What the default variants need, in a file that is committed, so that a change of it is seen in review.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use kernels::cuda::compile::Arch;
use kernels::cuda::survey::{Compiled, Job};
use serde::{Deserialize, Serialize};

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The compiler's version: registers of another are not compared.
    nvrtc: String,
    /// By variant, then by architecture.
    variants: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// What one variant needs on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    registers: u32,
    spill: u32,
    local: u32,
    static_smem: u32,
    dynamic_smem: u32,
    /// Blocks that a multiprocessor holds, and their warps; absent where that is not known.
    #[serde(default)]
    blocks: Option<u32>,
    #[serde(default)]
    warps: Option<u32>,
    /// Bytes of the widest load; absent where there is none.
    #[serde(default)]
    load: Option<u32>,
    instructions: Vec<String>,
}

impl Entry {
    /// What differs from `now`, in the words of the file.
    fn changes(&self, now: &Entry) -> String {
        let number = |name: &str, was: u32, is: u32| (was != is).then(|| format!("{name} were {was} and are {is}"));
        let word = |n: Option<u32>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let maybe = |name: &str, was: Option<u32>, is: Option<u32>| {
            (was != is).then(|| format!("{name} were {} and are {}", word(was), word(is)))
        };
        let classes = (self.instructions != now.instructions)
            .then(|| format!("instruction classes were {:?} and are {:?}", self.instructions, now.instructions));
        let all = [
            number("registers", self.registers, now.registers),
            number("spilled bytes", self.spill, now.spill),
            number("local bytes", self.local, now.local),
            number("bytes of static shared memory", self.static_smem, now.static_smem),
            number("bytes of dynamic shared memory", self.dynamic_smem, now.dynamic_smem),
            maybe("blocks on a multiprocessor", self.blocks, now.blocks),
            maybe("warps on a multiprocessor", self.warps, now.warps),
            maybe("bytes of the widest load", self.load, now.load),
            classes,
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

const HEAD: &str =
    "# What the default variant of every CUDA kernel needs on every architecture: registers a thread, spilled and local
# bytes a thread, static and dynamic shared memory a block (at N = K = 4096), blocks and warps that a multiprocessor holds
# of it, bytes of its widest load from global memory (absent where it has none), instruction classes of the machine code.
# Written by `bench compile --snapshot kernels/resources/defaults.toml`, compared by CI with `--check`. Spills, local memory
# and classes are compared always, all else where the compiler is of this version.
";

impl Snapshot {
    /// What was found; variants that are excluded or failed have no entry.
    pub fn of(nvrtc: &str, rows: &[(&Job, &Compiled)]) -> Snapshot {
        let mut variants: BTreeMap<String, BTreeMap<String, Entry>> = BTreeMap::new();
        for (job, compiled) in rows {
            if let Compiled::Done { resources: r, load_bytes, .. } = compiled
                && job.is_default()
                && !job.arch.ptx
            {
                let occupancy = job.occupancy(r);
                let entry = Entry {
                    registers: r.registers.unwrap_or(0),
                    spill: r.spill_bytes.unwrap_or(0),
                    local: r.local_bytes.unwrap_or(0),
                    static_smem: r.static_smem_bytes.unwrap_or(0),
                    dynamic_smem: r.dynamic_smem_bytes.unwrap_or(0),
                    blocks: occupancy.map(|o| o.blocks_per_sm),
                    warps: occupancy.map(|o| o.warps),
                    load: *load_bytes,
                    instructions: r.instructions.clone(),
                };
                variants.entry(job.variant.to_string()).or_default().insert(job.arch.to_string(), entry);
            }
        }
        Snapshot { nvrtc: nvrtc.to_owned(), variants }
    }

    /// Reads a file.
    pub fn read(file: &Path) -> anyhow::Result<Snapshot> {
        let doing = || format!("reading the snapshot {}", file.display());
        toml::from_str(&std::fs::read_to_string(file).with_context(doing)?).with_context(doing)
    }

    /// Writes a file.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        // One line an architecture, so that a diff shows what changed.
        let mut out = format!("{HEAD}nvrtc = {:?}\n", self.nvrtc);
        for (variant, archs) in &self.variants {
            out.push_str(&format!("\n[variants.{variant:?}]\n"));
            for (arch, e) in archs {
                let maybe = |name: &str, n: Option<u32>| n.map(|n| format!("{name} = {n}, ")).unwrap_or_default();
                let (blocks, warps, load) = (maybe("blocks", e.blocks), maybe("warps", e.warps), maybe("load", e.load));
                out.push_str(&format!(
                    "{arch} = {{ registers = {}, spill = {}, local = {}, static_smem = {}, dynamic_smem = {}, \
                     {blocks}{warps}{load}instructions = {:?} }}\n",
                    e.registers, e.spill, e.local, e.static_smem, e.dynamic_smem, e.instructions
                ));
            }
        }
        std::fs::write(file, out).with_context(|| format!("writing {}", file.display()))
    }

    /// How `found` differs from this file, a line each. Ops and architectures that were not compiled are left out.
    pub fn differences(&self, found: &Snapshot, ops: &[String], archs: &[Arch]) -> Vec<String> {
        let same_compiler = self.nvrtc == found.nvrtc;
        let archs: Vec<String> = archs.iter().map(Arch::to_string).collect();
        let asked = |variant: &str, arch: &str| {
            let op = variant.split('/').next().unwrap_or_default();
            (ops.is_empty() || ops.iter().any(|o| o == op)) && archs.iter().any(|a| a == arch)
        };
        let update = "update it with `bench compile --snapshot` if that is meant";
        let mut out = Vec::new();
        for (variant, by_arch) in &self.variants {
            for (arch, kept) in by_arch.iter().filter(|(arch, _)| asked(variant, arch)) {
                let Some(now) = found.variants.get(variant).and_then(|v| v.get(arch)) else {
                    out.push(format!("{variant} for {arch} is in the snapshot and no more compiled; {update}"));
                    continue;
                };
                let equal = if same_compiler {
                    kept == now
                } else {
                    (kept.spill, kept.local, &kept.instructions) == (now.spill, now.local, &now.instructions)
                };
                if !equal {
                    out.push(format!("{variant} for {arch}: {}; {update}", kept.changes(now)));
                }
            }
        }
        for (variant, by_arch) in &found.variants {
            for arch in by_arch.keys().filter(|a| !self.variants.get(variant).is_some_and(|v| v.contains_key(*a))) {
                out.push(format!("{variant} for {arch} is not in the snapshot; {update}"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(nvrtc: &str, registers: u32, spill: u32) -> Snapshot {
        let instructions = vec!["idp".to_owned(), "fma".to_owned()];
        let (blocks, warps, load) = (Some(8), Some(64), Some(16));
        let entry =
            Entry { registers, spill, local: 0, static_smem: 16, dynamic_smem: 0, blocks, warps, load, instructions };
        let archs = BTreeMap::from([("sm_90".to_owned(), entry)]);
        Snapshot { nvrtc: nvrtc.to_owned(), variants: BTreeMap::from([("gemv_q4_0/x[A=1]@cuda".to_owned(), archs)]) }
    }

    #[test]
    fn a_snapshot_is_read_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        let s = snapshot("13.0", 40, 0);
        s.write(&file).unwrap();
        assert_eq!(Snapshot::read(&file).unwrap(), s);
        let mut without = s;
        let entry = without.variants.values_mut().flat_map(BTreeMap::values_mut).next().unwrap();
        (entry.blocks, entry.warps, entry.load) = (None, None, None);
        without.write(&file).unwrap();
        assert_eq!(Snapshot::read(&file).unwrap(), without);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("load ="), "what is not known is absent");
    }

    #[test]
    fn registers_are_compared_under_one_compiler_and_spills_under_any() {
        let kept = snapshot("13.0", 40, 0);
        let all = [Arch::sm(90)];
        let differences = |found: &Snapshot| kept.differences(found, &[], &all).len();
        assert_eq!(differences(&snapshot("13.0", 40, 0)), 0);
        assert_eq!(differences(&snapshot("13.0", 41, 0)), 1);
        assert_eq!(differences(&snapshot("12.8", 41, 0)), 0);
        assert_eq!(differences(&snapshot("12.8", 40, 4)), 1);
        let said = kept.differences(&snapshot("13.0", 41, 4), &[], &all);
        assert!(said[0].contains("registers were 40 and are 41, spilled bytes were 0 and are 4;"), "{said:?}");
    }

    #[test]
    fn a_variant_that_came_or_went_is_a_difference_unless_it_was_not_asked_for() {
        let kept = snapshot("13.0", 40, 0);
        let empty = Snapshot { nvrtc: "13.0".to_owned(), variants: BTreeMap::new() };
        assert_eq!(kept.differences(&empty, &[], &[Arch::sm(90)]).len(), 1);
        assert_eq!(empty.differences(&kept, &[], &[Arch::sm(90)]).len(), 1);
        assert_eq!(kept.differences(&empty, &["gemv_f16".to_owned()], &[Arch::sm(90)]).len(), 0);
        assert_eq!(kept.differences(&empty, &[], &[Arch::sm(75)]).len(), 0);
    }
}
