//! Generation from the bundled tales model: the order of events, what ends a text, sampling, and
//! every input that has to be refused.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use mlx_rs::{Array, ops::indexing::TryIndexOp};
use openelm_core::{
    CancelHandle, Checkpoint, Dtype, Error, Event, FinishReason, GenerateOptions, Generation,
    LanguageModel, LoadOptions, Model, ReadOptions, Sampling, Stats, Token, Tokenizer, Weights,
    config::Config, random_weights,
};
use serde_json::Value;

const PROMPT: &str = "Once upon a time";

fn tales() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tales")
}

fn load() -> LanguageModel {
    load_as(Dtype::Float32)
}

fn load_as(dtype: Dtype) -> LanguageModel {
    let options = LoadOptions {
        dtype: Some(dtype),
        ..LoadOptions::default()
    };
    LanguageModel::load(tales(), &options).unwrap()
}

/// The tales model with some keys of its `config.json` replaced.
fn load_with(keys: &[(&str, u64)]) -> LanguageModel {
    let text = std::fs::read_to_string(tales().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in keys {
        json[key] = (*value).into();
    }
    let config = Config::from_json(&json.to_string(), "config.json").unwrap();
    let checkpoint = Checkpoint::open(tales()).unwrap();
    let weights = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |_, _| {},
    )
    .unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    let tokenizer = Tokenizer::find(&tales(), None).unwrap();
    LanguageModel::new(model, tokenizer).unwrap()
}

/// The prompts of `reference.json`, with the ids and text that mlx-lm continues them with.
fn references() -> Vec<(String, Vec<u32>, String)> {
    let text = std::fs::read_to_string(tales().join("reference.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let cases = json["continuations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| {
            let ids = case["greedy_ids"].as_array().unwrap().iter();
            (
                case["prompt"].as_str().unwrap().to_owned(),
                ids.map(|id| id.as_u64().unwrap() as u32).collect(),
                case["greedy_text"].as_str().unwrap().to_owned(),
            )
        });
    cases.collect()
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

fn warm(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        seed: Some(seed),
        ..Sampling::default()
    }
}

/// A generation run to its end.
#[derive(Debug, Default)]
struct Outcome {
    /// Tokens of the prompt read after each chunk, and the prompt's length.
    prefill: Vec<(usize, usize)>,
    tokens: Vec<Token>,
    end: Option<(FinishReason, Stats)>,
}

impl Outcome {
    /// Checks the order of events and the counts on the way.
    fn of(generation: Generation<'_>) -> Self {
        Self::watching(generation, |_| {})
    }

    fn watching(mut generation: Generation<'_>, mut watch: impl FnMut(&Event)) -> Self {
        let mut outcome = Self::default();
        for event in generation.by_ref() {
            let event = event.unwrap();
            watch(&event);
            assert!(outcome.end.is_none(), "{event:?} after the end");
            match event {
                Event::Prefill { processed, total } => {
                    assert!(outcome.tokens.is_empty());
                    let before = outcome
                        .prefill
                        .last()
                        .map_or(0, |&(processed, _)| processed);
                    assert!(before < processed && processed <= total);
                    outcome.prefill.push((processed, total));
                }
                Event::Token(token) => {
                    let (processed, total) = *outcome.prefill.last().unwrap();
                    assert_eq!(processed, total);
                    outcome.tokens.push(token);
                }
                Event::Finished { reason, stats } => outcome.end = Some((reason, stats)),
            }
        }
        for _ in 0..3 {
            assert!(generation.next().is_none());
        }
        let (_, stats) = outcome.end.unwrap();
        assert_eq!(stats.generated_tokens, outcome.tokens.len());
        outcome
    }

    fn reason(&self) -> FinishReason {
        self.end.unwrap().0
    }

    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    fn text(&self) -> String {
        self.tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect()
    }
}

fn run(model: &LanguageModel, prompt: &str, options: GenerateOptions) -> Outcome {
    Outcome::of(model.generate(prompt, options).unwrap())
}

/// What `ids` add to the text of the prompt.
fn decode(model: &LanguageModel, prompt: &str, ids: &[u32]) -> String {
    let prompt = model.tokenizer().encode_prompt(prompt).unwrap();
    let text = |ids: &[u32]| model.tokenizer().decode(ids).unwrap();
    let all = text(&[&prompt[..], ids].concat());
    all.strip_prefix(&text(&prompt)).unwrap().to_owned()
}

/// Logits `[V]` after `ids`, from the network alone.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let tokens = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    let last = hidden.try_index((0, -1, ..)).unwrap();
    model.logits(&last).unwrap().to_vec_exact::<f32>().unwrap()
}

