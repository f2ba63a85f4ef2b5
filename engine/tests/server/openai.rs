//! OpenAI's API.

use serde_json::{Value, json};

use crate::script::{CONTEXT, Script, events, json, start};

#[tokio::test]
async fn a_completion_takes_every_form_of_prompt() {
    let server = start(Script::saying(&["one", " two"])).await;
    for prompt in [json!("hey"), json!(["hey"]), json!([104, 101, 121]), json!([[104, 101, 121]])] {
        let (status, body) =
            server.post_json("/v1/completions", json!({"model":"tiny:1b","prompt":prompt,"max_tokens":10})).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["object"], "text_completion");
        assert_eq!(body["choices"][0]["text"], "one two");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"], json!({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}));
    }
    let requests = server.script.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|request| request.prompt == [104, 101, 121]));
}

#[tokio::test]
async fn a_streamed_completion_is_an_event_for_each_token_and_the_usage_if_asked_for() {
    let server = start(Script::saying(&["one", "", " two"])).await;
    let body = json!({"model":"tiny:1b","prompt":"hey","stream":true,"max_tokens":2,
        "stream_options":{"include_usage":true}});
    let events = events(server.post("/v1/completions", body).await).await;
    let texts: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["text"]).collect();
    assert_eq!(texts, [&json!("one"), &json!(""), &json!(""), &Value::Null]);
    assert_eq!(events[1]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[3]["choices"], json!([]));
    assert_eq!(events[3]["usage"], json!({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}));
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
}

#[tokio::test]
async fn a_streamed_chat_begins_with_the_role_and_has_one_event_for_each_token() {
    let server = start(Script::saying(&["Hi", " you"])).await;
    let body = json!({"model":"tiny:1b","stream":true,"messages":[{"role":"user","content":"hey"}]});
    let events = events(server.post("/v1/chat/completions", body).await).await;
    let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    assert_eq!(deltas, [&json!({"role":"assistant","content":"Hi"}), &json!({"content":" you"}), &json!({})]);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[0]["object"], "chat.completion.chunk");
}

#[tokio::test]
async fn a_chat_is_answered_whole_and_its_parts_reach_the_template() {
    let server = start(Script::saying(&["Hi", " you"])).await;
    let body = json!({"model":"tiny:1b","temperature":0,"seed":7,"max_completion_tokens":9,"stop":"x","messages":[
        {"role":"developer","content":"be kind"},
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]});
    let (status, body) = server.post_json("/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"], json!({"role":"assistant","content":"Hi you"}));
    assert_eq!(server.script.prompts.lock().unwrap()[0], "<system>be kind<user>ab");
    let request = server.script.requests.lock().unwrap()[0].clone();
    assert_eq!((request.max_tokens, request.sampling.temperature, request.sampling.seed), (9, 0.0, Some(7)));
    assert_eq!(request.stop, ["x"]);
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let server = start(Script::saying(&["Hi"])).await;
    let list = json(server.get("/v1/models").await).await;
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("tiny:1b")));
    let one = json(server.get("/v1/models/tiny:1b").await).await;
    assert_eq!((&one["id"], &one["object"]), (&json!("tiny:1b"), &json!("model")));
    let response = server.get("/v1/models/some/model").await;
    assert_eq!(response.status(), 404);
    assert_eq!(json(response).await["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn errors_have_a_message_a_type_a_param_and_a_code() {
    let server = start(Script::saying(&["Hi"])).await;
    let (status, body) = server.post_json("/v1/chat/completions", json!({"model":"nope","messages":[]})).await;
    let message = "model 'nope' not found, try: edgellm pull nope";
    let want = json!({"error":{"message":message,"type":"not_found_error","param":"model","code":"model_not_found"}});
    assert_eq!((status, body), (404, want));
    let long = "x".repeat(CONTEXT + 1);
    let (status, body) = server.post_json("/v1/completions", json!({"model":"tiny:1b","prompt":long})).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert!(body["error"]["message"].as_str().unwrap().contains("1001 tokens"), "{body}");
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_with_the_name_of_the_field() {
    let server = start(Script::saying(&["Hi"])).await;
    for (field, value) in [
        ("n", json!(2)),
        ("best_of", json!(3)),
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("logprobs", json!(5)),
        ("logit_bias", json!({"5":1})),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(0.5)),
        ("max_tokens", json!(0)),
        ("prompt", json!(["a", "b"])),
        ("prompt", json!([])),
        ("response_format", json!({"type":"json_object"})),
    ] {
        let mut body = json!({"model":"tiny:1b","prompt":"x"});
        body[field] = value.clone();
        let (status, answer) = server.post_json("/v1/completions", body).await;
        assert_eq!(status, 400, "{field}: {value} gave {answer}");
        if !value.as_array().is_some_and(Vec::is_empty) {
            assert_eq!(answer["error"]["param"], field, "{answer}");
        }
    }
    for (field, value) in [
        ("tools", json!([{"type":"function"}])),
        ("messages", json!([])),
        ("messages", json!([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])),
        ("messages", json!([{"role":"tool","content":"x"}])),
    ] {
        let mut body = json!({"model":"tiny:1b","messages":[{"role":"user","content":"x"}]});
        body[field] = value.clone();
        let (status, answer) = server.post_json("/v1/chat/completions", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)), "{value} gave {answer}");
    }
    // What clients send as a matter of course is fine.
    let body = json!({"model":"tiny:1b","prompt":"x","n":1,"logprobs":null,"presence_penalty":0,"user":"me",
        "response_format":{"type":"text"}});
    assert_eq!(server.post_json("/v1/completions", body).await.0, 200);
}
