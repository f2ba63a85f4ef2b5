//! The server over real connections: every endpoint with a scripted model, what clients do wrong, clients that
//! leave, full queues and the end of the server; then the real engine on a tiny model.

mod lifecycle;
mod ollama;
mod openai;
mod script;
#[path = "../tiny/mod.rs"]
mod tiny;
mod tiny_engine;

use script::{Script, json, start, start_with};
use serde_json::json;

#[tokio::test]
async fn the_server_says_that_it_is_there() {
    let server = start(Script::saying(&["Hi"])).await;
    let response = server.get("/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "EdgeLLM is running");
    let head = server.client.head(&server.url).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(json(server.get("/health").await).await, json!({ "status": "ok" }));
    assert_eq!(json(server.get("/api/version").await).await, json!({ "version": env!("CARGO_PKG_VERSION") }));
}

#[tokio::test]
async fn metrics_count_requests_tokens_and_times() {
    let server = start(Script::saying(&["a", "b", "c"])).await;
    let (status, _) =
        server.post_json("/api/generate", json!({"model":"tiny:1b","prompt":"12345","raw":true,"stream":false})).await;
    assert_eq!(status, 200);
    server.post("/v1/completions", json!({"model":"nope","prompt":"x"})).await;
    server.get("/no/such/path").await;
    let response = server.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    for want in [
        "edgellm_http_requests_total{endpoint=\"/api/generate\",status=\"200\"} 1",
        "edgellm_http_requests_total{endpoint=\"/v1/completions\",status=\"404\"} 1",
        "edgellm_http_requests_total{endpoint=\"other\",status=\"404\"} 1",
        "edgellm_prompt_tokens_total 5",
        "edgellm_generated_tokens_total 3",
        "edgellm_ttft_seconds_count 1",
        "edgellm_inter_token_seconds_count 2",
        "edgellm_model_loads_total 1",
        "edgellm_queue_depth 0",
        "edgellm_requests_running 0",
        "edgellm_models_loaded 1",
    ] {
        assert!(text.lines().any(|line| line == want), "{want} is missing in\n{text}");
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_have_the_form_of_their_api() {
    let server = start(Script::saying(&["Hi"])).await;
    let response = server.post("/api/pull", json!({"model":"x"})).await;
    assert_eq!(response.status(), 404);
    let error = json(response).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("edgellm pull NAME"), "{error}");
    let response = server.post("/v1/embeddings", json!({})).await;
    assert_eq!(response.status(), 404);
    assert_eq!(json(response).await["error"]["type"], "not_found_error");
    let response = server.get("/api/generate").await;
    assert_eq!(response.status(), 405);
    assert_eq!(json(response).await, json!({ "error": "/api/generate does not take GET" }));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_with_the_limit() {
    let server = start_with(Script::saying(&["Hi"]), |options| options.body_limit = 1000).await;
    let long = "x".repeat(2000);
    let (status, body) = server.post_json("/api/generate", json!({"model":"tiny:1b","prompt":long})).await;
    assert_eq!((status, body), (413, json!({ "error": "the request body is larger than the limit of 1000 bytes" })));
    let (status, body) = server.post_json("/v1/completions", json!({"model":"tiny:1b","prompt":long})).await;
    assert_eq!(status, 413);
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert!(server.script.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_json_gets_a_clear_400() {
    let server = start(Script::saying(&["Hi"])).await;
    for path in ["/api/generate", "/api/chat", "/api/show", "/v1/completions", "/v1/chat/completions"] {
        for body in ["", "{", "[]", "{\"model\": 3}"] {
            let url = format!("{}{path}", server.url);
            let response = server.client.post(url).body(body).send().await.unwrap();
            assert_eq!(response.status(), 400, "{path} {body:?}");
            let error = json(response).await["error"].clone();
            let text = if path.starts_with("/v1") { error["message"].clone() } else { error };
            assert!(text.as_str().is_some_and(|text| text.contains("body")), "{path} {body:?}: {text}");
        }
    }
}
