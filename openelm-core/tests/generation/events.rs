//! Order of events, and generated text.

use std::thread;

use openelm_core::{
    Dtype,
    generation::{Event, FinishReason, GenerateOptions, Generation},
};

use crate::models::{Outcome, PROMPT, decode, greedy, load, load_as, references, run};

#[test]
fn events_are_ordered_and_text_matches_reference() {
    let model = load();
    for (prompt, ids, text) in references() {
        let options = GenerateOptions {
            prefill_chunk: Some(4),
            ..greedy(ids.len())
        };
        let outcome = run(&model, &prompt, options);
        assert_eq!(outcome.ids(), ids, "{prompt}");
        // The reference is the answer alone; its decoder drops the leading space.
        let found = outcome.text();
        assert_eq!(found.strip_prefix(' ').unwrap_or(&found), text);
        assert_eq!(found, decode(&model, &prompt, &ids));
        assert_eq!(outcome.reason(), FinishReason::Length);

        let total = model.tokenizer().encode_prompt(&prompt).unwrap().len();
        let chunks: Vec<_> = (1..=total.div_ceil(4)).map(|n| total.min(4 * n)).collect();
        let seen: Vec<_> = outcome.prefill.iter().map(|&(done, _)| done).collect();
        assert_eq!(seen, chunks);
        let (_, stats) = outcome.end.unwrap();
        assert_eq!((stats.prompt_tokens, stats.generated_tokens), (total, 64));
        assert!(stats.prefill_tokens_per_second() > 0.0);
        assert!(stats.decode_tokens_per_second() > 0.0);
    }
}

#[test]
fn chunk_size_does_not_change_the_text() {
    let model = load();
    let prompt = "The old woman went into the forest and said to the wolf. ".repeat(12);
    let ids = model.tokenizer().encode_prompt(&prompt).unwrap();
    assert!(ids.len() > 140, "{}", ids.len());
    let text = |chunk: Option<usize>| {
        let options = GenerateOptions {
            prefill_chunk: chunk,
            ..greedy(48)
        };
        let outcome = run(&model, &prompt, options);
        let length = chunk.unwrap_or(128);
        assert_eq!(outcome.prefill.len(), ids.len().div_ceil(length));
        outcome.text()
    };
    let whole = text(Some(ids.len()));
    assert_eq!(whole, text(Some(usize::MAX)));
    for chunk in [1, 3, 127, 128, 129] {
        assert_eq!(whole, text(Some(chunk)), "{chunk}");
    }
    if openelm_core::Device::current().unwrap() == openelm_core::Device::Cpu {
        assert_eq!(whole, text(None));
    }
}

#[test]
fn interleaved_generations_are_independent() {
    let model = load();
    let alone: Vec<_> = references()
        .iter()
        .take(3)
        .map(|(prompt, ids, _)| run(&model, prompt, greedy(ids.len())).ids())
        .collect();
    let mut running: Vec<_> = references()
        .iter()
        .take(3)
        .map(|(prompt, ids, _)| (model.generate(prompt, greedy(ids.len())).unwrap(), vec![]))
        .collect();
    let mut live = true;
    while live {
        live = false;
        for (generation, ids) in &mut running {
            let event = generation.next();
            live |= event.is_some();
            if let Some(Event::Token(token)) = event.transpose().unwrap() {
                ids.push(token.id);
            }
        }
    }
    let together: Vec<_> = running.into_iter().map(|(_, ids)| ids).collect();
    assert_eq!(together, alone);
}

#[test]
fn generation_can_be_dropped_at_any_event() {
    let model = load();
    let whole = run(&model, PROMPT, greedy(8)).text();
    let prompt = "the king ".repeat(30);
    for events in 0..12 {
        let options = GenerateOptions {
            prefill_chunk: Some(16),
            logprobs: 2,
            ..greedy(8)
        };
        let mut generation = model.generate(&prompt, options).unwrap();
        assert_eq!(generation.by_ref().take(events).flatten().count(), events);
        drop(generation);
    }
    assert_eq!(run(&model, PROMPT, greedy(8)).text(), whole);
}

#[test]
fn model_without_tokenizer_gives_ids() {
    let model = load();
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let options = GenerateOptions {
        // Without text there are no stop strings.
        stop: vec!["e".into(), "\n".into()],
        ..greedy(16)
    };
    let generation = Generation::new(model.model(), None, prompt, options).unwrap();
    let outcome = Outcome::of(generation);
    assert_eq!(outcome.ids(), run(&model, PROMPT, greedy(16)).ids());
    assert_eq!(outcome.text(), "");
    assert_eq!(outcome.reason(), FinishReason::Length);
}

#[test]
fn generates_in_16_bit_dtypes() {
    let (prompt, ids, _) = references().swap_remove(0);
    for dtype in [Dtype::Float16, Dtype::Bfloat16] {
        let model = load_as(dtype);
        assert_eq!(model.model().dtype(), dtype);
        let options = GenerateOptions {
            logprobs: 4,
            ..greedy(16)
        };
        let outcome = run(&model, &prompt, options);
        // The first tokens are clear enough for 8 bits of precision.
        assert_eq!(outcome.ids()[..4], ids[..4], "{dtype}");
        assert_eq!(outcome.tokens.len(), 16);
        for token in &outcome.tokens {
            let logprob = token.logprob.unwrap();
            assert!(logprob.is_finite() && logprob <= 0.0, "{logprob}");
        }
    }
}

/// MLX binds arrays to their thread; each thread has its own model.
#[test]
fn threads_load_separate_models() {
    let (prompt, ids, _) = references().swap_remove(1);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let found = run(&load(), &prompt, greedy(ids.len())).ids();
                assert_eq!(found, ids);
            });
        }
    });
}
