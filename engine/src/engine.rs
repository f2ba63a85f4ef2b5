//! A loaded model that answers requests: prefill in batches, then one token at a time, with an event for each.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kernels::cpu::{Cpu, Precision};
use kernels::cuda::CudaError;

use crate::backend::{self, Backend};
use crate::chat_template::{ChatError, ChatTemplate, Message};
use crate::cuda::{Counters, CudaModel};
use crate::generate::{
    DEFAULT_CONTEXT, DeviceChoice, Event, Finish, GenerateError, GenerateRequest, KvType, LoadOptions,
};
use crate::generation::Slot;
use crate::gguf::Gguf;
use crate::info::ModelInfo;
use crate::model::{Config, LoadError, Model};
use crate::tables;
use crate::tokenizer::Tokenizer;

/// A model in memory with what runs it: threads of the processor, or a CUDA device. One thread drives it: a request from its
/// begin to its end ([`Engine::generate`]), or several in turns, each in a slot of its own ([`Engine::begin`]).
#[derive(Debug)]
pub struct Engine {
    backend: Backend,
    slots: Vec<Slot>,
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
        // The disk can be read ahead while the tokenizer is built from the head of the file.
        gguf.mapping().will_need(0..gguf.mapping().bytes().len());
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let chat_template = ChatTemplate::from_gguf(gguf, &tokenizer)?.map(Arc::new);
        let (backend, device) = backend::load(gguf, &info.config, options, context)?;
        // The exact path runs plain kernels whatever was measured.
        if let (Backend::Cuda(model), Precision::Fast) = (&backend, options.precision) {
            let note = model.table_file().and_then(|file| tables::unmeasured(&file, &model.steps(0)));
            note.iter().for_each(|note| tables::say_once(note));
        }
        Ok(Engine {
            slots: (0..options.slots.get()).map(|_| Slot::new(info.config.vocab, context)).collect(),
            backend,
            context,
            options: LoadOptions { device, ..*options },
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

    /// How many answers can be under way side by side.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Positions of the KV cache of a slot: the most tokens that prompt and answer have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What the model was loaded with. Its device is the one that computes, never [`DeviceChoice::Auto`].
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// What the model computes on.
    pub fn device(&self) -> DeviceChoice {
        self.options.device
    }

    /// The type that keys and values are kept in.
    pub fn kv(&self) -> KvType {
        match &self.backend {
            Backend::Cpu(_) => self.options.kv_on_cpu(),
            Backend::Cuda(_) => self.options.kv_on_cuda(),
        }
    }

    /// The threads, the instruction set and the kernels in use, of a model on the processor.
    pub fn cpu(&self) -> Option<&Cpu> {
        match &self.backend {
            Backend::Cpu(backend) => Some(&backend.cpu),
            Backend::Cuda(_) => None,
        }
    }

    /// The model on the device, of one on a CUDA device.
    pub fn cuda(&self) -> Option<&CudaModel> {
        match &self.backend {
            Backend::Cpu(_) => None,
            Backend::Cuda(model) => Some(model),
        }
    }

    /// What was done on the device since the model was loaded, of one on a CUDA device.
    pub fn counters(&mut self) -> Option<Counters> {
        match &mut self.backend {
            Backend::Cpu(_) => None,
            Backend::Cuda(model) => Some(model.counters()),
        }
    }

    /// Hash of everything that decides which kernels run: part of every result (R26).
    pub fn table_hash(&self) -> &str {
        match &self.backend {
            Backend::Cpu(backend) => backend.cpu.table().hash(),
            Backend::Cuda(model) => model.table_hash(),
        }
    }

    /// The weights, of a model on the processor.
    pub fn model(&self) -> Option<&Model> {
        match &self.backend {
            Backend::Cpu(backend) => Some(&backend.model),
            Backend::Cuda(_) => None,
        }
    }

    /// Shapes and constants of the model.
    pub fn config(&self) -> &Config {
        &self.info.config
    }

    /// Processes tokens at positions from `pos0` on in the first slot and returns the logits after the last, `[vocab]`.
    ///
    /// # Errors
    /// What failed on the device. The processor does not fail.
    ///
    /// # Panics
    /// Where there are no tokens, or they do not fit behind what is in the context.
    pub fn feed(&mut self, ids: &[u32], pos0: usize) -> Result<&[f32], CudaError> {
        assert!(!ids.is_empty(), "a forward pass needs a token");
        assert!(pos0 + ids.len() <= self.context, "positions {pos0}..{} of {}", pos0 + ids.len(), self.context);
        self.backend.turn_to(0);
        self.backend.feed(ids, pos0)?;
        self.backend.logits()
    }

    /// Answers one request, in the first slot. `on_event` hears what happens as it happens, and breaks off by returning
    /// `Break`; after that it hears `Finished` and no more.
    ///
    /// # Errors
    /// [`GenerateError`] where the request cannot be answered; nothing was generated then, and no event was sent. Only
    /// [`GenerateError::Device`] may come later, in place of the rest of the answer.
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finish, GenerateError> {
        self.generate_unless(request, &|| false, on_event)
    }

    /// As [`Engine::generate`], and asks ahead of every batch of the prompt and every token whether the request was given up:
    /// a long prompt takes seconds in which no event is due.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_unless(
        &mut self,
        request: &GenerateRequest,
        given_up: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finish, GenerateError> {
        self.begin(0, request)?;
        loop {
            if given_up() {
                let finish = self.cancel(0);
                let _ = on_event(Event::Finished(finish));
                return Ok(finish);
            }
            if let Some(finish) = self.turn(0, on_event)? {
                return Ok(finish);
            }
        }
    }

    /// Begins to answer a request in a slot, where nothing is computed before the first turn. An answer that was under way
    /// there is forgotten.
    ///
    /// # Errors
    /// [`GenerateError`] where the request cannot be answered; what was under way goes on.
    ///
    /// # Panics
    /// Where there is no such slot.
    pub fn begin(&mut self, slot: usize, request: &GenerateRequest) -> Result<(), GenerateError> {
        self.check(request)?;
        let most = request.max_tokens.min(self.context - request.prompt.len());
        self.slots[slot].begin(request, most, &self.tokenizer);
        Ok(())
    }

    /// Gives the answer in a slot its next turn: a batch of its prompt or a token. Tokens are those that it would have alone,
    /// whatever has turns in between. `on_event` is as of [`Engine::generate`]; the end of the answer is returned with the turn
    /// that brings it, and the slot is free then.
    ///
    /// # Errors
    /// [`GenerateError::Device`] in place of the rest of the answer; the slot is free then.
    ///
    /// # Panics
    /// Where there is no such slot, or no answer under way in it.
    pub fn turn(
        &mut self,
        slot: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, GenerateError> {
        self.backend.turn_to(slot);
        Ok(self.slots[slot].turn(&mut self.backend, &self.tokenizer, on_event)?)
    }

    /// Ends the answer in a slot ahead of its next turn. The slot is free then.
    ///
    /// # Panics
    /// As [`Engine::turn`].
    pub fn cancel(&mut self, slot: usize) -> Finish {
        self.slots[slot].cancel()
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), GenerateError> {
        request.sampling.check()?;
        let (tokens, context, vocab) = (request.prompt.len(), self.context, self.config().vocab);
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
