//! The memory of a tuner: finished trials, appended one by one and found again by key (R18, R19).

use std::collections::HashMap;

use harness_spec::record::{KERNEL_SCHEMA_VERSION, Trial};

/// A trial could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a finished trial could not be written to {place}: {cause}")]
pub struct JournalError {
    /// Where.
    pub place: String,
    /// What the system said.
    pub cause: String,
}

/// Where finished trials go, and where those of earlier runs are found.
pub trait Journal {
    /// The finished trial with this key, if there is one.
    fn find(&self, key: &str) -> Option<&Trial>;

    /// Keeps a finished trial. It must be on its way to the disk when this returns, as one whole line.
    ///
    /// # Errors
    /// Where it could not be kept: the run ends, since going on would lose more.
    fn append(&mut self, trial: Trial) -> Result<(), JournalError>;
}

/// A journal in memory: what a file implementation wraps, and what tests use.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    trials: Vec<Trial>,
    by_key: HashMap<String, usize>,
}

impl MemoryJournal {
    /// With the trials of earlier runs. Of two with one key the later counts.
    pub fn with(trials: Vec<Trial>) -> MemoryJournal {
        let by_key = trials.iter().enumerate().map(|(i, t)| (t.key.clone(), i)).collect();
        MemoryJournal { trials, by_key }
    }

    /// Everything in it, in the order it came.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }
}

impl Journal for MemoryJournal {
    fn find(&self, key: &str) -> Option<&Trial> {
        self.by_key.get(key).map(|i| &self.trials[*i])
    }

    fn append(&mut self, trial: Trial) -> Result<(), JournalError> {
        self.by_key.insert(trial.key.clone(), self.trials.len());
        self.trials.push(trial);
        Ok(())
    }
}

/// Reads the text of a `trials.jsonl`. Lines that are no trial of this format, such as one cut by a crash, are left out
/// and named, with their number, in the second answer: a bad entry is a miss, never an error.
pub fn read_lines(text: &str) -> (Vec<Trial>, Vec<String>) {
    let mut trials = Vec::new();
    let mut warnings = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str::<Trial>(line) {
            Ok(trial) if trial.schema == KERNEL_SCHEMA_VERSION => trials.push(trial),
            Ok(trial) => warnings.push(format!(
                "line {}: schema {} instead of {KERNEL_SCHEMA_VERSION}, left out",
                i + 1,
                trial.schema
            )),
            Err(e) => warnings.push(format!("line {}: no trial ({e}), left out", i + 1)),
        }
    }
    (trials, warnings)
}
