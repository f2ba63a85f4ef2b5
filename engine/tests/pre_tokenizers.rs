//! Where text is cut before merges run, against llama.cpp, with a vocabulary whose merges would cross every cut.

use engine::gguf::{Gguf, GgufWriter, MetaValue};
use engine::tokenizer::{Specials, Tokenizer, TokenizerError};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    texts: Vec<String>,
    ids: BTreeMap<String, Vec<Vec<u32>>>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/pre_tokenizers.json")).unwrap()
}

fn writer(fixture: &Fixture, pre: &str) -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer.meta("tokenizer.ggml.model", "gpt2");
    writer.meta("tokenizer.ggml.pre", pre);
    writer.meta("tokenizer.ggml.tokens", MetaValue::Strings(fixture.tokens.clone()));
    writer.meta("tokenizer.ggml.token_type", MetaValue::I32s(fixture.types.clone()));
    writer.meta("tokenizer.ggml.merges", MetaValue::Strings(fixture.merges.clone()));
    writer
}

fn build(writer: &GgufWriter) -> Result<Tokenizer, TokenizerError> {
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, _, _, _| Ok(())).unwrap();
    Tokenizer::from_gguf(&Gguf::from_bytes(bytes).unwrap())
}

#[test]
fn b18_every_rule_cuts_text_where_llama_cpp_does() {
    let fixture = fixture();
    assert_eq!(fixture.ids.len(), 5);
    for (pre, all) in &fixture.ids {
        let tokenizer = build(&writer(&fixture, pre)).unwrap();
        for (text, want) in fixture.texts.iter().zip(all) {
            assert_eq!(&tokenizer.encode(text, Specials::Parse), want, "{pre}: {text:?}");
            assert_eq!(tokenizer.decode(&tokenizer.encode(text, Specials::Text)), *text, "{pre}: {text:?}");
        }
    }
}

#[test]
fn the_fixture_tells_the_rules_apart() {
    let fixture = fixture();
    let all: Vec<_> = fixture.ids.values().collect();
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
}

#[test]
fn an_unknown_rule_or_model_is_refused_by_name() {
    let fixture = fixture();
    let error = build(&writer(&fixture, "tekken")).unwrap_err().to_string();
    assert!(error.contains("`tekken`") && error.contains("smollm"), "{error}");
    let mut sentencepiece = writer(&fixture, "default");
    sentencepiece.meta("tokenizer.ggml.model", "llama");
    let error = build(&sentencepiece).unwrap_err().to_string();
    assert!(error.contains("`llama`") && error.contains("gpt2"), "{error}");
}

#[test]
fn lists_that_do_not_fit_each_other_are_refused() {
    let fixture = fixture();
    let mut types = writer(&fixture, "default");
    types.meta("tokenizer.ggml.token_type", MetaValue::I32s(vec![1; 3]));
    assert!(matches!(build(&types), Err(TokenizerError::Length { found: 3, .. })));
    let mut merges = writer(&fixture, "default");
    merges.meta("tokenizer.ggml.merges", MetaValue::Strings(vec!["ab".into()]));
    assert!(matches!(build(&merges), Err(TokenizerError::Merge { index: 0, .. })));
    merges.meta("tokenizer.ggml.merges", MetaValue::Strings(vec!["qq ww".into()]));
    assert!(matches!(build(&merges), Err(TokenizerError::Merges { .. })));
    let mut eos = writer(&fixture, "default");
    eos.meta("tokenizer.ggml.eos_token_id", 1_000_000u32);
    assert!(matches!(build(&eos), Err(TokenizerError::SpecialId { id: 1_000_000, .. })));
    let mut none = writer(&fixture, "default");
    none.remove_meta("tokenizer.ggml.merges");
    assert!(matches!(build(&none), Err(TokenizerError::Meta(_))));
}

#[test]
fn bos_is_added_once_and_only_where_the_file_or_its_rule_asks() {
    let fixture = fixture();
    let bos = fixture.tokens.len() as u32 - 1;
    let mut llama = writer(&fixture, "llama-bpe");
    llama.meta("tokenizer.ggml.bos_token_id", bos);
    let tokenizer = build(&llama).unwrap();
    assert_eq!(tokenizer.encode_prompt("a"), [bos, 97]);
    assert_eq!(tokenizer.encode_prompt("<|end|>a"), [bos, 97], "a rendered template may bring its own");
    llama.meta("tokenizer.ggml.add_bos_token", false);
    assert_eq!(build(&llama).unwrap().encode_prompt("a"), [97]);
    let mut qwen = writer(&fixture, "qwen2");
    qwen.meta("tokenizer.ggml.bos_token_id", bos);
    assert_eq!(build(&qwen).unwrap().encode_prompt("a"), [97]);
    qwen.meta("tokenizer.ggml.eos_token_id", bos);
    qwen.meta("tokenizer.ggml.add_eos_token", true);
    assert_eq!(build(&qwen).unwrap().encode_prompt("a"), [97, bos]);
}

#[test]
fn end_tokens_of_the_metadata_stop_generation() {
    let fixture = fixture();
    let mut writer = writer(&fixture, "default");
    writer.meta("tokenizer.ggml.eos_token_id", 5u32);
    writer.meta("tokenizer.ggml.eot_token_id", 7u32);
    writer.meta("tokenizer.ggml.eom_token_id", 6u32);
    let end = fixture.tokens.len() as u32 - 1;
    assert_eq!(build(&writer).unwrap().stop_ids(), [5, 6, 7, end], "`<|end|>` is known by its text");
}
