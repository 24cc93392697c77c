//! The `config.json` of CoreNet's MLX folder.

use serde_json::json;

use crate::{
    config::{Config, Preset},
    error::{Error, Result},
};

/// The text of `config.json` in CoreNet's MLX folder, which names one of the released sizes.
///
/// # Errors
/// [`Error::Option`] for another architecture.
pub(super) fn corenet_config(config: &Config) -> Result<String> {
    let is_it = |preset: &Preset| {
        let same = preset.with_vocab(config.vocab_size());
        same.is_ok_and(|same| same.tensors() == config.tensors())
    };
    let Some(preset) = Preset::ALL.into_iter().find(is_it) else {
        let problem = "corenet-mlx names one of the four released sizes, and this model is another \
                       one; write mlx, or corenet";
        return Err(Error::option("format", problem));
    };
    let json = json!({
        "model_name": preset.name(),
        "vocab_size": config.vocab_size(),
        "max_context_length": config.max_context_length(),
    });
    Ok(format!("{json:#}\n"))
}
