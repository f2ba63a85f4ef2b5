//! What the tests of kernels share: the program on a scripted device, with folders of its own.

#![allow(dead_code)] // Each test file uses its part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness_spec::record::{KernelRun, Trial};
use tempfile::TempDir;

/// A workload that the scripted kernels take.
pub const WORKLOAD: &str = "gemv_q4_0 N=4096 K=4096";

/// One whose own kernels have 150 configurations in place of 3,600: for tests that run all of them, or run often.
pub const SMALL: &str = "gemv_f32 N=4096 K=4096";

/// Folders of one test: home, cache, kernels and results.
pub struct Lab {
    dir: TempDir,
    workload: &'static str,
}

impl Lab {
    /// With a scripted device and a folder of one kernel with 160 configurations.
    pub fn new() -> Lab {
        Lab::of(WORKLOAD)
    }

    /// The same, with kernels for this workload.
    pub fn of(workload: &'static str) -> Lab {
        let lab = Lab { dir: TempDir::new().unwrap(), workload };
        lab.script("");
        lab.kernel("mine", "");
        lab
    }

    /// A file or folder of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the script of the device; `rules` come after its head.
    pub fn script(&self, rules: &str) {
        let head = "seed = 3\n[device]\nname = \"Fake GPU\"\narch = \"sm_90\"\n";
        std::fs::write(self.path("fake.toml"), format!("{head}{rules}")).unwrap();
    }

    /// Writes a kernel of 160 configurations; `more` are further lines of its entry.
    pub fn kernel(&self, name: &str, more: &str) {
        let folder = self.path("kernels");
        std::fs::create_dir_all(&folder).unwrap();
        let (op, _) = self.workload.split_once(' ').unwrap();
        let dtype = op.trim_start_matches("gemv_").to_uppercase();
        let text = format!(
            r#"op = "{op}"
doc = "A user's kernel."
[[kernels]]
name = "{name}"
backend = "cuda"
dtypes = ["{dtype}"]
layout = "gguf"
activations = "f32"
instruction = "fma"
doc = "A user's kernel."
source = "{name}.cu"
entry = "{name}"
{more}
[kernels.tunables]
ROWS = [1, 2, 4, 8, 16]
VEC = [1, 2, 4, 8]
UNROLL = [1, 2, 4, 8]
STAGES = [1, 2]
[kernels.default]
ROWS = 4
VEC = 4
UNROLL = 2
STAGES = 1
[kernels.launch]
grid = "ceil_div(N, ROWS)"
block = "ROWS * 32"
"#
        );
        std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        let source = format!("extern \"C\" __global__ void {name}() {{ int a = ROWS + VEC + UNROLL + STAGES; }}\n");
        std::fs::write(folder.join(format!("{name}.cu")), source).unwrap();
    }

    /// The program with the folders of this test and no user's settings.
    pub fn bench(&self) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_bench"));
        c.env("EDGELLM_HOME", self.path("home")).env("EDGELLM_CACHE", self.path("cache")).env_remove("BENCH_LOG");
        c.current_dir(self.dir.path());
        c
    }

    /// A verb on the scripted device with the scripted kernels.
    pub fn simulated(&self, verb: &str) -> Command {
        let mut c = self.bench();
        c.args([verb, "--simulate", "fake.toml", "--kernels", "kernels"]);
        c
    }

    /// A tune of its workload, into a folder and a table of these names.
    pub fn tune(&self, out: &str, table: &str) -> Command {
        let mut c = self.simulated("tune");
        // A small share keeps the searches of the whole registry short.
        c.args(["--workload", self.workload, "--share", "0.02", "--seed", "1", "--out", out, "--table", table]);
        c
    }
}

/// The record in a folder.
pub fn record(folder: &Path) -> KernelRun {
    serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap()
}

/// The trials in a folder; each line must be whole.
pub fn trials(folder: &Path) -> Vec<Trial> {
    let text = std::fs::read_to_string(folder.join("trials.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What a program said on stderr.
pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Asserts that the program ended with 0.
pub fn done(out: &Output) {
    assert_eq!(out.status.code(), Some(0), "{}", said(out));
}
