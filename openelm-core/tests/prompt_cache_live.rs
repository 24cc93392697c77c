//! Compares rotating and quantised caches, and files of prompt caches, with mlx-lm:
//! `parity/prompt_cache.py` writes mlx-lm's results to the folder `OPENELM_PROMPT_CACHE`, and then
//! reads the files that this test writes there; `make parity` runs everything.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use mlx_rs::{Array, ops::concatenate};
use openelm_core::{
    Config, Dtype, Model,
    generation::{GenerateOptions, Generation, KvCacheOptions, PromptCache},
    internal::{ReadOptions, Weights},
    weights::Checkpoint,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    later: Vec<u32>,
    prefill_chunk: usize,
    /// Lengths of the passes over `later`.
    passes: Vec<usize>,
    kinds: BTreeMap<String, Kind>,
    /// Largest difference of a logit, by kind.
    bounds: HashMap<String, f32>,
}

#[derive(Deserialize)]
struct Kind {
    max_kv_size: Option<usize>,
    kv_bits: Option<usize>,
    kv_group_size: Option<usize>,
}

#[test]
#[ignore = "needs files from Python: make parity"]
fn caches_and_their_files_match_mlx_lm() {
    let folder = std::env::var_os("OPENELM_PROMPT_CACHE").expect(
        "OPENELM_PROMPT_CACHE is not set: it names the folder that parity/prompt_cache.py wrote; \
         run `make parity`",
    );
    let folder = PathBuf::from(folder);
    let facts = fs::read(folder.join("expected.json")).unwrap();
    let facts: Expected = serde_json::from_slice(&facts).unwrap();
    let expected = Array::load_safetensors(folder.join("expected.safetensors")).unwrap();
    let model = load(&folder.join("model"));
    let mut problems = Vec::new();
    let mut ours = HashMap::new();
    for (name, kind) in &facts.kinds {
        let defaults = KvCacheOptions::default();
        let options = KvCacheOptions {
            max_kv_size: kind.max_kv_size,
            kv_bits: kind.kv_bits,
            kv_group_size: kind.kv_group_size.unwrap_or(defaults.kv_group_size),
            quantized_kv_start: 0,
            ..defaults
        };
        let cache = read_prompt(&model, &facts, options);
        let file = folder.join(format!("{name}.ours.safetensors"));
        cache.save(file, &model, "model").unwrap();
        let own = logits(&model, &facts, cache);
        let theirs = PromptCache::load(folder.join(format!("{name}.safetensors")), &model).unwrap();
        assert!(theirs.tokens().iter().all(|&id| id == u32::MAX));
        assert_eq!(theirs.options().max_kv_size, options.max_kv_size);
        let after_file = logits(&model, &facts, theirs);
        let from_own = difference(&own, &expected[name]);
        let from_file = difference(&after_file, &expected[name]);
        println!("{name:<10} from mlx-lm: {from_own:.1e}; after its file: {from_file:.1e}");
        if from_own.max(from_file) > facts.bounds[name] {
            problems.push(name);
        }
        ours.insert(name.clone(), own);
    }
    assert!(problems.is_empty(), "out of bounds: {problems:?}");
    assert_eq!(ours.len(), 5);
    let path = folder.join("ours.safetensors");
    Array::save_safetensors(
        ours.iter().map(|(name, logits)| (name.as_str(), logits)),
        None,
        path,
    )
    .unwrap();
}

/// The cache after the prompt.
fn read_prompt(model: &Model, facts: &Expected, kv_cache: KvCacheOptions) -> PromptCache {
    let options = GenerateOptions {
        max_tokens: 0,
        prefill_chunk: Some(facts.prefill_chunk),
        kv_cache,
        ..GenerateOptions::default()
    };
    let mut generation = Generation::new(model, None, facts.prompt.clone(), options).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    let cache = generation.into_cache();
    assert_eq!(cache.offset(), facts.prompt.len());
    cache
}

/// Logits `[L, V]` of the tokens after the prompt.
fn logits(model: &Model, facts: &Expected, cache: PromptCache) -> Array {
    let mut cache = cache.into_kv_cache().unwrap();
    let mut rest = &*facts.later;
    let mut parts = Vec::new();
    for &length in &facts.passes {
        let (chunk, later) = rest.split_at(length);
        let tokens = Array::from_slice(chunk, &[1, length as i32]);
        let hidden = model.hidden(&tokens, &mut cache).unwrap();
        let logits = model.logits(&hidden).unwrap();
        parts.push(logits.squeeze_axes(&[0]).unwrap());
        rest = later;
    }
    assert!(rest.is_empty());
    let logits = concatenate(&parts, 0).unwrap();
    logits.eval().unwrap();
    logits
}

fn load(folder: &Path) -> Model {
    let config = Config::load(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let dtype = Dtype::Float32;
    let options = ReadOptions {
        dtype,
        keep_quantized: false,
    };
    let weights = Weights::read(&checkpoint, &config, options, &mut |_, _| {}).unwrap();
    Model::new(config, weights, dtype).unwrap()
}

/// Largest absolute difference; infinite if the shapes differ.
fn difference(a: &Array, b: &Array) -> f32 {
    if a.shape() != b.shape() {
        return f32::INFINITY;
    }
    let largest = a.subtract(b).and_then(|d| d.abs()?.max(false)).unwrap();
    largest.item_exact::<f32>()
}
