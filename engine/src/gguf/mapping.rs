//! A file's bytes, mapped. The one file of the engine with `unsafe`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// The bytes of a model file: mapped from disk, or owned where a caller made them in memory.
#[derive(Debug)]
pub struct Mapping(Source);

#[derive(Debug)]
enum Source {
    File(Mmap),
    Memory(Vec<u8>),
}

impl Mapping {
    /// Maps a file for reading.
    ///
    /// # Errors
    /// What the system says: no such file, no permission, not a regular file.
    pub fn open(path: &Path) -> std::io::Result<Mapping> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
        }
        // SAFETY: the mapping is private and read-only, so nothing here can write through it. The bytes may still
        // change if another process rewrites the file in place. Model stores replace files by rename, which leaves
        // this mapping on the old inode; a writer who truncates the file in place ends this process by SIGBUS, as
        // it does every program that maps models. All reads are of plain bytes, for which any value is valid, and
        // every index taken from the file was checked against the length at opening, which does not change.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapping(Source::File(map)))
    }

    /// Bytes made in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Mapping {
        Mapping(Source::Memory(bytes))
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::File(map) => map,
            Source::Memory(bytes) => bytes,
        }
    }

    /// Tells the system that a range will be read soon, so that it reads ahead. Failure changes speed only.
    pub fn will_need(&self, range: Range<usize>) {
        if let Source::File(map) = &self.0
            && range.end <= map.len()
            && !range.is_empty()
        {
            let _ = map.advise_range(Advice::WillNeed, range.start, range.len());
        }
    }

    /// Drops the whole pages inside a range from this process's memory. They are read from the file again when
    /// next used, so this changes memory and speed, never values. Pages that the range only touches are kept.
    pub fn drop_pages(&self, range: Range<usize>) {
        let Source::File(map) = &self.0 else { return };
        if range.end > map.len() {
            return;
        }
        // 64 KiB is a multiple of every page size in use; a smaller system page only means that a little is kept.
        const PAGE: usize = 64 << 10;
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end - range.end % PAGE;
        if start >= end {
            return;
        }
        // SAFETY: DONTNEED is unsound on memory whose content would be lost. This mapping is file-backed and never
        // written, so a dropped page comes back with the same bytes; the range lies inside the mapping.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
