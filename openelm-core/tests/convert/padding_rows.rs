//! The padding rows of CoreNet's embedding, kept on request, against numpy
//! (`parity/padding_rows.py`).

use std::path::Path;

use openelm_core::{
    Config, Dtype,
    config::LayerWiseConfig,
    convert::ConvertOptions,
    corpus::Sequence,
    pretrain::{MemorySource, Pretrain, PretrainEvent, PretrainOptions, Recipe},
};
use openelm_testing::TempDir;
use serde_json::Value;

use crate::{
    models::{
        Tensor, Tensors, convert, logits_after, plain, random, read, settings, small, with_source,
    },
    torch::{corenet, zip_file},
};

const ROWS: usize = 32_128;

fn config(vocab_size: usize) -> Config {
    Config::layer_wise(LayerWiseConfig {
        model_dim: 16,
        head_dim: 8,
        ffn_dim_divisor: 16,
        vocab_size,
        max_context_length: 64,
        ..settings()
    })
    .unwrap()
}

/// The hash of `parity/padding_rows.py`.
fn number(count: u64) -> f64 {
    let mut x = count.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    x ^= x >> 15;
    x = x.wrapping_mul(2_246_822_519) & 0xffff_ffff;
    x ^= x >> 13;
    x as f64 / 2_f64.powi(31) - 1.0
}

/// CoreNet's tensors in the order of its modules.
fn tensors() -> Tensors {
    let mut shapes = vec![("token_embeddings".to_owned(), vec![ROWS, 16], 1.0)];
    for (layer, (heads, ffn)) in [(1, 16), (2, 32)].into_iter().enumerate() {
        let mut push = |part: &str, shape: &[usize], scale| {
            shapes.push((format!("layers.{layer}.{part}"), shape.to_vec(), scale));
        };
        push("attn.qkv_proj", &[3 * heads * 8, 16], 0.5);
        push("attn.q_norm", &[8], 1.0);
        push("attn.k_norm", &[8], 1.0);
        push("attn.out_proj", &[16, heads * 8], 0.5);
        push("ffn.proj_1", &[2 * ffn, 16], 0.5);
        push("ffn.proj_2", &[16, ffn], 0.5);
        push("ffn_norm", &[16], 1.0);
        push("attn_norm", &[16], 1.0);
    }
    shapes.push(("norm".to_owned(), vec![16], 1.0));
    let mut count = 0..;
    let tensors = shapes.into_iter().map(|(name, shape, scale)| {
        let size = shape.iter().product();
        let values = count.by_ref().take(size).map(number);
        let mut values: Vec<f32> = values.map(|value| (value * scale) as f32).collect();
        if name == "token_embeddings" {
            values[32_000 * 16..]
                .iter_mut()
                .for_each(|value| *value *= 2.0);
        }
        let tensor = Tensor::of(Dtype::Float32, &shape, &values);
        (format!("{name}.weight"), tensor)
    });
    tensors.collect()
}

fn expected() -> Value {
    serde_json::from_str(include_str!("../fixtures/padding_rows.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| item.as_u64().unwrap() as u32).collect()
}

#[test]
fn kept_rows_take_part_in_predictions() {
    let folder = TempDir::new();
    let source = folder.write("corenet.pt", zip_file(&[("", &tensors())]));
    let ids = numbers(&expected()["ids"]);
    for (keep_padding_rows, rows, key) in [
        (true, ROWS, "greedy"),
        (false, 32_000, "greedy_without_padding"),
    ] {
        let target = folder.join(key);
        let options = ConvertOptions {
            keep_padding_rows,
            architecture: Some(config(32_000)),
            ..plain()
        };
        let report = convert(&source, &target, &options).unwrap();
        assert_eq!(report.verification.unwrap().tensors.identical, 18);
        assert_eq!(Config::load(&target).unwrap().vocab_size(), rows);
        let embedding = &read(&target)["transformer.token_embeddings.weight"];
        let stored = &tensors()["token_embeddings.weight"];
        assert!(embedding.bytes == stored.bytes[..rows * 16 * 4]);
        let logits = logits_after(&target, false, &ids[..ids.len() - 1]);
        let greedy = logits.chunks_exact(rows).map(|row| {
            let best = row
                .iter()
                .enumerate()
                .max_by(|(_, a), (_, b)| a.total_cmp(b));
            best.unwrap().0 as u32
        });
        assert_eq!(greedy.collect::<Vec<_>>(), numbers(&expected()[key]));
    }
}

#[test]
fn only_checkpoints_of_corenet_have_padding_rows() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let options = ConvertOptions {
        keep_padding_rows: true,
        ..plain()
    };
    let target = folder.join("target");
    let refusal = |source: &Path, options: &ConvertOptions| {
        convert(source, &target, options).unwrap_err().to_string()
    };
    let message = refusal(&folder.join("source"), &options);
    let expected = "keep_padding_rows: expected a checkpoint of CoreNet with 32128 rows of the \
                    embedding, found";
    assert_eq!(message, format!("{expected} a Hugging Face folder"));
    let stored = corenet(&random(&small(), Dtype::Float32), 96);
    let source = folder.write("small.pt", zip_file(&[("", &stored)]));
    let options = ConvertOptions {
        architecture: Some(small()),
        ..options
    };
    assert_eq!(refusal(&source, &options), format!("{expected} 96 rows"));
}

#[test]
fn pre_training_keeps_the_rows() {
    let folder = TempDir::new();
    let source = folder.write("corenet.pt", zip_file(&[("", &tensors())]));
    let ids = numbers(&expected()["ids"]);
    let rows = vec![Sequence {
        tokens: ids,
        document_starts: vec![0],
    }];
    let recipe = Recipe {
        iters: 1,
        learning_rate: 1e-3,
        warmup: 0,
    };
    let options = PretrainOptions {
        model: Some(source),
        batch_size: 1,
        dtype: Some(Dtype::Float32),
        ..PretrainOptions::new(recipe)
    };
    let rows = Box::new(MemorySource::new(rows, (0, 1)));
    let run = folder.join("run");
    let run = Pretrain::new(config(ROWS), rows, None, run, options, None).unwrap();
    let steps = run.filter_map(|event| match event.unwrap() {
        PretrainEvent::Step { step, .. } => Some(step),
        _ => None,
    });
    let steps: Vec<_> = steps.collect();
    let [step] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    let expected = expected();
    let close = |found: f32, key: &str| (f64::from(found) - expected[key].as_f64().unwrap()).abs();
    assert!(close(step.loss - step.z_loss, "loss") < 1e-5, "{step:?}");
    assert!(close(step.loss - step.z_loss, "loss_without_padding") > 1e-3);
    assert!(close(step.z_loss, "z_loss") < 1e-6, "{step:?}");
}
