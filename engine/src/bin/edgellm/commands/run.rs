//! `edgellm run`: one answer, or a conversation.

use std::io::{self, IsTerminal, Read};
use std::time::Instant;

use engine::Engine;
use engine::generate::{GenerateRequest, SamplingParams};

use super::answer::{AnswerError, stream};
use super::chat::Conversation;
use super::{find_or_pull, load};
use crate::args::RunArgs;
use crate::exit::Failure;
use crate::interrupt::Interrupt;

/// The engine and how it answers.
pub struct Session {
    pub engine: Engine,
    pub interrupt: Interrupt,
    sampling: SamplingParams,
    stop: Vec<String>,
    max_tokens: usize,
    ignore_eos: bool,
    pub is_verbose: bool,
}

impl Session {
    /// The request for a prompt.
    pub fn request(&self, prompt: &str) -> GenerateRequest {
        GenerateRequest {
            prompt: self.engine.tokenizer().encode_prompt(prompt),
            max_tokens: self.max_tokens,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
        }
    }
}

pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let sampling = args.sampling.params()?;
    let stdin_is_terminal = io::stdin().is_terminal();
    let is_chat = args.interactive || (args.prompt.is_empty() && stdin_is_terminal);
    if is_chat && !args.prompt.is_empty() {
        return Err(Failure::Usage("--interactive takes no prompt; type it when asked".to_owned()));
    }
    let piped = if is_chat || stdin_is_terminal { None } else { Some(read_stdin(args.prompt.is_empty())?) };
    let prompt = join_prompt(&args.prompt.join(" "), piped.as_deref());
    if !is_chat && prompt.is_empty() {
        return Err(Failure::Usage(
            "the prompt is empty; give some text, or none for a chat in the terminal".to_owned(),
        ));
    }
    let entry = find_or_pull(&args.model)?;
    let start = Instant::now();
    let engine = load(&entry, &args.load.options())?;
    if args.verbose {
        eprintln!("loaded in         {:.3} s", start.elapsed().as_secs_f64());
    }
    let mut session = Session {
        engine,
        interrupt: Interrupt::listen()?,
        sampling,
        stop: args.stop.clone(),
        max_tokens: args.max_tokens.unwrap_or(usize::MAX),
        ignore_eos: args.ignore_eos,
        is_verbose: args.verbose,
    };
    if is_chat && args.raw {
        return super::chat::continue_lines(&mut session);
    }
    let mut conversation = Conversation::new(args.system.as_deref());
    if is_chat {
        return super::chat::talk(&mut session, &mut conversation);
    }
    let text = match args.raw {
        true => prompt,
        false => conversation.ask(&session.engine, &prompt)?,
    };
    let request = session.request(&text);
    match stream(&mut session.engine, &request, &session.interrupt, session.is_verbose) {
        Ok(answer) if answer.was_stopped => Err(Failure::Interrupted),
        Ok(_) => Ok(()),
        Err(AnswerError::Request(error)) => Err(error.into()),
        Err(AnswerError::Failure(failure)) => Err(failure),
    }
}

/// Reads what is piped in, to its end.
fn read_stdin(is_needed: bool) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    match io::stdin().read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if is_needed => {
            return Err(anyhow::Error::new(error).context("could not read standard input").into());
        }
        // With a prompt on the command line, an input that is closed or cannot be read is no input.
        Err(_) => return Ok(String::new()),
    }
    String::from_utf8(bytes).map_err(|_| Failure::Usage("what is piped in is not UTF-8 text".to_owned()))
}

/// The words of the command line first, as the instruction, then what was piped in, as what it is about.
fn join_prompt(words: &str, piped: Option<&str>) -> String {
    let piped = piped.unwrap_or("").trim_end_matches('\n');
    match (words.is_empty(), piped.is_empty()) {
        (_, true) => words.to_owned(),
        (true, false) => piped.to_owned(),
        (false, false) => format!("{words}\n\n{piped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::join_prompt;

    #[test]
    fn the_instruction_comes_before_what_is_piped_in() {
        assert_eq!(join_prompt("Sum up:", Some("a text\n")), "Sum up:\n\na text");
        assert_eq!(join_prompt("", Some("a text\n")), "a text");
        assert_eq!(join_prompt("a text", Some("")), "a text");
        assert_eq!(join_prompt("", None), "");
    }
}
