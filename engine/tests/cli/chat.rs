//! `edgellm run`: what the user says reaches the model, through the template, turn after turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::process::{Child, Stdio};

use engine::Engine;
use engine::chat_template::Message;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams};
use predicates::str::contains;

use crate::{Home, home};

const GREEDY: [&str; 8] = ["--temperature", "0", "--repeat-penalty", "1", "--threads", "1", "--ignore-eos", "-n"];

/// What the engine itself says to a prompt, in eight tokens.
fn expected(engine: &mut Engine, prompt: &str) -> String {
    let request = GenerateRequest {
        prompt: engine.tokenizer().encode_prompt(prompt),
        max_tokens: 8,
        sampling: SamplingParams::greedy(),
        stop: Vec::new(),
        ignore_eos: true,
    };
    let mut said = String::new();
    let mut on_event = |event: Event<'_>| {
        if let Event::Token { text, .. } = event {
            said.push_str(text);
        }
        ControlFlow::Continue(())
    };
    engine.generate(&request, &mut on_event).unwrap();
    said
}

fn engine(home: &Home) -> Engine {
    let options = LoadOptions { threads: Some(1), isa: Some("scalar".parse().unwrap()), ..LoadOptions::default() };
    Engine::load(&home.model, &options).unwrap()
}

fn rendered(engine: &Engine, messages: &[Message]) -> String {
    engine.chat_template().unwrap().render(messages).unwrap()
}

#[test]
fn one_prompt_goes_through_the_template_and_raw_goes_as_it_is() {
    let home = home();
    let mut engine = engine(&home);
    let prompt = rendered(&engine, &[Message::new("user", "Hello there")]);
    let said = expected(&mut engine, &prompt);
    let words = [&["run", home.model(), "Hello", "there"], &GREEDY[..], &["8"]].concat();
    home.edgellm(&words).assert().success().stdout(format!("{said}\n"));
    let said = expected(&mut engine, "Hello there");
    home.edgellm(&words).arg("--raw").assert().success().stdout(format!("{said}\n"));
}

#[test]
fn what_is_piped_in_is_the_prompt_or_follows_it() {
    let home = home();
    let mut engine = engine(&home);
    let flags = [&GREEDY[..], &["8"]].concat();
    let prompt = rendered(&engine, &[Message::new("user", "from a pipe")]);
    let said = expected(&mut engine, &prompt);
    let words = [&["run", home.model()], &flags[..]].concat();
    home.edgellm(&words).write_stdin("from a pipe\n").assert().success().stdout(format!("{said}\n"));
    let prompt = rendered(&engine, &[Message::new("user", "Sum up:\n\nfrom a pipe")]);
    let said = expected(&mut engine, &prompt);
    let words = [&["run", home.model(), "Sum up:"], &flags[..]].concat();
    home.edgellm(&words).write_stdin("from a pipe\n").assert().success().stdout(format!("{said}\n"));
    home.edgellm(&["run", home.model()]).write_stdin(vec![0xff, 0xfe]).assert().code(64).stderr(contains("UTF-8"));
}

#[test]
fn a_conversation_has_all_its_turns_and_clear_forgets_them() {
    let home = home();
    let mut engine = engine(&home);
    let system = Message::new("system", "Be brief.");
    let one = [system.clone(), Message::new("user", "first")];
    let prompt = rendered(&engine, &one);
    let first = expected(&mut engine, &prompt);
    let two = [&one[..], &[Message::new("assistant", first.clone()), Message::new("user", "several\nlines")]].concat();
    let prompt = rendered(&engine, &two);
    let second = expected(&mut engine, &prompt);
    let words = [&["run", home.model(), "--interactive", "--system", "Be brief."], &GREEDY[..], &["8"]].concat();
    let typed = "first\n\n\"\"\"several\nlines\"\"\"\n/clear\n/dance\nfirst\n/bye\nnever said\n";
    home.edgellm(&words)
        .write_stdin(typed)
        .assert()
        .success()
        .stdout(format!("{first}\n{second}\n{first}\n"))
        .stderr(contains("the conversation is forgotten"))
        .stderr(contains("there is no command /dance"));
}

#[test]
fn a_turn_too_long_for_the_context_is_taken_back_and_the_chat_goes_on() {
    let home = home();
    let words = [&["run", home.model(), "--interactive", "--ctx", "200"], &GREEDY[..], &["8"]].concat();
    let typed = format!("{}\nshort\n", "long ".repeat(200));
    let output = home.edgellm(&words).write_stdin(typed).assert().success().stderr(contains("the context holds 200"));
    let stdout = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let mut engine = engine(&home);
    let prompt = rendered(&engine, &[Message::new("user", "short")]);
    assert_eq!(stdout, format!("{}\n", expected(&mut engine, &prompt)));
}

#[test]
fn verbose_prints_counts_and_times_to_stderr() {
    let home = home();
    let words = [&["run", home.model(), "Hello", "--raw", "--verbose"], &GREEDY[..], &["8"]].concat();
    home.edgellm(&words)
        .assert()
        .success()
        .stderr(contains("answer            8 tokens"))
        .stderr(contains("decode rate"));
}

/// A chat that a test talks to line by line.
struct Chat {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Chat {
    fn start(home: &Home, model: &str, flags: &[&str]) -> Chat {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_edgellm"));
        command.args(["run", model, "--interactive"]).args(flags).envs(home.environment()).env_remove("EDGELLM_ISA");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Chat { child, stderr }
    }

    fn until_asked(&mut self) {
        let mut seen = Vec::new();
        while !seen.ends_with(b">>> ") {
            let mut byte = [0];
            self.stderr.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&seen)));
            seen.push(byte[0]);
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn ctrl_c(&self) {
        let status = std::process::Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_an_answer_and_ends_the_program_at_the_prompt() {
    let home = home();
    // Long enough an answer that it cannot be over before it is stopped.
    let model = home.dir.path().join("slow.gguf");
    let words = ["synth", "--shape", "smollm2-135m", "--quant", "q4_0", "--layers", "4", "-o"];
    home.edgellm(&words).arg(&model).assert().success();
    let mut chat = Chat::start(&home, model.to_str().unwrap(), &["--ignore-eos", "--temperature", "0"]);
    let mut stdout = BufReader::new(chat.child.stdout.take().unwrap());
    chat.until_asked();
    chat.type_line("hello");
    // The first bytes show that it answers.
    assert!(!stdout.fill_buf().unwrap().is_empty());
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).map(|_| rest.len())
    });
    chat.ctrl_c();
    chat.until_asked();
    chat.ctrl_c();
    assert_eq!(chat.child.wait().unwrap().code(), Some(130));
    assert!(reader.join().unwrap().unwrap() > 0);
}
