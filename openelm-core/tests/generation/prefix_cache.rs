//! Prefixes shared by requests.

use openelm_core::{
    LanguageModel,
    adapter::{Adapter, LoraOptions, TargetModules},
    generation::{GenerateOptions, Generation, KvCacheOptions, PrefixCache, PromptCache},
};

use crate::models::{Outcome, greedy, load};

/// Generates 8 tokens after `prompt` with the best prefix; returns the text's ids and the number of
/// cached tokens, and adds the cache.
fn request(
    prefixes: &mut PrefixCache,
    model: &LanguageModel,
    prompt: &str,
    kv_cache: KvCacheOptions,
) -> (Vec<u32>, usize) {
    let prompt = model.tokenizer().encode_prompt(prompt).unwrap();
    let cache = prefixes.take(model.model(), &prompt, &kv_cache);
    let options = GenerateOptions {
        kv_cache,
        ignore_eos: true,
        ..greedy(8)
    };
    let mut generation =
        Generation::with_cache(model.model(), None, prompt, options, cache).unwrap();
    let mut outcome = (Vec::new(), 0);
    for event in generation.by_ref() {
        use openelm_core::generation::Event;
        match event.unwrap() {
            Event::Token(token) => outcome.0.push(token.id),
            Event::Finished { stats, .. } => outcome.1 = stats.cached_tokens,
            Event::Prefill { .. } => {}
        }
    }
    prefixes.insert(generation.into_cache());
    outcome
}

const SYSTEM: &str = "The old king told the children a tale of the forest.";

#[test]
fn requests_share_the_longest_prefix() {
    let model = load();
    let plain = KvCacheOptions::default();
    let mut prefixes = PrefixCache::new(1 << 30);
    let system = model.tokenizer().encode_prompt(SYSTEM).unwrap().len();
    let mut alone = PrefixCache::new(0);
    for (index, end) in [" Once", " The wolf", " One day"].iter().enumerate() {
        let prompt = format!("{SYSTEM}{end}");
        let (ids, cached) = request(&mut prefixes, &model, &prompt, plain);
        assert_eq!(cached, if index == 0 { 0 } else { system });
        let (expected, cached) = request(&mut alone, &model, &prompt, plain);
        assert_eq!((ids, 0), (expected, cached), "{prompt}");
    }
    assert_eq!((prefixes.len(), alone.len()), (3, 0));
    assert!(alone.is_empty() && alone.bytes() == 0);
    // The same prompt again: its last token is read.
    let prompt = format!("{SYSTEM} Once");
    let tokens = model.tokenizer().encode_prompt(&prompt).unwrap();
    assert_eq!(
        request(&mut prefixes, &model, &prompt, plain).1,
        tokens.len() - 1
    );
    // Its cache is a prefix of one that is there.
    assert_eq!(prefixes.len(), 3);
    prefixes.clear();
    assert_eq!((prefixes.len(), prefixes.bytes()), (0, 0));
}

#[test]
fn sequences_that_share_a_prefix_do_not_disturb_each_other() {
    let model = load();
    let mut prefixes = PrefixCache::new(1 << 30);
    request(&mut prefixes, &model, SYSTEM, KvCacheOptions::default());
    let start = |prefixes: &mut PrefixCache, end: &str| {
        let text = format!("{SYSTEM}{end}");
        let prompt = model.tokenizer().encode_prompt(&text).unwrap();
        let cache = prefixes.take(model.model(), &prompt, &KvCacheOptions::default());
        assert!(cache.offset() > 0);
        Generation::with_cache(model.model(), None, prompt, greedy(20), cache).unwrap()
    };
    let ends = [" Once", " The wolf", " One day"];
    let mut together = ends.map(|end| start(&mut prefixes, end));
    let mut ids = [(); 3].map(|()| Vec::new());
    // One event of each in turn.
    let mut live = true;
    while live {
        live = false;
        for (generation, ids) in together.iter_mut().zip(&mut ids) {
            use openelm_core::generation::Event;
            if let Some(event) = generation.next() {
                live = true;
                if let Event::Token(token) = event.unwrap() {
                    ids.push(token.id);
                }
            }
        }
    }
    for (end, ids) in ends.into_iter().zip(ids) {
        let text = format!("{SYSTEM}{end}");
        let prompt = model.tokenizer().encode_prompt(&text).unwrap();
        let alone = Generation::new(model.model(), None, prompt, greedy(20)).unwrap();
        assert_eq!(ids, Outcome::of(alone).ids(), "{end}");
    }
}

