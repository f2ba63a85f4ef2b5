//! Text to token ids and back, by the vocabulary, merges and rules in the model file.

pub(crate) mod byte_text;
mod error;
mod pre_tokenizer;
mod stream;

use std::collections::BTreeSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, AddedVocabulary, Model as _, OffsetReferential, OffsetType, PreTokenizer as _, SplitDelimiterBehavior,
};

use crate::gguf::Gguf;
pub use error::TokenizerError;
pub use stream::TextStream;

/// A tokenizer read from a model file: byte-level BPE.
pub struct Tokenizer {
    bpe: BPE,
    splits: Vec<Split>,
    byte_level: ByteLevel,
    /// Every token that text may name: control, user-defined and unknown ones.
    specials: AddedVocabulary,
    /// The user-defined ones alone, which are found even in text whose control tokens are not to be parsed.
    user_defined: AddedVocabulary,
    pieces: Pieces,
    kinds: Vec<TokenKind>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    stop_ids: Vec<u32>,
    pre: String,
}

/// The bytes of all tokens in one buffer: a vector of vectors would cost as much again in headers.
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    longest: usize,
}

/// What a token is for, as the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Part of text.
    Normal,
    /// Stands for text outside the vocabulary.
    Unknown,
    /// Steers the model and is never shown.
    Control,
    /// Added by the model's author; shown as it is written.
    UserDefined,
    /// A filler.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl TokenKind {
    fn from_id(id: i64) -> TokenKind {
        match id {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// Whether text may name control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// `<|im_end|>` in the text is the token of that name: for rendered templates and raw prompts.
    Parse,
    /// `<|im_end|>` in the text is six ordinary pieces of text: for what a user typed.
    Text,
}

/// Tokens that end a turn whatever the file's end-token keys say: many files name only one of those their model uses.
/// The list is llama.cpp's, so that both sides of a comparison stop at the same place.
const STOP_TEXTS: [&str; 18] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<eos>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

impl Tokenizer {
    /// Builds the tokenizer that the file describes.
    ///
    /// # Errors
    /// [`TokenizerError`] names what is missing, unknown or inconsistent.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let model = gguf.str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::Model { found: model.to_owned() });
        }
        let pre = gguf.opt_str("tokenizer.ggml.pre")?.unwrap_or("default");
        let rule = pre_tokenizer::by_name(pre).ok_or_else(|| TokenizerError::PreTokenizer { found: pre.to_owned() })?;

        let tokens = gguf.array_len("tokenizer.ggml.tokens").unwrap_or(0);
        let kinds = token_kinds(gguf, tokens)?;
        let mut vocab = Vocab::default();
        let mut pieces = Pieces { bytes: Vec::new(), ends: Vec::new(), longest: 0 };
        let mut specials = Vec::new();
        let mut user_defined = Vec::new();
        let mut stop_ids = BTreeSet::new();
        for (id, text) in (0u32..).zip(gguf.strings("tokenizer.ggml.tokens")?) {
            let text = text?;
            let kind = kinds[id as usize];
            pieces.push(text, kind);
            vocab.insert(text.to_owned(), id);
            let added = || AddedToken::from(text, kind != TokenKind::UserDefined).normalized(false);
            if matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown) {
                specials.push(added());
            }
            if kind == TokenKind::UserDefined {
                user_defined.push(added());
            }
            if kind == TokenKind::Control && STOP_TEXTS.contains(&text) {
                stop_ids.insert(id);
            }
        }

        let special = |key| special_id(gguf, key, tokens);
        let eos = special("tokenizer.ggml.eos_token_id")?;
        let eot = special("tokenizer.ggml.eot_token_id")?;
        let eom = special("tokenizer.ggml.eom_token_id")?;
        stop_ids.extend([eos, eot, eom].into_iter().flatten());

        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges(gguf)?)
            .ignore_merges(rule.ignore_merges)
            .build()
            .map_err(|error| TokenizerError::Merges { why: error.to_string() })?;
        let added_vocabulary = |tokens: &[AddedToken]| {
            let mut added = AddedVocabulary::new();
            added.add_tokens(tokens, &bpe, None::<&NormalizerWrapper>);
            added
        };
        let split = |pattern: &&str| {
            Split::new(SplitPattern::Regex((*pattern).to_owned()), SplitDelimiterBehavior::Isolated, false)
                .expect("the expressions are constants, and a test builds each")
        };
        Ok(Tokenizer {
            specials: added_vocabulary(&specials),
            user_defined: added_vocabulary(&user_defined),
            bpe,
            splits: rule.patterns.iter().map(split).collect(),
            byte_level: ByteLevel::new(false, false, false),
            pieces,
            kinds,
            bos: special("tokenizer.ggml.bos_token_id")?,
            eos,
            add_bos: gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(rule.add_bos),
            add_eos: gguf.opt_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            stop_ids: stop_ids.into_iter().collect(),
            pre: pre.to_owned(),
        })
    }

    /// The tokens of a text, and nothing added to them.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let added = match specials {
            Specials::Parse => &self.specials,
            Specials::Text => &self.user_defined,
        };
        let mut words = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        // None of the three steps has a failing case in this configuration: splits and the byte alphabet accept any
        // text, and BPE without an unknown token skips what it does not know.
        for split in &self.splits {
            split.pre_tokenize(&mut words).expect("a split accepts any text");
        }
        self.byte_level.pre_tokenize(&mut words).expect("the byte alphabet covers any text");
        words.tokenize(|word| self.bpe.tokenize(word.get())).expect("BPE without dropout accepts any text");
        let mut ids = Vec::new();
        for (_, _, tokens) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            ids.extend(tokens.iter().flatten().map(|token| token.id));
        }
        ids
    }

    /// The tokens of a prompt: special tokens parsed, BOS and EOS added where the file asks for them. A prompt that
    /// begins with BOS already, as some chat templates make it, gets no second one.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        let mut ids = self.encode(text, Specials::Parse);
        if let (true, Some(bos)) = (self.add_bos, self.bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        if let (true, Some(eos)) = (self.add_eos, self.eos) {
            ids.push(eos);
        }
        ids
    }

    /// The text of a sequence of tokens. Control tokens have none.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.piece(id));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of one token, which need not be whole characters; none for control tokens and unknown ids.
    pub fn piece(&self, id: u32) -> &[u8] {
        match self.kinds.get(id as usize) {
            None | Some(TokenKind::Control | TokenKind::Unknown) => &[],
            Some(_) => self.pieces.get(id),
        }
    }

    /// The token as the vocabulary writes it, control tokens included; empty for an unknown id.
    pub fn token_text(&self, id: u32) -> String {
        match self.kinds.get(id as usize) {
            None => String::new(),
            Some(_) => String::from_utf8_lossy(self.pieces.get(id)).into_owned(),
        }
    }

    /// The id of the token written like this in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.bpe.token_to_id(text)
    }

    /// What a token is for.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }

    /// Tokens that end generation: EOS, EOT and EOM of the metadata, and control tokens known to end a turn. Sorted.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a prompt begins with BOS.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// The name of the rule that cuts text into words.
    pub fn pre_tokenizer(&self) -> &str {
        &self.pre
    }

    /// Bytes of the longest token.
    pub(crate) fn longest_piece(&self) -> usize {
        self.pieces.longest
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("pre", &self.pre)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Pieces {
    fn push(&mut self, text: &str, kind: TokenKind) {
        let start = self.bytes.len();
        let byte_token = || u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
        match kind {
            TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown => self.bytes.extend(text.as_bytes()),
            TokenKind::Byte if byte_token().is_some() => self.bytes.extend(byte_token()),
            _ => {
                for c in text.chars() {
                    match byte_text::byte_of(c) {
                        Some(byte) => self.bytes.push(byte),
                        // A token outside the byte alphabet is kept as it is written.
                        None => self.bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
        }
        self.longest = self.longest.max(self.bytes.len() - start);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..self.ends[id] as usize]
    }
}

fn token_kinds(gguf: &Gguf, tokens: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    match gguf.opt_ints(key)? {
        None => Ok(vec![TokenKind::Normal; tokens]),
        Some(kinds) if kinds.len() == tokens => Ok(kinds.into_iter().map(TokenKind::from_id).collect()),
        Some(kinds) => Err(TokenizerError::Length { key, found: kinds.len(), tokens }),
    }
}

fn merges(gguf: &Gguf) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut merges = Vec::new();
    for (index, merge) in gguf.strings("tokenizer.ggml.merges")?.enumerate() {
        let merge = merge?;
        // A part may itself begin with a space, so the search starts behind the first character.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let Some(space) = merge[first..].find(' ').map(|at| first + at) else {
            return Err(TokenizerError::Merge { index, merge: merge.to_owned() });
        };
        merges.push((merge[..space].to_owned(), merge[space + 1..].to_owned()));
    }
    Ok(merges)
}

fn special_id(gguf: &Gguf, key: &'static str, tokens: usize) -> Result<Option<u32>, TokenizerError> {
    match gguf.opt_uint(key)? {
        None => Ok(None),
        Some(id) if id < tokens as u64 => Ok(Some(id as u32)),
        Some(id) => Err(TokenizerError::SpecialId { key, id, tokens }),
    }
}
