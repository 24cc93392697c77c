//! Loads folders that mlx-lm's `convert` made from small checkpoints, and compares logits and
//! greedy tokens with mlx-lm's, with packed and with dequantised matrices. `parity/convert.py`
//! writes the folders to `OPENELM_CONVERT`; `make parity` runs everything.
//!
//! Both sides compute in f32, whatever the dtype of scales, biases and norms: mlx-lm casts them
//! after loading, which is exact. The remaining differences are the order of f32 sums and mlx-lm's
//! RoPE angles (see `parity_live.rs`). By default mlx-lm computes 16-bit folders in 16 bits, with
//! errors hundreds of times larger.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use mlx_rs::{Array, Dtype as MlxDtype, ops::indexing::TryIndexOp};
use openelm_core::{
    Config, Dtype, Model,
    internal::{KvCache, ReadOptions, Weights},
    weights::Checkpoint,
};
use serde::Deserialize;

/// Largest logit difference in a prompt of 100 tokens, with logits up to 14: twice the largest
/// measured value.
const BOUND: f32 = 1e-4;

#[derive(Deserialize)]
struct Index {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dtype: String,
    packed: usize,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    smallest_margin: f32,
}

#[test]
#[ignore = "needs files from Python: make parity"]
fn conversions_match_mlx_lm() {
    let folder = std::env::var_os("OPENELM_CONVERT").expect(
        "OPENELM_CONVERT is not set: it names the folder that parity/convert.py wrote; \
         run `make parity`",
    );
    let folder = Path::new(&folder);
    let index = folder.join("index.json");
    let index = fs::read(&index).unwrap_or_else(|error| panic!("{}: {error}", index.display()));
    let index: Index = serde_json::from_slice(&index).unwrap();
    assert!(index.cases.len() >= 12, "{} cases", index.cases.len());

    let mut problems = Vec::new();
    let mut table = String::from(
        "\nlargest difference of a logit from mlx-lm's, both in f32\n\
         case                  stored    packed  expanded  kept packed  apart    greedy        margin\n",
    );
    for case in &index.cases {
        compare(folder, case, &mut table, &mut problems);
    }
    println!("{table}");
    assert!(problems.is_empty(), "{problems:#?}");
}

fn compare(folder: &Path, case: &Case, table: &mut String, problems: &mut Vec<String>) {
    let model_folder = folder.join("mlx-lm").join(&case.name);
    let expected = folder.join("expected").join(&case.name);
    let expected = Array::load_safetensors(expected.with_extension("safetensors")).unwrap();
    let expected = &expected["float32_logits"];
    assert_eq!(expected.dim(0) as usize, case.prompt.len());
    assert_eq!(case.greedy.len(), 32);

    let checkpoint = Checkpoint::open(&model_folder).unwrap();
    let packed = checkpoint
        .tensors()
        .keys()
        .filter(|name| name.ends_with(".scales"));
    let packed = packed.count();
    let mut results = Vec::new();
    for keep_quantized in [false, true] {
        let model = load(&model_folder, &checkpoint, keep_quantized);
        let mut cache = model.cache();
        let logits = logits(&model, &case.prompt, &mut cache);
        let same = greedy_alike(&model, &case.greedy, &logits, cache);
        let one = self::logits(&model, &case.prompt[..1], &mut model.cache());
        results.push((difference(&logits, expected), same, logits, one));
    }
    let [
        (expanded, expanded_greedy, a, a_one),
        (kept, kept_greedy, b, b_one),
    ] = &results[..]
    else {
        unreachable!("two ways to load")
    };
    let apart = difference(a, b);
    writeln!(
        table,
        "{:<21} {:<9} {packed:>5}   {expanded:.1e}      {kept:.1e}  {apart:.1e}  \
         {expanded_greedy:>2}, {kept_greedy:>2} of 32  {:.4}",
        case.name, case.dtype, case.smallest_margin,
    )
    .unwrap();
    let checks = BTreeMap::from([
        ("number of packed matrices", packed == case.packed),
        (
            "stored type",
            checkpoint.dtype().to_string() == case.dtype || packed > 0,
        ),
        ("logits, expanded", *expanded <= BOUND),
        ("logits, kept packed", *kept <= BOUND),
        // Packed and dequantised products of one row differ slightly; equal logits mean that
        // nothing was packed. Products of many rows dequantise parts of a packed matrix.
        (
            "whether packed",
            packed == 0 || difference(a_one, b_one) > 0.0,
        ),
        ("expanded against packed", apart <= BOUND),
        ("greedy tokens, expanded", *expanded_greedy == 32),
        ("greedy tokens, kept packed", *kept_greedy == 32),
    ]);
    let failed = checks.into_iter().filter(|(_, holds)| !holds);
    problems.extend(failed.map(|(what, _)| format!("{}: {what}", case.name)));
}

fn load(folder: &Path, checkpoint: &Checkpoint, keep_quantized: bool) -> Model {
    let config = Config::load(folder).unwrap();
    checkpoint.check(&config).unwrap();
    let dtype = Dtype::Float32;
    let options = ReadOptions {
        dtype,
        keep_quantized,
    };
    let weights = Weights::read(checkpoint, &config, options, &mut |_, _| {}).unwrap();
    Model::new(config, weights, dtype).unwrap()
}

/// f32 logits `[L, V]` of `ids`, which continue `cache`.
fn logits(model: &Model, ids: &[u32], cache: &mut KvCache) -> Array {
    let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = model.hidden(&ids, cache).unwrap();
    let logits = model.logits(&hidden).unwrap().as_dtype(MlxDtype::Float32);
    let logits = logits.unwrap().try_index(0).unwrap();
    logits.eval().unwrap();
    logits
}

/// The number of leading tokens that this crate and mlx-lm both choose.
fn greedy_alike(model: &Model, expected: &[u32], prompt: &Array, mut cache: KvCache) -> usize {
    let mut last = prompt.try_index(-1).unwrap();
    for (i, &token) in expected.iter().enumerate() {
        let chosen = mlx_rs::ops::indexing::argmax(&last, false).unwrap();
        if chosen.item_exact::<u32>() != token {
            return i;
        }
        last = logits(model, &[token], &mut cache).try_index(-1).unwrap();
    }
    expected.len()
}

/// Largest absolute difference; infinite if the shapes differ or a value is not finite.
fn difference(a: &Array, b: &Array) -> f32 {
    if a.shape() != b.shape() {
        return f32::INFINITY;
    }
    let largest = a.subtract(b).and_then(|d| d.abs()?.max(false)).unwrap();
    let largest = largest.item_exact::<f32>();
    if largest.is_finite() {
        largest
    } else {
        f32::INFINITY
    }
}
