//! A byte-level vocabulary of any size: it round-trips every text, and each filler token prints as a word.

use crate::gguf::{GgufWriter, MetaValue};
use crate::tokenizer::byte_text::char_of;

use super::Shape;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const LLAMA3: &str = "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/// The control tokens and templates of one family.
struct Family {
    control: &'static [&'static str],
    bos: &'static str,
    eos: &'static str,
    add_bos: bool,
    template: &'static str,
}

fn family(pre: &str) -> Family {
    match pre {
        "llama-bpe" => Family {
            control: &[
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
            ],
            bos: "<|begin_of_text|>",
            eos: "<|eot_id|>",
            add_bos: true,
            template: LLAMA3,
        },
        _ => Family {
            control: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            bos: "<|endoftext|>",
            eos: "<|im_end|>",
            add_bos: false,
            template: CHATML,
        },
    }
}

/// Merges, most frequent pairs of English first. Each result is a token.
const MERGES: [(&str, &str); 16] = [
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("h", "e"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("e", "r"),
    ("Ġt", "he"),
    ("a", "t"),
    ("n", "d"),
    ("Ġa", "nd"),
    ("o", "r"),
    ("e", "s"),
    ("in", "g"),
    ("i", "s"),
    ("Ġ", "w"),
];

/// The smallest vocabulary that holds the bytes, the merges and the control tokens.
pub(super) fn least_tokens(pre: &str) -> usize {
    256 + MERGES.len() + family(pre).control.len()
}

/// Writes the tokenizer and the chat template. The shape was checked to have room for the smallest vocabulary.
pub(super) fn metadata(writer: &mut GgufWriter, shape: &Shape) {
    let family = family(&shape.pre_tokenizer);
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| char_of(byte).to_string()).collect();
    tokens.extend(MERGES.iter().map(|(a, b)| format!("{a}{b}")));
    let fillers = shape.vocab - tokens.len() - family.control.len();
    tokens.extend((0..fillers).map(|i| format!("Ġ{}", word(i))));
    let mut types = vec![NORMAL; tokens.len()];
    // Control tokens come last, as in the vocabularies of Llama 3 and Qwen.
    tokens.extend(family.control.iter().map(|&text| text.to_owned()));
    types.resize(tokens.len(), CONTROL);

    let id = |text: &str| tokens.iter().rposition(|t| t == text).expect("the family's tokens were added") as u32;
    let (bos, eos) = (id(family.bos), id(family.eos));
    writer.meta("tokenizer.ggml.model", "gpt2");
    writer.meta("tokenizer.ggml.pre", shape.pre_tokenizer.as_str());
    writer.meta("tokenizer.ggml.tokens", MetaValue::Strings(tokens));
    writer.meta("tokenizer.ggml.token_type", MetaValue::I32s(types));
    let merges = MERGES.iter().map(|(a, b)| format!("{a} {b}")).collect();
    writer.meta("tokenizer.ggml.merges", MetaValue::Strings(merges));
    writer.meta("tokenizer.ggml.bos_token_id", bos);
    writer.meta("tokenizer.ggml.eos_token_id", eos);
    writer.meta("tokenizer.ggml.padding_token_id", eos);
    writer.meta("tokenizer.ggml.add_bos_token", family.add_bos);
    writer.meta("tokenizer.chat_template", family.template);
}

/// A pronounceable word for every number, all different and none made by a merge: they begin with `z`.
fn word(mut i: usize) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "xu", "ya", "ze", "bi",
        "co", "du",
    ];
    let mut word = String::from("z");
    loop {
        word.push_str(SYLLABLES[i % SYLLABLES.len()]);
        i /= SYLLABLES.len();
        if i == 0 {
            return word;
        }
        // Counting from one at each further syllable keeps every number's word its own.
        i -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_filler_words_are_equal() {
        let words: std::collections::HashSet<String> = (0..160_000).map(word).collect();
        assert_eq!(words.len(), 160_000);
    }
}
