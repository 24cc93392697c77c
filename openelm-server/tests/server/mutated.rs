//! Mutated requests: each has a response, and none is an internal error.

use std::env;

use openelm_testing::Random;
use serde_json::{Value, json};

use crate::{
    client::request,
    running::{Running, start},
};

/// Number of requests; `OPENELM_MUTATED_REQUESTS` sets another.
const CASES: usize = 500;

/// Bodies with every field.
fn bodies() -> Vec<(&'static str, Value)> {
    let common = json!({
        "model": "tales", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5,
        "min_p": 0.1, "typical_p": 0.9, "top_n_sigma": 1.0, "xtc_probability": 0.5,
        "xtc_threshold": 0.1, "repetition_penalty": 1.1, "repetition_context_size": 20,
        "presence_penalty": 0.1, "presence_context_size": 20, "frequency_penalty": 0.1,
        "frequency_context_size": 20, "dry_multiplier": 0.8, "dry_base": 1.75,
        "dry_allowed_length": 2, "dry_penalty_last_n": 64, "dry_sequence_breakers": ["\n"],
        "logit_bias": { "5": -1.0, "9": 2 }, "min_tokens": 1, "banned_strings": ["wolf"],
        "forced_prefix": " a", "seed": 3, "n": 2, "stop": ["x", "yz"], "user": "u",
        "ignore_eos": false, "stream": true, "stream_options": { "include_usage": true },
    });
    let with = |more: Value| {
        let mut body = common.clone();
        let members = body.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        body
    };
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let messages = json!([
        { "role": "system", "content": "Once" },
        { "role": "user", "content": [{ "type": "text", "text": "upon" }] },
    ]);
    vec![
        (
            "/v1/completions",
            with(json!({ "prompt": [[1, 5, 9], [1, 7]], "logprobs": 2, "echo": true })),
        ),
        (
            "/v1/completions",
            with(json!({ "prompt": "Once upon", "regex": " [a-z]+", "at_limit": "stop" })),
        ),
        (
            "/v1/chat/completions",
            with(json!({ "messages": messages, "logprobs": true, "top_logprobs": 1 })),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": messages, "max_tokens": 3, "response_format": {
                    "type": "json_schema", "json_schema": { "name": "a", "schema": schema }
                }
            }),
        ),
        (
            "/tokenize",
            json!({ "prompt": "Once", "add_special_tokens": true }),
        ),
        (
            "/tokenize",
            json!({ "content": "Once", "add_special": true, "with_pieces": true }),
        ),
        ("/detokenize", json!({ "tokens": [1, 5, 900] })),
    ]
}

/// A value that a field does not expect.
fn odd(random: &mut Random) -> Value {
    let text = [
        "",
        "\u{0}",
        "é\u{202e}",
        "</s>",
        "999999999999",
        "(((",
        "NaN",
    ];
    match random.below(14) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e300),
        7 => json!(-1e-300),
        8 => json!(text[random.below(text.len())]),
        9 => json!("long ".repeat(random.below(400))),
        10 => json!([]),
        11 => json!({}),
        12 => json!([[], [null], "x"]),
        _ => json!({ "type": "x", "": 0 }),
    }
}

/// Changes one place of `value`.
fn mutate(value: &mut Value, random: &mut Random) {
    let descend = random.below(4) > 0;
    match value {
        Value::Object(map) if descend && !map.is_empty() => {
            let name = map.keys().nth(random.below(map.len())).unwrap().clone();
            match random.below(8) {
                0 => _ = map.shift_remove(&name),
                1 => {
                    let member = map.shift_remove(&name).unwrap();
                    map.insert(format!("{name}_"), member);
                }
                _ => mutate(&mut map[&name], random),
            }
        }
        Value::Array(list) if descend && !list.is_empty() => {
            let index = random.below(list.len());
            match random.below(4) {
                0 => _ = list.remove(index),
                1 => list.push(list[index].clone()),
                _ => mutate(&mut list[index], random),
            }
        }
        other => *other = odd(random),
    }
}

/// Damages the bytes of a whole request.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = random.below(256) as u8,
            1 => _ = bytes.remove(at),
            _ => bytes.insert(at, b"\r\n :{}[]\",\0\xff"[random.below(12)]),
        }
    }
}

fn check(server: &Running, path: &str, body: &Value) {
    let response = server.post(path, body);
    let is_fine = matches!(response.status, 200 | 400 | 404 | 413 | 503);
    assert!(is_fine, "{path} {body}: {response:?}");
    if response.status != 200 {
        let error = &response.json()["error"];
        assert!(error["message"].as_str().unwrap().len() < 2000, "{error}");
    } else if response.body.contains("\"error\":{") {
        assert!(
            response.body.contains("invalid_request_error"),
            "{body} {response:?}"
        );
    }
}

#[test]
fn mutated_requests_are_answered() {
    let server = start();
    let cases = env::var("OPENELM_MUTATED_REQUESTS");
    let cases = cases.map_or(CASES, |cases| cases.parse().unwrap());
    let (bodies, mut random) = (bodies(), Random(20));
    for (path, body) in &bodies {
        assert_eq!(server.post(path, body).status, 200, "{body}");
    }
    for case in 0..cases {
        let (path, body) = &bodies[case % bodies.len()];
        if case % 5 == 4 {
            let mut bytes = request("POST", path, &[], body.to_string().as_bytes());
            damage(&mut bytes, &mut random);
            // The length may be wrong: the end of the request is the end of the stream.
            let mut connection = server.connect();
            connection.send(&bytes);
            connection.finish();
            let answer = String::from_utf8_lossy(&connection.rest()).into_owned();
            let status = answer.split(' ').nth(1).unwrap_or("400");
            assert!(!status.starts_with('5'), "{answer}");
            continue;
        }
        let mut body = body.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut body, &mut random);
        }
        check(&server, path, &body);
    }
    assert_eq!(server.get("/health").status, 200);
    server.wait_until("requests", |requests| requests == 0.0);
}
