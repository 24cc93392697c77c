//! Ends of a generation.

use std::{sync::mpsc, thread};

use openelm_core::{
    CancelHandle, Error,
    generation::{Event, FinishReason, GenerateOptions, Generation, Sampling},
};

use crate::models::{Outcome, PROMPT, decode, greedy, load, load_with, run, warm};

#[test]
fn max_tokens_of_0_and_1() {
    let model = load();
    let none = run(&model, PROMPT, greedy(0));
    assert_eq!(none.reason(), FinishReason::Length);
    assert_eq!((none.tokens.len(), none.prefill.len()), (0, 1));
    let (_, stats) = none.end.unwrap();
    assert_eq!(stats.decode_tokens_per_second(), 0.0);

    let one = run(&model, PROMPT, greedy(1));
    assert_eq!(one.reason(), FinishReason::Length);
    assert_eq!(one.text(), " there");
    let (_, stats) = one.end.unwrap();
    assert_eq!(stats.decode_tokens_per_second(), 0.0);
}

#[test]
fn stop_strings_across_tokens_end_the_text() {
    let model = load();
    let whole = run(&model, PROMPT, greedy(64)).text();
    assert!(
        whole.starts_with(" there lived a little girl who had"),
        "{whole}"
    );
    let stop = |stops: &[&str]| {
        let options = GenerateOptions {
            stop: stops.iter().map(|&stop| stop.to_owned()).collect(),
            ..greedy(64)
        };
        run(&model, PROMPT, options)
    };
    // Any substring of the text, also in the middle of a word.
    for from in 0..24 {
        for length in [1, 5, 17] {
            let part = &whole[from..from + length];
            let outcome = stop(&[part]);
            assert_eq!(outcome.text(), whole[..whole.find(part).unwrap()], "{part}");
            assert_eq!(outcome.reason(), FinishReason::Stop);
            assert!(outcome.tokens.len() < 64);
        }
    }
    assert_eq!(stop(&["girl who", "a little"]).text(), " there lived ");
    // Stop strings that almost occur.
    for stops in [
        &["girl whom"][..],
        &["🦙"],
        &[""],
        &["", "lived there"],
        &[],
    ] {
        let outcome = stop(stops);
        assert_eq!(outcome.text(), whole);
        assert_eq!(outcome.reason(), FinishReason::Length);
    }
    // The text ends with the beginning of a stop string.
    let beginning = format!("{}!", &whole[whole.len() - 10..]);
    assert_eq!(stop(&[&beginning]).text(), whole);
}

#[test]
fn multi_byte_stop_strings_end_the_text() {
    let model = load();
    // At this temperature the model generates any token, including bytes that are not valid UTF-8.
    let options = GenerateOptions {
        sampling: Sampling {
            temperature: 100.0,
            ..warm(3)
        },
        ignore_eos: true,
        ..greedy(100)
    };
    let free = run(&model, PROMPT, options.clone());
    let whole = free.text();
    assert_eq!(whole, decode(&model, PROMPT, &free.ids()));
    let multi: Vec<usize> = whole
        .char_indices()
        .filter(|(_, character)| character.len_utf8() > 1)
        .map(|(start, _)| start)
        .take(8)
        .collect();
    assert!(multi.len() > 3, "{whole}");
    for start in multi {
        for length in [1, 3] {
            let part: String = whole[start..].chars().take(length).collect();
            let options = GenerateOptions {
                stop: vec![part.clone()],
                ..options.clone()
            };
            let outcome = run(&model, PROMPT, options);
            assert_eq!(
                outcome.text(),
                whole[..whole.find(&part).unwrap()],
                "{part}"
            );
            assert_eq!(outcome.reason(), FinishReason::Stop);
        }
    }
}

#[test]
fn eos_ends_the_text_unless_ignored() {
    let ids = run(&load(), PROMPT, greedy(64)).ids();
    // The sixth token of the greedy text, which does not occur before, becomes the end token.
    let eos = ids[5];
    assert!(!ids[..5].contains(&eos));
    let model = load_with(&[("eos_token_id", eos.into())]);
    let ended = run(&model, PROMPT, greedy(64));
    assert_eq!(ended.reason(), FinishReason::Eos);
    assert_eq!(ended.ids(), ids[..6]);
    assert_eq!(ended.tokens[5].text, "");
    assert_eq!(ended.text(), decode(&model, PROMPT, &ids[..5]));

    // Text held back as the beginning of a stop string is emitted at the end.
    let mut stop = ended.text().split_off(5);
    stop.push('!');
    let options = GenerateOptions {
        stop: vec![stop],
        ..greedy(64)
    };
    let held = run(&model, PROMPT, options);
    assert_eq!(held.reason(), FinishReason::Eos);
    assert_eq!(held.text(), ended.text());

    // At the token limit the end token still counts.
    assert_eq!(run(&model, PROMPT, greedy(6)).reason(), FinishReason::Eos);
    assert_eq!(
        run(&model, PROMPT, greedy(5)).reason(),
        FinishReason::Length
    );

    let options = GenerateOptions {
        ignore_eos: true,
        ..greedy(64)
    };
    let ignored = run(&model, PROMPT, options);
    assert_eq!(ignored.reason(), FinishReason::Length);
    assert_eq!(ignored.ids(), ids);
    assert_eq!(ignored.text(), decode(&model, PROMPT, &ids));
}

