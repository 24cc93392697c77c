//! `/v1/completions`.

use serde_json::{Value, json};

use crate::running::start;

const PROMPT: &str = "Once upon a time";

fn text(response: &Value) -> &str {
    response["choices"][0]["text"].as_str().unwrap()
}

/// The text of a stream.
fn streamed(events: &[Value], index: usize) -> String {
    let choices = events.iter().filter_map(|event| event["choices"].get(0));
    let own = choices.filter(|choice| choice["index"] == index);
    own.map(|choice| choice["text"].as_str().unwrap()).collect()
}

#[test]
fn completes_a_prompt_whole_and_streamed() {
    let server = start();
    let body = json!({ "model": "tales", "prompt": PROMPT, "max_tokens": 12 });
    let whole = server.posted("/v1/completions", &body);
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["model"], "tales");
    assert!(whole["id"].as_str().unwrap().starts_with("cmpl-"));
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    let ids = server.model.tokenizer().encode_prompt(PROMPT).unwrap();
    assert_eq!(usage["prompt_tokens"], ids.len());
    assert_eq!(usage["total_tokens"], ids.len() + 12);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);

    let mut body = body;
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let response = server.post("/completions", &body);
    let kind = response.header("content-type").unwrap();
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    let events = response.events();
    assert_eq!(streamed(&events, 0), text(&whole));
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 12);
    // The prefix was read by the first request.
    let cached = &last["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert_eq!(*cached, ids.len() - 1);
    assert!(before.iter().all(|event| event["usage"].is_null()));
    assert_eq!(
        before.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(server.metric("generated_tokens_total"), 24.0);
}

#[test]
fn prompts_have_four_types() {
    let server = start();
    let tokenizer = server.model.tokenizer();
    let (first, second) = (
        tokenizer.encode_prompt(PROMPT).unwrap(),
        tokenizer.encode_prompt("The old king").unwrap(),
    );
    let texts = |prompt: Value| -> Vec<String> {
        let body = json!({ "prompt": prompt, "max_tokens": 6 });
        let response = server.posted("/v1/completions", &body);
        let choices = response["choices"].as_array().unwrap().clone();
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(choice["index"], index);
        }
        let all = choices.iter().map(|c| c["text"].as_str().unwrap().into());
        all.collect()
    };
    let both = texts(json!([PROMPT, "The old king"]));
    assert_eq!(both.len(), 2);
    assert_eq!(texts(json!([first, second])), both);
    assert_eq!(texts(json!(PROMPT)), both[..1]);
    assert_eq!(texts(json!(second)), both[1..]);
    // BOS is not added to token ids.
    let body = json!({ "prompt": first[1..], "max_tokens": 1 });
    let usage = &server.posted("/v1/completions", &body)["usage"];
    assert_eq!(usage["prompt_tokens"], first.len() - 1);
}

#[test]
fn a_seed_repeats_and_n_texts_differ() {
    let server = start();
    let body = |seed: i64| {
        json!({
            "prompt": [PROMPT, "The old king"], "max_tokens": 16, "n": 3, "temperature": 1,
            "seed": seed, "top_k": 50, "min_p": 0.01
        })
    };
    let texts = |seed| -> Vec<String> {
        let response = server.posted("/v1/completions", &body(seed));
        assert_eq!(response["usage"]["completion_tokens"], 96);
        let choices = response["choices"].as_array().unwrap().clone();
        let all = choices.iter().map(|c| c["text"].as_str().unwrap().into());
        all.collect()
    };
    let first = texts(7);
    assert_eq!(first.len(), 6);
    assert_ne!(first[0], first[1]);
    assert_ne!(first[0], first[3]);
    assert_eq!(texts(7), first);
    assert_ne!(texts(-7), first);
    let mut streaming = body(7);
    streaming["stream"] = json!(true);
    let events = server.post("/v1/completions", &streaming).events();
    let streams: Vec<String> = (0..6).map(|index| streamed(&events, index)).collect();
    assert_eq!(streams, first);
}

