//! `trials.jsonl`, the journal of a run, and the cache of trials that earlier runs on this device have left (R18, R19).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use harness_measure::tune::{Journal, JournalError, MemoryJournal, read_lines};
use harness_spec::record::{Outcome, Provenance, Trial};
use harness_spec::{DeviceKey, Policy, Stage, Workload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file's name in a run's folder.
pub const FILE: &str = "trials.jsonl";

/// The open journal of a run. One write call a line: a killed run loses at most the last, and leaves no mixture.
#[derive(Debug)]
pub struct TrialFile {
    path: PathBuf,
    file: File,
    /// The place of each key in `trials`.
    places: HashMap<String, usize>,
    /// Keys in the order of the file, with the trials, for the report.
    trials: Vec<Trial>,
}

impl TrialFile {
    /// Starts the journal of a run.
    ///
    /// # Errors
    /// The folder is not writable, or holds a run already.
    pub fn create(folder: &Path) -> anyhow::Result<TrialFile> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().append(true).create_new(true).open(&path).with_context(|| {
            format!("creating {}\nhint: go on with that run by --resume, or choose another folder", path.display())
        })?;
        Ok(TrialFile { path, file, places: HashMap::new(), trials: Vec::new() })
    }

    /// Opens the journal of a run that was stopped or killed, with its trials and what is wrong with lines of it.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn resume(folder: &Path) -> anyhow::Result<(TrialFile, Vec<String>)> {
        let path = folder.join(FILE);
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let mut file = opened.with_context(|| {
            format!("{} is no run that can go on\nhint: give the folder of a tune", folder.display())
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("reading {}", path.display()))?;
        // A line that a kill cut short is ended here, so that the next one is whole.
        if bytes.last().is_some_and(|b| *b != b'\n') {
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"\n"))?;
        }
        let (read, warnings) = read_lines(&String::from_utf8_lossy(&bytes));
        let warnings = warnings.into_iter().map(|w| format!("{}: {w}", path.display())).collect();
        let (mut places, mut trials) = (HashMap::new(), Vec::new());
        read.into_iter().for_each(|t| place(&mut places, &mut trials, t));
        Ok((TrialFile { path, file, places, trials }, warnings))
    }

    /// What is in it.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Appends a trial, unless it is there. One that was measured again counts in the place of the first.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep(&mut self, trial: &Trial) -> Result<(), JournalError> {
        let at = self.places.get(&trial.key).copied();
        if at.is_some_and(|i| says_the_same(&self.trials[i], trial)) {
            return Ok(());
        }
        append(&mut self.file, trial).map_err(|e| failed(&self.path, &e))?;
        place(&mut self.places, &mut self.trials, trial.clone());
        Ok(())
    }
}

/// Whether two trials of one key hold the same answer.
fn says_the_same(a: &Trial, b: &Trial) -> bool {
    a.samples == b.samples && a.outcome == b.outcome
}

/// Puts a trial into its place: that of an earlier one with its key, or the last.
fn place(places: &mut HashMap<String, usize>, trials: &mut Vec<Trial>, trial: Trial) {
    match places.get(&trial.key) {
        Some(&i) => trials[i] = trial,
        None => {
            places.insert(trial.key.clone(), trials.len());
            trials.push(trial);
        }
    }
}

fn append(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    file.write_all(&line)
}

fn failed(path: &Path, e: &std::io::Error) -> JournalError {
    let hint = match e.kind() {
        std::io::ErrorKind::StorageFull => {
            "\nhint: free some space; a sweep or tune goes on with --resume and this run's folder"
        }
        _ => "",
    };
    JournalError { place: path.display().to_string(), cause: format!("{e}{hint}") }
}

/// Trials of earlier runs on this device, one file for each workload and policy. A line is a trial with the run that
/// measured it.
#[derive(Debug)]
pub struct TrialCache {
    folder: PathBuf,
}

/// A line of the cache.
#[derive(Serialize)]
struct Kept<'a> {
    run: &'a str,
    #[serde(flatten)]
    trial: &'a Trial,
}

/// What is read of a line to know whose it is.
#[derive(Deserialize)]
struct Whose {
    run: Option<String>,
}

/// The file with the seed of the searches whose trials are kept.
const SEED_FILE: &str = "seed";

impl TrialCache {
    /// The cache of a device. Scripted devices have their own.
    pub fn of(cache: &Path, device: &DeviceKey, provenance: Provenance) -> TrialCache {
        let kind = if provenance == Provenance::Simulated { "simulated-" } else { "" };
        TrialCache { folder: cache.join("trials").join(format!("{kind}{}-{}", device.backend, device.slug())) }
    }

    fn file(&self, workload: &Workload, policy: Policy) -> PathBuf {
        let hash = Sha256::digest(format!("{workload} {policy}"));
        let hash: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
        self.folder.join(format!("{}-{hash}.jsonl", workload.op))
    }

    /// The trials of a workload, with what is wrong with lines of the file. A bad entry is a miss, never an error.
    pub fn load(&self, workload: &Workload, policy: Policy) -> (Vec<Trial>, Vec<String>) {
        let path = self.file(workload, policy);
        let Ok(bytes) = std::fs::read(&path) else { return (Vec::new(), Vec::new()) };
        let (trials, warnings) = read_lines(&String::from_utf8_lossy(&bytes));
        // Whether a key fits is the tuner's to say; that a file was moved here from elsewhere shows in its cells.
        let trials: Vec<Trial> =
            trials.into_iter().filter(|t| t.cell.workload == *workload && t.cell.policy == policy).collect();
        (trials, warnings.into_iter().map(|w| format!("cache {}: {w}", path.display())).collect())
    }

