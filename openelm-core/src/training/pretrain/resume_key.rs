//! The resume key of pre-training; [`crate::training::resume_key`] states the rule.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{options::PretrainOptions, validation::Validation};
use crate::{
    config::Config,
    data::Fingerprint,
    error::{Error, Result},
    training::resume_key::ResumeKey,
};

/// # Errors
/// [`Error::Io`] if the tokenizer cannot be read, [`Error::Dtype`].
pub(super) fn resume_key(config: &Config, options: &PretrainOptions) -> Result<ResumeKey> {
    let mut key = ResumeKey::new(&options.trainer);
    // A group of batches replaces gradient accumulation.
    key.set("grad_accumulation_steps", 1);
    // Seed of the initial weights; pre-training has no dropout.
    key.set("seed", options.seed);
    key.set("batch_size", options.batch_size);
    key.set("dtype", options.dtype()?.to_string());
    let config: Value = serde_json::from_str(&config.to_json()).map_err(|error| Error::Config {
        path: "config".into(),
        key: "config".into(),
        problem: error.to_string(),
    })?;
    key.set("config", config);
    key.set("tokenizer", fingerprint(options.tokenizer.as_deref())?);
    Ok(key)
}

/// Identifies the validation data, so that best losses are comparable.
pub(super) fn validation_key(options: &PretrainOptions, valid: Option<&Validation>) -> Value {
    json!({ "valid": valid.map(Validation::fingerprint), "val_windows": options.val_windows() })
}

/// A hash of the tokenizer file; `None` without a tokenizer.
fn fingerprint(tokenizer: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = tokenizer else {
        return Ok(None);
    };
    let mut file = path.to_path_buf();
    if path.is_dir() {
        let files = ["tokenizer.json", "tokenizer.model"].map(|name| path.join(name));
        let [json, model] = files;
        file = if !json.is_file() && model.is_file() {
            model
        } else {
            json
        };
    }
    let mut hash = Fingerprint::new();
    hash.bytes(&fs::read(&file).map_err(Error::io(&file))?);
    Ok(Some(hash.to_string()))
}
