//! How the program ends: 0 done, 3 could not do it, 64 wrong usage.

use std::io;
use std::process::ExitCode;

/// The code for a command line that makes no sense.
pub const USAGE: u8 = 64;
/// The code for something that could not be done.
const COULD_NOT: u8 = 3;
/// The code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// Why a verb did not do what it was told.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// It makes sense and could not be done.
    CouldNot(anyhow::Error),
    /// Ctrl-C.
    Interrupted,
    /// Whoever read the output has gone.
    OutputClosed,
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => USAGE.into(),
            Failure::CouldNot(_) => COULD_NOT.into(),
            Failure::Interrupted => INTERRUPTED.into(),
            Failure::OutputClosed => ExitCode::SUCCESS,
        }
    }

    /// A failure to write to stdout.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::CouldNot(anyhow::Error::new(error).context("could not write the output")),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::CouldNot(error.into())
    }
}

#[cfg(test)]
mod tests {
    use harness_spec::in_words;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write {name}: {source}\nhint: check the folder")]
    struct CannotWrite {
        name: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once_and_what_to_do_about_it_comes_last() {
        let error = CannotWrite { name: "a.gguf", source: io::Error::other("the disk is full") };
        let error = anyhow::Error::new(error).context("cannot use b");
        assert_eq!(
            in_words(error.as_ref()),
            "cannot use b: cannot write a.gguf: the disk is full\nhint: check the folder"
        );
        let untold = anyhow::Error::new(io::Error::other("the disk is full")).context("could not write the output");
        assert_eq!(in_words(untold.as_ref()), "could not write the output: the disk is full");
        assert_eq!(in_words(anyhow::anyhow!("no\nhint: yes").as_ref()), "no\nhint: yes");
    }
}
