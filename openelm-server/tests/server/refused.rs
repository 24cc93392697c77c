//! Requests that are refused, with OpenAI's error object.

use serde_json::{Value, json};

use crate::{client::request, running::start};

#[test]
fn names_the_field_at_fault() {
    let server = start();
    let vocab = server.model.info().config.vocab_size();
    let completions = [
        (json!({}), "prompt", "prompt: it is missing"),
        (
            json!({ "prompt": "" , "n": 0 }),
            "n",
            "n: expected 1 to 128, found 0",
        ),
        (json!({ "prompt": [] }), "prompt", "prompt: it is empty"),
        (
            json!({ "prompt": [[1], []] }),
            "prompt[1]",
            "prompt[1]: it is empty",
        ),
        (
            json!({ "prompt": [1, "a"] }),
            "prompt",
            "prompt: expected token ids, found a string",
        ),
        (
            json!({ "prompt": {} }),
            "prompt",
            "prompt: expected a string, a list of strings, a list of token ids, or a list of such \
             lists, found an object",
        ),
        (
            json!({ "prompt": "a", "temperature": "hot" }),
            "temperature",
            "temperature: expected a number, found a string",
        ),
        (
            json!({ "prompt": "a", "top_p": 1.5 }),
            "top_p",
            "top_p: expected a number in (0, 1], found 1.5",
        ),
        (
            json!({ "prompt": "a", "logprobs": true }),
            "logprobs",
            "logprobs: expected an integer of at least 0, found true",
        ),
        (
            json!({ "prompt": "a", "logprobs": 21 }),
            "logprobs",
            "logprobs: expected at most 20, found 21",
        ),
        (
            json!({ "prompt": "a", "stop": ["b", ""] }),
            "stop",
            "stop: expected strings with text, found an empty one",
        ),
        (
            json!({ "prompt": "a", "logit_bias": { "x": 1 } }),
            "logit_bias",
            "logit_bias: expected a token id and a number, found \"x\"",
        ),
        (
            json!({ "prompt": "a", "logit_bias": { "5": 1, "05": -1 } }),
            "logit_bias",
            "logit_bias: expected a token id and a number, found \"05\"",
        ),
        (
            json!({ "prompt": "a", "json_schema": { "x": 1 } }),
            "json_schema",
            "json_schema: #: the keyword `x` is not supported",
        ),
        (
            json!({ "prompt": "a", "suffix": "b" }),
            "suffix",
            "suffix: the field is not supported",
        ),
        (
            json!({ "prompt": "a", "best_of": 2 }),
            "best_of",
            "best_of: the field is not supported",
        ),
        (
            json!({ "prompt": "a", "messages": [] }),
            "messages",
            "messages: the field is not supported",
        ),
        (
            json!({ "prompt": "a", "stream_options": {} }),
            "stream_options",
            "stream_options: no effect without stream",
        ),
        (
            json!({ "prompt": "a", "stream": true, "stream_options": { "x": 1 } }),
            "stream_options.x",
            "stream_options.x: the field is not supported",
        ),
        (
            json!({ "prompt": "a", "regex": "b", "choice": ["c"] }),
            "choice",
            "choice: not with regex",
        ),
        (
            json!({ "prompt": "a", "at_limit": "close" }),
            "at_limit",
            "at_limit: no effect without response_format, json_schema, regex, grammar or choice",
        ),
        (
            json!({ "prompt": "a", "response_format": { "type": "xml" } }),
            "response_format.type",
            "response_format.type: expected text, json_object or json_schema, found \"xml\"",
        ),
        (
            json!({ "prompt": "a", "adapters": ["b"] }),
            "adapters",
            "adapters: expected names of the server's adapters, found \"b\"",
        ),
    ];
    for (body, param, message) in completions {
        let found = server.refused("/v1/completions", &body, 400, json!(param));
        assert_eq!(found, message);
    }
    // Errors of the engine, also before a stream begins.
    for stream in [false, true] {
        let body = json!({ "prompt": [1, vocab], "stream": stream });
        let found = server.refused("/v1/completions", &body, 400, json!("prompt"));
        assert!(
            found.contains("is not in the model's vocabulary"),
            "{found}"
        );
        let body = json!({ "prompt": vec![5; 3000], "stream": stream });
        let found = server.refused("/v1/completions", &body, 400, json!("prompt"));
        assert!(found.contains("3000"), "{found}");
        let body = json!({
            "prompt": "a", "stream": stream, "response_format": {
                "type": "json_schema", "json_schema": { "schema": { "type": "nothing" } }
            }
        });
        server.refused("/v1/completions", &body, 400, json!("response_format"));
        let body = json!({ "prompt": "a", "stream": stream, "regex": "(" });
        server.refused("/v1/completions", &body, 400, json!("regex"));
    }
    let body = b"{\"prompt\": \"a\", \"n\": 1, \"n\": 2}";
    let twice = server.ask("POST", "/v1/completions", &[], body);
    assert_eq!(twice.status, 400);
    assert!(
        twice.body.contains("the key \\\"n\\\" occurs twice"),
        "{}",
        twice.body
    );
    let user = json!([{ "role": "user", "content": "a" }]);
    let chats = [
        (
            json!({ "messages": [{ "content": "a" }] }),
            "messages[0].role",
            "messages[0].role: it is missing",
        ),
        (json!({}), "messages", "messages: it is missing"),
        (
            json!({ "messages": "a" }),
            "messages",
            "messages: expected a list of messages, found a string",
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "a" }] }),
            "messages[0].role",
            "messages[0].role: expected system, user or assistant, found \"tool\"",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "messages[0].content[0].type",
            "messages[0].content[0].type: expected text: only text is supported",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "a", "x": 1 }] }),
            "messages[0].x",
            "messages[0].x: the field is not supported",
        ),
        (
            json!({ "messages": user, "tools": [{}] }),
            "tools",
            "tools: the field is not supported",
        ),
        (
            json!({ "messages": user, "top_logprobs": 2 }),
            "top_logprobs",
            "top_logprobs: no effect without logprobs",
        ),
        (
            json!({ "messages": user, "echo": true }),
            "echo",
            "echo: the field is not supported",
        ),
    ];
    for (body, param, message) in chats {
        let found = server.refused("/v1/chat/completions", &body, 400, json!(param));
        assert_eq!(found, message);
    }
}

