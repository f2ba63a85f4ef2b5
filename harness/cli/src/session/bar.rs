//! The bar of a run of kernels, and its lines where stderr is no terminal.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;

use harness_measure::tune::{Event, Plan, Progress};
use harness_spec::record::{Outcome, Trial};
use indicatif::ProgressBar;

use super::trials::TrialFile;

/// Listens to a run: draws the bar, says what fails, and copies trials of the cache into the run's own file, so that its
/// folder is whole.
pub struct KernelBar {
    bar: ProgressBar,
    /// Evaluations of the workloads before this one.
    before: u64,
    /// Most evaluations of each workload.
    limits: Vec<u64>,
    name: String,
    file: Rc<RefCell<TrialFile>>,
    lines: bool,
    /// Failures that were said; the rest is counted.
    said: usize,
    /// The journal could not be written.
    pub failed: Option<String>,
}

/// Failures that are printed as they happen; the record has all.
const MOST_SAID: usize = 10;

impl KernelBar {
    /// A bar over every evaluation of the plan.
    pub fn new(plan: &Plan, file: Rc<RefCell<TrialFile>>) -> KernelBar {
        let limits: Vec<u64> = plan.limits().into_iter().map(|l| l as u64).collect();
        let bar = crate::progress::steps("", limits.iter().sum());
        let lines = !std::io::stderr().is_terminal();
        KernelBar { bar, before: 0, limits, name: String::new(), file, lines, said: 0, failed: None }
    }

    fn say(&mut self, text: &str) {
        if self.lines {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    fn failure(&mut self, trial: &Trial) {
        let Outcome::Failed { stage, message } = &trial.outcome else { return };
        self.said += 1;
        match self.said.cmp(&MOST_SAID) {
            std::cmp::Ordering::Less => {
                // A compiler's log names file and line in its first lines.
                let head: Vec<&str> = message.lines().take(6).collect();
                let text = format!(
                    "{} on {} failed at {stage}: {}",
                    trial.cell.variant,
                    trial.cell.workload,
                    head.join("\n  ")
                );
                self.say(&text);
            }
            std::cmp::Ordering::Equal => self.say("further failures are in run.json and trials.jsonl"),
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for KernelBar {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Canary(_) => {}
            Event::Workload { index, of, name, .. } => {
                self.before = self.limits.iter().take(*index).sum();
                self.name = format!("{}/{of} {name}", index + 1);
                self.bar.set_position(self.before);
                self.bar.set_message(self.name.clone());
            }
            Event::Trial { trial, from_cache, done, best_ns } => {
                if *from_cache && let Err(e) = self.file.borrow_mut().keep(trial) {
                    self.failed = Some(e.to_string());
                }
                self.bar.set_position(self.before + *done as u64);
                if let Some(best) = best_ns {
                    self.bar.set_message(format!("{} best {:.1} µs", self.name, best / 1e3));
                }
                if !from_cache {
                    self.failure(trial);
                }
            }
            Event::RunOff { finalists } => self.bar.set_message(format!("{} run-off of {finalists}", self.name)),
            Event::Finished { result, .. } => {
                if self.lines && result.winner.is_some() {
                    let winner = result.winner.as_ref().map_or_else(String::new, |w| w.short());
                    let text = format!("{} {}: {winner}: {}", result.workload, result.policy, result.reason);
                    self.say(&text);
                }
            }
        }
    }
}
