//! Architecture of a new model.

use crate::{
    config::{LayerWiseConfig, Preset},
    tokenizer::Tokenizer,
};

/// The architecture of a new model for `tokenizer`: `preset`, or the defaults of
/// [`LayerWiseConfig`], with the tokenizer's vocabulary, BOS and EOS, then modified by `change`.
/// The rotary tables have twice the context length, as in Apple's models.
pub fn new_architecture(
    preset: Option<Preset>,
    tokenizer: &Tokenizer,
    change: impl FnOnce(&mut LayerWiseConfig),
) -> LayerWiseConfig {
    let mut config = LayerWiseConfig {
        vocab_size: tokenizer.vocab_size(),
        bos_token_id: tokenizer.bos_id() as usize,
        eos_token_id: tokenizer.eos_id() as usize,
        ..preset.map(Preset::settings).unwrap_or_default()
    };
    change(&mut config);
    config.rope_max_length = config.max_context_length.saturating_mul(2);
    config
}
