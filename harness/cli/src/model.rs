//! The model of a run: its facts, its tokenizer, and prompts rendered through its own chat template.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use engine::chat_template::{ChatTemplate, Message};
use engine::generate::KvType;
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::models::{self, PullSettings, Source, Store, StoreError, TerminalProgress};
use engine::tokenizer::{Specials, Tokenizer};
use harness_spec::record::{ModelFacts, TensorGroup};

/// A prompt as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The raw text.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
}

/// What a comparison asks of a model. A scripted one stands in for it in tests.
pub trait Model {
    /// Facts for the record.
    fn facts(&self) -> &ModelFacts;
    /// The file, if there is one.
    fn path(&self) -> Option<&Path>;
    /// Whether the tokenizer puts a BOS token before a raw prompt.
    fn adds_bos(&self) -> bool;
    /// The tokenizer in words.
    fn tokenizer(&self) -> String;
    /// Renders a user's prompt with a nonce.
    ///
    /// # Errors
    /// What the template refuses.
    fn render(&self, prompt: &str, nonce: &str) -> anyhow::Result<Rendered>;
    /// Ids of a text alone.
    fn ids(&self, text: &str) -> Vec<u32>;
}

/// A GGUF file.
pub struct GgufModel {
    facts: ModelFacts,
    path: PathBuf,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Whether the template puts text of its own before the first user turn.
    leads_with_text: bool,
}

/// Longest lead of a template, in tokens, that is markup alone.
const MARKUP_ONLY: usize = 8;

/// Refuses what [`open`] would refuse before it reads or pulls anything: a path where no file is, a folder, no name at all.
///
/// # Errors
/// What the store says of it.
pub fn check_path(word: &str) -> anyhow::Result<()> {
    match models::resolve(&Store::of_this_user()?, word) {
        Ok(_) | Err(StoreError::Unknown { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Finds the model of a word, pulling it where the store lacks it.
///
/// # Errors
/// What the store, the pull or the file says.
pub async fn open(word: &str, context: u32, kv: KvType) -> anyhow::Result<GgufModel> {
    let store = Store::of_this_user()?;
    let entry = match models::resolve(&store, word) {
        Ok(entry) => entry,
        Err(StoreError::Unknown { .. }) => {
            eprintln!("{word} is not in {}: pulling it", store.dir().display());
            let source = Source::parse(word)?;
            let name = source.default_name();
            let mut bar = TerminalProgress::new();
            models::pull_model(&store, &source, &name, &PullSettings::from_env(), &mut bar)
                .await
                .with_context(|| format!("pulling {word}"))?
        }
        Err(e) => return Err(e.into()),
    };
    let known = entry.sha256.as_ref().map(|d| d.as_str().to_owned());
    GgufModel::read(word, &entry.path, known, context, kv)
}

impl GgufModel {
    /// Reads a file's header, tokenizer and template; hashes it unless `sha256` is known. `kv` is the type that keys and
    /// values will be kept in.
    ///
    /// # Errors
    /// What makes the file unfit.
    pub fn read(
        name: &str,
        path: &Path,
        sha256: Option<String>,
        context: u32,
        kv: KvType,
    ) -> anyhow::Result<GgufModel> {
        let doing = || format!("reading {}", path.display());
        let gguf = Gguf::open(path).with_context(doing)?;
        let info = ModelInfo::from_gguf(&gguf).with_context(doing)?;
        let tokenizer = Tokenizer::from_gguf(&gguf).with_context(doing)?;
        let template = ChatTemplate::from_gguf(&gguf, &tokenizer).with_context(doing)?;
        let sha256 = match sha256 {
            Some(known) => known,
            None => info.sha256().with_context(doing)?.to_owned(),
        };
        if info.config.context_train < context as usize {
            return Err(anyhow!(
                "{name} was trained for a context of {}, --ctx asks for {context}\nhint: lower --ctx",
                info.config.context_train
            ));
        }
        let facts = ModelFacts {
            name: name.to_owned(),
            sha256,
            file_bytes: info.file_bytes.0,
            architecture: info.config.architecture.name().to_owned(),
            parameters: info.parameters(),
            tensors: info
                .weights
                .tensors
                .iter()
                .map(|(t, f)| (t.name().to_owned(), TensorGroup { count: f.count as u64, bytes: f.bytes }))
                .collect(),
            weight_bytes_per_token: info.weight_bytes_per_token().0,
            kv_bytes_per_position: info.kv_bytes_per_position(kv).0,
            layers: info.config.layers as u32,
            context,
        };
        let mut model = GgufModel { facts, path: path.to_owned(), tokenizer, template, leads_with_text: false };
        model.leads_with_text = model.lead_tokens()? > MARKUP_ONLY;
        Ok(model)
    }

    /// Raw prompts get their BOS from the tokenizer, on both sides; a template that writes one as text would double it.
    fn without_bos(&self, text: String) -> String {
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos()).map(|id| self.tokenizer.token_text(id));
        match bos.filter(|b| !b.is_empty()).and_then(|b| text.strip_prefix(&b).map(str::to_owned)) {
            Some(rest) => rest,
            None => text,
        }
    }

    /// Tokens that the template puts before the text of the first user turn.
    fn lead_tokens(&self) -> anyhow::Result<usize> {
        const MARK: &str = "31415926";
        let Some(template) = &self.template else { return Ok(0) };
        let text = template.render(&[Message::new("user", MARK)])?;
        let lead = text.split(MARK).next().unwrap_or_default();
        Ok(self.tokenizer.encode(lead, Specials::Parse).len())
    }
}

impl Model for GgufModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn adds_bos(&self) -> bool {
        self.tokenizer.adds_bos()
    }

    fn tokenizer(&self) -> String {
        format!("{} ({} tokens)", self.tokenizer.pre_tokenizer(), self.tokenizer.vocab_size())
    }

    /// The nonce begins the first user turn. Where the template leads with a system text of its own, which every prompt
    /// would share and a prefix cache could keep, the system turn is given explicitly and begins with the nonce as well.
    fn render(&self, prompt: &str, nonce: &str) -> anyhow::Result<Rendered> {
        let user = format!("[{nonce}] {prompt}");
        let text = match &self.template {
            None => user,
            Some(template) => {
                let mut messages = Vec::new();
                if self.leads_with_text {
                    // It asks for long answers, so that few runs end before the length that was asked for.
                    messages.push(Message::new(
                        "system",
                        format!("[{nonce}] You are a helpful assistant. Answer at length and in detail."),
                    ));
                }
                messages.push(Message::new("user", user));
                self.without_bos(template.render(&messages)?)
            }
        };
        let ids = self.tokenizer.encode_prompt(&text);
        Ok(Rendered { text, ids })
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, Specials::Text)
    }
}
