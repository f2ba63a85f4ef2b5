//! Queues, clients that leave, models that come and go, and the end of the server.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::server::{KeepAlive, ServeError};
use serde_json::{Value, json};

use crate::script::{Script, Server, THREADS, json, lines, start, start_with};

fn request(model: &str, stream: bool) -> Value {
    json!({"model":model,"prompt":"hello","raw":true,"stream":stream})
}

/// Sends a request on a connection of its own and leaves the answer unread.
fn connect(server: &Server, stream: bool) -> TcpStream {
    let body = request("tiny:1b", stream).to_string();
    let mut connection = TcpStream::connect(server.addr).unwrap();
    write!(connection, "POST /api/generate HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_noticed_between_two_tokens_streaming_or_not() {
    for stream in [true, false] {
        let server = start(Script::endless()).await;
        server.script.gate.close();
        let connection = connect(&server, stream);
        server.until("the request's start", |script| script.requests.lock().unwrap().len() == 1).await;
        drop(connection);
        // The server must see the closed connection while the engine is busy with a token.
        wait_for_metric(&server, "edgellm_clients 0").await;
        server.script.gate.open();
        server.until("cancelling", |script| script.cancelled.load(Ordering::SeqCst) == 1).await;
        let tokens = server.script.tokens.load(Ordering::SeqCst);
        assert!(tokens <= 1, "{tokens} tokens were generated for nobody");
        let text = server.get("/metrics").await.text().await.unwrap();
        assert!(text.contains("edgellm_cancelled_total 1"), "{text}");
    }
}

/// Waits until a line stands in the metrics.
async fn wait_for_metric(server: &Server, want: &str) {
    for _ in 0..500 {
        if server.get("/metrics").await.text().await.unwrap().lines().any(|line| line == want) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{want} was never true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_a_waiting_client_that_leaves_makes_room() {
    let server = start_with(Script::saying(&["ok"]), |options| options.queue_limit = 1).await;
    server.script.gate.close();
    let running = connect(&server, true);
    server.until("the request's start", |script| script.requests.lock().unwrap().len() == 1).await;
    let waiting = connect(&server, true);
    wait_for_metric(&server, "edgellm_queue_depth 1").await;
    let response = server.post("/api/generate", request("tiny:1b", true)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(json(response).await["error"].as_str().unwrap().contains("1 requests are waiting"));
    let (status, body) = server.post_json("/v1/completions", json!({"model":"tiny:1b","prompt":"x"})).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("queue_full")));
    drop(waiting);
    wait_for_metric(&server, "edgellm_queue_depth 0").await;
    let next =
        server.client.post(format!("{}/api/generate", server.url)).body(request("tiny:1b", false).to_string()).send();
    let next = tokio::spawn(next);
    wait_for_metric(&server, "edgellm_queue_depth 1").await;
    server.script.gate.open();
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    drop(running);
    assert_eq!(server.script.requests.lock().unwrap().len(), 2, "the one that left was never begun");
}

#[tokio::test]
async fn requests_wait_for_their_turn_and_are_all_answered() {
    let server = start(Script::saying(&["a", "b"])).await;
    let answers = (0..8).map(|_| server.post_json("/api/generate", request("tiny:1b", false)));
    for (status, body) in futures_util::future::join_all(answers).await {
        assert_eq!((status, &body["response"]), (200, &json!("ab")));
    }
    assert_eq!(server.script.loads.lock().unwrap().len(), 1, "the model was loaded once");
}

#[tokio::test]
async fn a_model_is_loaded_again_only_where_the_request_needs_it() {
    let server = start(Script::saying(&["a"])).await;
    let mut loads = Vec::new();
    for body in [
        json!({"model":"tiny:1b","prompt":"x"}),
        json!({"model":"tiny:1b","prompt":"x","options":{"num_ctx":100}}),
        json!({"model":"tiny:1b","prompt":"x","options":{"num_ctx":5000}}),
        json!({"model":"tiny:1b","prompt":"x","options":{"num_ctx":5000}}),
        json!({"model":"tiny:1b","prompt":"x","options":{"num_thread":THREADS}}),
        json!({"model":"tiny:1b","prompt":"x","options":{"num_thread":1}}),
        json!({"model":"tiny:1b","prompt":"x"}),
        json!({"model":"other","prompt":"x"}),
    ] {
        assert_eq!(server.post("/api/generate", body).await.status(), 200);
        loads.push(server.script.loads.lock().unwrap().len());
    }
    // The first, a smaller context, a larger one, the same again, the threads it has, others, the default ones,
    // another model.
    assert_eq!(loads, [1, 1, 2, 2, 2, 3, 4, 5]);
    assert_eq!(server.script.unloads.load(Ordering::SeqCst), 4, "there is never more than one in memory");
}

#[tokio::test]
async fn an_idle_model_is_unloaded_after_its_time() {
    let server = start_with(Script::saying(&["a"]), |options| {
        options.keep_alive = KeepAlive::For(Duration::from_millis(50));
    })
    .await;
    server.post("/api/generate", request("tiny:1b", false)).await;
    server.until("unloading", |script| script.unloads.load(Ordering::SeqCst) == 1).await;
    assert_eq!(json(server.get("/api/ps").await).await, json!({ "models": [] }));
    assert_eq!(server.post("/api/generate", request("tiny:1b", false)).await.status(), 200);
}

#[tokio::test]
async fn a_panic_in_the_engine_is_a_500_and_the_next_request_works() {
    let server = start(Script::saying(&["a"])).await;
    server.script.panics.store(true, Ordering::SeqCst);
    // It began to answer before it failed, so the error is a line of the stream.
    let lines = lines(server.post("/api/generate", request("tiny:1b", true)).await).await;
    assert!(lines[0]["error"].as_str().unwrap().contains("the engine failed"), "{lines:?}");
    assert_eq!(server.post_json("/api/generate", request("tiny:1b", false)).await.0, 500);
    server.script.panics.store(false, Ordering::SeqCst);
    assert_eq!(server.post_json("/api/generate", request("tiny:1b", false)).await.0, 200);
}

#[tokio::test]
async fn a_device_that_fails_is_a_500_and_the_next_request_loads_the_model_anew() {
    let server = start(Script::saying(&["a", "b"])).await;
    // Out of memory: the context lives on.
    *server.script.fails_with.lock().unwrap() = Some(2);
    let (status, body) = server.post_json("/api/generate", request("tiny:1b", false)).await;
    assert_eq!(status, 500);
    let said = body["error"].as_str().unwrap();
    assert!(said.contains("the device failed") && said.contains("cuGraphLaunch"), "{said}");
    let lines = lines(server.post("/api/generate", request("tiny:1b", true)).await).await;
    assert_eq!(lines[0]["response"], "a", "what was generated before has been sent");
    assert!(lines[1]["error"].as_str().unwrap().contains("the device failed"), "{lines:?}");
    let (status, body) = server.post_json("/v1/completions", json!({"model":"tiny:1b","prompt":"x"})).await;
    assert_eq!((status, &body["error"]["type"]), (500, &json!("server_error")));
    *server.script.fails_with.lock().unwrap() = None;
    assert_eq!(server.post_json("/api/generate", request("tiny:1b", false)).await.0, 200);
    assert_eq!(server.script.loads.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_server_whose_device_is_lost_for_good_answers_and_ends_with_the_reason() {
    let server = start(Script::saying(&["a", "b"])).await;
    // An illegal address: nothing on the device works in this process any more.
    *server.script.fails_with.lock().unwrap() = Some(700);
    let (status, body) = server.post_json("/api/generate", request("tiny:1b", false)).await;
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().contains("the device failed"), "{body}");
    let ended = server.ended().await.unwrap_err();
    assert!(matches!(ended, ServeError::DeviceLost(_)), "{ended}");
    let said = ended.to_string();
    assert!(said.contains("cuGraphLaunch") && said.contains("start the server again"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_a_running_answer_finishes_and_a_waiting_one_is_told() {
    let mut server = start(Script::saying(&["a", "b", "c"])).await;
    server.script.gate.close();
    let url = format!("{}/api/generate", server.url);
    let running = server.client.post(&url).body(request("tiny:1b", true).to_string()).send().await.unwrap();
    let waiting = tokio::spawn(server.client.post(&url).body(request("tiny:1b", true).to_string()).send());
    wait_for_metric(&server, "edgellm_queue_depth 1").await;
    server.shut_down();
    // New connections are refused from now on, so only the two that exist can be asked.
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.script.gate.open();
    let lines = lines(running).await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[3]["done_reason"], "stop");
    let waiting = waiting.await.unwrap().unwrap();
    assert_eq!(waiting.status(), 503);
    assert_eq!(json(waiting).await, json!({ "error": "the server is shutting down" }));
    server.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_cut_off_after_the_grace_time() {
    let mut server = start_with(Script::endless(), |options| options.grace = Duration::ZERO).await;
    server.script.gate.close();
    let running = server.client.post(format!("{}/api/generate", server.url)).body(request("tiny:1b", true).to_string());
    let running = running.send().await.unwrap();
    server.shut_down();
    let (script, opener) = (server.script.clone(), Duration::from_millis(50));
    std::thread::spawn(move || {
        std::thread::sleep(opener);
        script.gate.open();
    });
    server.ended().await.unwrap();
    let lines = lines(running).await;
    let last = lines.last().unwrap();
    assert_eq!(last["error"], "the server is shutting down", "{last}");
}

#[tokio::test]
async fn a_model_to_preload_is_loaded_before_the_first_request() {
    let server = start_with(Script::saying(&["a"]), |options| options.preload = Some("tiny:1b".to_owned())).await;
    let ps = json(server.get("/api/ps").await).await;
    assert_eq!(ps["models"][0]["name"], "tiny:1b");
}

#[tokio::test]
async fn a_model_that_cannot_be_preloaded_ends_the_server_with_the_reason() {
    for (name, want) in [("broken", "the file is broken"), ("nope", "edgellm pull nope")] {
        let server = start_with(Script::saying(&["a"]), |options| options.preload = Some(name.to_owned())).await;
        let error = server.ended().await.unwrap_err();
        assert!(matches!(error, ServeError::Preload(_)));
        assert!(error.to_string().contains(want), "{error}");
    }
}
