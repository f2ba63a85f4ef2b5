//! `samples.jsonl`: one line a sample, on disk before the next request starts.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use harness_spec::record::Sample;

/// The file's name in a run's folder.
pub const FILE: &str = "samples.jsonl";

/// The open file.
#[derive(Debug)]
pub struct SampleLog {
    path: PathBuf,
    file: File,
}

impl SampleLog {
    /// Starts the file in a run's folder, which must not have one: a record is never written over.
    ///
    /// # Errors
    /// The folder is not writable, or holds a run already.
    pub fn create(folder: &Path) -> anyhow::Result<SampleLog> {
        let path = folder.join(FILE);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).with_context(|| {
                format!("creating {} (a folder that holds a run is not written over)", path.display())
            })?;
        Ok(SampleLog { path, file })
    }

    /// Appends a line. One write call a line: a killed run loses at most the last, and leaves no mixture.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&mut self, sample: &Sample) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(sample).context("writing a sample as JSON")?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| format!("appending to {}", self.path.display()))
    }

    /// Puts the final verdict on each sample, why it is left out, into the file. A run is only known to be without its
    /// partner after both were made. The new file replaces the old one in one step, so that none is ever half written.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self, samples: &[Sample]) -> anyhow::Result<()> {
        let next = self.path.with_extension("jsonl.part");
        let mut bytes = Vec::new();
        for sample in samples {
            serde_json::to_writer(&mut bytes, sample).context("writing a sample as JSON")?;
            bytes.push(b'\n');
        }
        std::fs::write(&next, bytes).with_context(|| format!("writing {}", next.display()))?;
        std::fs::rename(&next, &self.path).with_context(|| format!("replacing {}", self.path.display()))
    }
}
