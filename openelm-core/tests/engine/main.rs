//! The engine: many requests on one thread.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod constraints;
mod conversations;
mod prefixes;
mod requests;
mod scores;
mod selected;
mod stress;
mod training;

use openelm_core::{
    LoadOptions,
    engine::{Engine, EventReceiver, ModelHandle},
    generation::{Event, FinishReason, GenerateOptions, Sampling, Stats},
};
use openelm_testing::tales;

fn load() -> ModelHandle {
    let engine = Engine::start().unwrap();
    engine
        .load_blocking(tales(), LoadOptions::default())
        .unwrap()
}

fn options(seed: u64, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ignore_eos: true,
        sampling: Sampling {
            temperature: 1.0,
            seed: Some(seed),
            ..Sampling::default()
        },
        ..GenerateOptions::default()
    }
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

/// Reads all events; the text and the statistics.
fn read_stats(events: &EventReceiver<Event>) -> (String, Stats) {
    let mut text = String::new();
    while let Some(event) = events.next_blocking().unwrap() {
        match event {
            Event::Token(token) => text += &token.text,
            Event::Finished { stats, .. } => return (text, stats),
            Event::Prefill { .. } => {}
        }
    }
    panic!("no last event after {text:?}");
}

/// Reads all events; the text and the reason of its end.
fn read(events: &EventReceiver<Event>) -> (String, FinishReason) {
    let mut text = String::new();
    let mut count = 0;
    while let Some(event) = events.next_blocking().unwrap() {
        match event {
            Event::Prefill { .. } => assert_eq!(count, 0),
            Event::Token(token) => {
                count += 1;
                text += &token.text;
            }
            Event::Finished { reason, stats } => {
                assert_eq!(stats.generated_tokens, count);
                assert!(events.next_blocking().unwrap().is_none());
                return (text, reason);
            }
        }
    }
    panic!("no last event after {text:?}");
}
