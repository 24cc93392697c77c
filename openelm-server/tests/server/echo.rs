//! Log-probabilities of completions, and `echo`, as lm-eval needs them.

use serde_json::{Value, json};

use crate::running::{Running, start};

const PROMPT: &str = "Once upon a time, there was a café – and a";

fn list<'v>(value: &'v Value, name: &str) -> &'v Vec<Value> {
    value[name].as_array().unwrap()
}

/// The log-probabilities of a choice whose four lists have `length` entries.
#[track_caller]
fn logprobs(choice: &Value, length: usize) -> &Value {
    let logprobs = &choice["logprobs"];
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(logprobs, name).len(), length, "{name}: {logprobs}");
    }
    logprobs
}

fn ids(server: &Running, text: &str) -> Vec<u32> {
    server.model.tokenizer().encode_prompt(text).unwrap()
}

#[test]
fn a_prompt_has_a_log_probability_for_each_token() {
    let server = start();
    let prompts = [ids(&server, PROMPT), ids(&server, "The king")];
    // The body of lm-eval's `local-completions`.
    let body = json!({
        "model": "tales", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": true
    });
    let response = server.posted("/v1/completions", &body);
    for (choice, prompt) in list(&response, "choices").iter().zip(&prompts) {
        let logprobs = logprobs(choice, prompt.len() + 1);
        assert_eq!(logprobs["token_logprobs"][0], Value::Null);
        assert_eq!(logprobs["top_logprobs"][0], Value::Null);
        let rows = list(logprobs, "token_logprobs").iter();
        let rows = rows.zip(list(logprobs, "top_logprobs")).skip(1);
        let mut greedy = 0;
        for (own, top) in rows {
            let own = own.as_f64().unwrap();
            let top = top.as_object().unwrap();
            let best = top.values().map(|value| value.as_f64().unwrap());
            let best = best.fold(f64::NEG_INFINITY, f64::max);
            assert!((1..=2).contains(&top.len()) && best >= own, "{top:?}");
            assert_eq!(top.len() == 1, best == own, "{top:?} {own}");
            greedy += usize::from(best == own);
        }
        // The last token is the model's own.
        assert!(greedy > 0);
    }
    // The same numbers as the core's scorer, up to rounding.
    let text = PROMPT.rsplit_once(' ').unwrap();
    let context = ids(&server, text.0).len();
    let choice = &response["choices"][0];
    let logprobs = list(&choice["logprobs"], "token_logprobs");
    let sum: f64 = logprobs[context..prompts[0].len()]
        .iter()
        .map(|value| value.as_f64().unwrap())
        .sum();
    let model = openelm_core::LanguageModel::load(openelm_testing::tales(), &Default::default());
    let model = model.unwrap();
    let request = openelm_core::evaluate::ScoreRequest {
        context: text.0.into(),
        continuation: format!(" {}", text.1),
    };
    let mut scorer = openelm_core::evaluate::Scorer::new(&model).unwrap();
    let mut scores = Vec::new();
    scorer
        .log_likelihoods(&[request], |_, score| {
            scores.push(score);
            Ok::<_, openelm_core::Error>(())
        })
        .unwrap();
    assert!(
        (scores[0].sum - sum).abs() < 1e-4,
        "{} {sum}",
        scores[0].sum
    );
}

#[test]
fn the_echo_is_the_prompt_and_its_offsets_count_characters() {
    let server = start();
    let prompt = ids(&server, PROMPT);
    let body = json!({ "prompt": PROMPT, "max_tokens": 5, "logprobs": 3, "echo": true });
    let whole = server.posted("/v1/completions", &body);
    let choice = &whole["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(text.starts_with(PROMPT) && text.len() > PROMPT.len());
    let logprobs = logprobs(choice, prompt.len() + 5);
    let characters: Vec<char> = text.chars().collect();
    let tokens = list(logprobs, "tokens").iter();
    let mut last = 0;
    for (token, offset) in tokens.zip(list(logprobs, "text_offset")).skip(1) {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        assert!(offset >= last);
        last = offset;
        if token.starts_with("bytes:") {
            continue;
        }
        // LLaMA's tokenizer drops the first space of a text.
        let token = token
            .strip_prefix(' ')
            .filter(|_| offset == 0)
            .unwrap_or(token);
        let found: String = characters[offset..]
            .iter()
            .take(token.chars().count())
            .collect();
        assert_eq!(found, token, "{offset}");
    }
    assert_eq!(logprobs["text_offset"][1], 0);
    // A stream has the same parts.
    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post("/v1/completions", &body).events();
    let mut joined = (String::new(), Vec::new(), Vec::new());
    for choice in events.iter().map(|event| &event["choices"][0]) {
        joined.0 += choice["text"].as_str().unwrap();
        if choice["logprobs"].is_object() {
            joined
                .1
                .extend(list(&choice["logprobs"], "token_logprobs").clone());
            joined
                .2
                .extend(list(&choice["logprobs"], "text_offset").clone());
        }
    }
    assert_eq!(joined.0, text);
    assert_eq!(joined.1.len(), prompt.len() + 5);
    assert_eq!(&joined.2, list(logprobs, "text_offset"));
}

#[test]
fn an_echo_needs_no_generated_token() {
    let server = start();
    let prompt = ids(&server, PROMPT);
    for (body, length) in [
        (json!({ "logprobs": 2 }), Some(prompt.len())),
        (json!({}), None),
    ] {
        let mut body = body;
        let more = json!({ "prompt": prompt, "max_tokens": 0, "echo": true });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let response = server.posted("/v1/completions", &body);
        let choice = &response["choices"][0];
        assert_eq!(choice["text"], PROMPT);
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!(response["usage"]["completion_tokens"], 0);
        match length {
            Some(length) => _ = logprobs(choice, length),
            None => assert_eq!(choice["logprobs"], Value::Null),
        }
    }
}

#[test]
fn generated_tokens_have_log_probabilities() {
    let server = start();
    let body = json!({ "prompt": "The king", "max_tokens": 6, "logprobs": 4 });
    let response = server.posted("/v1/completions", &body);
    let choice = &response["choices"][0];
    let logprobs = logprobs(choice, 6);
    assert_eq!(logprobs["text_offset"][0], 0);
    let tokens = list(logprobs, "tokens");
    let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(text, choice["text"].as_str().unwrap());
    for top in list(logprobs, "top_logprobs") {
        assert_eq!(top.as_object().unwrap().len(), 4);
    }
    // Only the token itself.
    let body = json!({ "prompt": "The king", "max_tokens": 6, "logprobs": 0 });
    let response = server.posted("/v1/completions", &body);
    for (top, own) in list(&response["choices"][0]["logprobs"], "top_logprobs")
        .iter()
        .zip(list(&response["choices"][0]["logprobs"], "token_logprobs"))
    {
        assert_eq!(top.as_object().unwrap().values().next(), Some(own));
    }
}

#[test]
fn an_end_token_keeps_its_entry() {
    let server = start();
    let eos = server.model.tokenizer().eos_id();
    let prompt = ids(&server, "The king");
    let body = json!({
        "prompt": [prompt], "max_tokens": 1, "logprobs": 1, "echo": true,
        "logit_bias": { eos.to_string(): 1000 }
    });
    let response = server.posted("/v1/completions", &body);
    let choice = &response["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["text"], "The king");
    let logprobs = logprobs(choice, prompt.len() + 1);
    assert_eq!(list(logprobs, "tokens").last().unwrap(), "</s>");
}
