//! Prompts that fill the context to a depth: the decode rate by depth is measured with them, on any server.
//!
//! A prompt of plain words is sent with every run, so that a side has computed all of its context itself; a nonce at its
//! start keeps caches of prompts from helping. Its length is that of the whole prompt, template and nonce included, to
//! within the few tokens by which nonces differ.

use anyhow::anyhow;

use crate::exit::{Failure, usage};
use crate::model::Model;
use crate::suite::{Suite, SuitePrompt, sha256_hex};

/// Tokens that a run at a depth generates where nothing else is asked for.
pub const LENGTH: u64 = 128;

/// Tokens by which a nonce may make a prompt longer than its depth.
pub const SLACK: u64 = 16;

/// Words that common tokenizers take as one token each, so that any length can be met.
const WORDS: [&str; 32] = [
    "time", "water", "house", "light", "people", "world", "hand", "place", "work", "night", "point", "home", "room",
    "side", "head", "group", "problem", "fact", "eye", "life", "day", "man", "part", "case", "week", "system",
    "number", "book", "word", "line", "state", "land",
];

/// What stands in front of the words.
const LEAD: &str = "Tell a long story in which these words occur:";

/// One prompt for each depth, still without text: the model's tokenizer is not known yet.
pub fn suite(depths: &[u64]) -> Suite {
    let prompt = |&depth: &u64| SuitePrompt {
        id: format!("depth-{depth}"),
        text: String::new(),
        sha256: String::new(),
        token_ids: Default::default(),
        depth: Some(depth),
    };
    Suite {
        name: "depth".to_owned(),
        description: "Prompts of plain words that fill the context to a depth.".to_owned(),
        prompts: depths.iter().map(prompt).collect(),
        lengths: vec![LENGTH],
    }
}

/// Gives every prompt of a depth its text.
///
/// # Errors
/// A depth that the template alone exceeds, or what the template refuses.
pub fn fill(suite: &mut Suite, model: &dyn Model) -> Result<(), Failure> {
    for prompt in &mut suite.prompts {
        if let Some(depth) = prompt.depth {
            prompt.text = text(model, depth)?;
            prompt.sha256 = sha256_hex(prompt.text.as_bytes());
        }
    }
    Ok(())
}

/// The longest text whose prompt has at most `depth` tokens.
fn text(model: &dyn Model, depth: u64) -> Result<String, Failure> {
    let tokens =
        |words: usize| -> anyhow::Result<u64> { Ok(model.render(&words_of(words), "00000000")?.ids.len() as u64) };
    let least = tokens(0)?;
    if least > depth {
        return Err(usage(anyhow!(
            "a depth of {depth} is less than a prompt without words takes, {least} tokens\nhint: raise --depth"
        )));
    }
    // A word takes a token or more, so that `depth` of them are enough.
    let (mut fits, mut exceeds) = (0, depth as usize + 1);
    while exceeds - fits > 1 {
        let middle = fits.midpoint(exceeds);
        if tokens(middle)? <= depth { fits = middle } else { exceeds = middle }
    }
    Ok(words_of(fits))
}

fn words_of(count: usize) -> String {
    let mut text = LEAD.to_owned();
    for word in WORDS.iter().cycle().take(count) {
        text.push(' ');
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use harness_spec::record::ModelFacts;

    use super::*;
    use crate::model::Rendered;

    /// A tokenizer of words with a template of three.
    struct Words;

    impl Model for Words {
        fn facts(&self) -> &ModelFacts {
            unreachable!("no facts are asked for here")
        }
        fn path(&self) -> Option<&Path> {
            None
        }
        fn adds_bos(&self) -> bool {
            false
        }
        fn tokenizer(&self) -> String {
            "words".into()
        }
        fn render(&self, prompt: &str, nonce: &str) -> anyhow::Result<Rendered> {
            let text = format!("<user> [{nonce}] {prompt} <end>");
            let ids = self.ids(&text);
            Ok(Rendered { text, ids })
        }
        fn ids(&self, text: &str) -> Vec<u32> {
            vec![0; text.split_whitespace().count()]
        }
    }

    #[test]
    fn a_prompt_has_as_many_tokens_as_its_depth_says_with_template_and_nonce() {
        let mut suite = suite(&[16, 128, 1000]);
        fill(&mut suite, &Words).unwrap();
        for prompt in &suite.prompts {
            let rendered = Words.render(&prompt.text, "12345678").unwrap();
            assert_eq!(Some(rendered.ids.len() as u64), prompt.depth);
            assert_eq!(prompt.sha256, sha256_hex(prompt.text.as_bytes()));
        }
    }

    #[test]
    fn a_depth_below_the_template_is_wrong_usage_with_both_numbers() {
        let mut suite = suite(&[4]);
        let Err(Failure::Usage(said)) = fill(&mut suite, &Words) else { panic!("it was taken") };
        let said = said.to_string();
        assert!(said.contains("depth of 4") && said.contains("12 tokens") && said.contains("raise --depth"), "{said}");
    }
}
