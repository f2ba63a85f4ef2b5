//! Suites: named lists of prompts and lengths, frozen in `suites/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness_spec::record::{PromptFacts, SuiteFacts};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The suites that are part of the program: name, text.
const SUITES: [(&str, &str); 3] = [
    ("protocol", include_str!("../../../suites/protocol.toml")),
    ("general", include_str!("../../../suites/general.toml")),
    ("quick", include_str!("../../../suites/quick.toml")),
];

/// The prompt sets that are part of the program.
const PROMPTS: [(&str, &str); 2] = [
    ("protocol", include_str!("../../../suites/prompts/protocol.toml")),
    ("general", include_str!("../../../suites/prompts/general.toml")),
];

/// A list of prompts and the lengths to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Name.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Prompts in the order they are cycled.
    pub prompts: Vec<SuitePrompt>,
    /// Generated tokens to ask for.
    pub lengths: Vec<u64>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuitePrompt {
    /// Short id, unique in the suite.
    pub id: String,
    /// The text of the user's turn.
    pub text: String,
    /// SHA-256 of the text, hex.
    pub sha256: String,
    /// Token ids of the text by tokenizer.
    #[serde(default)]
    pub token_ids: BTreeMap<String, Vec<u32>>,
    /// Tokens that the whole prompt has, of one that only fills the context.
    #[serde(skip)]
    pub depth: Option<u64>,
}

/// Characters of a prompt that only fills the context which a record keeps.
const KEPT_TEXT: usize = 120;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    name: String,
    description: String,
    prompts: String,
    lengths: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptFile {
    prompt: Vec<SuitePrompt>,
}

/// Why there is no suite.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// No such name and no such file.
    #[error("unknown suite `{0}`\nhint: use {known}, or the path of a suite file", known = names())]
    Unknown(String),
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not a suite.
    #[error("{path} is not a suite: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A text that was changed after it was frozen.
    #[error(
        "prompt `{id}` was changed: its text has SHA-256 {found}, the file says {said}\nhint: give a changed text a new id"
    )]
    Hash {
        /// Which.
        id: String,
        /// Of the text.
        found: String,
        /// In the file.
        said: String,
    },
    /// Nothing to run.
    #[error("suite `{0}` has no prompt or no length")]
    Empty(String),
    /// An id that names two prompts.
    #[error("suite `{suite}` has two prompts with the id `{id}`")]
    Duplicate {
        /// Where.
        suite: String,
        /// Which.
        id: String,
    },
}

/// The names of the built-in suites, for messages.
fn names() -> String {
    SUITES.map(|(name, _)| name).join(", ")
}

/// Every built-in suite.
///
/// # Errors
/// None in a program that passed its tests; a test loads each.
pub fn built_in() -> Result<Vec<Suite>, SuiteError> {
    SUITES.iter().map(|(name, _)| load(name)).collect()
}

/// The suite of a name, or of a file.
///
/// # Errors
/// [`SuiteError`], each with the fix.
pub fn load(word: &str) -> Result<Suite, SuiteError> {
    if let Some((_, text)) = SUITES.iter().find(|(name, _)| *name == word) {
        return parse(text, Path::new(word));
    }
    let path = Path::new(word);
    if !path.is_file() {
        return Err(SuiteError::Unknown(word.to_owned()));
    }
    parse(&read(path)?, path)
}

fn read(path: &Path) -> Result<String, SuiteError> {
    std::fs::read_to_string(path).map_err(|source| SuiteError::Read { path: path.to_owned(), source })
}

fn parse(text: &str, path: &Path) -> Result<Suite, SuiteError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |e| SuiteError::Parse { path, source: Box::new(e) }
    };
    let file: SuiteFile = toml::from_str(text).map_err(bad(path))?;
    let prompts: PromptFile = match PROMPTS.iter().find(|(name, _)| *name == file.prompts) {
        Some((_, text)) => toml::from_str(text).map_err(bad(path))?,
        None => {
            let beside = path.parent().unwrap_or(Path::new(".")).join(&file.prompts);
            toml::from_str(&read(&beside)?).map_err(bad(&beside))?
        }
    };
    check(Suite { name: file.name, description: file.description, prompts: prompts.prompt, lengths: file.lengths })
}

