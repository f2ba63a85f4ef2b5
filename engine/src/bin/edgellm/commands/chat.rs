//! A conversation in the terminal.

use std::io::{self, BufRead};

use engine::Engine;
use engine::chat_template::Message;
use engine::generate::GenerateError;

use super::answer::{AnswerError, stream};
use super::run::Session;
use crate::exit::Failure;

const HELP: &str = "/clear forgets the conversation, /bye or Ctrl-D ends it, \"\"\" begins and ends a text of several \
                    lines, Ctrl-C stops an answer";

/// What has been said so far.
pub struct Conversation {
    system: Option<Message>,
    messages: Vec<Message>,
}

impl Conversation {
    /// A conversation that begins with a system message, if there is one.
    pub fn new(system: Option<&str>) -> Conversation {
        let system = system.map(|text| Message::new("system", text));
        Conversation { messages: system.iter().cloned().collect(), system }
    }

    /// Adds a user's turn and returns the prompt of the whole conversation. A model without a chat template only
    /// continues texts, so it gets the last one.
    pub fn ask(&mut self, engine: &Engine, text: &str) -> Result<String, Failure> {
        self.messages.push(Message::new("user", text));
        match engine.chat_template() {
            Some(template) => Ok(template.render(&self.messages)?),
            None => Ok(text.to_owned()),
        }
    }

    fn answered(&mut self, text: String) {
        self.messages.push(Message::new("assistant", text));
    }

    /// Takes the last turn back.
    fn unask(&mut self) {
        self.messages.pop();
    }

    fn clear(&mut self) {
        self.messages = self.system.iter().cloned().collect();
    }
}

/// Talks until the user ends it.
pub fn talk(session: &mut Session, conversation: &mut Conversation) -> Result<(), Failure> {
    if session.engine.chat_template().is_none() {
        eprintln!("this model has no chat template: it continues each text by itself");
    }
    eprintln!("{HELP}");
    each_entry(|entry| {
        match entry {
            "/clear" => {
                conversation.clear();
                eprintln!("the conversation is forgotten");
                return Ok(());
            }
            "/?" | "/help" => {
                eprintln!("{HELP}");
                return Ok(());
            }
            word if word.starts_with('/') && !word.contains(char::is_whitespace) => {
                eprintln!("there is no command {word}; {HELP}");
                return Ok(());
            }
            _ => {}
        }
        let prompt = match conversation.ask(&session.engine, entry) {
            Ok(prompt) => prompt,
            Err(Failure::CouldNot(error)) => {
                conversation.unask();
                eprintln!("edgellm: {}", harness_spec::in_words(error.as_ref()));
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        match answer(session, &prompt)? {
            // A stopped answer stays in the conversation as far as it came.
            Some(text) => conversation.answered(text),
            None => conversation.unask(),
        }
        Ok(())
    })
}

/// Continues each text by itself, without a template.
pub fn continue_lines(session: &mut Session) -> Result<(), Failure> {
    each_entry(|entry| answer(session, entry).map(|_| ()))
}

/// Prints an answer; `None` where there can be none, after saying why.
fn answer(session: &mut Session, prompt: &str) -> Result<Option<String>, Failure> {
    let request = session.request(prompt);
    match stream(&mut session.engine, &request, &session.interrupt, session.is_verbose) {
        Ok(answer) => Ok(Some(answer.text)),
        Err(AnswerError::Request(GenerateError::PromptTooLong { tokens, context })) => {
            eprintln!(
                "edgellm: the conversation has {tokens} tokens now and the context holds {context}; \
                 /clear begins a new one, --ctx makes it larger"
            );
            Ok(None)
        }
        Err(AnswerError::Request(error)) => {
            eprintln!("edgellm: {error}");
            Ok(None)
        }
        Err(AnswerError::Failure(failure)) => Err(failure),
    }
}

/// Calls `each` with everything the user enters, until the end of input or `/bye`.
fn each_entry(mut each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut lines = io::stdin().lock().lines();
    loop {
        eprint!(">>> ");
        let Some(line) = lines.next().transpose()? else {
            eprintln!();
            return Ok(());
        };
        let line = line.trim();
        match line.strip_prefix("\"\"\"") {
            _ if line.is_empty() => {}
            _ if matches!(line, "/bye" | "/exit" | "/quit") => return Ok(()),
            None => each(line)?,
            Some(first) => {
                let text = several_lines(first, &mut lines)?;
                each(text.trim())?;
            }
        }
    }
}

fn several_lines(first: &str, lines: &mut impl Iterator<Item = io::Result<String>>) -> Result<String, Failure> {
    if let Some(text) = first.strip_suffix("\"\"\"") {
        return Ok(text.to_owned());
    }
    let mut text = first.to_owned();
    for line in lines {
        let line = line?;
        text.push('\n');
        match line.trim_end().strip_suffix("\"\"\"") {
            Some(last) => {
                text.push_str(last);
                return Ok(text);
            }
            None => text.push_str(&line),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_ends_with_its_quotes() {
        let mut lines = ["two", "three\"\"\"", "not this"].into_iter().map(|line| Ok(line.to_owned()));
        assert_eq!(several_lines("one", &mut lines).unwrap(), "one\ntwo\nthree");
        assert_eq!(several_lines("one\"\"\"", &mut lines).unwrap(), "one");
    }

    #[test]
    fn a_cleared_conversation_keeps_its_system_message() {
        let mut conversation = Conversation::new(Some("be kind"));
        conversation.answered("hello".to_owned());
        conversation.clear();
        assert_eq!(conversation.messages, [Message::new("system", "be kind")]);
    }
}
