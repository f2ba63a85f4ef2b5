//! Names of models, such as `smollm2:135m` or `qwen2.5:1.5b-instruct`.

use std::fmt;
use std::str::FromStr;

/// A model's name and tag. A name without a tag has the tag `latest`, as in an Ollama store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    name: String,
    tag: String,
}

/// A text that cannot be a model's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a model name; a name looks like smollm2:135m (letters, digits, '.', '_', '-', one ':')")]
pub struct NameError(pub String);

impl ModelName {
    /// The part before the colon. It may have slashes when the model came from a namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part after the colon.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A file name, without extension, that this name is stored under.
    pub fn file_stem(&self) -> String {
        let name = self.name.replace('/', "--");
        if self.tag == LATEST { name } else { format!("{name}-{}", self.tag) }
    }

    /// A name made of any text by replacing what a name must not have; used for models given as a path.
    pub fn from_text(text: &str) -> ModelName {
        let cleaned: String = text.chars().map(|c| if is_name_char(c) { c } else { '-' }).collect();
        let cleaned = cleaned.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let name = if cleaned.is_empty() { "model" } else { cleaned };
        ModelName { name: name.to_owned(), tag: LATEST.to_owned() }
    }
}

const LATEST: &str = "latest";

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

// A part starts with a letter or digit, so that no name is a hidden file, an option or a step up a folder.
fn is_part(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(is_name_char) && part.len() <= 128
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ModelName, NameError> {
        let (name, tag) = text.split_once(':').unwrap_or((text, LATEST));
        if name.split('/').all(is_part) && name.split('/').count() <= 3 && is_part(tag) {
            Ok(ModelName { name: name.to_owned(), tag: tag.to_owned() })
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        let name: ModelName = "llama3".parse().unwrap();
        assert_eq!(name.to_string(), "llama3:latest");
        assert_eq!(name, "llama3:latest".parse().unwrap());
        assert_eq!(name.file_stem(), "llama3");
    }

    #[test]
    fn a_name_is_stored_under_a_readable_file_name() {
        let name: ModelName = "smollm2:135m".parse().unwrap();
        assert_eq!(name.file_stem(), "smollm2-135m");
        assert_eq!("me/model:q4".parse::<ModelName>().unwrap().file_stem(), "me--model-q4");
    }

    #[test]
    fn names_that_could_leave_the_store_are_refused() {
        for bad in ["", "../x", "a/../b", "/etc/passwd", ".hidden", "-o", "a:", ":b", "a:b:c", "a b", "a\0b", "a/b/c/d"]
        {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn any_text_becomes_a_valid_name() {
        for text in ["My Model (v2)", "---", "", "ünï", "a:b"] {
            let name = ModelName::from_text(text).to_string();
            assert!(name.parse::<ModelName>().is_ok(), "{text:?} became {name:?}");
        }
    }
}
