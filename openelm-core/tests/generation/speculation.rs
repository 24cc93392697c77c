//! Drafts change the time of a generation, not its text.

use openelm_core::{
    CancelHandle, Config, Dtype, Error, LanguageModel, LoadOptions, Model, Tokenizer,
    config::LayerWiseConfig,
    convert::{ConvertOptions, Quantize, convert},
    generation::{
        DraftModel, Event, FinishReason, GenerateOptions, Generation, Sampling, Stats, advance,
    },
    internal::random_weights,
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::{TempDir, tales};

use crate::models::{Outcome, PROMPT, greedy, load, load_as, load_with, run, warm};

/// Prompts that repeat themselves, and one that does not.
fn prompts() -> [String; 4] {
    let story = "Tom had a red ball. He liked to play with the red ball. ";
    [
        format!("{story}Tom had a"),
        "the cat sat on the mat. ".repeat(4),
        format!("{story}{story}{story}Tom"),
        PROMPT.to_owned(),
    ]
}

/// Greedy, sampled, and sampled with filters and a penalty.
fn samplings(seed: u64) -> [Sampling; 4] {
    [
        Sampling::default(),
        warm(seed),
        Sampling {
            temperature: 0.3,
            top_p: 0.9,
            ..warm(seed)
        },
        Sampling {
            top_k: 40,
            top_p: 0.95,
            min_p: 0.02,
            repetition_penalty: 1.1,
            ..warm(seed)
        },
    ]
}

fn lookup(options: &GenerateOptions) -> GenerateOptions {
    GenerateOptions {
        prompt_lookup: 8,
        ..options.clone()
    }
}

/// A model of random weights with the tokenizer of tales.
fn random(seed: u64) -> LanguageModel {
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 32,
        head_dim: 8,
        vocab_size: 2048,
        max_context_length: 512,
        ..openelm_core::config::Preset::Size270M.settings()
    })
    .unwrap();
    let weights = random_weights(&config, Dtype::Float32, seed).unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    LanguageModel::new(model, Tokenizer::find(&tales(), None).unwrap()).unwrap()
}

fn stats(outcome: &Outcome) -> Stats {
    outcome.end.unwrap().1
}

/// Asserts that `drafted` is `plain`, and returns the numbers of drafts and of accepted ones.
fn assert_equal(plain: &Outcome, drafted: &Outcome, case: &str) -> (usize, usize) {
    assert_eq!(drafted.ids(), plain.ids(), "{case}");
    assert_eq!(drafted.text(), plain.text(), "{case}");
    assert_eq!(drafted.reason(), plain.reason(), "{case}");
    for (a, b) in plain.tokens.iter().zip(&drafted.tokens) {
        assert_eq!(a.text, b.text, "{case}");
        assert_eq!(a.logprob.is_some(), b.logprob.is_some(), "{case}");
        assert!((a.logprob.unwrap_or(0.0) - b.logprob.unwrap_or(0.0)).abs() < 1e-4);
        assert_eq!(a.top_logprobs.len(), b.top_logprobs.len(), "{case}");
    }
    let (plain, stats) = (stats(plain), stats(drafted));
    assert_eq!((plain.drafted_tokens, plain.accepted_tokens), (0, 0));
    assert!(stats.accepted_tokens <= stats.drafted_tokens, "{case}");
    assert!(stats.accepted_tokens < stats.generated_tokens.max(1));
    (stats.drafted_tokens, stats.accepted_tokens)
}

#[test]
fn prompt_lookup_keeps_the_text() {
    let model = load();
    let (mut drafted, mut accepted) = (0, 0);
    for (i, prompt) in prompts().iter().enumerate() {
        for (j, sampling) in samplings(i as u64 + 1).into_iter().enumerate() {
            let options = GenerateOptions {
                sampling,
                logprobs: j,
                ..greedy(48)
            };
            let plain = run(&model, prompt, options.clone());
            let found = run(&model, prompt, lookup(&options));
            let counts = assert_equal(&plain, &found, &format!("{prompt}, {options:?}"));
            drafted += counts.0;
            accepted += counts.1;
        }
    }
    assert!(drafted > 40 && accepted > 20, "{accepted} of {drafted}");
}

