//! Ollama's API.

use serde_json::{Value, json};

use crate::script::{CONTEXT, Script, json, lines, start};

fn raw(stream: bool) -> Value {
    json!({"model":"tiny:1b","prompt":"hello","raw":true,"stream":stream})
}

#[tokio::test]
async fn generate_streams_a_line_for_each_token_and_a_last_one_with_the_counts() {
    let server = start(Script::saying(&["The", "", " end", "."])).await;
    let response = server.post("/api/generate", raw(true)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines = lines(response).await;
    let texts: Vec<&str> = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(texts, ["The", "", " end", ".", ""], "a token without text is a line too");
    let (last, tokens) = lines.split_last().unwrap();
    for line in tokens {
        assert_eq!(line["done"], false);
        assert_eq!(line["model"], "tiny:1b");
        assert!(line["created_at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(last["done"], true);
    assert_eq!(last["done_reason"], "stop");
    assert_eq!(last["prompt_eval_count"], 5);
    assert_eq!(last["prompt_eval_duration"], 3_000_000);
    assert_eq!(last["eval_count"], 4);
    assert_eq!(last["eval_duration"], 5_000_000);
    assert!(last["total_duration"].as_u64().unwrap() > 0);
    assert!(last["load_duration"].is_u64());
    assert!(last.get("context").is_none(), "raw answers have no context");
    assert_eq!(*server.script.prompts.lock().unwrap(), ["hello"]);
}

#[tokio::test]
async fn every_token_is_a_chunk_of_its_own_on_the_wire() {
    let server = start(Script::saying(&["a", "", "c"])).await;
    server.script.gate.close();
    let mut response = server.post("/api/generate", raw(true)).await;
    server.script.gate.open();
    let mut chunks = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        chunks.push(String::from_utf8(chunk.to_vec()).unwrap());
    }
    assert!(chunks.iter().all(|chunk| chunk.ends_with("}\n")), "no line is cut: {chunks:?}");
    assert_eq!(chunks.concat().lines().count(), 4);
}

#[tokio::test]
async fn generate_without_streaming_is_one_object() {
    let server = start(Script::saying(&["Hello", " there"])).await;
    let (status, body) = server.post_json("/api/generate", raw(false)).await;
    assert_eq!(status, 200);
    assert_eq!(body["response"], "Hello there");
    assert_eq!((&body["done"], &body["done_reason"], &body["eval_count"]), (&json!(true), &json!("stop"), &json!(2)));
}

#[tokio::test]
async fn options_reach_the_engine_and_the_limit_ends_with_length() {
    let server = start(Script::endless()).await;
    let body = json!({"model":"tiny:1b","prompt":"hello","raw":true,"stream":false,
        "options":{"num_predict":3,"temperature":0,"top_k":5,"seed":42,"stop":["x"],"ignore_eos":true,"num_thread":1}});
    let (_, answer) = server.post_json("/api/generate", body).await;
    assert_eq!((&answer["done_reason"], &answer["eval_count"]), (&json!("length"), &json!(3)));
    let request = server.script.requests.lock().unwrap()[0].clone();
    assert_eq!((request.max_tokens, request.ignore_eos), (3, true));
    assert_eq!((request.sampling.temperature, request.sampling.top_k, request.sampling.seed), (0.0, 5, Some(42)));
    assert_eq!(request.stop, ["x"]);
    assert_eq!(server.script.loads.lock().unwrap()[0].threads, Some(1));
}

#[tokio::test]
async fn without_a_limit_an_answer_ends_with_the_context() {
    let server = start(Script::endless()).await;
    for num_predict in [-1, -2] {
        let body =
            json!({"model":"tiny:1b","prompt":"hello","raw":true,"stream":false,"options":{"num_predict":num_predict}});
        let (_, answer) = server.post_json("/api/generate", body).await;
        assert_eq!(answer["eval_count"], CONTEXT - 5);
    }
    let body = json!({"model":"tiny:1b","prompt":"hello","raw":true,"stream":false,"options":{"num_ctx":20}});
    let (_, answer) = server.post_json("/api/generate", body).await;
    assert_eq!(answer["eval_count"], 15);
}

#[tokio::test]
async fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let server = start(Script::endless()).await;
    let long = "x".repeat(CONTEXT);
    let (status, body) = server.post_json("/api/generate", json!({"model":"tiny:1b","prompt":long,"raw":true})).await;
    assert_eq!(status, 400, "a stream that cannot begin has an error status");
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("1000 tokens") && error.contains("holds 1000"), "{error}");
    let body = json!({"model":"tiny:1b","prompt":"twenty characters ok","raw":true,"options":{"num_ctx":10}});
    let (status, body) = server.post_json("/api/generate", body).await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("holds 10,"), "{body}");
}

