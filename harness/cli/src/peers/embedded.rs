//! Our own engine as a server of its own process: this program again, with a hidden verb.
//!
//! A process of its own has its own memory and threads, so they can be measured, and it pays the same transport as any
//! peer. It ends with its parent, however that ends: it watches its standard input, which closes when the parent is gone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use engine::generate::{DeviceChoice, KvType};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longest time from start to the first request, for a model on a slow disk.
const START: Duration = Duration::from_secs(120);

/// The line that the child prints once it can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens.
    pub listening: String,
}

/// Which kernels an engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those of the table of this device.
    Device,
    /// The plain one of every op.
    Plain,
}

/// What to serve.
#[derive(Clone, Debug)]
pub struct EngineSpec<'a> {
    /// GGUF file.
    pub model: &'a Path,
    /// Name in requests.
    pub name: &'a str,
    /// What it computes on.
    pub device: DeviceChoice,
    /// Threads.
    pub threads: u32,
    /// Context length.
    pub context: u32,
    /// The type that it keeps keys and values in.
    pub kv: KvType,
    /// Which kernels it runs.
    pub kernels: Kernels,
    /// File for what it writes to stderr.
    pub log: PathBuf,
}

/// The running child.
#[derive(Debug)]
pub struct EngineChild {
    child: Child,
    /// Where it listens.
    pub url: Url,
    /// Its process.
    pub pid: u32,
    /// From start to the first possible request.
    pub start_time: Duration,
}

impl EngineChild {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// What kept it from starting, with the end of its log.
    pub async fn start(spec: &EngineSpec<'_>) -> anyhow::Result<EngineChild> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let log = std::fs::File::create(&spec.log).with_context(|| format!("creating {}", spec.log.display()))?;
        let mut command = Command::new(program);
        command
            .arg("serve-engine")
            .arg("--model")
            .arg(spec.model)
            .args(["--name", spec.name])
            .args(["--device", &spec.device.to_string()])
            .args(["--kv", spec.kv.name()])
            .args(["--threads", &spec.threads.to_string()])
            .args(["--ctx", &spec.context.to_string()]);
        if spec.kernels == Kernels::Plain {
            command.arg("--baseline");
        }
        // A group of its own keeps Ctrl-C at the terminal from ending the server in the middle of a request.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .kill_on_drop(true);
        let begun = Instant::now();
        let mut child = command.spawn().context("starting the engine's server")?;
        let pid = child.id().ok_or_else(|| anyhow!("the engine's server ended at once"))?;
        let out = child.stdout.take().ok_or_else(|| anyhow!("the engine's server has no standard output"))?;
        let mut line = String::new();
        let read = tokio::time::timeout(START, BufReader::new(out).read_line(&mut line)).await;
        let ready: Option<Ready> = match read {
            Ok(Ok(n)) if n > 0 => serde_json::from_str(&line).ok(),
            _ => None,
        };
        let Some(ready) = ready else {
            // Dropping the child ends it; what it had to say is in its log.
            drop(child);
            return Err(anyhow!("the engine's server did not start: {}", tail(&spec.log)));
        };
        let url = Url::parse(&format!("http://{}", ready.listening)).context("reading the engine's address")?;
        Ok(EngineChild { child, url, pid, start_time: begun.elapsed() })
    }

    /// Ends the server and waits for it.
    pub async fn stop(mut self) {
        // Closing its standard input asks it to end; what does not is killed.
        drop(self.child.stdin.take());
        if tokio::time::timeout(Duration::from_secs(3), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The last lines of a log, for a message.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => format!("it said nothing in {}", log.display()),
        all => all[all.len().saturating_sub(5)..].join("\n"),
    }
}