#[test]
fn adapters_never_share() {
    let mut model = load();
    let plain = KvCacheOptions::default();
    let mut prefixes = PrefixCache::new(1 << 30);
    let targets = TargetModules::default();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let adapter =
            Adapter::lora(model.model(), &targets, &LoraOptions::default(), seed).unwrap();
        model.model_mut().add_adapter(name, &adapter).unwrap();
    }
    let other = load();
    assert_eq!(request(&mut prefixes, &model, SYSTEM, plain).1, 0);
    assert!(request(&mut prefixes, &model, SYSTEM, plain).1 > 0);
    // The adapter that was added last is active first.
    for (active, is_known) in [
        (&[][..], false),
        (&[("a", 1.0)], false),
        (&[("b", 1.0)], true),
        (&[("b", 0.5)], false),
        (&[("a", 1.0), ("b", 1.0)], false),
        (&[], true),
    ] {
        model.model_mut().set_adapters(active).unwrap();
        let cached = request(&mut prefixes, &model, SYSTEM, plain).1;
        assert_eq!(cached > 0, is_known, "{active:?}");
        assert!(
            request(&mut prefixes, &model, SYSTEM, plain).1 > 0,
            "{active:?}"
        );
    }
    assert_eq!(request(&mut prefixes, &other, SYSTEM, plain).1, 0);
}

#[test]
fn least_recently_used_goes_first() {
    let model = load();
    let plain = KvCacheOptions::default();
    let mut prefixes = PrefixCache::new(1 << 30);
    request(&mut prefixes, &model, "Once", plain);
    let one = prefixes.bytes();
    assert!(one > 0);
    let mut prefixes = PrefixCache::new(2 * one);
    let length = |prefixes: &mut PrefixCache, prompt: &str| {
        let prompt = model.tokenizer().encode_prompt(prompt).unwrap();
        let cache: PromptCache = prefixes.take(model.model(), &prompt, &plain);
        let tokens = cache.tokens().iter().zip(&prompt);
        tokens.take_while(|(a, b)| a == b).count()
    };
    for prompt in ["Once upon", "The wolf"] {
        request(&mut prefixes, &model, prompt, plain);
    }
    assert_eq!((prefixes.len(), prefixes.bytes()), (2, 2 * one));
    assert!(length(&mut prefixes, "Once upon a") > 1);
    request(&mut prefixes, &model, "One day", plain);
    assert_eq!((prefixes.len(), prefixes.bytes()), (2, 2 * one));
    // BOS is common to all.
    assert!(length(&mut prefixes, "Once upon a") > 1);
    assert!(length(&mut prefixes, "One day the") > 1);
    assert_eq!(length(&mut prefixes, "The wolf said"), 1);
    // Larger than the limit.
    let mut small = PrefixCache::new(one - 1);
    request(&mut small, &model, "Once", plain);
    assert!(small.is_empty());
}

#[test]
fn kinds_are_not_mixed() {
    let model = load();
    let plain = KvCacheOptions::default();
    let rotating = KvCacheOptions {
        max_kv_size: Some(10),
        ..plain
    };
    let quantized = KvCacheOptions {
        kv_bits: Some(8),
        kv_group_size: 32,
        quantized_kv_start: 0,
        ..plain
    };
    let mut prefixes = PrefixCache::new(1 << 30);
    for kind in [rotating, quantized, plain] {
        assert_eq!(
            request(&mut prefixes, &model, SYSTEM, kind).1,
            0,
            "{kind:?}"
        );
        let again = request(&mut prefixes, &model, SYSTEM, kind).1;
        // A wrapped cache cannot be cut to the prompt.
        assert_eq!(again > 0, kind != rotating, "{kind:?}");
    }
}