#[tokio::test]
async fn a_prompt_goes_through_the_template_with_its_system_text() {
    let server = start(Script::saying(&["ok"])).await;
    let (_, body) = server
        .post_json("/api/generate", json!({"model":"tiny:1b","prompt":"hi","system":"be brief","stream":false}))
        .await;
    // The tokens of prompt and answer come back for the next request.
    let context: Vec<u32> = serde_json::from_value(body["context"].clone()).unwrap();
    let prompt: Vec<u32> = "<system>be brief<user>hi".chars().map(u32::from).collect();
    assert_eq!(context, [prompt.clone(), vec![1001]].concat());
    let next = json!({"model":"tiny:1b","prompt":"more","context":context,"stream":false});
    server.post_json("/api/generate", next).await;
    let request = server.script.requests.lock().unwrap()[1].clone();
    assert_eq!(request.prompt[..context.len()], context);
    let jinja = json!({"model":"tiny:1b","prompt":"hi","template":"{{ messages }}","stream":false});
    server.post_json("/api/generate", jinja).await;
    let go =
        json!({"model":"tiny:1b","prompt":"hi","system":"s","template":"[{{ .System }}] {{ .Prompt }}","stream":false});
    server.post_json("/api/generate", go).await;
    let prompts = server.script.prompts.lock().unwrap().clone();
    assert_eq!(prompts[2..], ["template {{ messages }}: hi", "[s] hi"]);
}

#[tokio::test]
async fn chat_renders_the_whole_conversation() {
    let server = start(Script::saying(&["Fine", "."])).await;
    let messages = json!([{"role":"system","content":"be kind"},{"role":"user","content":"hi"},
        {"role":"assistant","content":"hello"},{"role":"user","content":"how are you"}]);
    let response = server.post("/api/chat", json!({"model":"tiny:1b","messages":messages})).await;
    let lines = lines(response).await;
    let texts: Vec<&str> = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(texts, ["Fine", ".", ""]);
    assert_eq!(lines[0]["message"]["role"], "assistant");
    assert_eq!(lines[2]["done_reason"], "stop");
    let prompt = server.script.prompts.lock().unwrap()[0].clone();
    assert_eq!(prompt, "<system>be kind<user>hi<assistant>hello<user>how are you");
    let (status, body) = server
        .post_json("/api/chat", json!({"model":"tiny:1b","stream":false,"messages":[{"role":"user","content":"hi"}]}))
        .await;
    assert_eq!((status, &body["message"]["content"]), (200, &json!("Fine.")));
}

#[tokio::test]
async fn a_model_without_a_template_continues_what_was_said() {
    let server = start(Script { has_no_template: true, ..Script::saying(&["ok"]) }).await;
    server.post("/api/generate", json!({"model":"tiny:1b","prompt":"once upon","stream":false})).await;
    let messages = json!([{"role":"user","content":"once"},{"role":"assistant","content":"upon"}]);
    server.post("/api/chat", json!({"model":"tiny:1b","messages":messages,"stream":false})).await;
    assert_eq!(*server.script.prompts.lock().unwrap(), ["once upon", "once\n\nupon"]);
}

#[tokio::test]
async fn what_the_template_refuses_is_a_400() {
    let server = start(Script::saying(&["ok"])).await;
    let (status, body) =
        server.post_json("/api/chat", json!({"model":"tiny:1b","messages":[{"role":"user","content":"refuse"}]})).await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("the template says no"), "{body}");
}

