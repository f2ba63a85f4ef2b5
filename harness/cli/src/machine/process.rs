//! Processes of a server on this machine: found by the port they listen on, and measured through `/proc`.
//!
//! Nothing here is guessed: where a file is absent or belongs to another user, the answer is `None` and the record says so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use reqwest::Url;

/// Where Linux shows its processes.
const PROC: &str = "/proc";

/// Length of a clock tick in `/proc/PID/stat`. The kernel's user-space interface fixes it at 100 Hz on every
/// architecture this program runs on.
const TICK_NS: u64 = 10_000_000;

/// Whether a URL points at this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// A listening socket of `/proc/net/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    inode: u64,
    uid: u32,
}

/// The process that listens on a TCP port of this machine, if it can be seen.
///
/// The open files of another user's process cannot be read. A service has a user of its own, though, and where that user
/// has exactly one tree of processes, its root is the server.
pub fn listener(port: u16) -> Option<u32> {
    listener_in(Path::new(PROC), port)
}

/// As [`listener`], in another place than `/proc`.
fn listener_in(proc: &Path, port: u16) -> Option<u32> {
    let sockets: Vec<Listening> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let first = sockets.first()?;
    let holds = |pid: &u32| {
        open_files(proc, *pid).any(|file| {
            let inode = file.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')).and_then(|i| i.parse().ok());
            inode.is_some_and(|inode: u64| sockets.iter().any(|s| s.inode == inode))
        })
    };
    pids(proc).find(holds).or_else(|| only_tree_of(proc, first.uid))
}

/// What the descriptors of a process lead to; nothing where they are closed to us.
fn open_files(proc: &Path, pid: u32) -> impl Iterator<Item = String> {
    let fds = std::fs::read_dir(proc.join(format!("{pid}/fd"))).into_iter().flatten();
    fds.filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.to_string_lossy().into_owned()))
}

/// The root of the one process tree of a user whose files are closed to us.
fn only_tree_of(proc: &Path, uid: u32) -> Option<u32> {
    let closed = |pid: u32| std::fs::read_dir(proc.join(format!("{pid}/fd"))).is_err();
    let theirs: Vec<(u32, u32)> = pids(proc)
        .filter(|pid| owner(proc, *pid) == Some(uid) && closed(*pid))
        .filter_map(|pid| Some((pid, stat(proc, pid)?.parent)))
        .collect();
    let mut roots =
        theirs.iter().filter(|(_, parent)| theirs.iter().all(|(pid, _)| pid != parent)).map(|(pid, _)| *pid);
    let root = roots.next()?;
    roots.next().is_none().then_some(root)
}

fn owner(proc: &Path, pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(proc.join(format!("{pid}/status"))).ok()?;
    text.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// Sockets of a `/proc/net/tcp` table that listen (state `0A`) on `port`.
fn listening(table: &str, port: u16) -> Vec<Listening> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16).ok()? == port;
            let socket = Listening { inode: fields.get(9)?.parse().ok()?, uid: fields.get(7)?.parse().ok()? };
            listens.then_some(socket)
        })
        .collect()
}

fn pids(proc: &Path) -> impl Iterator<Item = u32> + use<> {
    std::fs::read_dir(proc).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process with all its descendants: a server may compute in children, as Ollama's does.
pub fn tree(root: u32) -> Vec<u32> {
    tree_in(Path::new(PROC), root)
}

fn tree_in(proc: &Path, root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in pids(proc) {
        if let Some(parent) = stat(proc, pid).map(|s| s.parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut out = vec![root];
    let mut at = 0;
    while at < out.len() {
        out.extend(children.remove(&out[at]).unwrap_or_default());
        at += 1;
    }
    out
}

struct Stat {
    parent: u32,
    cpu_ticks: u64,
}

fn stat(proc: &Path, pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?)
}

/// The command's name may hold blanks and brackets, so fields are counted from its last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| rest.get(i)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, cpu_ticks: number(11)? + number(12)? })
}

/// CPU time of a process tree so far, in ns.
pub fn cpu_ns(root: u32) -> Option<u64> {
    // The root must be readable; a child that ended meanwhile is simply gone.
    let proc = Path::new(PROC);
    stat(proc, root)?;
    Some(tree(root).into_iter().filter_map(|pid| stat(proc, pid)).map(|s| s.cpu_ticks * TICK_NS).sum())
}

/// Resident memory of a process tree, bytes. Pages that two of its processes share count twice.
pub fn rss_bytes(root: u32) -> Option<u64> {
    sum_of_status(root, "VmRSS:")
}

/// Sum of the peaks of resident memory over a process tree, bytes.
pub fn rss_peak_bytes(root: u32) -> Option<u64> {
    sum_of_status(root, "VmHWM:")
}

fn sum_of_status(root: u32, key: &str) -> Option<u64> {
    status_kib(root, key)?;
    Some(tree(root).into_iter().filter_map(|pid| status_kib(pid, key)).sum::<u64>() * 1024)
}

fn status_kib(pid: u32, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key))?.trim().trim_end_matches("kB").trim().parse().ok()
}

