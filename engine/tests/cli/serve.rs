//! `edgellm serve` as a process: where it listens, what it serves, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use predicates::str::contains;

use crate::{Home, home};

struct Server {
    child: Child,
    addr: SocketAddr,
}

/// Starts a server on a free port and waits until it says where it is.
fn start(home: &Home, words: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgellm"));
    command.args(["serve", "--port", "0"]).args(words).envs(home.environment());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("serving on ")).expect("it says where it is").unwrap();
    // The rest is read away, or a full pipe would stop the server.
    std::thread::spawn(move || lines.count());
    let addr = line.split("http://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    Server { child, addr }
}

impl Server {
    /// Sends a request and returns the answer, head and body.
    fn ask(&self, method_and_path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method_and_path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

#[cfg(unix)]
#[test]
fn a_served_model_answers_and_sigterm_and_ctrl_c_end_the_server_well() {
    let home = home();
    for (signal, parallel) in [("-TERM", "1"), ("-INT", "2")] {
        let mut server = start(&home, &["--model", home.model(), "--name", "my:model", "--parallel", parallel]);
        assert!(server.ask("GET /api/ps", "").contains("\"name\":\"my:model\""), "it is loaded from the start");
        let body = r#"{"model":"my:model","prompt":"hi","raw":true,"options":{"num_predict":3,"ignore_eos":true}}"#;
        let answer = server.ask("POST /api/generate", body);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("\"eval_count\":3"), "{answer}");
        server.signal(signal);
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_end_of_its_input_ends_a_server_that_was_told_so() {
    let home = home();
    let mut server = start(&home, &["--until-eof"]);
    assert!(server.ask("GET /health", "").contains("ok"));
    drop(server.child.stdin.take());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn models_of_the_store_are_served_by_name() {
    let home = home();
    home.edgellm(&["pull", home.model(), "--as", "tiny:1"]).assert().success();
    let mut server = start(&home, &["--until-eof"]);
    assert!(server.ask("GET /api/tags", "").contains("tiny:1"));
    let body = r#"{"model":"tiny:1","prompt":"hi","max_tokens":2}"#;
    assert!(server.ask("POST /v1/completions", body).contains("completion_tokens"));
    drop(server.child.stdin.take());
    server.child.wait().unwrap();
}

#[test]
fn a_port_that_is_taken_is_3_with_the_fix() {
    let home = home();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    home.edgellm(&["serve", "--port", &port]).assert().code(3).stderr(contains("choose another --port"));
}
