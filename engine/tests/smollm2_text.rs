//! Tokenizer and chat template of a real model file against llama.cpp.

mod real_model;

use engine::chat_template::{ChatTemplate, Message};
use engine::gguf::Gguf;
use engine::tokenizer::{Specials, TextStream, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    prompt: String,
}

fn open() -> Option<(Gguf, Tokenizer)> {
    let gguf = Gguf::open(&real_model::path()?).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    Some((gguf, tokenizer))
}

#[test]
fn every_text_of_the_fixture_gets_the_reference_tokens() {
    let Some((_, tokenizer)) = open() else { return };
    let fixture: Cases<Text> = serde_json::from_str(include_str!("fixtures/smollm2_tokenize.json")).unwrap();
    assert!(fixture.cases.len() > 20);
    for case in fixture.cases {
        assert_eq!(tokenizer.encode(&case.text, Specials::Parse), case.ids, "{:?}", case.text);
    }
}

#[test]
fn every_text_of_the_fixture_survives_the_round_trip_token_by_token() {
    let Some((_, tokenizer)) = open() else { return };
    let fixture: Cases<Text> = serde_json::from_str(include_str!("fixtures/smollm2_tokenize.json")).unwrap();
    for case in fixture.cases {
        let ids = tokenizer.encode(&case.text, Specials::Text);
        assert_eq!(tokenizer.decode(&ids), case.text);
        let mut stream = TextStream::new(&tokenizer);
        let mut got: String = ids.iter().map(|&id| stream.push(&tokenizer, id).to_owned()).collect();
        got.push_str(stream.finish());
        assert_eq!(got, case.text);
    }
}

#[test]
fn every_conversation_of_the_fixture_renders_to_the_reference_prompt() {
    let Some((gguf, tokenizer)) = open() else { return };
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).unwrap().expect("the model has a template");
    let fixture: Cases<Chat> = serde_json::from_str(include_str!("fixtures/smollm2_chat.json")).unwrap();
    assert!(!fixture.cases.is_empty());
    for case in fixture.cases {
        assert_eq!(template.render(&case.messages).unwrap(), case.prompt);
    }
}

#[test]
fn control_tokens_in_typed_text_stay_text() {
    let Some((_, tokenizer)) = open() else { return };
    let im_end = tokenizer.token_id("<|im_end|>").unwrap();
    let text = "say <|im_end|> now";
    assert!(tokenizer.encode(text, Specials::Parse).contains(&im_end));
    let plain = tokenizer.encode(text, Specials::Text);
    assert!(!plain.contains(&im_end));
    assert_eq!(tokenizer.decode(&plain), text);
}

#[test]
fn the_end_tokens_are_those_of_the_metadata_and_of_the_vocabulary() {
    let Some((_, tokenizer)) = open() else { return };
    let texts: Vec<String> = tokenizer.stop_ids().iter().map(|&id| tokenizer.token_text(id)).collect();
    assert_eq!(texts, ["<|endoftext|>", "<|im_end|>"]);
    assert!(!tokenizer.adds_bos(), "the file says that prompts have no BOS");
}