/// The environment that a process was started with: its own, or for another user's service what systemd, which tells
/// everyone, starts it with. `None` where neither may be read.
pub fn environment(pid: u32) -> Option<BTreeMap<String, String>> {
    own_environment(Path::new(PROC), pid).or_else(|| service_environment(pid))
}

fn own_environment(proc: &Path, pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = std::fs::read(proc.join(format!("{pid}/environ"))).ok()?;
    Some(pairs(String::from_utf8_lossy(&bytes).split('\0')))
}

fn pairs<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    words.filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// The environment of the systemd service that a process is the main process of.
fn service_environment(pid: u32) -> Option<BTreeMap<String, String>> {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unit = cgroup.lines().filter_map(|l| l.rsplit('/').next()).find(|u| u.ends_with(".service"))?;
    let properties = "--property=MainPID,Environment,EnvironmentFiles";
    let out = std::process::Command::new("systemctl").args(["show", unit, properties]).output().ok()?;
    parse_service(&String::from_utf8_lossy(&out.stdout), pid)
}

/// Reads `systemctl show`. A service that also takes variables from a file does not show them, and is not known.
fn parse_service(text: &str, pid: u32) -> Option<BTreeMap<String, String>> {
    let property = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    let is_main = property("MainPID")? == pid.to_string();
    let has_files = property("EnvironmentFiles").is_some_and(|f| !f.is_empty());
    (is_main && !has_files)
        .then(|| pairs(property("Environment").unwrap_or_default().split_whitespace().map(|w| w.trim_matches('"'))))
}

/// What a server's process shows of how it was started and of what it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The command line.
    pub line: Option<Vec<String>>,
    /// The environment.
    pub environment: Option<BTreeMap<String, String>>,
    /// Files of NVIDIA's driver that it or its children hold open, such as `/dev/nvidia0`: it has a GPU in use.
    pub gpu_files: Vec<String>,
    /// Bytes of the memory of the run's GPU that it and its children hold, where the driver tells.
    pub gpu_bytes: Option<u64>,
}

impl Seen {
    /// What can be seen of a process. `gpu_bytes` tells the memory that processes hold on the run's GPU.
    pub fn of(pid: u32, gpu_bytes: impl Fn(&[u32]) -> Option<u64>) -> Seen {
        let proc = Path::new(PROC);
        Seen { environment: environment(pid), gpu_bytes: gpu_bytes(&tree(pid)), ..Seen::in_files(proc, pid) }
    }

    /// The part of it that is in the files of `/proc`, or of a folder like it.
    fn in_files(proc: &Path, pid: u32) -> Seen {
        let files = tree_in(proc, pid).into_iter().flat_map(|pid| open_files(proc, pid));
        let mut gpu_files: Vec<String> = files.filter(|file| is_gpu(file)).collect();
        gpu_files.sort();
        gpu_files.dedup();
        let environment = own_environment(proc, pid);
        Seen { line: command_line_in(proc, pid), environment, gpu_files, gpu_bytes: None }
    }
}

