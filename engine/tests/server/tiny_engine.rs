//! The real engine behind the server, on a model of a few thousand random weights.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use engine::Engine;
use engine::chat_template::Message;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams};
use engine::models::Store;
use engine::server::EngineLoader;
use engine::synth::{Scheme, SynthOptions, write_file};
use serde_json::json;
use tempfile::TempDir;

use crate::script::{Script, Server, json, lines, start_with};
use crate::tiny;

fn options() -> LoadOptions {
    LoadOptions { threads: Some(1), ..LoadOptions::default() }
}

/// A store with one model, `tiny-llama`, which was only copied there.
struct Models {
    dir: TempDir,
    path: PathBuf,
}

fn models() -> Models {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny-llama.gguf");
    let synth = SynthOptions { scheme: Scheme::Q4_0, layers: None, seed: 1 };
    write_file(&path, &tiny::llama(), &synth, &mut |_, _| {}).unwrap();
    Models { dir, path }
}

async fn serve(models: &Models) -> Server {
    serve_by(models, options()).await
}

async fn serve_by(models: &Models, options: LoadOptions) -> Server {
    start_with(Script::default(), |serve| {
        serve.loader = Arc::new(EngineLoader { options });
        serve.models.clear();
        serve.store = Some(Store::at(models.dir.path()));
    })
    .await
}

