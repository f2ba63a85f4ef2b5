//! Chat templates of other families than the real model of the tests has.

mod tiny;

use std::collections::BTreeMap;

use engine::Engine;
use engine::chat_template::{ChatError, ChatTemplate, Message};
use engine::generate::LoadOptions;
use engine::gguf::{Gguf, GgufWriter};
use engine::synth::Scheme;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    models: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
struct Model {
    template: String,
    bos: String,
    eos: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    prompt: String,
}

#[test]
fn e5_qwen_templates_render_as_the_reference_engine_of_templates_does() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/chat_templates.json")).unwrap();
    assert_eq!(fixture.models.len(), 2);
    for (name, model) in fixture.models {
        let template = ChatTemplate::new(&model.template, &model.bos, &model.eos).unwrap();
        assert!(model.cases.len() >= 4);
        for case in model.cases {
            assert_eq!(template.render(&case.messages).unwrap(), case.prompt, "{name}");
        }
    }
}

#[test]
fn e5_a_llama_3_conversation_has_its_headers_and_one_bos() {
    let engine = Engine::from_gguf(&tiny::gguf(&tiny::llama3(), Scheme::Q8_0, 1), &LoadOptions::default()).unwrap();
    let messages = [Message::new("system", "Be terse."), Message::new("user", " What is 2+2? ")];
    let prompt = engine.render_chat(&messages).unwrap();
    assert_eq!(
        prompt,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe terse.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWhat is 2+2?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let tokenizer = engine.tokenizer();
    let ids = tokenizer.encode_prompt(&prompt);
    let bos = tokenizer.bos().unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == bos).count(), 1, "the template's own BOS is not doubled");
    assert_eq!(ids[0], bos);
}

#[test]
fn a_model_without_a_template_says_so_and_what_to_do() {
    // The same file, with the template under a key that nothing reads.
    let mut bytes = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"tokenizer.chat_tempxxxx");
    let engine = Engine::from_gguf(&Gguf::from_bytes(bytes).unwrap(), &LoadOptions::default()).unwrap();
    let error = engine.render_chat(&[Message::new("user", "Hi")]).unwrap_err();
    assert!(matches!(error, ChatError::Absent));
    assert!(error.to_string().contains("plain prompt"), "{error}");
}

#[test]
fn a_template_that_is_no_jinja_is_refused_when_the_model_is_loaded() {
    let mut writer = GgufWriter::new();
    writer.meta("tokenizer.chat_template", "{% if %}");
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, _, _, _| Ok(())).unwrap();
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let tokenizer = engine::tokenizer::Tokenizer::from_gguf(&tiny::gguf(&tiny::llama(), Scheme::Q8_0, 1)).unwrap();
    let error = ChatTemplate::from_gguf(&gguf, &tokenizer).unwrap_err();
    assert!(matches!(error, ChatError::Syntax { .. }), "{error}");
}
