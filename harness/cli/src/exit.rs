//! Exit codes of every verb (MEASURING.md §9), and errors that know theirs.

use std::fmt;
use std::process::ExitCode;

use harness_spec::in_words;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// `compare --fail-on-slower`: the engine is slower.
    Slower,
    /// `compare --fail-on-slower`: inconclusive, unstable or withheld, which is not a pass.
    Inconclusive,
    /// Nothing could be measured, or not all of it.
    Unmeasured,
    /// Wrong usage.
    Usage,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Slower => 1,
            Exit::Inconclusive => 2,
            Exit::Unmeasured => 3,
            Exit::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error with the exit code it asks for.
#[derive(Debug)]
pub enum Failure {
    /// The command line or a file it names makes no sense.
    Usage(anyhow::Error),
    /// It made sense and could not be done.
    Unmeasured(anyhow::Error),
}

impl Failure {
    /// The exit code.
    pub const fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Unmeasured(_) => Exit::Unmeasured,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Failure::Unmeasured(e)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(e) | Failure::Unmeasured(e)) = self;
        f.write_str(&in_words(e.as_ref()))
    }
}

/// What a command returns.
pub type Outcome = Result<Exit, Failure>;

/// Marks an error as wrong usage.
pub fn usage<E: Into<anyhow::Error>>(e: E) -> Failure {
    Failure::Usage(e.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_last_and_nothing_is_said_twice() {
        let inner = anyhow::anyhow!("connection refused\nhint: start the server");
        let failure = Failure::from(inner.context("no Ollama at http://x\nhint: or leave --against out"));
        assert_eq!(
            failure.to_string(),
            "no Ollama at http://x: connection refused\nhint: or leave --against out\nhint: start the server"
        );
    }
}
