//! Prompt caches in files: the text after them, and files that do not fit.

use std::fs;

use openelm_core::{
    Dtype, LanguageModel,
    adapter::{Adapter, LoraOptions, TargetModules},
    generation::{GenerateOptions, Generation, KvCacheOptions, PromptCache},
};
use openelm_testing::{Random, TempDir};

use crate::models::{Outcome, PROMPT, greedy, load, load_as};

fn kinds() -> [KvCacheOptions; 3] {
    let plain = KvCacheOptions::default();
    let rotating = KvCacheOptions {
        max_kv_size: Some(12),
        ..plain
    };
    let quantized = KvCacheOptions {
        kv_bits: Some(8),
        kv_group_size: 32,
        quantized_kv_start: 0,
        ..plain
    };
    [plain, rotating, quantized]
}

fn with(kv_cache: KvCacheOptions, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        kv_cache,
        ..greedy(max_tokens)
    }
}

/// The cache of a text of 20 tokens after the prompt.
fn cached(model: &LanguageModel, kind: KvCacheOptions) -> PromptCache {
    let options = GenerateOptions {
        ignore_eos: true,
        ..with(kind, 20)
    };
    let mut generation = model.generate(PROMPT, options).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    generation.into_cache()
}

fn continued(model: &LanguageModel, cache: PromptCache) -> (Vec<u32>, usize) {
    let options = with(cache.options(), 12);
    let generation = model
        .generate_after(cache, "then the king", options)
        .unwrap();
    let outcome = Outcome::of(generation);
    (outcome.ids(), outcome.end.unwrap().1.cached_tokens)
}

#[test]
fn text_after_a_file_is_that_after_the_cache() {
    let model = load();
    let folder = TempDir::new();
    for (index, kind) in kinds().into_iter().enumerate() {
        let path = folder.join(format!("{index}.safetensors"));
        let cache = cached(&model, kind);
        // Twice: a file of this function is replaced.
        for _ in 0..2 {
            cache.save(&path, model.model(), "tales").unwrap();
        }
        let loaded = PromptCache::load(&path, model.model()).unwrap();
        assert_eq!(loaded.offset(), cache.offset());
        assert_eq!(loaded.tokens(), &cache.tokens()[..cache.offset()]);
        let options = loaded.options();
        assert_eq!(
            (options.max_kv_size, options.kv_bits, options.kv_group_size),
            (
                kind.max_kv_size,
                kind.kv_bits,
                if index == 2 { 32 } else { 64 }
            )
        );
        // The last token of `cache` has no keys and values yet.
        let offset = cache.offset();
        let whole = [
            loaded.tokens(),
            &model.tokenizer().encode("then the king").unwrap(),
        ]
        .concat();
        let (network, tokenizer) = (model.model(), Some(model.tokenizer()));
        let expected =
            Generation::with_cache(network, tokenizer, whole, with(kind, 12), cache).unwrap();
        let (ids, cached) = continued(&model, loaded);
        assert_eq!(ids, Outcome::of(expected).ids(), "{kind:?}");
        assert_eq!(cached, offset);
    }
    assert_eq!(folder.names().len(), 3);
}

#[test]
fn file_of_another_model_is_refused() {
    let mut model = load();
    let folder = TempDir::new();
    let path = folder.join("cache.safetensors");
    let cache = cached(&model, KvCacheOptions::default());
    cache.save(&path, model.model(), "tales").unwrap();
    let refused = |model: &LanguageModel| {
        let error = PromptCache::load(&path, model.model())
            .unwrap_err()
            .to_string();
        error
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        refused(&load_as(Dtype::Bfloat16)),
        "the prompt cache has the type float32, the model computes in bfloat16"
    );
    let other = "the prompt cache is of another model, or of other adapters";
    let targets = TargetModules::default();
    let adapter = Adapter::lora(model.model(), &targets, &LoraOptions::default(), 1).unwrap();
    model.model_mut().add_adapter("new", &adapter).unwrap();
    assert_eq!(refused(&model), other);
    let error = cache.save(&path, model.model(), "tales").unwrap_err();
    assert_eq!(
        error.to_string(),
        "prompt_cache: it is of another model, or of other adapters"
    );
    model.model_mut().set_adapters(&[("new", 0.5)]).unwrap();
    let half = cached(&model, KvCacheOptions::default());
    half.save(&path, model.model(), "tales").unwrap();
    PromptCache::load(&path, model.model()).unwrap();
    model.model_mut().set_adapters(&[("new", 1.0)]).unwrap();
    assert_eq!(refused(&model), other);
    model.model_mut().set_adapters(&[]).unwrap();
    assert_eq!(refused(&model), other);
    let empty = PromptCache::default().save(&path, model.model(), "tales");
    assert_eq!(empty.unwrap_err().to_string(), "prompt_cache: it is empty");
}

