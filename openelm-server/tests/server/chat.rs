//! `/v1/chat/completions`.

use openelm_core::chat::ChatTemplate;
use serde_json::{Value, json};

use crate::running::{load, start, start_with};

fn messages() -> Value {
    json!([
        { "role": "system", "content": "Once upon a time" },
        { "role": "user", "content": [{ "type": "text", "text": " there" }, { "type": "text", "text": " was" }] },
    ])
}

#[test]
fn answers_whole_and_streamed() {
    let server = start();
    let body = json!({ "messages": messages(), "max_tokens": 8 });
    let whole = server.posted("/v1/chat/completions", &body);
    assert_eq!(whole["object"], "chat.completion");
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    // The plain template continues the text.
    let prompt = json!({ "prompt": "Once upon a time there was", "max_tokens": 8 });
    let completed = server.posted("/v1/completions", &prompt);
    assert_eq!(message["content"], completed["choices"][0]["text"]);

    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post("/chat/completions", &body).events();
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk")
    );
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    let first = &events[0]["choices"][0];
    assert_eq!(
        first["delta"],
        json!({ "role": "assistant", "content": "" })
    );
    let last = &events.last().unwrap()["choices"][0];
    assert_eq!(
        (&last["delta"], &last["finish_reason"]),
        (&json!({}), &json!("length"))
    );
    let parts = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["content"]);
    let text: String = parts.filter_map(Value::as_str).collect();
    assert_eq!(text, message["content"].as_str().unwrap());
}

#[test]
fn a_template_frames_the_messages() {
    let server = start_with(load(), |options| {
        options.chat_template = ChatTemplate::OpenElmInstruct;
    });
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 2 });
    let whole = server.posted("/v1/chat/completions", &body);
    let prompt = "<|user|>\nHi</s>\n<|assistant|>\n";
    let ids = server.model.tokenizer().encode_prompt(prompt).unwrap();
    assert_eq!(whole["usage"]["prompt_tokens"], ids.len());
    let refused = server.refused(
        "/v1/chat/completions",
        &json!({ "messages": [{ "role": "assistant", "content": "Hi" }] }),
        400,
        json!("messages"),
    );
    assert_eq!(
        refused,
        "messages: message 1: expected the role `user`, found `assistant`"
    );
}

#[test]
fn tokens_of_an_answer_have_log_probabilities() {
    let server = start();
    let body = json!({
        "messages": messages(), "max_tokens": 6, "logprobs": true, "top_logprobs": 2
    });
    let whole = server.posted("/v1/chat/completions", &body);
    let choice = &whole["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 6);
    let mut text = Vec::new();
    for token in content {
        let bytes = token["bytes"].as_array().unwrap().iter();
        text.extend(bytes.map(|byte| byte.as_u64().unwrap() as u8));
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        // Greedy.
        assert_eq!(top[0]["token"], token["token"]);
        assert_eq!(top[0]["logprob"], token["logprob"]);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    // The end token has no text and no entry.
    let eos = server.model.tokenizer().eos_id().to_string();
    let body = json!({
        "messages": messages(), "logprobs": true, "logit_bias": { eos: 1000 }
    });
    let whole = server.posted("/v1/chat/completions", &body);
    let choice = &whole["choices"][0];
    assert_eq!(choice["logprobs"]["content"], json!([]));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(whole["usage"]["completion_tokens"], 1);
}

#[test]
fn turns_share_their_keys_and_values() {
    let server = start();
    let mut conversation = messages();
    let body = json!({ "messages": conversation, "max_tokens": 8 });
    let first = server.posted("/v1/chat/completions", &body);
    let answer = first["choices"][0]["message"]["content"].clone();
    let more = [
        json!({ "role": "assistant", "content": answer }),
        json!({ "role": "user", "content": " Then" }),
    ];
    conversation.as_array_mut().unwrap().extend(more);
    let body = json!({ "messages": conversation, "max_tokens": 2 });
    let usage = &server.posted("/v1/chat/completions", &body)["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached.unwrap() >= first["usage"]["prompt_tokens"].as_u64().unwrap());
}