    /// The seed by which tunes on this device search unless another is given: drawn once, since with another a search that is
    /// repeated would find few of its answers. `keep` says whether one that is drawn now is written.
    pub fn seed(&self, keep: bool) -> u64 {
        let path = self.folder.join(SEED_FILE);
        let known = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        known.unwrap_or_else(|| {
            let drawn = rand::random();
            if keep && std::fs::create_dir_all(&self.folder).is_ok() {
                // Where it cannot be kept the next run draws anew and measures again, as without any cache.
                let _ = std::fs::write(&path, format!("{drawn}\n"));
            }
            drawn
        })
    }

    /// Keeps a trial of a run for later ones, where it will be true then: a failure to build has no key that the mended source
    /// would change, and a fault or a hang may have been the machine's.
    ///
    /// # Errors
    /// The disk refuses.
    fn keep(&self, run: &str, trial: &Trial) -> std::io::Result<()> {
        let lasting = match &trial.outcome {
            Outcome::Measured => true,
            Outcome::Failed { stage, .. } => matches!(stage, Stage::Check | Stage::Cheat),
            Outcome::Verified
            | Outcome::Skipped { .. }
            | Outcome::Implausible { .. }
            | Outcome::Unstable { .. }
            | Outcome::NotReached => false,
        };
        if !lasting {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        let path = self.file(&trial.cell.workload, trial.cell.policy);
        append(&mut OpenOptions::new().append(true).create(true).open(path)?, &Kept { run, trial })
    }

    /// Takes out again what a run has put in, in each of its parts, where it has trials of these: a later run measures them
    /// anew. How many there were.
    ///
    /// # Errors
    /// The disk refuses.
    fn forget(&self, run: &str, trials: &[Trial]) -> std::io::Result<usize> {
        let files: BTreeSet<PathBuf> = trials.iter().map(|t| self.file(&t.cell.workload, t.cell.policy)).collect();
        let mut forgotten = 0;
        for path in files {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let of_run =
                |line: &&str| serde_json::from_str::<Whose>(line).is_ok_and(|whose| whose.run.as_deref() == Some(run));
            let (out, stays): (Vec<&str>, Vec<&str>) = text.lines().partition(of_run);
            if out.is_empty() {
                continue;
            }
            forgotten += out.len();
            let left: String = stays.into_iter().flat_map(|line| [line, "\n"]).collect();
            // Another run that reads meanwhile sees the old file or the new one.
            let new = path.with_extension("jsonl.new");
            std::fs::write(&new, left).and_then(|()| std::fs::rename(&new, &path))?;
        }
        Ok(forgotten)
    }
}

/// The journal that the tuner sees: this run's file, the cache behind it.
#[derive(Debug)]
pub struct RunJournal {
    known: MemoryJournal,
    file: Rc<RefCell<TrialFile>>,
    cache: Option<TrialCache>,
    /// Id of the run.
    run: String,
    /// Said once: a cache that cannot be written costs time later and nothing now.
    cache_failed: Option<String>,
}

impl RunJournal {
    /// With the trials of the cache, which those of the run's own file outrank.
    pub fn new(file: Rc<RefCell<TrialFile>>, cached: Vec<Trial>, cache: Option<TrialCache>, run: &str) -> RunJournal {
        let mut trials = cached;
        trials.extend(file.borrow().trials().iter().cloned());
        RunJournal { known: MemoryJournal::with(trials), file, cache, run: run.to_owned(), cache_failed: None }
    }

    /// Takes what this run has put into the cache out again, since its times are not to be believed; what a reader must know
    /// of it, if there was anything. That a first part ended well says nothing: when the device changed is not known. The
    /// run's own file stays whole.
    pub fn forget(&mut self) -> Option<String> {
        let cache = self.cache.as_ref()?;
        Some(match cache.forget(&self.run, self.file.borrow().trials()) {
            Ok(0) => return None,
            Ok(_) => "no later run recalls the times of this one, which is suspect".to_owned(),
            Err(e) => format!(
                "the times of this run, which is suspect, could not be taken out of the cache: {e}; tune with --no-cache"
            ),
        })
    }

    /// Why the cache could not be written, if it could not.
    pub fn cache_failed(&self) -> Option<&str> {
        self.cache_failed.as_deref()
    }
}

impl Journal for RunJournal {
    fn find(&self, key: &str) -> Option<&Trial> {
        self.known.find(key)
    }

    fn append(&mut self, trial: Trial) -> Result<(), JournalError> {
        // What is known in these very words, such as a run-off that was recalled, does not go into the cache once more.
        let fresh = !self.known.find(&trial.key).is_some_and(|known| says_the_same(known, &trial));
        self.file.borrow_mut().keep(&trial)?;
        if let (true, Some(cache), None) = (fresh, &self.cache, &self.cache_failed)
            && let Err(e) = cache.keep(&self.run, &trial)
        {
            self.cache_failed =
                Some(format!("the cache of trials cannot be written, the next run will measure again: {e}"));
        }
        self.known.append(trial)
    }
}
