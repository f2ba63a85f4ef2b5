//! What handlers and the engine's thread say to each other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_channel::TryRecvError;
use tokio::sync::OwnedSemaphorePermit;

use super::api_error::ApiError;
use super::backend::LoadWish;
use super::keep_alive::KeepAlive;
use super::replies::{ReplyReceiver, ReplySender};
use super::waiting::Waiting;
use crate::chat_template::Message;
use crate::generate::{FinishReason, SamplingParams};

/// A request on its way to the engine.
pub(super) struct Job {
    pub model: JobModel,
    pub input: Input,
    pub wish: LoadWish,
    pub keep_alive: Option<KeepAlive>,
    pub accepted: Instant,
    pub replies: ReplySender,
}

/// The model that a job is for.
#[derive(Clone, Debug)]
pub(super) struct JobModel {
    pub name: String,
    pub path: PathBuf,
}

/// What the engine is to do.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Have the model ready.
    Load,
    /// Let the model go.
    Unload,
    /// Continue a prompt.
    Generate { prompt: Prompt, settings: Settings },
}

/// A prompt in one of its forms.
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    /// Token ids.
    Ids(Vec<u32>),
    /// Text as it is.
    Raw(String),
    /// Messages for the chat template, or for `template` if one is given.
    Chat { messages: Vec<Message>, template: Option<String>, before: Vec<u32> },
}

/// How to continue it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// A context smaller than the loaded one, if the request asks for it.
    pub context: Option<usize>,
    pub sampling: SamplingParams,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
}

/// What the engine answers, in this order: `Started`, then a `Token` for each token, then `Done`. `Failed` may come
/// at any point and is the last.
#[derive(Debug)]
pub(super) enum Reply {
    /// The model is loaded and the prompt fits: the answer will be a success.
    Started { prompt: Vec<u32>, waiting: Waiting },
    /// One token. The text may be empty.
    Token { id: u32, text: String },
    /// The answer is complete.
    Done(Done),
    /// There is no answer, or no more of it.
    Failed(ApiError),
}

/// How an answer ended, with the engine's own times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub reason: DoneReason,
    pub prompt_tokens: usize,
    pub prompt_time: Duration,
    pub generated: usize,
    pub decode_time: Duration,
    pub load_time: Duration,
    pub total_time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoneReason {
    Stop,
    Length,
    Load,
    Unload,
}

impl DoneReason {
    /// The reason of a finished generation; `None` when it was cancelled, and nobody is there to hear it.
    pub fn of(reason: FinishReason) -> Option<DoneReason> {
        match reason {
            FinishReason::Stop => Some(DoneReason::Stop),
            FinishReason::Length => Some(DoneReason::Length),
            FinishReason::Cancelled => None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            DoneReason::Stop => "stop",
            DoneReason::Length => "length",
            DoneReason::Load => "load",
            DoneReason::Unload => "unload",
        }
    }
}

/// The replies to one job. Dropping it cancels the job and gives its place in the queue free.
pub(super) struct Answer {
    replies: ReplyReceiver,
    waiting: Waiting,
    _place: OwnedSemaphorePermit,
}

impl Answer {
    pub fn new(replies: ReplyReceiver, place: OwnedSemaphorePermit) -> Answer {
        Answer { replies, waiting: Waiting::Asleep, _place: place }
    }

    /// The next reply. After the last one, and when the engine's thread has gone, that is a failure.
    pub async fn next(&mut self) -> Reply {
        self.replies.recv().await.unwrap_or(Reply::Failed(ApiError::EngineFailed))
    }

    /// [`Answer::next`] for a stream: where the thread may stay awake for a token, it does.
    pub async fn next_of_stream(&mut self) -> Reply {
        let since = Instant::now();
        let mut next = None;
        while self.waiting.is_awake(since) && next.is_none() {
            match self.replies.try_recv() {
                Ok(reply) => next = Some(reply),
                // Sockets and other requests have their turn in between.
                Err(TryRecvError::Empty) => tokio::task::yield_now().await,
                Err(TryRecvError::Closed) => break,
            }
        }
        let next = match next {
            Some(reply) => reply,
            None => self.next().await,
        };
        // The last token goes out before what is long to write: a stream is flushed when it has nothing ready.
        if matches!(next, Reply::Done(_)) {
            tokio::task::yield_now().await;
        }
        next
    }

