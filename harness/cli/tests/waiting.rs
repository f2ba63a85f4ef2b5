//! A client that polls its socket sees what a client that sleeps sees.

use std::time::Duration;

use bench_cli::peers::ollama::OllamaClient;
use bench_cli::peers::stream::{End, Reply};
use bench_cli::peers::{Clock, PeerError, Request, Waiting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a client in this mode makes of an answer that a server writes in these pieces, each a chunk of the body. Behind
/// them the server ends the body, or leaves it open and silent.
async fn reply(waiting: Waiting, pieces: &'static [&'static str], ends: bool, cancel: CancellationToken) -> Reply {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // The whole request comes at once; what it says does not matter here.
        assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        for piece in pieces {
            socket.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if ends {
            socket.write_all(b"0\r\n\r\n").await.unwrap();
        }
        // The client leaves when it has what it wants.
        let _ = socket.read(&mut [0; 64]).await;
    });
    let client = OllamaClient::new(url, Duration::from_millis(300)).unwrap().waiting(waiting);
    let request = Request { prompt: "x", length: 3, seed: 0, context: 512, threads: 1, ignore_eos: true };
    let reply = client.generate("m", &request, &Clock::start(), &cancel).await;
    server.abort();
    reply
}

const WHOLE: &[&str] = &[
    "{\"response\":\"a\",\"done\":false}\n",
    // Two tokens in one read have one time, and a line that is split has that of its end.
    "{\"response\":\"b\",\"done\":false}\n{\"response\":\"c\",\"do",
    "ne\":false}\n",
    "{\"response\":\"\",\"done\":true,\"done_reason\":\"length\",\"eval_count\":3}\n",
];

#[tokio::test]
async fn tokens_come_whole_and_in_order_however_they_are_cut() {
    for waiting in [Waiting::Asleep, Waiting::Awake] {
        let r = reply(waiting, WHOLE, true, CancellationToken::new()).await;
        assert_eq!((&r.end, r.text.as_str(), r.generated), (&End::Length, "abc", 3), "{waiting}");
        assert!(r.one_token_per_chunk && r.token_ns.len() == 3);
        assert!(r.submit < r.token_ns[0] && r.token_ns.is_sorted() && r.token_ns[2] <= r.end_ns);
    }
}

#[tokio::test]
async fn silence_a_cut_and_ctrl_c_end_a_request_in_either_mode() {
    for waiting in [Waiting::Asleep, Waiting::Awake] {
        let silent = reply(waiting, &WHOLE[..1], false, CancellationToken::new()).await;
        assert!(matches!(silent.end, End::Failed(PeerError::Timeout { .. })), "{waiting}: {:?}", silent.end);
        let cut = reply(waiting, &WHOLE[..1], true, CancellationToken::new()).await;
        assert!(matches!(cut.end, End::Failed(PeerError::Cut { tokens: 1, .. })), "{waiting}: {:?}", cut.end);
        let cancel = CancellationToken::new();
        let (token, soon) = (cancel.clone(), Duration::from_millis(50));
        tokio::spawn(async move {
            tokio::time::sleep(soon).await;
            token.cancel();
        });
        let broken_off = reply(waiting, &WHOLE[..1], false, cancel).await;
        assert_eq!((broken_off.end, broken_off.token_ns.len()), (End::Interrupted, 1), "{waiting}");
    }
}