#[test]
fn accepts_fields_that_request_nothing() {
    let server = start();
    let body = json!({
        "prompt": "a", "max_tokens": 1, "suffix": null, "best_of": 1, "n": 1, "tools": [],
        "user": "someone", "store": false, "stop": null, "response_format": { "type": "text" },
        "logprobs": null, "stream_options": null, "adapters": []
    });
    server.posted("/v1/completions", &body);
}

#[test]
fn unknown_paths_methods_and_models_have_a_status() {
    let server = start();
    for (method, path, status) in [
        ("GET", "/page", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/completions", 405),
        ("PUT", "/tokenize", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/%ff", 404),
        ("GET", "/v1/chat", 404),
    ] {
        let response = server.ask(method, path, &[], b"");
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let error = &response.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{path}");
    }
    let body = json!({ "model": "gpt-4", "prompt": "a" });
    let found = server.refused("/v1/completions", &body, 404, json!("model"));
    assert_eq!(found, "model: expected \"tales\", found \"gpt-4\"");
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tales");
    assert_eq!(server.get("/v1/models/tales").json(), models["data"][0]);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
}

#[test]
fn the_body_of_a_head_is_not_missing() {
    let server = start();
    for path in ["/health", "/v1/completions"] {
        let bytes = request("HEAD", path, &[("Connection", "close")], b"");
        let mut connection = server.connect();
        connection.send(&bytes);
        let answer = String::from_utf8(connection.rest()).unwrap();
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    let metrics = server.get("/metrics").body;
    for counted in [
        "path=\"/health\",status=\"200\"} 1\n",
        "status=\"405\"} 1\n",
    ] {
        assert!(metrics.contains(counted), "{metrics}");
    }
}

#[test]
fn bodies_must_be_objects_of_a_limited_size() {
    let server = start();
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{\"prompt\": \"\xc3\"}",
    ] {
        let response = server.ask("POST", "/v1/completions", &[], body);
        assert_eq!(response.status, 400, "{body:?}");
        let error = &response.json()["error"];
        assert_eq!(error["param"], Value::Null);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("the body of the request: "),
            "{message}"
        );
    }
    let large = vec![b' '; (4 << 20) + 1];
    let mut connection = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    connection.send(head.as_bytes());
    assert_eq!(connection.response().status, 413);
    let mut connection = server.connect();
    connection
        .send(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(format!("{:x}\r\n", large.len()).as_bytes());
    connection.send(&large);
    assert_eq!(connection.response().status, 413);
}
