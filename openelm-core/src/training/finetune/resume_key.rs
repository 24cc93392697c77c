//! The resume key of fine-tuning; [`crate::training::resume_key`] states the rule.

use std::collections::BTreeSet;

use mlx_rs::{Array, Dtype};
use serde_json::{Value, json};

use super::{
    options::{FinetuneOptions, PreferenceOptions},
    training_data::TrainingData,
};
use crate::{
    adapter::{Adapter, AdapterKind, key_of, layer_of},
    data::{Fingerprint, dataset::Example},
    error::Result,
    mlx::Matrix,
    model::Model,
    training::{
        PreferenceLoss,
        resume_key::{ResumeKey, decimal},
    },
};

pub(super) fn resume_key(
    model: &Model,
    options: &FinetuneOptions,
    adapter: &Adapter,
    train: &TrainingData,
    valid: Option<&TrainingData>,
) -> Result<ResumeKey> {
    let mut key = ResumeKey::new(&options.trainer);
    key.set("model", identity(model)?);
    key.set("batch_size", options.batch_size);
    key.set("max_seq_length", options.max_seq_length);
    if let TrainingData::Pairs(_) = train {
        let PreferenceOptions { loss, beta } = options.preference;
        key.set(
            "dpo",
            match loss {
                PreferenceLoss::Sigmoid => "sigmoid",
                PreferenceLoss::Hinge => "hinge",
            },
        );
        key.set("beta", decimal(beta));
    }
    set_adapter(&mut key, adapter);
    key.set("mlx_lm_compat", options.mlx_lm_compat);
    if options.mlx_lm_compat {
        // Validation and training draw from the same random numbers.
        key.set("steps_per_eval", options.steps_per_eval);
        key.set("valid", valid.map(fingerprint));
    }
    key.set("data", fingerprint(train));
    Ok(key)
}

/// Identifies the base model: its configuration, type, norms, and the embeddings of its first
/// tokens. A quantised model has a configuration of its own.
fn identity(model: &Model) -> Result<String> {
    let mut hash = Fingerprint::new();
    hash.bytes(model.config().to_json().as_bytes());
    let mut add = |array: &Array| -> Result<()> {
        let array = array.as_dtype(Dtype::Float32)?;
        for value in array.to_vec_exact::<f32>()? {
            hash.bytes(&value.to_le_bytes());
        }
        Ok(())
    };
    let tokens = model.config().vocab_size().min(8) as u32;
    let ids: Vec<u32> = (0..tokens).collect();
    add(&model.embed(&Array::from_slice(&ids, &[1, tokens as i32]))?)?;
    model.clone().visit_norms(&mut |_, weight| {
        add(weight)?;
        Ok(false)
    })?;
    let mut quantized = 0;
    model.clone().visit_linears(&mut |_, linear| {
        quantized += u32::from(matches!(linear.matrix, Matrix::Quantized(_)));
        Ok(())
    })?;
    let kept = match quantized {
        0 => "",
        _ => ", kept quantised,",
    };
    Ok(format!("{}{kept} with hash {hash}", model.dtype()))
}

/// Identifies the validation data, so that best losses are comparable.
pub(super) fn validation_key(options: &FinetuneOptions, valid: Option<&TrainingData>) -> Value {
    json!({ "valid": valid.map(fingerprint), "val_batches": options.val_batches })
}

/// The options of `adapter`: rank, number of layers, matrices, scale and dropout. The names
/// and shapes of all tensors are compared when the trainer is restored.
fn set_adapter(key: &mut ResumeKey, adapter: &Adapter) {
    let names = adapter.targets();
    let layers: BTreeSet<_> = names.iter().filter_map(|name| layer_of(name)).collect();
    let keys: BTreeSet<&str> = names.iter().map(|name| key_of(name)).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    key.set(
        "fine_tune_type",
        match adapter.kind() {
            AdapterKind::Lora => "lora",
            AdapterKind::Dora => "dora",
            AdapterKind::Full => "full",
        },
    );
    key.set("num_layers", layers.len());
    key.set("keys", keys.join(","));
    let modules = adapter.modules.values();
    let mut ranks: Vec<i32> = modules.clone().map(|module| module.lora_b.dim(0)).collect();
    let mut scales: Vec<f32> = modules.map(|module| module.scale).collect();
    ranks.dedup();
    scales.dedup();
    key.set("rank", one_or_all(&ranks));
    let scales: Vec<f64> = scales.into_iter().map(decimal).collect();
    key.set("scale", one_or_all(&scales));
    key.set("dropout", decimal(adapter.dropout));
    key.set("tied_head", adapter.tied_head);
}

/// A loaded adapter can have different ranks and scales per module.
fn one_or_all<T: Clone + Into<Value>>(values: &[T]) -> Value {
    match values {
        [] => Value::Null,
        [one] => one.clone().into(),
        all => all.iter().cloned().map(Into::into).collect(),
    }
}

/// Counts, and a hash of all tokens and of the target mask.
fn fingerprint(data: &TrainingData) -> String {
    let mut hash = Fingerprint::new();
    let (mut tokens, mut targets) = (0, 0);
    let mut add = |example: &Example| {
        tokens += example.tokens.len();
        targets += example.targets();
        hash.number(example.tokens.len() as u64);
        hash.number(example.first_target as u64);
        for &id in &example.tokens {
            hash.number(u64::from(id));
        }
    };
    match data {
        TrainingData::Examples(examples) => examples.iter().for_each(&mut add),
        TrainingData::Pairs(pairs) => {
            for pair in pairs {
                add(&pair.chosen);
                add(&pair.rejected);
            }
        }
    }
    format!("{targets} targets of {tokens} tokens with hash {hash}")
}
