//! What the server needs of an engine. The real one is [`EngineLoader`](super::EngineLoader); tests use a script.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use crate::chat_template::{ChatError, Message};
use crate::cuda::Counters;
use crate::generate::{DeviceChoice, Event, Finish, GenerateError, GenerateRequest, KvType};

/// A loaded model, used by one thread at a time. Its answers take turns, each in a slot of its own.
pub trait Backend: Send {
    /// Positions of the KV cache of a slot: prompt and answer together.
    fn context(&self) -> usize;

    /// What it computes on.
    fn device(&self) -> DeviceFacts;

    /// Threads that it computes on; `None` where no number of them makes a difference.
    fn threads(&self) -> Option<usize>;

    /// Bytes of memory that the model holds, weights and the KV cache of every slot.
    fn memory_bytes(&self) -> u64;

    /// What was done on the GPU since the model was loaded; `None` on the processor.
    fn counters(&mut self) -> Option<Counters>;

    /// The tokens of a prompt, special tokens parsed and BOS added where the model asks for it.
    fn prompt_ids(&self, text: &str) -> Vec<u32>;

    /// The prompt of a conversation by the model's chat template, or by `template` where one is given.
    ///
    /// # Errors
    /// [`ChatError::Absent`] for a model without a template, and what the template itself refuses.
    fn chat_prompt(&self, messages: &[Message], template: Option<&str>) -> Result<String, ChatError>;

    /// Begins an answer in a slot; see [`Engine::begin`](crate::engine::Engine::begin).
    ///
    /// # Errors
    /// [`GenerateError`] where the request cannot be answered.
    fn begin(&mut self, slot: usize, request: &GenerateRequest) -> Result<(), GenerateError>;

    /// Gives the answer in a slot its next turn; see [`Engine::turn`](crate::engine::Engine::turn).
    ///
    /// # Errors
    /// [`GenerateError`] in place of the rest of the answer.
    fn turn(
        &mut self,
        slot: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, GenerateError>;

    /// Ends the answer in a slot ahead of its next turn.
    fn cancel(&mut self, slot: usize) -> Finish;
}

/// What a loaded model computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// As the command line writes it.
    pub device: DeviceChoice,
    /// The GPU's name; `None` on the processor.
    pub name: Option<String>,
    /// Bytes of memory that the model holds on the GPU.
    pub vram_bytes: u64,
    /// The type that keys and values are kept in.
    pub kv: KvType,
    /// Hash of everything that decides which kernels run.
    pub table_hash: String,
}

/// Why a model could not be loaded or read: the engine's own error, of which the server only shows the text.
pub type LoadFailure = Box<dyn std::error::Error + Send + Sync>;

/// What a request may ask of the way its model is loaded. `None` leaves it to the server's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadWish {
    /// Positions of the KV cache.
    pub context: Option<usize>,
    /// Worker threads.
    pub threads: Option<usize>,
}

/// Loads models and reads what their files say.
pub trait Loader: Send + Sync {
    /// The slots of every model that is loaded.
    fn slots(&self) -> NonZeroUsize;

    /// Loads a model.
    ///
    /// # Errors
    /// Whatever keeps the file from being loaded.
    fn load(&self, path: &Path, wish: &LoadWish) -> Result<Box<dyn Backend>, LoadFailure>;

    /// Reads a model's header, without loading the model.
    ///
    /// # Errors
    /// Whatever keeps the file from being read.
    fn inspect(&self, path: &Path) -> Result<ModelFacts, LoadFailure>;
}

/// What a model's file says about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFacts {
    /// `llama`, `qwen2`, …
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// The name of the file's quantisation, such as `Q4_1`.
    pub quantization: String,
    /// The context that the model was trained for.
    pub context_train: usize,
    /// The chat template, if the file has one.
    pub template: Option<String>,
    /// All metadata; long arrays are null.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl ModelFacts {
    /// The number of weights as people write it: `134.5M`, `1.5B`.
    pub fn parameter_size(&self) -> String {
        let n = self.parameters as f64;
        match self.parameters {
            0..1_000_000 => format!("{:.1}K", n / 1e3),
            1_000_000..1_000_000_000 => format!("{:.1}M", n / 1e6),
            _ => format!("{:.1}B", n / 1e9),
        }
    }
}