#[test]
fn options_of_a_request_change_the_text() {
    let server = start();
    let text_with = |more: Value| {
        let mut body = json!({ "prompt": PROMPT, "max_tokens": 12 });
        let members = body.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        let response = server.posted("/v1/completions", &body);
        let reason = response["choices"][0]["finish_reason"].clone();
        (text(&response).to_owned(), reason)
    };
    let (plain, _) = text_with(json!({}));
    let word = plain.split(' ').nth(2).unwrap();
    let (stopped, reason) = text_with(json!({ "stop": word }));
    assert_eq!(stopped, plain[..plain.find(word).unwrap()]);
    assert_eq!(reason, "stop");
    let (banned, _) = text_with(json!({ "banned_strings": [word] }));
    assert!(!banned.contains(word), "{banned}");
    let (forced, _) = text_with(json!({ "forced_prefix": " in a cave" }));
    assert!(forced.starts_with(" in a cave"), "{forced}");
    let first = server.model.tokenizer().encode_prompt(PROMPT).unwrap();
    let body = json!({ "prompt": first, "max_tokens": 1, "logprobs": 0 });
    let response = server.posted("/v1/completions", &body);
    let token = response["choices"][0]["logprobs"]["tokens"][0].as_str();
    let word = token.unwrap().trim_start();
    let id = server.model.tokenizer().encode(word).unwrap()[0];
    let (biased, _) = text_with(json!({ "logit_bias": { id.to_string(): -100 } }));
    assert_ne!(biased, plain);
    for (field, value) in [
        ("repetition_penalty", json!(3)),
        ("presence_penalty", json!(30)),
        ("frequency_penalty", json!(30)),
    ] {
        // The plain text repeats itself.
        let (other, _) = text_with(json!({ field: value }));
        assert_ne!(other, plain, "{field}");
    }
    let (newer, _) = text_with(json!({ "max_completion_tokens": 2 }));
    assert!(plain.starts_with(&newer) && newer.len() < plain.len());
}

#[test]
fn parts_of_a_stream_are_whole_characters() {
    let server = start();
    // Characters of several tokens each.
    let prefix = " 日本語 – é\u{1f642} x";
    let body = json!({
        "prompt": PROMPT, "max_tokens": 40, "forced_prefix": prefix, "stream": true, "n": 2
    });
    let events = server.post("/v1/completions", &body).events();
    for index in 0..2 {
        let text = streamed(&events, index);
        assert!(text.starts_with(prefix), "{text}");
        assert!(!text.contains('\u{fffd}'), "{text}");
    }
}

#[test]
fn constraints_shape_the_text() {
    let server = start();
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string", "maxLength": 8 }, "age": { "enum": [3, 4] } },
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let formats = [
        json!({ "response_format": {
            "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": schema }
        } }),
        json!({ "json_schema": schema }),
    ];
    for more in formats {
        let mut body = json!({ "prompt": PROMPT, "max_tokens": 60, "at_limit": "close" });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let response = server.posted("/v1/completions", &body);
        let object: Value = serde_json::from_str(text(&response)).unwrap();
        assert!(object["name"].is_string() && object["age"].is_number());
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
    }
    for (field, value, expected) in [
        ("regex", json!(" [0-9]{3}"), 4),
        ("choice", json!([" yes", " not"]), 4),
        ("grammar", json!("start: \" aa\" | \" bb\""), 3),
    ] {
        let body = json!({ "prompt": PROMPT, field: value });
        let response = server.posted("/v1/completions", &body);
        assert_eq!(text(&response).len(), expected, "{field}: {response}");
    }
    let body = json!({
        "prompt": PROMPT, "max_tokens": 40, "at_limit": "close",
        "response_format": { "type": "json_object" }
    });
    let response = server.posted("/v1/completions", &body);
    let object: Value = serde_json::from_str(text(&response)).unwrap();
    assert!(object.is_object());
}

#[test]
fn requests_advance_together() {
    let server = start();
    let body = json!({ "prompt": PROMPT, "max_tokens": 40, "ignore_eos": true });
    let alone = server.posted("/v1/completions", &body);
    let texts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| server.posted("/v1/completions", &body)))
            .collect();
        let all = threads.into_iter().map(|thread| thread.join().unwrap());
        all.map(|response| text(&response).to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(texts, vec![text(&alone); 8]);
}