fn logsumexp(logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

fn argmax(logits: &[f32]) -> u32 {
    let ids = 0..logits.len();
    ids.max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
        .unwrap() as u32
}

#[test]
fn events_come_in_order_and_the_text_is_the_reference() {
    let model = load();
    for (prompt, ids, text) in references() {
        let options = GenerateOptions {
            prefill_chunk: Some(4),
            ..greedy(ids.len())
        };
        let outcome = run(&model, &prompt, options);
        assert_eq!(outcome.ids(), ids, "{prompt}");
        // The reference is the answer alone, whose first space its decoder drops.
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
fn max_tokens_of_none_and_one() {
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
fn stop_strings_end_the_text_wherever_tokens_split_it() {
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
    // Any piece of the text, cut anywhere in a word.
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
    // Those that never come, however near the text gets to them.
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
    // The text ends within what could become a stop string.
    let beginning = format!("{}!", &whole[whole.len() - 10..]);
    assert_eq!(stop(&[&beginning]).text(), whole);
}

#[test]
fn stop_strings_of_several_bytes_a_character() {
    let model = load();
    // At this temperature the model writes any token, bytes among them: most are no character.
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
fn the_end_token_ends_the_text_unless_ignored() {
    let ids = run(&load(), PROMPT, greedy(64)).ids();
    // The greedy text's sixth token becomes the end token; it is nowhere before.
    let eos = ids[5];
    assert!(!ids[..5].contains(&eos));
    let model = load_with(&[("eos_token_id", eos.into())]);
    let ended = run(&model, PROMPT, greedy(64));
    assert_eq!(ended.reason(), FinishReason::Eos);
    assert_eq!(ended.ids(), ids[..6]);
    assert_eq!(ended.tokens[5].text, "");
    assert_eq!(ended.text(), decode(&model, PROMPT, &ids[..5]));

    // What was held back as the beginning of a stop string comes with it.
    let mut stop = ended.text().split_off(5);
    stop.push('!');
    let options = GenerateOptions {
        stop: vec![stop],
        ..greedy(64)
    };
    let held = run(&model, PROMPT, options);
    assert_eq!(held.reason(), FinishReason::Eos);
    assert_eq!(held.text(), ended.text());

    // As the last token allowed it is still the end.
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
fn a_generation_is_cancelled_between_chunks_and_tokens() {
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
    // Once it is over, cancelling changes nothing.
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
fn another_thread_cancels() {
    let model = load();
    let generation = model.generate(PROMPT, greedy(500)).unwrap();
    let handle = generation.cancel_handle();
    let (sender, receiver) = mpsc::sync_channel(0);
    let canceller = thread::spawn(move || {
        for _ in 0..7 {
            receiver.recv().unwrap();
        }
        handle.cancel();
        // Whoever still sends is let go.
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
fn seeds_decide_the_text() {
    let model = load();
    let text = |sampling: Sampling| {
        let options = GenerateOptions {
            sampling,
            ..greedy(40)
        };
        let outcome = run(&model, PROMPT, options);
        (outcome.text(), outcome.end.unwrap().1.seed)
    };
    let filtered = Sampling {
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.2,
        ..warm(5)
    };
    for sampling in [warm(5), filtered] {
        let (first, seed) = text(sampling.clone());
        assert_eq!(seed, 5);
        assert_eq!(text(sampling.clone()).0, first);
        let seed = Some(6);
        assert_ne!(text(Sampling { seed, ..sampling }).0, first);
    }
    // Without one, the seed is another each time, and gives the same text again.
    let seed = None;
    let (first, one) = text(Sampling { seed, ..warm(0) });
    let (_, two) = text(Sampling { seed, ..warm(0) });
    assert_ne!(one, two);
    assert_eq!(text(warm(one)).0, first);
    for seed in [0, u64::MAX] {
        assert_eq!(text(warm(seed)).1, seed);
    }
}

#[test]
fn chunks_of_any_length_give_the_same_text() {
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
fn the_repetition_penalty_is_that_of_the_reference() {
    const PENALTY: f32 = 1.3;
    let model = load();
    let options = GenerateOptions {
        sampling: Sampling {
            repetition_penalty: PENALTY,
            ..Sampling::default()
        },
        ..greedy(40)
    };
    let outcome = run(&model, PROMPT, options);
    assert_ne!(outcome.text(), run(&model, PROMPT, greedy(40)).text());

    // Hugging Face's rule, on the host, over the network's own logits.
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let mut expected = Vec::new();
    for _ in 0..40 {
        let mut logits = logits(model.model(), &ids);
        for (id, logit) in logits.iter_mut().enumerate() {
            if ids.contains(&(id as u32)) {
                *logit = if *logit > 0.0 {
                    *logit / PENALTY
                } else {
                    *logit * PENALTY
                };
            }
        }
        let token = argmax(&logits);
        expected.push(token);
        ids.push(token);
    }
    assert_eq!(outcome.ids(), expected);
}

#[test]
fn logprobs_are_those_of_the_logits() {
    let model = load();
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let vocab = model.model().config().vocab_size();
    let options = GenerateOptions {
        sampling: Sampling {
            // Reported is the model's distribution, not what the sampling makes of it.
            top_k: 40,
            repetition_penalty: 1.2,
            ..warm(8)
        },
        logprobs: vocab,
        ..greedy(12)
    };
    let outcome = run(&model, PROMPT, options.clone());
    for token in &outcome.tokens {
        let logits = logits(model.model(), &ids);
        let log_sum = logsumexp(&logits);
        let expected = |id: u32| f64::from(logits[id as usize]) - log_sum;
        assert_eq!(token.top_logprobs.len(), vocab);
        assert!(token.top_logprobs.is_sorted_by(|a, b| a.1 >= b.1));
        let mut seen: Vec<u32> = token.top_logprobs.iter().map(|&(id, _)| id).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), vocab);
        for &(id, logprob) in &token.top_logprobs {
            assert!((f64::from(logprob) - expected(id)).abs() < 2e-4, "{id}");
        }
        let probabilities = token.top_logprobs.iter().map(|(_, p)| f64::from(*p).exp());
        assert!((probabilities.sum::<f64>() - 1.0).abs() < 1e-4);
        let listed = token.top_logprobs.iter().find(|(id, _)| *id == token.id);
        assert_eq!(token.logprob, Some(listed.unwrap().1));
        ids.push(token.id);
    }
    // Fewer are the first of all, the chosen token's is reported even when it is not among them.
    let few = run(
        &model,
        PROMPT,
        GenerateOptions {
            logprobs: 3,
            ..options.clone()
        },
    );
    for (few, all) in few.tokens.iter().zip(&outcome.tokens) {
        assert_eq!(few.top_logprobs, all.top_logprobs[..3]);
        assert_eq!(few.logprob, all.logprob);
    }
    assert!(
        few.tokens
            .iter()
            .any(|t| t.top_logprobs.iter().all(|(id, _)| *id != t.id))
    );
    let none = run(
        &model,
        PROMPT,
        GenerateOptions {
            logprobs: 0,
            ..options
        },
    );
    assert_eq!(none.ids(), outcome.ids());
    let silent = |t: &Token| t.logprob.is_none() && t.top_logprobs.is_empty();
    assert!(none.tokens.iter().all(silent));
    // Greedy takes the first.
    let options = GenerateOptions {
        logprobs: 1,
        ..greedy(12)
    };
    for token in run(&model, PROMPT, options).tokens {
        assert_eq!(token.top_logprobs, [(token.id, token.logprob.unwrap())]);
    }
}

#[test]
fn a_full_context_ends_the_text() {
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
    // The text is whole even when it ends in the middle of a stop string.
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

#[test]
fn prompts_that_are_none_are_refused() {
    let model = load();
    let problem = |result: openelm_core::Result<Generation<'_>>, name| match result.unwrap_err() {
        Error::Option { option, problem } => {
            assert_eq!(option, name);
            problem
        }
        other => panic!("{other}"),
    };
    assert_eq!(
        problem(model.generate("", greedy(1)), "prompt"),
        "it is empty"
    );
    let of = |ids: &[u32]| Generation::new(model.model(), None, ids.to_vec(), greedy(1));
    assert_eq!(problem(of(&[]), "prompt"), "it is empty");
    for id in [2048, 1 << 31, u32::MAX] {
        assert_eq!(
            problem(of(&[1, id, 3]), "prompt"),
            format!("token {id} is not in the model's vocabulary of 2048")
        );
    }
    assert_eq!(Outcome::of(of(&[0]).unwrap()).tokens.len(), 1);
    assert_eq!(Outcome::of(of(&[2047]).unwrap()).tokens.len(), 1);
    // Any text is a prompt.
    for text in [
        " ",
        "\0",
        "\u{feff}",
        "🦙",
        "</s>",
        "<s>",
        "<unk>",
        "\u{202e}\r\n",
        "▁",
    ] {
        assert_eq!(run(&model, text, greedy(2)).tokens.len(), 2, "{text:?}");
    }
}

#[test]
fn options_outside_their_ranges_are_refused() {
    let model = load();
    let refused = |name: &str, change: &dyn Fn(&mut GenerateOptions)| {
        let mut options = greedy(1);
        change(&mut options);
        let error = model.generate(PROMPT, options.clone()).unwrap_err();
        assert!(
            matches!(error, Error::Option { option, .. } if option == name),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("{name}: expected ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    };
    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;
    for value in [NAN, -NAN, -0.1, INFINITY, -INFINITY, f32::MIN] {
        refused("temperature", &|o| o.sampling.temperature = value);
    }
    for value in [NAN, 0.0, -0.0, -0.5, 1.5, INFINITY, -INFINITY] {
        refused("top-p", &|o| o.sampling.top_p = value);
    }
    for value in [NAN, -0.1, 1.1, INFINITY, -INFINITY] {
        refused("min-p", &|o| o.sampling.min_p = value);
    }
    for value in [NAN, 0.0, -0.0, -1.0, INFINITY, -INFINITY] {
        refused("repetition-penalty", &|o| {
            o.sampling.repetition_penalty = value
        });
    }
    for value in [2049, usize::MAX] {
        refused("logprobs", &|o| o.logprobs = value);
    }
    refused("prefill-chunk", &|o| o.prefill_chunk = Some(0));
}

/// The ends of every range are inside it and give tokens, however odd the distribution gets.
#[test]
fn the_ends_of_the_ranges_work() {
    let model = load();
    let sampling: [fn(&mut Sampling); 16] = [
        |s| s.temperature = f32::MIN_POSITIVE,
        |s| s.temperature = 1e-45,
        |s| s.temperature = 1e-5,
        |s| s.temperature = f32::MAX,
        |s| s.top_p = f32::MIN_POSITIVE,
        |s| s.top_p = 1e-45,
        |s| s.top_p = 1.0 - f32::EPSILON,
        |s| s.min_p = 1.0,
        |s| s.min_p = 1e-45,
        |s| s.top_k = 1,
        |s| s.top_k = 2047,
        |s| s.top_k = 2048,
        |s| s.top_k = usize::MAX,
        |s| s.repetition_penalty = f32::MIN_POSITIVE,
        |s| s.repetition_penalty = f32::MAX,
        |s| (s.repetition_penalty, s.temperature) = (f32::MAX, 0.0),
    ];
    for (case, change) in sampling.into_iter().enumerate() {
        let mut sampling = warm(1);
        change(&mut sampling);
        let options = GenerateOptions {
            sampling,
            ignore_eos: true,
            ..greedy(4)
        };
        let outcome = run(&model, PROMPT, options);
        assert_eq!(outcome.tokens.len(), 4, "case {case}");
        let likeliest = [0, 1, 4, 5, 7, 9].contains(&case);
        assert!(
            !likeliest || outcome.ids() == [549, 1302, 359, 557],
            "case {case}"
        );
    }
}

#[test]
fn interleaved_generations_do_not_meet() {
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
fn a_generation_may_be_dropped_at_any_event() {
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
fn a_model_without_tokenizer_gives_ids() {
    let model = load();
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let options = GenerateOptions {
        // Without text there is nothing to stop at.
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
fn sixteen_bit_types_run() {
    let (prompt, ids, _) = references().swap_remove(0);
    for dtype in [Dtype::Float16, Dtype::Bfloat16] {
        let model = load_as(dtype);
        assert_eq!(model.model().dtype(), dtype);
        let options = GenerateOptions {
            logprobs: 4,
            ..greedy(16)
        };
        let outcome = run(&model, &prompt, options);
        // The first steps are clear enough for 8 bits of precision.
        assert_eq!(outcome.ids()[..4], ids[..4], "{dtype}");
        assert_eq!(outcome.tokens.len(), 16);
        for token in &outcome.tokens {
            let logprob = token.logprob.unwrap();
            assert!(logprob.is_finite() && logprob <= 0.0, "{logprob}");
        }
    }
}

/// MLX ties arrays to their thread; models on several threads at once are each their own.
#[test]
fn threads_each_have_their_model() {
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

/// CoreNet's embeddings have rows beyond the vocabulary; a hot draw must not land on one.
#[test]
fn ids_without_a_piece_are_never_drawn() {
    let text = std::fs::read_to_string(tales().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["vocab_size"] = 4096.into();
    let config = Config::from_json(&json.to_string(), "config.json").unwrap();
    let weights = random_weights(&config, Dtype::Float32, 3).unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    let model = LanguageModel::new(model, Tokenizer::find(&tales(), None).unwrap()).unwrap();
    for repetition_penalty in [1.0, 1.2] {
        let options = GenerateOptions {
            sampling: Sampling {
                temperature: 100.0,
                seed: Some(5),
                repetition_penalty,
                ..Sampling::default()
            },
            ignore_eos: true,
            ..greedy(60)
        };
        let ids = run(&model, PROMPT, options).ids();
        assert_eq!(ids.len(), 60);
        assert!(ids.iter().all(|&id| id < 2048), "{ids:?}");
        assert!(ids.iter().any(|&id| id > 1024), "{ids:?}");
    }
}