#[test]
fn a_draft_model_that_is_the_target_is_accepted_whole() {
    let model = load();
    let draft = DraftModel::new(&model, &model, 4).unwrap();
    for (i, sampling) in samplings(7).into_iter().enumerate() {
        let options = GenerateOptions {
            sampling,
            // Several chunks.
            prefill_chunk: Some(7),
            logprobs: i,
            ignore_eos: true,
            ..greedy(120)
        };
        let prompt = &prompts()[1];
        let plain = run(&model, prompt, options.clone());
        let generation = model.generate_with_draft(prompt, options, &draft);
        let found = Outcome::of(generation.unwrap());
        let (drafted, accepted) = assert_equal(&plain, &found, &format!("{i}"));
        assert!(drafted >= 4, "{drafted}");
        assert_eq!(drafted, accepted);
    }
}

#[test]
fn a_random_draft_model_keeps_the_text() {
    let model = load();
    let draft = DraftModel::new(&model, &random(5), 3).unwrap();
    for sampling in samplings(3) {
        let options = GenerateOptions {
            sampling,
            ..greedy(80)
        };
        let plain = run(&model, PROMPT, options.clone());
        let generation = model.generate_with_draft(PROMPT, options, &draft);
        let found = Outcome::of(generation.unwrap());
        let (drafted, accepted) = assert_equal(&plain, &found, "random");
        assert!(drafted >= 4 && accepted < drafted / 2 + 1);
    }
}

#[test]
fn refuses_a_draft_model_with_another_vocabulary() {
    let model = load();
    let refused = |error: Error, expected: &str| {
        assert!(
            matches!(error, Error::Option { option, .. } if option == "draft_model"),
            "{error}"
        );
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
    };
    // One piece differs.
    let folder = TempDir::new();
    let text = std::fs::read_to_string(tales().join("tokenizer.json")).unwrap();
    let piece = model.tokenizer().piece(1000).unwrap();
    let other = text.replacen(
        &format!("\"{piece}\": 1000"),
        &format!("\"{piece}\": 1001"),
        1,
    );
    assert_ne!(text, other);
    let next = model.tokenizer().piece(1001).unwrap();
    let other = other.replacen(
        &format!("\"{next}\": 1001"),
        &format!("\"{next}\": 1000"),
        1,
    );
    std::fs::write(folder.join("tokenizer.json"), other).unwrap();
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let swapped = LanguageModel::new(load().model().clone(), tokenizer).unwrap();
    let expected = format!("expected {piece:?} as the token 1000, found {next:?}");
    refused(DraftModel::new(&model, &swapped, 3).unwrap_err(), &expected);
    // Networks without tokenizers are compared by their sizes.
    let small = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 1,
        model_dim: 16,
        head_dim: 8,
        vocab_size: 100,
        ..openelm_core::config::Preset::Size270M.settings()
    })
    .unwrap();
    let weights = random_weights(&small, Dtype::Float32, 1).unwrap();
    let small = Model::new(small, weights, Dtype::Float32).unwrap();
    let draft = DraftModel::of_model(&small, 3).unwrap();
    refused(
        model
            .generate_with_draft(PROMPT, greedy(4), &draft)
            .unwrap_err(),
        "expected a vocabulary of at least 2048, found 100",
    );
    assert!(matches!(
        DraftModel::new(&model, &model, 0).unwrap_err(),
        Error::Option { option, .. } if option == "num_draft_tokens"
    ));
    let both = model.generate_with_draft(
        PROMPT,
        lookup(&greedy(4)),
        &DraftModel::new(&model, &model, 3).unwrap(),
    );
    assert!(matches!(
        both.unwrap_err(),
        Error::Option { option, .. } if option == "prompt_lookup"
    ));
}

