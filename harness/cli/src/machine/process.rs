//! Processes of a server on this machine: found by the port they listen on, and measured through `/proc`.
//!
//! Nothing here is guessed: where a file is absent or belongs to another user, the answer is `None` and the record says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reqwest::Url;

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
    let sockets: Vec<Listening> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|p| std::fs::read_to_string(p).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let first = sockets.first()?;
    pids().find(|pid| holds_any(*pid, &sockets)).or_else(|| only_tree_of(first.uid))
}

fn holds_any(pid: u32, sockets: &[Listening]) -> bool {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).any(|link| {
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')).and_then(|i| i.parse().ok());
        inode.is_some_and(|inode: u64| sockets.iter().any(|s| s.inode == inode))
    })
}

/// The root of the one process tree of a user whose files are closed to us.
fn only_tree_of(uid: u32) -> Option<u32> {
    let theirs: Vec<(u32, u32)> = pids()
        .filter(|pid| owner(*pid) == Some(uid) && std::fs::read_dir(format!("/proc/{pid}/fd")).is_err())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut roots =
        theirs.iter().filter(|(_, parent)| theirs.iter().all(|(pid, _)| pid != parent)).map(|(pid, _)| *pid);
    let root = roots.next()?;
    roots.next().is_none().then_some(root)
}

fn owner(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
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

fn pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process with all its descendants: a server may compute in children, as Ollama's does.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(parent) = stat(pid).map(|s| s.parent) {
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

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
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
    stat(root)?;
    Some(tree(root).into_iter().filter_map(stat).map(|s| s.cpu_ticks * TICK_NS).sum())
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
    match std::fs::read(format!("/proc/{pid}/environ")) {
        Ok(bytes) => Some(pairs(String::from_utf8_lossy(&bytes).split('\0'))),
        Err(_) => service_environment(pid),
    }
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

/// The command line of a process.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
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
