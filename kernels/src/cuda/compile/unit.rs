//! What is compiled, and the key of all that decides the machine code.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::arch::Arch;
use super::sources::SourceFile;

/// A kernel with every definition set: what one call of the compiler gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The source and its headers.
    pub source: SourceFile,
    /// The `extern "C"` function.
    pub entry: String,
    /// `-D` definitions: the tunables and the constants of the space.
    pub defines: BTreeMap<String, String>,
}

impl Unit {
    /// The options of the compiler. No fast-math: approximations are written where they are wanted. `-lineinfo` costs
    /// nothing at run time and lets a fault be traced to its line.
    pub fn options(&self, arch: Arch) -> Vec<String> {
        let mut out = vec![
            format!("-arch={arch}"),
            "-std=c++17".to_owned(),
            "-lineinfo".to_owned(),
            "--ptxas-options=-v".to_owned(),
        ];
        out.extend(self.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        out
    }

    /// Hash of everything that decides the machine code: source, headers, entry, options with every tunable,
    /// architecture, compiler version.
    pub fn key(&self, arch: Arch, nvrtc: &str) -> String {
        let mut hash = Sha256::new();
        // Each part goes in with its length, so that no two lists of parts read alike.
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        add("edgellm cubin key 2");
        // What is kept beside the machine code is what these read from it.
        add(include_str!("log.rs"));
        add(include_str!("sass.rs"));
        add(nvrtc);
        add(&arch.to_string());
        add(&self.source.name);
        add(&self.source.text);
        add(&self.source.headers.len().to_string());
        for (name, text) in &self.source.headers {
            add(name);
            add(text);
        }
        add(&self.entry);
        self.options(arch).iter().for_each(|o| add(o));
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit {
            source: SourceFile {
                name: "k.cu".to_owned(),
                text: "source".to_owned(),
                headers: vec![("a.cuh".to_owned(), "header".to_owned())],
            },
            entry: "k".to_owned(),
            defines: BTreeMap::from([("ROWS".to_owned(), "4".to_owned())]),
        }
    }

    #[test]
    fn a_change_of_any_part_is_another_key() {
        let base = unit();
        let key = |u: &Unit| u.key(Arch::sm(90), "13.0");
        let with = |change: &dyn Fn(&mut Unit)| {
            let mut u = unit();
            change(&mut u);
            key(&u)
        };
        let changed = [
            with(&|u| u.source.text.push(' ')),
            with(&|u| u.source.name.push('x')),
            with(&|u| u.source.headers[0].1.push(' ')),
            with(&|u| u.source.headers[0].0.push('x')),
            with(&|u| u.source.headers.clear()),
            with(&|u| u.entry.push('2')),
            with(&|u| drop(u.defines.insert("ROWS".to_owned(), "8".to_owned()))),
            with(&|u| drop(u.defines.insert("VEC".to_owned(), "4".to_owned()))),
            with(&|u| u.defines.clear()),
            base.key(Arch::sm(89), "13.0"),
            base.key(Arch::compute(90), "13.0"),
            base.key(Arch::sm(90), "12.8"),
        ];
        let mut all: Vec<String> = changed.to_vec();
        all.push(key(&base));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), changed.len() + 1);
        assert_eq!(key(&base), key(&unit()), "the same unit has the same key");
    }

    #[test]
    fn text_that_moves_from_one_part_to_the_next_is_another_key() {
        let mut a = unit();
        a.source.headers = vec![("ab".to_owned(), "c".to_owned())];
        let mut b = unit();
        b.source.headers = vec![("a".to_owned(), "bc".to_owned())];
        assert_ne!(a.key(Arch::sm(75), "13.0"), b.key(Arch::sm(75), "13.0"));
    }
}
