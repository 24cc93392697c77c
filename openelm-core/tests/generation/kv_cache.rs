//! Kinds of key-value caches: rotating and quantised.

use mlx_rs::{Array, ops::indexing::TryIndexOp};
use openelm_core::{
    LanguageModel, Model,
    generation::{
        DraftModel, FinishReason, GenerateOptions, Generation, KvCacheOptions, PromptCache, advance,
    },
    internal::KvCache,
};

use crate::models::{Outcome, PROMPT, greedy, load, run};

fn rotating(max_kv_size: usize) -> KvCacheOptions {
    KvCacheOptions {
        max_kv_size: Some(max_kv_size),
        ..KvCacheOptions::default()
    }
}

fn quantized(kv_bits: usize, quantized_kv_start: usize) -> KvCacheOptions {
    KvCacheOptions {
        kv_bits: Some(kv_bits),
        // The model's head_dim.
        kv_group_size: 32,
        quantized_kv_start,
        ..KvCacheOptions::default()
    }
}

fn with(kv_cache: KvCacheOptions, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        kv_cache,
        ignore_eos: true,
        ..greedy(max_tokens)
    }
}

/// Logits `[L, V]` of `ids` in chunks of the given lengths.
fn logits(model: &Model, ids: &[u32], chunks: &[usize], cache: &mut KvCache) -> Vec<Vec<f32>> {
    let mut rest = ids;
    let mut all = Vec::new();
    for &length in chunks {
        let (chunk, later) = rest.split_at(length);
        let tokens = Array::from_slice(chunk, &[1, length as i32]);
        let hidden = model.hidden(&tokens, cache).unwrap();
        let logits = model.logits(&hidden).unwrap();
        for row in 0..length as i32 {
            let row = logits.try_index((0, row)).unwrap();
            all.push(row.to_vec_exact::<f32>().unwrap());
        }
        rest = later;
    }
    assert!(rest.is_empty());
    all
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn ids(model: &LanguageModel, count: usize) -> Vec<u32> {
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let outcome = run(model, PROMPT, with(KvCacheOptions::default(), count));
    ids.extend(outcome.ids());
    ids.truncate(count);
    ids
}

#[test]
fn rotating_cache_with_room_changes_nothing() {
    let model = load();
    let expected = run(&model, PROMPT, with(KvCacheOptions::default(), 40)).ids();
    let found = run(&model, PROMPT, with(rotating(64), 40));
    assert_eq!(found.ids(), expected);
    assert_eq!(found.reason(), FinishReason::Length);
}

#[test]
fn chunks_see_the_window_of_single_tokens_without_kept_positions() {
    let model = load();
    let ids = ids(&model, 60);
    let options = KvCacheOptions {
        keep: 0,
        ..rotating(16)
    };
    let of = |chunks: &[usize]| {
        let mut cache = model.model().cache_with(&options).unwrap();
        let all = logits(model.model(), &ids, chunks, &mut cache);
        assert_eq!(cache.offset(), 60);
        all
    };
    let single = of(&[1; 60]);
    for chunks in [
        &[60][..],
        &[16, 16, 28],
        &[7, 1, 30, 1, 1, 20],
        &[40, 1, 1, 18],
    ] {
        let error = difference(&of(chunks), &single);
        assert!(error < 1e-3, "{chunks:?}: {error}");
    }
    // The window has an effect.
    let mut plain = model.model().cache();
    let whole = logits(model.model(), &ids, &[60], &mut plain);
    assert!(difference(&whole, &single) > 0.1);
}

#[test]
fn rotating_cache_continues_after_the_context() {
    let model = load();
    let context = model.model().config().max_context_length();
    let found = run(&model, PROMPT, with(rotating(32), context + 20));
    assert_eq!(found.reason(), FinishReason::Length);
    assert_eq!(found.tokens.len(), context + 20);
    // A prompt, too.
    let prompt = vec![1; context + 5];
    let options = with(rotating(32), 3);
    let generation = Generation::new(model.model(), None, prompt, options).unwrap();
    assert_eq!(Outcome::of(generation).tokens.len(), 3);
}

#[test]
fn quantised_cache_is_near_the_plain_one() {
    let model = load();
    let ids = ids(&model, 60);
    let chunks = [20, 1, 1, 30, 8];
    let mut plain = model.model().cache();
    let expected = logits(model.model(), &ids, &chunks, &mut plain);
    for (bits, least, most) in [(8, 1e-5, 0.3), (4, 1e-2, 6.0)] {
        let mut cache = model.model().cache_with(&quantized(bits, 0)).unwrap();
        let found = logits(model.model(), &ids, &chunks, &mut cache);
        let error = difference(&found, &expected);
        assert!(least < error && error < most, "{bits} bits: {error}");
        // The first chunk is computed before the cache is quantised.
        assert!(difference(&found[..20], &expected[..20]) == 0.0);
        assert!(cache.bytes() * 2 < plain.bytes(), "{}", cache.bytes());
    }
    let mut late = model.model().cache_with(&quantized(4, 61)).unwrap();
    let found = logits(model.model(), &ids, &chunks, &mut late);
    assert_eq!(difference(&found, &expected), 0.0);
}

#[test]
fn kinds_share_a_batch() {
    let model = load();
    let long = "The king said to the queen that the wolf ".repeat(6);
    let kinds = [
        (PROMPT, KvCacheOptions::default()),
        (&*long, rotating(24)),
        (&*long, quantized(8, 0)),
        (PROMPT, rotating(8)),
        (&*long, quantized(8, 70)),
    ];
    let start = || kinds.map(|(prompt, kind)| model.generate(prompt, with(kind, 24)).unwrap());
    let alone = start().map(|generation| Outcome::of(generation).text());
    let mut together = start();
    while !together.iter().all(Generation::has_ended) {
        advance(&mut together.iter_mut().collect::<Vec<_>>());
        for generation in &mut together {
            while let Some(event) = generation.ready_event() {
                event.unwrap();
            }
        }
    }
    let texts = together.map(|generation| generation.text().to_owned());
    assert_eq!(texts, alone);
}

#[test]
fn drafts_keep_the_text_of_a_quantised_cache() {
    let model = load();
    let prompt = "The cat sat on the mat. ".repeat(3);
    let length = model.tokenizer().encode_prompt(&prompt).unwrap().len();
    let draft = DraftModel::new(&model, &model, 4).unwrap();
    let mut drafted = 0;
    for bits in [2, 4, 8] {
        // Quantised within the text, at each place in a round, or from the first token on.
        for start in (length..length + 12).chain([0]) {
            let options = with(quantized(bits, start), 24);
            let plain = run(&model, &prompt, options.clone()).ids();
            let generation = model.generate(&prompt, options.clone()).unwrap();
            let with_draft = generation.with_draft(&draft).unwrap();
            assert_eq!(Outcome::of(with_draft).ids(), plain, "{bits} bits, {start}");
            let lookup = GenerateOptions {
                prompt_lookup: 8,
                ..options
            };
            let found = run(&model, &prompt, lookup);
            assert_eq!(found.ids(), plain, "{bits} bits, {start}");
            drafted += found.end.unwrap().1.drafted_tokens;
        }
    }
    assert!(drafted > 0);
}

#[test]
fn drafts_are_refused_with_a_rotating_cache() {
    let model = load();
    let options = with(rotating(64), 8);
    let lookup = GenerateOptions {
        prompt_lookup: 8,
        ..options.clone()
    };
    let error = model.generate(PROMPT, lookup).unwrap_err();
    assert_eq!(error.to_string(), "prompt_lookup: not with max_kv_size");
    let draft = DraftModel::new(&model, &model, 4).unwrap();
    let generation = model.generate(PROMPT, options).unwrap();
    let error = generation.with_draft(&draft).unwrap_err();
    assert_eq!(error.to_string(), "draft_model: not with max_kv_size");
}

#[test]
fn wrapped_cache_is_extended_or_read_anew() {
    let model = load();
    let start = |prompt: Vec<u32>, cache, kind| {
        let (network, tokenizer) = (model.model(), Some(model.tokenizer()));
        Generation::with_cache(network, tokenizer, prompt, with(kind, 4), cache).unwrap()
    };
    let of = |mut generation: Generation<'_>| {
        generation.by_ref().for_each(|event| drop(event.unwrap()));
        generation.into_cache()
    };
    let prompt = ids(&model, 30);
    let cached = |kind| of(start(prompt.clone(), PromptCache::default(), kind));
    let stats = |prompt: &[u32], cache: PromptCache, kind| {
        let outcome = Outcome::of(start(prompt.to_vec(), cache, kind));
        outcome.end.unwrap().1.cached_tokens
    };
    let cache = cached(rotating(16));
    let offset = cache.offset();
    assert!(offset > 16 && cache.options() == rotating(16));
    let longer = [cache.tokens(), &[5, 6, 7]].concat();
    assert_eq!(stats(&longer, cache.clone(), rotating(16)), offset);
    assert_eq!(stats(&prompt, cache.clone(), rotating(16)), 0);
    // Another kind begins anew.
    assert_eq!(stats(&longer, cache, rotating(17)), 0);
    let plain = cached(KvCacheOptions::default());
    assert_eq!(stats(&longer, plain.clone(), rotating(16)), 0);
    assert_eq!(stats(&prompt, plain.clone(), KvCacheOptions::default()), 29);
    // A plain cache can be quantised later, and not the reverse.
    assert_eq!(stats(&prompt, plain, quantized(8, 0)), 29);
    let cache = cached(quantized(8, 0));
    assert_eq!(stats(&prompt, cache.clone(), KvCacheOptions::default()), 0);
    assert_eq!(stats(&prompt, cache.clone(), quantized(4, 0)), 0);
    assert_eq!(stats(&prompt, cache, quantized(8, 0)), 29);
    // Before it wraps, a rotating cache can be cut.
    assert_eq!(stats(&prompt, cached(rotating(64)), rotating(64)), 29);
}

