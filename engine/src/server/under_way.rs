//! One answer under way: from its job to a request that the engine takes, and from its events to replies.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::api_error::ApiError;
use super::backend::Backend;
use super::job::{Done, DoneReason, Job, Prompt, Reply, Settings};
use super::waiting::Waiting;
use super::worker::Shared;
use crate::chat_template::{ChatError, Message};
use crate::generate::{Event, Finish, GenerateError, GenerateRequest};

/// A job whose answer has been begun in a slot.
pub(super) struct UnderWay {
    pub job: Job,
    load_time: Duration,
    /// Whether its prompt is in the cache, so that a turn is a token from now on.
    pub is_prefilled: bool,
    /// When its last token came.
    last: Option<Instant>,
}

/// Begins the answer of a job in a slot and tells its client.
///
/// # Errors
/// What keeps it from being answered.
pub(super) fn begin(
    job: &Job,
    prompt: &Prompt,
    settings: &Settings,
    slot: usize,
    backend: &mut dyn Backend,
) -> Result<(), ApiError> {
    let ids = prompt_ids(backend, prompt)?;
    let context = settings.context.map_or(backend.context(), |asked| asked.min(backend.context()));
    if ids.is_empty() {
        return Err(GenerateError::EmptyPrompt.into());
    }
    if ids.len() >= context {
        return Err(GenerateError::PromptTooLong { tokens: ids.len(), context }.into());
    }
    settings.sampling.check().map_err(GenerateError::from)?;
    let room = context - ids.len();
    let request = GenerateRequest {
        prompt: ids,
        max_tokens: settings.max_tokens.map_or(room, |asked| asked.min(room)),
        sampling: settings.sampling.clone(),
        stop: settings.stop.clone(),
        ignore_eos: settings.ignore_eos,
    };
    backend.begin(slot, &request)?;
    let waiting = Waiting::beside(backend.threads());
    job.replies.send(Reply::Started { prompt: request.prompt, waiting });
    Ok(())
}

impl UnderWay {
    /// A job that [`begin`] has taken, and how long its model took to load.
    pub fn new(job: Job, load_time: Duration) -> UnderWay {
        UnderWay { job, load_time, is_prefilled: false, last: None }
    }

    /// Gives the answer its next turn, or ends it where nobody waits for it any more.
    ///
    /// # Errors
    /// [`GenerateError`] in place of the rest of the answer.
    pub fn turn(
        &mut self,
        slot: usize,
        backend: &mut dyn Backend,
        shared: &Shared,
    ) -> Result<Option<Finish>, GenerateError> {
        let UnderWay { job, is_prefilled, last, .. } = self;
        let given_up = || job.replies.is_closed() || shared.is_cancelled.load(Ordering::Relaxed);
        if given_up() {
            return Ok(Some(backend.cancel(slot)));
        }
        backend.turn(slot, &mut |event| {
            match event {
                Event::Prefilled { .. } => *is_prefilled = true,
                Event::Token { id, text } => {
                    let now = Instant::now();
                    match last.replace(now) {
                        None => shared.metrics.first_token(now - job.accepted),
                        Some(before) => shared.metrics.next_token(now - before),
                    }
                    job.replies.send(Reply::Token { id, text: text.to_owned() });
                }
                Event::Finished(_) => {}
            }
            if given_up() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// What the client hears at the end.
    pub fn last_reply(&self, finish: &Finish) -> Reply {
        let Some(reason) = DoneReason::of(finish.reason) else {
            // Either the client has left, who hears nothing of this, or the server is about to end.
            return Reply::Failed(ApiError::ShuttingDown);
        };
        Reply::Done(Done {
            reason,
            prompt_tokens: finish.prompt_tokens,
            prompt_time: finish.prompt_time,
            generated: finish.generated,
            decode_time: finish.decode_time,
            load_time: self.load_time,
            total_time: self.job.accepted.elapsed(),
        })
    }
}

fn prompt_ids(backend: &dyn Backend, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Ids(ids) => Ok(ids.clone()),
        Prompt::Raw(text) => Ok(backend.prompt_ids(text)),
        Prompt::Chat { messages, template, before } => {
            let text = match backend.chat_prompt(messages, template.as_deref()) {
                // Base models have no template: what was said is all there is to continue.
                Err(ChatError::Absent) => plain(messages),
                rendered => rendered?,
            };
            Ok([before.as_slice(), &backend.prompt_ids(&text)].concat())
        }
    }
}

fn plain(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n")
}