#[tokio::test]
async fn an_empty_prompt_loads_and_a_keep_alive_of_zero_unloads() {
    let server = start(Script::saying(&["ok"])).await;
    let (status, body) = server.post_json("/api/generate", json!({"model":"tiny:1b"})).await;
    assert_eq!((status, &body["done"], &body["done_reason"]), (200, &json!(true), &json!("load")));
    assert_eq!(server.script.loads.lock().unwrap().len(), 1);
    let ps = json(server.get("/api/ps").await).await;
    assert_eq!(ps["models"][0]["name"], "tiny:1b");
    assert_eq!(ps["models"][0]["size"], 12_345);
    assert_eq!(ps["models"][0]["context_length"], CONTEXT);
    assert_eq!(ps["models"][0]["size_vram"], 6_789);
    let device = &ps["models"][0]["edgellm"];
    assert_eq!((&device["device"], &device["gpu"]), (&json!("cuda:1"), &json!("A GPU")));
    assert_eq!((&device["kv_type"], &device["table_hash"]), (&json!("f16"), &json!("hash")));
    assert!(device["counters"]["graph_launches"].is_u64(), "{device}");
    assert!(ps["models"][0]["expires_at"].as_str().unwrap().starts_with("9999-"));
    let (_, body) = server.post_json("/api/generate", json!({"model":"tiny:1b","keep_alive":"5m"})).await;
    assert_eq!(body["done_reason"], "load");
    let ps = json(server.get("/api/ps").await).await;
    assert!(!ps["models"][0]["expires_at"].as_str().unwrap().starts_with("9999-"), "{ps}");
    let (_, body) = server.post_json("/api/chat", json!({"model":"tiny:1b","messages":[],"keep_alive":0})).await;
    assert_eq!((&body["done_reason"], &body["message"]["content"]), (&json!("unload"), &json!("")));
    assert_eq!(json(server.get("/api/ps").await).await, json!({ "models": [] }));
    assert_eq!(server.script.unloads.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_the_fix() {
    let server = start(Script::saying(&["ok"])).await;
    let want = json!({ "error": "model 'nope' not found, try: edgellm pull nope" });
    for (path, body) in [
        ("/api/generate", json!({"model":"nope","prompt":"x"})),
        ("/api/chat", json!({"model":"nope","messages":[{"role":"user","content":"x"}]})),
        ("/api/show", json!({"model":"nope"})),
    ] {
        assert_eq!(server.post_json(path, body).await, (404, want.clone()), "{path}");
    }
    let (status, body) = server.post_json("/api/generate", json!({"prompt":"x"})).await;
    assert_eq!((status, body), (400, json!({ "error": "model is required" })));
}

#[tokio::test]
async fn a_model_that_does_not_load_is_a_500_with_the_cause_and_harms_no_other() {
    let server = start(Script::saying(&["ok"])).await;
    let (status, body) = server.post_json("/api/generate", json!({"model":"broken","prompt":"x"})).await;
    let want = "model 'broken' could not be loaded: the file is broken";
    assert_eq!((status, &body["error"]), (500, &json!(want)));
    assert_eq!(server.post_json("/api/generate", raw(false)).await.0, 200);
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_and_not_ignored() {
    let server = start(Script::saying(&["ok"])).await;
    for (field, value) in [
        ("format", json!("json")),
        ("format", json!({"type":"object"})),
        ("images", json!(["aGk="])),
        ("suffix", json!("end")),
        ("think", json!(true)),
        ("options", json!({"mirostat":2})),
        ("options", json!({"temperature":-1})),
        ("keep_alive", json!("soon")),
    ] {
        let mut body = raw(true);
        body[field] = value.clone();
        let (status, answer) = server.post_json("/api/generate", body).await;
        assert_eq!(status, 400, "{field}: {value} gave {answer}");
    }
    let user = json!([{"role":"user","content":"x"}]);
    for (field, value) in [
        ("format", json!("json")),
        ("tools", json!([{"type":"function"}])),
        ("messages", json!([{"role":"user","content":"x","images":["aGk="]}])),
        ("messages", json!([{"role":"wizard","content":"x"}])),
    ] {
        let mut body = json!({"model":"tiny:1b","messages":user});
        body[field] = value.clone();
        let (status, answer) = server.post_json("/api/chat", body).await;
        assert_eq!(status, 400, "{field}: {value} gave {answer}");
    }
    // Empty forms of the same, which clients send, are fine.
    let body = json!({"model":"tiny:1b","prompt":"x","stream":false,"format":"","images":[],"suffix":"","think":false});
    assert_eq!(server.post_json("/api/generate", body).await.0, 200);
}

#[tokio::test]
async fn tags_and_show_tell_what_there_is() {
    let server = start(Script::saying(&["ok"])).await;
    let tags = json(server.get("/api/tags").await).await;
    let first = &tags["models"][0];
    assert_eq!((&first["name"], &first["model"], &first["size"]), (&json!("tiny:1b"), &json!("tiny:1b"), &json!(4)));
    assert_eq!(first["digest"].as_str().unwrap().len(), 64);
    assert_eq!(first["details"]["parameter_size"], "134.5M");
    assert_eq!(first["details"]["quantization_level"], "Q4_1");
    for body in [json!({"model":"tiny:1b"}), json!({"name":"tiny:1b"})] {
        let (status, show) = server.post_json("/api/show", body).await;
        assert_eq!(status, 200);
        assert_eq!(show["details"]["family"], "llama");
        assert_eq!(show["model_info"]["llama.context_length"], 2048);
        assert_eq!(show["template"], "{{ messages }}");
        assert_eq!(show["capabilities"], json!(["completion"]));
    }
}