#[test]
fn a_clone_keeps_its_positions() {
    let model = load();
    let ids = ids(&model, 40);
    for kind in [KvCacheOptions::default(), rotating(20), quantized(8, 0)] {
        let mut cache = model.model().cache_with(&kind).unwrap();
        logits(model.model(), &ids[..30], &[30], &mut cache);
        let mut copy = cache.clone();
        let expected = logits(model.model(), &ids[30..], &[1; 10], &mut cache);
        let found = logits(model.model(), &ids[30..], &[1; 10], &mut copy);
        assert_eq!(difference(&found, &expected), 0.0, "{kind:?}");
    }
}

#[test]
fn refuses_options_by_name() {
    let model = load();
    for (kind, expected) in [
        (rotating(4), "max_kv_size: expected a number from 5"),
        (
            quantized(5, 0),
            "kv_bits: expected one of [2, 4, 8], found 5",
        ),
        (
            KvCacheOptions {
                kv_group_size: 128,
                ..quantized(8, 0)
            },
            "kv_group_size: expected a divisor of the model's head_dim 32, found 128",
        ),
        (
            KvCacheOptions {
                max_kv_size: Some(64),
                ..quantized(8, 0)
            },
            "kv_bits: a rotating cache cannot be quantised",
        ),
    ] {
        let error = model.generate(PROMPT, with(kind, 1)).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
