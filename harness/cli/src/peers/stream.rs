//! A streamed answer, cut into lines and timed as it arrives.

use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, Instant};

use engine::generate::DeviceChoice;
use engine::server::may_poll;
use futures_util::StreamExt;
use harness_spec::record::ServerTimings;
use harness_spec::units::Nanos;
use tokio_util::sync::CancellationToken;

use super::error::{PeerError, excerpt, innermost};

/// The one monotonic clock of a run. Every time in a record is on it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Time since the start.
    pub fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By length.
    Length,
    /// By an end token.
    Stop,
    /// It failed.
    Failed(PeerError),
    /// Ctrl-C.
    Interrupted,
}

/// An answer as the client saw it; also what there was of it when it failed.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Request sent.
    pub submit: Nanos,
    /// Arrival of each chunk that carries a token.
    pub token_ns: Vec<Nanos>,
    /// End of the answer.
    pub end_ns: Nanos,
    /// Generated text.
    pub text: String,
    /// Whether the last chunk that counts as a token had no text.
    pub empty_tail: bool,
    /// Generated tokens, an end token left out: the server's count where it gives one, else the chunks.
    pub generated: u64,
    /// Whether each chunk carried exactly one token.
    pub one_token_per_chunk: bool,
    /// The server's own figures.
    pub server: Option<ServerTimings>,
    /// How it ended.
    pub end: End,
}

/// The last message of a stream.
#[derive(Clone, Debug, Default)]
pub struct Last {
    /// Whether an end token stopped it.
    pub stopped: bool,
    /// The server's own figures.
    pub timings: ServerTimings,
}

/// What a line of a stream means.
#[derive(Clone, Debug)]
pub enum Message {
    /// A token with its text, which may be empty while a character is incomplete.
    Token(String),
    /// Nothing to count.
    Nothing,
    /// Part of what the last message will hold; the stream goes on.
    Note(Last),
    /// The end.
    Done(Last),
}

/// Understands the lines of one protocol.
pub trait Protocol {
    /// Its name in messages.
    const NAME: &'static str;
    /// Whether a stream may end without a last message of its own once a note has come.
    fn line(&mut self, line: &str) -> Result<Message, LineError>;
}

/// A line that is none of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// Not the protocol.
    Garbage,
    /// The server's own error message.
    Reported(String),
}

/// How the client waits for the next bytes of an answer; the same for every side of a run.
///
/// A thread that sleeps is woken up at times of which the spread is the machine's, not the server's: up to hundreds of
/// microseconds where the machine is virtual and its idle processors are given back to the host, while tokens of a small
/// model are 300 apart. So it does not sleep where our own server does not, whichever server it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until the system wakes it up: kernels on the processor need every core, and their tokens take milliseconds.
    Asleep,
    /// It polls its socket for as long as a request is under way.
    Awake,
}

impl Waiting {
    /// For a run on a device of this machine.
    pub fn beside(device: DeviceChoice) -> Waiting {
        if may_poll(matches!(device, DeviceChoice::Cuda(_))) { Waiting::Awake } else { Waiting::Asleep }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Asleep => "sleeps between two reads",
            Waiting::Awake => "awake: polls its socket between two reads",
        })
    }
}

/// How an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// Silence after which the request has failed.
    pub silence: Duration,
    /// Whether the thread sleeps between two reads.
    pub waiting: Waiting,
    /// Ctrl-C.
    pub cancel: &'a CancellationToken,
}

/// Sends a request and reads its answer to the end.
///
/// A line's time is that of the network read that completed it: taken before the line is looked at, so that parsing is in
/// no interval. `submit` is taken before the first byte of the request.
pub async fn receive<P: Protocol>(
    request: reqwest::RequestBuilder,
    url: &str,
    mut protocol: P,
    wait: Wait<'_>,
    clock: &Clock,
) -> Reply {
    let mut reply = Reply {
        submit: clock.now(),
        token_ns: Vec::new(),
        end_ns: Nanos(0),
        text: String::new(),
        empty_tail: false,
        generated: 0,
        one_token_per_chunk: true,
        server: None,
        end: End::Interrupted,
    };
    let mut last = None;
    let end = tokio::select! {
        biased;
        () = wait.cancel.cancelled() => End::Interrupted,
        end = read(request, url, &mut protocol, wait.silence, clock, &mut reply, &mut last) => end,
        never = stay_awake(), if wait.waiting == Waiting::Awake => match never {},
    };
    reply.end_ns = clock.now();
    reply.end = end;
    settle(&mut reply, last.unwrap_or_default());
    reply
}

