//! Requests of several threads, conversations, adapters, pauses and the end of a model.

use std::{
    thread,
    time::{Duration, Instant},
};

use openelm_core::{
    Error,
    chat::{ChatTemplate, Role},
    engine::Engine,
    generation::{Event, FinishReason},
};
use openelm_testing::block_on;

use super::{load, options, read};

const PROMPTS: [&str; 3] = ["Once upon a time", "Lily and her mom went", "It"];

#[test]
fn requests_of_many_threads_have_the_texts_of_each_alone() {
    let model = load();
    let alone: Vec<_> = (0..9)
        .map(|i| {
            read(
                &model
                    .generate(PROMPTS[i % 3], options(i as u64, 10 + i))
                    .unwrap(),
            )
        })
        .collect();
    let threads: Vec<_> = (0..9)
        .map(|i| {
            let model = model.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(7 * i as u64));
                read(
                    &model
                        .generate(PROMPTS[i % 3], options(i as u64, 10 + i))
                        .unwrap(),
                )
            })
        })
        .collect();
    let together: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(together, alone);
}

#[test]
fn errors_of_a_request_are_its_first_event() {
    let model = load();
    let empty = model.generate("", options(0, 4)).unwrap();
    let error = empty.next_blocking().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Option {
                option: "prompt",
                ..
            }
        ),
        "{error}"
    );
    assert!(empty.next_blocking().unwrap().is_none());
    let missing = Engine::start()
        .unwrap()
        .load_blocking("/missing", Default::default());
    assert!(matches!(
        missing,
        Err(Error::MissingFile { .. } | Error::Io { .. })
    ));
}

#[test]
fn a_conversation_shows_its_messages_without_the_engine() {
    let model = load();
    let chat = model.chat(ChatTemplate::Plain, Vec::new()).unwrap();
    let first = chat.respond("Hello", options(1, 6)).unwrap();
    assert!(block_on(chat.is_responding()).unwrap());
    let second = chat.respond("Hello", options(1, 6)).unwrap();
    assert!(matches!(second.next_blocking(), Err(Error::Busy)));
    let (text, reason) = read(&first);
    assert_eq!(reason, FinishReason::Length);
    assert!(!block_on(chat.is_responding()).unwrap());
    let messages = block_on(chat.messages()).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(
        (messages[1].role, &messages[1].content),
        (Role::Assistant, &text)
    );

    // The text of a cancelled answer is added before the messages are shown.
    let third = chat.respond("More", options(2, 400)).unwrap();
    let mut tokens = 0;
    while tokens < 3 {
        if let Some(Event::Token(_)) = third.next_blocking().unwrap() {
            tokens += 1;
        }
    }
    third.close();
    assert_eq!(block_on(chat.messages()).unwrap().len(), 4);
    assert!(!block_on(chat.is_responding()).unwrap());
}

#[test]
fn unloading_ends_what_uses_the_model() {
    let model = load();
    let chat = model.chat(ChatTemplate::Plain, Vec::new()).unwrap();
    let events = model.generate(PROMPTS[0], options(1, 400)).unwrap();
    events.next_blocking().unwrap();
    block_on(model.unload()).unwrap();
    let end = loop {
        match events.next_blocking() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(Error::Unloaded)), "{end:?}");
    assert!(matches!(model.adapters(), Err(Error::Unloaded)));
    assert!(matches!(block_on(chat.messages()), Err(Error::Unloaded)));
    let after = model.generate(PROMPTS[0], options(1, 4)).unwrap();
    assert!(matches!(after.next_blocking(), Err(Error::Unloaded)));
}

#[test]
fn a_pause_stops_all_requests_and_answers_questions() {
    let model = load();
    let chat = model.chat(ChatTemplate::Plain, Vec::new()).unwrap();
    let events = model.generate(PROMPTS[0], options(1, 50)).unwrap();
    events.next_blocking().unwrap();
    assert!(model.engine().pause(Duration::from_secs(60)));
    let asked = Instant::now();
    assert_eq!(model.adapters().unwrap(), [""; 0]);
    assert!(block_on(chat.messages()).unwrap().is_empty());
    assert!(asked.elapsed() < Duration::from_secs(5));
    model.engine().resume();
    let (_, reason) = read(&events);
    assert_eq!(reason, FinishReason::Length);
}
