//! The engine behind the server.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kernels::cpu::Cpu;

use super::backend::{Backend, DeviceFacts, LoadFailure, LoadWish, Loader, ModelFacts};
use crate::chat_template::{ChatError, ChatTemplate, Message};
use crate::cuda::{Counters, CudaModel};
use crate::engine::Engine;
use crate::generate::{Event, Finish, GenerateError, GenerateRequest, LoadOptions};
use crate::gguf::Gguf;
use crate::info::ModelInfo;

/// Loads models into [`Engine`]s.
#[derive(Clone, Debug)]
pub struct EngineLoader {
    /// How models are loaded where a request does not say otherwise.
    pub options: LoadOptions,
}

impl Loader for EngineLoader {
    fn slots(&self) -> NonZeroUsize {
        self.options.slots
    }

    fn load(&self, path: &Path, wish: &LoadWish) -> Result<Box<dyn Backend>, LoadFailure> {
        let gguf = Gguf::open(path)?;
        // A request may ask for more than the model was trained for, as clients with one setting for all models
        // do; it gets what there is. The same on the command line is a mistake, and the engine says so.
        let most = ModelInfo::from_gguf(&gguf)?.config.context_train;
        let context = wish.context.map(|asked| asked.clamp(2, most.max(2))).or(self.options.context);
        let threads = wish.threads.or(self.options.threads);
        let engine = Engine::from_gguf(&gguf, &LoadOptions { context, threads, ..self.options })?;
        Ok(Box::new(engine))
    }

    fn inspect(&self, path: &Path) -> Result<ModelFacts, LoadFailure> {
        let info = ModelInfo::read(path)?;
        Ok(ModelFacts {
            architecture: info.config.architecture.name().to_owned(),
            parameters: info.parameters(),
            quantization: info.quantization,
            context_train: info.config.context_train,
            template: info.chat_template,
            metadata: info.metadata,
        })
    }
}

impl Backend for Engine {
    fn context(&self) -> usize {
        Engine::context(self)
    }

    fn device(&self) -> DeviceFacts {
        DeviceFacts {
            device: Engine::device(self),
            name: self.cuda().map(|model| model.device().facts().name.clone()),
            vram_bytes: self.cuda().map_or(0, CudaModel::vram),
            kv: self.kv(),
            table_hash: self.table_hash().to_owned(),
        }
    }

    fn threads(&self) -> Option<usize> {
        self.cpu().map(Cpu::threads)
    }

    fn memory_bytes(&self) -> u64 {
        if let Some(model) = self.cuda() {
            return model.vram();
        }
        let info = self.info();
        let kv = info.kv_bytes_per_position(self.kv()).0 * (self.context() * self.slots()) as u64;
        info.file_bytes.0 + kv
    }

    fn counters(&mut self) -> Option<Counters> {
        Engine::counters(self)
    }

    fn prompt_ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer().encode_prompt(text)
    }

    fn chat_prompt(&self, messages: &[Message], template: Option<&str>) -> Result<String, ChatError> {
        let own = self.chat_template();
        match template {
            None => own.map(Arc::as_ref).ok_or(ChatError::Absent)?.render(messages),
            Some(source) => {
                let tokenizer = self.tokenizer();
                let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
                ChatTemplate::new(source, &text(tokenizer.bos()), &text(tokenizer.eos()))?.render(messages)
            }
        }
    }

    fn begin(&mut self, slot: usize, request: &GenerateRequest) -> Result<(), GenerateError> {
        Engine::begin(self, slot, request)
    }

    fn turn(
        &mut self,
        slot: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, GenerateError> {
        Engine::turn(self, slot, on_event)
    }

    fn cancel(&mut self, slot: usize) -> Finish {
        Engine::cancel(self, slot)
    }
}
