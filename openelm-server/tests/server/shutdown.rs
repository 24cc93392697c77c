//! The end of a server.

use std::{
    io::{BufReader, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use openelm_server::{Error, Listen, Server, ServerOptions, Shutdown};
use openelm_testing::TempDir;
use serde_json::json;

use crate::{
    client::{read_response, request},
    running::{load, start, start_with},
};

fn streaming(tokens: usize) -> Vec<u8> {
    let body = json!({
        "prompt": "Once", "max_tokens": tokens, "ignore_eos": true, "stream": true
    });
    request("POST", "/v1/completions", &[], body.to_string().as_bytes())
}

#[test]
fn running_requests_end_and_new_ones_are_refused() {
    let mut server = start();
    let mut running = server.connect();
    running.send(&streaming(60));
    let mut idle = server.connect();
    idle.send(&request("GET", "/health", &[], b""));
    assert_eq!(idle.response().status, 200);
    server.wait_until("generations", |count| count == 1.0);
    server.stop();
    let response = running.response();
    // The end token is ignored: each has a chunk, unless its text is incomplete.
    assert!(response.events().len() > 30);
    assert!(idle.rest().is_empty());
    server.join();
    assert!(TcpStream::connect(&server.address).is_err());
    // The engine is still there.
    let events = server.model.generate("Once", Default::default());
    assert!(events.unwrap().next_blocking().unwrap().is_some());
}

#[test]
fn the_wait_for_requests_is_limited() {
    let mut server = start_with(load(), |options| {
        options.drain_timeout = Duration::ZERO;
    });
    let mut running = server.connect();
    running.send(&streaming(400));
    server.wait_until("generations", |count| count == 1.0);
    let started = Instant::now();
    server.stop();
    server.join();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(!String::from_utf8_lossy(&running.rest()).contains("[DONE]"));
}

#[test]
fn serves_on_a_unix_socket() {
    let folder = TempDir::new();
    let path = folder.join("socket");
    let listen = Listen::Unix(path.clone());
    let server = Server::open(ServerOptions::default(), &listen).unwrap();
    assert_eq!(server.address(), format!("unix:{}", path.display()));
    let shutdown = Shutdown::default();
    thread::scope(|scope| {
        scope.spawn(|| server.run(load(), &shutdown).unwrap());
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        let get = request("GET", "/v1/models", &[("Host", "any.name")], b"");
        stream.get_mut().write_all(&get).unwrap();
        assert_eq!(read_response(&mut stream).unwrap().status, 200);
        shutdown.begin();
    });
    assert!(!path.exists());
}

#[test]
fn a_public_address_has_a_warning() {
    let open = |host: &str| {
        let listen = Listen::Tcp {
            host: host.into(),
            port: 0,
        };
        Server::open(ServerOptions::default(), &listen)
    };
    assert!(open("localhost").unwrap().warnings().is_empty());
    assert_eq!(
        open("0.0.0.0").unwrap().warnings(),
        ["other machines can reach the server, which needs no API key; HTTP is not encrypted"]
    );
    assert!(matches!(open("256.0.0.1"), Err(Error::Listen { .. })));
}