fn check(suite: Suite) -> Result<Suite, SuiteError> {
    if suite.prompts.is_empty() || suite.lengths.is_empty() {
        return Err(SuiteError::Empty(suite.name));
    }
    for (i, p) in suite.prompts.iter().enumerate() {
        let found = sha256_hex(p.text.as_bytes());
        if found != p.sha256 {
            return Err(SuiteError::Hash { id: p.id.clone(), found, said: p.sha256.clone() });
        }
        if suite.prompts[..i].iter().any(|q| q.id == p.id) {
            return Err(SuiteError::Duplicate { suite: suite.name, id: p.id.clone() });
        }
    }
    Ok(suite)
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Suite {
    /// The suite as a record has it; `ids` tokenises a text.
    pub fn facts(&self, lengths: &[u64], ids: impl Fn(&str) -> Vec<u32>) -> SuiteFacts {
        SuiteFacts {
            name: self.name.clone(),
            prompts: self
                .prompts
                .iter()
                .map(|p| PromptFacts {
                    id: p.id.clone(),
                    text: match p.depth {
                        Some(_) => p.text.chars().take(KEPT_TEXT).chain(Some('…')).collect(),
                        None => p.text.clone(),
                    },
                    sha256: p.sha256.clone(),
                    token_ids: if p.depth.is_some() { Vec::new() } else { ids(&p.text) },
                    depth: p.depth,
                })
                .collect(),
            lengths: lengths.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_hold_exactly_the_prompts_that_were_agreed() {
        let texts = |name: &str| -> Vec<String> { load(name).unwrap().prompts.into_iter().map(|p| p.text).collect() };
        let protocol = [
            "Explain the theory of relativity in simple terms:",
            "Write a detailed explanation of how neural networks learn:",
            "Describe the process of photosynthesis step by step:",
            "What are the main differences between Python and JavaScript?",
        ];
        assert_eq!(texts("protocol"), protocol);
        assert_eq!(texts("quick"), protocol);
        assert_eq!(
            texts("general"),
            [
                "Explain quantum computing",
                "Write a Python function to compute Fibonacci numbers",
                "What is the difference between machine learning and deep learning?",
                "What are the steps of photosynthesis?",
                "Write a haiku about AI",
                "Write a detailed guide:",
            ]
        );
        assert_eq!(load("protocol").unwrap().lengths, [50, 200]);
        assert_eq!(load("general").unwrap().lengths, [50, 200]);
        assert_eq!(built_in().unwrap().len(), 3);
    }

    #[test]
    fn an_unknown_suite_names_those_there_are() {
        let e = load("protocl").unwrap_err().to_string();
        assert!(e.contains("protocl") && e.contains("protocol, general, quick"), "{e}");
    }

    #[test]
    fn a_text_changed_under_its_hash_is_refused() {
        let mut suite = load("quick").unwrap();
        suite.prompts[0].text.push('!');
        assert!(matches!(check(suite), Err(SuiteError::Hash { .. })));
    }

    #[test]
    fn a_suite_file_may_bring_its_own_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let sha = sha256_hex(b"Hi");
        std::fs::write(
            dir.path().join("p.toml"),
            format!("[[prompt]]\nid = \"hi\"\ntext = \"Hi\"\nsha256 = \"{sha}\"\n"),
        )
        .unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "name = \"mine\"\ndescription = \"d\"\nprompts = \"p.toml\"\nlengths = [8]\n").unwrap();
        let suite = load(file.to_str().unwrap()).unwrap();
        assert_eq!((suite.name.as_str(), suite.prompts[0].text.as_str()), ("mine", "Hi"));
        std::fs::write(&file, "name = 3").unwrap();
        assert!(matches!(load(file.to_str().unwrap()), Err(SuiteError::Parse { .. })));
    }
}