#[test]
fn cancels_between_chunks_and_tokens() {
    let model = load();
    let long = "the king ".repeat(60);
    for chunks in [0, 1, 3] {
        let options = GenerateOptions {
            prefill_chunk: Some(16),
            ..greedy(8)
        };
        let generation = model.generate(&long, options).unwrap();
        let handle = generation.cancel_handle();
        let mut seen = 0;
        if chunks == 0 {
            handle.cancel();
        }
        let outcome = Outcome::watching(generation, |_| {
            seen += 1;
            if seen == chunks {
                handle.cancel();
            }
        });
        assert_eq!(outcome.reason(), FinishReason::Cancelled);
        assert_eq!((outcome.prefill.len(), outcome.tokens.len()), (chunks, 0));
    }
    for tokens in [1, 5] {
        let generation = model.generate(PROMPT, greedy(64)).unwrap();
        let handle = generation.cancel_handle();
        let mut seen = 0;
        let outcome = Outcome::watching(generation, |event| {
            seen += usize::from(matches!(event, Event::Token(_)));
            if seen == tokens {
                handle.cancel();
            }
        });
        assert_eq!(outcome.reason(), FinishReason::Cancelled);
        assert_eq!(outcome.tokens.len(), tokens);
        assert_eq!(outcome.text(), decode(&model, PROMPT, &outcome.ids()));
    }
    // Cancelling after the end has no effect.
    let generation = model.generate(PROMPT, greedy(2)).unwrap();
    let handle = generation.cancel_handle();
    let outcome = Outcome::watching(generation, |event| {
        if matches!(event, Event::Finished { .. }) {
            handle.cancel();
        }
    });
    assert_eq!(outcome.reason(), FinishReason::Length);
    CancelHandle::default().cancel();
}

#[test]
fn cancels_from_another_thread() {
    let model = load();
    let generation = model.generate(PROMPT, greedy(500)).unwrap();
    let handle = generation.cancel_handle();
    let (sender, receiver) = mpsc::sync_channel(0);
    let canceller = thread::spawn(move || {
        for _ in 0..7 {
            receiver.recv().unwrap();
        }
        handle.cancel();
        // Releases blocked senders.
        drop(receiver);
    });
    let outcome = Outcome::watching(generation, |event| {
        if matches!(event, Event::Token(_)) {
            let _ = sender.send(());
        }
    });
    canceller.join().unwrap();
    assert_eq!(outcome.reason(), FinishReason::Cancelled);
    assert!(
        (7..=8).contains(&outcome.tokens.len()),
        "{}",
        outcome.tokens.len()
    );
}

#[test]
fn full_context_ends_the_text() {
    let model = load();
    let context = model.model().config().max_context_length();
    assert_eq!(context, 512);
    let generate = |length: usize, max_tokens: usize| {
        let options = GenerateOptions {
            ignore_eos: true,
            ..greedy(max_tokens)
        };
        Generation::new(model.model(), None, vec![1; length], options)
    };
    for (length, max_tokens, generated, reason) in [
        (500, 256, 12, FinishReason::Context),
        (500, usize::MAX, 12, FinishReason::Context),
        (500, 13, 12, FinishReason::Context),
        (500, 12, 12, FinishReason::Length),
        (511, 256, 1, FinishReason::Context),
        (511, 1, 1, FinishReason::Length),
        (511, 0, 0, FinishReason::Length),
    ] {
        let outcome = Outcome::of(generate(length, max_tokens).unwrap());
        assert_eq!(outcome.tokens.len(), generated, "{length} {max_tokens}");
        assert_eq!(outcome.reason(), reason, "{length} {max_tokens}");
    }
    for length in [512, 513, 4096] {
        match generate(length, 1).unwrap_err() {
            Error::PromptTooLong { tokens, context } => {
                assert_eq!((tokens, context), (length, 512));
            }
            other => panic!("{other}"),
        }
    }
    let long = "king ".repeat(600);
    let message = model.generate(&long, greedy(1)).unwrap_err().to_string();
    let tokens = model.tokenizer().encode_prompt(&long).unwrap().len();
    assert_eq!(
        message,
        format!("the prompt has {tokens} tokens; the model's context holds 512")
    );
    // The text is complete even when it ends in the middle of a stop string.
    let short = load_with(&[("max_context_length", 10)]);
    let text = run(&short, PROMPT, greedy(64)).text();
    assert_eq!(text, " there lived a little");
    let options = GenerateOptions {
        stop: vec!["a little!".into()],
        ..greedy(64)
    };
    let held = run(&short, PROMPT, options);
    assert_eq!((held.text(), held.reason()), (text, FinishReason::Context));
}
