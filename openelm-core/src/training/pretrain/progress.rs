//! How far a run is, and whose run it is.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::PretrainOptions;
use crate::{
    config::Config,
    error::{Error, Result},
    training::changed,
};

/// What the state file keeps besides the trainer's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The options, the architecture and the tokenizer, so that no run goes on with others.
    options: String,
    config: Value,
    tokenizer: String,
    /// The source's own.
    pub(crate) source: Value,
    pub(crate) trained_tokens: u64,
    pub(crate) best: Option<(u64, f64)>,
}

impl Progress {
    /// Before the first step.
    pub(crate) fn new(config: &Config, options: &PretrainOptions) -> Result<Self> {
        Ok(Self {
            options: options.resume_key(),
            config: serde_json::from_str(&config.to_json()).unwrap_or_default(),
            tokenizer: fingerprint(options.tokenizer.as_deref())?,
            ..Self::default()
        })
    }

    /// Refuses what is kept in `state` if it is another run's.
    pub(crate) fn agree(&self, kept: &Self, state: &Path) -> Result<()> {
        let problem = if kept.config != self.config {
            let keys = self.config.as_object().into_iter().flatten();
            let differs = |(key, _): &(&String, &Value)| {
                kept.config.get(key.as_str()) != self.config.get(key.as_str())
            };
            let of = |config: &Value, key: &str| match config.get(key) {
                Some(value) => value.to_string(),
                None => "none".into(),
            };
            let changes = keys.filter(differs).map(|(key, _)| {
                let (old, new) = (of(&kept.config, key), of(&self.config, key));
                format!("{key}: {old}, now {new}")
            });
            let changes: Vec<String> = changes.collect();
            format!(
                "the run was begun with another architecture: {}",
                changes.join("; ")
            )
        } else if kept.options != self.options {
            let changes = changed(&kept.options, &self.options);
            format!("the run was begun with other options: {changes}")
        } else if kept.tokenizer != self.tokenizer {
            "the run was begun with another tokenizer".into()
        } else {
            return Ok(());
        };
        Err(Error::Target {
            path: state.to_path_buf(),
            problem,
        })
    }
}

/// A number that other files have not (FNV-1a over a tokenizer's file).
fn fingerprint(tokenizer: Option<&Path>) -> Result<String> {
    let Some(path) = tokenizer else {
        return Ok(String::new());
    };
    let file = match path.is_dir() {
        false => path.to_path_buf(),
        true => {
            let files = ["tokenizer.json", "tokenizer.model"].map(|name| path.join(name));
            let found = files.iter().find(|file| file.is_file());
            found
                .cloned()
                .unwrap_or_else(|| path.join("tokenizer.json"))
        }
    };
    let bytes = fs::read(&file).map_err(Error::io(&file))?;
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(format!("{hash:016x}"))
}
