//! `openelm serve` as a process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Stdio},
};

use openelm_testing::{TempDir, fails};
use serde_json::Value;

use crate::tool::{openelm, tales};

/// A server on a free port; the drop kills it.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut command = openelm(&["serve", "--model", &tales(), "--port", "0"]);
        command.args(args).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        // Warnings come first.
        let mut lines = stderr.by_ref().lines().map(Result::unwrap);
        let address = lines.find_map(|line| Some(line.rsplit_once(" at http://")?.1.to_owned()));
        Self {
            address: address.unwrap(),
            child,
            stderr,
        }
    }

    /// Sends a request whose response ends with the connection.
    fn begin(&self, method: &str, path: &str, header: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> String {
        read(self.begin(method, path, header, body))
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([name, &id]).status().unwrap().success());
    }

    /// The exit code and the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_signal_ends_the_server_after_its_requests() {
    for signal in ["-INT", "-TERM"] {
        let server = Server::start(&["-n", "300"]);
        let body = "{\"prompt\": \"Once\", \"ignore_eos\": true, \"stream\": true}";
        let mut running = BufReader::new(server.begin("POST", "/v1/completions", "", body));
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            running.read_line(&mut line).unwrap();
        }
        server.signal(signal);
        let mut rest = String::new();
        running.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "{rest}");
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("shutting down"), "{log}");
        let line = log.lines().find(|line| line.contains("/v1/completions"));
        let line = line.unwrap();
        for part in ["INFO request", "status=200", "generated_tokens=300"] {
            assert!(line.contains(part), "{line}");
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::start(&["-n", "300", "--log-level", "off"]);
    let body = "{\"prompt\": \"Once\", \"ignore_eos\": true, \"n\": 128, \"temperature\": 1}";
    let _running = server.begin("POST", "/v1/completions", "", body);
    // Its metrics show that the request has begun.
    while !server
        .ask("GET", "/metrics", "", "")
        .contains("openelm_requests 1\n")
    {}
    server.signal("-TERM");
    // The port is closed once the first signal was received.
    while TcpStream::connect(&server.address).is_ok() {}
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!((code, log.as_str()), (Some(143), ""));
}

#[test]
fn options_are_the_defaults_of_requests() {
    let folder = TempDir::new();
    folder.write("keys", "sesame\n");
    let keys = folder.at("keys");
    let args = [
        "--served-model-name",
        "story",
        "--max-tokens",
        "3",
        "--api-key-file",
        &keys,
        "--prompt-cache-bytes",
        "0",
    ];
    let server = Server::start(&args);
    let body = "{\"model\": \"story\", \"prompt\": \"Once upon a time\"}";
    let refused = server.ask("POST", "/v1/completions", "", body);
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let key = "Authorization: Bearer sesame\r\n";
    for _ in 0..2 {
        let response = server.ask("POST", "/v1/completions", key, body);
        let (_, json) = response.split_once("\r\n\r\n").unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["model"], "story");
        assert_eq!(json["usage"]["completion_tokens"], 3);
        let details = &json["usage"]["prompt_tokens_details"];
        assert_eq!(details["cached_tokens"], 0);
    }
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    assert!(!log.contains("sesame") && !log.contains("Once"), "{log}");
}

#[test]
fn refuses_options_before_the_model_loads() {
    let serve = |args: &[&str]| {
        let mut command = openelm(&["serve", "--model", &tales()]);
        command.args(args);
        command
    };
    let folder = TempDir::new();
    folder.write("empty", "\n");
    let empty = folder.at("empty");
    for (args, code, parts) in [
        (
            &["--max-queue", "999999999"][..],
            2,
            &["--max-queue: expected at most"][..],
        ),
        (&["--io-timeout", "0"], 2, &["--io-timeout: expected 1 to"]),
        (
            &["--top-p", "2"],
            2,
            &["--top-p: expected a number in (0, 1], found 2"],
        ),
        (
            &["--allowed-origins", "*,a"],
            2,
            &["--allowed-origins: expected `*`, or an origin"],
        ),
        (
            &["--adapter", "pirate"],
            2,
            &["--adapter: expected NAME=PATH, found \"pirate\""],
        ),
        (&["--host", "256.0.0.1"], 1, &["--host: 256.0.0.1:8080: "]),
        (
            &["--unix-socket", &empty],
            1,
            &["--unix-socket: ", "expected no file"],
        ),
        (
            &["--api-key-file", &empty],
            1,
            &["empty: expected a key on a line, found none"],
        ),
        (
            &["--host", "a", "--unix-socket", "b"],
            2,
            &["cannot be used with"],
        ),
    ] {
        fails(serve(args), code, parts);
    }
    let first = Server::start(&[]);
    let port = first.address.rsplit_once(':').unwrap().1;
    fails(serve(&["--port", port]), 1, &["--port: 127.0.0.1:"]);
}
