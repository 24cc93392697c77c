//! Prompts of token ids, and adapters of one request.

use openelm_core::{
    LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
    engine::{EventReceiver, ModelHandle, Prompt, RequestOptions},
    generation::{Event, FinishReason, GenerateOptions, PromptToken, Stats},
};
use openelm_testing::{TempDir, block_on, tales};

use super::{greedy, load};

const STORY: &str = "Once upon a time there was a little girl named Lily. She liked";

/// Reads all events: the prompt's log-probabilities, the text, the reason and the statistics.
fn read(events: &EventReceiver<Event>) -> (Vec<PromptToken>, String, FinishReason, Stats) {
    let (mut prompt, mut text) = (Vec::new(), String::new());
    while let Some(event) = events.next_blocking().unwrap() {
        match event {
            Event::Prefill { logprobs, .. } => prompt.extend(logprobs),
            Event::Token(token) => text += &token.text,
            Event::Finished { reason, stats } => return (prompt, text, reason, stats),
        }
    }
    panic!("no last event after {text:?}");
}

fn problem(events: &EventReceiver<Event>) -> String {
    events.next_blocking().unwrap_err().to_string()
}

#[test]
fn token_ids_are_read_as_they_are() {
    let model = load();
    let ids = model.tokenizer().encode_prompt(STORY).unwrap();
    let of_text = read(&model.generate(STORY, greedy(12)).unwrap());
    let of_ids = read(&model.generate(ids.clone(), greedy(12)).unwrap());
    assert_eq!(of_ids.1, of_text.1);
    assert_eq!(of_ids.3.cached_tokens, ids.len() - 1);
    // BOS is not added.
    let without = read(&model.generate(ids[1..].to_vec(), greedy(4)).unwrap());
    assert_eq!(without.3.prompt_tokens, ids.len() - 1);
    let empty = model.generate(Prompt::Tokens(Vec::new()), greedy(1));
    assert_eq!(problem(&empty.unwrap()), "prompt: it is empty");
    let vocab = model.info().config.vocab_size();
    let unknown = model.generate(vec![1, vocab as u32], greedy(1)).unwrap();
    let expected = format!("prompt: token {vocab} is not in the model's vocabulary of {vocab}");
    assert_eq!(problem(&unknown), expected);
}

#[test]
fn scores_a_prompt_without_a_text() {
    let model = load();
    let ids = model.tokenizer().encode_prompt(&STORY.repeat(9)).unwrap();
    assert!(ids.len() > 128, "{}", ids.len());
    let score = |logprobs, max_tokens| {
        let options = GenerateOptions {
            logprobs,
            prompt_logprobs: true,
            ..greedy(max_tokens)
        };
        read(&model.generate(ids.clone(), options).unwrap())
    };
    let (prompt, text, reason, stats) = score(1, 0);
    assert_eq!((text.as_str(), reason), ("", FinishReason::Length));
    assert_eq!(stats.generated_tokens, 0);
    let scored: Vec<u32> = prompt.iter().map(|token| token.id).collect();
    assert_eq!(scored, ids[1..]);
    // The most likely token alone is the first of several, with the same float.
    let (several, ..) = score(3, 0);
    for (token, other) in prompt.iter().zip(&several) {
        assert_eq!(token.top_logprobs, other.top_logprobs[..1]);
        assert_eq!(token.logprob, other.logprob);
        let best = token.top_logprobs[0];
        assert!(best.logprob >= token.logprob);
        assert_eq!(best.id == token.id, best.logprob == token.logprob);
    }
}

fn add_adapter(model: &ModelHandle, name: &str, seed: u64) {
    let folder = TempDir::new();
    let base = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let (base, targets) = (base.model(), TargetModules::default());
    let adapter = Adapter::lora(base, &targets, &LoraOptions::default(), seed).unwrap();
    adapter.save(folder.join("."), base.config()).unwrap();
    block_on(model.add_adapter(name.into(), folder.join("."))).unwrap();
}

fn with(active: Vec<(String, f32)>) -> RequestOptions {
    RequestOptions {
        adapters: Some(active),
        ..RequestOptions::default()
    }
}

#[test]
fn a_request_has_adapters_of_its_own() {
    let model = load();
    add_adapter(&model, "a", 1);
    add_adapter(&model, "b", 2);
    block_on(model.set_adapters(Vec::new())).unwrap();
    let cached = |active: Option<Vec<(String, f32)>>| {
        let events = match active {
            Some(active) => model.generate_with(STORY, greedy(4), with(active)),
            None => model.generate(STORY, greedy(4)),
        };
        read(&events.unwrap()).3.cached_tokens > 0
    };
    let (a, b) = (("a".to_owned(), 1.0), ("b".to_owned(), 1.0));
    // Keys and values are shared only by requests with the same adapters.
    for (active, is_known) in [
        (None, false),
        (Some(vec![a.clone()]), false),
        (Some(vec![b.clone()]), false),
        (Some(vec![a.clone()]), true),
        (Some(vec![b, a]), false),
        (Some(Vec::new()), true),
        (None, true),
    ] {
        assert_eq!(cached(active.clone()), is_known, "{active:?}");
        assert!(model.active_adapters().unwrap().is_empty());
    }
    let unknown = vec![("c".to_owned(), 1.0)];
    let events = model.generate_with(STORY, greedy(4), with(unknown));
    assert_eq!(
        problem(&events.unwrap()),
        "adapter: there is no adapter `c`"
    );
    assert!(cached(None), "an unknown adapter changed the model");
}
