//! Why a tokenizer cannot be built.

use super::pre_tokenizer;
use crate::gguf::MetaError;

/// A tokenizer that cannot be built from the file.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key is missing or has another type.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// Another kind of tokenizer than byte-level BPE.
    #[error(
        "tokenizer model `{found}` is not supported\nhint: this engine reads `gpt2` (byte-level BPE), as SmolLM, Qwen and Llama 3 have; `llama` is SentencePiece, as Llama 2 has"
    )]
    Model {
        /// What `tokenizer.ggml.model` says.
        found: String,
    },
    /// A pre-tokenizer whose rule is not known: guessing one would give other tokens than the model learnt.
    #[error("pre-tokenizer `{found}` is not supported\nhint: this engine knows {}", known())]
    PreTokenizer {
        /// What `tokenizer.ggml.pre` says.
        found: String,
    },
    /// A list that does not match the token list.
    #[error("`{key}` has {found} entries for {tokens} tokens")]
    Length {
        /// The metadata key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        tokens: usize,
    },
    /// A merge that is not two tokens with a space between.
    #[error("merge {index} is `{merge}`, not two tokens with a space between")]
    Merge {
        /// Its position in the list.
        index: usize,
        /// The entry.
        merge: String,
    },
    /// A merge names a token that does not exist.
    #[error("the merges do not fit the vocabulary: {why}")]
    Merges {
        /// What the tokenizer library says.
        why: String,
    },
    /// A special token's id is outside the vocabulary.
    #[error("`{key}` is {id}, and there are {tokens} tokens")]
    SpecialId {
        /// The metadata key.
        key: &'static str,
        /// The id.
        id: u64,
        /// The number of tokens.
        tokens: usize,
    },
}

fn known() -> String {
    pre_tokenizer::PRE_TOKENIZERS.iter().flat_map(|p| p.names).copied().collect::<Vec<_>>().join(", ")
}
