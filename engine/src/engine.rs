//! A loaded model that answers requests: prefill in batches, then one token at a time, with an event for each.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::cpu::{Cpu, CpuOptions};
use variants::Isa;

use crate::chat_template::{ChatError, ChatTemplate, Message};
use crate::forward::{BATCH, Scratch, Wanted, forward};
use crate::generate::{DEFAULT_CONTEXT, Event, Finish, FinishReason, GenerateError, GenerateRequest, LoadOptions};
use crate::gguf::Gguf;
use crate::info::ModelInfo;
use crate::kv_cache::KvCache;
use crate::model::{Config, LoadError, Model, load_model};
use crate::sampler::Sampler;
use crate::stop::StopMatcher;
use crate::tables;
use crate::tokenizer::{TextStream, Tokenizer};

/// A model in memory with the threads that run it. One request at a time.
#[derive(Debug)]
pub struct Engine {
    cpu: Cpu,
    model: Model,
    scratch: Scratch,
    kv: KvCache,
    sampler: Sampler,
    /// Prompt and generated tokens of the current request.
    history: Vec<u32>,
    context: usize,
    options: LoadOptions,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<Arc<ChatTemplate>>,
    info: Arc<ModelInfo>,
}

impl Engine {
    /// Loads a model.
    ///
    /// # Errors
    /// [`LoadError`] where the file is no model that the engine runs, or the options ask for what this machine lacks.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Engine, LoadError> {
        Engine::from_gguf(&Gguf::open(path)?, options)
    }

    /// Loads a model from an open file.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn from_gguf(gguf: &Gguf, options: &LoadOptions) -> Result<Engine, LoadError> {
        let info = ModelInfo::from_gguf(gguf)?;
        let context = context(&info.config, options)?;
        let cpu = start_cpu(options)?;
        // The disk can be read ahead while the tokenizer is built from the head of the file.
        gguf.mapping().will_need(0..gguf.mapping().bytes().len());
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let chat_template = ChatTemplate::from_gguf(gguf, &tokenizer)?.map(Arc::new);
        let model = load_model(gguf, &cpu, options.precision)?;
        cpu.take_notes().iter().for_each(|note| tables::say_once(note));
        let kv = KvCache::new(&model.config, options.kv, context);
        let scratch = Scratch::new(&model);
        Ok(Engine {
            sampler: Sampler::new(model.config.vocab),
            history: Vec::with_capacity(context),
            cpu,
            model,
            scratch,
            kv,
            context,
            options: *options,
            tokenizer: Arc::new(tokenizer),
            chat_template,
            info: Arc::new(info),
        })
    }

    /// Facts about the model's file.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model's chat template, where its file has one.
    pub fn chat_template(&self) -> Option<&Arc<ChatTemplate>> {
        self.chat_template.as_ref()
    }

    /// The prompt that the model's own template makes of a conversation.
    ///
    /// # Errors
    /// [`ChatError::Absent`] where the file has no template: [`plain`](crate::chat_template::plain) is what is left
    /// then. Else what the template refuses.
    pub fn render_chat(&self, messages: &[Message]) -> Result<String, ChatError> {
        self.chat_template.as_ref().ok_or(ChatError::Absent)?.render(messages)
    }

    /// Positions of the KV cache: the most tokens that prompt and answer have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What the model was loaded with.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// The threads, the instruction set and the kernels in use.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Hash of everything that decides which kernels run: part of every result (R26).
    pub fn table_hash(&self) -> &str {
        self.cpu.table().hash()
    }

    /// The weights.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Processes tokens at positions from `pos0` on and returns the logits after the last, `[vocab]`.
    ///
    /// # Panics
    /// Where there are no tokens, or they do not fit behind what is in the context.
    pub fn feed(&mut self, ids: &[u32], pos0: usize) -> &[f32] {
        forward(&self.cpu, &self.model, &mut self.kv, ids, pos0, &mut self.scratch, Wanted::Last)
    }

    /// Answers one request. `on_event` hears what happens as it happens, and breaks off by returning `Break`; after
    /// that it hears `Finished` and no more.
    ///
    /// # Errors
    /// [`GenerateError`] where the request cannot be answered; nothing was generated then, and no event was sent.
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finish, GenerateError> {
        self.generate_unless(request, &|| false, on_event)
    }

    /// As [`Engine::generate`], and asks between the batches of the prompt whether the request was given up: a long
    /// prompt takes seconds in which no event is due.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_unless(
        &mut self,
        request: &GenerateRequest,
        given_up: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finish, GenerateError> {
        self.check(request)?;
        let start = Instant::now();
        let prompt_tokens = request.prompt.len();
        let most = request.max_tokens.min(self.context - prompt_tokens);
        self.sampler.start(&request.sampling);
        self.history.clear();
        self.history.extend_from_slice(&request.prompt);
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut text = TextStream::new(&tokenizer);
        let mut stops = StopMatcher::new(&request.stop, text.capacity());

        // All batches but the last only fill the cache.
        let (head, last) = request.prompt.split_at((prompt_tokens - 1) / BATCH * BATCH);
        let mut cancelled = false;
        for (i, batch) in head.chunks(BATCH).enumerate() {
            cancelled = given_up();
            if cancelled {
                break;
            }
            forward(&self.cpu, &self.model, &mut self.kv, batch, i * BATCH, &mut self.scratch, Wanted::None);
        }
        let mut logits = match cancelled {
            true => &[],
            false => forward(&self.cpu, &self.model, &mut self.kv, last, head.len(), &mut self.scratch, Wanted::Last),
        };
        let prompt_time = start.elapsed();
        let finish =
            |reason, generated, decode_time| Finish { reason, prompt_tokens, prompt_time, generated, decode_time };
        let prefilled = Event::Prefilled { prompt_tokens, cached_tokens: 0, elapsed: prompt_time };
        if cancelled || on_event(prefilled).is_break() {
            let finish = finish(FinishReason::Cancelled, 0, Duration::ZERO);
            let _ = on_event(Event::Finished(finish));
            return Ok(finish);
        }

        let decode_start = Instant::now();
        let mut generated = 0;
        let mut reason = FinishReason::Length;
        while generated < most {
            let id = self.sampler.sample(logits, &self.history);
            generated += 1;
            self.history.push(id);
            let ends = !request.ignore_eos && tokenizer.stop_ids().binary_search(&id).is_ok();
            let last = ends || generated == most;
            // The last token brings all text that was held back.
            let (shown, stopped) = match last {
                false => stops.push(text.push(&tokenizer, id)),
                true => stops.finish(text.push_last(&tokenizer, id)),
            };
            if ends || stopped {
                reason = FinishReason::Stop;
            }
            if on_event(Event::Token { id, text: shown }).is_break() {
                reason = FinishReason::Cancelled;
                break;
            }
            if last || stopped {
                break;
            }
            let pos = prompt_tokens + generated - 1;
            logits = forward(&self.cpu, &self.model, &mut self.kv, &[id], pos, &mut self.scratch, Wanted::Last);
        }
        let finish = finish(reason, generated, decode_start.elapsed());
        // The request is over either way, so there is nothing left to break off.
        let _ = on_event(Event::Finished(finish));
        Ok(finish)
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), GenerateError> {
        request.sampling.check()?;
        let (tokens, context, vocab) = (request.prompt.len(), self.context, self.model.config.vocab);
        if tokens == 0 {
            return Err(GenerateError::EmptyPrompt);
        }
        if tokens >= context {
            return Err(GenerateError::PromptTooLong { tokens, context });
        }
        match request.prompt.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(GenerateError::UnknownToken { id, vocab }),
            None => Ok(()),
        }
    }
}