#[test]
fn file_of_mlx_lm_has_unknown_tokens() {
    let model = load();
    let folder = TempDir::new();
    let path = folder.join("cache.safetensors");
    for kind in kinds() {
        let cache = cached(&model, kind);
        cache.save(&path, model.model(), "tales").unwrap();
        let known = PromptCache::load(&path, model.model()).unwrap();
        // mlx-lm writes neither entry.
        let mut bytes = fs::read(&path).unwrap();
        for entry in ["0.openelm_tokens", "0.openelm_fingerprint"] {
            let at = bytes
                .windows(entry.len())
                .position(|part| part == entry.as_bytes());
            bytes[at.unwrap() + entry.len() - 1] = b'_';
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let unknown = || PromptCache::load(&path, model.model()).unwrap();
        assert_eq!(unknown().tokens(), vec![u32::MAX; known.offset()]);
        // Another program's file is not replaced.
        cache.save(&path, model.model(), "tales").unwrap_err();
        assert_eq!(continued(&model, unknown()), continued(&model, known));

        // The cache of its continuation can be continued again, and no other prompt uses it.
        let options = with(unknown().options(), 8);
        let mut first = model
            .generate_after(unknown(), "then", options.clone())
            .unwrap();
        first.by_ref().for_each(|event| drop(event.unwrap()));
        let offset = first.into_cache();
        let (_, cached) = continued(&model, offset.clone());
        assert_eq!(cached, offset.offset());
        let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
        let fresh = Generation::with_cache(model.model(), None, prompt, options, unknown());
        assert_eq!(Outcome::of(fresh.unwrap()).end.unwrap().1.cached_tokens, 0);
        let other = KvCacheOptions {
            max_kv_size: Some(33),
            ..KvCacheOptions::default()
        };
        let error = model
            .generate_after(unknown(), "then", with(other, 1))
            .unwrap_err();
        assert!(
            error.to_string().starts_with("max_kv_size: expected "),
            "{error}"
        );
        let error = model
            .generate_after(unknown(), "", with(kind, 1))
            .unwrap_err();
        assert_eq!(error.to_string(), "prompt: it is empty");
        fs::remove_file(&path).unwrap();
    }
}

/// A damaged file is refused in one line, or gives a cache that can be used.
#[test]
fn damaged_files_do_not_panic() {
    let model = load();
    let folder = TempDir::new();
    let path = folder.join("cache.safetensors");
    let mut random = Random(11);
    let mut refused = 0;
    for kind in kinds() {
        cached(&model, kind)
            .save(&path, model.model(), "tales")
            .unwrap();
        let whole = fs::read(&path).unwrap();
        let header = 8 + usize::from_le_bytes(whole[..8].try_into().unwrap());
        // Numbers are last: their type is no larger than that of any array.
        let numbers = whole.len() - 4 * 6 * model.model().config().num_transformer_layers();
        for round in 0..60 {
            let mut bytes = whole.clone();
            let range = if round % 3 == 0 {
                numbers..whole.len()
            } else {
                0..header
            };
            for _ in 0..=random.below(3) {
                let at = range.start + random.below(range.len());
                bytes[at] = match random.below(3) {
                    0 => bytes[at] ^ (1 << random.below(8)),
                    1 => *random.pick(b"09-.{}[]\":,"),
                    _ => random.next() as u8,
                };
            }
            fs::write(&path, &bytes).unwrap();
            match PromptCache::load(&path, model.model()) {
                Ok(cache) => {
                    let options = with(cache.options(), 2);
                    if let Ok(generation) = model.generate_after(cache, "then", options) {
                        generation.for_each(drop);
                    }
                }
                Err(error) => {
                    assert_eq!(error.to_string().lines().count(), 1, "{error}");
                    refused += 1;
                }
            }
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(refused > 60, "{refused}");
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let model = load();
    let folder = TempDir::new();
    let path = folder.join("cache.safetensors");
    let cache = cached(&model, kinds()[1]);
    cache.save(&path, model.model(), "tales").unwrap();
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = PromptCache::load(&path, model.model())
            .unwrap_err()
            .to_string();
        assert_eq!(error.lines().count(), 1);
        error
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap()
            .to_owned()
    };
    let cut = "truncated or damaged: its header describes other lengths";
    for length in [whole.len() - 1, whole.len() / 2, 100] {
        assert_eq!(refused(&whole[..length]), cut);
    }
    assert!(refused(&whole[..7]).starts_with("not a safetensors file"));
    assert!(refused(b"").starts_with("not a safetensors file"));
    assert_eq!(refused(&[&whole[..], b"x"].concat()), cut);
    assert!(refused(b"version https://git-lfs").starts_with("a Git LFS pointer"));
    let text = String::from_utf8_lossy(&whole[8..]).into_owned();
    assert!(text.contains("RotatingKVCache"), "the header is text");
    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = text.find(from).unwrap() + 8;
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        refused(&bytes)
    };
    let class =
        "expected the class KVCache, RotatingKVCache or QuantizedKVCache, found rotatingKVCache";
    assert!(changed("RotatingKVCache", "rotatingKVCache").ends_with(class));
    assert!(changed("\"0.0\"", "\"x.0\"").starts_with("unexpected tensor `x.0`"));
    assert!(changed("openelm_tokens\":\"[", "openelm_tokens\":\"{").contains("`openelm_tokens`"));
    let error = PromptCache::load(folder.join("none"), model.model()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("there is no file of a prompt cache here")
    );
    let error = PromptCache::load(&*folder, model.model()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("expected a file of a prompt cache")
    );

    // No other file is replaced.
    for name in ["notes.txt", "weights.safetensors"] {
        let other = folder.write(name, "the user's");
        let error = cache.save(&other, model.model(), "tales").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("exists and is not a prompt cache"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&other).unwrap(), "the user's");
    }
}
