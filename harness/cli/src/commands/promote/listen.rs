//! The engine with both tables, in a process of its own, and what it says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::decide::Heard;
use super::{Contest, rows};
use crate::commands::in_engine;
use crate::exit::Failure;
use crate::interrupt;
use crate::tables::RowChange;

/// Pairs of requests on a GPU, where a request takes milliseconds, and on a CPU; fixed beforehand, as many of them in each
/// loading.
const PAIRS: [u64; 2] = [128, 64];
/// Tokens of each prompt, in the same order.
const PROMPT: [u64; 2] = [512, 128];
/// Pairs at each further length.
const PAIRS_DEEPER: u64 = 64;
/// Tokens of each answer.
const LENGTH: usize = 48;
/// Pairs of a block.
const BLOCK: u64 = 4;

/// Longest time in which nothing is heard: two models are loaded first, from a slow disk perhaps.
const SILENCE: Duration = Duration::from_secs(600);
/// Lines of the engine's standard error that are kept for a message.
const LAST_LINES: usize = 12;

/// Starts the engine with both tables and listens to its end.
///
/// # Errors
/// It cannot be measured.
pub fn race(c: &Contest<'_>, changed: &[RowChange], old: &str, new: &Path, folder: &Path) -> Result<Heard, Failure> {
    let model = in_engine::file(c.model)?;
    let stop = interrupt::flag().context("watching for Ctrl-C")?;
    let at = usize::from(!c.place.is_gpu());
    let mut lengths = vec![(PROMPT[at], PAIRS[at])];
    if c.place.is_gpu() {
        lengths.extend(rows::deeper(changed).into_iter().map(|prompt| (prompt, PAIRS_DEEPER)));
    }
    let joined = |of: fn(&(u64, u64)) -> u64| {
        let words: Vec<String> = lengths.iter().map(|length| of(length).to_string()).collect();
        words.join(",")
    };
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = Command::new(program);
    command.arg("race-tables").arg("--model").arg(&model).args(["--device", &c.place.to_string(), "--old", old]);
    command.arg("--new").arg(new).args(["--prompt", &joined(|l| l.0), "--pairs", &joined(|l| l.1)]);
    command.args(["--tokens", &LENGTH.to_string(), "--block", &BLOCK.to_string(), "--seed", &c.seed.to_string()]);
    if let Some(threads) = c.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if c.same_too {
        command.arg("--same-too");
    }
    // A group of its own keeps Ctrl-C at the terminal from ending it before its lines are written down.
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the engine")?;
    let errors = child.stderr.take().map(|e| std::thread::spawn(move || last_lines(BufReader::new(e))));
    let (send, lines) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).take_while(|l| send.send(l.clone()).is_ok()).count()
        });
    }
    eprintln!("promotion: {} with the old and the new table, in turns on {}", c.model, c.place);
    let mut raw =
        File::create(folder.join("requests.jsonl")).with_context(|| format!("writing to {}", folder.display()))?;
    let bar = crate::progress::steps("promotion", 0);
    let mut heard = Heard::default();
    let mut last = Instant::now();
    let ended = loop {
        if stop.load(Ordering::Relaxed) {
            break Err(anyhow!("interrupted; the old table stays"));
        }
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                last = Instant::now();
                if let Err(e) = writeln!(raw, "{line}").context("writing what the engine said") {
                    break Err(e);
                }
                if let Err(e) = heard.take(&line) {
                    break Err(e);
                }
                let [done, all] = heard.progress(c.same_too);
                bar.set_length(all);
                bar.set_position(done);
            }
            Err(RecvTimeoutError::Timeout) if last.elapsed() < SILENCE => {}
            Err(RecvTimeoutError::Timeout) => {
                break Err(anyhow!("the engine said nothing for {} s", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
        }
    };
    bar.finish_and_clear();
    if ended.is_err() {
        // It may be in a kernel that never ends.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for the engine")?;
    let words = errors.and_then(|e| e.join().ok()).unwrap_or_default();
    ended.context("trying the tables in the engine; the old table stays")?;
    all_of(heard, c.same_too, status, &words)
}

/// What was heard, if the engine has said all: one that ended early, with whatever status, says nothing of the tables.
fn all_of(heard: Heard, same_too: bool, status: ExitStatus, words: &str) -> Result<Heard, Failure> {
    let when = match (heard.missing(same_too), status.success()) {
        (None, true) => return Ok(heard),
        (None, false) => "while the tables were tried".to_owned(),
        (Some(missing), _) => missing,
    };
    Err(anyhow!("the engine ended with {status} {when}\n{words}\nhint: the old table stays").into())
}

fn last_lines(errors: impl BufRead) -> String {
    let mut kept = VecDeque::new();
    for line in errors.lines().map_while(Result::ok) {
        if kept.len() == LAST_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::commands::race_tables::line::Length;

    #[test]
    fn an_engine_that_ends_without_a_word_is_an_error_and_never_two_tables_that_are_the_same() {
        let same = Length { prompt: 512, pairs: 60, same_prefill: true, same_decode: true };
        let loaded = Heard { lengths: vec![same], ..Heard::default() };
        let [success, killed] = [0, 9].map(ExitStatus::from_raw);
        let said =
            |heard: &Heard, status| format!("{:?}", all_of(heard.clone(), false, status, "its last words").err());
        for status in [success, killed] {
            let said = said(&Heard::default(), status);
            let parts =
                [&status.to_string(), "before both tables were loaded", "its last words", "the old table stays"];
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
        assert!(said(&loaded, killed).contains("while the tables were tried"));
        assert!(all_of(loaded, false, success, "").is_ok_and(|heard| heard.is_same()));
    }
}