fn context(config: &Config, options: &LoadOptions) -> Result<usize, LoadError> {
    let most = config.context_train;
    match options.context {
        None => Ok(most.min(DEFAULT_CONTEXT)),
        Some(asked) if asked >= 2 && asked <= most => Ok(asked),
        Some(asked) => Err(LoadError::Context { asked, most }),
    }
}

/// The instruction set that `EDGELLM_ISA` names, for trying a lower one without changing a program.
fn isa_from_environment() -> Result<Option<Isa>, LoadError> {
    match std::env::var("EDGELLM_ISA") {
        Ok(word) if !word.is_empty() => Ok(Some(word.parse()?)),
        _ => Ok(None),
    }
}

fn start_cpu(options: &LoadOptions) -> Result<Cpu, LoadError> {
    let best = Isa::detect();
    let isa = match options.isa {
        Some(isa) => isa,
        None => isa_from_environment()?.unwrap_or(best),
    };
    if !best.runs(isa) {
        return Err(LoadError::Isa { asked: isa, best });
    }
    let threads = match options.threads {
        Some(0) => return Err(LoadError::NoThreads),
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (table, note) = tables::choose(options.table, isa, threads)?;
    if let Some(note) = note {
        tables::say_once(&note);
    }
    Ok(Cpu::new(CpuOptions { threads, isa, table, pin: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_can_be_handed_to_another_thread_and_its_parts_shared() {
        fn send<T: Send + 'static>() {}
        fn shared<T: Send + Sync + 'static>() {}
        send::<Engine>();
        shared::<Tokenizer>();
        shared::<ChatTemplate>();
        shared::<ModelInfo>();
        shared::<LoadError>();
    }
}
