//! SHA-256 of files, the identity of a model.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::Progress;

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sha256Hex {
    type Err = NotADigest;

    /// Reads 64 hexadecimal digits, with or without `sha256:` before them.
    fn from_str(text: &str) -> Result<Sha256Hex, NotADigest> {
        let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-")).unwrap_or(text);
        if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Sha256Hex(digits.to_ascii_lowercase()))
        } else {
            Err(NotADigest(text.to_owned()))
        }
    }
}

/// A text that is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a SHA-256 digest of 64 hexadecimal digits")]
pub struct NotADigest(pub String);

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Reads a whole file and returns its SHA-256.
///
/// # Errors
/// Any error of opening or reading the file.
pub fn sha256_file(path: &Path, progress: &mut dyn Progress) -> io::Result<Sha256Hex> {
    let mut file = File::open(path)?;
    let total = file.metadata()?.len();
    progress.begin("checking SHA-256", Some(total), 0);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        done += n as u64;
        progress.reached(done);
    }
    progress.end();
    Ok(Sha256Hex(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Silent;

    #[test]
    fn the_digest_of_a_file_is_that_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // The example of FIPS 180-4.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path, &mut Silent).unwrap().as_str(), want);
        assert_eq!(format!("sha256:{}", want.to_uppercase()).parse::<Sha256Hex>().unwrap().as_str(), want);
    }

    #[test]
    fn a_text_that_is_no_digest_is_refused() {
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(63)] {
            assert!(bad.parse::<Sha256Hex>().is_err(), "{bad:?} was accepted");
        }
    }
}
