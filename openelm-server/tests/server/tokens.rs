//! `/tokenize`, `/detokenize` and `/tokenizer_info`.

use serde_json::json;

use crate::running::start;

#[test]
fn texts_become_tokens_and_back() {
    let server = start();
    let tokenizer = server.model.tokenizer();
    let text = "The king’s </s> son";
    let (with, without) = (
        tokenizer.encode_prompt(text).unwrap(),
        tokenizer.encode(text).unwrap(),
    );
    // vLLM's names, then llama-server's.
    for (body, expected) in [
        (json!({ "prompt": text }), &with),
        (
            json!({ "prompt": text, "add_special_tokens": false }),
            &without,
        ),
        (json!({ "content": text }), &without),
        (
            json!({ "content": text, "add_special": true, "parse_special": true }),
            &with,
        ),
    ] {
        let found = server.posted("/tokenize", &body);
        assert_eq!(found["tokens"], json!(expected), "{body}");
        assert_eq!(found["count"], expected.len());
    }
    let plain = tokenizer.encode_plain_prompt(text).unwrap();
    let body = json!({ "content": text, "parse_special": false });
    assert_eq!(
        server.posted("/tokenize", &body)["tokens"],
        json!(plain[1..])
    );
    let body = json!({ "content": "The", "with_pieces": true });
    let pieces = server.posted("/tokenize", &body)["tokens"].clone();
    assert_eq!(
        pieces,
        json!([{ "id": tokenizer.encode("The").unwrap()[0], "piece": " The" }])
    );
    let text = server.posted("/detokenize", &json!({ "tokens": without }));
    let expected = tokenizer.decode(&without).unwrap();
    assert_eq!(text, json!({ "prompt": expected, "content": expected }));
    let vocab = tokenizer.vocab_size();
    for (path, body, status, param) in [
        (
            "/detokenize",
            json!({ "tokens": [5, vocab] }),
            400,
            json!("tokens"),
        ),
        (
            "/detokenize",
            json!({ "tokens": [-1] }),
            400,
            json!("tokens"),
        ),
        ("/tokenize", json!({}), 400, json!("prompt")),
        (
            "/tokenize",
            json!({ "prompt": "a", "add_special": true }),
            400,
            json!("add_special"),
        ),
    ] {
        server.refused(path, &body, status, param);
    }
}

#[test]
fn the_special_tokens_are_known() {
    let server = start();
    let info = server.get("/tokenizer_info").json();
    assert_eq!(
        (&info["bos_token"], &info["eos_token"]),
        (&json!("<s>"), &json!("</s>"))
    );
    let eos = server.posted(
        "/tokenize",
        &json!({ "prompt": "</s>", "add_special_tokens": false }),
    );
    assert_eq!(eos["tokens"], json!([info["eos_token_id"]]));
}
