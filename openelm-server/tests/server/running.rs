//! A running server.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use openelm_core::{
    LoadOptions,
    chat::ChatTemplate,
    engine::{Engine, ModelHandle},
};
use openelm_server::{Listen, Server, ServerOptions, Shutdown};
use openelm_testing::tales;
use serde_json::Value;

use crate::client::{Connection, Response, request};

/// A server on a free port, which the drop ends.
pub(crate) struct Running {
    pub(crate) model: ModelHandle,
    /// Host and port.
    pub(crate) address: String,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn load() -> ModelHandle {
    let engine = Engine::start().unwrap();
    engine
        .load_blocking(tales(), LoadOptions::default())
        .unwrap()
}

/// A server of the bundled model with its defaults.
pub(crate) fn start() -> Running {
    start_with(load(), |_| {})
}

/// A server with other options.
pub(crate) fn start_with(model: ModelHandle, change: impl FnOnce(&mut ServerOptions)) -> Running {
    start_on("127.0.0.1", model, change)
}

/// A server with other options on a host's address, which clients of this machine can reach.
pub(crate) fn start_on(
    host: &str,
    model: ModelHandle,
    change: impl FnOnce(&mut ServerOptions),
) -> Running {
    let mut options = ServerOptions {
        served_model_name: "tales".into(),
        chat_template: ChatTemplate::Plain,
        ..ServerOptions::default()
    };
    change(&mut options);
    let listen = Listen::Tcp {
        host: host.into(),
        port: 0,
    };
    let server = Server::open(options, &listen).unwrap();
    let address = server.address().strip_prefix("http://").unwrap().to_owned();
    let shutdown = Shutdown::default();
    let (of_thread, served) = (shutdown.clone(), model.clone());
    let thread = thread::spawn(move || server.run(served, &of_thread).unwrap());
    Running {
        model,
        address,
        shutdown,
        thread: Some(thread),
    }
}

impl Running {
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address)
    }

    /// A request with headers on a new connection.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut connection = self.connect();
        connection.send(&request(method, path, headers, body));
        connection.response()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, &[], body.to_string().as_bytes())
    }

    /// The JSON of a request that must succeed.
    #[track_caller]
    pub(crate) fn posted(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body);
        assert_eq!(response.status, 200, "{body} {}", response.body);
        response.json()
    }

    /// The message of a request that must fail with a status and a field at fault.
    #[track_caller]
    pub(crate) fn refused(&self, path: &str, body: &Value, status: u16, param: Value) -> String {
        let response = self.post(path, body);
        assert_eq!(response.status, status, "{body} {}", response.body);
        let error = &response.json()["error"];
        assert_eq!(error["param"], param, "{error}");
        assert!(error["type"].is_string() && error.get("code").is_some());
        error["message"].as_str().unwrap().to_owned()
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("openelm_{name} ")));
        line.unwrap().parse().unwrap()
    }

    /// Waits up to a minute until a metric has a value.
    #[track_caller]
    pub(crate) fn wait_until(&self, name: &str, is_met: impl Fn(f64) -> bool) {
        let started = Instant::now();
        while !is_met(self.metric(name)) {
            assert!(started.elapsed() < Duration::from_secs(60), "{name}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&self) {
        self.shutdown.begin();
    }

    /// Waits for the end of the server.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok());
        }
    }
}