    /// Waits until it is certain that the answer will be a success.
    pub async fn started(&mut self) -> Result<Start, ApiError> {
        match self.next().await {
            Reply::Started { prompt, waiting } => {
                self.waiting = waiting;
                Ok(Start::Tokens { prompt })
            }
            Reply::Done(done) => Ok(Start::Done(done)),
            Reply::Failed(error) => Err(error),
            Reply::Token { .. } => unreachable!("the worker sends Started before the first token"),
        }
    }

    /// Waits for the whole answer.
    pub async fn collect(&mut self) -> Result<Collected, ApiError> {
        let mut collected = Collected { text: String::new(), ids: Vec::new(), done: None };
        loop {
            match self.next().await {
                Reply::Started { .. } => {}
                Reply::Token { id, text } => {
                    collected.text.push_str(&text);
                    collected.ids.push(id);
                }
                Reply::Done(done) => {
                    collected.done = Some(done);
                    return Ok(collected);
                }
                Reply::Failed(error) => return Err(error),
            }
        }
    }
}

/// How an answer begins.
pub(super) enum Start {
    /// Tokens will come.
    Tokens { prompt: Vec<u32> },
    /// It is over already: the job was to load or unload.
    Done(Done),
}

/// A whole answer.
pub(super) struct Collected {
    pub text: String,
    pub ids: Vec<u32>,
    done: Option<Done>,
}

impl Collected {
    pub fn done(&self) -> &Done {
        self.done.as_ref().expect("collect returns only after Done")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use tokio::sync::Semaphore;

    use super::super::replies::channel;
    use super::*;

    /// The two ends of an answer whose stream is waited for awake.
    async fn awake() -> (ReplySender, Answer) {
        let (replies, receiver) = channel();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut answer = Answer::new(receiver, place);
        replies.send(Reply::Started { prompt: vec![1], waiting: Waiting::Awake });
        answer.started().await.unwrap();
        (replies, answer)
    }

    fn send(replies: &ReplySender, id: u32) {
        replies.send(Reply::Token { id, text: String::new() });
    }

    async fn id_of_next(answer: &mut Answer) -> u32 {
        match answer.next_of_stream().await {
            Reply::Token { id, .. } => id,
            other => panic!("{other:?} in place of a token"),
        }
    }

    #[tokio::test]
    async fn tokens_of_a_stream_come_in_order_whether_the_thread_polls_or_sleeps_for_them() {
        let (replies, mut answer) = awake().await;
        send(&replies, 1);
        send(&replies, 2);
        assert_eq!((id_of_next(&mut answer).await, id_of_next(&mut answer).await), (1, 2));
        // One for which it polls, and one for which it has lost its patience.
        for (id, pause) in [(3, Duration::from_millis(1)), (4, super::super::waiting::PATIENCE * 2)] {
            let sender = replies.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                send(&sender, id);
            });
            assert_eq!(id_of_next(&mut answer).await, id);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_lets_the_last_token_out_first() {
        let (replies, mut answer) = awake().await;
        send(&replies, 1);
        let zero = Duration::ZERO;
        let done = Done {
            reason: DoneReason::Length,
            prompt_tokens: 1,
            prompt_time: zero,
            generated: 1,
            decode_time: zero,
            load_time: zero,
            total_time: zero,
        };
        replies.send(Reply::Done(done));
        let mut context = Context::from_waker(Waker::noop());
        // A token that is there is not held back.
        assert!(pin!(answer.next_of_stream()).poll(&mut context).is_ready());
        let mut end = pin!(answer.next_of_stream());
        assert!(end.as_mut().poll(&mut context).is_pending());
        assert!(matches!(end.await, Reply::Done(_)));
    }

    #[tokio::test]
    async fn an_engine_that_has_gone_fails_a_stream_and_a_client_that_has_gone_is_seen() {
        let (replies, mut answer) = awake().await;
        drop(replies);
        assert!(matches!(answer.next_of_stream().await, Reply::Failed(ApiError::EngineFailed)));
        let (replies, answer) = awake().await;
        drop(answer);
        assert!(replies.is_closed());
    }
}