/// Whether a file is one GPU of NVIDIA's: its control files are open in programs that only look for one.
fn is_gpu(file: &str) -> bool {
    let number = file.strip_prefix("/dev/nvidia");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The command line of a process.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    command_line_in(Path::new(PROC), pid)
}

fn command_line_in(proc: &Path, pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(proc.join(format!("{pid}/cmdline"))).ok()?;
    let words: Vec<String> =
        String::from_utf8_lossy(&bytes).split('\0').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_port_is_found_among_other_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 81234 1\n\
             1: 0100007F:2CAA 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 81235 1\n";
        assert_eq!(listening(table, 11434), [Listening { inode: 81234, uid: 998 }]);
        assert!(listening(table, 80).is_empty());
    }

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let s = parse_stat("42 (a (b) c) S 7 42 42 0 -1 4194304 1 0 0 0 30 12 0 0 20 0").unwrap();
        assert_eq!((s.parent, s.cpu_ticks), (7, 42));
    }

    #[test]
    fn this_process_is_measured() {
        let me = std::process::id();
        assert!(tree(me).contains(&me));
        assert!(rss_bytes(me).unwrap() > 1 << 20 && rss_peak_bytes(me).unwrap() >= rss_bytes(me).unwrap() / 2);
        assert!(cpu_ns(me).is_some() && command_line(me).is_some());
        let listener_here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(listener_here.local_addr().unwrap().port()), Some(me));
    }

    /// A folder like `/proc` with a server on port 8081, its child that has a GPU, and a stranger that has another.
    fn fake_proc() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let link = |path: &str, to: &str| {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(to, file).unwrap();
        };
        write(
            "net/tcp",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n",
        );
        for (pid, parent) in [(7, 1), (8, 7), (9, 1)] {
            write(&format!("{pid}/stat"), &format!("{pid} (s) S {parent} 0 0 0 -1 0 0 0 0 0 3 4 0 0 20 0"));
        }
        let line = ["/usr/bin/llama-server", "-m", "m.gguf", "-ngl", "99", "--threads", "16", ""];
        write("7/cmdline", &line.join("\0"));
        write("7/environ", "LLAMA_ARG_UBATCH=256\0HOME=/h\0");
        link("7/fd/3", "socket:[4711]");
        link("7/fd/4", "/dev/nvidiactl");
        link("8/fd/5", "/dev/nvidia0");
        link("9/fd/5", "/dev/nvidia1");
        dir
    }

    #[test]
    fn a_server_is_known_by_its_port_and_shows_its_line_its_environment_and_its_gpus() {
        let proc = fake_proc();
        assert_eq!(listener_in(proc.path(), 8081), Some(7));
        assert_eq!(listener_in(proc.path(), 8082), None);
        let seen = Seen::in_files(proc.path(), 7);
        assert_eq!(seen.line.unwrap()[1..], ["-m", "m.gguf", "-ngl", "99", "--threads", "16"]);
        assert_eq!(seen.environment.unwrap()["LLAMA_ARG_UBATCH"], "256");
        // That of its child; neither the driver's control file nor what another process has.
        assert_eq!(seen.gpu_files, ["/dev/nvidia0"]);
        assert_eq!(Seen::in_files(proc.path(), 6), Seen::default());
    }

    #[test]
    fn a_process_that_is_not_there_has_no_figures() {
        assert_eq!((rss_bytes(u32::MAX), cpu_ns(u32::MAX)), (None, None));
    }

    #[test]
    fn a_services_environment_is_known_only_if_all_of_it_is_shown() {
        let shown = "MainPID=812\nEnvironment=PATH=/usr/bin OLLAMA_NUM_PARALLEL=4\n";
        assert_eq!(parse_service(shown, 812).unwrap()["OLLAMA_NUM_PARALLEL"], "4");
        assert_eq!(parse_service(shown, 813), None);
        assert_eq!(
            parse_service(&format!("{shown}EnvironmentFiles=/etc/default/ollama (ignore_errors=no)\n"), 812),
            None
        );
    }

    #[test]
    fn loopback_is_recognised_in_every_spelling() {
        for (url, want) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.7:1", false),
            ("http://box:1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), want, "{url}");
        }
    }
}
