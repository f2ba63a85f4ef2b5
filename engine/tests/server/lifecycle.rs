//! Queues, clients that leave, models that come and go, and the end of the server.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::server::{KeepAlive, ServeError};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// Posts a raw prompt and waits for the whole answer elsewhere.
fn ask(server: &Server, model: &str, prompt: &str) -> tokio::task::JoinHandle<(u16, Value)> {
    let body = json!({"model":model,"prompt":prompt,"raw":true,"stream":false}).to_string();
    let sent = server.client.post(format!("{}/api/generate", server.url)).body(body).send();
    tokio::spawn(async move {
        let response = sent.await.unwrap();
        (response.status().as_u16(), json(response).await)
    })
}

/// Lets turns through one by one until so many requests have been begun.
async fn step_until_begun(server: &Server, count: usize) {
    for _ in 0..60 {
        if server.script.requests.lock().unwrap().len() == count {
            return;
        }
        server.script.gate.let_one_through();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} requests were not begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_request_is_answered_while_a_long_prompt_is_taken_in_and_waits_for_one_batch_at_most() {
    let script = Script { slots: 2, batch: 10, ..Script::saying(&["a", "b", "c"]) };
    let server = start(script).await;
    server.script.gate.close();
    let long = ask(&server, "tiny:1b", &"x".repeat(900));
    server.until("the long request's start", |script| script.requests.lock().unwrap().len() == 1).await;
    let short = ask(&server, "tiny:1b", "short");
    wait_for_metric(&server, "edgellm_clients 2").await;
    step_until_begun(&server, 2).await;
    wait_for_metric(&server, "edgellm_requests_running 2").await;
    wait_for_metric(&server, "edgellm_queue_depth 0").await;
    server.script.gate.open();
    for answer in [short, long] {
        let (status, body) = answer.await.unwrap();
        assert_eq!((status, &body["response"]), (200, &json!("abc")));
    }
    let turns = server.script.turns.lock().unwrap().clone();
    let at = |what: &str| turns.iter().position(|turn| turn == what).unwrap_or_else(|| panic!("{what} in {turns:?}"));
    assert!(at("1: c") < at("0: 900 of 900") && at("0: 900 of 900") < at("0: a"), "{turns:?}");
    for (one, next) in [("1: 5 of 5", "1: a"), ("1: a", "1: b"), ("1: b", "1: c")] {
        assert!(at(next) - at(one) <= 2, "more than one batch between {one} and {next}: {turns:?}");
    }
    let text = server.get("/metrics").await.text().await.unwrap();
    for want in ["edgellm_requests_running 0", "edgellm_generated_tokens_total 6", "edgellm_gpu_graph_launches_total 6"]
    {
        assert!(text.lines().any(|line| line == want), "{want} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_another_model_waits_for_those_under_way_and_nothing_overtakes_it() {
    let server = start(Script { slots: 3, ..Script::saying(&["a", "b"]) }).await;
    server.script.gate.close();
    let mut answers = vec![ask(&server, "tiny:1b", "1")];
    server.until("the first request's start", |script| script.requests.lock().unwrap().len() == 1).await;
    for (clients, (model, prompt)) in [(2, ("other", "22")), (3, ("tiny:1b", "333"))] {
        answers.push(ask(&server, model, prompt));
        wait_for_metric(&server, &format!("edgellm_clients {clients}")).await;
    }
    server.script.gate.open();
    for answer in answers {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    let lengths: Vec<usize> = server.script.requests.lock().unwrap().iter().map(|r| r.prompt.len()).collect();
    assert_eq!(lengths, [1, 2, 3]);
    assert_eq!(server.script.loads.lock().unwrap().len(), 3, "each model change is a load");
    assert_eq!(server.script.unloads.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_gives_its_slot_free_and_the_other_answer_goes_on() {
    let server = start(Script { slots: 2, ..Script::endless() }).await;
    server.script.gate.close();
    let (first, second) = (connect(&server, true), connect(&server, true));
    server.until("the first request's start", |script| !script.requests.lock().unwrap().is_empty()).await;
    wait_for_metric(&server, "edgellm_clients 2").await;
    step_until_begun(&server, 2).await;
    drop(first);
    wait_for_metric(&server, "edgellm_clients 1").await;
    let third = connect(&server, true);
    wait_for_metric(&server, "edgellm_clients 2").await;
    step_until_begun(&server, 3).await;
    assert_eq!(server.script.cancelled.load(Ordering::SeqCst), 1);
    wait_for_metric(&server, "edgellm_requests_running 2").await;
    drop((second, third));
    wait_for_metric(&server, "edgellm_clients 0").await;
    server.script.gate.open();
    wait_for_metric(&server, "edgellm_requests_running 0").await;
    assert_eq!(server.script.cancelled.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_fails_fails_every_answer_under_way_and_the_next_request_loads_the_model_anew() {
    let server = start(Script { slots: 2, ..Script::saying(&["a", "b"]) }).await;
    server.script.gate.close();
    *server.script.fails_with.lock().unwrap() = Some(2);
    let answers = [ask(&server, "tiny:1b", "one"), ask(&server, "tiny:1b", "two")];
    wait_for_metric(&server, "edgellm_clients 2").await;
    // The first turn of the first is its prompt and a token, and no second one is let through before both are there.
    server.until("the first request's start", |script| !script.requests.lock().unwrap().is_empty()).await;
    step_until_begun(&server, 2).await;
    server.script.gate.open();
    for answer in answers {
        let (status, body) = answer.await.unwrap();
        assert_eq!(status, 500);
        assert!(body["error"].as_str().unwrap().contains("the device failed"), "{body}");
    }
    *server.script.fails_with.lock().unwrap() = None;
    assert_eq!(server.post_json("/api/generate", request("tiny:1b", false)).await.0, 200);
    assert_eq!(server.script.loads.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_every_answer_under_way_and_the_next_request_loads_the_model_anew() {
    let server = start(Script { slots: 2, ..Script::endless() }).await;
    server.script.gate.close();
    let answers = [ask(&server, "tiny:1b", "one"), ask(&server, "tiny:1b", "two")];
    wait_for_metric(&server, "edgellm_clients 2").await;
    step_until_begun(&server, 2).await;
    server.script.panics.store(true, Ordering::SeqCst);
    server.script.gate.open();
    for answer in answers {
        let (status, body) = answer.await.unwrap();
        assert_eq!(status, 500);
        assert!(body["error"].as_str().unwrap().contains("the engine failed"), "{body}");
    }
    server.script.panics.store(false, Ordering::SeqCst);
    assert_eq!(ask(&server, "tiny:1b", "three").await.unwrap().0, 200);
    assert_eq!(server.script.loads.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_another_model_fills_the_queue_and_goes_on_when_the_answers_ahead_have_ended() {
    let script = Script { slots: 2, ..Script::saying(&["a", "b"]) };
    let server = start_with(script, |options| options.queue_limit = 1).await;
    server.script.gate.close();
    let ahead = connect(&server, true);
    server.until("the first request's start", |script| script.requests.lock().unwrap().len() == 1).await;
    let other = ask(&server, "other", "x");
    wait_for_metric(&server, "edgellm_clients 2").await;
    // A slot is free, and nothing overtakes.
    let behind = ask(&server, "tiny:1b", "x");
    wait_for_metric(&server, "edgellm_clients 3").await;
    assert_eq!(server.post("/api/generate", request("tiny:1b", true)).await.status(), 503);
    // The first client gives up.
    drop(ahead);
    wait_for_metric(&server, "edgellm_clients 2").await;
    server.script.gate.open();
    assert_eq!((other.await.unwrap().0, behind.await.unwrap().0), (200, 200));
}

/// For how long `/api/ps` says that the model stays, in seconds from when it was asked.
async fn stays(server: &Server) -> f64 {
    let asked = OffsetDateTime::now_utc();
    let ps = json(server.get("/api/ps").await).await;
    let expires = OffsetDateTime::parse(ps["models"][0]["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
    (expires - asked).as_seconds_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_to_go_with_its_request_stays_for_the_others_under_way() {
    let script = Script { slots: 2, batch: 1, ..Script::saying(&["a", "b"]) };
    let server = start_with(script, |options| options.keep_alive = KeepAlive::For(Duration::from_secs(300))).await;
    server.script.gate.close();
    let other = ask(&server, "tiny:1b", "a prompt of many batches");
    server.until("the first request's start", |script| script.requests.lock().unwrap().len() == 1).await;
    assert!((300.0..400.0).contains(&stays(&server).await));
    let body = json!({"model":"tiny:1b","prompt":"x","raw":true,"stream":false,"keep_alive":0,
        "options":{"num_predict":1}});
    let sent = server.client.post(format!("{}/api/generate", server.url)).body(body.to_string()).send();
    let brief = tokio::spawn(sent);
    wait_for_metric(&server, "edgellm_clients 2").await;
    step_until_begun(&server, 2).await;
    // The brief one's batch and its token, between batches of the other.
    for _ in 0..4 {
        server.script.gate.let_one_through();
    }
    assert_eq!(brief.await.unwrap().unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(stays(&server).await >= 0.0, "a model that answers has not expired");
    server.script.gate.open();
    assert_eq!(other.await.unwrap().1["response"], "ab");
    assert_eq!(server.script.loads.lock().unwrap().len(), 1);
    server.until("unloading", |script| script.unloads.load(Ordering::SeqCst) == 1).await;
}
