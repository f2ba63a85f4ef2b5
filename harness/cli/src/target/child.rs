//! The worker as a process: started, asked with a time limit, and ended.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::protocol::{Hello, Reply, Request, VERSION};

/// Lines of standard error that are kept for a message.
const LAST_LINES: usize = 12;

/// Why a worker gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It could not be started.
    Spawn(String),
    /// It said nothing in time. It still runs.
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// It ended.
    Ended {
        /// By which signal or with which code.
        how: String,
        /// The end of its standard error.
        last_words: String,
    },
    /// It said something that is no answer.
    Garbled(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Spawn(why) => write!(f, "cannot start this program again: {why}"),
            Lost::Silent { limit } => write!(f, "no answer within {} s", limit.as_secs_f64()),
            Lost::Ended { how, last_words } if last_words.is_empty() => write!(f, "it ended with {how}"),
            Lost::Ended { how, last_words } => write!(f, "it ended with {how}:\n{last_words}"),
            Lost::Garbled(what) => write!(f, "it said what is no answer: {what}"),
        }
    }
}

/// A running worker. Dropping it ends it.
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
    listener: Option<std::thread::JoinHandle<()>>,
}

impl Child {
    /// Starts `program worker` with these words and waits for its first line.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn start(program: &Path, arguments: &[String], limit: Duration) -> Result<(Child, Hello), Lost> {
        let mut process = Command::new(program)
            .arg("worker")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own keeps Ctrl-C at the terminal from ending a worker in the middle of a sample.
            .process_group(0)
            .spawn()
            .map_err(|e| Lost::Spawn(e.to_string()))?;
        let (input, output, error) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (send, lines) = mpsc::channel();
        if let Some(output) = output {
            std::thread::spawn(move || {
                BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|l| send.send(l.clone()).is_ok())
                    .count()
            });
        }
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        let listener = error.map(|error| {
            std::thread::spawn(move || {
                for line in BufReader::new(error).lines().map_while(Result::ok) {
                    tracing_line(&line);
                    let Ok(mut kept) = kept.lock() else { return };
                    if kept.len() == LAST_LINES {
                        kept.pop_front();
                    }
                    kept.push_back(line);
                }
            })
        });
        let mut child = Child { process, input, lines, errors, listener };
        let hello: Hello = child.receive(limit)?;
        if hello.protocol != VERSION {
            return Err(Lost::Garbled(format!("protocol {} instead of {VERSION}", hello.protocol)));
        }
        Ok((child, hello))
    }

    /// Asks, and waits no longer than `limit` for the answer.
    ///
    /// # Errors
    /// [`Lost`]; the worker is of no more use then.
    pub fn call(&mut self, request: &Request, limit: Duration) -> Result<Reply, Lost> {
        let mut line = serde_json::to_vec(request).map_err(|e| Lost::Garbled(e.to_string()))?;
        line.push(b'\n');
        let sent = self.input.as_mut().map(|input| input.write_all(&line).and_then(|()| input.flush()));
        match sent {
            Some(Ok(())) => self.receive(limit),
            // A closed pipe is how a death between two calls shows.
            Some(Err(_)) | None => Err(self.ended()),
        }
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self, limit: Duration) -> Result<T, Lost> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).map_err(|e| Lost::Garbled(format!("{e}: {line}"))),
            Err(RecvTimeoutError::Timeout) => Err(Lost::Silent { limit }),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// How it ended. Its standard output is closed, so waiting is short; if it is not dead by then it is killed.
    fn ended(&mut self) -> Lost {
        drop(self.input.take());
        let mut status = None;
        for _ in 0..200 {
            status = self.process.try_wait().ok().flatten();
            if status.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let how = match status {
            Some(s) => match (s.signal(), s.code()) {
                (Some(signal), _) => format!("signal {signal}{}", signal_name(signal)),
                (None, Some(code)) => format!("exit code {code}"),
                (None, None) => "an unknown status".to_owned(),
            },
            None => {
                let _ = self.process.kill();
                "a closed pipe".to_owned()
            }
        };
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let last_words = self.errors.lock().map(|l| l.iter().cloned().collect::<Vec<_>>().join("\n"));
        Lost::Ended { how, last_words: last_words.unwrap_or_default() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closing its input asks it to end; a kernel that never ends does not hear that.
        drop(self.input.take());
        for _ in 0..20 {
            if self.process.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL, an instruction that this processor lacks)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL, perhaps for want of memory)",
        11 => " (SIGSEGV, an illegal address)",
        _ => "",
    }
}

/// A worker's words, for whoever asked for diagnostics.
fn tracing_line(line: &str) {
    if std::env::var_os("BENCH_LOG").is_some() {
        eprintln!("worker: {line}");
    }
}
