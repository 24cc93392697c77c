//! The queue, time limits, and clients that are slow or gone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    client::{Connection, request},
    running::{Running, load, start, start_with},
};

/// A request whose text has `tokens` tokens.
fn long(tokens: usize, stream: bool) -> Vec<u8> {
    let body = json!({
        "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": true, "stream": stream,
        "temperature": 1, "seed": 1,
    });
    request("POST", "/v1/completions", &[], body.to_string().as_bytes())
}

/// A connection with a running request.
fn begun(server: &Running, stream: bool) -> Connection {
    let before = server.metric("generations");
    let mut connection = server.connect();
    connection.send(&long(400, stream));
    server.wait_until("generations", |now| now > before);
    connection
}

#[test]
fn a_full_queue_is_429_and_loses_no_request() {
    let server = start_with(load(), |options| {
        options.decode_concurrency = 1;
        options.max_queue = 1;
    });
    let mut running = begun(&server, false);
    let mut waiting = server.connect();
    waiting.send(&long(3, false));
    server.wait_until("requests", |requests| requests == 2.0);
    assert_eq!(server.metric("generations"), 1.0);
    let refused = server.post("/v1/completions", &json!({ "prompt": "a" }));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    // Other paths need no place.
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(running.response().status, 200);
    assert_eq!(waiting.response().status, 200);
    server.wait_until("requests", |requests| requests == 0.0);
    server.posted(
        "/v1/completions",
        &json!({ "prompt": "a", "max_tokens": 1 }),
    );
}

#[test]
fn a_request_of_many_texts_delays_others_by_one_text() {
    let server = start_with(load(), |options| options.decode_concurrency = 1);
    let body = json!({
        "prompt": "Once", "n": 100, "max_tokens": 20, "ignore_eos": true, "stream": true,
    });
    let bytes = request("POST", "/v1/completions", &[], body.to_string().as_bytes());
    let mut many = server.connect();
    many.send(&bytes);
    server.wait_until("generations", |now| now == 1.0);
    let one = json!({ "prompt": "a", "max_tokens": 1 });
    server.posted("/v1/completions", &one);
    // The tokens of a request are counted when it ends: the other one is still running.
    assert_eq!(server.metric("generated_tokens_total"), 1.0);
    drop(many);
    server.wait_until("requests", |requests| requests == 0.0);
    let generated = server.metric("generated_tokens_total");
    assert!(generated < 1000.0, "{generated}");
}

#[test]
fn a_client_that_is_gone_cancels_its_request() {
    let server = start();
    for stream in [false, true] {
        let mut connection = begun(&server, stream);
        if stream {
            while !connection.line().starts_with("data: ") {}
        }
        drop(connection);
        server.wait_until("requests", |requests| requests == 0.0);
        assert_eq!(server.metric("generations"), 0.0);
    }
    let counted = |text: String| text.contains("status=\"499\"} 2\n");
    assert!(counted(server.get("/metrics").body));
    assert!(server.metric("generated_tokens_total") < 800.0);
    // A request that waits for its turn is dropped too.
    let server = start_with(load(), |options| options.decode_concurrency = 1);
    let running = begun(&server, true);
    let mut waiting = server.connect();
    waiting.send(&long(3, false));
    server.wait_until("requests", |requests| requests == 2.0);
    drop(waiting);
    server.wait_until("requests", |requests| requests == 1.0);
    drop(running);
    server.wait_until("requests", |requests| requests == 0.0);
}

#[test]
fn a_request_has_a_time_limit() {
    let server = start_with(load(), |options| {
        options.request_timeout = Duration::from_millis(100);
        options.generate.max_tokens = 400;
    });
    let whole = json!({ "prompt": "Once", "ignore_eos": true, "n": 64, "temperature": 1 });
    let response = server.post("/v1/completions", &whole);
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["error"]["code"], "timeout");
    let mut streamed = whole;
    streamed["stream"] = json!(true);
    let response = server.post("/v1/completions", &streamed);
    // The limit may come before the first event.
    if response.status == 200 {
        let last = response.body.split_terminator("\n\n").last().unwrap();
        assert!(last.contains("\"code\":\"timeout\""), "{last}");
    }
    server.wait_until("generations", |running| running == 0.0);
}

#[test]
fn slow_heads_and_bodies_end() {
    let server = start_with(load(), |options| {
        options.io_timeout = Duration::from_millis(200);
    });
    let started = Instant::now();
    let mut half_open = server.connect();
    half_open.send(b"GET /health HT");
    let mut body = server.connect();
    body.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
    let mut idle = server.connect();
    idle.send(&request("GET", "/health", &[], b""));
    assert_eq!(idle.response().status, 200);
    assert_eq!(body.response().status, 408);
    half_open.rest();
    assert!(idle.rest().is_empty());
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_reader_that_reads_nothing_loses_its_connection() {
    let server = start_with(load(), |options| {
        options.io_timeout = Duration::from_millis(300);
        options.decode_concurrency = 64;
    });
    // More than the buffers of both sockets hold.
    let body = json!({
        "prompt": "Once", "ignore_eos": true, "max_tokens": 400, "n": 48, "temperature": 1,
        "stream": true, "logprobs": 20
    });
    let mut slow = server.connect();
    slow.send(&request(
        "POST",
        "/v1/completions",
        &[],
        body.to_string().as_bytes(),
    ));
    server.wait_until("generations", |running| running > 0.0);
    // Others are served meanwhile.
    server.posted(
        "/v1/completions",
        &json!({ "prompt": "a", "max_tokens": 2 }),
    );
    server.wait_until("generations", |running| running == 0.0);
    let received = slow.rest();
    assert!(!String::from_utf8_lossy(&received).contains("[DONE]"));
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = start_with(load(), |options| options.max_connections = 1);
    let mut first = server.connect();
    first.send(&request("GET", "/health", &[], b""));
    assert_eq!(first.response().status, 200);
    let mut second = server.connect();
    second.send(&request("GET", "/health", &[], b""));
    drop(first);
    assert_eq!(second.response().status, 200);
}