/// Advances all to their ends.
fn together(generations: &mut [Generation<'_>]) -> Vec<(Vec<u32>, Stats)> {
    let mut results = vec![(Vec::new(), Stats::default()); generations.len()];
    while !generations.iter().all(Generation::has_ended) {
        advance(&mut generations.iter_mut().collect::<Vec<_>>());
        for (generation, (ids, end)) in generations.iter_mut().zip(&mut results) {
            while let Some(event) = generation.ready_event() {
                match event.unwrap() {
                    Event::Token(token) => ids.push(token.id),
                    Event::Prefill { .. } => assert!(ids.is_empty()),
                    Event::Finished { stats, .. } => *end = stats,
                }
            }
        }
    }
    results
}

#[test]
fn batches_mix_sequences_with_and_without_drafts() {
    let model = load();
    let draft = DraftModel::new(&model, &model, 3).unwrap();
    for sampling in samplings(11) {
        let options = GenerateOptions {
            sampling,
            ..greedy(40)
        };
        let prompts = prompts();
        let alone: Vec<_> = prompts
            .iter()
            .map(|prompt| run(&model, prompt, options.clone()).ids())
            .collect();
        let start = |i: usize, options| model.generate(&prompts[i], options).unwrap();
        let mut generations = vec![
            start(0, lookup(&options)),
            start(1, options.clone()),
            start(2, lookup(&options)),
            start(3, options.clone()).with_draft(&draft).unwrap(),
        ];
        let found = together(&mut generations);
        let ids: Vec<_> = found.iter().map(|(ids, _)| ids.clone()).collect();
        assert_eq!(ids, alone, "{options:?}");
        assert!(found[3].1.drafted_tokens > 0);
        assert_eq!(found[1].1.drafted_tokens, 0);
    }
}

/// A prompt and options whose text has accepted drafts from its beginning to its end.
fn repeating(max_tokens: usize) -> (String, GenerateOptions) {
    ("the cat sat on the mat. ".repeat(4), greedy(max_tokens))
}

#[test]
fn limits_end_the_text_at_each_position_of_a_round() {
    let model = load();
    let (prompt, options) = repeating(40);
    let whole = run(&model, &prompt, options.clone());
    let drafted = run(&model, &prompt, lookup(&options));
    let (_, accepted) = assert_equal(&whole, &drafted, "whole");
    assert!(accepted > 10, "{accepted}");
    for limit in 0..24 {
        let options = greedy(limit);
        let plain = run(&model, &prompt, options.clone());
        let found = run(&model, &prompt, lookup(&options));
        assert_equal(&plain, &found, &format!("{limit} tokens"));
        assert_eq!(found.ids(), whole.ids()[..limit]);
        assert_eq!(found.reason(), FinishReason::Length);
    }
    let prompt_tokens = stats(&whole).prompt_tokens as u64;
    for room in 1..16 {
        let short = load_with(&[("max_context_length", prompt_tokens + room)]);
        let plain = run(&short, &prompt, greedy(64));
        let found = run(&short, &prompt, lookup(&greedy(64)));
        assert_equal(&plain, &found, &format!("{room} positions"));
        assert_eq!(found.reason(), FinishReason::Context);
    }
}

#[test]
fn stop_strings_and_end_tokens_end_the_text_in_a_round() {
    let model = load();
    let (prompt, options) = repeating(24);
    let whole = run(&model, &prompt, options.clone());
    let text = whole.text();
    for from in 0..text.len().min(30) {
        for length in [1, 6] {
            let Some(part) = text.get(from..from + length) else {
                continue;
            };
            let options = GenerateOptions {
                stop: vec![part.to_owned()],
                ..options.clone()
            };
            let plain = run(&model, &prompt, options.clone());
            let found = run(&model, &prompt, lookup(&options));
            assert_equal(&plain, &found, part);
            assert_eq!(found.text(), text[..text.find(part).unwrap()]);
        }
    }
    let mut ids = whole.ids();
    ids.sort_unstable();
    ids.dedup();
    for eos in ids {
        let model = load_with(&[("eos_token_id", eos.into())]);
        let plain = run(&model, &prompt, options.clone());
        let found = run(&model, &prompt, lookup(&options));
        assert_equal(&plain, &found, &format!("eos {eos}"));
        assert_eq!(found.reason(), FinishReason::Eos);
        let ignored = GenerateOptions {
            ignore_eos: true,
            ..options.clone()
        };
        assert_eq!(run(&model, &prompt, lookup(&ignored)).ids(), whole.ids());
    }
}

#[test]
fn cancel_ends_the_text_after_a_round() {
    let model = load();
    let (prompt, options) = repeating(40);
    let whole = run(&model, &prompt, options.clone());
    for tokens in 1..20 {
        let generation = model.generate(&prompt, lookup(&options)).unwrap();
        let handle = generation.cancel_handle();
        let mut ids = Vec::new();
        for event in generation {
            match event.unwrap() {
                Event::Token(token) => ids.push(token.id),
                Event::Finished { reason, stats } => {
                    assert_eq!(reason, FinishReason::Cancelled);
                    assert_eq!(stats.generated_tokens, ids.len());
                }
                Event::Prefill { .. } => {}
            }
            if ids.len() == tokens {
                handle.cancel();
            }
        }
        // Tokens of the round that were read are still events.
        assert!(ids.len() >= tokens && ids.len() <= tokens + 8);
        assert_eq!(ids, whole.ids()[..ids.len()]);
    }
}

/// The keys and values after a round are those of the text.
#[test]
fn the_cache_of_a_round_continues_the_text() {
    let model = load();
    let (prompt, options) = repeating(40);
    let tokens = model.tokenizer().encode_prompt(&prompt).unwrap();
    let whole = run(&model, &prompt, options.clone()).ids();
    for stop_after in 1..20 {
        let mut generation = model
            .generate(&prompt, lookup(&greedy(stop_after)))
            .unwrap();
        assert!(generation.by_ref().all(|event| event.is_ok()));
        let cache = generation.into_cache();
        let known = [&tokens[..], &whole[..stop_after]].concat();
        assert_eq!(cache.tokens(), known);
        assert_eq!(cache.offset(), known.len() - 1);
        let rest = GenerateOptions {
            max_tokens: 20,
            ..lookup(&options)
        };
        let tokenizer = Some(model.tokenizer());
        let next = Generation::with_cache(model.model(), tokenizer, known, rest, cache);
        let next = Outcome::of(next.unwrap());
        assert_eq!(next.ids(), whole[stop_after..stop_after + 20]);
    }
}

#[test]
fn owned_generations_keep_their_drafts() {
    let (prompt, options) = repeating(30);
    let (plain, generation) = {
        let model = load();
        let draft = DraftModel::new(&model, &load(), 3).unwrap();
        let generation = model.generate_with_draft(&prompt, options.clone(), &draft);
        let plain = run(&model, &prompt, options);
        (plain, generation.unwrap().into_owned())
    };
    let (drafted, _) = assert_equal(&plain, &Outcome::of(generation), "owned");
    assert!(drafted > 0);
}

/// 200 texts of four models, greedy and sampled, with lookup and with a draft model, alone and in
/// batches of four.
#[test]
#[ignore = "takes minutes"]
fn texts_of_four_models_are_lossless() {
    let folder = TempDir::new();
    let quantised = folder.join("quantised");
    let quantization = Quantization::new(QuantizationMode::Affine, None, Some(32)).unwrap();
    let options = ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..ConvertOptions::default()
    };
    let cancel = CancelHandle::default();
    convert(tales(), &quantised, &options, &cancel, |_| {}).unwrap();
    let kept = LoadOptions {
        keep_quantized: Some(true),
        ..LoadOptions::default()
    };
    let models = [
        ("tales f32", load()),
        ("tales bf16", load_as(Dtype::Bfloat16)),
        ("quantised", LanguageModel::load(&quantised, &kept).unwrap()),
        ("random", random(9)),
    ];
    let mut texts = 0;
    let mut differ = Vec::new();
    for (name, model) in &models {
        let drafts = [model, &models[0].1, &random(5)];
        let drafts = drafts.map(|draft| DraftModel::new(model, draft, 4).unwrap());
        let (mut drafted, mut accepted) = (0, 0);
        for seed in 0..4 {
            for sampling in samplings(seed) {
                let options = GenerateOptions {
                    sampling,
                    ..greedy(48)
                };
                let prompts = prompts();
                let plain = |prompt: &String| run(model, prompt, options.clone()).ids();
                let plain: Vec<_> = prompts.iter().map(plain).collect();
                let alone = |i: usize| match i {
                    0 => model.generate(&prompts[0], lookup(&options)),
                    i => model.generate_with_draft(&prompts[i], options.clone(), &drafts[i - 1]),
                };
                let mut found = together(&mut [0, 1, 2, 3].map(|i| alone(i).unwrap()));
                if seed < 2 {
                    found.extend((0..4).flat_map(|i| together(&mut [alone(i).unwrap()])));
                }
                for (i, (ids, stats)) in found.iter().enumerate() {
                    texts += 1;
                    drafted += stats.drafted_tokens;
                    accepted += stats.accepted_tokens;
                    if *ids != plain[i % 4] {
                        differ.push(format!("{name}, {i}, {options:?}"));
                    }
                }
            }
        }
        println!("{name}: {accepted} of {drafted} drafts accepted");
    }
    println!("{texts} texts, {} differ", differ.len());
    assert!(differ.is_empty(), "{differ:#?}");
}
