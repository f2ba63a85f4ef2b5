//! Cubins on disk, by content key (MEASURING.md §10).
//!
//! An entry is one file: a line that names the format, a line of JSON, the code. It is written beside its place and then
//! renamed, so that a reader sees all of it or nothing. Whatever is wrong with an entry makes it a miss with a warning.

use std::io::Write;
use std::path::{Path, PathBuf};

use harness_spec::target::Resources;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const FORMAT: &str = "edgellm cubin 1\n";

/// A folder of entries.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// What an entry holds beside the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The key, which is the name of the file too.
    pub key: String,
    /// The entry function.
    pub entry: String,
    /// What it was compiled for.
    pub arch: String,
    /// The compiler's version.
    pub nvrtc: String,
    /// What the compiler said of it.
    pub resources: Resources,
    /// SHA-256 of the code.
    pub sha256: String,
}

/// An answer of the cache.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// An entry, whole and of this key.
    Hit(Header, Vec<u8>),
    /// No entry.
    Miss,
    /// An entry that is of no use; a miss, and why.
    Bad(String),
}

impl Cache {
    /// The cache of this user: `$EDGELLM_CACHE/cubin`, else `~/.cache/edgellm/cubin`; `None` without a home folder.
    pub fn of_this_user() -> Option<Cache> {
        let root = match std::env::var_os("EDGELLM_CACHE").filter(|v| !v.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => directories::BaseDirs::new()?.cache_dir().join("edgellm"),
        };
        Some(Cache { folder: root.join("cubin") })
    }

    /// A cache in a folder, which is made when the first entry is stored.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }

    /// Looks an entry up.
    pub fn get(&self, key: &str) -> Lookup {
        let path = self.file(key);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Lookup::Miss,
            Err(e) => return Lookup::Bad(format!("{} cannot be read ({e}); it is compiled again", path.display())),
        };
        match parse(&bytes, key) {
            Ok((header, code)) => Lookup::Hit(header, code),
            Err(why) => Lookup::Bad(format!("{} {why}; it is compiled again", path.display())),
        }
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// Where the folder cannot be written; the caller goes on without a cache.
    pub fn put(&self, header: &Header, code: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(FORMAT.as_bytes())?;
        serde_json::to_writer(&mut file, header)?;
        file.write_all(b"\n")?;
        file.write_all(code)?;
        file.persist(self.file(&header.key)).map_err(|e| e.error)?;
        Ok(())
    }
}

/// SHA-256 as text.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn parse(bytes: &[u8], key: &str) -> Result<(Header, Vec<u8>), &'static str> {
    let rest = bytes.strip_prefix(FORMAT.as_bytes()).ok_or("is no compiled kernel of this program's format")?;
    let end = rest.iter().position(|&b| b == b'\n').ok_or("is cut short")?;
    let header: Header = serde_json::from_slice(&rest[..end]).map_err(|_| "has a header that cannot be read")?;
    let code = &rest[end + 1..];
    if header.key != key {
        return Err("holds another kernel than its name says");
    }
    if header.sha256 != digest(code) {
        return Err("is cut short or damaged");
    }
    Ok((header, code.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> (Header, Vec<u8>) {
        let code = b"machine code\nof any bytes\0\xff".to_vec();
        let header = Header {
            key: key.to_owned(),
            entry: "k".to_owned(),
            arch: "sm_90".to_owned(),
            nvrtc: "13.0".to_owned(),
            resources: Resources { registers: Some(40), ..Default::default() },
            sha256: digest(&code),
        };
        (header, code)
    }

    #[test]
    fn an_entry_is_read_back_and_another_key_misses() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("new/folder"));
        let (header, code) = entry("aa");
        assert_eq!(cache.get("aa"), Lookup::Miss);
        cache.put(&header, &code).unwrap();
        assert_eq!(cache.get("aa"), Lookup::Hit(header, code));
        assert_eq!(cache.get("ab"), Lookup::Miss);
        assert_eq!(std::fs::read_dir(cache.folder()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_cut_a_damaged_a_foreign_and_a_renamed_entry_are_misses_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let (header, code) = entry("aa");
        cache.put(&header, &code).unwrap();
        let path = dir.path().join("aa.cubin");
        let whole = std::fs::read(&path).unwrap();
        let bad = |bytes: &[u8], cache: &Cache| {
            std::fs::write(&path, bytes).unwrap();
            matches!(cache.get("aa"), Lookup::Bad(why) if why.contains("aa.cubin") && why.contains("compiled again"))
        };
        for cut in 0..whole.len() {
            assert!(bad(&whole[..cut], &cache), "cut at {cut}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(bad(&flipped, &cache));
        assert!(bad(b"\x7fELF a plain cubin of somebody else", &cache));
        std::fs::write(dir.path().join("bb.cubin"), &whole).unwrap();
        assert!(matches!(cache.get("bb"), Lookup::Bad(why) if why.contains("another kernel")));
    }
}
