//! Processes of a server on this machine: found by the port they listen on, and measured through `/proc`.
//!
//! Nothing here is guessed: where a file is absent or belongs to another user, the answer is `None` and the record says so.

use std::collections::{BTreeMap, BTreeSet};
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

/// The process that listens on a TCP port of this machine, if it can be seen.
pub fn listener(port: u16) -> Option<u32> {
    let inodes: BTreeSet<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|p| std::fs::read_to_string(p).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    pids().find(|pid| {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).any(|link| {
            let link = link.to_string_lossy();
            link.strip_prefix("socket:[")
                .and_then(|l| l.strip_suffix(']'))
                .and_then(|i| i.parse().ok())
                .is_some_and(|inode: u64| inodes.contains(&inode))
        })
    })
}

/// Socket inodes of a `/proc/net/tcp` table that listen (state `0A`) on `port`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16).ok()? == port;
            listens.then(|| fields.get(9)?.parse().ok()).flatten()
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

/// The environment that a process was started with. `None` where it may not be read.
pub fn environment(pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(
        String::from_utf8_lossy(&bytes)
            .split('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
    )
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
             0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 81234 1\n\
             1: 0100007F:2CAA 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 81235 1\n";
        assert_eq!(listening_inodes(table, 11434), [81234]);
        assert!(listening_inodes(table, 80).is_empty());
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