/// Keeps the runtime's thread from sleeping: it looks at its sockets and comes back here.
async fn stay_awake() -> Infallible {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn read<P: Protocol>(
    request: reqwest::RequestBuilder,
    url: &str,
    protocol: &mut P,
    silence: Duration,
    clock: &Clock,
    reply: &mut Reply,
    last: &mut Option<Last>,
) -> End {
    let timeout = || End::Failed(PeerError::Timeout { url: url.to_owned(), silence });
    let response = match tokio::time::timeout(silence, request.send()).await {
        Err(_) => return timeout(),
        Ok(Err(e)) => return End::Failed(PeerError::sending(url, &e)),
        Ok(Ok(r)) => r,
    };
    let status = response.status();
    if !status.is_success() {
        let body = tokio::time::timeout(silence, response.text()).await.ok().and_then(Result::ok).unwrap_or_default();
        return End::Failed(PeerError::Status { url: url.to_owned(), status: status.as_u16(), body: excerpt(&body) });
    }
    let mut stream = response.bytes_stream();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let chunk = match tokio::time::timeout(silence, stream.next()).await {
            Err(_) => return timeout(),
            Ok(chunk) => chunk,
        };
        let now = clock.now();
        let cut = |reason: String, tokens: usize| End::Failed(PeerError::Cut { url: url.to_owned(), tokens, reason });
        let ended = match chunk {
            Some(Err(e)) => return cut(innermost(&e), reply.token_ns.len()),
            Some(Ok(bytes)) => {
                pending.extend_from_slice(&bytes);
                false
            }
            None => {
                // A last line may come without its line feed.
                pending.push(b'\n');
                true
            }
        };
        let mut start = 0;
        while let Some(len) = pending[start..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&pending[start..start + len]).into_owned();
            start += len + 1;
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            match protocol.line(line) {
                Ok(Message::Token(text)) => {
                    reply.token_ns.push(now);
                    reply.empty_tail = text.is_empty();
                    reply.text.push_str(&text);
                }
                Ok(Message::Nothing) => {}
                Ok(Message::Note(note)) => *last = Some(note),
                Ok(Message::Done(done)) => {
                    let end = if done.stopped { End::Stop } else { End::Length };
                    *last = Some(done);
                    return end;
                }
                Err(LineError::Garbage) => {
                    let found = excerpt(line);
                    return End::Failed(PeerError::Garbage { url: url.to_owned(), protocol: P::NAME, found });
                }
                Err(LineError::Reported(message)) => {
                    return End::Failed(PeerError::Reported { url: url.to_owned(), message });
                }
            }
        }
        pending.drain(..start);
        if ended {
            return cut("it ended without its last message".into(), reply.token_ns.len());
        }
    }
}

/// Brings the server's count and the chunks together.
///
/// An end token is no output, and servers treat it in three ways: counted and not sent (Ollama), counted and sent as a
/// chunk without text (llama-server, our own), or neither. It is left out here in all three, so that two sides that
/// stopped at the same place have the same number of tokens. Any other surplus of the server's count means that a chunk
/// carried several tokens: parts of one character, for example, are held back until it is whole.
fn settle(reply: &mut Reply, last: Last) {
    let complete = matches!(reply.end, End::Length | End::Stop);
    let counted = last.timings.eval_tokens.filter(|_| complete);
    let mut end_tokens = 0;
    if reply.end == End::Stop {
        let chunks = reply.token_ns.len() as u64;
        if reply.empty_tail && counted.is_none_or(|n| n <= chunks) {
            reply.token_ns.pop();
            end_tokens = 1;
        } else if counted == Some(chunks + 1) {
            end_tokens = 1;
        }
    }
    let chunks = reply.token_ns.len() as u64;
    reply.generated = counted.map_or(chunks, |n| n.saturating_sub(end_tokens));
    reply.one_token_per_chunk = reply.generated <= chunks;
    reply.server = (complete && last.timings != ServerTimings::default()).then_some(last.timings);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(chunks: usize, end: End) -> Reply {
        Reply {
            submit: Nanos(0),
            token_ns: vec![Nanos(1); chunks],
            end_ns: Nanos(2),
            text: String::new(),
            empty_tail: false,
            generated: 0,
            one_token_per_chunk: true,
            server: None,
            end,
        }
    }

    fn last(n: Option<u64>) -> Last {
        Last { stopped: false, timings: ServerTimings { eval_tokens: n, ..Default::default() } }
    }

    #[test]
    fn the_client_stays_awake_where_our_server_does() {
        assert_eq!(Waiting::beside(DeviceChoice::Cuda(0)) == Waiting::Awake, may_poll(true));
        assert_eq!(Waiting::beside(DeviceChoice::Cpu), Waiting::Asleep);
    }

    #[test]
    fn an_end_token_is_no_output_however_the_server_treats_it() {
        for (chunks, empty_tail, counted) in
            [(26, false, Some(27)), (27, true, Some(27)), (26, false, Some(26)), (27, true, None)]
        {
            let mut r = Reply { empty_tail, ..reply(chunks, End::Stop) };
            settle(&mut r, last(counted));
            let seen = (r.generated, r.token_ns.len(), r.one_token_per_chunk);
            assert_eq!(seen, (26, 26, true), "{chunks} chunks, counted {counted:?}");
        }
    }

    #[test]
    fn an_empty_chunk_at_the_asked_length_is_a_token_like_any_other() {
        let mut r = Reply { empty_tail: true, ..reply(27, End::Length) };
        settle(&mut r, last(Some(27)));
        assert_eq!((r.generated, r.token_ns.len()), (27, 27));
    }

    #[test]
    fn more_tokens_than_chunks_are_flagged() {
        let mut r = reply(5, End::Length);
        settle(&mut r, last(Some(12)));
        assert_eq!((r.generated, r.one_token_per_chunk), (12, false));
    }

    #[test]
    fn without_a_count_the_chunks_count() {
        let mut r = reply(5, End::Length);
        settle(&mut r, last(None));
        assert_eq!((r.generated, r.one_token_per_chunk, r.server), (5, true, None));
    }

    #[test]
    fn a_failed_answer_keeps_its_chunks_and_no_server_figures() {
        let mut r = reply(3, End::Interrupted);
        settle(&mut r, last(Some(9)));
        assert_eq!((r.generated, r.server), (3, None));
    }
}