/// What the engine itself says to a prompt.
fn expected(models: &Models, prompt: &str, max_tokens: usize) -> (Vec<u32>, String) {
    let mut engine = Engine::load(&models.path, &options()).unwrap();
    let request = GenerateRequest {
        prompt: engine.tokenizer().encode_prompt(prompt),
        max_tokens,
        sampling: SamplingParams::greedy(),
        stop: Vec::new(),
        ignore_eos: true,
    };
    let (mut ids, mut said) = (Vec::new(), String::new());
    engine
        .generate(&request, &mut |event| {
            if let Event::Token { id, text } = event {
                ids.push(id);
                said.push_str(text);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    (ids, said)
}

#[tokio::test]
async fn the_server_says_what_the_engine_says_a_line_for_each_token() {
    let models = models();
    let server = serve(&models).await;
    let (ids, said) = expected(&models, "Hello there", 24);
    assert_eq!(ids.len(), 24);
    let body = json!({"model":"tiny-llama","prompt":"Hello there","raw":true,
        "options":{"num_predict":24,"temperature":0,"repeat_penalty":1,"ignore_eos":true}});
    let lines = lines(server.post("/api/generate", body).await).await;
    assert_eq!(lines.len(), 25);
    let text: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(text, said);
    let last = lines.last().unwrap();
    assert_eq!((&last["eval_count"], &last["done_reason"]), (&json!(24), &json!("length")));
    assert!(last["prompt_eval_duration"].as_u64().unwrap() > 0 && last["load_duration"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn answers_side_by_side_are_those_of_each_alone_and_every_slot_counts_as_memory() {
    let models = models();
    let server = serve_by(&models, LoadOptions { slots: NonZeroUsize::new(2).unwrap(), ..options() }).await;
    let long = "Hello there ".repeat(25);
    // More than there are slots: the last waits for one.
    let asked = [(long.as_str(), 30), ("Hello there", 24), ("Who is it?", 40)];
    let answers = asked.map(|(prompt, tokens)| {
        let body = json!({"model":"tiny-llama","prompt":prompt,"raw":true,"stream":false,
            "options":{"num_predict":tokens,"temperature":0,"repeat_penalty":1,"ignore_eos":true}});
        server.post_json("/api/generate", body)
    });
    for ((prompt, tokens), (status, body)) in asked.into_iter().zip(futures_util::future::join_all(answers).await) {
        assert_eq!((status, &body["eval_count"]), (200, &json!(tokens)), "{body}");
        assert_eq!(body["response"], expected(&models, prompt, tokens).1);
    }
    let ps = json(server.get("/api/ps").await).await;
    let engine = Engine::load(&models.path, &options()).unwrap();
    let kv = engine.info().kv_bytes_per_position(engine.kv()).0 * engine.context() as u64;
    assert_eq!(ps["models"][0]["size"], engine.info().file_bytes.0 + 2 * kv);
}

#[tokio::test]
async fn token_ids_and_their_text_are_the_same_prompt() {
    let models = models();
    let server = serve(&models).await;
    let engine = Engine::load(&models.path, &options()).unwrap();
    let ids = engine.tokenizer().encode_prompt("Hello there");
    let mut texts = Vec::new();
    for prompt in [json!("Hello there"), json!(ids)] {
        let body = json!({"model":"tiny-llama","prompt":prompt,"max_tokens":12,"temperature":0,"ignore_eos":true});
        let (status, answer) = server.post_json("/v1/completions", body).await;
        assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(12)), "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], ids.len());
        texts.push(answer["choices"][0]["text"].clone());
    }
    assert_eq!(texts[0], texts[1]);
    let (status, answer) = server.post_json("/v1/completions", json!({"model":"tiny-llama","prompt":[999_999]})).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("999999"), "{answer}");
}

#[tokio::test]
async fn a_chat_is_the_rendered_template_continued() {
    let models = models();
    let server = serve(&models).await;
    let eight = json!({"num_predict":8,"temperature":0,"repeat_penalty":1,"ignore_eos":true});
    let chat = json!({"model":"tiny-llama","messages":[{"role":"user","content":"Hello there"}],"stream":false,
        "options":eight});
    let (status, body) = server.post_json("/api/chat", chat).await;
    assert_eq!(status, 200, "{body}");
    let engine = Engine::load(&models.path, &options()).unwrap();
    let prompt = engine.chat_template().unwrap().render(&[Message::new("user", "Hello there")]).unwrap();
    assert_eq!(body["message"]["content"], expected(&models, &prompt, 8).1);
}

#[tokio::test]
async fn the_facts_of_the_file_are_shown_and_a_copied_file_gets_its_digest() {
    let models = models();
    let server = serve(&models).await;
    let (status, show) = server.post_json("/api/show", json!({"model":"tiny-llama"})).await;
    assert_eq!(status, 200);
    assert_eq!(show["details"]["family"], "llama");
    assert_eq!(show["details"]["quantization_level"], "Q4_0");
    assert_eq!(show["model_info"]["llama.block_count"], 2);
    let tags = json(server.get("/api/tags").await).await;
    let want = engine::models::sha256_file(&models.path, &mut engine::models::Silent).unwrap();
    assert_eq!(tags["models"][0]["digest"], want.as_str());
}

#[tokio::test]
async fn a_context_beyond_the_models_own_gets_what_there_is() {
    let models = models();
    let server = serve(&models).await;
    let body = json!({"model":"tiny-llama","prompt":"x","raw":true,"stream":false,
        "options":{"num_ctx":100_000,"num_predict":2,"ignore_eos":true}});
    assert_eq!(server.post_json("/api/generate", body).await.0, 200);
    let ps = json(server.get("/api/ps").await).await;
    assert_eq!(ps["models"][0]["context_length"], tiny::llama().context);
}

#[tokio::test]
async fn a_truncated_file_is_an_error_that_says_so_and_the_server_goes_on() {
    let models = models();
    let bytes = std::fs::read(&models.path).unwrap();
    std::fs::write(models.dir.path().join("cut.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    let server = serve(&models).await;
    let (status, body) = server.post_json("/api/generate", json!({"model":"cut","prompt":"x"})).await;
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().starts_with("model 'cut' could not be loaded: "), "{body}");
    let tags = json(server.get("/api/tags").await).await;
    assert_eq!(tags["models"].as_array().unwrap().len(), 2, "it is listed, without details");
    let body = json!({"model":"tiny-llama","prompt":"x","stream":false,"options":{"num_predict":2}});
    assert_eq!(server.post_json("/api/generate", body).await.0, 200);
}
