//! Structured output of the tales model.

use openelm_core::{
    Error,
    constraint::{AtLimit, ConstraintKind},
    generation::{Event, FinishReason, GenerateOptions, Generation, advance},
};
use serde_json::Value;

use crate::models::{Outcome, PROMPT, greedy, load, warm};

const SCHEMA: &str = r#"{"type": "object", "additionalProperties": false,
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [1, 20, 300]}},
    "required": ["name", "age"]}"#;

fn constrained(kind: ConstraintKind, seed: Option<u64>) -> GenerateOptions {
    GenerateOptions {
        sampling: seed.map(warm).unwrap_or_default(),
        constraint: Some(kind),
        ..greedy(100)
    }
}

fn schema() -> ConstraintKind {
    ConstraintKind::JsonSchema(SCHEMA.to_owned())
}

#[test]
fn texts_follow_the_constraint_to_their_end() {
    let model = load();
    for seed in [None, Some(1), Some(2), Some(3)] {
        let outcome = Outcome::of(model.generate(PROMPT, constrained(schema(), seed)).unwrap());
        let (reason, _) = outcome.end.unwrap();
        assert_eq!(reason, FinishReason::Eos);
        let text: String = outcome.tokens.iter().map(|token| &*token.text).collect();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["name"].as_str().unwrap().chars().count() <= 8);
        assert!([1, 20, 300].contains(&value["age"].as_u64().unwrap()));
    }
    let choices = ["a cat", "the king", "Old"].map(str::to_owned).to_vec();
    let options = constrained(ConstraintKind::Choice(choices.clone()), None);
    let outcome = Outcome::of(model.generate(PROMPT, options).unwrap());
    let text: String = outcome.tokens.iter().map(|token| &*token.text).collect();
    assert!(choices.contains(&text), "{text:?}");
}

#[test]
fn log_probabilities_are_the_models() {
    let model = load();
    let options = GenerateOptions {
        logprobs: 2,
        ..constrained(ConstraintKind::Regex("0{4}".to_owned()), None)
    };
    let outcome = Outcome::of(model.generate(PROMPT, options).unwrap());
    let first = &outcome.tokens[0];
    assert!(
        first
            .top_logprobs
            .iter()
            .all(|likely| likely.id != first.id)
    );
    assert!(first.logprob.unwrap() < first.top_logprobs[1].logprob);
}

#[test]
fn constrained_and_free_texts_advance_together() {
    let model = load();
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let options = [
        constrained(schema(), Some(5)),
        greedy(20),
        constrained(
            ConstraintKind::Regex("[a-z]{3}( [a-z]{3}){3}".to_owned()),
            Some(6),
        ),
    ];
    let generation = |options: &GenerateOptions| {
        let tokenizer = Some(model.tokenizer());
        Generation::new(model.model(), tokenizer, prompt.clone(), options.clone()).unwrap()
    };
    let alone: Vec<String> = options
        .iter()
        .map(|options| {
            let mut generation = generation(options);
            generation.by_ref().for_each(|event| drop(event.unwrap()));
            generation.text().to_owned()
        })
        .collect();
    let mut together: Vec<_> = options.iter().map(generation).collect();
    while together.iter().any(|generation| !generation.has_ended()) {
        advance(&mut together.iter_mut().collect::<Vec<_>>());
        for generation in &mut together {
            while let Some(event) = generation.ready_event() {
                event.unwrap();
            }
        }
    }
    let texts: Vec<_> = together
        .iter()
        .map(|generation| generation.text())
        .collect();
    assert_eq!(texts, alone);
}

#[test]
fn a_limit_stops_refuses_or_closes_a_text() {
    let model = load();
    let limited = |at_limit, max_tokens| GenerateOptions {
        max_tokens,
        at_limit,
        ..constrained(schema(), None)
    };
    let outcome = Outcome::of(model.generate(PROMPT, limited(AtLimit::Stop, 3)).unwrap());
    assert_eq!(outcome.end.unwrap().0, FinishReason::Length);
    for at_limit in [AtLimit::Error, AtLimit::Close] {
        let events: Vec<_> = model
            .generate(PROMPT, limited(at_limit, 3))
            .unwrap()
            .collect();
        let message = events.last().unwrap().as_ref().unwrap_err().to_string();
        assert_eq!(message, "at_limit: the text is incomplete after 3 tokens");
    }
    // A text without tokens, too.
    let nothing = |regex: &str| {
        let constraint = Some(ConstraintKind::Regex(regex.to_owned()));
        let options = GenerateOptions {
            constraint,
            ..limited(AtLimit::Error, 0)
        };
        model.generate(PROMPT, options).unwrap().last().unwrap()
    };
    let message = nothing("a").unwrap_err().to_string();
    assert_eq!(message, "at_limit: the text is incomplete after 0 tokens");
    let end = nothing("a*").unwrap();
    assert!(
        matches!(
            end,
            Event::Finished {
                reason: FinishReason::Length,
                ..
            }
        ),
        "{end:?}"
    );
    let long = r#"{"type": "object", "properties": {"words": {"type": "array", "items":
        {"type": "string"}, "minItems": 1}, "end": {"enum": ["fin", "finale"]}},
        "required": ["words", "end"], "additionalProperties": false}"#;
    for seed in 0..6 {
        for max_tokens in [24, 40, 90] {
            let options = GenerateOptions {
                sampling: warm(seed),
                constraint: Some(ConstraintKind::JsonSchema(long.to_owned())),
                ..limited(AtLimit::Close, max_tokens)
            };
            let outcome = Outcome::of(model.generate(PROMPT, options).unwrap());
            assert!(outcome.tokens.len() <= max_tokens);
            assert_eq!(outcome.end.unwrap().0, FinishReason::Eos);
            let text: String = outcome.tokens.iter().map(|token| &*token.text).collect();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["end"].as_str().unwrap().starts_with("fin"), "{text}");
        }
    }
}

#[test]
fn a_constraint_without_a_tokenizer_or_an_end_is_refused() {
    let model = load();
    let refused = |result: Result<Generation<'_>, Error>| result.unwrap_err().to_string();
    let options = constrained(schema(), None);
    let message = refused(Generation::new(
        model.model(),
        None,
        vec![1],
        options.clone(),
    ));
    assert_eq!(message, "json_schema: a tokenizer is needed");
    let endless = GenerateOptions {
        ignore_eos: true,
        ..options
    };
    let message = refused(model.generate(PROMPT, endless));
    assert_eq!(
        message,
        "ignore_eos: not with json_schema: the text ends where it is complete"
    );
    let options = constrained(ConstraintKind::Regex("(".to_owned()), None);
    let message = refused(model.generate(PROMPT, options));
    assert_eq!(message, "regex: the expression `(`: unclosed group");
    // An error at a later token ends the text.
    let options = constrained(
        ConstraintKind::Regex("(.*a.{0,500}){40}".to_owned()),
        Some(1),
    );
    let events: Vec<_> = model.generate(PROMPT, options).unwrap().collect();
    match events.last().unwrap() {
        Err(error) => assert_eq!(error.to_string(), "regex: it is too complex"),
        Ok(event) => assert!(matches!(event, Event::Finished { .. })),
    }
}
