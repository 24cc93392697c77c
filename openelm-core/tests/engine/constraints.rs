//! Requests with a constraint, which is compiled beside other generations.

use std::{thread, time::Instant};

use openelm_core::{
    Error,
    chat::ChatTemplate,
    constraint::ConstraintKind,
    engine::EventReceiver,
    generation::{Event, FinishReason, GenerateOptions},
};
use openelm_testing::block_on;

use super::{load, options, read};

/// A list of choices that takes about a second to compile; each `number` is another list.
fn slow(number: usize) -> GenerateOptions {
    let choice = |i: usize| format!("{} {number}", (i * 7_919) % 1_000_003);
    GenerateOptions {
        constraint: Some(ConstraintKind::Choice((0..14_000).map(choice).collect())),
        max_tokens: 20,
        ..GenerateOptions::default()
    }
}

fn next(events: &EventReceiver<Event>) -> Option<Event> {
    events.next_blocking().unwrap()
}

#[test]
fn a_text_goes_on_while_a_constraint_compiles() {
    let model = load();
    let running = model.generate("Once upon a time", options(1, 450)).unwrap();
    next(&running);
    let compiled = model.generate("The number is", slow(1)).unwrap();
    let first = thread::spawn(move || {
        let started = Instant::now();
        next(&compiled).unwrap();
        (Instant::now(), started.elapsed(), compiled)
    });
    let mut times = Vec::new();
    while let Some(event) = next(&running) {
        times.push(Instant::now());
        if matches!(event, Event::Finished { .. }) {
            break;
        }
    }
    let (began, waited, compiled) = first.join().unwrap();
    let meanwhile = times.iter().filter(|time| **time < began).count();
    assert!(meanwhile > 0, "no event in {waited:?}");
    let mut text = String::new();
    let reason = loop {
        match next(&compiled) {
            Some(Event::Token(token)) => text += &token.text,
            Some(Event::Finished { reason, .. }) => break reason,
            _ => {}
        }
    };
    assert_eq!(reason, FinishReason::Eos);
    assert!(text.ends_with(" 1"), "{text}");
}

#[test]
fn a_request_that_compiles_is_cancelled_and_unloaded() {
    let model = load();
    let chat = model.chat(ChatTemplate::Plain, Vec::new()).unwrap();
    let cancelled = chat.respond("The number is", slow(2)).unwrap();
    assert!(block_on(chat.is_responding()).unwrap());
    // The first answer comes first, though it still compiles.
    let second = chat.respond("Hello", options(1, 4)).unwrap();
    assert!(matches!(second.next_blocking(), Err(Error::Busy)));
    cancelled.close();
    assert!(!block_on(chat.is_responding()).unwrap());
    let messages = block_on(chat.messages()).unwrap();
    let texts: Vec<_> = messages.iter().map(|m| &*m.content).collect();
    assert_eq!(texts, ["The number is", ""]);
    let answer = chat.respond("Hello", options(1, 4)).unwrap();
    assert_eq!(read(&answer).1, FinishReason::Length);
    let waiting = chat.respond("The number is", slow(3)).unwrap();
    let alone = model.generate("The number is", slow(3)).unwrap();
    block_on(model.unload()).unwrap();
    for events in [waiting, alone] {
        let error = events.next_blocking().unwrap_err();
        assert!(matches!(error, Error::Unloaded), "{error}");
        assert!(events.next_blocking().unwrap().is_none());
    }
}

#[test]
fn errors_of_a_constraint_are_the_first_event() {
    let model = load();
    for (prompt, regex, expected) in [
        ("The", "(a", "regex: the expression `(a`: unclosed group"),
        ("", "(a", "prompt: it is empty"),
    ] {
        let constrained = GenerateOptions {
            constraint: Some(ConstraintKind::Regex(regex.into())),
            ..GenerateOptions::default()
        };
        // The second time the result is kept.
        for _ in 0..2 {
            let events = model.generate(prompt, constrained.clone()).unwrap();
            let error = events.next_blocking().unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(events.next_blocking().unwrap().is_none());
        }
    }
}
