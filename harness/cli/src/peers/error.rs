//! What can go wrong with a server, in words that name the fix.

use std::time::Duration;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody listens.
    #[error("{url} does not answer: {reason}\nhint: start the server, or correct the address")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// An HTTP error.
    #[error("{url} answered {status}: {body}{hint}", hint = hint_for(*status))]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// Start of the body.
        body: String,
    },
    /// No byte for too long.
    #[error("{url} sent nothing for {} s\nhint: raise --timeout if the machine is slow, else look at the server's log", .silence.as_secs())]
    Timeout {
        /// What was asked.
        url: String,
        /// How long.
        silence: Duration,
    },
    /// The stream ended before its last message.
    #[error(
        "{url} cut the stream after {tokens} token(s): {reason}\nhint: the server died or closed the connection; its log says why"
    )]
    Cut {
        /// What was asked.
        url: String,
        /// Tokens that had arrived.
        tokens: usize,
        /// What the transport says.
        reason: String,
    },
    /// Something that is not the protocol.
    #[error("{url} sent what is not {protocol}: {found}\nhint: is this the right address and API?")]
    Garbage {
        /// What was asked.
        url: String,
        /// What was expected.
        protocol: &'static str,
        /// Start of what came.
        found: String,
    },
    /// An error inside a stream.
    #[error("{url} reported: {message}")]
    Reported {
        /// What was asked.
        url: String,
        /// The server's words.
        message: String,
    },
}

fn hint_for(status: u16) -> &'static str {
    match status {
        404 => "\nhint: the path or the model does not exist there; is this the right API?",
        401 | 403 => "\nhint: the server asks for a key, which bench does not send",
        429 | 503 => "\nhint: the server is busy; nothing else may use it during a measurement",
        _ => "",
    }
}

/// The start of a text, on one line, for a message.
pub fn excerpt(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    let line = line.trim();
    if line.is_empty() { "(empty)".to_owned() } else { line.to_owned() }
}

impl PeerError {
    /// Sorts an error of the transport before any byte of the answer.
    pub fn sending(url: &str, e: &reqwest::Error) -> PeerError {
        PeerError::Unreachable { url: url.to_owned(), reason: innermost(e) }
    }
}

/// The innermost cause: the outer ones only say that a request failed.
pub fn innermost(e: &(dyn std::error::Error + 'static)) -> String {
    let mut at = e;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
