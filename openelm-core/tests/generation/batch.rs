//! Generations that advance together have the text of each alone.

use openelm_core::{
    LanguageModel,
    generation::{Event, FinishReason, GenerateOptions, Generation, Sampling, advance},
};

use super::models::{Outcome, greedy, load, warm};

const TEXTS: [&str; 6] = [
    "Once upon a time",
    "Lily",
    "The little dog ran to the park because he wanted to play with the ball. He",
    "One day, Tom and his mom went to the big store. They saw many toys, and Tom",
    "\"Can I",
    "It was",
];

/// Prompts of unequal lengths; the longest has several chunks.
fn prompts(count: usize) -> Vec<String> {
    (0..count)
        .map(|i| match i % 7 {
            6 => TEXTS[2].repeat(9),
            i => format!("{}{}", TEXTS[i], " big".repeat(count % 5)),
        })
        .collect()
}

fn options(i: usize, sampled: bool) -> GenerateOptions {
    GenerateOptions {
        max_tokens: 12 + 3 * (i % 5),
        sampling: if sampled {
            Sampling {
                top_p: if i.is_multiple_of(2) { 0.9 } else { 1.0 },
                repetition_penalty: if i.is_multiple_of(3) { 1.2 } else { 1.0 },
                ..warm(i as u64)
            }
        } else {
            Sampling::default()
        },
        logprobs: i % 3,
        ..greedy(0)
    }
}

fn start<'m>(model: &'m LanguageModel, prompts: &[String], sampled: bool) -> Vec<Generation<'m>> {
    let all = prompts.iter().enumerate();
    all.map(|(i, prompt)| model.generate(prompt, options(i, sampled)).unwrap())
        .collect()
}

/// Advances all to their ends; the generation `i` joins after `i * apart` turns.
fn together(mut generations: Vec<Generation<'_>>, apart: usize) -> Vec<(String, Vec<u32>)> {
    let mut ids = vec![Vec::new(); generations.len()];
    let mut turns = 0;
    while !generations.iter().all(Generation::has_ended) {
        let joined = generations.iter_mut().enumerate();
        let mut joined: Vec<_> = joined
            .filter(|(i, _)| i * apart <= turns)
            .map(|(_, generation)| generation)
            .collect();
        advance(&mut joined);
        turns += 1;
        assert!(turns < 10_000);
        for (generation, ids) in generations.iter_mut().zip(&mut ids) {
            while let Some(event) = generation.ready_event() {
                match event.unwrap() {
                    Event::Token(token) => ids.push(token.id),
                    Event::Prefill { .. } => assert!(ids.is_empty()),
                    Event::Finished { stats, .. } => assert_eq!(stats.generated_tokens, ids.len()),
                }
            }
        }
    }
    let texts = generations.iter().map(|g| g.text().to_owned());
    texts.zip(ids).collect()
}

#[test]
fn texts_of_a_batch_are_those_of_each_alone() {
    let model = load();
    for (count, apart) in [(1, 0), (3, 0), (3, 2), (17, 0), (17, 1)] {
        let prompts = prompts(count);
        for sampled in [false, true] {
            let alone: Vec<_> = start(&model, &prompts, sampled)
                .into_iter()
                .map(|generation| {
                    let outcome = Outcome::of(generation);
                    (outcome.text(), outcome.ids())
                })
                .collect();
            let batch = together(start(&model, &prompts, sampled), apart);
            assert_eq!(
                batch, alone,
                "{count} prompts, {apart} turns apart, {sampled}"
            );
        }
    }
}

#[test]
fn a_sequence_ends_without_the_others() {
    let model = load();
    let prompts = prompts(3);
    let mut generations = start(&model, &prompts, false);
    let alone = Outcome::of(model.generate(&prompts[0], options(0, false)).unwrap());
    let cancel = generations[1].cancel_handle();
    let mut reasons = [None; 3];
    for turn in 0..100 {
        if turn == 4 {
            cancel.cancel();
        }
        advance(&mut generations.iter_mut().collect::<Vec<_>>());
        for (generation, end) in generations.iter_mut().zip(&mut reasons) {
            while let Some(event) = generation.ready_event() {
                if let Event::Finished { reason, .. } = event.unwrap() {
                    *end = Some(reason);
                }
            }
        }
    }
    assert_eq!(generations[0].text(), alone.text());
    let length = Some(FinishReason::Length);
    assert_eq!(reasons, [length, Some(FinishReason::Cancelled), length]);
}
